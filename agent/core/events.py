"""What the core tells the shell, and what it asks of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from common.ids import ChannelId, DeviceId
from common.messages import AdjacencyReport, CandidatesReport, QosReport, Subscribe
from common.opening import StreamKind

Address = tuple[str, int]
"""Host and port of a UDP socket."""

ReceiptState = Literal["waiting", "receiving", "verified", "refused", "cancelled"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far one device is with one stream.

    Attributes:
        state: the last thing it said.
        held_bytes: plain bytes it holds.
        reason: why it refused; empty otherwise.
        signature: the device's, of its last word.
    """

    state: ReceiptState
    held_bytes: int = 0
    reason: str = ""
    signature: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Transmit:
    """One train of datagrams for one address.

    Attributes:
        socket: which of the agent's sockets sends it; 0 is the shared one.
        address: where it goes.
        datagrams: the bytes, in order.
    """

    socket: int
    address: Address
    datagrams: list[bytes]


@dataclass(frozen=True, slots=True)
class QueryNeighbours:
    """Ask the server for this device's neighbours (M4), of one kept epoch or of the current graph (None)."""

    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class QueryGraph:
    """Ask the server for the whole graph, of one kept epoch or the current one (None)."""

    epoch: int | None = None


ControlRequest = AdjacencyReport | QosReport | CandidatesReport | Subscribe | QueryNeighbours | QueryGraph


@dataclass(frozen=True, slots=True)
class ControlFailed:
    """A query that the server did not answer."""

    request: ControlRequest
    reason: str


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """A stream became known here, as source or as receiver."""

    stream: str
    channel: ChannelId
    source: DeviceId
    kind: StreamKind
    name: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """A file stream holds more than it did (at most ten times a second)."""

    stream: str
    held_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FileVerified:
    """A file is complete, its hash is right and it has its name."""

    stream: str
    channel: ChannelId
    source: DeviceId
    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FileFailed:
    """A file will not arrive here: it was refused."""

    stream: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class ForgeryFound:
    """Chunks ``first`` to ``last`` were not what their source sent; they are dropped, and fetched again elsewhere.

    Attributes:
        stream: its id in hex.
        source: who should have sent them.
        first: the first number.
        last: the last number.
        bringer: who was bringing the stream; it made them, or was deceived itself. None if nobody was.
    """

    stream: str
    source: DeviceId
    first: int
    last: int
    bringer: DeviceId | None


@dataclass(frozen=True, slots=True)
class StreamCancelled:
    """The source took the stream back."""

    stream: str
    reason: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message, in its source's order and once."""

    channel: ChannelId
    source: DeviceId
    stream: str
    number: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class MessageGap:
    """Chunks ``first`` to ``last`` of a message stream passed their retention before they arrived."""

    channel: ChannelId
    source: DeviceId
    stream: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ReceiptsChanged:
    """At the source: some device's receipt changed."""

    stream: str
    receipts: Mapping[DeviceId, Receipt]


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """A link to a peer changed its state."""

    peer: DeviceId
    state: str


@dataclass(frozen=True, slots=True)
class GraphChanged:
    """A newer graph is in use.

    Attributes:
        epoch: its own.
        neighbours: this device's neighbours by objective.
    """

    epoch: int
    neighbours: Mapping[str, tuple[DeviceId, ...]] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """The core wants a UDP socket for one channel and peer; the shell answers with ``Node.socket_opened`` (M7)."""

    channel: ChannelId
    peer: DeviceId


Event = (
    StreamOpened
    | StreamProgress
    | FileVerified
    | FileFailed
    | ForgeryFound
    | StreamCancelled
    | MessageReceived
    | MessageGap
    | ReceiptsChanged
    | LinkChanged
    | GraphChanged
    | OpenSocket
)
