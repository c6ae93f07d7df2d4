"""What is stored of a group: when, and that parts that did not change stay the same objects."""

from common.graph import AcyclicGraph, Tree
from common.limits import LINKS_STORE_S
from server.core.epochs import Epochs
from server.core.ledger import Ledger
from server.core.members import Members
from server.core.snapshot import GroupRecord
from server.core.topology import Topology
from tests.unit.server.harness import WALL, entropy


class Books:
    """A ledger with the links of A and B."""

    def __init__(self, stored: GroupRecord | None = None) -> None:
        self.epochs = Epochs(AcyclicGraph(1, ("A", "B"), (Tree("throughput", ()),)))
        self.topology = Topology()
        for device in "AB":
            self.topology.add(device, now=0.0)
        self.ledger = Ledger("lab", Members(wall=WALL, entropy=entropy()), self.topology, stored=stored)

    def report(self, device: str, *peers: str, now: float = 0.0) -> None:
        self.topology.report_peers(device, peers, now=now)
        self.ledger.on_links(device, now)

    def written(self, *, links: bool = False) -> GroupRecord:
        self.ledger.write(self.epochs, now=0.0, wall=WALL, links=links)
        record = self.ledger.poll()
        assert record is not None
        return record


def test_a_record_is_taken_once() -> None:
    books = Books()
    assert books.ledger.poll() is None
    assert books.written().name == "lab"
    assert books.ledger.poll() is None


def test_reported_links_are_due_a_while_after_the_first_of_them() -> None:
    books = Books()
    books.report("A", "B", now=3.0)
    books.report("B", "A", now=3.5)
    assert books.ledger.due_at == 3.0 + LINKS_STORE_S
    assert books.written(links=True).links.devices["B"].peers == ("A",)
    assert books.ledger.due_at is None


def test_what_waits_is_left_out_of_what_is_stored_for_another_reason() -> None:
    books = Books()
    first = books.written()
    books.report("A", "B")
    again = books.written()
    assert again.links is first.links
    assert books.ledger.due_at is not None
    assert books.written(links=True).links.devices["A"].peers == ("B",)


def test_only_what_a_device_reported_anew_is_made_anew() -> None:
    books = Books()
    books.report("A", "B")
    books.report("B", "A")
    first = books.written(links=True).links.devices
    books.report("B")
    again = books.written(links=True).links.devices
    assert again["A"] is first["A"]
    assert again["B"].peers == ()
    books.ledger.on_evicted()
    assert books.written(links=True).links.devices["A"] is not first["A"]


def test_the_graphs_are_made_anew_with_every_other_graph_and_then_alone() -> None:
    books = Books()
    first = books.written()
    assert books.written().graphs is first.graphs
    books.ledger.on_graph()
    assert books.written().graphs is not first.graphs


def test_what_was_stored_stays_until_something_changes() -> None:
    stored = Books().written()
    again = Books(stored).written()
    assert again.graphs is stored.graphs
    assert again.links is stored.links
