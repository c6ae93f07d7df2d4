"""What the tests of the core's parts are put together from: streams, links with a session, hops back to back."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

from agent.core.congestion import ModelController
from agent.core.counters import HopCounters
from agent.core.events import Address
from agent.core.hop import Hop
from agent.core.link import Link, Session
from agent.core.memory_store import MemoryStreamStore
from agent.core.routing import GraphTable
from agent.core.sinks import Sink
from agent.core.store import Role, StreamStore
from agent.core.stream import Stream
from common.datagrams import BOTH_HEADERS, Hello, PacketType
from common.frames import Frame
from common.graph import AcyclicGraph, Tree
from common.ids import DeviceId, link_key
from common.limits import STREAM_MEMORY_BYTES
from common.messages import ChannelSpec
from common.opening import Opening
from common.sealing import session_key
from common.signing import Signer, Verifier

Datagram = tuple[bytes, Address]

GROUP = "lab"
SECRET = bytes(range(32))
ADDRESS = ("127.0.0.1", 7_400)
HERE = ("10.0.0.1", 4_000)
SIGNER = Signer(SECRET, GROUP)
AUTHOR = Verifier(SIGNER.public_key, GROUP)
FILE = Opening(bytes(range(16)), "files", "A", "file", bytes(32), 1_000, "model.bin", 2_500, 1_000.0, 2_000.0).signed(
    SIGNER
)
MESSAGE = Opening(
    bytes(range(1, 17)), "messages", "A", "message", bytes([1]) * 32, 1_000, "", None, 1_000.0, 2_000.0
).signed(SIGNER)


def entropy_of(seed: int) -> Callable[[int], bytes]:
    """Return bytes that nobody could guess who does not know the seed."""
    return random.Random(seed).randbytes


def spec_of(opening: Opening, **rules: Any) -> ChannelSpec:
    """Return the rules of an opening's channel."""
    return ChannelSpec(name=opening.channel, kind=opening.kind, **rules)


def make_stream(
    opening: Opening = FILE,
    *,
    role: Role = "receive",
    store: StreamStore | None = None,
    sink: Sink | None = None,
    memory_bytes: int = STREAM_MEMORY_BYTES,
    **rules: Any,
) -> Stream:
    """Return a stream of device A as device B (or A itself) keeps it."""
    kept = MemoryStreamStore() if store is None else store
    spec, graphs = spec_of(opening, **rules), GraphTable("B", 0.0)
    return Stream(opening, b"sealed opening", spec, kept, role, sink, AUTHOR, graphs, 0.0, memory_bytes)


def of_size(size_bytes: int, opening: Opening = FILE) -> Opening:
    """Return the opening of a file of another size."""
    return dataclasses.replace(opening, size_bytes=size_bytes)


def graph(epoch: int, *edges: tuple[str, str], objective: str = "throughput") -> AcyclicGraph:
    """Return a graph of one tree."""
    devices = sorted({device for edge in edges for device in edge})
    tree = Tree(objective, tuple(sorted(link_key(*edge) for edge in edges)))
    return AcyclicGraph(epoch, tuple(devices), (tree,))


def make_link(peer: DeviceId = "B", seed: int = 1, *, now: float = 0.0, datagram_bytes: int = 1_200) -> Link:
    """Return a link that knows one address of its peer."""
    rng = random.Random(seed)
    link = Link(peer, GROUP, SECRET, datagram_bytes=datagram_bytes, rng=rng, entropy=entropy_of(seed + 1_000), now=now)
    link.set_addresses((ADDRESS,), now)
    return link


def hello_due(link: Link, now: float = 0.0) -> Hello:
    """Return the hello that a link owes the network now, that to the first address."""
    (_, hello), *_ = link.poll_hellos(now)
    return hello


def shake_hands(one: Link, other: Link, now: float = 0.0) -> list[Hello]:
    """Let two links open a session, the first of them beginning; return the hellos in the order they went.

    What the path takes is taken as measured.
    """
    hellos = [hello_due(one, now)]
    sides = [other, one]
    while True:
        answer, _ = sides[0].handle_hello(hellos[-1], ADDRESS, now)
        if answer is None:
            one.mtu_bytes = other.mtu_bytes = 1_200
            return hellos
        hellos.append(answer)
        sides.reverse()


def matches(one: Link, other: Link) -> bool:
    """Whether two links have one session, seen from both ends."""
    a, b = one.session, other.session
    return (
        a is not None
        and b is not None
        and (a.local, a.remote, a.send_key, a.receive_key) == (b.remote, b.local, b.receive_key, b.send_key)
    )


def sessions(datagram_bytes: int = 1_200) -> tuple[Session, Session]:
    """Return both ends of one session."""
    a, b = b"a" * 16, b"b" * 16
    there, back = session_key(SECRET, GROUP, a, b), session_key(SECRET, GROUP, b, a)
    return (
        Session(a, b, ("10.0.0.2", 7_400), datagram_bytes, there, back),
        Session(b, a, ("10.0.0.1", 7_400), datagram_bytes, back, there),
    )


def make_hop(peer: DeviceId, session: Session, *, rate_bytes_s: float = 1e9, window_bytes: int = 1 << 20) -> Hop:
    """Return a hop whose window and rate do not get in a test's way."""
    controller = ModelController(initial_rate_bytes_s=rate_bytes_s, initial_window_bytes=window_bytes)
    return Hop(peer, session, controller, HopCounters(), 0.0)


def make_hops(**limits: Any) -> tuple[Hop, Hop]:
    """Return two hops back to back: A's to B, and B's to A."""
    a, b = sessions()
    return make_hop("B", a, **limits), make_hop("A", b, **limits)


class SentFrames(Hop):
    """A hop that keeps what it is told to send."""

    def __init__(self, peer: DeviceId) -> None:
        controller = ModelController()
        super().__init__(peer, sessions()[0], controller, HopCounters(), 0.0)
        self.sent: list[Frame] = []

    def send(self, frame: Frame, *, reliable: bool = True) -> None:
        self.sent.append(frame)


def a_chunk(
    hop_number: int,
    number: int,
    *,
    kind: PacketType = PacketType.DATA,
    tree: int = 3,
    session: int = 0x61,
    epoch: int = 0xFFFFFFFF,
    age: int = 0,
    stream: int = 0xFFFFFFFF,
    flags: int = 0,
    size: int = 100,
    source: Address = HERE,
) -> Datagram:
    """Return what claims to be a chunk, with the address it came from."""
    header = BOTH_HEADERS.pack(kind << 4 | tree, session, hop_number, epoch, age, stream, flags << 56 | number)
    return header + bytes(size - len(header)), source


def run_at(hop_number: int, number: int, count: int) -> list[Datagram]:
    """Return consecutive chunks."""
    return [a_chunk(hop_number + step, number + step) for step in range(count)]
