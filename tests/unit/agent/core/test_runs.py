"""Where a run of chunks ends."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.runs import MOST_IN_RUN, run_length
from common.datagrams import (
    CHUNK_OVERHEAD_BYTES,
    FLAG_PROOF,
    HEADERS_BYTES,
    NUMBER_MASK,
    PacketType,
)
from tests.unit.agent.core.parts import HERE, a_chunk, run_at


def test_consecutive_chunks_are_one_run_whatever_their_size() -> None:
    batch = run_at(7, 100, 30)
    batch[4] = a_chunk(11, 104, size=CHUNK_OVERHEAD_BYTES)
    batch[9] = a_chunk(16, 109, size=9_000)
    assert [run_length(batch, at) for at in (0, 1, 29)] == [30, 29, 1]
    assert run_length(batch[:5], 0) == 5


@pytest.mark.parametrize(
    "other",
    [
        {"hop_number": 13},
        {"hop_number": 11},
        {"hop_number": 1 << 31},
        {"number": 106},
        {"number": 104},
        {"number": 0},
        {"kind": PacketType.REPEAT},
        {"kind": PacketType.CONTROL},
        {"tree": 2},
        {"session": 0x62},
        {"epoch": 0xFFFFFFFE},
        {"epoch": 0},
        {"age": 1},
        {"stream": 0xFFFFFFFE},
        {"stream": 0},
        {"flags": FLAG_PROOF},
        {"source": ("10.0.0.1", 4_001)},
        {"source": ("10.0.0.2", 4_000)},
        {"size": CHUNK_OVERHEAD_BYTES - 1},
        {"size": HEADERS_BYTES},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_run_ends_before_what_differs_in_anything_but_the_next_numbers(other: dict[str, Any]) -> None:
    batch = run_at(7, 100, 10)
    batch[5] = a_chunk(**{"hop_number": 12, "number": 105, **other})
    assert run_length(batch, 0) == 5
    assert run_length(batch, 6) == 4


@pytest.mark.parametrize("length", range(CHUNK_OVERHEAD_BYTES))
def test_a_run_ends_before_a_datagram_that_is_too_short_for_a_chunk(length: int) -> None:
    batch = run_at(7, 100, 3)
    batch[1] = (batch[1][0][:length], HERE)
    assert run_length(batch, 0) == 1


def test_a_run_ends_where_the_low_32_bits_of_the_hop_number_begin_anew() -> None:
    """Both numbers go on, but what is written does not: the next run begins there."""
    batch = [a_chunk((0xFFFFFFFC + step) & 0xFFFFFFFF, 100 + step) for step in range(10)]
    assert run_length(batch, 0) == 4
    assert run_length(batch, 4) == 6


def test_a_run_ends_with_the_highest_chunk_number() -> None:
    batch = [a_chunk(7, NUMBER_MASK), a_chunk(8, 0)]
    assert run_length(batch, 0) == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from([0, 1]), st.sampled_from([100, 100, 100, 39])),
        max_size=12,
    )
)
def test_the_runs_of_a_batch_are_told_apart_as_by_their_fields(steps: list[tuple[int, int, int, int]]) -> None:
    hop_number, number = 5, 50
    batch, fields = [], []
    for hop_step, step, stream, size in steps:
        hop_number, number = hop_number + hop_step, number + step
        batch.append(a_chunk(hop_number, number, stream=stream, size=size))
        fields.append((hop_number - len(batch), number - len(batch), stream, size >= CHUNK_OVERHEAD_BYTES))
    at = 0
    while at < len(batch):
        length = run_length(batch, at)
        assert all(each == fields[at] for each in fields[at + 1 : at + length] if fields[at][3])
        if at + length < len(batch) and fields[at][3]:
            assert fields[at + length] != fields[at]
        at += length


def test_a_run_is_no_longer_than_a_train() -> None:
    batch = run_at(7, 100, MOST_IN_RUN + 1)
    assert [run_length(batch, at) for at in (0, 1)] == [MOST_IN_RUN, MOST_IN_RUN]
