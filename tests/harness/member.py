"""A member of a group that a test plays itself, on a real socket: it has real keys, and says what it likes.

It is made of the agent's own parts (`Link` for the handshake, `Hop` for numbers, seals and acknowledgements) and keeps
one link, to one agent, alive. Whatever else it sends is the test's choice.
"""

import asyncio
import contextlib
import os
import random
import time
from typing import Any, Self

import httpx

from agent.core.congestion import ModelController
from agent.core.counters import HopCounters
from agent.core.hop import Hop
from agent.core.link import Link
from common.blocks import Blocks
from common.datagrams import CHUNK_HEADER, FLAG_PROOF, HOP_HEADER, PacketType, open_hello
from common.errors import DecodeError
from common.fields import decode_key, encode_key, split_candidate
from common.frames import Frame
from common.ids import DeviceId
from common.link_frames import Ack
from common.messages import EnrolmentAnswer, Roster
from common.opening import Opening
from common.path_frames import MtuAnswer, MtuProbe, PathAnswer, PathChallenge
from common.sealing import GroupKeys, Sealer, key_id, nonce_of, pair_secret, public_key_of
from common.signing import PURPOSE_BLOCK, Signer, block_statement
from common.stream_frames import StreamOpening
from lab.loopback import GROUP
from tests.harness.attacked import DATAGRAM_BYTES, until
from tests.harness.wire import bound as bound_socket
from tests.harness.wire import drained

RATE_BYTES_S = 10e6
PUMP_S = 0.02
PROBE_S = 0.1
PIECE_BYTES = 1_000
LIFETIME_S = 3_600.0


