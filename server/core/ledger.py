"""What of a group has to be stored, and by when.

The parts of the record that did not change stay the objects that they were, so that a store can tell.
"""

from common.ids import DeviceId, GroupId
from common.limits import LINKS_STORE_S
from server.core.epochs import Epochs
from server.core.members import Members
from server.core.snapshot import DeviceLinks, GraphsRecord, GroupRecord, LinksRecord
from server.core.topology import Topology


class Ledger:
    """Writes the record of one group.

    Attributes:
        due_at: when what was reported of links is to be written at the latest, monotonic seconds; None: nothing is.
    """

    def __init__(self, name: GroupId, members: Members, topology: Topology, *, stored: GroupRecord | None) -> None:
        """Begin with what is stored.

        Args:
            name: the group's id.
            members: who belongs to it.
            topology: their links.
            stored: what was stored of it; None for a new group.
        """
        self.due_at: float | None = None
        self._name = name
        self._members = members
        self._topology = topology
        self._graphs: GraphsRecord | None = None if stored is None else stored.graphs
        self._links: LinksRecord | None = None if stored is None else stored.links
        self._links_of: dict[DeviceId, DeviceLinks] = {}
        self._record: GroupRecord | None = None

    def on_links(self, device: DeviceId, now: float) -> None:
        """Take note that a device reported its links; that may wait for a while."""
        self._links_of.pop(device, None)
        if self.due_at is None:
            self.due_at = now + LINKS_STORE_S

    def on_evicted(self) -> None:
        """Take note that a member is gone, and with it what others say of their links to it."""
        self._links_of.clear()

    def on_graph(self) -> None:
        """Take note that there is another graph."""
        self._graphs = None

    def write(self, epochs: Epochs, *, now: float, wall: float, links: bool) -> None:
        """Have the state stored.

        Args:
            epochs: the group's graphs.
            now: monotonic seconds.
            wall: unix seconds at `now`.
            links: also what was reported of links.
        """
        if links or self._links is None:
            self.due_at = None
            for device in self._topology.devices():
                if device not in self._links_of:
                    peers, figures = self._topology.claims(device)
                    self._links_of[device] = DeviceLinks(peers=peers, figures=figures)
            # Checked when they were reported: to check ten thousand again at each epoch would hold up its push.
            self._links = LinksRecord.model_construct(devices=dict(self._links_of))
        if self._graphs is None:
            self._graphs = epochs.record(now=now, wall=wall)
        self._record = GroupRecord(
            name=self._name, members=self._members.record(), graphs=self._graphs, links=self._links
        )

    def poll(self) -> GroupRecord | None:
        """Take what has to be stored; None when nothing has."""
        record, self._record = self._record, None
        return record
