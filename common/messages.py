"""The control language: what devices and the server say to each other.

It goes over REST, over the subscription socket, and as objects in the simulator. Every message is frozen, refuses
unknown fields and holds the limits of `common.limits`. Over the subscription socket each one is a JSON text whose
`type` names it; `decode_client_message` and `decode_server_message` read them.
"""

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common import limits
from common.errors import DecodeError, TopologyError
from common.fields import (
    Candidate,
    Epoch,
    Key,
    KeyEpoch,
    Name,
    NatMapping,
    Objective,
    Routing,
    TokenHash,
    ToldCandidate,
    Version,
    distinct,
)
from common.graph import AcyclicGraph, Tree
from common.ids import DeviceId


class Message(BaseModel):
    """What all messages share: frozen, no unknown fields, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# --- from a device ------------------------------------------------------------------------------------------------


class QosFigures(Message):
    """What one end of a link measured or declares about it; null where it knows nothing (M2)."""

    bandwidth_bps: float | None = Field(None, strict=True, ge=0, le=limits.MAX_RATE_BPS, description="bits per second")
    delay_s: float | None = Field(None, strict=True, ge=0, le=limits.MAX_DELAY_S, description="one way, in seconds")
    jitter_s: float | None = Field(
        None, strict=True, ge=0, le=limits.MAX_DELAY_S, description="in seconds (RFC 3550 section 6.4.1)"
    )
    loss: float | None = Field(None, strict=True, ge=0, le=1, description="the share of datagrams lost, 0 to 1")
    mtu_bytes: int | None = Field(
        None,
        strict=True,
        ge=limits.MIN_DATAGRAM_BYTES,
        le=limits.MAX_DATAGRAM_BYTES,
        description="the largest UDP payload that the path takes, found by probes",
    )


class AdjacencyReport(Message):
    """First information: the devices to which the reporter has an open link; it replaces the report before (M1)."""

    type: Literal["adjacency"] = "adjacency"
    peers: Annotated[tuple[Name, ...], AfterValidator(distinct)] = Field(max_length=limits.MAX_PEERS)


class QosReport(Message):
    """Second information: the figures of each link that the reporter names; links not named keep theirs (M2)."""

    type: Literal["qos"] = "qos"
    links: dict[Name, QosFigures] = Field(max_length=limits.MAX_PEERS, description="figures by the peer's device id")


class CandidatesReport(Message):
    """The addresses at which the reporter may be reached; they replace those before."""

    type: Literal["candidates"] = "candidates"
    candidates: Annotated[tuple[ToldCandidate, ...], AfterValidator(distinct)] = Field(max_length=limits.MAX_CANDIDATES)
    mapping: NatMapping = Field("unknown", description="the reporter's NAT, as its STUN servers' answers show it")


class Subscribe(Message):
    """The first message on a subscription socket (M5)."""

    type: Literal["subscribe"] = "subscribe"
    scope: Literal["graph", "neighbours", "roster"] = Field(
        description="the whole graph, the device's own neighbours, or neither: members and channels alone"
    )
    epoch: Epoch | None = Field(None, description="the last epoch seen; null at the first time")
    instance: Name | None = Field(
        None, description="names this run of the agent: another run of the same device is refused while this one lives"
    )


class Enrolment(Message):
    """What a device shows to become a member."""

    device: Name
    public_key: Key = Field(description="X25519: what its peers speak with it under")
    signing_key: Key = Field(description="Ed25519: what it signs its streams with")
    token_hash: TokenHash | None = Field(
        None, description="of a token that the device made for itself; null: the server makes one and answers with it"
    )


class TokenRotation(Message):
    """What a device shows to change its token."""

    token_hash: TokenHash | None = Field(
        None, description="of a token that the device made for itself; null: the server makes one and answers with it"
    )


class DeviceToken(Message):
    """A device's new token; the one before is good until this one is first used."""

    device: Name
    token: str | None = Field(
        None, max_length=limits.MAX_TOKEN_CHARS, description="shown this once; null if the device made it"
    )


# --- about the group ----------------------------------------------------------------------------------------------


