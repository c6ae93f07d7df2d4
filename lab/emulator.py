"""A link emulator: a program outside of this project that delays and loses frames where the kernel cannot.

It is started once for each link, as ``PROGRAM /run/netns/X:IF /run/netns/Y:IF seed:N tick:US ab:KEY=VALUE,... ba:...``.
It makes the interface IF in each of both namespaces, carries Ethernet frames between them, prints ``READY``, and ends
by SIGTERM. ``ab`` and ``ba`` are the directions, with the keys ``rate`` (Mbit/s), ``queue``, ``delay``, ``jitter``
(ms), ``loss``, ``dup`` and ``reorder`` (%). ``tick`` lets it sleep in steps, in microseconds. A line on its standard
input, ``ab KEY=VALUE,...`` or ``ba ...``, changes a direction while it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Final

from lab.processes import ChildDied, cpu_seconds_of

TICK_US: Final = 250
READY_S: Final = 10.0
STOP_S: Final = 2.0


class Emulator:
    """One link's emulator.

    Attributes:
        name: For messages: ``emulator A-B``.
    """

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        """Describe it.

        Args:
            name: For messages.
            arguments: The program and its arguments.
        """
        self.name = name
        self._arguments = list(arguments)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until its interfaces are there.

        Raises:
            ChildDied: It ended, cannot be started, or was not ready in time.
        """
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
            if self._process.stdout is None:
                raise OSError("it has no output")
            async with asyncio.timeout(READY_S):
                line = await self._process.stdout.readline()
        except (OSError, TimeoutError) as error:
            raise ChildDied(f"{self.name} cannot be started: {str(error) or 'it says nothing'}") from error
        if line.strip() != b"READY":
            raise ChildDied(f"{self.name} cannot be started: {line.decode(errors='replace').strip() or 'it ended'}")

    async def tell(self, lines: Iterable[str]) -> None:
        """Change what it does to frames.

        Args:
            lines: ``ab KEY=VALUE,...`` or ``ba KEY=VALUE,...``.

        Raises:
            ChildDied: It ended.
        """
        self.check()
        if self._process is None or self._process.stdin is None:
            raise ChildDied(f"{self.name} does not run")
        try:
            self._process.stdin.writelines(f"{line}\n".encode() for line in lines)
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise ChildDied(f"{self.name} takes nothing: {error}") from error

    def check(self) -> None:
        """Make sure that it goes on.

        Raises:
            ChildDied: It ended.
        """
        if self._process is not None and self._process.returncode is not None:
            raise ChildDied(f"{self.name} ended with exit code {self._process.returncode}")

    def cpu_seconds(self) -> float:
        """Return the processor time that it used so far, in seconds."""
        if self._process is None or self._process.returncode is not None:
            return 0.0
        return cpu_seconds_of(self._process.pid)

    async def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.communicate()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
