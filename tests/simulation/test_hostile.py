"""What a stranger, or a member that means no good, may say: it breaks nothing, and nobody waits for it."""

import pytest

from agent.core import exchange
from agent.core.cursor import Cursor
from agent.core.events import StreamOpened
from agent.core.memory_store import MemoryStores, MemoryStreamStore
from agent.core.recovery import Recovery
from agent.core.store import StoreError
from common.datagrams import FRAGMENT_HEADER, HOP_HEADER, PacketType, peek_chunk
from common.limits import MAX_DELAY_S, MAX_PATIENT_RTT_S
from common.link_frames import Bye, Probe
from common.messages import ChannelSpec
from common.opening import Opening
from common.path_frames import MtuAnswer
from common.stream_frames import Have
from tests.harness.mesh import FILES, Crossing, Mesh, data
from tests.unit.agent.core.parts import make_stream

OPEN_ENDED = 1 << 40


def fragment(mesh: Mesh, index: int, count: int, number: int, part: bytes, short: int = 1) -> bytes:
    """Return what anybody can send who has seen B's session byte and A's address."""
    session = mesh.hop("B", "A").session.local[0]
    header = HOP_HEADER.pack(PacketType.FRAGMENT << 4, session, (number + index) & 0xFFFFFFFF, 0, 0)
    return header + FRAGMENT_HEADER.pack(short, PacketType.DATA, index << 4 | count) + part


def test_fragments_that_join_to_less_than_a_chunk_are_dropped() -> None:
    mesh = Mesh("A-B").linked()
    mesh.inject("B", fragment(mesh, 0, 2, 1_000, b"x"), fragment(mesh, 1, 2, 1_000, b"x"), source="A")
    assert mesh.drops("B") == {"fragment-refused": 1}


def test_fragments_that_nobody_sealed_acknowledge_nothing_later() -> None:
    mesh = Mesh("A-B").linked()
    stream, _ = mesh.publish("A", b"first")
    mesh.run(0.1)
    hop = mesh.hop("A", "B")
    for base in range(hop._number, hop._number + 30):
        planted = [fragment(mesh, index, 8, base, b"y" * 10, int(stream[:8], 16)) for index in range(8)]
        mesh.inject("B", *planted, source="A")
    lost: list[int] = []

    def drop(crossing: Crossing) -> bool:
        chunk = peek_chunk(crossing.datagram)
        if crossing.source != "A" or chunk is None or not 2 < chunk.number < 8 or chunk.kind is not PacketType.DATA:
            return False
        lost.append(chunk.number)
        return True

    mesh.drop = drop
    for number in range(8):
        mesh.publish("A", bytes([65 + number]) * 700)
    mesh.run(0.003)
    acked = hop.cursors[int(stream[:8], 16)].acked
    assert lost == [3, 4, 5, 6, 7]
    assert not any(number in acked for number in lost)
    mesh.until(lambda: len(mesh.payloads("B")) == 9)


def test_an_acknowledgement_in_any_order_never_reaches_beyond_what_was_sent() -> None:
    recovery = Recovery()
    recovery.on_sent(0, 0.0, 1_000, count=4)
    result = recovery.on_ack(3, 0.0, [(2, 3), (0, 5_000_000)], 0.1)
    assert recovery.bogus_acks == 1
    assert sum(each.stop - each.start for each in result.acked) == 4
    recovery.on_sent(4, 0.2, 1_000)
    assert len(recovery._packets) == 1
    assert recovery.on_ack(4, 0.0, [(4, 5)], 0.3).newly_acked_bytes == 1_000


def test_a_probe_with_a_wild_clock_keeps_no_link_from_being_reported() -> None:
    mesh = Mesh("A-B").linked()
    for clock_us in (1, 2**63, 5, 2**64 - 1, 7):
        mesh.say("A", "B", Probe(clock_us, 1, 0, 1, 1, 250, 0))
    mesh.run(10.0)
    figures = mesh.node("B").peers.figures("A")
    assert figures.jitter_s is not None
    assert 0 <= figures.jitter_s <= MAX_DELAY_S


def test_nothing_is_heard_behind_a_farewell() -> None:
    mesh = Mesh("A-B", datagram_bytes=4_000).linked()
    link = mesh.node("B").peers.links["A"]
    mesh.drop = lambda crossing: True
    mesh.say("A", "B", Bye(), MtuAnswer(4_000))
    assert link.session is None
    assert link.mtu_bytes is None


