"""The hop transport: numbered datagrams over one link's session, acknowledged, paced, and repaired.

Chunks and control frames share one number space, so that one loss detection serves both. What a lost datagram
carried is sent again under a new number: a chunk as REPEAT, frames as they were. Everything a session knows lives
here; a new session begins with a new Hop.

Source: RFC 9002 sections 5 and 6, by way of ``recovery``; docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agent.core.acks import AckTracker
from agent.core.allowance import Allowance
from agent.core.carry import Carrier
from agent.core.congestion import Controller
from agent.core.content import ChunkContent, FrameContent
from agent.core.counters import HopCounters
from agent.core.cursor import Cursor, OwedRun
from agent.core.events import Address
from agent.core.fragments import Joiner, split
from agent.core.frame_queue import FrameQueue
from agent.core.link import Session
from agent.core.mtu import PathMtu
from agent.core.pacer import Pacer, SharedRate
from agent.core.qos import LinkQos
from agent.core.recovery import Recovery
from agent.core.scheduler import RoundRobin
from agent.core.sent import AckResult, SentRange
from agent.core.window import BitmapWindow
from common.datagrams import HOP_HEADER, HOP_HEADER_BYTES, PacketType, expand_number
from common.errors import DecodeError
from common.frames import Frame, decode_untrusted, encode_frame
from common.ids import DeviceId
from common.limits import HOP_WINDOW, LOST_WORDS_PER_S, MAX_LOST_WORDS
from common.link_frames import Ack, Probe
from common.path_frames import MtuAnswer, MtuProbe, PathAnswer, PathChallenge, Train
from common.sealing import Sealer

_MICRO: Final = 1e6
_CONTROL_BYTE: Final = PacketType.CONTROL << 4
_REPLAY_WINDOW: Final = 1 << 16
_UNACKNOWLEDGED: Final = (
    Ack,
    Probe,
    MtuProbe,
    MtuAnswer,
    Train,
    PathChallenge,
    PathAnswer,
)
"""Frames that are answered in their own way, or not at all."""


class Hop:
    """The transport over one session with one peer.

    Args:
        peer: the device at the other end.
        session: the handshake's result.
        controller: how much may be under way, and how fast.
        counters: the link's counters; they outlive the session.
        now: monotonic seconds.
        shared: the rate that all hops of this device keep to together; None where there is no such.
    """

    def __init__(
        self,
        peer: DeviceId,
        session: Session,
        controller: Controller,
        counters: HopCounters,
        now: float,
        shared: SharedRate | None = None,
    ) -> None:
        self.peer = peer
        self.session = session
        self.counters = counters
        self.qos = LinkQos()
        self.mtu = PathMtu(session.datagram_bytes, ipv6=":" in session.address[0], now=now)
        self.cursors: dict[int, Cursor] = {}
        self.ports: dict[str, int] = {}
        """The peer's UDP port by channel, where a channel has a socket per peer."""
        self.news = Allowance(MAX_LOST_WORDS, LOST_WORDS_PER_S, now)
        """How many words about lost edges of the peer's are passed on."""
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
        self._joiner = Joiner()
        self._pacer = Pacer(controller.rate_bytes_s, now, session.packet_bytes, shared)
        self._carrier: Carrier[ChunkContent] = Carrier(controller.rate_bytes_s, now)
        self.frames = FrameQueue()
        self._files: RoundRobin[Cursor] = RoundRobin()
        self._messages: RoundRobin[Cursor] = RoundRobin()

    def move(self, address: Address, controller: Controller | None, now: float) -> None:
        """Go on at another address of the peer.

        Args:
            address: it answered from there.
            controller: for the new path; None where it is the old one under another name.
            now: monotonic seconds.

        Source:
            RFC 9000 section 9.4.
        """
        self.session = replace(self.session, address=address)
        if controller is not None:
            self._controller = controller
            self.recovery.forget_path()
            self.mtu = PathMtu(self.session.datagram_bytes, ipv6=":" in address[0], now=now)

    # --- what the peer sends --------------------------------------------------------------------------------------

    @property
    def newest_number(self) -> int:
        """The highest number of a control datagram that the peer sent."""
        return self._anchor

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
        found = decode_untrusted(plain)
        self._anchor = max(self._anchor, number)
        eliciting = any(not isinstance(frame, _UNACKNOWLEDGED) for frame in found)
        self._acks.on_received(number, now, eliciting)
        return found

    def join(self, datagram: bytes, now: float) -> bytes | None:
        """Take a fragment; return the chunk's datagram if that makes it whole.

        Raises:
            DecodeError: it is of another session, no fragment, or does not fit those before it.
        """
        if datagram[1:2] != self.session.local[:1]:
            raise DecodeError("a fragment of an old session")
        joined = self._joiner.add(datagram, now)
        # Whoever takes the chunk counts its bytes.
        self.counters.bytes_received += len(datagram) - len(joined or b"")
        return joined

    def on_chunks(self, low_number: int, datagrams: Sequence[bytes], now: float) -> None:
        """Acknowledge the datagrams of authentic chunks that came in a row, or all fragments of one.

        Their hop numbers are claims: they count only round the newest control datagram's, which is authentic, and move
        nothing but the acknowledgement.
        """
        self.qos.flow_at = now
        number, count = expand_number(low_number, self._anchor), len(datagrams)
        if abs(number - self._anchor) > HOP_WINDOW // 2:
            self.bogus_numbers += count
            return
        if count == 1:
            count = self._joiner.take_count(low_number, datagrams[0])
        self._acks.on_received(number, now, count=count)

    def on_ack(self, ack: Ack, now: float) -> None:
        """Take the peer's acknowledgement: it drives pacing and repair, nothing else."""
        recovery = self.recovery
        result = recovery.on_ack(ack.largest, ack.delay_us / _MICRO, ack.ranges, now)
        for sent in result.late + result.acked if result.late else result.acked:
            content = sent.train.content
            if isinstance(content, ChunkContent):
                start, stop = content.numbers(sent)
                content.cursor.acked.add_range(start, stop)
                content.cursor.flying.remove_range(start, stop)
        self._controller.on_ack(now, result, recovery.rtt, recovery.in_flight_bytes)
        self._measure(result, ack.delay_us / _MICRO, now)
        self.mtu.on_feedback(self._large(result.acked) + self._large(result.late), self._large(result.lost), now)
        self._requeue(result.lost)

    # --- what we send ---------------------------------------------------------------------------------------------

    def send(self, frame: Frame, *, reliable: bool = True) -> None:
        """Queue a control frame; a reliable one is sent again until its datagram is acknowledged.

        Those of a train are datagrams of their own, and never reliable.
        """
        self.frames.put(frame, reliable=reliable)

    def seal_apart(self, frame: Frame, now: float) -> bytes:
        """Return a control datagram with one unreliable frame, to be sent to an address of its own."""
        return self._seal_control(encode_frame(frame), FrameContent(), now)

    def owe(self, cursor: Cursor, start: int, stop: int, epoch: int, tree: int, kind: PacketType) -> None:
        """Owe consecutive chunks to the peer."""
        cursor.owe(start, stop, epoch, tree, kind)
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

    def abandon(self) -> None:
        """Owe the peer nothing any more, now that nothing seems to reach it.

        What is under way is not sent again when it is lost: the peer may get it from elsewhere, and asks for what it
        misses when it is heard again.
        """
        for short, cursor in list(self.cursors.items()):
            self.drop(cursor)
            self.cursors[short] = cursor.renewed()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to send but an acknowledgement that may be due."""
        return not (self._files or self._messages or self.frames)

    def poll(self, now: float) -> list[tuple[str | None, list[bytes]]]:
        """Return the datagrams that may go now: trains, each with the channel whose socket it takes (None: shared)."""
        trains: list[tuple[str | None, list[bytes]]] = []
        if self.idle and not self._acks.ack_due(now):
            return trains
        control = self._control(now)
        if control:
            trains.append((None, control))
        self._pacer.set_rate(self._controller.rate_bytes_s, now)
        # A file waits for a whole train: what trickles in while one is sent would go packet by packet.
        files = bool(self._files) and self._pacer.next_at(now) <= now
        if self._messages:
            self._fill(self._messages, now, trains)
            self._carry(now, trains)
        if files:
            self._fill(self._files, now, trains)
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
        if self.frames:
            times.append(now)
        due = [at for at in times if at is not None]
        return min(due) if due else None

    # --- inside ---------------------------------------------------------------------------------------------------

    def _measure(self, result: AckResult, delay_s: float, now: float) -> None:
        """Let the link's figures follow from what was acknowledged."""
        recovery, qos = self.recovery, self.qos
        limited = result.app_limited or not self._controller.path_limited
        qos.on_ack(result, delay_s, now, latest_s=recovery.rtt.latest, limited=limited)
        known = recovery.packets_sent - recovery.in_flight, recovery.packets_lost - recovery.spurious
        qos.on_fates(result, known, now)

    def _expand_control(self, datagram: bytes) -> int:
        _, _, low, high, _ = HOP_HEADER.unpack_from(datagram)
        number: int = (high << 32) | low
        return number

    def _control(self, now: float) -> list[bytes]:
        ack = None
        if self._acks.ack_due(now) or (self.frames.sharing and self._acks.due_at() is not None):
            largest, delay, ranges = self._acks.take_ack(now)
            ack = Ack(largest, min(int(delay * _MICRO), 0xFFFFFFFF), tuple(ranges))
        return [self._seal_control(body, content, now) for body, content in self.frames.take(ack)]

    def _seal_control(self, body: bytes, content: FrameContent, now: float) -> bytes:
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
            room = min(budget - spent, window - recovery.in_flight_bytes, queue.left(cursor))
            run = cursor.next_run(-(-room // cursor.stream.datagram_bytes))
            if run is None:
                queue.remove(cursor)
                continue
            chunks = cursor.stream.sealed(run.start, run.stop)
            if not chunks:
                cursor.taken(run, run.start + 1)
                continue
            if HOP_HEADER_BYTES + len(chunks[0]) > self.mtu.mtu_bytes:
                content = self._sent_content(cursor, run, 1)
                parts = split(chunks[0], run.kind, self.mtu.mtu_bytes)
                content.fragments = len(parts)
                size = self._send(PacketType.FRAGMENT, parts, content, now, trains)
            else:
                parts = _of_one_size(chunks)
                content = self._sent_content(cursor, run, len(parts))
                size = self._send(run.kind, parts, content, now, trains)
                if cursor.stream.urgent:
                    self._carrier.on_sent(content, size // len(parts), len(parts))
            spent += size
            queue.spend(cursor, size)
        if spent:
            controller.on_sent(now, spent, recovery.in_flight_bytes)
            self._pacer.spend(spent, now)

    def _carry(self, now: float, trains: list[tuple[str | None, list[bytes]]]) -> None:
        """Send once more, beside what leaves now, what left before it and may be lost."""
        for content, count in self._carrier.take(self._controller.rate_bytes_s, now):
            cursor, start, stop = content.cursor, content.number, content.number + count
            if not self.room() or cursor.flying.until(start, stop) != (True, stop):
                continue
            chunks = cursor.stream.sealed(start, stop)
            if len(chunks) == count:
                self.counters.note_sent(content.kind, count)
                size = self._send(content.kind, chunks, replace(content, copy=True), now, trains)
                self._pacer.spend(size, now)

    def _sent_content(self, cursor: Cursor, run: OwedRun, count: int) -> ChunkContent:
        """Note the first chunks of a run as sent; return what is wanted back if they are lost."""
        start, stop, kind, owed = run.start, run.start + count, run.kind, run.owed
        cursor.taken(run, stop)
        cursor.crossed.add_range(start, stop)
        cursor.flying.add_range(start, stop)
        self.counters.note_sent(kind, count)
        again = kind if kind is PacketType.PULLED else PacketType.REPEAT
        return ChunkContent(cursor, start, owed.epoch, owed.tree, again)

    def _send(
        self,
        kind: PacketType,
        parts: list[bytes],
        content: ChunkContent,
        now: float,
        trains: list[tuple[str | None, list[bytes]]],
    ) -> int:
        """Give chunks, or parts of one, their hop numbers and note them as sent; return the bytes of all datagrams."""
        stream, counters, hop_number = content.cursor.stream, self.counters, self._number
        self._number = hop_number + len(parts)
        pack, first, session, epoch = HOP_HEADER.pack, kind << 4 | content.tree, self._session_byte, content.epoch
        train = [
            pack(first, session, number & 0xFFFFFFFF, epoch, 0) + part for number, part in enumerate(parts, hop_number)
        ]
        self.recovery.on_sent(hop_number, now, len(train[0]), True, content, len(parts))
        stream.active_at = self.qos.flow_at = now
        if trains and trains[-1][0] == stream.socket_channel:
            trains[-1][1].extend(train)
        else:
            trains.append((stream.socket_channel, train))
        size = sum(map(len, train))
        counters.bytes_sent += size
        counters.data_bytes_sent += size
        return size

    def _give_up(self, lost: list[SentRange], now: float) -> None:
        self._controller.on_loss(now, sum(each.size_bytes for each in lost))
        self.qos.shallow.on_lost(lost)
        self.mtu.on_feedback(0, self._large(lost), now)
        self._requeue(lost)

    def _large(self, sent: list[SentRange]) -> int:
        return sum(each.stop - each.start for each in sent if self.mtu.is_large(each.train.size))

    def _requeue(self, lost: list[SentRange]) -> None:
        for sent in lost:
            content = sent.train.content
            if isinstance(content, FrameContent):
                self.frames.put_again(content)
            elif isinstance(content, ChunkContent) and self.cursors.get(content.cursor.stream.short) is content.cursor:
                if content.copy or (content.fragments > 1 and content.lost):
                    continue
                content.lost = True
                start, stop = content.numbers(sent)
                content.cursor.flying.remove_range(start, stop)
                content.cursor.owe_again(start, stop, content.epoch, content.tree, content.kind)
                self.wake(content.cursor)


def _of_one_size(chunks: list[bytes]) -> list[bytes]:
    """Return the chunks from the first on that are as long as it is."""
    size = len(chunks[0])
    for count, chunk in enumerate(chunks):
        if len(chunk) != size:
            return chunks[:count]
    return chunks
