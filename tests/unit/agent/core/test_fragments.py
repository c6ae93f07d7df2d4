"""Chunks in fragments: cut, joined, and what does not fit."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import fragments
from agent.core.fragments import JOIN_WITHIN_S, MAX_JOINING, Joiner, split
from common.datagrams import (
    CHUNK_HEADER,
    FRAGMENT_HEADER,
    FRAGMENT_HEADERS_BYTES,
    HOP_HEADER,
    HOP_HEADER_BYTES,
    PacketType,
    peek_chunk,
)
from common.errors import DecodeError
from common.limits import MAX_DATAGRAM_BYTES, MAX_FRAGMENTS, MIN_DATAGRAM_BYTES

DATA, REPEAT = PacketType.DATA, PacketType.REPEAT
EPOCH, TREE, SESSION = 7, 3, 9


def sealed(size: int = 1_460, number: int = 5, short: int = 0x01020304) -> bytes:
    return CHUNK_HEADER.pack(short, number) + random.Random(number).randbytes(size - CHUNK_HEADER.size)


def sent(
    chunk: bytes, mtu_bytes: int = 1_200, *, first: int = 100, kind: int = DATA, epoch: int = EPOCH
) -> list[bytes]:
    """Return a chunk's fragments as a hop sends them."""
    return [
        HOP_HEADER.pack(PacketType.FRAGMENT << 4 | TREE, SESSION, number & 0xFFFFFFFF, epoch, 0) + part
        for number, part in enumerate(split(chunk, kind, mtu_bytes), first)
    ]


def whole(chunk: bytes, *, first: int = 100, kind: int = DATA) -> bytes:
    return HOP_HEADER.pack(kind << 4 | TREE, SESSION, first, EPOCH, 0) + chunk


def add_all(joiner: Joiner, parts: list[bytes], now: float = 0.0) -> list[bytes]:
    return [joined for part in parts if (joined := joiner.add(part, now)) is not None]


@given(
    st.integers(MIN_DATAGRAM_BYTES - HOP_HEADER_BYTES + 1, MAX_DATAGRAM_BYTES - HOP_HEADER_BYTES),
    st.integers(MIN_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES),
    st.randoms(),
    st.integers(0, 0xFFFFFFFF),
)
def test_fragments_fit_the_path_and_join_in_any_order(
    size: int, mtu_bytes: int, rng: random.Random, first: int
) -> None:
    if size + HOP_HEADER_BYTES <= mtu_bytes:
        return
    chunk = sealed(size)
    parts = sent(chunk, mtu_bytes, first=first)
    assert 2 <= len(parts) <= MAX_FRAGMENTS
    assert max(map(len, parts)) <= mtu_bytes
    assert all(len(part) == len(parts[0]) for part in parts[:-1])
    rng.shuffle(parts)
    joiner = Joiner()
    assert add_all(joiner, parts) == [whole(chunk, first=first)]
    assert joiner.take_count(first, whole(chunk, first=first)) == len(parts)
    assert joiner.take_count(first, whole(chunk, first=first)) == 1


def test_what_is_joined_is_the_chunk_as_it_would_have_come_whole() -> None:
    (joined,) = add_all(Joiner(), sent(sealed(), kind=REPEAT))
    chunk = peek_chunk(joined)
    assert chunk is not None
    assert (chunk.kind, chunk.tree, chunk.epoch, chunk.number) == (REPEAT, TREE, EPOCH, 5)


def test_a_fragment_is_no_chunk_to_an_onlooker() -> None:
    assert [peek_chunk(part) for part in sent(sealed())] == [None, None]


def test_a_fragment_that_came_already_changes_nothing() -> None:
    joiner, parts = Joiner(), sent(sealed())
    assert add_all(joiner, [parts[0], parts[0]]) == []
    assert add_all(joiner, parts[1:]) == [whole(sealed())]


