"""How streams come to be, are refused, resumed, and forgotten."""

from dataclasses import replace

import pytest

from agent.core import streams
from agent.core.entry import Entry
from agent.core.events import FileFailed, FileVerified, ForgeryFound, MessageGap, ReceiptsChanged, StreamOpened
from agent.core.memory_store import MemoryStores, MemoryStreamStore
from agent.core.receipts import ReceiptBook
from agent.core.sinks import FileSink
from agent.core.store import StoreError
from agent.core.streams import RING_IDLE_S
from common.datagrams import PacketType, peek_chunk
from common.errors import RefusedError
from common.fields import encode_key
from common.limits import MAX_FILE_BYTES, MAX_REASON_BYTES, MAX_STREAMS
from common.messages import Channels, Roster
from common.opening import Opening
from common.sealing import GroupKeys
from common.signing import PURPOSE_OPENING, Signer
from common.stream_frames import StreamOpening, Want
from tests.harness.mesh import FILES, GROUP, MESSAGES, PIECE_BYTES, WALL, Crossing, Mesh, data
from tests.unit.agent.core.parts import make_stream


def made_opening(mesh: Mesh, **changes: object) -> Opening:
    """Return a good opening of a file from A, with some facts changed."""
    wall = WALL + mesh.now
    opening = Opening(
        stream=bytes(range(1, 17)),
        channel="files",
        source="A",
        kind="file",
        key=bytes(32),
        piece_bytes=PIECE_BYTES,
        name="made.bin",
        size_bytes=10,
        created=wall,
        expires=wall + 100,
    )
    changed = replace(opening, **changes)  # type: ignore[arg-type]
    return changed.signed(mesh.devices[changed.source].config.signer)


def hand_over(mesh: Mesh, opening: Opening, *, keys: GroupKeys | None = None) -> None:
    """Let A hand an opening to B."""
    sealed = (keys or mesh.group_keys).seal(PURPOSE_OPENING, opening.encode(), bytes(12))
    mesh.say("A", "B", StreamOpening(sealed))


def with_new_key(mesh: Mesh) -> Roster:
    """Return the mesh's roster with one more group key."""
    keys = {**mesh.roster.group_keys, 2: encode_key(bytes(range(32, 64)))}
    return Roster(version=2, devices=mesh.roster.devices, key_epoch=2, group_keys=keys)


# --- streams that begin here --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size_bytes", "pieces"),
    [(0, 0), (1, 1), (PIECE_BYTES - 1, 1), (PIECE_BYTES, 1), (PIECE_BYTES + 1, 2), (5 * PIECE_BYTES, 5)],
)
def test_files_of_every_size_arrive_with_their_closing_record(size_bytes: int, pieces: int) -> None:
    mesh = Mesh("A-B B-C").linked()
    stream = mesh.send_file("A", data(size_bytes))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    assert mesh.chunks("A", "B", PacketType.DATA) == list(range(1, pieces + 2))
    assert mesh.content("C", stream) == data(size_bytes)
    assert [event.size_bytes for event in mesh.events("C", FileVerified)] == [size_bytes]


def test_two_files_with_the_same_name_are_two_streams() -> None:
    mesh = Mesh("A-B").linked()
    first = mesh.send_file("A", data(3_000, seed=1), file="same.bin")
    second = mesh.send_file("A", data(3_000, seed=2), file="same.bin")
    mesh.until(lambda: mesh.verified(first) == ["B"] and mesh.verified(second) == ["B"])
    assert first != second
    assert mesh.content("B", first) == data(3_000, seed=1)
    assert mesh.content("B", second) == data(3_000, seed=2)


@pytest.mark.parametrize(
    ("name", "size_bytes", "reason"),
    [
        ("", 1, "bad-name"),
        ("n" * 256, 1, "bad-name"),
        ("a\0b", 1, "bad-name"),
        ("not utf-8 \udcff", 1, "bad-name"),
        ("\x01" * 255, 1, "bad-name"),
        ("f", -1, "too-large"),
        ("f", MAX_FILE_BYTES + 1, "too-large"),
    ],
)
def test_a_file_out_of_bounds_is_refused_where_it_is_sent(name: str, size_bytes: int, reason: str) -> None:
    mesh = Mesh("A-B").linked()
    with pytest.raises(RefusedError) as refused:
        mesh.send_from("A", size_bytes, MemoryReader(), file=name)
    assert refused.value.reason == reason
    assert mesh.node("A").streams.by_short == {}


