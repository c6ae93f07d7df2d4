"""What a device is told about itself, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from agent.core.events import Address
from agent.core.policy import DeclaredQos
from common.addresses import Network
from common.errors import ConfigError
from common.ids import DeviceId, GroupId, check_id
from common.limits import MAX_DATAGRAM_BYTES, MIN_DATAGRAM_BYTES, MIN_STREAM_MEMORY_BYTES, STREAM_MEMORY_BYTES
from common.sealing import public_key_of
from common.signing import Signer

Scope = Literal["graph", "neighbours"]


@dataclass(frozen=True)
class NodeConfig:
    """What a device is told about itself.

    Attributes:
        device: its id.
        group: its group.
        private_key: X25519, 32 bytes, made on the device.
        scope: what to subscribe to (M5): the whole graph, or this device's own neighbours.
        declared: declared figures by peer.
        max_rate_bps: what all hops together may send, bits per second of chunk datagrams; None for no cap.
        max_rates: the same for the hop to one peer.
        only_peers: the peers it may speak with; None allows every member.
        peers: addresses given by the operator, by peer.
        candidates: own addresses ("host:port") for the roster, those of interfaces aside.
        only_advertised: tell the group no other.
        denied: networks of which no address is told, tried or accepted.
        datagram_bytes: the largest UDP payload it sends and takes.
        stream_memory_bytes: what one stream may take of its memory.
    """

    device: DeviceId
    group: GroupId
    private_key: bytes = field(repr=False)
    scope: Scope = "graph"
    declared: Mapping[DeviceId, DeclaredQos] = field(default_factory=dict)
    max_rate_bps: float | None = None
    max_rates: Mapping[DeviceId, float] = field(default_factory=dict)
    only_peers: frozenset[DeviceId] | None = None
    peers: Mapping[DeviceId, Address] = field(default_factory=dict)
    candidates: tuple[str, ...] = ()
    only_advertised: bool = False
    denied: tuple[Network, ...] = ()
    datagram_bytes: int = MIN_DATAGRAM_BYTES
    stream_memory_bytes: int = STREAM_MEMORY_BYTES

    def __post_init__(self) -> None:
        check_id(self.device, "device")
        check_id(self.group, "group")
        if not MIN_DATAGRAM_BYTES <= self.datagram_bytes <= MAX_DATAGRAM_BYTES:
            limits = f"{MIN_DATAGRAM_BYTES} to {MAX_DATAGRAM_BYTES}"
            raise ConfigError(f"datagram size {self.datagram_bytes} is not within {limits} bytes")
        if self.stream_memory_bytes < MIN_STREAM_MEMORY_BYTES:
            least = f"at least {MIN_STREAM_MEMORY_BYTES} are needed"
            raise ConfigError(f"{self.stream_memory_bytes} bytes of memory for a stream; {least}")

    @property
    def public_key(self) -> bytes:
        """The device's public key, 32 bytes."""
        return public_key_of(self.private_key)

    @property
    def signer(self) -> Signer:
        """What signs as this device."""
        return Signer(self.private_key, self.group)
