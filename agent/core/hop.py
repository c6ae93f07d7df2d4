"""The hop transport: numbered datagrams over one link's session, acknowledged, paced, and repaired.

Chunks and control frames share one number space, so that one loss detection serves both. What a lost datagram
carried is sent again under a new number: a chunk as REPEAT, frames as they were. Everything a session knows lives
here; a new session begins with a new Hop.

Source: RFC 9002 sections 5 and 6, by way of ``recovery``; docs/protocol.md.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from agent.core.congestion import Controller
from agent.core.cursor import Cursor
from agent.core.link import Session
from agent.core.pacer import Pacer
from agent.core.qos import LinkQos
from agent.core.recovery import AckTracker, Recovery, SentPacket
from agent.core.scheduler import RoundRobin
from agent.core.window import BitmapWindow
from common import frames
from common.datagrams import (
    CONTROL_OVERHEAD_BYTES,
    HOP_HEADER,
    HOP_HEADER_BYTES,
    PacketType,
    expand_number,
)
from common.errors import DecodeError
from common.frames import Frame, encode_frame
from common.ids import DeviceId
from common.limits import HOP_WINDOW, MAX_FRAMES_QUEUED
from common.sealing import Sealer

_MICRO: Final = 1e6
_CONTROL_BYTE: Final = PacketType.CONTROL << 4
_REPLAY_WINDOW: Final = 1 << 16
CONTROL_BYTES: Final = 1_200
"""Control datagrams keep to the size that every path takes."""


@dataclass(slots=True)
class HopCounters:
    """What crossed this hop, by kind."""

    chunks_sent: int = 0
    repeats_sent: int = 0
    pulled_sent: int = 0
    chunks_received: int = 0
    duplicates_received: int = 0
    """Chunks held already that came as first crossings: a link carried a chunk twice."""
    repairs_received: int = 0
    """Chunks held already that came as repeats or pulled."""
    data_bytes_sent: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def note_repeated(self, *, first_crossing: bool) -> None:
        """Count a chunk that is held already."""
        if first_crossing:
            self.duplicates_received += 1
        else:
            self.repairs_received += 1


@dataclass(slots=True)
class _ChunkContent:
    """What a chunk datagram carried, in case it is lost."""

    cursor: Cursor
    number: int
    epoch: int
    tree: int
    kind: PacketType
    """As what it goes again: REPEAT, or PULLED as before."""


@dataclass(slots=True)
class _FrameContent:
    """The reliable frames that a control datagram carried, in case it is lost."""

    frames: list[bytes] = field(default_factory=list)


class Hop:
    """The transport over one session with one peer.

    Args:
        peer: the device at the other end.
        session: the handshake's result.
        controller: how much may be under way, and how fast.
        counters: the link's counters; they outlive the session.
        now: monotonic seconds.
    """

    def __init__(
        self, peer: DeviceId, session: Session, controller: Controller, counters: HopCounters, now: float
    ) -> None:
        self.peer = peer
        self.session = session
        self.counters = counters
        self.qos = LinkQos()
        self.cursors: dict[int, Cursor] = {}
        self.ports: dict[str, int] = {}
        """The peer's UDP port by channel, where a channel has a socket per peer."""
        self.bogus_numbers = 0
        self._number = 1
        self._anchor = 0
        self._session_byte = session.remote[0]
        self._send_sealer = Sealer(session.send_key)
        self._receive_sealer = Sealer(session.receive_key)
        self._replay = BitmapWindow(_REPLAY_WINDOW)
        self._acks = AckTracker()
        self.recovery = Recovery()
        self._controller = controller
        self._pacer = Pacer(controller.rate_bytes_s, now, session.datagram_bytes)
        self._frames: deque[bytes] = deque()
        self._unreliable: deque[bytes] = deque()
        self._files: RoundRobin[Cursor] = RoundRobin()
        self._messages: RoundRobin[Cursor] = RoundRobin()
        self.overflowed = False

    # --- what the peer sends --------------------------------------------------------------------------------------

    def open_control(self, datagram: bytes, now: float) -> list[Frame]:
        """Open a control datagram.

        Raises:
            DecodeError: it is not authentic, a replay, or does not parse; nothing changed.
        """
        number = self._expand_control(datagram)
        if self._replay.seen(number):
            raise DecodeError("replayed control datagram")
        header = datagram[:HOP_HEADER_BYTES]
        plain = self._receive_sealer.open(number, header, datagram[HOP_HEADER_BYTES:])
        self._replay.mark(number)
        found = frames.decode_untrusted(plain)
        self._anchor = max(self._anchor, number)
        eliciting = any(not isinstance(frame, frames.Ack | frames.Probe) for frame in found)
        self._acks.on_received(number, now, eliciting)
        return found

    def on_chunk(self, low_number: int, now: float) -> None:
        """Acknowledge the datagram of an authentic chunk.

        Its hop number is a claim: it counts only round the newest control datagram's, which is authentic, and moves
        nothing but the acknowledgement.
        """
        number = expand_number(low_number, self._anchor)
        if abs(number - self._anchor) > HOP_WINDOW // 2:
            self.bogus_numbers += 1
            return
        self._acks.on_received(number, now)

    def on_ack(self, ack: frames.Ack, now: float) -> None:
        """Take the peer's acknowledgement: it drives pacing and repair, nothing else."""
        recovery = self.recovery
        result = recovery.on_ack(ack.largest, ack.delay_us / _MICRO, ack.ranges, now)
        for packet in result.late + result.acked if result.late else result.acked:
            content = packet.content
            if isinstance(content, _ChunkContent):
                content.cursor.acked.add(content.number)
                content.cursor.flying.discard(content.number)
        self._controller.on_ack(now, result, recovery.rtt, recovery.in_flight_bytes)
        self._requeue(result.lost)

    # --- what we send ---------------------------------------------------------------------------------------------

    def send(self, frame: Frame, *, reliable: bool = True) -> None:
        """Queue a control frame; a reliable one is sent again until its datagram is acknowledged."""
        queue = self._frames if reliable else self._unreliable
        if len(queue) >= MAX_FRAMES_QUEUED:
            self.overflowed = True
            return
        queue.append(encode_frame(frame))

    def owe(self, cursor: Cursor, number: int, epoch: int, tree: int, kind: PacketType) -> None:
        """Owe a chunk to the peer."""
        cursor.owe(number, epoch, tree, kind)
        self.wake(cursor)

    def wake(self, cursor: Cursor) -> None:
        """Schedule a cursor that has something owed."""
        if cursor.owed:
            (self._messages if cursor.stream.urgent else self._files).add(cursor)

    def room(self) -> bool:
        """Whether the peer's queues ask for more chunks now."""
        return self.recovery.in_flight_bytes < self._controller.window_bytes

    def drop(self, cursor: Cursor) -> None:
        """Forget a stream on this hop."""
        cursor.forget_owed()
        self._files.remove(cursor)
        self._messages.remove(cursor)
        self.cursors.pop(cursor.stream.short, None)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to send but an acknowledgement that may be due."""
        return not (self._files or self._messages or self._frames or self._unreliable)

    def poll(self, now: float) -> list[tuple[str | None, list[bytes]]]:
        """Return the datagrams that may go now: trains, each with the channel whose socket it takes (None: shared)."""
        trains: list[tuple[str | None, list[bytes]]] = []
        if self.idle and not self._acks.ack_due(now):
            return trains
        control = self._control(now)
        if control:
            trains.append((None, control))
        self._pacer.set_rate(self._controller.rate_bytes_s, now)
        for queue in (self._messages, self._files):
            if queue:
                self._fill(queue, now, trains)
        if not self._files and not self._messages and self.room():
            self.recovery.mark_app_limited()
        return trains

    def handle_timeout(self, now: float) -> None:
        """Detect losses, and probe when acknowledgements stay away."""
        at = self.recovery.loss_at()
        if at is not None and now >= at:
            self._give_up(self.recovery.detect_lost(now), now)
        at = self.recovery.pto_at()
        if at is not None and now >= at:
            self._give_up(self.recovery.on_pto(now), now)

    def poll_timeout(self, now: float) -> float | None:
        """Return when this hop has something to do next; None: not until something arrives."""
        times = [self._acks.due_at(), self.recovery.loss_at(), self.recovery.pto_at()]
        if (self._files or self._messages) and self.room():
            times.append(self._pacer.next_at(now))
        if self._frames or self._unreliable:
            times.append(now)
        due = [at for at in times if at is not None]
        return min(due) if due else None

    # --- inside ---------------------------------------------------------------------------------------------------

    def _expand_control(self, datagram: bytes) -> int:
        _, _, low, high, _ = HOP_HEADER.unpack_from(datagram)
        number: int = (high << 32) | low
        return number

    def _control(self, now: float) -> list[bytes]:
        out: list[bytes] = []
        pending: list[bytes] = []
        if self._acks.ack_due(now) or ((self._frames or self._unreliable) and self._acks.due_at() is not None):
            largest, delay, ranges = self._acks.take_ack(now)
            pending.append(encode_frame(frames.Ack(largest, min(int(delay * _MICRO), 0xFFFFFFFF), tuple(ranges))))
        while self._unreliable:
            pending.append(self._unreliable.popleft())
        room = CONTROL_BYTES - CONTROL_OVERHEAD_BYTES
        body = bytearray()
        content = _FrameContent()
        for reliable, queue in ((False, deque(pending)), (True, self._frames)):
            while queue:
                frame = queue.popleft()
                if body and len(body) + len(frame) > room:
                    out.append(self._seal_control(bytes(body), content, now))
                    body, content = bytearray(), _FrameContent()
                body += frame
                if reliable:
                    content.frames.append(frame)
        if body:
            out.append(self._seal_control(bytes(body), content, now))
        return out

    def _seal_control(self, body: bytes, content: _FrameContent, now: float) -> bytes:
        number = self._number
        self._number += 1
        header = HOP_HEADER.pack(_CONTROL_BYTE, self._session_byte, number & 0xFFFFFFFF, number >> 32, 0)
        datagram = header + self._send_sealer.seal(number, header, body)
        size = len(datagram)
        self.recovery.on_sent(number, now, size, bool(content.frames), content)
        if content.frames:
            self._controller.on_sent(now, size, self.recovery.in_flight_bytes)
        self.counters.bytes_sent += size
        return datagram

    def _fill(self, queue: RoundRobin[Cursor], now: float, trains: list[tuple[str | None, list[bytes]]]) -> None:
        budget = self._pacer.budget(now)
        recovery, controller = self.recovery, self._controller
        window = controller.window_bytes
        spent = 0
        while budget > spent and recovery.in_flight_bytes < window:
            cursor = queue.next_key()
            if cursor is None:
                break
            item = cursor.pop()
            if item is None:
                queue.remove(cursor)
                continue
            number, owed = item
            sealed = cursor.stream.sealed(number)
            if sealed is None:
                continue
            datagram = self._chunk(cursor, number, owed.epoch, owed.tree, owed.kind, sealed, now)
            size = len(datagram)
            spent += size
            queue.spend(cursor, size)
            cursor.stream.active_at = now
            socket = cursor.stream.socket_channel
            if trains and trains[-1][0] == socket:
                trains[-1][1].append(datagram)
            else:
                trains.append((socket, [datagram]))
        if spent:
            controller.on_sent(now, spent, recovery.in_flight_bytes)
            self._pacer.spend(spent, now)
            self.counters.bytes_sent += spent
            self.counters.data_bytes_sent += spent

    def _chunk(
        self, cursor: Cursor, number: int, epoch: int, tree: int, kind: PacketType, sealed: bytes, now: float
    ) -> bytes:
        counters = self.counters
        again = PacketType.REPEAT
        first = cursor.crossed.add(number)
        cursor.flying.add(number)
        if kind is PacketType.PULLED:
            again = kind
            counters.pulled_sent += 1
        elif first and kind is PacketType.DATA:
            counters.chunks_sent += 1
        else:
            kind = again
            counters.repeats_sent += 1
        hop_number = self._number
        self._number = hop_number + 1
        header = HOP_HEADER.pack(kind << 4 | tree, self._session_byte, hop_number & 0xFFFFFFFF, epoch, 0)
        datagram = header + sealed
        size = len(datagram)
        self.recovery.on_sent(hop_number, now, size, True, _ChunkContent(cursor, number, epoch, tree, again))
        return datagram

    def _give_up(self, lost: list[SentPacket], now: float) -> None:
        self._controller.on_loss(now, sum(packet.size for packet in lost))
        self._requeue(lost)

    def _requeue(self, packets: list[SentPacket]) -> None:
        for packet in packets:
            content = packet.content
            if isinstance(content, _FrameContent):
                self._frames.extend(content.frames)
            elif isinstance(content, _ChunkContent) and self.cursors.get(content.cursor.stream.short) is content.cursor:
                content.cursor.flying.discard(content.number)
                content.cursor.owe_again(content.number, content.epoch, content.tree, content.kind)
                self.wake(content.cursor)
