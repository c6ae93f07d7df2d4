"""How far each device is, live on a terminal and silent elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from common.ids import DeviceId


class Watcher(Protocol):
    """Is told how a run goes on."""

    def say(self, sentence: str) -> None:
        """Hear what is being done or has happened."""

    def begin(self, devices: Sequence[DeviceId], size_bytes: int) -> None:
        """Learn that a file of ``size_bytes`` is on its way to ``devices``."""

    def progress(self, device: DeviceId, held_bytes: int) -> None:
        """Learn how much of it a device holds."""


class QuietWatcher:
    """Hears nothing: for scripts and tests."""

    def say(self, sentence: str) -> None:
        """Drop a sentence."""

    def begin(self, devices: Sequence[DeviceId], size_bytes: int) -> None:
        """Drop the start."""

    def progress(self, device: DeviceId, held_bytes: int) -> None:
        """Drop the progress."""


class LiveWatcher:
    """Draws one bar for each device on a terminal; sentences scroll by above the bars."""

    def __init__(self, console: Console) -> None:
        """Prepare to draw; use it as a context manager."""
        self._console = console
        self._tasks: dict[DeviceId, TaskID] = {}
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bars away."""
        self._bars.stop()

    def say(self, sentence: str) -> None:
        """Print a sentence above the bars."""
        self._console.print(sentence, style="dim", highlight=False)

    def begin(self, devices: Sequence[DeviceId], size_bytes: int) -> None:
        """Draw an empty bar for each device."""
        for device in devices:
            self._tasks[device] = self._bars.add_task(device, total=max(size_bytes, 1))

    def progress(self, device: DeviceId, held_bytes: int) -> None:
        """Fill a device's bar."""
        task = self._tasks.get(device)
        if task is not None:
            self._bars.update(task, completed=held_bytes)