class MemoryReader:
    """A file of zeros."""

    def read(self, offset: int, length: int) -> bytes:
        return bytes(length)


def test_a_name_of_the_longest_size_arrives() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(10), file="é" * 127 + "e")
    mesh.until(lambda: mesh.verified(stream) == ["B"])


def test_an_unknown_channel_is_refused_with_the_known_ones() -> None:
    mesh = Mesh("A-B").linked()
    with pytest.raises(RefusedError, match="'nowhere'; it has: files, messages"):
        mesh.send_file("A", b"", channel="nowhere")
    empty = Mesh("A-B", channels=()).linked()
    with pytest.raises(RefusedError, match="it has: none"):
        empty.publish("A", b"")


def test_a_channel_of_the_other_kind_is_refused() -> None:
    mesh = Mesh("A-B").linked()
    with pytest.raises(RefusedError, match="carries messages, not files"):
        mesh.send_file("A", b"", channel="messages")
    with pytest.raises(RefusedError, match="carries files, not messages"):
        mesh.publish("A", b"", channel="files")


def test_a_device_without_a_group_key_is_told_to_enrol() -> None:
    mesh = Mesh("A-B", absent="A B")
    mesh.control("B", mesh.roster)
    mesh.devices["A"].up = True
    mesh.control("A", Channels(version=1, channels=(FILES,)))
    with pytest.raises(RefusedError, match="no group key"):
        mesh.send_file("A", b"")


def test_more_streams_than_the_limit_are_refused() -> None:
    mesh = Mesh("A-B").linked()
    table = mesh.node("A").streams
    stream = mesh.send_file("A", b"")
    entry = table.by_short[int(stream[:8], 16)]
    for short in range(MAX_STREAMS - 1):
        table.by_short[short] = entry
    with pytest.raises(RefusedError) as refused:
        mesh.send_file("A", b"")
    assert refused.value.reason == "too-many-streams"


def test_a_fresh_stream_never_takes_a_short_form_in_use() -> None:
    mesh = Mesh("A-B").linked()
    node = mesh.node("A")
    first = mesh.send_file("A", b"")
    drawn = [bytes(16), bytes.fromhex(first), bytes(range(1, 17))]
    entropy = node.streams.entropy
    node.streams.entropy = lambda size: drawn.pop(0) if size == 16 else entropy(size)
    assert mesh.send_file("A", b"") == bytes(range(1, 17)).hex()


def test_an_opening_is_sealed_anew_under_the_group_key_of_today() -> None:
    mesh = Mesh("A-B B-C", absent="C", edges="A-B").linked()
    stream, _ = mesh.publish("A", b"hello")
    mesh.until(lambda: mesh.payloads("B") == [b"hello"])
    newer = Roster(
        version=2, devices=mesh.roster.devices, key_epoch=2, group_keys={2: encode_key(bytes(range(32, 64)))}
    )
    mesh.roster = newer
    for name in "AB":
        mesh.control(name, newer)
    mesh.start("C")
    mesh.plan("A-B B-C")
    mesh.until(lambda: mesh.payloads("C") == [b"hello"])
    assert mesh.stream("C", stream).sealed_opening[:4] == (2).to_bytes(4, "big")


def test_what_is_published_under_a_new_group_key_goes_in_a_stream_of_its_own() -> None:
    """Whoever knew the old key may know the old stream's key too, and is gone from the group."""
    mesh = Mesh("A-B").linked()
    first, _ = mesh.publish("A", b"one")
    for name in "AB":
        mesh.control(name, with_new_key(mesh))
    second, number = mesh.publish("A", b"two")
    assert second != first
    assert number == 1
    assert mesh.publish("A", b"three") == (second, 2)
    mesh.until(lambda: mesh.payloads("B") == [b"one", b"two", b"three"])
    assert mesh.stream("A", first).finished_at is not None
    assert mesh.stream("A", second).finished_at is None
    assert mesh.stream("A", first).opening.key != mesh.stream("A", second).opening.key


