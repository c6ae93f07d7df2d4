"""What arrives: datagrams are told apart and given to the part of the node that they concern."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from agent.core.channels import ChannelTable
from agent.core.events import Address
from agent.core.forwarding import Forwarder
from agent.core.frame_handlers import FrameHandlers
from agent.core.hop import Hop
from agent.core.peers import Peers
from agent.core.reflexive import Reflexive
from agent.core.runs import run_length
from common.datagrams import CHUNK_OVERHEAD_BYTES, CHUNK_TYPES, CONTROL_OVERHEAD_BYTES, PacketType
from common.errors import DecodeError
from common.frames import Frame
from common.ids import ChannelId
from common.path_frames import PathChallenge
from common.stun import HIGHEST_STUN_BYTE


class Intake:
    """Gives chunks to the forwarder, frames to their handlers, hellos to peers, and answers of STUN servers on.

    Args:
        peers: links and hops.
        channels: the channels, and which socket is whose.
        forwarder: takes runs of chunks.
        frames: takes frames.
        reflexive: takes what STUN servers answer.
        drops: counts what was dropped, by reason.
    """

    def __init__(
        self,
        peers: Peers,
        channels: ChannelTable,
        forwarder: Forwarder,
        frames: FrameHandlers,
        reflexive: Reflexive,
        drops: Counter[str],
    ) -> None:
        self.frames = frames
        self._peers = peers
        self._channels = channels
        self._forwarder = forwarder
        self._reflexive = reflexive
        self._drops = drops

    def receive(self, batch: Sequence[tuple[bytes, Address]], socket: int, now: float) -> None:
        """Take a batch of datagrams from one socket; see ``Node.receive_datagrams``."""
        by_address = self._peers.by_address
        listed = self._channels.by_socket.get(socket) if socket else None
        forwarder = self._forwarder
        at = 0
        while at < len(batch):
            datagram, address = batch[at]
            kind = datagram[0] >> 4 if datagram else 0
            hop = by_address.get(address) if listed is None else self._peers.hops.get(listed[1])
            count = 1
            if kind in CHUNK_TYPES and len(datagram) > CHUNK_OVERHEAD_BYTES - 1:
                if hop is None:
                    self._drops["chunk-from-stranger"] += 1
                    at += 1
                    continue
                count = run_length(batch, at)
                if listed is not None and address[0] != hop.session.address[0]:
                    self._drops["chunk-from-wrong-host"] += count
                else:
                    run = [datagram for datagram, _ in batch[at : at + count]]
                    forwarder.receive_run(hop, run, None if listed is None else listed[0], now)
            elif kind == PacketType.FRAGMENT and hop is not None:
                self._receive_fragment(hop, datagram, None if listed is None else listed[0], address, now)
            elif kind == PacketType.HELLO and socket == 0:
                self._peers.receive_hello(datagram, address, now)
            elif kind == PacketType.CONTROL and len(datagram) > CONTROL_OVERHEAD_BYTES and (hop or socket == 0):
                self._receive_control(hop, datagram, address, now)
            elif socket == 0 and datagram and datagram[0] <= HIGHEST_STUN_BYTE:
                self._reflexive.receive(datagram, address, now)
            else:
                self._drops["datagram-not-understood"] += 1
            at += count

    def _receive_control(self, known: Hop | None, datagram: bytes, address: Address, now: float) -> None:
        opened = self._open_control(known, datagram, address, now)
        if opened is None:
            self._drops["control-not-authentic" if known else "control-from-stranger"] += 1
            return
        hop, found = opened
        hop.counters.bytes_received += len(datagram)
        self._peers.on_heard(hop.peer, now)
        challenged = False
        for frame in found:
            if self._peers.hops.get(hop.peer) is not hop:
                break  # the one before was a farewell
            if isinstance(frame, PathChallenge):
                if challenged:
                    # Each is answered to an address that has proved nothing, by a datagram larger than the frame.
                    self._drops["pathchallenge-refused"] += 1
                    continue
                challenged = True
            self.frames.handle(hop, frame, address, now)

    def _open_control(
        self, known: Hop | None, datagram: bytes, address: Address, now: float
    ) -> tuple[Hop, list[Frame]] | None:
        """Open a control datagram: of the peer at that address, or of one that has moved there."""
        if known is not None:
            try:
                return known, known.open_control(datagram, now)
            except DecodeError:
                # A NAT may have given the address of one peer to another.
                pass
        return self._peers.migration.open_strange(datagram, address, now)

    def _receive_fragment(
        self, hop: Hop, datagram: bytes, socket_channel: ChannelId | None, address: Address, now: float
    ) -> None:
        if socket_channel is not None and address[0] != hop.session.address[0]:
            self._drops["fragment-from-wrong-host"] += 1
            return
        try:
            joined = hop.join(datagram, now)
        except DecodeError:
            self._drops["fragment-refused"] += 1
            return
        if joined is not None:
            self._forwarder.receive_run(hop, [joined], socket_channel, now)
