"""How a file's way to each device is shown while it is under way."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Shown(Protocol):
    """Something that shows receipts as they change."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def update(self, receipts: Mapping[str, Mapping[str, Any]]) -> None:
        """Show where the devices are."""


class NoProgress:
    """Shows nothing: for scripts and pipes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def update(self, receipts: Mapping[str, Mapping[str, Any]]) -> None:
        """Show nothing."""


class DeviceBars:
    """One bar a device.

    Args:
        console: a terminal.
        size_bytes: of the file.
    """

    def __init__(self, console: Console, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, receipts: Mapping[str, Mapping[str, Any]]) -> None:
        """Move the bars to where the devices are."""
        for device, receipt in receipts.items():
            if device not in self._tasks:
                self._tasks[device] = self._progress.add_task(device, total=self._size_bytes, state="")
            held = self._size_bytes if receipt["state"] == "verified" else receipt["held_bytes"]
            # An empty file has no bytes to show: its bar is full when the device has verified it.
            total = self._size_bytes or (1 if receipt["state"] != "verified" else 0)
            self._progress.update(self._tasks[device], completed=held, total=total, state=receipt["state"])
            if receipt["state"] in ("verified", "refused", "cancelled"):
                self._progress.stop_task(self._tasks[device])
