"""What a device says to the server, and what it makes of the answers.

On every (re)connection: subscribe as far as a channel wants it, naming the last epoch seen; then report candidates,
figures (M2) and adjacency (M1). Links are reported at once when they change; figures every 5 s besides, and at once
those that changed so that it matters (`bulletin`).
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from agent.core.bulletin import Bulletin
from agent.core.candidates import OwnCandidates
from agent.core.channels import ChannelTable
from agent.core.config import NodeConfig
from agent.core.events import ControlFailed, ControlRequest, QueryGraph, QueryNeighbours
from agent.core.peers import Peers
from agent.core.routing import GraphTable
from agent.core.streams import StreamTable
from common.ids import DeviceId
from common.messages import (
    AdjacencyReport,
    CandidatesReport,
    Channels,
    EpochUpdate,
    GraphBody,
    GraphUpdate,
    MtuUpdate,
    NeighboursBody,
    NeighboursUpdate,
    QosFigures,
    QosReport,
    Roster,
    ServerMessage,
    Subscribe,
)

REPORT_EVERY_S: Final = 5.0
MAX_REQUESTS: Final = 256
"""Requests that may wait for the shell; when the server is gone, older reports give way."""


class ControlPlane:
    """Turns changes into requests, and the server's messages into graphs, members and channels.

    Args:
        config: what the device is told about itself.
        own: where this device may be reached.
        table: the graphs known here.
        channels: rules and manners.
        peers: links and hops.
        streams: what is sent and received.
    """

    def __init__(
        self,
        config: NodeConfig,
        own: OwnCandidates,
        table: GraphTable,
        channels: ChannelTable,
        peers: Peers,
        streams: StreamTable,
    ) -> None:
        self.connected = False
        self.requests: Counter[str] = Counter()
        """How often each kind of request was made."""
        self.to_ask: list[int] = []
        """Streams (short forms) whose openings are worth asking for again."""
        self._config = config
        self._own = own
        self._told: CandidatesReport | None = None
        """What the server was told on this connection of where this device may be reached."""
        self._told_version = own.version
        self._table = table
        self._channels = channels
        self._peers = peers
        self._streams = streams
        self._queue: deque[ControlRequest] = deque(maxlen=MAX_REQUESTS)
        self.subscribed: str | None = None
        """The scope subscribed to on this connection."""
        self._report_at: float | None = None
        self._bulletin = Bulletin()

    def on_connected(self, now: float) -> None:
        """Take note that the socket to the server is up."""
        self.connected = True
        self._queue.clear()
        self.subscribed = None
        self._subscribe()
        self._told = None
        self._report_candidates()
        self.report_links(now)

    def on_lost(self) -> None:
        """Take note that the socket to the server is gone: reports wait, queries fail at once."""
        self.connected = False
        self._report_at = None

    def report_links(self, now: float) -> None:
        """Say which links are open, and how good they are."""
        if not self.connected:
            return
        peers = self._peers.usable()
        # Figures first: no link counts before it is known how good it is.
        figures = self._figures()
        self._bulletin.tell_all(figures)
        self._ask(QosReport(links=figures))
        self._ask(AdjacencyReport(peers=peers))
        self._report_at = now + REPORT_EVERY_S

    def receive(self, message: ServerMessage | NeighboursBody | GraphBody | ControlFailed, now: float) -> None:
        """Take what the server said."""
        before = self._table.epoch
        match message:
            case Roster():
                self._streams.set_keys(message)
                self._peers.set_roster(message.devices, now)
                self._streams.begin_resume(now)
                return
            case Channels():
                self._channels.set_specs(message.channels, now)
                self.to_ask.extend(self._streams.on_channels())
                self._streams.begin_resume(now)
                self._subscribe()
                return
            case MtuUpdate():
                self._streams.group_mtu_bytes = message.mtu_bytes
                return
            case ControlFailed():
                self._on_failed(message, now)
                return
            case GraphUpdate() | NeighboursUpdate() | EpochUpdate() | NeighboursBody() | GraphBody():
                self._learn(message, now)
            case _:
                return
        for channel in self._channels.by_name.values():
            channel.manner.on_graph(now, changed=self._table.epoch != before)

    def handle_timeout(self, now: float) -> None:
        """Report periodically and what changed, and collect the manners' queries."""
        if self._own.version != self._told_version and self.connected:
            self._report_candidates()
        if self._report_at is not None and now >= self._report_at:
            self.report_links(now)
        elif self.connected and self._bulletin.due(now):
            changed = self._bulletin.tell_changed(self._figures())
            if changed:
                self._ask(QosReport(links=changed))
        for channel in self._channels.by_name.values():
            while (request := channel.manner.poll_request(now)) is not None:
                if self.connected:
                    self._ask(request)
                else:
                    channel.manner.on_failed(now)

    def poll(self) -> ControlRequest | None:
        """Return the next request."""
        return self._queue.popleft() if self._queue else None

    def poll_timeout(self) -> float | None:
        """Return when ``handle_timeout`` is due."""
        times = [self._report_at]
        times.extend(channel.manner.poll_timeout() for channel in self._channels.by_name.values())
        due = [at for at in times if at is not None]
        return min(due) if due else None

    def _figures(self) -> dict[DeviceId, QosFigures]:
        return {peer: self._peers.figures(peer) for peer in self._peers.usable() if peer in self._peers.hops}

    def _learn(
        self, message: GraphUpdate | NeighboursUpdate | EpochUpdate | NeighboursBody | GraphBody, now: float
    ) -> None:
        match message:
            case GraphUpdate():
                for body in (*message.passed, message.graph):
                    self._table.learn_body(body, now)
            case NeighboursUpdate():
                current = NeighboursBody(epoch=message.epoch, trees=message.trees)
                for passed in (*message.passed, current):
                    self._table.learn_body(passed, now)
            case EpochUpdate():
                self._table.learn_epoch(message.epoch, now)
            case _:
                self._table.learn_body(message, now)

    def _report_candidates(self) -> None:
        """Say where this device may be reached, unless the server knows it."""
        report, self._told_version = self._own.report(), self._own.version
        if report != self._told:
            self._told = report
            self._ask(report)

    def _subscribe(self) -> None:
        if not self.connected:
            return
        scope = self._config.scope if self._channels.subscribes() else "roster"
        if scope != self.subscribed:
            self.subscribed = scope
            current = self._table.current
            # Whoever knows an epoch by its own neighbours alone still lacks the graph.
            lacks = current is None or (scope == "graph" and current.graph is None)
            self._ask(Subscribe(scope=scope, epoch=None if lacks else self._table.epoch))

    def _ask(self, request: ControlRequest) -> None:
        self.requests[type(request).__name__] += 1
        self._queue.append(request)

    def _on_failed(self, failed: ControlFailed, now: float) -> None:
        if isinstance(failed.request, QueryNeighbours | QueryGraph):
            for channel in self._channels.by_name.values():
                channel.manner.on_failed(now)
