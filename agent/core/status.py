"""What a device tells of itself: links, streams, graph, and what it dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.degraded import Degraded
from agent.core.reachability import why_no_link
from common.addresses import write_address
from common.fields import NatMapping
from common.ids import ChannelId, DeviceId, GroupId, LinkKey
from common.limits import MAX_PEERS
from common.messages import CandidatesReport

if TYPE_CHECKING:
    from agent.core.node import Node
    from agent.core.routing import GraphTable


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One link; chunks and bytes count since the agent began.

    Attributes:
        peer: the device at the other end.
        state: probing, open, suspect or closed.
        address: where the peer is, "host:port"; empty without a session.
        in_tree: whether it is an edge of the graph in use.
        rtt_s: smoothed round-trip time, seconds.
        delay_s: one way, seconds, as reported to the server: half the lowest round trip of the last seconds.
        jitter_s: RFC 3550 jitter of what is sent from here, seconds.
        loss: share of datagrams lost that were sent from here, 0 … 1.
        bandwidth_bps: bits per second, as reported to the server: measured, and no more than was declared; or null.
        mtu_bytes: the largest datagram that the path takes; null before that is known.
        chunks_sent: first crossings.
        repeats_sent: chunks sent again on this link.
        pulled_sent: chunks sent because they were asked for.
        chunks_received: chunks that were new here.
        duplicates_received: chunks held already that came as first crossings; never, in a tree.
        repairs_received: chunks held already that came as repeats or pulled.
        data_bytes_sent: UDP payload bytes of all chunks sent.
        bytes_sent: UDP payload bytes sent, control included.
        bytes_received: UDP payload bytes received.
    """

    peer: DeviceId
    state: str
    address: str
    in_tree: bool
    rtt_s: float | None
    delay_s: float | None
    jitter_s: float | None
    loss: float | None
    bandwidth_bps: float | None
    mtu_bytes: int | None
    chunks_sent: int
    repeats_sent: int
    pulled_sent: int
    chunks_received: int
    duplicates_received: int
    repairs_received: int
    data_bytes_sent: int
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream.

    Attributes:
        stream: id in hex.
        channel: its channel.
        source: the device that began it.
        kind: file or message.
        name: of the file.
        role: source, receive or done.
        size_bytes: of the file; null for messages.
        held_bytes: plain bytes held of the file.
        held_chunks: chunks held.
        known_chunks: chunks known to exist.
        refused: why it is not kept here, or null.
    """

    stream: str
    channel: ChannelId
    source: DeviceId
    kind: str
    name: str
    role: str
    size_bytes: int | None
    held_bytes: int
    held_chunks: int
    known_chunks: int
    refused: str | None


@dataclass(frozen=True, slots=True)
class MissingLink:
    """A member to which no link is open.

    Attributes:
        peer: the member.
        reason: why, in a sentence.
    """

    peer: DeviceId
    reason: str


@dataclass(frozen=True, slots=True)
class DegradedStatus:
    """How a device does without edges of its graph that nothing has replaced; the counts are since the agent began.

    Attributes:
        active: whether it does so now.
        for_s: for how long, seconds; null if it does not.
        lost_edges: the edges, each as its two ends; those of other devices as far as they were named.
        chunks_pulled: chunks that came because they were asked for meanwhile.
        messages_flooded: messages sent on over links outside the tree.
    """

    active: bool
    for_s: float | None
    lost_edges: tuple[LinkKey, ...]
    chunks_pulled: int
    messages_flooded: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One device.

    Attributes:
        device: its id.
        group: its group.
        epoch: of the graph in use; null before there is one.
        connected: whether the server is there.
        degraded: whether it has to do without an edge of the graph.
        members: all devices of the group.
        neighbours: this device's neighbours by objective.
        candidates: where the group is told that this device may be reached.
        reflexive: where STUN servers see it.
        mapping: what its NAT does: unknown, none, stable or varies.
        links: one entry a peer.
        missing: the members without an open link, those that may have one first; at most `MAX_PEERS`.
        streams: one entry a stream.
        drops: what was dropped, by reason.
        requests: what was asked of or reported to the server, by kind.
    """

    device: DeviceId
    group: GroupId
    epoch: int | None
    connected: bool
    degraded: DegradedStatus
    members: tuple[DeviceId, ...]
    neighbours: dict[str, tuple[DeviceId, ...]]
    candidates: tuple[str, ...]
    reflexive: tuple[str, ...]
    mapping: NatMapping
    links: tuple[LinkStatus, ...]
    missing: tuple[MissingLink, ...]
    streams: tuple[StreamStatus, ...]
    drops: dict[str, int]
    requests: dict[str, int]


