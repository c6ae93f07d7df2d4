"""A file far larger than any memory goes through a chain of agents, and none of them grows by more than its bound."""

from pathlib import Path

import pytest

from common.limits import STREAM_MEMORY_BYTES
from tests.system.test_agent_process import Site, site

__all__ = ["site"]  # the fixture

pytestmark = [pytest.mark.loopback, pytest.mark.soak, pytest.mark.timeout(900)]

SIZE_BYTES = 2 * 1024 * 1024 * 1024
SLACK_BYTES = 32 * 1024 * 1024
"""What an agent takes beside its streams: buffers, books of what was sent, the allocator's own."""
CHAIN = ("A", "B", "C")


def most_bytes(pid: int) -> int:
    """Return the most memory that a process has had at a time, of its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["VmHWM"].split()[0]) * 1024


def test_a_file_of_2_gib_takes_no_more_memory_than_a_stream_may(site: Site) -> None:
    for device, peers in zip(CHAIN, ("B", "AC", "B"), strict=True):
        site.start_agent(device, *(word for peer in peers for word in ("--only-peer", peer)))
    site.meet(*CHAIN)
    before = {device: most_bytes(site.processes[device].pid) for device in CHAIN}
    file = site.folder / "large.bin"
    with file.open("wb") as sparse:
        sparse.truncate(SIZE_BYTES)
    begun = site.begin("A", "send", str(file), "--timeout", "600")
    output, errors = begun.communicate(timeout=700)
    assert begun.returncode == 0, output + errors
    grown = {device: most_bytes(site.processes[device].pid) - before[device] for device in CHAIN}
    assert max(grown.values()) < STREAM_MEMORY_BYTES + SLACK_BYTES, grown
