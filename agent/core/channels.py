"""The channels of the group: each with its manner, and its socket list where it has sockets of its own (M7)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from agent.core.manner import Manner
from agent.core.manners import manner_of
from agent.core.routing import GraphTable
from agent.core.stream import Stream
from common.ids import ChannelId, DeviceId
from common.messages import ChannelSpec


@dataclass(slots=True)
class Channel:
    """One named service.

    Attributes:
        spec: its rules.
        manner: how it learns its next hops.
        sockets: this device's socket and port for each peer, where the channel has one socket per peer.
        asked: peers for which such a socket was asked of the shell.
    """

    spec: ChannelSpec
    manner: Manner
    sockets: dict[DeviceId, tuple[int, int]] = field(default_factory=dict)
    asked: dict[DeviceId, None] = field(default_factory=dict)


class ChannelTable:
    """All channels, and the socket list that leads from a socket to its channel and peer.

    Args:
        table: the graphs known here.
        rng: for jitter.
    """

    def __init__(self, table: GraphTable, rng: random.Random) -> None:
        self.by_name: dict[ChannelId, Channel] = {}
        self.by_socket: dict[int, tuple[ChannelId, DeviceId]] = {}
        self.table = table
        self._retired: dict[ChannelId, Channel] = {}
        self._rng = rng

    def set_specs(self, specs: tuple[ChannelSpec, ...], now: float) -> None:
        """Take the group's channels; one whose rules changed begins anew with its manner, its sockets stay."""
        before, self.by_name = self.by_name, {}
        for spec in specs:
            old = before.get(spec.name)
            if old is not None and old.spec == spec:
                self.by_name[spec.name] = old
                continue
            channel = Channel(spec, manner_of(spec, self.table, self._rng, now))
            if old is not None:
                channel.sockets, channel.asked = old.sockets, old.asked
            self.by_name[spec.name] = channel
        for name, channel in before.items():
            if name not in self.by_name:
                self._retired[name] = channel

    def of(self, stream: Stream) -> Channel:
        """Return the channel of a stream; one that the group dropped meanwhile still serves its open streams."""
        name = stream.opening.channel
        return self.by_name.get(name) or self._retired[name]

    def add_socket(self, channel: Channel, peer: DeviceId, socket: int, port: int) -> None:
        """Put a socket that the shell opened on the channel's list."""
        channel.sockets[peer] = (socket, port)
        self.by_socket[socket] = (channel.spec.name, peer)

    def all(self) -> list[Channel]:
        """Return all channels, those included that only open streams still use."""
        return [*self.by_name.values(), *self._retired.values()]

    def on_peer_epoch(self, epoch: int, now: float) -> None:
        """Tell every manner the newest epoch (low 32 bits) that a peer knows."""
        for channel in self.by_name.values():
            channel.manner.on_peer_epoch(epoch, now)

    def on_links(self, now: float) -> None:
        """Tell every manner that a link opened or closed."""
        for channel in self.by_name.values():
            channel.manner.on_links(now)

    def subscribes(self) -> bool:
        """Whether any channel wants the graph pushed (M11)."""
        return any(channel.manner.subscribes for channel in self.by_name.values())