def status_of(node: Node, now: float) -> NodeStatus:
    """Return the status of a device at ``now``."""
    own = node.own.report()
    return NodeStatus(
        device=node.config.device,
        group=node.config.group,
        epoch=node.table.epoch,
        connected=node.control.connected,
        degraded=_degraded(node.degraded, now),
        members=node.peers.members,
        neighbours=neighbours_of(node.table),
        candidates=own.candidates,
        reflexive=tuple(write_address(address) for address in node.reflexive.addresses),
        mapping=own.mapping,
        links=tuple(_link(node, peer) for peer in sorted(node.peers.links)),
        missing=_missing(node, own, now),
        streams=_streams(node),
        drops=dict(sorted(node.drops.items())),
        requests=dict(sorted(node.control.requests.items())),
    )


def _degraded(degraded: Degraded, now: float) -> DegradedStatus:
    since = degraded.since
    return DegradedStatus(
        active=since is not None,
        for_s=None if since is None else now - since,
        lost_edges=degraded.edges(),
        chunks_pulled=degraded.chunks_pulled,
        messages_flooded=degraded.messages_flooded,
    )


def neighbours_of(table: GraphTable) -> dict[str, tuple[DeviceId, ...]]:
    """Return this device's neighbours by objective."""
    current = table.current
    return {} if current is None else dict(zip(current.objectives, current.neighbours, strict=True))


def _link(node: Node, peer: DeviceId) -> LinkStatus:
    link, hop = node.peers.links[peer], node.peers.hops.get(peer)
    counters = node.peers.counters[peer]
    return LinkStatus(
        peer=peer,
        state=link.state.value,
        address="" if hop is None else write_address(hop.session.address),
        in_tree=link.rhythm.in_tree,
        rtt_s=None if hop is None else hop.qos.rtt_s,
        delay_s=None if hop is None else node.peers.figures(peer).delay_s,
        jitter_s=None if hop is None else hop.qos.jitter_s,
        loss=None if hop is None else hop.qos.loss.share,
        bandwidth_bps=None if hop is None else node.peers.figures(peer).bandwidth_bps,
        mtu_bytes=link.mtu_bytes,
        chunks_sent=counters.chunks_sent,
        repeats_sent=counters.repeats_sent,
        pulled_sent=counters.pulled_sent,
        chunks_received=counters.chunks_received,
        duplicates_received=counters.duplicates_received,
        repairs_received=counters.repairs_received,
        data_bytes_sent=counters.data_bytes_sent,
        bytes_sent=counters.bytes_sent,
        bytes_received=counters.bytes_received,
    )


def _missing(node: Node, own: CandidatesReport, now: float) -> tuple[MissingLink, ...]:
    peers = node.peers
    usable = {peer for peer, link in peers.links.items() if link.usable}
    others = [peer for peer in peers.members if peer != node.config.device and peer not in usable]
    others.sort(key=lambda peer: peer not in peers.links)
    return tuple(MissingLink(peer, why_no_link(peers.attempt(peer, own, now))) for peer in others[:MAX_PEERS])


def _streams(node: Node) -> tuple[StreamStatus, ...]:
    found = []
    for entry in node.streams.by_short.values():
        stream, opening = entry.stream, entry.stream.opening
        found.append(
            StreamStatus(
                stream=opening.hex,
                channel=opening.channel,
                source=opening.source,
                kind=opening.kind,
                name=opening.name,
                role=stream.role,
                size_bytes=opening.size_bytes,
                held_bytes=stream.held_bytes,
                held_chunks=len(stream.held),
                known_chunks=stream.stop - 1,
                refused=stream.refused,
            )
        )
    return tuple(found)