def test_a_have_of_numbers_without_end_costs_no_memory_and_moves_no_source() -> None:
    mesh = Mesh("A-B B-C").linked()
    stream, _ = mesh.publish("A", b"first")
    mesh.run(0.2)
    ranges = tuple((1 + (place << 33), 1 + (place << 33) + 0xFFFFFFFF) for place in range(60))
    mesh.say("C", "B", Have(int(stream[:8], 16), 1, OPEN_ENDED, ranges))
    mesh.run(2.0)
    assert mesh.stream("A", stream).stop == 2
    assert mesh.stream("B", stream).stop <= 2 + exchange.MAX_AHEAD
    mesh.publish("A", b"second")
    mesh.until(lambda: mesh.payloads("B") == [b"first", b"second"])


def test_who_answers_probes_late_on_purpose_makes_nobody_wait_for_minutes() -> None:
    mesh = Mesh("A-B B-C").linked()
    patience = mesh.node("B")._upkeep.exchange._longest_rtt
    mesh.hop("B", "A").qos.rtt_s = mesh.hop("B", "C").qos.rtt_s = MAX_PATIENT_RTT_S - 0.5
    assert patience() == MAX_PATIENT_RTT_S - 0.5
    mesh.hop("B", "C").qos.rtt_s = MAX_DELAY_S
    assert patience() == MAX_PATIENT_RTT_S


def test_what_is_remembered_of_a_peers_ranges_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_SPANS", 100)
    mesh = Mesh("A-B").linked()
    stream, _ = mesh.publish("A", b"first")
    mesh.run(0.1)
    for base in range(0, 10_000, 100):
        mesh.say("A", "B", Have(int(stream[:8], 16), 1, 2, tuple((base + n, base + n + 1) for n in range(2, 90, 2))))
    assert mesh.hop("B", "A").cursors[int(stream[:8], 16)].reported.spans() <= 100


def test_the_age_of_a_message_far_ahead_is_not_counted_number_by_number() -> None:
    channel = ChannelSpec(name="messages", kind="message", retention_s=1.0)
    mesh = Mesh("A-B", channels=(FILES, channel)).linked()
    mesh.publish("A", b"first")
    mesh.run(0.1)
    source = mesh.node("A").streams._messages["messages"]
    source._next = 1 << 55
    mesh.publish("A", b"far ahead")
    # Walking that many numbers would take a year.
    mesh.run(3.0)
    stream = mesh.stream("B", mesh.events("B", StreamOpened)[0].stream)
    assert stream.lowest == (1 << 55) + 1
    assert not stream.flags


class BehindStore(MemoryStreamStore):
    """A disk that is behind, and then fails to read back."""

    behind = False
    fails = False

    @property
    def backlog_bytes(self) -> int:
        return 1 << 30 if BehindStore.behind else 0

    def read_run(self, start: int, count: int) -> list[bytes]:
        if BehindStore.fails:
            raise StoreError("io", "it cannot be read back")
        return super().read_run(start, count)


class BehindStores(MemoryStores):
    """Keeps received streams on such a disk."""

    def receive(self, opening: Opening, sealed: bytes) -> MemoryStreamStore:
        return self._add(opening, sealed, BehindStore(), "receive")


def test_a_file_that_fails_while_its_credit_is_used_up_still_reaches_those_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = Mesh("A-B B-C", stores={"B": BehindStores()}).linked()
    mesh.node("B").streams._memory_bytes = 24 << 20
    held_back = True

    def drop(crossing: Crossing) -> bool:
        chunk = peek_chunk(crossing.datagram)
        return held_back and crossing.target == "B" and chunk is not None and chunk.number == 1

    mesh.drop = drop
    stream = mesh.send_file("A", data(16_000_000))
    mesh.until(lambda: int(stream[:8], 16) in mesh.node("B").streams.by_short)
    mesh.until(lambda: len(mesh.stream("B", stream).held) > 4_000)
    monkeypatch.setattr(BehindStore, "behind", True)
    mesh.run(2.0)
    held_back = False
    mesh.until(lambda: 1 in mesh.stream("B", stream).held)
    mesh.run(0.35)
    monkeypatch.setattr(BehindStore, "fails", True)
    mesh.run(0.3)
    monkeypatch.setattr(BehindStore, "fails", False)
    monkeypatch.setattr(BehindStore, "behind", False)
    assert mesh.stream("B", stream).refused == "io"
    mesh.until(lambda: mesh.verified(stream) == ["C"])


def test_what_was_pulled_beside_what_waits_for_credit_leaves_no_empty_lines() -> None:
    cursor = Cursor(make_stream())
    cursor.credit = 1_000
    for number in range(100):
        cursor.owe(1_000 + number, 1_001 + number, 7, 0, PacketType.DATA)
        cursor.owe(number, number + 1, 7, 0, PacketType.PULLED)
        run = cursor.next_run(10)
        assert run is not None
        assert (run.start, run.kind) == (number, PacketType.PULLED)
        cursor.taken(run, run.stop)
    assert cursor.next_run(10) is None
    assert len(cursor.owed) == 1
    assert cursor.owed_count() == 100
