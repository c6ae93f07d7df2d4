"""What each control frame does, and what one that makes no sense does not."""

from dataclasses import replace

import pytest

from agent.core.events import LinkChanged, StreamCancelled
from agent.core.frame_handlers import _Parts
from common.datagrams import PacketType
from common.graph import AcyclicGraph, Tree, short_epoch
from common.graph_frames import AskGraph, GraphRecord
from common.limits import MAX_PEERS
from common.link_frames import Ack, Bye, ChannelPort
from common.messages import ChannelSpec, GraphBody, GraphUpdate
from common.opening import Opening
from common.sealing import GroupKeys
from common.signing import PURPOSE_CANCEL, PURPOSE_RECEIPT
from common.stream_frames import AskOpening, Cancel, Have, ReceiptEntry, Receipts, Stop, StreamOpening, Want
from tests.harness.mesh import FILES, FIRST_EPOCH, GROUP, MESSAGES, PIECE_BYTES, Mesh, data

EMBEDDED = ChannelSpec(name="messages", kind="message", routing="embedded")

LATER = FIRST_EPOCH + 9_000


def graph_blob(epoch: int, *edges: tuple[str, str]) -> bytes:
    return AcyclicGraph(epoch, ("A", "B", "C"), (Tree("throughput", edges),)).encode()


def sent(mesh: Mesh, name: str) -> tuple[int, int]:
    """Return how many datagrams a device has sent, and chunks of them."""
    own = [crossing for crossing in mesh.crossings if crossing.source == name]
    return len(own), sum(crossing.kind != PacketType.CONTROL for crossing in own)


def test_frames_about_a_stream_that_is_unknown_here_change_nothing() -> None:
    mesh = Mesh("A-B").linked()
    mesh.say("A", "B", Want(7, ((1, 5),)), Stop(7), AskOpening(7), Receipts(7, ()), Cancel(7, bytes(60)))
    mesh.say("A", "B", AskGraph(7, 1), GraphRecord(7, 1, 0, 1, b"x"), ChannelPort("nothing", 9))
    assert mesh.node("B").streams.by_short == {}
    assert mesh.node("B").forwarder.orphans.waiting() == []
    assert mesh.hop("B", "A").ports == {}
    assert mesh.drops("B") == {}


def test_news_of_an_unknown_stream_are_held_and_its_opening_is_asked_for() -> None:
    mesh = Mesh("A-B", edges="").linked()
    stream, _ = mesh.publish("A", b"hello")
    short = int(stream[:8], 16)
    other = Mesh("A-B").linked()
    other.say("A", "B", Have(short, 1, 2, ((1, 2),)))
    assert other.node("B").forwarder.orphans.waiting() == [short]
    other.run(3.0)
    assert other.node("B").forwarder.orphans.waiting() == []


def test_a_device_that_lost_the_first_chunk_and_its_opening_gets_both_by_the_news() -> None:
    mesh = Mesh("A-B").linked()
    mesh.drop = lambda crossing: crossing.source == "A"
    mesh.publish("A", b"hello")
    mesh.run(0.02)
    mesh.drop = lambda _: False
    mesh.until(lambda: mesh.payloads("B") == [b"hello"])


def test_a_stop_takes_back_what_is_owed() -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(300 * PIECE_BYTES))
    mesh.run(0.01)
    cursor = mesh.hop("A", "B").cursors[int(stream[:8], 16)]
    assert cursor.owed_count() > 0
    mesh.drop = lambda _: True
    mesh.say("B", "A", Stop(int(stream[:8], 16)))
    assert 1 not in cursor.reported
    assert sum(number > 0 for number in mesh.chunks("A", "B")) < 400


def test_an_asked_opening_is_sent_again() -> None:
    mesh = Mesh("A-B").linked()
    stream, _ = mesh.publish("A", b"hello")
    mesh.run(0.5)
    before = sent(mesh, "A")
    mesh.say("B", "A", AskOpening(int(stream[:8], 16)))
    assert sent(mesh, "A")[0] > before[0]
    assert mesh.payloads("B") == [b"hello"]


def test_a_want_before_there_is_a_graph_is_not_answered() -> None:
    mesh = Mesh("A-B", edges=None).linked()
    stream, _ = mesh.publish("A", b"hello")
    mesh.say("B", "A", Want(int(stream[:8], 16), ((1, 2),)))
    assert mesh.chunks("A", "B") == []