def test_a_roster_without_keys_leaves_the_known_ones() -> None:
    mesh = Mesh("A-B").linked()
    mesh.control("A", Roster(version=2, devices=mesh.roster.devices, key_epoch=1, group_keys={}))
    stream = mesh.send_file("A", b"x")
    mesh.until(lambda: mesh.verified(stream) == ["B"])


def test_a_message_stream_begins_anew_when_its_channel_was_dropped_and_came_back() -> None:
    mesh = Mesh("A-B").linked()
    first, _ = mesh.publish("A", b"one")
    mesh.run(0.5)
    for name in "AB":
        mesh.control(name, Channels(version=2, channels=(FILES,)))
    with pytest.raises(RefusedError, match="no channel 'messages'"):
        mesh.publish("A", b"nowhere")
    for name in "AB":
        mesh.control(name, Channels(version=3, channels=(FILES, MESSAGES)))
    second, number = mesh.publish("A", b"two")
    assert (second, number) == (first, 2)
    mesh.until(lambda: mesh.payloads("B") == [b"one", b"two"])


# --- openings that are declined -----------------------------------------------------------------------------------


def test_an_expired_opening_is_counted_and_declined() -> None:
    mesh = Mesh("A-B").linked()
    hand_over(mesh, made_opening(mesh, created=WALL, expires=WALL + 1))
    assert mesh.drops("B") == {"opening-expired": 1}
    assert mesh.node("B").streams.by_short == {}


def test_an_opening_under_an_unknown_key_or_of_garbage_is_counted_and_declined() -> None:
    mesh = Mesh("A-B").linked()
    hand_over(mesh, made_opening(mesh), keys=GroupKeys(GROUP, {1: bytes(32)}))
    hand_over(mesh, made_opening(mesh), keys=GroupKeys(GROUP, {9: bytes(32)}))
    mesh.say("A", "B", StreamOpening(mesh.group_keys.seal(PURPOSE_OPENING, b"garbage", bytes(12))))
    assert mesh.drops("B") == {"opening-not-authentic": 3}
    assert mesh.node("B").streams.by_short == {}


def test_an_opening_before_the_group_key_is_counted_and_declined() -> None:
    mesh = Mesh("A-B").linked()
    mesh.node("B").streams.keys = None
    hand_over(mesh, made_opening(mesh))
    assert mesh.drops("B") == {"opening-without-group-key": 1}


def test_an_opening_of_a_finished_stream_is_counted_and_declined() -> None:
    mesh = Mesh("A-B", channels=(FILES.model_copy(update={"retention_s": 1.0}),)).linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    opening = mesh.stream("B", stream).opening
    mesh.until(lambda: not mesh.node("B").streams.by_short)
    hand_over(mesh, opening)
    assert mesh.drops("B") == {"opening-of-finished-stream": 1}
    assert mesh.verified(stream) == ["B"]


def test_an_opening_whose_short_form_is_taken_is_counted_and_declined() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(400 * PIECE_BYTES))
    mesh.run(0.02)
    hand_over(mesh, made_opening(mesh, stream=bytes.fromhex(stream[:8]) + bytes(12)))
    assert mesh.drops("B") == {"opening-short-form-taken": 1}
    mesh.until(lambda: mesh.verified(stream) == ["B"])


def test_an_opening_of_an_unknown_channel_is_declined_and_its_chunks_are_acknowledged() -> None:
    mesh = Mesh("A-B").linked()
    mesh.control("B", Channels(version=2, channels=(MESSAGES,)))
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.run(2.0)
    assert mesh.drops("B") == {"unknown-channel": 1, "chunk-of-declined-stream": 21}
    assert mesh.node("B").streams.by_short == {}
    before = len(mesh.chunks("A", "B"))
    mesh.run(20.0)
    assert len(mesh.chunks("A", "B")) == before, "nothing is repeated for ever"
    mesh.control("B", Channels(version=3, channels=(FILES,)))
    assert mesh.node("B").streams.declined == {}
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert mesh.content("B", stream) == data(20 * PIECE_BYTES)


