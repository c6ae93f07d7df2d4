"""Sockets of a channel's own (M7): asked of the shell for each peer, told to it, and chosen for what is sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from agent.core.channels import ChannelTable
from agent.core.events import Event, OpenSocket, Transmit
from agent.core.hop import Hop
from common.ids import ChannelId
from common.link_frames import ChannelPort


class ChannelSockets:
    """Gives every channel that wants it a socket per peer, and every train its socket.

    Args:
        channels: the group's channels, with their sockets.
        events: where requests to the shell go.
    """

    def __init__(self, channels: ChannelTable, events: deque[Event]) -> None:
        self._channels = channels
        self._events = events

    def ask(self, hops: Iterable[Hop]) -> None:
        """Ask the shell, once, for the sockets that are wanting towards some peers; tell them the ports there are."""
        for hop in hops:
            for channel in self._channels.by_name.values():
                if channel.spec.sockets != "per-channel":
                    continue
                if hop.peer in channel.sockets:
                    hop.send(ChannelPort(channel.spec.name, channel.sockets[hop.peer][1]))
                elif hop.peer not in channel.asked:
                    channel.asked[hop.peer] = None
                    self._events.append(OpenSocket(channel.spec.name, hop.peer))

    def on_opened(self, request: OpenSocket, socket: int, port: int, hop: Hop | None) -> None:
        """Take a socket that the shell opened.

        Args:
            request: which asked for it.
            socket: its number, not 0.
            port: the UDP port it is bound to.
            hop: to the peer, which is told the port; None if there is none now.
        """
        channel = self._channels.by_name.get(request.channel)
        if channel is None:
            return
        self._channels.add_socket(channel, request.peer, socket, port)
        if hop is not None:
            hop.send(ChannelPort(request.channel, port))

    def transmit(self, hop: Hop, channel: ChannelId | None, datagrams: list[bytes]) -> Transmit:
        """Return a train with its way: the channel's own socket where both ends have one, or else the shared one."""
        address = hop.session.address
        listed = self._channels.by_name.get(channel) if channel is not None else None
        if listed is not None and channel is not None:
            own, port = listed.sockets.get(hop.peer), hop.ports.get(channel)
            if own is not None and port is not None:
                return Transmit(own[0], (address[0], port), datagrams)
        return Transmit(0, address, datagrams)
