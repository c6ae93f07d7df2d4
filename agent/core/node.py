"""A device's whole thinking: what arrives goes in, what is to be done comes out. No socket, no clock, no task.

After any input, drain ``poll_transmit`` until it returns nothing, ``poll_control`` and ``poll_event`` until they
return None, and call ``handle_timeout`` at the time that ``poll_timeout`` names. All calls come from one thread.

The parts: ``intake`` tells apart what arrives, ``peers`` holds links and hops, ``channels`` the rules and manners,
``streams`` what is sent and received, ``forwarding`` a chunk's way through this device, ``upkeep`` all else that
streams need, ``control_plane`` what is said to the server.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from agent.core.candidates import OwnCandidates
from agent.core.channel_sockets import ChannelSockets
from agent.core.channels import ChannelTable
from agent.core.config import NodeConfig
from agent.core.control_plane import ControlPlane
from agent.core.degraded import Degraded
from agent.core.events import Address, ControlFailed, ControlRequest, Event, GraphChanged, OpenSocket, Transmit
from agent.core.forwarding import Forwarder
from agent.core.frame_handlers import FrameHandlers
from agent.core.intake import Intake
from agent.core.neighbourhood import Neighbourhood
from agent.core.peers import Peers
from agent.core.policy import PeerPolicy
from agent.core.reflexive import Reflexive
from agent.core.routing import GraphTable
from agent.core.silences import Arrivals
from agent.core.status import NodeStatus, neighbours_of, status_of
from agent.core.store import PieceReader, Stores
from agent.core.streams import StreamTable
from agent.core.upkeep import Upkeep
from common.errors import DecodeError
from common.graph import short_epoch
from common.ids import ChannelId
from common.messages import Channels, GraphBody, NeighboursBody, ServerMessage
from common.sealing import key_id

TICK_S: Final = 0.05
"""How often streams that move are looked after."""
TICK_IDLE_S: Final = 0.5
SETTLE_S: Final = 2.0
"""How long after its start a device may wait for the server's word on how large a new stream's chunks are to be."""
TICK_VERIFYING_S: Final = 0.005
"""The same while chunks of an earlier run are being checked."""


class Node:
    """One device.

    Args:
        config: what it is told about itself.
        stores: where its streams are kept.
        rng: for the jitter of pauses.
        entropy: returns so many bytes that nobody can guess.
        now: monotonic seconds.
        wall: unix seconds at ``now``.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        stores: Stores,
        rng: random.Random,
        entropy: Callable[[int], bytes],
        now: float,
        wall: float,
    ) -> None:
        self.config = config
        self.drops: Counter[str] = Counter()
        self.table = GraphTable(config.device, wall - now)
        self.channels = ChannelTable(self.table, rng)
        self.peers = Peers(
            config.device,
            config.group,
            config.private_key,
            key_id(config.public_key),
            datagram_bytes=config.datagram_bytes,
            policy=PeerPolicy(
                config.only_peers, config.peers, config.declared, config.max_rate_bps, config.max_rates, config.denied
            ),
            drops=self.drops,
            rng=rng,
            entropy=entropy,
        )
        self._events: deque[Event] = deque()
        self.streams = StreamTable(
            config.device,
            config.group,
            config.datagram_bytes,
            config.stream_memory_bytes,
            signer=config.signer,
            channels=self.channels,
            stores=stores,
            drops=self.drops,
            events=self._events,
            entropy=entropy,
            wall_offset=wall - now,
        )
        self.degraded = Degraded(config.device, wall - now)
        neighbourhood = Neighbourhood(config.device, self.peers, self.channels, self.streams, self.degraded)
        self.forwarder = Forwarder(self.peers, self.channels, self.streams, neighbourhood, self.degraded, self.drops)
        self._upkeep = Upkeep(
            config.device,
            self.table,
            self.peers,
            self.channels,
            self.streams,
            self.degraded,
            neighbourhood,
            self.forwarder,
            self._events,
        )
        frames = FrameHandlers(
            self.peers,
            self.channels,
            self.streams,
            neighbourhood,
            self.forwarder,
            self._upkeep,
            self.table,
            self.drops,
        )
        self._sockets = ChannelSockets(self.channels, self._events)
        self.reflexive = Reflexive(self.drops, entropy)
        self._intake = Intake(self.peers, self.channels, self.forwarder, frames, self.reflexive, self.drops)
        self.own = OwnCandidates(
            config.candidates, self.reflexive, denied=config.denied, only_advertised=config.only_advertised
        )
        self.control = ControlPlane(config, self.own, self.table, self.channels, self.peers, self.streams)
        self._tick_at = now
        self._now = now
        self._told_epoch: int | None = None
        self._reported_version = self.peers.version
        self._reported_news = self.peers.news
        self._settles_by = now + SETTLE_S

    # --- inputs ---------------------------------------------------------------------------------------------------

    def receive_datagrams(self, batch: Sequence[tuple[bytes, Address]], *, socket: int = 0, now: float) -> None:
        """Take one readiness' worth of datagrams from one socket.

        Whatever does not authenticate or parse is counted by reason and dropped; it changes nothing.

        Args:
            batch: datagrams, each with the address it came from.
            socket: which socket they came in on; 0 is the shared one.
            now: monotonic seconds.
        """
        self._intake.receive(batch, socket, now)
        self._after_input(now)

    def receive_control(
        self, message: ServerMessage | NeighboursBody | GraphBody | ControlFailed, *, now: float
    ) -> None:
        """Take a message of the server: a push, an answer to a query, or the news that none came."""
        old = self.table.current
        try:
            self.control.receive(message, now)
        except DecodeError:
            self.drops["server-message-refused"] += 1
        if self.table.epoch != self._told_epoch:
            self._upkeep.on_graph(old, now)
        self._upkeep.ask_openings(self.control.to_ask)
        self.control.to_ask.clear()
        if isinstance(message, Channels):
            self._sockets.ask(self.peers.hops.values())
        self._upkeep.embed_sources(now)
        self._after_input(now)

    def control_connected(self, *, now: float) -> None:
        """Take note that the server is reached; the requests polled from now on go to it."""
        self.control.on_connected(now)
        self._upkeep.bridging.on_server(connected=True)
        self._after_input(now)

    def control_lost(self, *, now: float) -> None:
        """Take note that the server is gone; data goes on by the last graph."""
        self.control.on_lost()
        self._upkeep.bridging.on_server(connected=False)
        self._after_input(now)

    def socket_opened(self, request: OpenSocket, socket: int, port: int, *, now: float) -> None:
        """Take a socket that the shell opened for an ``OpenSocket`` event.

        Args:
            request: the event.
            socket: the number by which batches and trains name it, not 0.
            port: the UDP port it is bound to.
            now: monotonic seconds.
        """
        self._sockets.on_opened(request, socket, port, self.peers.hops.get(request.peer))
        self._after_input(now)

    def on_unreachable(self, address: Address, *, now: float) -> None:
        """Take the network's word that nobody is at an address (ICMP, or no route)."""
        self.peers.on_unreachable(address, now)

    def set_candidates(self, candidates: Iterable[Address], *, now: float) -> None:
        """Take the addresses of this host's interfaces, each with the shared socket's port; a change is reported."""
        self.own.set_hosts(candidates, now)
        self._after_input(now)

    def set_stun_servers(self, servers: Iterable[Address], *, now: float) -> None:
        """Take the numeric addresses of STUN servers, which are asked from the shared socket."""
        self.reflexive.set_servers(servers, now)
        self._after_input(now)

    def handle_timeout(self, *, now: float) -> None:
        """Do what is due."""
        self.peers.handle_timeout(now)
        self.reflexive.handle_timeout(now)
        if now >= self._tick_at:
            self._upkeep.tick(now)
            self._tick_at = now + self._pause(now)
        self._after_input(now)

    # --- outputs --------------------------------------------------------------------------------------------------

    def poll_transmit(self, *, now: float) -> list[Transmit]:
        """Return the trains that may go now; call again until it returns none."""
        self._now = now
        out: list[Transmit] = []
        while (hello := self.peers.poll_hello()) is not None:
            out.append(Transmit(0, hello[0], [hello[1]]))
        while (question := self.reflexive.poll()) is not None:
            out.append(Transmit(0, question[0], [question[1]]))
        self.forwarder.cut(now)
        # What was cut may have filled a buffer: its question goes out with this drain, not at the next timer.
        self.control.handle_timeout(now)
        self.forwarder.release(now)
        for hop in list(self.peers.hops.values()):
            for channel, datagrams in hop.poll(now):
                out.append(self._sockets.transmit(hop, channel, datagrams))
        return out

    def poll_control(self) -> ControlRequest | None:
        """Return a request for the server, or None."""
        return self.control.poll()

    def poll_event(self) -> Event | None:
        """Return news for the shell, or None; ask when what is to be sent has gone, for messages are verified here."""
        if not self._events:
            self.streams.deliver(self._now)
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> float | None:
        """Return the monotonic seconds at which ``handle_timeout`` is due."""
        due = self._tick_at
        for at in (
            self.peers.poll_timeout(self._now),
            self.reflexive.poll_timeout(),
            self.control.poll_timeout(),
            self.forwarder.poll_timeout(self._now),
            self._upkeep.bridging.poll_timeout(),
        ):
            if at is not None and at < due:
                due = at
        return due

    # --- the application ------------------------------------------------------------------------------------------

    def send_file(self, channel: ChannelId, name: str, size_bytes: int, reader: PieceReader, *, now: float) -> str:
        """Begin to send a file from here.

        Returns:
            The stream's id.

        Raises:
            RefusedError: the channel is unknown or not for files, the name or size is out of bounds, the device is
                not enrolled yet, or too many streams are open.
            StoreError: the record of the stream cannot be kept.
        """
        stream = self.streams.open_file(channel, name, size_bytes, reader, self.peers.members, now)
        self._upkeep.embed_sources(now)
        self._after_input(now)
        return stream

    def publish(self, channel: ChannelId, payload: bytes, *, now: float) -> tuple[str, int]:
        """Publish a message from here.

        Returns:
            The stream's id and the number of the message's last chunk.

        Raises:
            RefusedError: the channel is unknown or not for messages, the message is too large, or too much waits.
        """
        result = self.streams.publish(channel, payload, now)
        self._upkeep.embed_sources(now)
        self._after_input(now)
        return result

    def settling(self, *, now: float) -> bool:
        """Whether a stream that is opened now would have smaller chunks than one that is opened in a moment.

        That is so for `SETTLE_S` from the start at most, while nobody has said yet what the group's links take.
        """
        return self.streams.group_mtu_bytes is None and now < self._settles_by

    def cancel(self, stream: str, reason: str = "cancelled", *, now: float) -> None:
        """Take a stream back that began here, everywhere.

        Raises:
            RefusedError: there is no such stream here.
        """
        self._upkeep.cancel(stream, reason)
        self._after_input(now)

    def leave(self, *, now: float) -> None:
        """Tell the peers that this device goes; drain ``poll_transmit`` once more and stop."""
        self.peers.leave()
        self._after_input(now)

    def status(self, *, now: float) -> NodeStatus:
        """Return what the device knows of itself."""
        return status_of(self, now)

    def arrivals(self) -> dict[str, Arrivals]:
        """Return when each stream, by its id in hex, brought something new."""
        found = (entry.stream for entry in self.streams.by_short.values())
        return {stream.opening.hex: Arrivals(stream.progress_at, stream.silences.kept()) for stream in found}

    # --- inside ---------------------------------------------------------------------------------------------------

    def _pause(self, now: float) -> float:
        if self.streams.verification:
            return TICK_VERIFYING_S
        return TICK_S if self.streams.moving(now) else TICK_IDLE_S

    def _after_input(self, now: float) -> None:
        self._now = now
        while self.peers.closed:
            self._upkeep.on_closed(self.peers.closed.popleft(), now)
        self._sockets.ask(self.peers.opened)
        while self.peers.opened:
            self._upkeep.on_opened(self.peers.opened.popleft(), now)
        if self.table.epoch is not None and self.table.epoch != self._told_epoch:
            self._upkeep.bridging.stale = True
            self._told_epoch = self.table.epoch
            self.peers.epoch = short_epoch(self.table.epoch)
            self._events.append(GraphChanged(self.table.epoch, neighbours_of(self.table)))
        self._events.extend(self.peers.events)
        self.peers.events.clear()
        changed = self.peers.version != self._reported_version
        if changed or self.peers.news != self._reported_news:
            self._reported_version, self._reported_news = self.peers.version, self.peers.news
            self.streams.own_mtu_bytes = self.peers.smallest_mtu()
            self.control.report_links(now)
        if changed:
            self._upkeep.mending.look()
            self._upkeep.bridging.stale = True
            self.forwarder.forget_routes()
            self.channels.on_links(now)
        self._upkeep.bridging.settle(now)
        self.forwarder.release(now)
        self.control.handle_timeout(now)
        self.forwarder.release(now)
        self._hasten_tick(now)

    def _hasten_tick(self, now: float) -> None:
        """Look after streams at once where a neighbour begins to speak, and soon where one begins to move."""
        if self._upkeep.exchange.pressing:
            self._upkeep.exchange.pressing = False
            self._tick_at = min(self._tick_at, now)
        elif self._tick_at > now + TICK_S and self.streams.moving(now):
            self._tick_at = now + TICK_S
