"""What the server's tests share: a seeded group, the six devices of the worked example, and an in-process client."""

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping

from common.fields import encode_key
from common.messages import AdjacencyReport, ChannelSpec, Enrolment, ErrorMessage, QosFigures, QosReport, ServerMessage
from server.core.group import Group
from server.core.snapshot import GroupRecord

WALL = 1_800_000_000.0
KEY = encode_key(bytes(32))


def key_of(device: str) -> str:
    """Return a public key of a device's own."""
    return encode_key(hashlib.sha256(device.encode()).digest())


SIX = {
    ("A", "B"): 100e6,
    ("A", "C"): 100e6,
    ("B", "C"): 50e6,
    ("B", "E"): 100e6,
    ("C", "D"): 100e6,
    ("D", "F"): 100e6,
}
SIX_TREE = (("A", "B"), ("A", "C"), ("B", "E"), ("C", "D"), ("D", "F"))


def entropy(seed: int = 0) -> Callable[[int], bytes]:
    """Make a source of bytes that are the same in every run."""
    return random.Random(seed).randbytes


class Bench:
    """A group with a clock that the test moves, and everything that came out of it."""

    def __init__(self, *, channels: tuple[ChannelSpec, ...] | None = None, stored: GroupRecord | None = None) -> None:
        """Start a group at second 0."""
        self.now = 0.0
        self.offset = WALL
        options = {} if channels is None else {"channels": channels}
        self.group = Group("lab", now=0.0, wall=self.wall, entropy=entropy(), stored=stored, **options)
        self.tokens: dict[str, str] = {}

    @property
    def wall(self) -> float:
        """Unix seconds."""
        return self.offset + self.now

    def enrol(self, *devices: str) -> None:
        """Make devices members."""
        for device in devices:
            enrolment = Enrolment(device=device, public_key=key_of(device), signing_key=key_of(device))
            answer = self.group.enrol(enrolment, now=self.now, wall=self.wall)
            assert answer.token is not None
            self.tokens[device] = answer.token

    def adjacency(self, device: str, *peers: str) -> None:
        """Have a device report its adjacency."""
        self.group.report(device, AdjacencyReport(peers=peers), now=self.now, wall=self.wall)

    def qos(self, device: str, links: Mapping[str, QosFigures]) -> None:
        """Have a device report figures."""
        self.group.report(device, QosReport(links=dict(links)), now=self.now, wall=self.wall)

    def connect(self, links: Mapping[tuple[str, str], float]) -> None:
        """Have both ends of each link report it, with its rate in bits per second."""
        for device in dict.fromkeys(end for link in links for end in link):
            rates = peers_of(device, links)
            self.adjacency(device, *rates)
            self.qos(device, {peer: QosFigures(bandwidth_bps=rate) for peer, rate in rates.items()})

    def rate(self, a: str, b: str, rate_bps: float) -> None:
        """Have both ends of a link report another rate."""
        self.qos(a, {b: QosFigures(bandwidth_bps=rate_bps)})
        self.qos(b, {a: QosFigures(bandwidth_bps=rate_bps)})

    def run(self, until: float) -> None:
        """Let time pass, calling the group whenever it asks for it."""
        while (at := self.group.poll_timeout()) is not None and at <= until:
            self.now = max(at, self.now)
            self.group.handle_timeout(now=self.now, wall=self.wall)
        self.now = until

    def edges(self, tree: int = 0) -> tuple[tuple[str, str], ...]:
        """Give the edges of a current tree."""
        return self.group.graph().trees[tree].edges

    def pushes(self) -> list[tuple[int, ServerMessage]]:
        """Take everything that waits to be sent."""
        return list(iter(self.group.poll_push, None))

    def closed(self) -> list[tuple[int, ErrorMessage]]:
        """Take every subscriber that is to be closed."""
        return list(iter(self.group.poll_closed, None))


def peers_of(device: str, links: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """List a device's peers with the rate of each link."""
    return {(b if device == a else a): rate for (a, b), rate in links.items() if device in (a, b)}


def six(**options: tuple[ChannelSpec, ...] | None) -> Bench:
    """Make the worked example: six devices, six links, B-C the worst of the triangle; its tree stands."""
    bench = Bench(channels=options.get("channels"))
    bench.enrol("A", "B", "C", "D", "E", "F")
    bench.connect(SIX)
    bench.run(0.1)
    return bench


def types(messages: Iterable[tuple[int, ServerMessage]]) -> list[tuple[int, str]]:
    """Reduce messages to their subscriber and type."""
    return [(number, message.type) for number, message in messages]
