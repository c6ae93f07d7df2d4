"""What the local API works on: one running agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Final, cast

from fastapi import Depends, Query
from starlette.requests import HTTPConnection

from agent.api.problems import Problem
from agent.services.changes import Changes
from agent.services.driver import Driver
from agent.services.inbox import Cursors, Inbox
from agent.services.last_state import LastState
from agent.services.ledger import Ledger
from common.ids import ID_PATTERN, ChannelId, DeviceId

NDJSON: Final = "application/x-ndjson"
ALIVE_S: Final = 5.0
"""Seconds of silence after which an open answer says that it is still there."""


@dataclass(slots=True)
class LocalAgent:
    """The parts of a running agent that commands reach.

    Attributes:
        device: its name.
        driver: feeds the core.
        ledger: what became of each stream.
        inbox: received messages.
        cursors: what consumers acknowledged.
        last: what the server said last.
        shell_status: what the shell adds to the core's status.
        changes: what changed lately.
        stopping: whether the agent is on its way out, so that open answers end.
    """

    device: DeviceId
    driver: Driver
    ledger: Ledger
    inbox: Inbox
    cursors: Cursors
    last: LastState
    shell_status: Callable[[], Mapping[str, object]]
    changes: Changes = field(default_factory=Changes)
    stopping: bool = False

    def others(self) -> tuple[DeviceId, ...]:
        """List the other members of the group as last heard, sorted."""
        return tuple(member for member in self.last.members() if member != self.device)

    def check_message_channel(self, channel: ChannelId) -> None:
        """Refuse what is no message channel, as far as the group's channels are known.

        Raises:
            Problem: unknown-channel or wrong-kind.
        """
        if self.last.channels is None:
            return
        spec = self.last.channel(channel)
        if spec is None:
            raise Problem(HTTPStatus.NOT_FOUND, "unknown-channel", f"the group has no channel {channel!r}")
        if spec.kind != "message":
            raise Problem(HTTPStatus.CONFLICT, "wrong-kind", f"channel {channel!r} carries files, not messages")

    def stop(self) -> None:
        """End the open answers."""
        self.stopping = True
        self.inbox.wake()
        for entry in self.ledger.entries():
            entry.news.happen()


async def _local(connection: HTTPConnection) -> LocalAgent:
    # A coroutine although it awaits nothing: FastAPI would call a plain function in a thread, for each request.
    return cast(LocalAgent, connection.app.state.local)


Local = Annotated[LocalAgent, Depends(_local)]
Name = Annotated[str, Query(pattern=ID_PATTERN)]
"""A query parameter that names a channel."""
