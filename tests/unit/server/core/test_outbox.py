from common.graph import AcyclicGraph, Tree
from common.limits import EPOCHS_KEPT, SUBSCRIBER_OUTBOX
from common.messages import (
    Accepted,
    Channels,
    EpochUpdate,
    ErrorMessage,
    GraphBody,
    GraphUpdate,
    MtuUpdate,
    NeighboursBody,
    NeighboursUpdate,
    Roster,
    ServerMessage,
    TreeNeighbours,
    Unchanged,
)
from server.core.outbox import Outbox
from tests.unit.server.harness import KEY


def graph(epoch: int, *passed: int) -> GraphUpdate:
    return GraphUpdate(graph=body(epoch), passed=tuple(body(number) for number in passed))


def body(epoch: int) -> GraphBody:
    return GraphBody.from_graph(AcyclicGraph(epoch, (), (Tree("throughput", ()),)))


def trees(*neighbours: str) -> tuple[TreeNeighbours, ...]:
    return (TreeNeighbours(objective="throughput", neighbours=neighbours),)


def roster(version: int) -> Roster:
    return Roster(version=version, devices=(), key_epoch=1, group_keys={1: KEY})


def drain(outbox: Outbox) -> list[ServerMessage]:
    return list(iter(outbox.take, None))


def filled(*messages: ServerMessage) -> Outbox:
    outbox = Outbox()
    for message in messages:
        assert outbox.offer(message)
    return outbox


def test_state_goes_first_then_roster_channels_the_newest_size_and_answers() -> None:
    channels = Channels(version=1, channels=())
    sizes = MtuUpdate(mtu_bytes=1_472), MtuUpdate(mtu_bytes=1_252)
    outbox = filled(Accepted(of="qos"), *sizes, channels, roster(1), graph(1))
    assert len(outbox) == 5
    assert drain(outbox) == [graph(1), roster(1), channels, sizes[1], Accepted(of="qos")]
    assert len(outbox) == 0


def test_of_several_graphs_the_newest_waits_and_names_those_it_passed_over() -> None:
    assert drain(filled(graph(1), graph(2), graph(5, 3, 4))) == [graph(5, 1, 2, 3, 4)]


def test_no_more_epochs_are_named_than_an_agent_keeps() -> None:
    (update,) = drain(filled(*(graph(number) for number in range(20))))
    assert isinstance(update, GraphUpdate)
    assert [passed.epoch for passed in update.passed] == list(range(20 - EPOCHS_KEPT, 19))


def test_neighbours_merge_with_what_follows_them() -> None:
    first = NeighboursUpdate(epoch=1, trees=trees("B"))
    second = NeighboursUpdate(epoch=3, trees=trees("C"))
    assert drain(filled(first, EpochUpdate(epoch=2), second)) == [
        NeighboursUpdate(
            epoch=3,
            trees=trees("C"),
            passed=(NeighboursBody(epoch=1, trees=trees("B")), NeighboursBody(epoch=2, trees=trees("B"))),
        )
    ]


def test_epoch_numbers_alone_are_all_sent_up_to_those_an_agent_keeps() -> None:
    epochs = [EpochUpdate(epoch=number) for number in range(20)]
    assert drain(filled(*epochs)) == epochs[-EPOCHS_KEPT:]


def test_unchanged_is_not_swallowed_by_what_follows() -> None:
    assert drain(filled(Unchanged(epoch=1), graph(2))) == [Unchanged(epoch=1), graph(2)]


def test_only_the_newest_roster_and_channels_wait() -> None:
    assert drain(filled(roster(1), roster(2), Channels(version=1, channels=()), Channels(version=2, channels=()))) == [
        roster(2),
        Channels(version=2, channels=()),
    ]


def test_answers_that_nobody_reads_fill_the_outbox() -> None:
    outbox = Outbox()
    for _ in range(SUBSCRIBER_OUTBOX):
        assert outbox.offer(ErrorMessage(reason="strangers", detail="Z"))
    assert not outbox.offer(Accepted(of="qos"))
    assert outbox.offer(graph(1))
