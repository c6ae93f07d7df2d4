"""The sealed chunks in memory: what was put there last is there, and nothing is given out for another number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import ring as module
from agent.core.ring import LEAST_PLACES, SealedRing
from common.datagrams import CHUNK_OVERHEAD_BYTES

PIECE_BYTES = 1_000
PLACES = 100


def chunks_of(start: int, stop: int) -> list[bytes]:
    """Return made-up chunks that say their number."""
    return [b"chunk %d" % number for number in range(start, stop)]


def ring_of(places: int = PLACES) -> SealedRing:
    """Return a ring of so many places."""
    return SealedRing(places * (PIECE_BYTES + CHUNK_OVERHEAD_BYTES), PIECE_BYTES)


def held(ring: SealedRing, stop: int) -> list[int]:
    """Return the numbers below ``stop`` that are there."""
    return [number for number in range(stop) if ring.run(number, number + 1)]


def test_an_empty_ring_has_nothing() -> None:
    ring = ring_of()
    assert ring.run(1, 2) == []
    assert ring.run(1, 10 * PLACES) == []
    ring.clear()
    assert ring.run(1, 2) == []


def test_what_is_put_comes_out_in_runs() -> None:
    ring = ring_of()
    ring.put(5, chunks_of(5, 25))
    assert ring.run(5, 25) == chunks_of(5, 25)
    assert ring.run(7, 10) == chunks_of(7, 10)
    assert ring.run(7, 7) == []


def test_a_run_ends_before_the_first_chunk_that_is_not_there() -> None:
    ring = ring_of()
    ring.put(5, chunks_of(5, 9))
    ring.put(10, chunks_of(10, 12))
    assert ring.run(5, 20) == chunks_of(5, 9)
    assert ring.run(4, 20) == []
    assert ring.run(9, 20) == []
    assert ring.run(10, 20) == chunks_of(10, 12)
    assert ring.run(12, 20) == []


def test_a_run_goes_on_past_the_last_place() -> None:
    ring = ring_of()
    ring.put(PLACES - 3, chunks_of(PLACES - 3, PLACES + 4))
    assert ring.run(PLACES - 3, PLACES + 4) == chunks_of(PLACES - 3, PLACES + 4)
    assert ring.run(PLACES - 1, PLACES + 9) == chunks_of(PLACES - 1, PLACES + 4)
    assert ring.run(PLACES, PLACES + 2) == chunks_of(PLACES, PLACES + 2)
    # The same places, one round before.
    assert held(ring, PLACES) == [PLACES - 3, PLACES - 2, PLACES - 1]


def test_a_chunk_gives_way_to_the_next_one_of_its_place() -> None:
    ring = ring_of()
    ring.put(0, chunks_of(0, PLACES))
    assert ring.run(0, PLACES) == chunks_of(0, PLACES)
    ring.put(PLACES, chunks_of(PLACES, PLACES + 10))
    assert ring.run(0, PLACES) == []
    assert ring.run(10, PLACES + 10) == chunks_of(10, PLACES + 10)
    assert held(ring, 2 * PLACES) == list(range(10, PLACES + 10))
    # One that comes again, late, takes its place back.
    ring.put(3, chunks_of(3, 4))
    assert held(ring, 2 * PLACES) == [3, *range(10, PLACES + 3), *range(PLACES + 4, PLACES + 10)]


def test_no_run_is_longer_than_the_ring() -> None:
    ring = ring_of()
    ring.put(7, chunks_of(7, 7 + PLACES))
    assert ring.run(7, 7 + 3 * PLACES) == chunks_of(7, 7 + PLACES)
    assert ring.run(8, 8 + 3 * PLACES) == chunks_of(8, 7 + PLACES)


def test_of_more_chunks_than_there_are_places_as_many_are_kept_as_there_are() -> None:
    ring = ring_of()
    ring.put(30, chunks_of(30, 30 + 2 * PLACES))
    assert held(ring, 30 + 2 * PLACES) == list(range(30, 30 + PLACES))
    assert ring.run(30, 30 + 2 * PLACES) == chunks_of(30, 30 + PLACES)


def test_a_ring_that_was_cleared_has_nothing_and_takes_chunks_again() -> None:
    ring = ring_of()
    ring.put(5, chunks_of(5, 9))
    ring.clear()
    assert held(ring, 2 * PLACES) == []
    ring.put(6, chunks_of(6, 7))
    assert held(ring, 2 * PLACES) == [6]


@pytest.mark.parametrize(("limit_bytes", "places"), [(0, LEAST_PLACES), (200 * 1_040, 200), (200 * 1_040 - 1, 199)])
def test_a_ring_has_places_for_what_it_may_hold_and_for_a_train_at_least(limit_bytes: int, places: int) -> None:
    ring = SealedRing(limit_bytes, PIECE_BYTES)
    ring.put(0, chunks_of(0, 1_000))
    assert len(ring.run(0, 1_000)) == places


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "put", "put", "clear"]), st.integers(0, 60), st.integers(1, 25)), max_size=20
    ),
    st.integers(0, 80),
    st.integers(1, 40),
)
def test_a_ring_is_a_table_of_what_each_place_got_last(
    steps: list[tuple[str, int, int]], start: int, count: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST_PLACES", 10)
        ring = SealedRing(0, PIECE_BYTES)
    table: dict[int, tuple[int, bytes]] = {}
    for turn, (step, number, length) in enumerate(steps):
        if step == "clear":
            ring.clear()
            table.clear()
            continue
        chunks = [b"%d in turn %d" % (each, turn) for each in range(number, number + length)]
        ring.put(number, chunks)
        table.update((each % 10, (each, chunk)) for each, chunk in enumerate(chunks[:10], number))
    expected = []
    for number in range(start, min(start + count, start + 10)):
        there, chunk = table.get(number % 10, (-1, b""))
        if there != number:
            break
        expected.append(chunk)
    assert ring.run(start, start + count) == expected