class Member:
    """A device that is no agent.

    Args:
        device: its name.
        url: the server's.
    """

    def __init__(self, device: DeviceId, url: str) -> None:
        self.device = device
        self.url = url
        self.private_key = os.urandom(32)
        self.signer = Signer(self.private_key, GROUP)
        self.token = ""
        self.roster: Roster
        self.hop: Hop
        self.heard: list[Frame] = []
        """What the agent said, but for probes and acknowledgements."""
        self.socket = bound_socket()
        self._client = httpx.AsyncClient(timeout=10.0, trust_env=False)
        self._link: Link
        self._peer_key = b""
        self._rng = random.Random(device)
        self._next_probe = 0.0
        self._pump: asyncio.Task[None] | None = None

    # --- the server -----------------------------------------------------------------------------------------------

    async def ask(self, method: str, resource: str, token: str | None = None, **body: Any) -> httpx.Response:
        """Ask the server for something of the group, under the own token if no other is named."""
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        url = f"{self.url}/v1/groups/{GROUP}/{resource}"
        return await self._client.request(method, url, headers=headers, json=body or None)

    async def enrol(self, join_token: str) -> None:
        """Become a member, and say where it is reached."""
        key = encode_key(public_key_of(self.private_key))
        signing_key = encode_key(self.signer.public_key)
        body = {"device": self.device, "public_key": key, "signing_key": signing_key}
        answer = await self.ask("POST", "devices", join_token, **body)
        answer.raise_for_status()
        enrolled = EnrolmentAnswer.model_validate_json(answer.content)
        self.token, self.roster = enrolled.token or "", enrolled.roster
        host, port = self.socket.getsockname()
        (await self.ask("PUT", f"devices/{self.device}/candidates", candidates=[f"{host}:{port}"])).raise_for_status()

    # --- the link -------------------------------------------------------------------------------------------------

    async def meet(self, peer: DeviceId) -> None:
        """Shake hands with an agent, and keep the link to it alive from then on."""
        entry = next(entry for entry in self.roster.devices if entry.device == peer)
        self._peer_key = decode_key(entry.public_key)
        self._link = Link(
            peer,
            GROUP,
            pair_secret(self.private_key, self._peer_key),
            datagram_bytes=DATAGRAM_BYTES,
            rng=self._rng,
            entropy=os.urandom,
            now=time.monotonic(),
        )
        self._link.set_addresses(tuple(map(split_candidate, entry.candidates)), time.monotonic())
        self._pump = asyncio.create_task(self._go_on())
        await until(lambda: self._link.session is not None)

    @property
    def address(self) -> tuple[str, int]:
        """Where the agent is."""
        return self.hop.session.address

    def send(self, *datagrams: bytes) -> None:
        """Send the agent datagrams as they are."""
        for datagram in datagrams:
            self.socket.sendto(datagram, self.address)

    def sealed(self, frame: Frame) -> bytes:
        """Return a control datagram with one frame, under the session's key and a number of its own."""
        return self.hop.seal_apart(frame, time.monotonic())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Fall silent."""
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        await self._client.aclose()
        self.socket.close()

    async def _go_on(self) -> None:
        while True:
            now = time.monotonic()
            for address, hello in self._link.poll_hellos(now):
                self._say_hello(hello, address)
            self._take(now)
            if self._link.session is not None:
                if now >= self._next_probe:
                    self._next_probe = now + PROBE_S
                    self.hop.send(self.hop.qos.next_probe(now, 4 * PROBE_S, 0), reliable=False)
                for _, datagrams in self.hop.poll(now):
                    self.send(*datagrams)
            await asyncio.sleep(PUMP_S)

    def _take(self, now: float) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                datagram, address = self.socket.recvfrom(1 << 16)
                if datagram[0] >> 4 == PacketType.HELLO:
                    self._on_hello(datagram, address, now)
                elif datagram[0] >> 4 == PacketType.CONTROL and self._link.session is not None:
                    with contextlib.suppress(DecodeError):
                        for frame in self.hop.open_control(datagram, now):
                            self._on_frame(frame, now)

    def _on_hello(self, datagram: bytes, address: tuple[str, int], now: float) -> None:
        try:
            hello = open_hello(datagram, self._link.sealer)
        except DecodeError:
            return  # another agent's, with which this member keeps no link
        answer, established = self._link.handle_hello(hello, address, now)
        if answer is not None:
            self._say_hello(answer, address)
        if established and self._link.session is not None:
            session = self._link.session
            controller = ModelController(packet_bytes=session.packet_bytes, initial_rate_bytes_s=RATE_BYTES_S)
            self.hop = Hop(self._link.peer, session, controller, HopCounters(), now)

    def _say_hello(self, hello: Any, address: tuple[str, int]) -> None:
        key = key_id(public_key_of(self.private_key))
        self.socket.sendto(hello.encode(key, self._link.sealer, os.urandom(12)), address)

    def _on_frame(self, frame: Frame, now: float) -> None:
        match frame:
            case Ack():
                self.hop.on_ack(frame, now)
            case MtuProbe():
                self.hop.send(MtuAnswer(frame.size_bytes), reliable=False)
            case PathChallenge():
                self.send(self.sealed(PathAnswer(frame.token)))
            case _:
                self.heard.append(frame)

    # --- streams --------------------------------------------------------------------------------------------------

    @property
    def group_keys(self) -> GroupKeys:
        """The keys that every member has."""
        return GroupKeys(GROUP, {epoch: decode_key(key) for epoch, key in self.roster.group_keys.items()})

    def opening(self, name: str, size_bytes: int | None, **other: Any) -> Opening:
        """Make up a stream of this device."""
        wall = time.time()
        facts: dict[str, Any] = {
            "stream": os.urandom(16),
            "channel": "messages" if size_bytes is None else "files",
            "source": self.device,
            "kind": "message" if size_bytes is None else "file",
            "key": os.urandom(32),
            "piece_bytes": PIECE_BYTES,
            "name": name,
            "size_bytes": size_bytes,
            "created": wall,
            "expires": wall + LIFETIME_S,
        }
        return Opening(**facts | other).signed(self.signer)

    def sealed_opening(self, opening: Opening) -> bytes:
        """Seal an opening as every member can."""
        return self.group_keys.seal(b"opening", opening.encode(), os.urandom(12))

    def open_stream(self, opening: Opening) -> None:
        """Tell the agent of a stream."""
        self.send(self.sealed(StreamOpening(self.sealed_opening(opening))))

    def chunk(
        self, opening: Opening, number: int, plain: bytes, *, flags: int = 0, kind: PacketType = PacketType.DATA
    ) -> bytes:
        """Return a chunk of a stream as its source seals it, under a hop number of its own."""
        header = CHUNK_HEADER.pack(opening.short, flags << 56 | number)
        sealed = Sealer(opening.key).seal_raw(nonce_of(number), plain, header)
        return self.hop_header(kind) + header + sealed

    def hop_header(self, kind: PacketType) -> bytes:
        """Return a hop header under the next hop number."""
        number = self.hop._number
        self.hop._number += 1
        return HOP_HEADER.pack(kind << 4, self.hop.session.remote[0], number & 0xFFFFFFFF, 0, 0)

    def file(self, opening: Opening, data: bytes, digest: bytes) -> list[bytes]:
        """Return all chunks of a file of one block, which ends with a proof of this digest."""
        size = opening.piece_bytes
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        chunks = [self.chunk(opening, number, piece) for number, piece in enumerate(pieces, 1)]
        closing = Blocks.of(len(data), size).closing
        assert closing == len(pieces) + 1
        signature = self.signer.sign(PURPOSE_BLOCK, block_statement(opening.stream, closing, digest))
        return [*chunks, self.chunk(opening, closing, digest + signature, flags=FLAG_PROOF)]


def answered(member: Member) -> list[bytes]:
    """Return what came to a member that keeps no link."""
    return drained(member.socket)