def test_more_streams_than_the_limit_are_declined_until_one_is_forgotten() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(400 * PIECE_BYTES))
    mesh.run(0.02)
    table = mesh.node("B").streams
    entry = table.by_short[int(stream[:8], 16)]
    fillers = list(range(MAX_STREAMS - 1))
    for short in fillers:
        table.by_short[short] = entry
    hand_over(mesh, made_opening(mesh))
    assert mesh.drops("B") == {"too-many-streams": 1}
    assert table.declined == {made_opening(mesh).short: None}
    assert mesh.verified(made_opening(mesh).hex) == []
    table.bury(entry)
    assert table.declined == {entry.stream.short: None}
    for short in fillers:
        del table.by_short[short]
    hand_over(mesh, made_opening(mesh))
    assert made_opening(mesh).short in table.by_short


def test_a_source_hears_of_a_device_with_too_many_streams_and_of_no_other_reason() -> None:
    mesh = Mesh("A-B").linked()
    mesh.drop = lambda crossing: crossing.source == "A" and peek_chunk(crossing.datagram) is not None
    stream = mesh.send_file("A", data(10))
    mesh.run(1.0)
    mesh.drop = lambda _: False
    table = mesh.node("B").streams
    if table.by_short:
        table.bury(next(iter(table.by_short.values())))
    table.declined.clear()
    table._buried.clear()
    for short in range(1, MAX_STREAMS + 1):
        table.by_short[short] = Entry(make_stream(), ReceiptBook())
    hand_over(mesh, mesh.stream("A", stream).opening)
    hand_over(mesh, made_opening(mesh, channel="nowhere"))
    table.by_short.clear()
    mesh.run(0.1)
    receipt = mesh.events("A", ReceiptsChanged)[-1].receipts["B"]
    assert (receipt.state, receipt.reason) == ("refused", f"too-many-streams: at most {MAX_STREAMS} at a device")
    assert mesh.drops("A") == {}


def test_the_streams_that_were_declined_are_remembered_in_a_bounded_place() -> None:
    mesh = Mesh("A-B").linked()
    for index in range(1, MAX_STREAMS + 3):
        opening = made_opening(mesh, stream=index.to_bytes(4, "big") + bytes(12), channel="nowhere")
        hand_over(mesh, opening)
    assert len(mesh.node("B").streams.declined) == MAX_STREAMS
    assert mesh.drops("B") == {"unknown-channel": MAX_STREAMS + 2}


def test_a_device_that_lost_its_own_stream_does_not_take_it_back_as_a_receiver() -> None:
    mesh = Mesh("A-B").linked()
    stream, _ = mesh.publish("A", b"before")
    mesh.until(lambda: mesh.payloads("B") == [b"before"])
    mesh.kill("A")
    mesh.start("A")
    mesh.linked()
    mesh.run(1.0)
    assert mesh.drops("A")["opening-of-own-lost-stream"] == 1
    again, _ = mesh.publish("A", b"after")
    assert again != stream
    mesh.until(lambda: mesh.payloads("B") == [b"before", b"after"])


# --- streams of an earlier run ------------------------------------------------------------------------------------


