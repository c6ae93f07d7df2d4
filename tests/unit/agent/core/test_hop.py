"""Two hops back to back: what is owed arrives through any loss, and what is forged changes nothing."""

import heapq
import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.acks import PACKETS_PER_ACK
from agent.core.cursor import Cursor
from agent.core.frame_queue import CONTROL_BYTES
from agent.core.hop import Hop
from agent.core.memory_store import MemoryStreamStore
from agent.core.rangeset import RangeSet
from agent.core.scheduler import QUANTUM_BYTES
from agent.core.stream import Stream
from common.datagrams import BOTH_HEADERS, HOP_HEADER, HOP_HEADER_BYTES, PacketType, peek_chunk
from common.errors import DecodeError
from common.frames import Frame
from common.limits import HOP_WINDOW, MAX_FRAMES_QUEUED
from common.link_frames import Ack, Probe
from common.sealing import Sealer
from common.stream_frames import AskOpening, Stop, StreamOpening
from tests.unit.agent.core.parts import MESSAGE, make_hop, make_hops, make_stream, of_size, sessions

DATA, REPEAT, PULLED = PacketType.DATA, PacketType.REPEAT, PacketType.PULLED


def filled(stream: Stream, *sizes: int) -> Stream:
    """Keep chunks of these plain bytes in a stream, from number 1 on."""
    plains = [bytes(size) for size in sizes]
    stream.keep(1, 0, stream.seal(1, 0, plains), plains)
    return stream


def full_stream(pieces: int, *, urgent: bool = False, sockets: str = "shared") -> Stream:
    """Return a stream at its source with all its chunks in the ring."""
    opening = MESSAGE if urgent else of_size(pieces * 1_000)
    return filled(make_stream(opening, role="source", sockets=sockets), *[1_000] * pieces)


def cursor_at(hop: Hop, stream: Stream, pieces: int, kind: PacketType = DATA, epoch: int = 7) -> Cursor:
    """Owe chunks 1 to ``pieces`` of a stream on a hop."""
    cursor = hop.cursors.setdefault(stream.short, Cursor(stream))
    hop.owe(cursor, 1, pieces + 1, epoch, 0, kind)
    return cursor


def poll(hop: Hop, now: float) -> list[bytes]:
    """Return all datagrams that may go now."""
    return [datagram for _, train in hop.poll(now) for datagram in train]


def chunks_of(datagrams: list[bytes]) -> list[tuple[int, PacketType]]:
    """Return the number and kind of each chunk among datagrams."""
    return [(seen.number, seen.kind) for datagram in datagrams if (seen := peek_chunk(datagram)) is not None]


@dataclass
class Net:
    """Two hops, and between them a network that loses, repeats and holds back."""

    hops: tuple[Hop, Hop]
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    loss: float = 0.0
    repeat: float = 0.0
    jitter_s: float = 0.0
    now: float = 0.0
    frames: tuple[list[Frame], list[Frame]] = field(default_factory=lambda: ([], []))
    chunks: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    sent: int = 0
    _flying: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)

    def run(self, until: float) -> None:
        """Let time pass until nothing is left to do, or ``until``."""
        while self.now < until:
            for end, hop in enumerate(self.hops):
                hop.handle_timeout(self.now)
                for datagram in poll(hop, self.now):
                    self._send(1 - end, datagram)
            times = [at for hop in self.hops if (at := hop.poll_timeout(self.now)) is not None]
            if self._flying:
                times.append(self._flying[0][0])
            if not times:
                return
            self.now = max(self.now, min(times))
            while self._flying and self._flying[0][0] <= self.now:
                _, _, end, datagram = heapq.heappop(self._flying)
                self._arrive(end, datagram)

    def _send(self, end: int, datagram: bytes) -> None:
        self.sent += 1
        copies = 2 if self.rng.random() < self.repeat else 1
        for _ in range(copies):
            if self.rng.random() >= self.loss:
                at = self.now + 0.005 + self.rng.random() * self.jitter_s
                heapq.heappush(self._flying, (at, next(self._order), end, datagram))

    def _arrive(self, end: int, datagram: bytes) -> None:
        hop = self.hops[end]
        if datagram[0] >> 4 == PacketType.CONTROL:
            try:
                found = hop.open_control(datagram, self.now)
            except DecodeError:
                return  # The network's second copy.
            for frame in found:
                if isinstance(frame, Ack):
                    hop.on_ack(frame, self.now)
                else:
                    self.frames[end].append(frame)
            return
        _, _, low, _, _, _, word = BOTH_HEADERS.unpack_from(datagram)
        hop.on_chunks(low, [b""], self.now)
        self.chunks[end].append(word & 0xFFFF)


