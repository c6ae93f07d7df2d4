"""A hop over a path that takes less than a stream's chunks: fragments, their acknowledgement, and their loss."""

import dataclasses

import pytest

from agent.core.cursor import Cursor
from agent.core.hop import Hop
from agent.core.mtu import SUSPECT_LOST
from common.datagrams import CHUNK_OVERHEAD_BYTES, HOP_HEADER_BYTES, PacketType, peek_chunk
from common.errors import DecodeError
from common.path_frames import MtuProbe
from tests.unit.agent.core.parts import FILE, make_hop, make_stream, sessions

DATA, REPEAT, PULLED, FRAGMENT = PacketType.DATA, PacketType.REPEAT, PacketType.PULLED, PacketType.FRAGMENT
WIDE = 1_472
PIECE_BYTES = WIDE - CHUNK_OVERHEAD_BYTES


def pair(mtu_bytes: int = WIDE) -> tuple[Hop, Hop]:
    """Return two hops back to back whose path is measured."""
    hops = tuple(make_hop(peer, session) for peer, session in zip("BA", sessions(WIDE), strict=True))
    for hop in hops:
        hop.mtu.poll_probes(0.0, 1.0)
        hop.mtu.on_answer(mtu_bytes, 0.0)
    return hops[0], hops[1]


def owed(hop: Hop, pieces: int, kind: PacketType = DATA) -> Cursor:
    """Owe a stream's first chunks, each of a full Ethernet frame."""
    opening = dataclasses.replace(FILE, size_bytes=pieces * PIECE_BYTES, piece_bytes=PIECE_BYTES)
    stream = make_stream(opening, role="source")
    plains = [bytes([number]) * PIECE_BYTES for number in range(pieces)]
    stream.keep(1, 0, stream.seal(1, 0, plains), plains)
    cursor = hop.cursors.setdefault(stream.short, Cursor(stream))
    hop.owe(cursor, 1, pieces + 1, 7, 0, kind)
    return cursor


def sent(hop: Hop, now: float) -> list[bytes]:
    return [datagram for _, train in hop.poll(now) for datagram in train]


def kinds(datagrams: list[bytes]) -> list[int]:
    return [datagram[0] >> 4 for datagram in datagrams]


def receive(hop: Hop, datagrams: list[bytes], now: float) -> list[tuple[int, PacketType]]:
    """Take datagrams at the other end as a node does; return the chunks that came."""
    found = []
    for datagram in datagrams:
        whole = hop.join(datagram, now) if datagram[0] >> 4 == FRAGMENT else datagram
        chunk = peek_chunk(whole) if whole is not None else None
        if whole is not None and chunk is not None:
            hop.on_chunks(int.from_bytes(whole[2:6], "big"), [whole], now)
            found.append((chunk.number, chunk.kind))
    return found


def acknowledge(one: Hop, other: Hop, now: float) -> None:
    """Let the other end's acknowledgement arrive."""
    for datagram in sent(other, now):
        for frame in one.open_control(datagram, now):
            one.on_ack(frame, now)  # type: ignore[arg-type]


def test_a_chunk_that_fits_goes_whole_and_one_that_does_not_in_fragments() -> None:
    wide, _ = pair()
    owed(wide, 3)
    assert kinds(sent(wide, 0.0)) == [DATA] * 3
    narrow, _ = pair(1_372)
    owed(narrow, 3)
    datagrams = sent(narrow, 0.0)
    assert kinds(datagrams) == [FRAGMENT] * 6
    assert max(map(len, datagrams)) <= 1_372
    assert narrow.counters.chunks_sent == 3
    assert narrow.counters.data_bytes_sent == sum(map(len, datagrams))


@pytest.mark.parametrize("kind", [DATA, PULLED])
def test_all_fragments_of_a_chunk_are_acknowledged_when_it_is_whole_and_not_before(kind: PacketType) -> None:
    one, other = pair(1_372)
    cursor = owed(one, 1, kind)
    first, second = sent(one, 0.0)
    assert receive(other, [second], 0.1) == []
    assert not sent(other, 0.2)
    assert receive(other, [first], 0.2) == [(1, kind)]
    acknowledge(one, other, 0.3)
    assert list(cursor.acked) == [(1, 2)]
    assert one.recovery.in_flight == one.recovery.in_flight_bytes == 0
    assert other.counters.bytes_received == one.counters.data_bytes_sent - WIDE


