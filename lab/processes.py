"""One child process of the loopback backend: started, waited for, killed, started again, and its last words read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from common.errors import ArborcastError

LOOK_S: Final = 0.02
TAIL_LINES: Final = 15


class ChildDied(ArborcastError):
    """A process ended that should have gone on; the text holds the end of its log."""


class Child:
    """A server or agent process.

    Attributes:
        name: For messages: ``server``, ``agent C``.
        running: Whether it was started and not stopped since; a process that died by itself still counts as running.
    """

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        """Describe a process.

        Args:
            name: For messages.
            arguments: The program and its arguments; ``--ready-file`` is added.
            folder: Where its log and its ready file go; made if missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.running = False
        self._ready = folder / "ready.json"
        self._log = folder / "log.txt"
        self._arguments: list[str] = []
        self.start_with(arguments)
        self._process: asyncio.subprocess.Process | None = None

    def start_with(self, arguments: Sequence[str]) -> None:
        """Take other arguments from the next start on."""
        self._arguments = [*arguments, "--ready-file", str(self._ready)]

    async def start(self) -> None:
        """Start the process."""
        self._ready.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the lab, which then stops its children in order.
            )
        self.running = True

    async def ready(self, *, within: float) -> dict[str, Any]:
        """Wait until the process says that it is ready.

        Args:
            within: Seconds before giving up.

        Returns:
            What it wrote into its ready file.

        Raises:
            ChildDied: It ended, or said nothing in time.
        """
        try:
            async with asyncio.timeout(within):
                while True:
                    self.check()
                    with contextlib.suppress(OSError, ValueError):
                        answer: dict[str, Any] = json.loads(self._ready.read_text())
                        return answer
                    await asyncio.sleep(LOOK_S)
        except TimeoutError as error:
            raise ChildDied(f"{self.name} was not ready within {within} s{self._tail()}") from error

    def check(self) -> None:
        """Make sure that the process goes on.

        Raises:
            ChildDied: It was started, not stopped, and ended.
        """
        if self.running and self._process is not None and self._process.returncode is not None:
            code = self._process.returncode
            how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
            raise ChildDied(f"{self.name} ended {how}{self._tail()}")

    @property
    def pid(self) -> int | None:
        """The process's number; None when it does not run."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    def cpu_seconds(self) -> float:
        """Return the processor time that the process used since it was started; 0 when it does not run."""
        return 0.0 if self.pid is None else cpu_seconds_of(self.pid)

    def send_signal(self, how: signal.Signals) -> None:
        """Send the process a signal; if it ends of it, it counts as having ended by itself."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, how)

    async def kill(self) -> None:
        """End the process by SIGKILL, and wait until it is gone."""
        await self._end(signal.SIGKILL)

    async def stop(self, *, within: float) -> None:
        """End the process by SIGTERM, and by SIGKILL if it does not obey.

        Args:
            within: Seconds between the two.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._end(signal.SIGTERM)
                return
        await self._end(signal.SIGKILL)

    async def _end(self, how: signal.Signals) -> None:
        self.running = False
        self.send_signal(how)
        if self._process is not None:
            await self._process.wait()

    def _tail(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        except OSError:
            lines = []
        return "; the end of its log:\n" + "\n".join(f"    {line}" for line in lines) if lines else "; its log is empty"


def cpu_seconds_of(pid: int) -> float:
    """Return the processor time of a process and its threads so far, in seconds; 0 where nothing tells (no Linux).

    Source: proc(5), fields 14 and 15 of /proc/PID/stat.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