def test_an_idle_hop_has_nothing_to_send_and_nothing_to_wait_for() -> None:
    hop, _ = make_hops()
    assert hop.idle
    assert hop.poll(0.0) == []
    assert hop.poll_timeout(0.0) is None
    hop.handle_timeout(10.0)
    assert hop.poll(10.0) == []


@given(
    st.integers(0, 1 << 32),
    st.sampled_from([0.0, 0.05, 0.4]),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from([0.0, 0.02]),
)
def test_every_chunk_and_every_reliable_frame_arrives_through_loss_repeats_and_reordering(
    seed: int, loss: float, repeat: float, jitter_s: float
) -> None:
    one, other = make_hops()
    net = Net((one, other), random.Random(seed), loss, repeat, jitter_s)
    cursor_at(one, full_stream(40), 40)
    back = cursor_at(other, full_stream(10), 10, PULLED)
    for number in range(30):
        one.send(AskOpening(number))
        other.send(Stop(number))
    net.run(until=200.0)
    assert set(net.chunks[1]) == set(range(1, 41))
    assert set(net.chunks[0]) == set(range(1, 11))
    assert {frame.stream for frame in net.frames[1] if isinstance(frame, AskOpening)} == set(range(30))
    assert {frame.stream for frame in net.frames[0] if isinstance(frame, Stop)} == set(range(30))
    assert list(back.acked) == [(1, 11)]
    assert one.recovery.in_flight == other.recovery.in_flight == 0
    assert one.recovery.bogus_acks == one.bogus_numbers == other.bogus_numbers == 0
    assert one.counters.chunks_sent == 40


def test_a_good_link_carries_each_chunk_and_each_frame_once_and_few_acknowledgements() -> None:
    one, other = make_hops()
    net = Net((one, other))
    cursor_at(one, full_stream(100), 100)
    one.send(Stop(1))
    net.run(until=60.0)
    assert net.chunks[1] == list(range(1, 101))
    assert net.frames[1] == [Stop(1)]
    assert one.counters.chunks_sent == 100
    assert one.counters.repeats_sent == other.counters.repeats_sent == 0
    assert net.sent - 101 <= 100 // PACKETS_PER_ACK + 2
    assert one.counters.data_bytes_sent == 100 * (1_000 + 40)
    assert one.counters.bytes_sent > one.counters.data_bytes_sent


# --- frames -------------------------------------------------------------------------------------------------------


def test_frames_share_datagrams_that_keep_to_the_least_size() -> None:
    hop, other = make_hops()
    for number in range(400):
        hop.send(AskOpening(number))
    hop.send(StreamOpening(bytes(1_150)))
    hop.send(AskOpening(400))
    datagrams = poll(hop, 0.0)
    assert max(len(datagram) for datagram in datagrams) <= CONTROL_BYTES
    found = [frame for datagram in datagrams for frame in other.open_control(datagram, 0.0)]
    assert found == [*map(AskOpening, range(400)), StreamOpening(bytes(1_150)), AskOpening(400)]
    assert len(datagrams) == 4


def test_an_unreliable_frame_goes_once_even_if_it_is_lost() -> None:
    hop, _ = make_hops()
    hop.send(Probe(1, 0, 0, 1, 0, 250, 9), reliable=False)
    assert hop.poll_timeout(5.0) == 5.0
    assert len(poll(hop, 5.0)) == 1
    assert hop.idle
    assert hop.poll_timeout(5.0) is None
    assert hop.recovery.in_flight == 0


def test_a_lost_reliable_frame_goes_again_under_a_new_number() -> None:
    hop, other = make_hops()
    hop.send(Stop(7))
    (lost,) = poll(hop, 0.0)
    at = hop.poll_timeout(0.0)
    assert at is not None
    hop.handle_timeout(at)
    (again,) = poll(hop, at)
    assert lost[:HOP_HEADER_BYTES] != again[:HOP_HEADER_BYTES]
    assert other.open_control(again, at) == [Stop(7)]


def test_an_acknowledgement_rides_along_with_what_goes_anyway() -> None:
    one, other = make_hops()
    one.send(Stop(7))
    (datagram,) = poll(one, 0.0)
    other.open_control(datagram, 0.01)
    other.send(Probe(1, 0, 0, 1, 0, 250, 9), reliable=False)
    (answer,) = poll(other, 0.012)
    found = one.open_control(answer, 0.02)
    assert found == [Ack(1, 2_000, ((1, 2),)), Probe(1, 0, 0, 1, 0, 250, 9)] or found[0] == Ack(1, 1_999, ((1, 2),))
    assert other.poll_timeout(0.012) is None


