"""Stand-ins for the parts of an agent: each records what it is told and gives what a test put in."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.core.events import Address, ControlRequest, Event, OpenSocket, StreamOpened, Transmit
from agent.core.silences import Arrivals
from agent.core.store import PieceReader
from agent.services.ports import ControlInput
from common.errors import RefusedError
from common.opening import Opening, StreamKind


class FakeCore:
    """A core that thinks nothing: outputs are what a test appended."""

    def __init__(self) -> None:
        self.inputs: list[tuple[str, Any]] = []
        self.settling_for = 0
        self.transmits: deque[list[Transmit]] = deque()
        self.requests: deque[ControlRequest] = deque()
        self.events: deque[Event] = deque()
        self.timeout: float | None = None
        self.refusal: RefusedError | None = None
        self.failure: Exception | None = None
        self.sent: list[tuple[str, str, int, PieceReader]] = []

    def receive_datagrams(self, batch: Sequence[tuple[bytes, Address]], *, socket: int = 0, now: float) -> None:
        self._note("datagrams", (list(batch), socket))

    def on_unreachable(self, address: Address, *, now: float) -> None:
        self._note("unreachable", address)

    def receive_control(self, message: ControlInput, *, now: float) -> None:
        self._note("control", message)

    def control_connected(self, *, now: float) -> None:
        self._note("connected", None)

    def control_lost(self, *, now: float) -> None:
        self._note("lost", None)

    def socket_opened(self, request: OpenSocket, socket: int, port: int, *, now: float) -> None:
        self._note("socket", (request, socket, port))

    def set_candidates(self, candidates: Iterable[Address], *, now: float) -> None:
        self._note("candidates", tuple(candidates))

    def set_stun_servers(self, servers: Iterable[Address], *, now: float) -> None:
        self._note("stun", tuple(servers))

    def handle_timeout(self, *, now: float) -> None:
        self.timeout = None
        self._note("timeout", now)

    def poll_transmit(self, *, now: float) -> list[Transmit]:
        return self.transmits.popleft() if self.transmits else []

    def poll_control(self) -> ControlRequest | None:
        return self.requests.popleft() if self.requests else None

    def poll_event(self) -> Event | None:
        return self.events.popleft() if self.events else None

    def poll_timeout(self) -> float | None:
        return self.timeout

    def send_file(self, channel: str, name: str, size_bytes: int, reader: PieceReader, *, now: float) -> str:
        if self.refusal is not None:
            raise self.refusal
        stream = f"{len(self.sent) + 1:032x}"
        self.sent.append((channel, name, size_bytes, reader))
        self.events.append(StreamOpened(stream, channel, "A", "file", name, size_bytes))
        return stream

    def publish(self, channel: str, payload: bytes, *, now: float) -> tuple[str, int]:
        if self.refusal is not None:
            raise self.refusal
        self._note("publish", (channel, payload))
        return "ab" * 16, len(self.inputs)

    def settling(self, *, now: float) -> bool:
        self.settling_for -= 1
        return self.settling_for >= 0

    def cancel(self, stream: str, reason: str = "cancelled", *, now: float) -> None:
        self._note("cancel", stream)

    def leave(self, *, now: float) -> None:
        self._note("leave", None)

    def status(self, *, now: float) -> Any:
        return {"device": "A", "group": "lab", "epoch": 7, "drops": {"garbage": 2}, "links": []}

    def arrivals(self) -> Mapping[str, Arrivals]:
        return {"5a": Arrivals(7.5, ((1.0, 2.0),))}

    def told(self, kind: str) -> list[Any]:
        """Return what inputs of one kind carried."""
        return [what for each, what in self.inputs if each == kind]

    def _note(self, kind: str, what: object) -> None:
        self.inputs.append((kind, what))
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure


class FakeSockets:
    """An endpoint without sockets."""

    def __init__(self) -> None:
        self.congested = False
        self.sent: list[tuple[int, Address, list[bytes]]] = []
        self.opened = 0

    def open(self, port: int = 0) -> tuple[int, int]:
        self.opened += 1
        return self.opened, 7400 + self.opened

    def send(self, number: int, address: Address, datagrams: Sequence[bytes]) -> None:
        self.sent.append((number, address, list(datagrams)))


class FakeListener:
    """Records what the control client says; lets a test wait for it."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[object] = asyncio.Queue()
        self.on_connected: Any = lambda: None

    def receive_control(self, message: ControlInput) -> None:
        self.heard.put_nowait(message)

    def control_connected(self) -> None:
        self.heard.put_nowait("connected")
        self.on_connected()

    def control_lost(self) -> None:
        self.heard.put_nowait("lost")


class NoWaits(random.Random):
    """A generator that makes every wait with jitter end at once."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


def make_opening(
    *,
    stream: bytes = bytes(range(16)),
    name: str = "model.bin",
    size_bytes: int | None = 2_500,
    piece_bytes: int = 1_000,
    kind: StreamKind = "file",
    expires: float = 2_000.0,
) -> Opening:
    """Return an opening with the given facts."""
    return Opening(
        stream=stream,
        channel="files" if kind == "file" else "messages",
        source="A",
        kind=kind,
        key=bytes(32),
        piece_bytes=piece_bytes,
        name=name if kind == "file" else "",
        size_bytes=size_bytes if kind == "file" else None,
        created=1_000.0,
        expires=expires,
    )