class ChannelSpec(Message):
    """One named service and its rules."""

    name: Name
    kind: Literal["file", "message"] = Field(description="what its streams carry")
    objective: Objective = Field("throughput", description="which tree carries it")
    distribute: bool = Field(
        True, strict=True, description="false: delivered to the neighbours, passed on no further (M7)"
    )
    routing: Routing = Field("subscribe", description="how devices learn the next hops: the four manners (M9 to M12)")
    sockets: Literal["shared", "per-channel"] = Field("shared", description="how a chunk names its service (M7)")
    repeat: Literal["ranges", "window", "last"] = Field("ranges", description="how a repeated chunk is recognised (M7)")
    delay_sensitive: bool = Field(False, strict=True, description="shorter buffers and timers")
    buffer_bytes: int = Field(
        262_144, strict=True, ge=0, le=limits.MAX_BUFFER_BYTES, description="routing overflow: bytes held before asking"
    )
    query_interval_s: float = Field(
        30.0,
        strict=True,
        ge=limits.MIN_QUERY_INTERVAL_S,
        le=limits.MAX_QUERY_INTERVAL_S,
        description="routing query: seconds between two queries",
    )
    retention_bytes: int = Field(
        64 * 1024 * 1024, strict=True, ge=0, le=limits.MAX_RETENTION_BYTES, description="bytes kept for late joiners"
    )
    retention_s: float = Field(
        600.0, strict=True, ge=0, le=limits.MAX_RETENTION_S, description="seconds for which they are kept"
    )


class Channels(Message):
    """All channels of the group; it replaces what came before."""

    type: Literal["channels"] = "channels"
    version: Version
    channels: tuple[ChannelSpec, ...] = Field(max_length=limits.MAX_CHANNELS)


class RosterEntry(Message):
    """One member."""

    device: Name
    public_key: Key
    signing_key: Key
    candidates: tuple[Candidate, ...] = Field((), max_length=limits.MAX_CANDIDATES)
    mapping: NatMapping = Field(
        "unknown", description="its NAT: none, of one mapping, or one that varies by destination"
    )


class Roster(Message):
    """All members and the group keys; it replaces what came before."""

    type: Literal["roster"] = "roster"
    version: Version
    devices: tuple[RosterEntry, ...] = Field(max_length=limits.MAX_DEVICES_PER_GROUP)
    key_epoch: KeyEpoch = Field(strict=True, description="the group key to seal with; it grows when a member leaves")
    group_keys: dict[KeyEpoch, Key] = Field(
        max_length=limits.GROUP_KEYS_KEPT, description="the last group keys by key epoch, to open with"
    )


class EnrolmentAnswer(Message):
    """What a new member gets; a token that the server made is shown this once."""

    device: Name
    token: str | None = Field(
        None,
        max_length=limits.MAX_TOKEN_CHARS,
        description="proves the device in every later request; null if the device made its own",
    )
    group: Name
    roster: Roster
    channels: Channels
    lease_s: float = Field(description="seconds after the last report at which the device's links no longer count")


# --- about the graph ----------------------------------------------------------------------------------------------


class TreeBody(Message):
    """One tree of a graph."""

    objective: Name
    edges: tuple[tuple[Name, Name], ...] = Field(max_length=limits.MAX_DEVICES_PER_GROUP)
    components: tuple[tuple[Name, ...], ...] | None = Field(
        None, description="devices that the tree connects, each component named by its first; in REST answers only"
    )


class GraphBody(Message):
    """A graph as JSON."""

    epoch: Epoch
    devices: tuple[Name, ...] = Field(max_length=limits.MAX_DEVICES_PER_GROUP)
    trees: tuple[TreeBody, ...] = Field(min_length=1, max_length=limits.MAX_TREES)

    @classmethod
    def from_graph(cls, graph: AcyclicGraph, *, components: bool = False) -> Self:
        """Write a graph.

        Args:
            graph: the graph.
            components: list the components of each tree as well.
        """
        trees = tuple(
            TreeBody(
                objective=tree.objective,
                edges=tree.edges,
                components=graph.components(index) if components else None,
            )
            for index, tree in enumerate(graph.trees)
        )
        return cls(epoch=graph.epoch, devices=graph.devices, trees=trees)

    def to_graph(self) -> AcyclicGraph:
        """Read the graph.

        Raises:
            DecodeError: it does not hold together.
        """
        try:
            return AcyclicGraph(
                self.epoch, self.devices, tuple(Tree(tree.objective, tree.edges) for tree in self.trees)
            )
        except TopologyError as error:
            raise DecodeError(str(error)) from error


class TreeNeighbours(Message):
    """A device's neighbours in one tree."""

    objective: Name
    neighbours: tuple[Name, ...] = Field(max_length=limits.MAX_DEVICES_PER_GROUP)


