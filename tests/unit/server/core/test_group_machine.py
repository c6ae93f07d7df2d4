"""Random histories of a group, beside a model that knows only who is a member and who reports whom."""

import networkx as nx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.errors import RefusedError
from common.limits import COALESCE_S, LEASE_S
from common.messages import EpochUpdate, GraphUpdate, NeighboursUpdate, QosFigures, Subscribe, Unchanged
from server.core.snapshot import GroupRecord
from tests.unit.server.harness import Bench

NAMES = ("A", "B", "C", "D", "E")
names = st.sampled_from(NAMES)


class GroupHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.peers: dict[str, set[str]] = {}
        self.heard: dict[str, float] = {}
        self.seen: dict[int, int] = {}
        self.highest = self.bench.group.graph().epoch
        self.record: GroupRecord | None = None

    @rule(device=names)
    def enrol(self, device: str) -> None:
        if device in self.peers:
            with pytest.raises(RefusedError, match="device-exists"):
                self.bench.enrol(device)
            return
        self.bench.enrol(device)
        self.peers[device] = set()
        self.heard[device] = self.bench.now

    @rule(device=names)
    def evict(self, device: str) -> None:
        if device not in self.peers:
            with pytest.raises(RefusedError, match="unknown-device"):
                self.bench.group.evict(device, now=self.bench.now, wall=self.bench.wall)
            return
        self.bench.group.evict(device, now=self.bench.now, wall=self.bench.wall)
        del self.peers[device]
        for others in self.peers.values():
            others.discard(device)

    @rule(device=names, peers=st.sets(names))
    def report_adjacency(self, device: str, peers: set[str]) -> None:
        if device not in self.peers or device in peers or not peers <= set(self.peers):
            with pytest.raises(RefusedError):
                self.bench.adjacency(device, *sorted(peers))
            return
        self.bench.adjacency(device, *sorted(peers))
        self.peers[device] = peers
        self.heard[device] = self.bench.now

    @precondition(lambda self: self.peers)
    @rule(device=names, peer=names, rate=st.sampled_from([1e6, 1.1e6, 5e6, 1e9]))
    def report_figures(self, device: str, peer: str, rate: float) -> None:
        if device in self.peers and peer in self.peers and device != peer:
            self.bench.qos(device, {peer: QosFigures(bandwidth_bps=rate)})
            self.heard[device] = self.bench.now

    @rule(seconds=st.sampled_from([0.01, COALESCE_S, 1.0, 6.0, LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.bench.run(self.bench.now + seconds)

    @rule(device=names, number=st.integers(0, 5), scope=st.sampled_from(["graph", "neighbours"]), resume=st.booleans())
    def subscribe(self, device: str, number: int, scope: str, resume: bool) -> None:
        if device in self.peers:
            message = Subscribe.model_validate({"scope": scope, "epoch": self.seen.get(number) if resume else None})
            if not resume:
                self.seen.pop(number, None)
            self.bench.group.subscribe(number, device, message, now=self.bench.now, wall=self.bench.wall)

    @rule()
    def restart(self) -> None:
        self.listen()
        bench = self.bench
        bench.group.store_now(now=bench.now, wall=bench.wall)
        record = bench.group.poll_record()
        assert record is not None
        again = Bench(stored=GroupRecord.model_validate_json(record.model_dump_json()))
        again.offset = bench.wall
        assert again.group.graph() == bench.group.graph()
        self.bench = again
        self.heard = dict.fromkeys(self.peers, 0.0)

    @invariant()
    def listen(self) -> None:
        """Every subscriber hears of epochs that only rise, and of the current one."""
        for number, message in self.bench.pushes():
            if isinstance(message, GraphUpdate):
                epochs = [*(graph.epoch for graph in message.passed), message.graph.epoch]
            elif isinstance(message, NeighboursUpdate):
                epochs = [*(body.epoch for body in message.passed), message.epoch]
            elif isinstance(message, EpochUpdate):
                epochs = [message.epoch]
            elif isinstance(message, Unchanged):
                assert message.epoch == self.seen[number]
                continue
            else:
                continue
            assert epochs == sorted(set(epochs))
            assert epochs[0] > self.seen.get(number, -1)
            self.seen[number] = epochs[-1]

    @invariant()
    def epochs_only_rise(self) -> None:
        epoch = self.bench.group.graph().epoch
        assert epoch >= self.highest
        self.highest = epoch

    @invariant()
    def settled_trees_span_what_both_ends_report(self) -> None:
        bench = self.bench
        due = bench.group.poll_timeout()
        assert due is None or due > bench.now or bench.now == 0.0
        if bench.group._plan_at is not None:
            return
        alive = {device for device in self.peers if bench.now - self.heard[device] < LEASE_S}
        model: nx.Graph[str] = nx.Graph()
        model.add_nodes_from(self.peers)
        model.add_edges_from((a, b) for a in alive for b in self.peers[a] if b in alive and a in self.peers[b])
        graph = bench.group.graph()
        assert set(graph.devices) == set(self.peers)
        assert all(model.has_edge(a, b) for a, b in graph.trees[0].edges)
        assert set(map(frozenset, graph.components())) == set(map(frozenset, nx.connected_components(model)))


TestGroupHistory = GroupHistory.TestCase
TestGroupHistory.settings = settings(stateful_step_count=25)