@pytest.mark.parametrize("about", ["another stream", "another key", "garbage"])
def test_a_forged_cancel_is_counted_and_cancels_nothing(about: str) -> None:
    mesh = Mesh("A-B").linked()
    mesh.drop = lambda crossing: crossing.source == "A" and crossing.kind == PacketType.DATA
    stream = mesh.send_file("A", data(300 * PIECE_BYTES))
    mesh.run(0.02)
    keys = mesh.group_keys if about == "another stream" else GroupKeys(GROUP, {1: bytes(32)})
    signature = mesh.node("A").config.signer.sign(PURPOSE_CANCEL, bytes(16) + b"forged")
    sealed = keys.seal(PURPOSE_CANCEL, signature + b"forged", bytes(12))
    mesh.say("A", "B", Cancel(int(stream[:8], 16), b"" if about == "garbage" else sealed))
    assert mesh.drops("B") == {"cancel-refused": 1}
    assert mesh.events("B", StreamCancelled) == []
    mesh.drop = lambda _: False
    mesh.until(lambda: mesh.verified(stream) == ["B"])


@pytest.mark.parametrize("what", ["more bytes than the file has", "an unknown stream", "its reader's own"])
def test_absurd_receipts_are_not_believed(what: str) -> None:
    mesh = Mesh("A-B").linked()
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    mesh.run(1.0)
    book = mesh.node("A").streams.by_short[int(stream[:8], 16)].book
    before = dict(book.receipts)
    entry = {
        "more bytes than the file has": ReceiptEntry("B", "verified", 2**63, "", bytes(64)),
        "an unknown stream": ReceiptEntry("B", "verified", 10, "", bytes(64)),
        "its reader's own": ReceiptEntry("A", "refused", 0, "io", bytes(64)),
    }[what]
    short = 99 if what == "an unknown stream" else int(stream[:8], 16)
    mesh.say("B", "A", Receipts(short, (entry,)))
    assert book.receipts == before
    assert mesh.drops("A") == ({"receipts-refused": 1} if what.startswith("more") else {})


@pytest.mark.parametrize("state", ["verified", "refused", "cancelled"])
def test_no_device_gives_another_ones_last_word(state: str) -> None:
    mesh = Mesh("A-B B-C", edges="A-B B-C").linked()
    mesh.drop = lambda crossing: crossing.target == "C" and crossing.kind == PacketType.DATA
    stream = mesh.send_file("A", data(10))
    mesh.until(lambda: mesh.verified(stream) == ["B"])
    opening = mesh.stream("A", stream).opening
    book = mesh.node("A").streams.by_short[opening.short].book
    word = ReceiptEntry("C", state, 10, "")
    forged = [
        replace(word, signature=bytes(64)),
        replace(word, signature=mesh.node("B").config.signer.sign(PURPOSE_RECEIPT, word.statement(opening.stream))),
        replace(word, signature=mesh.node("C").config.signer.sign(PURPOSE_RECEIPT, word.statement(bytes(16)))),
        replace(word, device="X", signature=bytes(64)),
    ]
    for entry in forged:
        mesh.say("B", "A", Receipts(opening.short, (entry,)))
    assert mesh.drops("A") == {"receipt-forged": 4}
    assert book.receipts["C"].state in ("waiting", "receiving")
    right = mesh.node("C").config.signer.sign(PURPOSE_RECEIPT, word.statement(opening.stream))
    mesh.say("B", "A", Receipts(opening.short, (replace(word, signature=right),)))
    assert book.receipts["C"].state == state


def test_a_graph_that_was_not_asked_for_is_counted_and_not_believed() -> None:
    mesh = Mesh("A-B B-C").linked()
    epoch = mesh.node("B").table.epoch
    mesh.say("A", "B", GraphRecord(0, LATER, 0, 1, graph_blob(LATER, ("A", "C"))))
    mesh.say("A", "B", GraphRecord(0, LATER, 0, 1, b"no graph"))
    assert mesh.drops("B") == {"graphrecord-refused": 2}
    assert mesh.node("B").table.epoch == epoch


@pytest.mark.parametrize("wrong", ["stream", "epoch", "key", "graph", "signer"])
def test_an_embedded_graph_of_something_else_is_counted_and_not_believed(wrong: str) -> None:
    mesh = Mesh("A-B B-C", channels=(EMBEDDED,)).linked()
    stream, _ = mesh.publish("A", b"hello")
    mesh.until(lambda: mesh.payloads("C") == [b"hello"])
    short = int(stream[:8], 16)
    before = mesh.stream("B", stream).graphs.epoch
    plain = b"no graph" if wrong == "graph" else graph_blob(LATER + (wrong == "epoch"), ("A", "B"))
    signer = mesh.node("B" if wrong == "signer" else "A").config.signer
    about = bytes(16) if wrong == "stream" else bytes.fromhex(stream)
    plain = signer.sign(b"graph", about + plain) + plain
    keys = GroupKeys(GROUP, {1: bytes(32)}) if wrong == "key" else mesh.group_keys
    mesh.say("A", "B", GraphRecord(short, LATER, 0, 1, keys.seal(b"graph", plain, bytes(12))))
    assert mesh.drops("B") == {"graphrecord-refused": 1}
    assert mesh.stream("B", stream).graphs.epoch == before


