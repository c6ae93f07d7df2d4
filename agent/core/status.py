"""What a device tells of itself: links, streams, graph, and what it dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.ids import ChannelId, DeviceId, GroupId

if TYPE_CHECKING:
    from agent.core.node import Node


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
class NodeStatus:
    """One device.

    Attributes:
        device: its id.
        group: its group.
        epoch: of the graph in use; null before there is one.
        connected: whether the server is there.
        members: all devices of the group.
        neighbours: this device's neighbours by objective.
        links: one entry a peer.
        streams: one entry a stream.
        drops: what was dropped, by reason.
        requests: what was asked of or reported to the server, by kind.
    """

    device: DeviceId
    group: GroupId
    epoch: int | None
    connected: bool
    members: tuple[DeviceId, ...]
    neighbours: dict[str, tuple[DeviceId, ...]]
    links: tuple[LinkStatus, ...]
    streams: tuple[StreamStatus, ...]
    drops: dict[str, int]
    requests: dict[str, int]


def status_of(node: Node, now: float) -> NodeStatus:
    """Return the status of a device at ``now``."""
    del now
    current = node.table.current
    neighbours = {} if current is None else dict(zip(current.objectives, current.neighbours, strict=True))
    return NodeStatus(
        device=node.config.device,
        group=node.config.group,
        epoch=node.table.epoch,
        connected=node.control.connected,
        members=node.peers.members,
        neighbours=neighbours,
        links=tuple(_link(node, peer) for peer in sorted(node.peers.links)),
        streams=_streams(node),
        drops=dict(sorted(node.drops.items())),
        requests=dict(sorted(node.control.requests.items())),
    )


def _link(node: Node, peer: DeviceId) -> LinkStatus:
    link, hop = node.peers.links[peer], node.peers.hops.get(peer)
    counters = node.peers.counters[peer]
    return LinkStatus(
        peer=peer,
        state=link.state.value,
        address="" if hop is None else "{}:{}".format(*hop.session.address),
        in_tree=link.in_tree,
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