def halfway(links: str = "A-B", *, pieces: int = 200) -> tuple[Mesh, str]:
    """Return a mesh in which B holds a part of a file, and is dead."""
    mesh = Mesh(links).linked()
    stream = mesh.send_file("A", data(pieces * PIECE_BYTES))
    mesh.until(lambda: bool(mesh.node("B").streams.by_short) and len(mesh.stream("B", stream).held) >= pieces // 2)
    mesh.kill("B")
    return mesh, stream


def test_a_restarted_device_goes_on_where_it_was() -> None:
    mesh, stream = halfway()
    held = len(mesh.stream("B", stream).held)
    mesh.start("B")
    mesh.linked()
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert mesh.node("B").peers.counters["A"].chunks_received == 201 - held, "nothing that it held came again"
    assert mesh.content("B", stream) == data(200 * PIECE_BYTES)


def test_a_corrupted_stored_chunk_is_noticed_by_its_tag_and_fetched_again() -> None:
    mesh, stream = halfway()
    held = len(mesh.stream("B", stream).held)
    store = mesh.devices["B"].stores.streams[stream]
    store._chunks[7] = bytes(PIECE_BYTES)
    mesh.start("B")
    mesh.linked()
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert mesh.drops("B")["resume-chunk-changed"] == 1
    assert mesh.node("B").peers.counters["A"].chunks_received == 202 - held
    assert mesh.content("B", stream) == data(200 * PIECE_BYTES)


def test_a_restarted_source_goes_on_and_a_finished_file_serves_late_joiners() -> None:
    mesh = Mesh("A-B B-C", absent="C", edges="A-B").linked()
    stream = mesh.send_file("A", data(200 * PIECE_BYTES))
    mesh.until(lambda: len(mesh.stream("A", stream).held) >= 100)
    mesh.kill("A")
    mesh.run(0.5)
    mesh.start("A")
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.kill("B")
    mesh.start("B")
    mesh.start("C")
    mesh.plan("A-B B-C")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    assert mesh.stream("B", stream).role == "done"
    assert mesh.content("C", stream) == data(200 * PIECE_BYTES)


@pytest.mark.parametrize("why", ["key", "channel", "expired", "buried", "open"])
def test_a_stored_stream_that_is_stale_is_counted_and_left(why: str) -> None:
    mesh, stream = halfway()
    if why == "key":
        mesh.roster = Roster(version=2, devices=mesh.roster.devices, key_epoch=2, group_keys={2: encode_key(bytes(32))})
    elif why == "channel":
        mesh.channels = (MESSAGES,)
    elif why == "buried":
        mesh.devices["B"].stores._tombstones[stream] = WALL * 2
    elif why == "expired":
        mesh.now += 2 * 86_400
    else:
        found = list(mesh.devices["B"].stores.resume())
        mesh.devices["B"].stores.resume = lambda: found * 2  # type: ignore[method-assign]
    mesh.kill("A")
    mesh.start("B")
    assert mesh.drops("B") == {"resume-not-authentic" if why == "key" else "resume-stale": 1}
    assert len(mesh.node("B").streams.by_short) == (why == "open")


def test_a_stored_stream_under_a_newer_group_key_waits_for_the_roster_of_today() -> None:
    """A restarted device may first be told what it knew before: its last roster."""
    mesh = Mesh("A-B").linked()
    old = mesh.roster
    mesh.roster = with_new_key(mesh)
    for name in "AB":
        mesh.control(name, mesh.roster)
    stream = mesh.send_file("A", data(200 * PIECE_BYTES))
    mesh.until(lambda: bool(mesh.node("B").streams.by_short) and len(mesh.stream("B", stream).held) >= 100)
    held = len(mesh.stream("B", stream).held)
    mesh.kill("B")
    newer, mesh.roster = mesh.roster, old
    mesh.start("B")
    assert mesh.drops("B") == {}
    assert mesh.node("B").streams.by_short == {}
    assert mesh.node("B").streams.moving(mesh.now)
    mesh.control("B", newer)
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert mesh.node("B").peers.counters["A"].chunks_received == 201 - held


def test_what_was_stored_waits_for_keys_and_channels() -> None:
    mesh, stream = halfway()
    mesh.kill("A")
    mesh.devices["B"].node = mesh._node(mesh.devices["B"].config, mesh.devices["B"].stores, 2)
    mesh.devices["B"].up = True
    mesh.control("B", mesh.roster)
    assert mesh.node("B").streams.by_short == {}
    assert mesh.node("B").streams.moving(mesh.now)
    mesh.control("B", Channels(version=1, channels=(FILES,)))
    assert len(mesh.node("B").streams.by_short) == 1
    assert [event.stream for event in mesh.events("B", StreamOpened)][-1] == stream


# --- refusals and the end -----------------------------------------------------------------------------------------


def test_a_stream_is_refused_once_whatever_fails_after() -> None:
    mesh = Mesh("A-B", stores={"B": MemoryStores(capacity_bytes=10)}).linked()
    stream = mesh.send_file("A", data(20))
    mesh.run(1.0)
    entry = mesh.node("B").streams.by_short[int(stream[:8], 16)]
    mesh.node("B").streams.refuse(entry, StoreError("io", "and again"), mesh.now)
    mesh.run(0.1)
    assert [event.reason for event in mesh.events("B", FileFailed)] == ["no-space"]


def test_a_file_that_cannot_take_its_name_is_refused_and_the_source_hears_why() -> None:
    class Nameless(MemoryStores):
        def receive(self, opening: Opening, sealed: bytes) -> MemoryStreamStore:
            return self._add(opening, sealed, Unfinished(), "receive")

    class Unfinished(MemoryStreamStore):
        def finish(self, digest: bytes | None) -> None:
            raise StoreError("bad-name", "there is a folder of that name")

    mesh = Mesh("A-B B-C", stores={"B": Nameless()}).linked()
    stream = mesh.send_file("A", data(3_000))
    mesh.until(lambda: mesh.verified(stream) == ["C"])
    mesh.run(1.0)
    assert [event.reason for event in mesh.events("B", FileFailed)] == ["bad-name"]
    receipt = mesh.events("A", ReceiptsChanged)[-1].receipts["B"]
    assert (receipt.state, receipt.reason) == ("refused", "bad-name: there is a folder of that name")
    # What cannot be finished is not kept either, by whichever call the store said so.
    store = mesh.devices["B"].stores.streams[stream]
    assert list(store.held()) == []
    assert mesh.stream("B", stream).store is not store


def test_what_is_not_what_the_source_signed_is_fetched_again() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: bool(mesh.node("B").streams.by_short))
    sink = mesh.stream("B", stream).sink
    assert isinstance(sink, FileSink)
    sink._hasher._hash.update(b"what nobody sent")
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    assert mesh.events("B", ForgeryFound) == [ForgeryFound(stream, "A", 1, 20, "A")]
    assert mesh.drops("B") == {"chunks-refuted": 20}
    assert mesh.content("B", stream) == data(20 * PIECE_BYTES)