def test_an_embedded_graph_in_several_parts_is_put_together_in_any_order() -> None:
    mesh = Mesh("A-B B-C", channels=(EMBEDDED,)).linked()
    stream, _ = mesh.publish("A", b"hello")
    mesh.until(lambda: mesh.payloads("C") == [b"hello"])
    short = int(stream[:8], 16)
    graph = graph_blob(LATER, ("A", "B"))
    signature = mesh.node("A").config.signer.sign(b"graph", bytes.fromhex(stream) + graph)
    blob = mesh.group_keys.seal(b"graph", signature + graph, bytes(12))
    mesh.say("A", "B", GraphRecord(short, LATER, 1, 2, blob[20:]))
    assert mesh.stream("B", stream).graphs.epoch != LATER
    mesh.say("A", "B", GraphRecord(short, LATER, 0, 2, blob[:20]))
    assert mesh.stream("B", stream).graphs.epoch == LATER
    mesh.say("A", "B", GraphRecord(short, LATER, 0, 2, blob[:20]), GraphRecord(short, LATER, 1, 2, blob[20:]))
    assert mesh.drops("B") == {}
    assert mesh.node("B").table.epoch is None


def test_graphs_in_parts_are_held_for_a_bounded_number_of_peers() -> None:
    mesh = Mesh("A-B").linked()
    frames = mesh.node("B")._intake.frames
    for index in range(MAX_PEERS + 1):
        frames._graphs[f"p{index}"] = _Parts(0, 1)
    mesh.say("A", "B", GraphRecord(0, LATER, 0, 2, b"half"))
    assert list(frames._graphs) == ["A"]


def test_a_relay_that_missed_an_embedded_graph_asks_its_previous_hop_and_not_the_server() -> None:
    mesh = Mesh("A-B B-C", channels=(EMBEDDED,)).linked()
    mesh.publish("A", b"first")
    mesh.until(lambda: mesh.payloads("C") == [b"first"])
    asked = len(mesh.devices["B"].requests)
    # The record to B is lost with everything else but chunks; then only an answer to B's question brings it.
    mesh.drop = lambda crossing: crossing.source == "A" and crossing.kind == PacketType.CONTROL
    mesh.plan("A-B B-C", to=())
    graph = mesh.graph
    assert graph is not None
    mesh.control("A", GraphBody.from_graph(graph))
    stream, _ = mesh.publish("A", b"second")
    mesh.run(0.04)
    assert mesh.stream("B", stream).graphs.epoch != graph.epoch
    assert mesh.node("B").forwarder.poll_timeout(mesh.now) is not None
    mesh.drop = lambda _: False
    mesh.until(lambda: mesh.payloads("C") == [b"first", b"second"])
    assert mesh.stream("B", stream).graphs.epoch == graph.epoch
    assert len([request for request in mesh.devices["B"].requests[asked:] if "Query" in type(request).__name__]) == 0


def test_a_device_that_knows_only_its_neighbours_has_no_graph_to_answer_with() -> None:
    mesh = Mesh("A-B", scopes={"A": "neighbours"}).linked()
    epoch = mesh.node("A").table.epoch or 0
    before = sent(mesh, "A")
    mesh.say("B", "A", AskGraph(0, short_epoch(epoch)))
    assert sent(mesh, "A") == before
    mesh.say("A", "B", AskGraph(0, short_epoch(epoch)))
    assert mesh.node("B").table.epoch == epoch


def test_an_embedded_graph_is_sent_again_when_it_is_asked_for() -> None:
    mesh = Mesh("A-B", channels=(EMBEDDED,)).linked()
    stream, _ = mesh.publish("A", b"first")
    mesh.until(lambda: mesh.payloads("B") == [b"first"])
    mesh.run(2.4)
    short, epoch = int(stream[:8], 16), mesh.stream("A", stream).graphs.epoch or 0
    before = sent(mesh, "A")[0]
    mesh.say("B", "A", AskGraph(short, short_epoch(epoch) + 5))
    assert sent(mesh, "A")[0] == before
    mesh.say("B", "A", AskGraph(short, short_epoch(epoch)))
    assert sent(mesh, "A")[0] == before + 1


