"""Which run of the host this is: until it ends, what a process wrote is there, whether or not the disk has it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def this_boot(path: Path = _BOOT_ID) -> str:
    """Return a name for the present run of the host, another one after each start; empty where nothing tells.

    Source: random(4).
    """
    try:
        return path.read_text().strip()
    except OSError:
        return ""
