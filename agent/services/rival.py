"""Another agent that runs as this device: its state folder was copied, or its host cloned.

Both would have the same key, and peers would follow whoever spoke last. So the later one waits, and ends if the other
is still there when a subscription that merely lingers after a crash would be gone.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from agent.services.control_rest import NoAccess
from common.errors import RefusedError, RemoteProtocolError, TransportError
from common.limits import LEASE_S

DEVICE_IN_USE: Final = "device-in-use"
"""The server's word for it."""
WAIT_S: Final = LEASE_S + 5.0
"""Seconds for which another agent is waited out: a silent one's lease has ended by then."""
LOOK_S: Final = 1.0
"""Seconds between two questions."""


class Asked(Protocol):
    """What is needed of the REST client."""

    async def is_in_use(self) -> bool:
        """Tell whether an agent that lives is subscribed as this device."""
        ...


class Rival:
    """How long the server has spoken of another agent."""

    def __init__(self) -> None:
        self._since: float | None = None

    def lasts(self, now: float) -> bool:
        """Note that the server speaks of one; return whether it has done so for too long."""
        if self._since is None:
            self._since = now
        return now - self._since >= WAIT_S

    def gone(self) -> None:
        """Note that the server takes this one."""
        self._since = None


async def await_alone(rest: Asked, device: str, group: str) -> None:
    """Wait until no other agent runs as this device, as far as the server can tell; a server that is gone cannot.

    Raises:
        NoAccess: one goes on running.
    """
    loop = asyncio.get_running_loop()
    rival = Rival()
    while True:
        try:
            if not await rest.is_in_use():
                return
        except (RefusedError, TransportError, RemoteProtocolError):
            # Whoever attaches next is told, and tells it better.
            return
        if rival.lasts(loop.time()):
            raise NoAccess(
                DEVICE_IN_USE,
                f"another agent runs as device {device!r} of group {group!r}; stop one of them, or give this one a"
                " --device and a --state of its own",
            )
        await asyncio.sleep(LOOK_S)