def test_a_bye_closes_the_link_at_once() -> None:
    mesh = Mesh("A-B").linked()
    mesh.say("A", "B", Bye())
    assert "A" not in mesh.node("B").peers.hops
    assert mesh.events("B", LinkChanged)[-1].state == "probing"


def test_an_ack_of_what_was_never_sent_changes_nothing() -> None:
    mesh = Mesh("A-B").linked()
    before = mesh.hop("B", "A").recovery.in_flight_bytes
    mesh.say("A", "B", Ack(10_000, 5, ((9_000, 10_001),)))
    assert mesh.hop("B", "A").recovery.in_flight_bytes == before


def test_a_peers_port_for_a_channel_is_noted() -> None:
    mesh = Mesh("A-B").linked()
    mesh.say("A", "B", ChannelPort("files", 4242))
    assert mesh.hop("B", "A").ports == {"files": 4242}


def test_an_opening_that_is_declined_frees_what_waited_for_it() -> None:
    mesh = Mesh("A-B", channels=(FILES,)).linked()
    other = Mesh("A-B", channels=(FILES, MESSAGES)).linked()
    stream, _ = other.publish("A", b"hello")
    short = int(stream[:8], 16)
    (chunk,) = other.stream("A", stream).sealed(1, 2)
    mesh.inject("B", mesh.chunk_to("A", "B", chunk), source="A")
    mesh.say("A", "B", Have(short, 1, 2, ((1, 2),)), Have(short + 1, 1, 2, ((1, 2),)))
    assert mesh.node("B").forwarder.orphans.waiting() == [short, short + 1]
    mesh.say("A", "B", StreamOpening(other.stream("A", stream).sealed_opening))
    assert mesh.node("B").forwarder.orphans.waiting() == [short + 1]
    mesh.say("A", "B", Have(short, 1, 2, ((1, 2),)))
    assert mesh.node("B").forwarder.orphans.waiting() == [short + 1]
    assert mesh.drops("B") == {"unknown-channel": 1, "chunk-of-declined-stream": 1}
    assert isinstance(other.stream("A", stream).opening, Opening)


def test_an_answer_about_an_epoch_that_a_push_has_passed_over_still_frees_what_waits_for_it() -> None:
    mesh = Mesh("A-B B-C").linked()
    stream, _ = mesh.publish("A", b"first")
    mesh.run(0.1)
    chunk = mesh.message_chunk("A", stream, 2, b"second")
    mesh.inject("B", mesh.chunk_to("A", "B", chunk, epoch=LATER), source="A")
    epoch = mesh.plan("A-B B-C")
    assert mesh.node("B").forwarder.poll_timeout(mesh.now) is not None
    mesh.say("A", "B", GraphRecord(0, LATER, 0, 1, graph_blob(LATER, ("A", "B"), ("B", "C"))))
    assert mesh.node("B").forwarder.poll_timeout(mesh.now) is None
    assert mesh.node("B").table.epoch == epoch
    assert mesh.drops("B") == {}


def test_a_graph_of_another_time_under_an_asked_epochs_short_form_is_counted_and_not_believed() -> None:
    """An epoch far ahead of the clock would govern the group until the clock is there."""
    mesh = Mesh("A-B B-C").linked()
    stream, _ = mesh.publish("A", b"first")
    mesh.run(0.1)
    before = mesh.node("B").table.epoch
    chunk = mesh.message_chunk("A", stream, 2, b"second")
    mesh.inject("B", mesh.chunk_to("A", "B", chunk, epoch=LATER), source="A")
    for epoch in (LATER + 2**32, LATER - 2**32):
        mesh.say("A", "B", GraphRecord(0, epoch, 0, 1, graph_blob(epoch, ("A", "B"), ("B", "C"))))
    assert mesh.drops("B") == {"graphrecord-refused": 2}
    assert mesh.node("B").table.epoch == before
    mesh.say("A", "B", GraphRecord(0, LATER, 0, 1, graph_blob(LATER, ("A", "B"), ("B", "C"))))
    assert mesh.node("B").table.epoch == LATER


def test_a_graph_too_large_to_travel_is_no_answer_and_harms_nothing() -> None:
    mesh = Mesh("A-B").linked()
    names = tuple(sorted(["A", "B", *(f"{number:064}" for number in range(1_100))]))
    mesh.control("A", GraphUpdate(graph=GraphBody.from_graph(AcyclicGraph(LATER, names, (Tree("throughput", ()),)))))
    assert mesh.node("A").table.epoch == LATER
    before = sent(mesh, "A")
    mesh.say("B", "A", AskGraph(0, short_epoch(LATER)))
    assert sent(mesh, "A") == before
    assert mesh.drops("A") == {}