def test_a_chunk_with_a_lost_fragment_goes_again_whole_and_once() -> None:
    one, other = pair(1_372)
    cursor = owed(one, 4)
    datagrams = sent(one, 0.0)
    assert receive(other, datagrams[1:], 0.1) == [(2, DATA), (3, DATA), (4, DATA)]
    acknowledge(one, other, 0.11)
    again = sent(one, 0.11)
    assert kinds(again) == [FRAGMENT] * 2
    assert receive(other, again, 0.2) == [(1, REPEAT)]
    acknowledge(one, other, 0.3)
    assert list(cursor.acked) == [(1, 5)]
    assert not sent(one, 1.0)
    assert (one.counters.chunks_sent, one.counters.repeats_sent) == (4, 1)


def test_a_chunk_whose_fragments_are_given_up_one_after_the_other_goes_again_once() -> None:
    one, _ = pair(1_252)
    one.mtu.mtu_bytes = 500  # No path takes so little; it makes a chunk of more fragments than a timeout gives up.
    owed(one, 1)
    assert kinds(sent(one, 0.0)) == [FRAGMENT] * 4
    one.handle_timeout(5.0)
    assert len(sent(one, 5.0)) == 4
    one.handle_timeout(10.0)
    assert not sent(one, 10.0)
    assert one.counters.repeats_sent == 1
    # Both halves of the first set are gone, so the next timeout finds the second set.
    one.handle_timeout(20.0)
    assert len(sent(one, 20.0)) == 4
    assert one.counters.repeats_sent == 2


def test_a_fragment_of_another_session_is_refused() -> None:
    one, other = pair(1_372)
    owed(one, 1)
    datagram = bytearray(sent(one, 0.0)[0])
    datagram[1] ^= 1
    with pytest.raises(DecodeError, match="old session"):
        other.join(bytes(datagram), 0.0)


def test_large_chunks_that_are_lost_in_a_row_make_the_size_suspect() -> None:
    one, other = pair()
    owed(one, SUSPECT_LOST + 2)
    datagrams = sent(one, 0.0)
    due = one.mtu.poll_timeout()
    receive(other, datagrams[:1], 0.1)
    acknowledge(one, other, 0.2)
    assert one.mtu.poll_timeout() == due
    now = 0.2
    while one.mtu.poll_timeout() == due:
        now += 1.0
        one.handle_timeout(now)
        sent(one, now)
    assert one.recovery.packets_lost >= SUSPECT_LOST
    assert one.mtu.poll_probes(now, 1.0)[-1] == 1_200


def test_a_probe_has_a_datagram_of_its_size_to_itself_and_is_not_in_flight() -> None:
    one, other = pair()
    for size in (WIDE, 1_252):
        one.send(MtuProbe(size), reliable=False)
    datagrams = sent(one, 0.0)
    assert [len(datagram) for datagram in datagrams] == [WIDE, 1_252]
    assert one.recovery.in_flight == 0
    assert one.poll_timeout(0.0) is None
    assert [other.open_control(datagram, 0.0) for datagram in datagrams] == [[MtuProbe(WIDE)], [MtuProbe(1_252)]]
    assert not sent(other, 1.0)


def test_the_header_of_a_joined_chunk_is_that_of_a_whole_one() -> None:
    wide, _ = pair()
    narrow, other = pair(1_372)
    for hop in (wide, narrow):
        owed(hop, 1)
    (whole,) = sent(wide, 0.0)
    first, second = sent(narrow, 0.0)
    assert other.join(first, 0.0) is None
    joined = other.join(second, 0.0)
    assert joined is not None
    assert joined[:HOP_HEADER_BYTES] == whole[:HOP_HEADER_BYTES]
