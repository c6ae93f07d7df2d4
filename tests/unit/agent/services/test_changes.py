from agent.core.events import GraphChanged, LinkChanged
from agent.services.changes import CHANGES_KEPT, Changes, GraphChange, LinkChange


def test_changes_are_kept_with_their_times() -> None:
    changes = Changes()
    changes.on_event(LinkChanged("B", "suspect"), now=3.0)
    changes.on_event(GraphChanged(9, {"throughput": ("C",)}), now=4.0)
    assert list(changes.links) == [LinkChange(3.0, "B", "suspect")]
    assert list(changes.graphs) == [GraphChange(4.0, 9, {"throughput": ("C",)})]


def test_the_oldest_changes_go_first() -> None:
    changes = Changes()
    for second in range(CHANGES_KEPT + 1):
        changes.on_event(LinkChanged("B", "open"), now=second)
    assert len(changes.links) == CHANGES_KEPT
    assert changes.links[0].at == 1