def test_acknowledgements_and_probes_are_not_acknowledged() -> None:
    one, other = make_hops()
    one.send(Probe(1, 0, 0, 1, 0, 250, 9), reliable=False)
    (datagram,) = poll(one, 0.0)
    other.open_control(datagram, 0.0)
    assert other.poll_timeout(0.0) is None


# --- what is forged -----------------------------------------------------------------------------------------------


def test_a_replayed_control_datagram_is_refused() -> None:
    one, other = make_hops()
    one.send(Stop(7))
    (datagram,) = poll(one, 0.0)
    assert other.open_control(datagram, 0.0) == [Stop(7)]
    with pytest.raises(DecodeError, match="replayed"):
        other.open_control(datagram, 0.1)


def test_every_changed_byte_of_a_control_datagram_is_noticed_and_leaves_the_true_one_good() -> None:
    one, other = make_hops()
    one.send(Stop(7))
    (datagram,) = poll(one, 0.0)
    for at in range(len(datagram)):
        forged = bytearray(datagram)
        forged[at] ^= 1
        with pytest.raises(DecodeError):
            other.open_control(bytes(forged), 0.0)
    assert other.open_control(datagram, 0.0) == [Stop(7)]


def test_a_control_datagram_does_not_open_at_its_own_sender() -> None:
    one, _ = make_hops()
    one.send(Stop(7))
    (datagram,) = poll(one, 0.0)
    with pytest.raises(DecodeError, match="does not authenticate"):
        one.open_control(datagram, 0.0)


def test_authentic_frames_that_do_not_parse_are_refused() -> None:
    session, back = sessions()
    hop = make_hop("B", session)
    header = HOP_HEADER.pack(PacketType.CONTROL << 4, 97, 5, 0, 0)
    datagram = header + Sealer(back.send_key).seal(5, header, b"\xff\xff")
    with pytest.raises(DecodeError):
        hop.open_control(datagram, 0.0)
    assert hop.poll_timeout(0.0) is None


def test_control_numbers_past_32_bits_travel_whole() -> None:
    session, back = sessions()
    hop = make_hop("B", session)
    number = (3 << 32) | 5
    header = HOP_HEADER.pack(PacketType.CONTROL << 4, 97, 5, 3, 0)
    datagram = header + Sealer(back.send_key).seal(number, header, b"")
    assert hop.open_control(datagram, 0.0) == []
    with pytest.raises(DecodeError, match="replayed"):
        hop.open_control(datagram, 0.0)


def test_an_acknowledgement_after_hours_says_no_longer_delay_than_its_field_takes() -> None:
    one, other = make_hops()
    other.on_chunks(1, [b""], 0.0)
    (datagram,) = poll(other, 10_000.0)
    (found,) = one.open_control(datagram, 10_000.0)
    assert found == Ack(1, 0xFFFFFFFF, ((1, 2),))


def test_an_acknowledgement_of_a_number_never_sent_is_counted_and_acknowledges_only_what_was_sent() -> None:
    hop, _ = make_hops()
    cursor = cursor_at(hop, full_stream(3), 3)
    poll(hop, 0.0)
    for ack in (Ack(4, 0, ((4, 5),)), Ack(1 << 60, 0, ())):
        hop.on_ack(ack, 0.1)
    assert hop.recovery.bogus_acks == 2
    assert hop.recovery.in_flight == 3
    assert not cursor.acked
    hop.on_ack(Ack(1 << 50, 0, ((1, 1 << 50),)), 0.1)
    assert hop.recovery.bogus_acks == 3
    assert list(cursor.acked) == [(1, 4)]


