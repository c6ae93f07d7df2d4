from common.graph import AcyclicGraph, Tree
from common.limits import MAX_SUBSCRIBERS_PER_DEVICE
from common.messages import (
    Accepted,
    EpochUpdate,
    ErrorMessage,
    GraphBody,
    GraphUpdate,
    NeighboursBody,
    NeighboursUpdate,
    TreeNeighbours,
    Unchanged,
)
from server.core.subscribers import Subscriber, Subscribers

DEVICES = ("A", "B", "C", "D")
OLD = AcyclicGraph(1, DEVICES, (Tree.of("throughput", [("A", "B"), ("B", "C"), ("C", "D")]),))
NEW = AcyclicGraph(2, DEVICES, (Tree.of("throughput", [("A", "B"), ("B", "C"), ("B", "D")]),))
BYE = ErrorMessage(reason="evicted", detail="gone")


def add(subscribers: Subscribers, number: int, device: str | None, scope: str, *, unchanged: bool = False) -> None:
    who = {
        "graph": Subscriber(device, "graph"),
        "neighbours": Subscriber(device, "neighbours"),
        "roster": Subscriber(device, "roster"),
    }[scope]
    subscribers.add(number, who, NEW, unchanged=unchanged, passed=(OLD,))


def drain(subscribers: Subscribers) -> list[tuple[int, object]]:
    return list(iter(subscribers.poll, None))


def test_M5_the_first_answer_is_the_state_with_what_was_passed_over() -> None:
    subscribers = Subscribers()
    add(subscribers, 1, "A", "graph")
    add(subscribers, 2, "D", "neighbours")
    add(subscribers, 3, None, "graph")
    add(subscribers, 4, "B", "roster")
    whole = GraphUpdate(graph=GraphBody.from_graph(NEW), passed=(GraphBody.from_graph(OLD),))
    assert drain(subscribers) == [
        (1, whole),
        (
            2,
            NeighboursUpdate(
                epoch=2,
                trees=(TreeNeighbours(objective="throughput", neighbours=("B",)),),
                passed=(NeighboursBody.from_graph(OLD, "D"),),
            ),
        ),
        (3, whole),
    ]
    assert len(subscribers) == 4


def test_M5_who_has_the_current_epoch_is_told_so() -> None:
    subscribers = Subscribers()
    add(subscribers, 1, "A", "neighbours", unchanged=True)
    assert drain(subscribers) == [(1, Unchanged(epoch=2))]


def test_M5_a_new_epoch_tells_each_subscriber_what_changed_for_it() -> None:
    subscribers = Subscribers()
    for number, (device, scope) in enumerate(
        [("A", "graph"), ("A", "neighbours"), ("D", "neighbours"), ("B", "roster")]
    ):
        add(subscribers, number, device, scope)
    drain(subscribers)
    subscribers.graph_changed(OLD, NEW)
    assert drain(subscribers) == [
        (0, GraphUpdate(graph=GraphBody.from_graph(NEW))),
        (1, EpochUpdate(epoch=2)),
        (2, NeighboursUpdate(epoch=2, trees=NeighboursBody.from_graph(NEW, "D").trees)),
    ]


def test_nobody_subscribed_means_nothing_to_say() -> None:
    subscribers = Subscribers()
    subscribers.graph_changed(OLD, NEW)
    assert drain(subscribers) == []


def test_what_many_get_is_one_object() -> None:
    subscribers = Subscribers()
    for number in range(3):
        add(subscribers, number, f"d{number}", "graph")
    drain(subscribers)
    subscribers.graph_changed(OLD, NEW)
    assert len({id(message) for _, message in drain(subscribers)}) == 1


def test_keys_are_pushed_to_devices_only() -> None:
    subscribers = Subscribers()
    add(subscribers, 1, None, "graph")
    add(subscribers, 2, "A", "roster")
    drain(subscribers)
    subscribers.push_to_devices(Accepted(of="qos"))
    assert drain(subscribers) == [(2, Accepted(of="qos"))]


def test_what_waits_for_a_subscriber_that_left_is_dropped() -> None:
    subscribers = Subscribers()
    add(subscribers, 1, "A", "graph")
    add(subscribers, 2, "A", "graph")
    subscribers.remove(1)
    subscribers.remove(99)
    assert [number for number, _ in drain(subscribers)] == [2]


def test_all_subscriptions_of_a_device_are_closed_with_a_last_word() -> None:
    subscribers = Subscribers()
    add(subscribers, 1, "A", "graph")
    add(subscribers, 2, "A", "neighbours")
    add(subscribers, 3, "B", "graph")
    subscribers.close_device("A", BYE)
    subscribers.close_device("Z", BYE)
    assert [subscribers.poll_closed(), subscribers.poll_closed(), subscribers.poll_closed()] == [
        (1, BYE),
        (2, BYE),
        None,
    ]
    assert len(subscribers) == 1


def test_a_device_s_newer_subscriptions_take_over() -> None:
    subscribers = Subscribers()
    for number in range(MAX_SUBSCRIBERS_PER_DEVICE + 1):
        add(subscribers, number, "A", "graph")
    closed = subscribers.poll_closed()
    assert closed is not None
    assert (closed[0], closed[1].reason) == (0, "superseded")
    assert len(subscribers) == MAX_SUBSCRIBERS_PER_DEVICE


def test_a_subscriber_may_change_its_mind() -> None:
    subscribers = Subscribers()
    add(subscribers, 1, "A", "graph")
    drain(subscribers)
    add(subscribers, 1, "A", "roster")
    subscribers.graph_changed(OLD, NEW)
    assert drain(subscribers) == []
    assert len(subscribers) == 1


def test_M5_another_objective_in_use_is_a_change_for_everybody() -> None:
    subscribers = Subscribers()
    add(subscribers, 1, "A", "neighbours")
    drain(subscribers)
    both = AcyclicGraph(3, DEVICES, (*NEW.trees, Tree("latency", ())))
    subscribers.graph_changed(NEW, both)
    ((_, update),) = drain(subscribers)
    assert isinstance(update, NeighboursUpdate)
    assert [tree.objective for tree in update.trees] == ["throughput", "latency"]


def test_who_names_its_run_is_known_from_other_runs() -> None:
    subscribers = Subscribers()
    subscribers.add(1, Subscriber("A", "graph"), NEW, unchanged=False, passed=())
    assert not subscribers.is_subscribed("A")
    subscribers.add(2, Subscriber("A", "graph", "one"), NEW, unchanged=False, passed=())
    assert subscribers.is_subscribed("A")
    assert subscribers.is_subscribed("A", but="two")
    assert not subscribers.is_subscribed("A", but="one")
    assert not subscribers.is_subscribed("B")
    subscribers.remove(2)
    assert not subscribers.is_subscribed("A")
