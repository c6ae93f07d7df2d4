"""What a device does for its streams besides forwarding: greeting, receipts, cancelling, taking files back."""

import itertools
from collections.abc import Callable

import pytest

from agent.core.events import (
    FileFailed,
    FileVerified,
    GraphChanged,
    ReceiptsChanged,
    StreamCancelled,
    StreamProgress,
)
from agent.core.hop import Hop
from agent.core.memory_store import MemoryStores, MemoryStreamStore
from agent.core.store import StoreError
from common.datagrams import PacketType, peek_chunk
from common.errors import RefusedError
from common.frames import Frame
from common.limits import MAX_RECEIPTS_PER_FRAME
from common.link_frames import Bye
from common.messages import ChannelSpec
from common.stream_frames import AskOpening, Cancel, Receipts, Stop
from tests.harness.mesh import PIECE_BYTES, Crossing, Mesh, data


class ChangingReader:
    """A file that is another one from some moment on."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.changed = False

    def read(self, offset: int, length: int) -> bytes:
        if self.changed:
            raise StoreError("changed", "the file changed while it was being sent")
        return self.content[offset : offset + length]


def near(mesh: Mesh, name: str, stream: str) -> list[Hop]:
    """Return the hops by which a device passes its receipts on."""
    return mesh.node(name)._upkeep._neighbourhood.towards_source(mesh.stream(name, stream))


def test_a_cancelled_stream_is_cancelled_everywhere_with_its_reason() -> None:
    mesh = Mesh("A-B B-C B-D").linked()
    stream = mesh.send_file("A", data(400 * PIECE_BYTES))
    mesh.until(lambda: bool(mesh.node("D").streams.by_short))
    mesh.node("A").cancel(stream, "no longer wanted", now=mesh.now)
    mesh._drain("A")
    mesh.run(1.0)
    for name in "ABCD":
        assert [(event.stream, event.reason) for event in mesh.events(name, StreamCancelled)] == [
            (stream, "no longer wanted")
        ]
        assert mesh.node(name).streams.by_short == {}
        assert stream in mesh.devices[name].stores.tombstones()
        assert list(mesh.devices[name].stores.streams[stream].held()) == []
        assert mesh.verified(stream) == []


def test_what_was_lost_of_a_cancelled_stream_is_not_repeated_for_ever() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(2_000 * PIECE_BYTES))
    mesh.run(0.05)
    mesh.drop = lambda crossing: peek_chunk(crossing.datagram) is not None
    mesh.run(0.01)
    mesh.cancel("A", stream)
    mesh.drop = lambda _: False
    mesh.run(1.0)
    before = len(mesh.chunks("A", "B"))
    mesh.run(20.0)
    assert len(mesh.chunks("A", "B")) == before
    assert "chunk-of-unknown-stream" not in mesh.drops("B")


def test_a_cancel_reaches_devices_beyond_one_that_is_complete_already() -> None:
    mesh = Mesh("A-B B-C").linked()

    def drop(crossing: Crossing) -> bool:
        chunk = peek_chunk(crossing.datagram)
        return crossing.source == "B" and chunk is not None and chunk.number == 50

    mesh.drop = drop
    stream = mesh.send_file("A", data(100 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    frames: list[Cancel] = []
    hop = mesh.hop("A", "B")
    send = hop.send

    def noted(frame: object, *, reliable: bool = True) -> None:
        if isinstance(frame, Cancel):
            frames.append(frame)
        send(frame, reliable=reliable)  # type: ignore[arg-type]

    hop.send = noted  # type: ignore[method-assign]
    mesh.cancel("A", stream)
    mesh.run(1.0)
    assert [event.reason for event in mesh.events("C", StreamCancelled)] == ["cancelled"]
    assert mesh.events("B", StreamCancelled) == []
    assert mesh.content("B", stream) == data(100 * PIECE_BYTES)
    before = len([crossing for crossing in mesh.crossings if crossing.source == "B" and crossing.target == "C"])
    mesh.say("A", "B", frames[0])
    after = len([crossing for crossing in mesh.crossings if crossing.source == "B" and crossing.target == "C"])
    assert after == before, "it is passed on once"


def test_only_the_source_can_take_a_stream_back() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    with pytest.raises(RefusedError) as refused:
        mesh.cancel("B", stream)
    assert refused.value.reason == "no-such-stream"
    with pytest.raises(RefusedError):
        mesh.cancel("A", "ff" * 16)


def test_a_file_that_changes_while_it_is_sent_is_taken_back_everywhere() -> None:
    mesh = Mesh("A-B B-C").linked()
    reader = ChangingReader(data(600 * PIECE_BYTES))
    stream = mesh.send_from("A", 600 * PIECE_BYTES, reader)
    mesh.until(lambda: bool(mesh.node("C").streams.by_short))
    reader.changed = True
    mesh.until(lambda: all(mesh.events(name, StreamCancelled) for name in "ABC"))
    assert [event.reason for event in mesh.events("A", FileFailed)] == ["changed"]
    assert [event.reason for event in mesh.events("C", StreamCancelled)] == ["changed"]
    assert mesh.verified(stream) == []


def test_nothing_is_sent_whose_tag_would_not_outlive_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: MemoryStreamStore) -> None:
        raise StoreError("no-space", "no space left")

    mesh = Mesh("A-B").linked()
    monkeypatch.setattr(MemoryStreamStore, "flush", full)
    mesh.send_file("A", data(600 * PIECE_BYTES))
    mesh.publish("A", b"a message is kept in memory alone, and fails the same way here")
    mesh.until(lambda: bool(mesh.events("A", FileFailed)))
    assert mesh.events("A", FileFailed)[0].reason == "no-space"
    mesh.run(1.0)
    assert mesh.chunks("A", "B") == []


def test_receipts_of_all_devices_come_to_the_source() -> None:
    names = "BCDEFGHIJKLM"
    links = "A-B " + " ".join(f"{a}-{b}" for a, b in itertools.pairwise(names))
    mesh = Mesh(links).linked()
    stream = mesh.send_file("A", data(5 * PIECE_BYTES))
    book = mesh.node("A").streams.by_short[int(stream[:8], 16)].book
    assert {name: receipt.state for name, receipt in book.receipts.items()} == dict.fromkeys(names, "waiting")
    mesh.until(lambda: len(mesh.verified(stream)) == len(names))
    mesh.run(2.0)
    assert len(names) > MAX_RECEIPTS_PER_FRAME
    last = mesh.events("A", ReceiptsChanged)[-1].receipts
    assert {name: receipt.state for name, receipt in last.items()} == dict.fromkeys(names, "verified")


def test_receipts_are_kept_until_there_is_somebody_to_pass_them_to() -> None:
    mesh = Mesh("A-B B-C").linked()
    stream = mesh.send_file("A", data(5 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    assert [hop.peer for hop in near(mesh, "C", stream)] == ["B"]
    mesh.node("B").leave(now=mesh.now)
    mesh._drain("B")
    mesh.kill("B")
    mesh.run(0.1)
    assert near(mesh, "C", stream) == []
    mesh.run(1.0)
    mesh.start("B")
    mesh.linked()
    mesh.run(2.0)
    assert mesh.events("A", ReceiptsChanged)[-1].receipts["C"].state == "verified"


def test_progress_is_told_at_most_ten_times_a_second() -> None:
    mesh = Mesh("A-B", rate_bps=5e6).linked()
    stream = mesh.send_file("A", data(800 * PIECE_BYTES))
    start = mesh.now
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    told = mesh.events("B", StreamProgress)
    assert 3 <= len(told) <= 10 * (mesh.now - start) + 2
    assert [event.held_bytes for event in told] == sorted({event.held_bytes for event in told})
    assert mesh.events("A", StreamProgress) == []
    mesh.run(1.0)
    assert mesh.events("B", StreamProgress)[-1].held_bytes == 800 * PIECE_BYTES
    assert any(
        receipt.state == "receiving"
        for event in mesh.events("A", ReceiptsChanged)
        for receipt in event.receipts.values()
    )


def test_a_new_neighbour_is_greeted_and_the_old_one_is_told_to_stop() -> None:
    mesh = Mesh("A-B A-C B-C", edges="A-B A-C", rate_bps=5e6).linked()
    stopped: list[Stop] = []
    hop = mesh.hop("C", "A")
    send = hop.send

    def noted(frame: object, *, reliable: bool = True) -> None:
        if isinstance(frame, Stop):
            stopped.append(frame)
        send(frame, reliable=reliable)  # type: ignore[arg-type]

    hop.send = noted  # type: ignore[method-assign]
    stream = mesh.send_file("A", data(500 * PIECE_BYTES))
    mesh.until(lambda: bool(mesh.node("C").streams.by_short) and len(mesh.stream("C", stream).held) > 100)
    epoch = mesh.plan("A-B B-C")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    assert mesh.events("C", GraphChanged)[-1].epoch == epoch
    numbers = mesh.chunks("A", "C", PacketType.DATA) + mesh.chunks("B", "C", PacketType.DATA)
    assert sorted(numbers) == sorted(set(numbers)), "no link carried what another had brought"
    assert mesh.chunks("B", "C") != []
    assert stopped == [Stop(int(stream[:8], 16))]


def test_a_neighbour_without_a_link_is_greeted_when_the_link_opens() -> None:
    mesh = Mesh("A-B A-C", edges="A-B", absent="C").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.plan("A-B A-C")
    mesh.run(1.0)
    mesh.start("C")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])


def test_a_stream_that_embeds_its_graph_keeps_to_it_when_the_groups_graph_changes() -> None:
    channel = ChannelSpec(name="messages", kind="message", routing="embedded")
    plain = ChannelSpec(name="files", kind="file")
    mesh = Mesh("A-B A-C B-C", edges="A-B A-C", channels=(channel, plain)).linked()
    stream, _ = mesh.publish("A", b"one")
    mesh.until(lambda: mesh.payloads("B") == [b"one"] and mesh.payloads("C") == [b"one"])
    mesh.run(0.1)
    epoch = mesh.plan("A-B B-C", to="B")
    mesh.run(0.5)
    assert mesh.node("B").table.epoch == epoch
    assert mesh.stream("B", stream).graphs.epoch != epoch
    mesh.plan("A-B B-C", to="A")
    mesh.publish("A", b"two")
    mesh.until(lambda: mesh.payloads("C") == [b"one", b"two"])
    assert mesh.chunks("B", "C", PacketType.DATA) == [2]
    assert mesh.chunks("A", "C", PacketType.DATA) == [1]


def test_chunks_of_an_earlier_run_are_checked_before_anything_is_said_of_the_stream() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(2_500 * PIECE_BYTES))
    mesh.until(lambda: bool(mesh.node("B").streams.by_short) and len(mesh.stream("B", stream).held) > 2_000)
    mesh.kill("B")
    mesh.start("B")
    short = int(stream[:8], 16)
    entry = mesh.node("B").streams.by_short[short]
    assert entry in mesh.node("B").streams.verification
    mesh.node("B").handle_timeout(now=mesh.now)
    assert 0 < len(entry.stream.held) <= 1_024
    assert entry in mesh.node("B").streams.verification
    mesh.until(lambda: mesh.verified(stream) == ["B"])


def test_files_pass_while_the_server_is_gone() -> None:
    mesh = Mesh("A-B B-C").linked()
    stream = mesh.send_file("A", data(300 * PIECE_BYTES))
    mesh.run(0.02)
    mesh.lose_server()
    second = mesh.send_file("C", data(300 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"] and mesh.verified(second) == ["A", "B"])
    assert len(mesh.events("C", FileVerified)) == 1


def test_a_cancelled_stream_is_nothing_to_a_peer_that_never_heard_of_it() -> None:
    mesh = Mesh("A-B A-C", edges="A-B").linked()
    stream = mesh.send_file("A", data(300 * PIECE_BYTES))
    mesh.run(0.01)
    mesh.cancel("A", stream)
    mesh.run(1.0)
    assert mesh.events("B", StreamCancelled) != []
    assert mesh.events("C", StreamCancelled) == []


def test_a_stream_without_a_graph_of_its_own_has_nobody_to_greet() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(10))
    before = len(mesh.crossings)
    mesh.node("A")._upkeep.on_stream_graph(mesh.stream("A", stream), None, mesh.now)
    assert len(mesh.crossings) == before


def test_receipts_find_the_source_by_the_graph_whoever_brought_the_last_chunk() -> None:
    mesh = Mesh("A-B B-C A-C", edges="A-C", absent="B").linked()
    stream = mesh.send_file("A", data(60 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["C"])
    mesh.cut.add(("A", "C"))
    mesh.run(7.0)
    mesh.start("B")
    mesh.plan("A-B B-C")
    until = mesh.now + 3.0

    def drop(crossing: Crossing) -> bool:
        chunk = peek_chunk(crossing.datagram)
        return mesh.now < until and crossing.source == "A" and chunk is not None and chunk.number > 30

    mesh.drop = drop
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    assert mesh.chunks("C", "B") != [], "B has its last chunks from its own child"
    mesh.run(2.0)
    states = {name: receipt.state for name, receipt in mesh.events("A", ReceiptsChanged)[-1].receipts.items()}
    assert states == {"B": "verified", "C": "verified"}


@pytest.mark.parametrize("scope", ["graph", "neighbours"])
def test_receipts_that_went_to_a_relay_that_died_go_again_by_the_new_way(scope: str) -> None:
    mesh = Mesh("A-B B-C A-D C-D", edges="A-B B-C", scopes=dict.fromkeys("ABCD", scope)).linked()
    stream = mesh.send_file("A", data(60 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    mesh.drop = lambda crossing: (crossing.source, crossing.target) == ("B", "A")
    mesh.run(1.0)
    assert {receipt.state for receipt in mesh.events("A", ReceiptsChanged)[-1].receipts.values()} == {"waiting"}
    mesh.kill("B")
    mesh.plan("A-D C-D")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"])
    mesh.run(2.0)
    states = {name: receipt.state for name, receipt in mesh.events("A", ReceiptsChanged)[-1].receipts.items()}
    assert {name: states[name] for name in "CD"} == {"C": "verified", "D": "verified"}


@pytest.mark.parametrize("relay", ["a new one", "the old one without its disk"])
def test_receipts_that_reach_a_relay_before_the_opening_does_go_again(relay: str) -> None:
    children = [f"K{number}" + "x" * 55 for number in range(20)]
    below = " ".join(f"C-{child}" for child in children)
    mesh = Mesh(f"A-B B-C A-X X-C {below}", edges=f"A-B B-C {below}", absent="X").linked()
    stream = mesh.send_file("A", data(20 * PIECE_BYTES))
    mesh.until(lambda: len(mesh.verified(stream)) == 22)
    mesh.drop = lambda crossing: (crossing.source, crossing.target) == ("B", "A")
    mesh.run(1.0)
    if relay != "a new one":
        mesh.kill("B")
        mesh.run(8.0)
    lost: list[Crossing] = []

    def drop(crossing: Crossing) -> bool:
        """Lose the first large datagram from C, and until a little later all from A, which brings the opening too."""
        if relay == "a new one" and (crossing.source, crossing.target) == ("B", "A"):
            return True
        if crossing.target not in ("B", "X") or crossing.kind != PacketType.CONTROL:
            return False
        if crossing.source == "C" and len(crossing.datagram) > 600 and not lost:
            lost.append(crossing)
            return True
        return crossing.source == "A" and (not lost or mesh.now - lost[0].at < 0.5)

    mesh.drop = drop
    if relay == "a new one":
        mesh.start("X")
        mesh.run(0.1)
        assert not lost
        mesh.plan(f"A-X X-C {below}")
    else:
        mesh.devices["B"].stores = MemoryStores()
        mesh.start("B")
    mesh.run(5.0)
    assert lost
    states = {name: receipt.state for name, receipt in mesh.events("A", ReceiptsChanged)[-1].receipts.items()}
    assert {name: states[name] for name in ["C", *children]} == dict.fromkeys(["C", *children], "verified")


def test_receipts_lost_with_a_link_go_again_when_it_is_back() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(60 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.drop = lambda crossing: crossing.source == "B"
    mesh.run(0.6)
    assert mesh.events("A", ReceiptsChanged)[-1].receipts["B"].state == "waiting"
    assert mesh.node("B").streams.by_short[int(stream[:8], 16)].book.due_at() is None
    mesh.say("A", "B", Bye())
    mesh.drop = lambda _: False
    mesh.until(lambda: mesh.events("A", ReceiptsChanged)[-1].receipts["B"].state == "verified")


def test_an_old_neighbour_delivers_until_a_new_one_speaks_whatever_the_others_say() -> None:
    mesh = Mesh("A-B B-D A-C B-C", edges="A-B B-D A-C", rate_bps=5e6).linked()
    stopped: list[float] = []
    hop = mesh.hop("B", "A")
    send = hop.send

    def noted(frame: object, *, reliable: bool = True) -> None:
        if isinstance(frame, Stop):
            stopped.append(mesh.now)
        send(frame, reliable=reliable)  # type: ignore[arg-type]

    hop.send = noted  # type: ignore[method-assign]
    stream = mesh.send_file("A", data(600 * PIECE_BYTES))
    mesh.until(lambda: bool(mesh.node("D").streams.by_short) and len(mesh.stream("B", stream).held) > 100)
    mesh.until(lambda: mesh.hop("B", "D").cursors[int(stream[:8], 16)].heard)
    assert len(mesh.stream("B", stream).held) < 400
    silent_until = mesh.now + 0.5
    mesh.drop = lambda crossing: mesh.now < silent_until and (crossing.source, crossing.target) == ("C", "B")
    mesh.plan("A-C B-C B-D")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"])
    assert len(stopped) == 1
    assert stopped[0] > silent_until


def asked_openings(mesh: Mesh, name: str, peer: str) -> list[AskOpening]:
    """Note every question for an opening that a device sends to a peer from now on."""
    found: list[AskOpening] = []
    hop = mesh.hop(name, peer)
    send = hop.send

    def noted(frame: Frame, *, reliable: bool = True) -> None:
        if isinstance(frame, AskOpening):
            found.append(frame)
        send(frame, reliable=reliable)

    hop.send = noted  # type: ignore[method-assign]
    return found


def test_receipts_of_an_unknown_stream_make_a_device_ask_what_it_is() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(5 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    asked = asked_openings(mesh, "B", "A")
    short = int(stream[:8], 16)
    mesh.say("A", "B", Receipts(short ^ 1, ()))
    assert asked == [AskOpening(short ^ 1)]
    mesh.node("B").streams.declined[short ^ 2] = None
    mesh.say("A", "B", Receipts(short ^ 2, ()))
    assert len(asked) == 1, "it knows that it does not want that one"


def test_who_asks_for_an_opening_gets_the_receipts_too_if_it_is_nearer_to_the_source() -> None:
    mesh = Mesh("A-B B-C").linked()
    stream = mesh.send_file("A", data(5 * PIECE_BYTES))
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    mesh.run(2.0)
    told: dict[str, list[Receipts]] = {"A": [], "C": []}
    for peer, found in told.items():
        hop = mesh.hop("B", peer)
        send = hop.send

        def noted(
            frame: Frame,
            *,
            reliable: bool = True,
            found: list[Receipts] = found,
            send: Callable[..., None] = send,
        ) -> None:
            if isinstance(frame, Receipts):
                found.append(frame)
            send(frame, reliable=reliable)

        hop.send = noted  # type: ignore[method-assign]
        mesh.say(peer, "B", AskOpening(int(stream[:8], 16)))
    assert [sorted(entry.device for entry in frame.entries) for frame in told["A"]] == [["B", "C"]]
    assert told["C"] == []