def test_a_hop_number_claimed_outside_the_window_is_counted_and_not_acknowledged() -> None:
    hop, _ = make_hops()
    hop.on_chunks(1, [b""], 0.0)
    hop.on_chunks(HOP_WINDOW // 2 + 1, [b""], 0.0)
    hop.on_chunks(0x80000000, [b""], 0.0)
    assert hop.bogus_numbers == 2
    (datagram,) = poll(hop, 1.0)
    _, peer = make_hops()
    assert peer.open_control(datagram, 1.0) == [Ack(1, 1_000_000, ((1, 2),))]


def test_a_hop_number_claimed_inside_the_window_is_believed_but_does_not_move_it() -> None:
    hop, _ = make_hops()
    hop.on_chunks(HOP_WINDOW // 2, [b""], 0.0)
    hop.on_chunks(1, [b""], 0.0)
    assert hop.bogus_numbers == 0
    hop.on_chunks(HOP_WINDOW // 2 + 2, [b""], 0.0)
    assert hop.bogus_numbers == 1


def test_only_an_authentic_control_datagram_moves_the_window() -> None:
    session, back = sessions()
    hop = make_hop("B", session)
    number = HOP_WINDOW
    header = HOP_HEADER.pack(PacketType.CONTROL << 4, 97, number, 0, 0)
    hop.open_control(header + Sealer(back.send_key).seal(number, header, b""), 0.0)
    hop.on_chunks(number + 1, [b""], 0.0)
    assert hop.bogus_numbers == 0
    hop.on_chunks(1, [b""], 0.0)
    assert hop.bogus_numbers == 1


# --- chunks -------------------------------------------------------------------------------------------------------


def test_the_hop_header_names_type_tree_session_epoch_and_number() -> None:
    hop, _ = make_hops()
    stream = full_stream(1)
    hop.owe(hop.cursors.setdefault(stream.short, Cursor(stream)), 1, 2, 0xABCDEF01, 3, DATA)
    (datagram,) = poll(hop, 0.0)
    assert HOP_HEADER.unpack_from(datagram) == (DATA << 4 | 3, hop.session.remote[0], 1, 0xABCDEF01, 0)
    assert datagram[HOP_HEADER_BYTES:] == stream.sealed(1, 2)[0]


@pytest.mark.parametrize(("kind", "again", "counted"), [(DATA, REPEAT, (5, 1, 0)), (PULLED, PULLED, (0, 0, 6))])
def test_a_lost_chunk_goes_again_as_a_repeat_and_a_pulled_one_as_pulled(
    kind: PacketType, again: PacketType, counted: tuple[int, int, int]
) -> None:
    hop, _ = make_hops()
    cursor_at(hop, full_stream(5), 5, kind)
    assert chunks_of(poll(hop, 0.0)) == [(number, kind) for number in range(1, 6)]
    hop.on_ack(Ack(5, 0, ((2, 6),)), 0.1)
    assert chunks_of(poll(hop, 0.1)) == [(1, again)]
    counters = hop.counters
    assert (counters.chunks_sent, counters.repeats_sent, counters.pulled_sent) == counted


def test_a_chunk_owed_twice_crosses_the_second_time_as_a_repeat() -> None:
    hop, _ = make_hops()
    stream = full_stream(1)
    cursor_at(hop, stream, 1)
    poll(hop, 0.0)
    cursor_at(hop, stream, 1)
    assert chunks_of(poll(hop, 0.1)) == [(1, REPEAT)]
    assert (hop.counters.chunks_sent, hop.counters.repeats_sent) == (1, 1)


def test_a_chunk_that_was_given_up_and_arrived_after_all_is_acknowledged() -> None:
    hop, _ = make_hops()
    cursor = cursor_at(hop, full_stream(5), 5)
    poll(hop, 0.0)
    hop.on_ack(Ack(5, 0, ((2, 6),)), 0.1)
    hop.on_ack(Ack(5, 0, ((1, 6),)), 0.11)
    assert list(cursor.acked) == [(1, 6)]


def test_the_losses_of_a_stream_that_was_dropped_are_not_sent_again() -> None:
    hop, _ = make_hops()
    cursor = cursor_at(hop, full_stream(5), 5)
    poll(hop, 0.0)
    hop.drop(cursor)
    hop.drop(cursor)
    hop.on_ack(Ack(5, 0, ((2, 6),)), 0.1)
    assert hop.idle
    assert hop.cursors == {}


def test_what_the_peer_reports_meanwhile_and_what_cannot_be_sealed_is_passed_over() -> None:
    hop, _ = make_hops()
    stream = full_stream(4)
    cursor = cursor_at(hop, stream, 6)
    cursor.reported.add_range(1, 3)
    assert chunks_of(poll(hop, 0.0)) == [(3, DATA), (4, DATA)]
    assert hop.idle


def test_a_cursor_with_nothing_owed_is_not_woken() -> None:
    hop, _ = make_hops()
    hop.wake(Cursor(full_stream(1)))
    assert hop.idle


def test_messages_go_ahead_of_files() -> None:
    hop, _ = make_hops()
    file, message = full_stream(2), full_stream(2, urgent=True)
    cursor_at(hop, file, 2)
    cursor_at(hop, message, 2)
    seen = [peek_chunk(datagram) for datagram in poll(hop, 0.0)]
    assert [crossing.stream for crossing in seen if crossing is not None] == [message.short] * 2 + [file.short] * 2


def test_a_channel_with_its_own_sockets_makes_trains_of_its_own() -> None:
    hop, _ = make_hops()
    cursor_at(hop, full_stream(2, urgent=True, sockets="per-channel"), 2)
    cursor_at(hop, full_stream(2), 2)
    hop.send(Stop(1))
    assert [(channel, len(train)) for channel, train in hop.poll(0.0)] == [(None, 1), ("messages", 2), (None, 2)]


def test_no_more_is_under_way_than_the_window_takes() -> None:
    hop, _ = make_hops(window_bytes=5_000)
    cursor_at(hop, full_stream(40), 40)
    sent = chunks_of(poll(hop, 0.0))
    assert 5_000 <= len(sent) * 1_040 < 5_000 + 1_040
    assert not hop.room()
    assert poll(hop, 0.0) == []
    timeout = hop.poll_timeout(0.0)
    assert timeout == hop.recovery.pto_at()
    hop.on_ack(Ack(len(sent), 0, ((1, len(sent) + 1),)), 0.05)
    assert hop.room()
    assert chunks_of(poll(hop, 0.05))


def test_control_datagrams_spend_nothing_of_the_pace_of_chunks() -> None:
    hop, _ = make_hops(rate_bytes_s=100_000)
    cursor_at(hop, full_stream(1), 1)
    for number in range(MAX_FRAMES_QUEUED):
        hop.send(Stop(number))
    assert hop.poll_timeout(0.0) == 0.0
    assert chunks_of(poll(hop, 0.0)) == [(1, DATA)], "frames ahead of it do not make it wait"


def test_the_pace_is_kept_between_trains() -> None:
    hop, _ = make_hops(rate_bytes_s=100_000)
    cursor_at(hop, full_stream(40), 40)
    sent, now = 0, 0.0
    while now < 0.05:
        sent += len(chunks_of(poll(hop, now)))
        at = hop.poll_timeout(now)
        assert at is not None
        now = max(at, now + 0.0005)
    assert sent * 1_040 <= 100_000 * 2.77 * 0.05 + 10 * 1_200


def test_a_probe_timeout_sends_the_oldest_chunks_again() -> None:
    hop, _ = make_hops()
    cursor_at(hop, full_stream(3), 3)
    poll(hop, 0.0)
    at = hop.poll_timeout(0.0)
    assert at is not None
    hop.handle_timeout(at - 0.001)
    assert poll(hop, at - 0.001) == []
    hop.handle_timeout(at)
    assert chunks_of(poll(hop, at)) == [(1, REPEAT), (2, REPEAT)]


def test_a_chunk_overtaken_by_time_is_sent_again() -> None:
    hop, _ = make_hops()
    cursor_at(hop, full_stream(2), 2)
    poll(hop, 0.0)
    hop.on_ack(Ack(2, 0, ((2, 3),)), 0.05)
    assert poll(hop, 0.05) == []
    at = hop.recovery.loss_at()
    assert at is not None
    assert hop.poll_timeout(0.05) == at
    hop.handle_timeout(at)
    assert chunks_of(poll(hop, at)) == [(1, REPEAT)]


# --- runs ---------------------------------------------------------------------------------------------------------


def streams_of(datagrams: list[bytes]) -> list[int]:
    """Return the stream of each chunk among datagrams."""
    return [seen.stream for datagram in datagrams if (seen := peek_chunk(datagram)) is not None]


def hop_numbers(datagrams: list[bytes]) -> list[int]:
    """Return the low 32 bits of each datagram's hop number."""
    return [HOP_HEADER.unpack_from(datagram)[2] for datagram in datagrams]


def test_what_is_owed_in_a_row_goes_in_a_row() -> None:
    hop, _ = make_hops()
    cursor = cursor_at(hop, full_stream(40), 40)
    datagrams = poll(hop, 0.0)
    assert chunks_of(datagrams) == [(number, DATA) for number in range(1, 41)]
    assert hop_numbers(datagrams) == list(range(1, 41))
    assert list(cursor.crossed) == list(cursor.flying) == [(1, 41)]
    assert hop.recovery.in_flight_bytes == sum(map(len, datagrams))
    assert hop.counters.data_bytes_sent == hop.counters.bytes_sent == sum(map(len, datagrams))


def test_hop_numbers_go_on_past_32_bits_in_the_middle_of_a_train() -> None:
    hop, _ = make_hops()
    hop._number = (1 << 32) - 3
    cursor = cursor_at(hop, full_stream(6), 6)
    assert hop_numbers(poll(hop, 0.0)) == [0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF, 0, 1, 2]
    first = (1 << 32) - 3
    hop.on_ack(Ack(first + 5, 0, ((first, first + 6),)), 0.1)
    assert list(cursor.acked) == [(1, 7)]


def test_what_came_in_a_row_is_acknowledged_in_one_go() -> None:
    one, other = make_hops()
    other.on_chunks(3, [b""] * 5, 0.0)
    other.on_chunks(8, [b""] * (PACKETS_PER_ACK - 5), 0.0)
    (datagram,) = poll(other, 0.0)
    assert one.open_control(datagram, 0.0) == [Ack(PACKETS_PER_ACK + 2, 0, ((3, PACKETS_PER_ACK + 3),))]


def test_a_run_claimed_outside_the_window_is_counted_by_its_packets() -> None:
    hop, _ = make_hops()
    hop.on_chunks(HOP_WINDOW // 2 + 1, [b""] * 7, 0.0)
    assert hop.bogus_numbers == 7
    assert hop.poll_timeout(0.0) is None


def test_chunks_of_several_sizes_are_in_flight_and_lost_by_the_bytes_of_each() -> None:
    hop, _ = make_hops()
    sizes = [1_000, 1_000, 500, 1_000, 20, 20, 20, 0, 1_000]
    cursor = cursor_at(hop, filled(make_stream(MESSAGE, role="source"), *sizes), len(sizes))
    datagrams = poll(hop, 0.0)
    assert [len(datagram) for datagram in datagrams] == [size + 40 for size in sizes]
    assert chunks_of(datagrams) == [(number, DATA) for number in range(1, 10)]
    assert hop_numbers(datagrams) == list(range(1, 10))
    assert hop.recovery.in_flight_bytes == sum(sizes) + 40 * len(sizes)
    hop.on_ack(Ack(9, 0, ((8, 10), (5, 6), (3, 4))), 0.01)
    # Chunks 1, 2, 4 and 6 are lost by number, 7 is not yet.
    assert list(cursor.acked) == [(3, 4), (5, 6), (8, 10)]
    assert list(cursor.flying) == [(7, 8)]
    assert hop.recovery.in_flight_bytes == 60
    again = poll(hop, 0.01)
    assert chunks_of(again) == [(number, REPEAT) for number in (1, 2, 4, 6)]
    assert [len(datagram) for datagram in again] == [1_040, 1_040, 1_040, 60]


@pytest.mark.parametrize("size", [0, 10, 400, 1_000])
def test_small_chunks_fill_the_window_as_large_ones_do(size: int) -> None:
    hop, _ = make_hops(window_bytes=5_000)
    cursor_at(hop, filled(make_stream(MESSAGE, role="source"), *[size] * 200), 200)
    sent = len(poll(hop, 0.0)) * (size + 40)
    assert 5_000 <= sent < 5_000 + size + 40
    assert not hop.room()


@pytest.mark.parametrize("lost", ["gone", "edited", "tag"])
def test_a_chunk_that_the_store_lost_is_left_out_and_what_follows_goes(lost: str) -> None:
    store = MemoryStreamStore()
    hop, _ = make_hops()
    stream = filled(make_stream(of_size(6_000), store=store), *[1_000] * 6)
    stream.forget_ring()
    for number in (1, 4, 5):
        if lost == "tag":
            store._tags.pop(number)
        elif lost == "edited":
            store._chunks[number] = b"edited"
        else:
            store._chunks.pop(number)
    cursor = cursor_at(hop, stream, 6)
    datagrams = poll(hop, 0.0)
    assert chunks_of(datagrams) == [(2, DATA), (3, DATA), (6, DATA)]
    assert hop_numbers(datagrams) == [1, 2, 3]
    assert list(cursor.crossed) == [(2, 4), (6, 7)]
    assert hop.idle
    assert cursor.owed_count() == 0
    assert list(stream.missing()) == [(1, 2), (4, 6), (7, 8)]


def test_a_stream_of_which_nothing_can_be_sent_any_more_does_not_hold_up_the_others() -> None:
    hop, _ = make_hops()
    lost, whole = make_stream(of_size(9_000)), full_stream(3)
    # Both have one id: what the hop knows them by is their cursor.
    hop.owe(Cursor(lost), 1, 10, 7, 0, DATA)
    cursor_at(hop, whole, 3)
    assert chunks_of(poll(hop, 0.0)) == [(1, DATA), (2, DATA), (3, DATA)]
    assert hop.idle


def test_a_run_owed_anew_goes_as_repeats_where_it_crossed_before() -> None:
    hop, _ = make_hops()
    stream = full_stream(8)
    cursor = hop.cursors.setdefault(stream.short, Cursor(stream))
    hop.owe(cursor, 3, 5, 7, 0, PULLED)
    assert chunks_of(poll(hop, 0.0)) == [(3, PULLED), (4, PULLED)]
    hop.owe(cursor, 1, 7, 7, 0, DATA)
    hop.owe(cursor, 4, 9, 7, 0, PULLED)
    assert chunks_of(poll(hop, 0.1)) == [
        *((number, DATA) for number in (1, 2)),
        *((number, REPEAT) for number in (3, 4)),
        *((number, DATA) for number in (5, 6)),
        *((number, PULLED) for number in (4, 5, 6, 7, 8)),
    ]
    counters = hop.counters
    assert (counters.chunks_sent, counters.repeats_sent, counters.pulled_sent) == (4, 2, 7)


def test_each_run_names_the_epoch_and_tree_it_is_owed_under_and_is_repaired_under_them() -> None:
    hop, _ = make_hops()
    stream = full_stream(8)
    cursor = hop.cursors.setdefault(stream.short, Cursor(stream))
    hop.owe(cursor, 1, 4, 7, 0, DATA)
    hop.owe(cursor, 4, 7, 8, 2, DATA)
    hop.owe(cursor, 7, 9, 8, 2, PULLED)

    def named(now: float) -> list[tuple[int, int, int]]:
        crossings = [peek_chunk(datagram) for datagram in poll(hop, now)]
        return [(seen.number, seen.epoch, seen.tree) for seen in crossings if seen is not None]

    assert named(0.0) == [(n, 7, 0) for n in (1, 2, 3)] + [(n, 8, 2) for n in (4, 5, 6, 7, 8)]
    hop.on_ack(Ack(8, 0, ((8, 9), (2, 3))), 0.1)
    # What was lost last goes first: a line is made ahead of the others for each epoch, tree and kind.
    assert sorted(named(0.1)) == [(1, 7, 0), (3, 7, 0), (4, 8, 2), (5, 8, 2)]


def test_of_a_train_that_was_lost_in_part_that_part_goes_again() -> None:
    hop, _ = make_hops()
    cursor = cursor_at(hop, full_stream(20), 20)
    poll(hop, 0.0)
    hop.on_ack(Ack(20, 0, ((19, 21), (9, 12), (2, 4))), 0.1)
    assert list(cursor.acked) == [(2, 4), (9, 12), (19, 21)]
    assert list(cursor.flying) == [(18, 19)]
    again = poll(hop, 0.1)
    assert chunks_of(again) == [(number, REPEAT) for number in (1, *range(4, 9), *range(12, 18))]
    assert hop_numbers(again) == list(range(21, 33))
    assert list(cursor.flying) == [(1, 2), (4, 9), (12, 19)]
    # One of those came late after all, and a repeat of another was lost: each is told by its own number.
    hop.on_ack(Ack(32, 0, ((29, 33), (23, 28), (21, 22), (18, 21), (9, 13), (2, 4))), 0.2)
    assert list(cursor.acked) == [(1, 4), (5, 13), (14, 21)]
    assert chunks_of(poll(hop, 0.2)) == [(4, REPEAT)]
    at = hop.recovery.loss_at()
    assert at is not None
    hop.handle_timeout(at)
    assert chunks_of(poll(hop, at)) == [(13, REPEAT)]
    assert (hop.counters.chunks_sent, hop.counters.repeats_sent) == (20, 14)


@pytest.mark.parametrize("lost", [False, True])
def test_a_small_message_is_carried_by_the_next_unless_it_is_lost_here_meanwhile(lost: bool) -> None:
    hop, _ = make_hops()
    store = MemoryStreamStore()
    stream = filled(make_stream(MESSAGE, role="source", store=store), 100, 100)
    cursor_at(hop, stream, 1)
    assert chunks_of(poll(hop, 0.0)) == [(1, DATA)]
    if lost:
        stream.forget_ring()
        store.drop_below(2)
    cursor_at(hop, stream, 2).owed[0].numbers.discard(1)
    assert chunks_of(poll(hop, 0.001)) == ([(2, DATA)] if lost else [(2, DATA), (1, REPEAT)])
    assert hop.counters.repeats_sent == (0 if lost else 1)


def test_files_take_turns_of_a_quantum() -> None:
    hop, _ = make_hops()
    one, other = full_stream(300), filled(make_stream(MESSAGE, role="source"), *[1_000] * 300)
    other.urgent = False
    for stream in (one, other):
        cursor_at(hop, stream, 300)
    sent: list[int] = []
    for turn in range(6):
        sent += streams_of(poll(hop, turn * 0.01))
    turns = [(stream, sum(1_040 for _ in each)) for stream, each in itertools.groupby(sent)]
    assert [stream for stream, _ in turns[:4]] == [one.short, other.short, one.short, other.short]
    gone = {one.short: 0, other.short: 0}
    for short, size in turns:
        assert size < QUANTUM_BYTES + 1_040
        gone[short] += size
        assert abs(gone[one.short] - gone[other.short]) < QUANTUM_BYTES + 1_040


@pytest.mark.parametrize("rate_bytes_s", [50_000, 300_000, 2_000_000])
def test_a_train_takes_no_more_than_the_pace_allows(rate_bytes_s: int) -> None:
    hop, _ = make_hops(rate_bytes_s=rate_bytes_s)
    cursor_at(hop, full_stream(100), 100)
    budget = hop._pacer.budget(0.0)
    sent = sum(map(len, poll(hop, 0.0)))
    assert budget <= sent < budget + 1_040


@given(st.data(), st.lists(st.sampled_from([1_000, 1_000, 1_000, 500, 3]), min_size=1, max_size=60))
def test_a_hop_knows_of_every_chunk_where_it_is_whatever_is_acknowledged(data: st.DataObject, sizes: list[int]) -> None:
    """Beside a table of hop numbers, each with the chunk it carried."""
    hop, _ = make_hops()
    cursor = cursor_at(hop, filled(make_stream(MESSAGE, role="source"), *sizes), len(sizes))
    carried: dict[int, int] = {}
    arrived: set[int] = set()
    now = 0.0
    for _ in range(6):
        for datagram in poll(hop, now):
            crossing = peek_chunk(datagram)
            assert crossing is not None
            assert crossing.size_bytes == sizes[crossing.number - 1] + 40
            carried[hop_numbers([datagram])[0]] = crossing.number
        got = data.draw(st.sets(st.sampled_from(sorted(carried)), min_size=1))
        arrived |= got
        ranges = tuple(RangeSet((number, number + 1) for number in arrived))[::-1]
        now += 0.05
        hop.on_ack(Ack(max(arrived), 0, ranges), now)
        acked = {carried[number] for number in arrived}
        assert list(cursor.acked) == list(RangeSet((number, number + 1) for number in acked))
        owed = RangeSet((number, stop) for line in cursor.owed for number, stop in line.numbers)
        assert not cursor.flying.intersection(owed)
        known = owed.copy()
        known.union_update(cursor.flying)
        known.union_update(cursor.acked)
        assert list(known) == [(1, len(sizes) + 1)]


def test_what_was_owed_and_under_way_when_a_peer_was_given_up_is_not_sent_by_itself_any_more() -> None:
    hop, _ = make_hops()
    stream = full_stream(100)
    cursor_at(hop, stream, 100)
    sent = chunks_of(poll(hop, 0.0))
    assert 0 < len(sent) < 100
    hop.abandon()
    for now in range(1, 10):
        hop.handle_timeout(float(now))
        assert chunks_of(poll(hop, float(now))) == []
    cursor_at(hop, stream, 3, PULLED)
    hop.on_ack(Ack(1_000, 0, ((1, 2),)), 10.0)
    assert chunks_of(poll(hop, 10.0)) == [(1, PULLED), (2, PULLED), (3, PULLED)]


def test_no_copy_goes_of_a_message_that_was_given_up() -> None:
    hop, _ = make_hops()
    stream = full_stream(2, urgent=True)
    cursor = hop.cursors.setdefault(stream.short, Cursor(stream))
    hop.owe(cursor, 1, 2, 7, 0, DATA)
    assert chunks_of(poll(hop, 0.0)) == [(1, DATA)]
    hop.abandon()
    hop.owe(hop.cursors[stream.short], 2, 3, 7, 0, DATA)
    assert chunks_of(poll(hop, 0.01)) == [(2, DATA)]
