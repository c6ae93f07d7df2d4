import pytest

from common.errors import StaleEpoch
from common.graph import AcyclicGraph, Tree
from common.limits import EPOCH_AGE_S, EPOCHS_KEPT, EPOCHS_MAX, MAX_EPOCH
from server.core import epochs as module
from server.core.epochs import Epochs


def graph(epoch: int, edges: int = 0) -> AcyclicGraph:
    devices = tuple(f"d{number:03}" for number in range(edges + 1))
    return AcyclicGraph(epoch, devices, (Tree("throughput", tuple((devices[0], d) for d in devices[1:])),))


def advanced(count: int, *, step: float = 1.0, edges: int = 0) -> Epochs:
    epochs = Epochs(graph(0, edges))
    for number in range(1, count):
        epochs.advance(graph(number, edges), now=number * step)
    return epochs


def kept(epochs: Epochs, of: int) -> list[int]:
    found = []
    for number in range(of):
        try:
            found.append(epochs.get(number).epoch)
        except StaleEpoch:
            continue
    return found


def test_the_next_epoch_lies_above_what_is_stored_what_was_seen_and_the_clock() -> None:
    epochs = Epochs(graph(1_000))
    assert epochs.next_epoch(wall=0.0) == 1_001
    assert epochs.next_epoch(wall=5.0) == 5_000_000
    epochs.highest_seen = 6_000_000
    assert epochs.next_epoch(wall=5.0) == 6_000_001
    assert epochs.next_epoch(wall=1e12) == MAX_EPOCH


def test_M4_the_last_64_epochs_can_be_asked_for() -> None:
    epochs = advanced(100, step=60.0)
    assert kept(epochs, 100) == list(range(100 - EPOCHS_MAX, 100))
    with pytest.raises(StaleEpoch, match="epoch 3 is not kept; the current one is 99"):
        epochs.get(3)


def test_of_large_graphs_only_the_last_and_the_young_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EPOCH_EDGES_MAX", 100)
    assert kept(advanced(100, step=60.0, edges=50), 100) == list(range(100 - EPOCHS_KEPT, 100))
    young = kept(advanced(100, step=1.0, edges=50), 100)
    assert young[0] == 100 - 1 - int(EPOCH_AGE_S)
    assert young[-1] == 99


def test_what_a_subscriber_skipped_is_listed_oldest_first() -> None:
    epochs = advanced(20)
    assert [found.epoch for found in epochs.passed(16, now=20.0)] == [17, 18]
    assert [found.epoch for found in epochs.passed(0, now=20.0)] == list(range(12, 19))
    assert epochs.passed(19, now=20.0) == ()


def test_who_saw_nothing_gets_the_epochs_under_which_chunks_may_still_travel() -> None:
    epochs = advanced(3)
    assert [found.epoch for found in epochs.passed(None, now=2.0)] == [0, 1]
    assert [found.epoch for found in epochs.passed(None, now=31.5)] == [1]
    assert epochs.passed(None, now=40.0) == ()


def test_the_last_epochs_survive_a_restart_with_their_age() -> None:
    epochs = advanced(20)
    epochs.highest_seen = 77
    record = epochs.record(now=20.0, wall=1_000.0)
    assert [entry.graph.epoch for entry in record.kept] == list(range(12, 20))
    assert record.kept[-1].superseded_wall is None
    assert record.kept[-2].superseded_wall == 999.0
    again = Epochs.restored(record, now=5.0, wall=1_010.0)
    assert again.current.epoch == 19
    assert again.highest_seen == 77
    assert [found.epoch for found in again.passed(None, now=5.0)] == list(range(12, 19))
    assert again.passed(None, now=40.0) == ()


def test_an_age_is_never_negative_though_the_clock_stepped_back() -> None:
    record = advanced(3).record(now=2.0, wall=1_000.0)
    again = Epochs.restored(record, now=5.0, wall=0.0)
    assert [found.epoch for found in again.passed(None, now=34.9)] == [0, 1]