def test_the_fragments_of_several_chunks_may_come_mixed() -> None:
    chunks = [sealed(number=number) for number in range(1, 4)]
    parts = [part for index, chunk in enumerate(chunks) for part in sent(chunk, first=100 + 2 * index)]
    assert add_all(Joiner(), parts[::2] + parts[1::2]) == [
        whole(chunk, first=100 + 2 * index) for index, chunk in enumerate(chunks)
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": REPEAT},
        {"epoch": EPOCH + 1},
        {"chunk": sealed(short=77)},
        {"chunk": sealed(3_000)},
    ],
)
def test_a_fragment_that_contradicts_those_before_it_is_refused_and_they_stay(change: dict[str, object]) -> None:
    joiner, parts = Joiner(), sent(sealed())
    joiner.add(parts[0], 0.0)
    other = sent(**{"chunk": sealed(), **change})  # type: ignore[arg-type]
    with pytest.raises(DecodeError, match="another chunk"):
        joiner.add(other[1], 0.0)
    assert add_all(joiner, parts[1:]) == [whole(sealed())]


@pytest.mark.parametrize(
    ("kind", "place"),
    [(PacketType.CONTROL, 0x02), (PacketType.FRAGMENT, 0x02), (DATA, 0x00), (DATA, 0x01), (DATA, 0x22), (DATA, 0x09)],
)
def test_what_no_hop_sends_is_refused(kind: int, place: int) -> None:
    header = HOP_HEADER.pack(PacketType.FRAGMENT << 4, SESSION, 100, EPOCH, 0)
    with pytest.raises(DecodeError, match=f"fragment {place >> 4} of {place & 15}"):
        Joiner().add(header + FRAGMENT_HEADER.pack(1, kind, place) + b"x", 0.0)


def test_every_cut_prefix_of_a_fragments_headers_is_refused() -> None:
    part = sent(sealed())[0]
    for length in range(FRAGMENT_HEADERS_BYTES + 1):
        with pytest.raises(DecodeError, match="empty"):
            Joiner().add(part[:length], 0.0)


@given(st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_a_decode_error(noise: bytes) -> None:
    joiner = Joiner()
    try:
        assert joiner.add(noise, 0.0) is None
    except DecodeError:
        return


def test_fragments_of_more_than_a_chunk_can_have_are_refused() -> None:
    joiner = Joiner()
    parts = sent(sealed(8_000), 4_020)
    joiner.add(parts[0] + bytes(4_000), 0.0)
    with pytest.raises(DecodeError, match="a chunk has 40 to 9000"):
        joiner.add(parts[1], 0.0)
    assert joiner._size_bytes == 0


def test_what_does_not_become_whole_is_forgotten_after_a_second() -> None:
    joiner, parts = Joiner(), sent(sealed())
    joiner.add(parts[0], 0.0)
    joiner.add(sent(sealed(number=6), first=200)[0], JOIN_WITHIN_S)
    assert add_all(joiner, parts[1:], JOIN_WITHIN_S + 0.1) == []
    assert sorted(joiner._joining) == [100, 200]
    assert joiner._joining[100].parts.keys() == {1}


def test_what_waits_is_bounded_by_number_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    joiner = Joiner()
    for number in range(MAX_JOINING + 10):
        joiner.add(sent(sealed(), first=10 * number)[0], 0.0)
    assert len(joiner._joining) == MAX_JOINING
    assert min(joiner._joining) == 100
    monkeypatch.setattr(fragments, "MAX_JOINING_BYTES", 3_000)
    size = len(sent(sealed())[0])
    joiner.add(sent(sealed(), first=9_000)[0], 0.0)
    assert len(joiner._joining) == 3_000 // size
    assert joiner._size_bytes == len(joiner._joining) * size


def test_joined_chunks_that_nobody_acknowledges_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments, "MAX_JOINED", 2)
    joiner = Joiner()
    firsts = (100, 200, 300)
    for first in firsts:
        add_all(joiner, sent(sealed(), first=first))
    assert [joiner.take_count(first, whole(sealed(), first=first)) for first in firsts] == [1, 2, 2]


def test_a_chunk_that_came_whole_is_not_taken_for_one_that_was_joined_under_its_number() -> None:
    joiner = Joiner()
    add_all(joiner, sent(sealed(), first=100))
    assert joiner.take_count(100, b"another chunk") == 1