class NeighboursBody(Message):
    """A device's neighbours in every tree of a graph: the answer to a query (M4)."""

    epoch: Epoch
    trees: tuple[TreeNeighbours, ...] = Field(min_length=1, max_length=limits.MAX_TREES)

    @classmethod
    def from_graph(cls, graph: AcyclicGraph, device: DeviceId) -> Self:
        """Write what one device has to know of a graph."""
        trees = tuple(
            TreeNeighbours(objective=tree.objective, neighbours=graph.neighbours(device, index))
            for index, tree in enumerate(graph.trees)
        )
        return cls(epoch=graph.epoch, trees=trees)


# --- from the server over the subscription ------------------------------------------------------------------------


class Unchanged(Message):
    """The subscriber's last epoch is the current one."""

    type: Literal["unchanged"] = "unchanged"
    epoch: Epoch


class GraphUpdate(Message):
    """Scope graph: the current graph, and those that this subscriber skipped, oldest first."""

    type: Literal["graph"] = "graph"
    graph: GraphBody
    passed: tuple[GraphBody, ...] = Field((), max_length=limits.EPOCHS_KEPT - 1)


class NeighboursUpdate(Message):
    """Scope neighbours: the device's current neighbours, and those under the epochs it skipped, oldest first."""

    type: Literal["neighbours"] = "neighbours"
    epoch: Epoch
    trees: tuple[TreeNeighbours, ...] = Field(min_length=1, max_length=limits.MAX_TREES)
    passed: tuple[NeighboursBody, ...] = Field((), max_length=limits.EPOCHS_KEPT - 1)


class EpochUpdate(Message):
    """Scope neighbours: a new epoch that leaves the device's neighbours as they were."""

    type: Literal["epoch"] = "epoch"
    epoch: Epoch


class MtuUpdate(Message):
    """The largest UDP payload that every link of the group takes: what a new stream's chunks may be."""

    type: Literal["mtu"] = "mtu"
    mtu_bytes: int = Field(strict=True, ge=limits.MIN_DATAGRAM_BYTES, le=limits.MAX_DATAGRAM_BYTES)


class Accepted(Message):
    """A report that came over the socket was taken."""

    type: Literal["accepted"] = "accepted"
    of: Literal["qos", "adjacency", "candidates"]


class ErrorMessage(Message):
    """What came over the socket was declined, or the socket is about to be closed."""

    type: Literal["error"] = "error"
    reason: str = Field(max_length=64)
    detail: str = Field(max_length=4_096)


Report: TypeAlias = AdjacencyReport | QosReport | CandidatesReport
ClientMessage: TypeAlias = Subscribe | AdjacencyReport | QosReport | CandidatesReport
ServerMessage: TypeAlias = (
    Unchanged | GraphUpdate | NeighboursUpdate | EpochUpdate | Roster | Channels | MtuUpdate | Accepted | ErrorMessage
)

_CLIENT: Final[TypeAdapter[ClientMessage]] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])
_SERVER: Final[TypeAdapter[ServerMessage]] = TypeAdapter(Annotated[ServerMessage, Field(discriminator="type")])


def encode_message(message: Message) -> str:
    """Write a message as JSON text."""
    return message.model_dump_json()


def decode_client_message(data: str | bytes) -> ClientMessage:
    """Read what a device sent over the subscription socket.

    Raises:
        DecodeError: whatever is wrong with it; the text says where, never more than a screen of it.
    """
    _check_length(data, limits.MAX_BODY_BYTES)
    try:
        return _CLIENT.validate_json(data)
    except ValidationError as error:
        raise DecodeError(describe(error)) from error


def decode_server_message(data: str | bytes) -> ServerMessage:
    """Read what the server sent over the subscription socket.

    Raises:
        DecodeError: whatever is wrong with it.
    """
    _check_length(data, limits.MAX_CONTROL_BYTES)
    try:
        return _SERVER.validate_json(data)
    except ValidationError as error:
        raise DecodeError(describe(error)) from error


def describe(error: ValidationError) -> str:
    """Say in one line what is wrong with a message: the first three places, without echoing what was sent."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    lines = []
    for problem in problems[:3]:
        place = ".".join(str(part)[:80] for part in problem["loc"])
        lines.append(f"{place}: {problem['msg'][:200]}" if place else problem["msg"][:200])
    if len(problems) > len(lines):
        lines.append(f"and {len(problems) - len(lines)} more")
    return "; ".join(lines)


def _check_length(data: str | bytes, most: int) -> None:
    if len(data) > most:
        raise DecodeError(f"a message of {len(data)} bytes; at most {most} are allowed")