@pytest.mark.parametrize("member", [True, False])
def test_an_opening_that_another_device_signed_is_counted_and_not_believed(member: bool) -> None:
    mesh = Mesh("A-B B-C").linked()
    forger = mesh.node("C").config.signer if member else Signer(bytes(32), GROUP)
    opening = made_opening(mesh).signed(forger)
    hand_over(mesh, opening)
    assert mesh.drops("B") == {"opening-forged": 1}
    assert mesh.node("B").streams.by_short == {}


def test_an_opening_of_a_device_that_is_no_member_waits_for_the_roster_that_has_it() -> None:
    mesh = Mesh("A-B B-C").linked()
    without = mesh.roster.model_copy(update={"version": 2, "devices": mesh.roster.devices[1:]})
    mesh.node("B").streams.set_keys(without)
    stream = mesh.send_file("A", data(3 * PIECE_BYTES))
    mesh.run(0.5)
    assert mesh.drops("B")["opening-of-stranger"] > 0
    assert mesh.node("B").streams.by_short == {}
    mesh.node("B").streams.set_keys(mesh.roster)
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])


def test_a_stream_is_forgotten_when_its_opening_expires() -> None:
    mesh = Mesh("A-B").linked()
    mesh.publish("A", b"hello")
    mesh.until(lambda: mesh.payloads("B") == [b"hello"])
    before = mesh.events("A", StreamOpened)[0].stream
    for name in "AB":
        streams = mesh.node(name).streams
        assert [stream.opening.hex for stream in streams.expire(mesh.now + 31 * 86_400)] == [before]
        assert streams.by_short == {}
    again, number = mesh.publish("A", b"anew")
    assert number == 1
    assert again != before


