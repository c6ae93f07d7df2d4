"""Runs: consecutive chunks in a batch of datagrams, which are handled as one from here on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agent.core.events import Address
from common.datagrams import CHUNK_OVERHEAD_BYTES, HEADERS_BYTES, NEXT_IN_RUN

MOST_IN_RUN: Final = 64
"""Chunks that are handled together at most: about a train."""


def run_length(batch: Sequence[tuple[bytes, Address]], at: int) -> int:
    """Return how many datagrams from ``at`` on carry consecutive chunks of one stream over one hop.

    Hop number and chunk number both rise by one from each to the next; nothing else in their headers differs.
    """
    first, address = batch[at]
    expected = int.from_bytes(first[:HEADERS_BYTES], "big")
    count = 1
    for datagram, source in batch[at + 1 : at + MOST_IN_RUN]:
        expected += NEXT_IN_RUN
        if int.from_bytes(datagram[:HEADERS_BYTES], "big") != expected or source != address:
            break
        if len(datagram) < CHUNK_OVERHEAD_BYTES:
            break
        count += 1
    return count
