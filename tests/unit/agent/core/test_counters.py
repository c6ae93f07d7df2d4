"""What crossed a link, counted by kind."""

import pytest

from agent.core.counters import HopCounters
from common.datagrams import PacketType


@pytest.mark.parametrize(("first_crossing", "counted"), [(True, (1, 0)), (False, (0, 1))])
def test_a_chunk_that_is_held_already_is_a_duplicate_or_a_repair(
    first_crossing: bool, counted: tuple[int, int]
) -> None:
    counters = HopCounters()
    counters.note_repeated(first_crossing=first_crossing)
    assert (counters.duplicates_received, counters.repairs_received) == counted


def test_chunks_that_were_sent_are_counted_by_what_they_went_as() -> None:
    counters = HopCounters()
    for kind, count in ((PacketType.DATA, 3), (PacketType.PULLED, 4), (PacketType.REPEAT, 5)):
        counters.note_sent(kind, count)
    assert (counters.chunks_sent, counters.pulled_sent, counters.repeats_sent) == (3, 4, 5)