def test_messages_past_their_retention_are_forgotten_and_a_late_joiner_hears_of_the_gap() -> None:
    channel = MESSAGES.model_copy(update={"retention_bytes": 2_500})
    mesh = Mesh("A-B B-C C-D", channels=(channel,), absent="C D", edges="A-B B-C C-D")
    mesh.until(lambda: "B" in mesh.node("A").peers.hops)
    for number in range(10):
        mesh.publish("A", b"%d" % number + bytes(999))
        mesh.run(0.1)
    assert len(mesh.payloads("B")) == 10
    assert mesh.stream("A", mesh.events("A", StreamOpened)[0].stream).flags.keys() == {9, 10}
    mesh.start("C")
    mesh.start("D")
    mesh.linked()
    # Two late joiners in a row: neither waits for what it would only hear from the other.
    mesh.until(lambda: len(mesh.payloads("C")) == 2 and len(mesh.payloads("D")) == 2)
    for name in "CD":
        assert [payload[:1] for payload in mesh.payloads(name)] == [b"8", b"9"]
        assert [(gap.first, gap.last) for gap in mesh.events(name, MessageGap)] == [(1, 8)]


def test_what_arrived_behind_a_gap_is_delivered_when_the_gap_passes_its_retention() -> None:
    channel = MESSAGES.model_copy(update={"retention_s": 0.3})
    mesh = Mesh("A-B", channels=(channel,)).linked()

    def drop(crossing: Crossing) -> bool:
        chunk = peek_chunk(crossing.datagram)
        return chunk is not None and chunk.number in (2, 4)

    mesh.drop = drop
    for number in range(1, 7):
        mesh.publish("A", b"%d" % number)
        mesh.run(0.01)
    mesh.run(3.0)
    assert mesh.payloads("B") == [b"1", b"3", b"5", b"6"]
    assert [(gap.first, gap.last) for gap in mesh.events("B", MessageGap)] == [(2, 2), (4, 4)]
    mesh.drop = lambda _: False
    mesh.publish("A", b"7")
    mesh.until(lambda: mesh.payloads("B")[-1] == b"7")


def test_a_branch_that_takes_longer_than_the_retention_gets_the_whole_file() -> None:
    mesh = Mesh("A-B A-C", channels=(FILES.model_copy(update={"retention_s": 0.5}),)).linked()
    passed = [mesh.now]

    def drop(crossing: Crossing) -> bool:
        if (crossing.source, crossing.target) != ("A", "C") or peek_chunk(crossing.datagram) is None:
            return False
        if mesh.now - passed[-1] < 0.1:
            return True
        passed.append(mesh.now)
        return False

    mesh.drop = drop
    stream = mesh.send_file("A", data(30 * PIECE_BYTES))
    start = mesh.now
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    assert mesh.now - start > 2.0
    mesh.run(2.0)
    assert mesh.node("A").streams.by_short == {}, "and then its retention passes"


def test_a_stream_that_is_asked_for_is_in_use() -> None:
    mesh = Mesh("A-B", channels=(FILES.model_copy(update={"retention_s": 1.0}),)).linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    short = int(stream[:8], 16)
    for _ in range(4):
        mesh.run(0.7)
        mesh.say("B", "A", Want(short, ()))
    assert short in mesh.node("A").streams.by_short
    assert short not in mesh.node("B").streams.by_short


def test_a_finished_stream_that_nobody_asks_for_keeps_no_sealed_chunks_in_memory_and_serves_on() -> None:
    mesh = Mesh("A-B B-C", absent="C").linked()
    stream = mesh.send_file("A", data(50 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(RING_IDLE_S / 2)
    assert len(mesh.stream("B", stream)._ring.run(1, 99)) == 51
    mesh.run(RING_IDLE_S)
    for name in "AB":
        assert mesh.stream(name, stream)._ring.run(1, 99) == []
        assert mesh.stream(name, stream)._ring._chunks == []
    mesh.start("C")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])


