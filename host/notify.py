"""What a daemon tells the service manager that started it: that it is ready, lives, stops (sd_notify(3)).

The sign of life comes from the event loop itself: a loop that hangs sends none, and is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

STATUS_S: Final = 10.0
"""Seconds between two looks at the status, where no watchdog asks for more."""
_SIGNS_IN_TIME: Final = 3
"""Signs of life in the time after which a daemon counts as hung: one may come late."""


class ServiceManager:
    """Whoever listens at NOTIFY_SOCKET; nobody, if that is not set.

    Args:
        environ: this process's environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # An "@" stands for the zero byte of the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        self.watchdog_s = _watchdog_s(environ)
        """Seconds within which a sign of life has to come; None if nobody waits for one."""

    def ready(self, status: str) -> None:
        """Say that everything runs."""
        self._status = status
        self._tell("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1", "STATUS=stopping")

    async def keep_watch(self, status: Callable[[], str]) -> None:
        """Give signs of life, and the status where it has changed, until cancelled.

        Args:
            status: says in a line what the daemon does.
        """
        while self._address:
            await asyncio.sleep(STATUS_S if self.watchdog_s is None else self.watchdog_s / _SIGNS_IN_TIME)
            lines = [] if self.watchdog_s is None else ["WATCHDOG=1"]
            if (now := status()) != self._status:
                self._status = now
                lines.append(f"STATUS={now}")
            self._tell(*lines)

    def _tell(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        # Who does not listen is not waited for, and is no reason to fail.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as raw:
            raw.setblocking(False)
            raw.sendto("\n".join(line.replace("\n", " ") for line in lines).encode(), self._address)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Return the watchdog's time, if it is set for this process and not for one that started it."""
    text = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(text) / 1e6 if text.isdecimal() and int(text) else None
