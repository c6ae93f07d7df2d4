"""What the local API works on: one running agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, cast

from fastapi import Depends, Request

from agent.services.driver import Driver
from agent.services.inbox import Cursors, Inbox
from agent.services.last_state import LastState
from agent.services.ledger import Ledger
from common.ids import DeviceId

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
        stopping: whether the agent is on its way out, so that open answers end.
    """

    device: DeviceId
    driver: Driver
    ledger: Ledger
    inbox: Inbox
    cursors: Cursors
    last: LastState
    shell_status: Callable[[], Mapping[str, object]]
    stopping: bool = False

    def others(self) -> tuple[DeviceId, ...]:
        """List the other members of the group as last heard, sorted."""
        return tuple(member for member in self.last.members() if member != self.device)

    def stop(self) -> None:
        """End the open answers."""
        self.stopping = True
        self.inbox.wake()
        for entry in self.ledger.entries():
            entry.news.happen()


def _of_request(request: Request) -> LocalAgent:
    return cast(LocalAgent, request.app.state.local)


Local = Annotated[LocalAgent, Depends(_of_request)]