def test_a_restarted_publishers_new_stream_lets_its_older_ones_go_everywhere() -> None:
    channel = MESSAGES.model_copy(update={"retention_s": 3.0})
    mesh = Mesh("A-B B-C", channels=(channel, FILES)).linked()
    mesh.publish("B", b"of another source")
    for number in range(3):
        mesh.publish("A", b"%d" % number)
        mesh.run(0.2)
        mesh.kill("A")
        mesh.run(0.5)
        mesh.start("A")
        mesh.linked()
    mesh.publish("A", b"last")
    mesh.until(lambda: b"last" in mesh.payloads("C"))
    assert mesh.payloads("C") == [b"of another source", b"0", b"1", b"2", b"last"]
    assert len(mesh.node("C").streams.by_short) == 5
    mesh.run(6.0)
    left = sorted(entry.stream.opening.source for entry in mesh.node("C").streams.by_short.values())
    assert left == ["A", "B"]


def test_a_stream_that_came_late_does_not_let_a_newer_one_of_its_source_go() -> None:
    mesh = Mesh("A-B B-C").linked()
    wall = WALL + mesh.now
    facts: dict[str, object] = {"channel": "messages", "kind": "message", "name": "", "size_bytes": None}
    newer = made_opening(mesh, created=wall, **facts)
    older = made_opening(mesh, stream=bytes(range(2, 18)), created=wall - 5, **facts)
    other = made_opening(mesh, stream=bytes(range(3, 19)), created=wall - 5, source="C", **facts)
    for opening in (other, newer, older):
        hand_over(mesh, opening)
    finished = {short: entry.stream.finished_at for short, entry in mesh.node("B").streams.by_short.items()}
    assert finished == {newer.short: None, older.short: None, other.short: None}
    hand_over(mesh, made_opening(mesh, stream=bytes(range(4, 20)), created=wall + 1, **facts))
    finished = {short: entry.stream.finished_at for short, entry in mesh.node("B").streams.by_short.items()}
    assert [finished[opening.short] for opening in (newer, older, other)] == [mesh.now, mesh.now, None]


def test_a_stream_that_is_forgotten_leaves_nothing_in_its_store_and_its_tombstone_goes_in_time() -> None:
    mesh = Mesh("A-B", channels=(FILES.model_copy(update={"retention_s": 1.0}),)).linked()
    mesh.drop = lambda crossing: (chunk := peek_chunk(crossing.datagram)) is not None and chunk.number > 10
    stream = mesh.send_file("A", data(50 * PIECE_BYTES))
    mesh.run(1.0)
    table, store = mesh.node("B").streams, mesh.devices["B"].stores.streams[stream]
    assert len(list(store.held())) == 10
    lifetime = mesh.stream("B", stream).opening.expires - (WALL + mesh.now)
    assert [gone.opening.hex for gone in table.expire(mesh.now + lifetime + 1.0)] == [stream]
    assert list(store.held()) == []
    assert list(table._buried) == [stream]
    assert table.expire(mesh.now + lifetime + 2.0) == []
    assert table._buried == {}


def test_the_reason_of_a_refusal_travels_with_a_sentence_as_long_as_it_fits() -> None:
    class Long(MemoryStores):
        def receive(self, opening: Opening, sealed: bytes) -> MemoryStreamStore:
            raise StoreError("io", "ä" * 400)

    mesh = Mesh("A-B", stores={"B": Long()}).linked()
    mesh.send_file("A", data(10))
    mesh.run(1.0)
    assert mesh.events("A", ReceiptsChanged)[-1].receipts["B"].reason == "io: " + "ä" * ((MAX_REASON_BYTES - 4) // 2)


def test_of_too_many_finished_streams_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_TOMBSTONES", 2)
    mesh = Mesh("A-B").linked()
    sent = []
    for number in range(3):
        sent.append(mesh.send_file("A", b"x"))
        mesh.until(lambda number=number: mesh.verified(sent[number]) == ["B"])  # type: ignore[misc]
        mesh.cancel("A", sent[number])
        assert list(mesh.node("A").streams._buried) == sent[-2:]
