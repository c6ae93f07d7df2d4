"""What an agent is started with, and how each flag is written.

Every parser raises `ConfigError` with one sentence that names the value and the form expected.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

from agent.core.events import Address
from agent.core.policy import DeclaredQos
from common.addresses import Network, is_within
from common.errors import ConfigError
from common.ids import DeviceId, GroupId, check_id
from common.limits import (
    DEFAULT_DATAGRAM_BYTES,
    MAX_CANDIDATES,
    MAX_DATAGRAM_BYTES,
    MAX_DELAY_S,
    MAX_DENIED,
    MAX_PEERS,
    MAX_RATE_BPS,
    MAX_STREAM_MEMORY_BYTES,
    MAX_STUN_SERVERS,
    MIN_CAP_BPS,
    MIN_DATAGRAM_BYTES,
    MIN_STREAM_MEMORY_BYTES,
    STREAM_MEMORY_BYTES,
)

Scope = Literal["graph", "neighbours"]

SOCKET_VARIABLE: Final = "ARBORCAST_SOCKET"
MAX_UNIX_PATH_BYTES: Final = 107
"""Bytes of a unix socket's path: sun_path of the kernel less its final zero."""

_FIGURE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")
_RATES: Final = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_TIMES: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_SIZES: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Everything that one agent is told at start.

    Attributes:
        server: the coordination server's address, ``http(s)://host:port`` without a path.
        group: the group to join.
        device: this device's name.
        state: folder of the agent's own records (mode 0700).
        receive: folder in which received files appear.
        control_socket: the unix socket of the local API (mode 0600).
        listen: the UDP address to bind; port 0 takes a free one. None takes one on all interfaces.
        join_token: lets a new device enrol; not needed once it has.
        advertise: further addresses under which peers may reach this device.
        only_advertised: tell the group no address but those, where the way to the server is none for data.
        peers: fixed addresses of peers.
        only_peers: the peers to link with; None takes all of the group.
        denied: networks whose addresses are neither told, nor tried, nor spoken with.
        stun: STUN servers to ask for this device's reflexive address; None asks the coordination server.
        declared: what the user says about links, per peer.
        max_rate_bps: what this device may send to all peers together; None for no cap.
        max_rates: the same, to one peer.
        scope: what to subscribe to, the whole graph or this device's neighbours.
        datagram_bytes: the largest UDP payload that is tried; what a path takes is found by probes.
        quota_bytes: what the receive folder may hold; None takes what the disk has.
        stream_memory_bytes: what one stream may take of this device's memory.
        ready_file: written once everything runs.
        ca_file: the authorities that the server's certificate is checked against; None takes the system's.
        fingerprint: SHA-256 of the one certificate that the server may show, 32 bytes; None where authorities decide.
        insecure_http: allow a server without TLS beyond this host.
    """

    server: str
    group: GroupId
    device: DeviceId
    state: Path
    receive: Path
    control_socket: Path
    listen: Address | None = None
    join_token: str | None = field(default=None, repr=False)
    advertise: tuple[Address, ...] = ()
    only_advertised: bool = False
    peers: dict[DeviceId, Address] = field(default_factory=dict)
    only_peers: frozenset[DeviceId] | None = None
    denied: tuple[Network, ...] = ()
    stun: tuple[Address, ...] | None = None
    declared: dict[DeviceId, DeclaredQos] = field(default_factory=dict)
    max_rate_bps: float | None = None
    max_rates: dict[DeviceId, float] = field(default_factory=dict)
    scope: Scope = "graph"
    datagram_bytes: int = DEFAULT_DATAGRAM_BYTES
    quota_bytes: int | None = None
    stream_memory_bytes: int = STREAM_MEMORY_BYTES
    ready_file: Path | None = None
    ca_file: Path | None = None
    fingerprint: bytes | None = None
    insecure_http: bool = False

    def __post_init__(self) -> None:
        """Check what is more than one flag's business.

        Raises:
            ConfigError: a value, or two together, cannot be used.
        """
        check_id(self.group, "group")
        check_id(self.device, "device")
        check_server(self.server, insecure_http=self.insecure_http)
        named = {**self.peers, **self.declared, **self.max_rates, **dict.fromkeys(self.only_peers or ())}
        if self.device in named:
            raise ConfigError(f"device {self.device!r} is named as its own peer")
        if len(named) > MAX_PEERS:
            raise ConfigError(f"{len(named)} peers are named; at most {MAX_PEERS} are allowed")
        self._check_discovery()
        if not MIN_DATAGRAM_BYTES <= self.datagram_bytes <= MAX_DATAGRAM_BYTES:
            raise ConfigError(
                f"datagrams of {self.datagram_bytes} bytes; {MIN_DATAGRAM_BYTES} to {MAX_DATAGRAM_BYTES} are allowed"
            )
        if not MIN_STREAM_MEMORY_BYTES <= self.stream_memory_bytes <= MAX_STREAM_MEMORY_BYTES:
            limits = f"{MIN_STREAM_MEMORY_BYTES} to {MAX_STREAM_MEMORY_BYTES} are allowed"
            raise ConfigError(f"{self.stream_memory_bytes} bytes of memory for a stream; {limits}")
        if len(os.fsencode(self.control_socket)) > MAX_UNIX_PATH_BYTES:
            raise ConfigError(
                f"the path {str(self.control_socket)!r} is too long for a unix socket;"
                f" at most {MAX_UNIX_PATH_BYTES} bytes are allowed"
            )

    def _check_discovery(self) -> None:
        for what, count, most in (
            ("addresses to advertise", len(self.advertise), MAX_CANDIDATES),
            ("networks to keep out of", len(self.denied), MAX_DENIED),
            ("STUN servers", len(self.stun or ()), MAX_STUN_SERVERS),
        ):
            if count > most:
                raise ConfigError(f"{count} {what}; at most {most} are allowed")
        for host, _ in (*self.advertise, *self.peers.values()):
            if is_within(host, self.denied):
                raise ConfigError(f"{host} is in a network of --deny, and is wanted by --advertise or --peer")

    @property
    def stun_servers(self) -> tuple[Address, ...]:
        """The STUN servers to ask: those named, else the server's two; none where only what is advertised is told."""
        if self.stun is not None:
            return self.stun
        if self.only_advertised:
            return ()
        parts = urlsplit(self.server)
        first = parts.port or (443 if parts.scheme == "https" else 80)
        return tuple((parts.hostname or "", port) for port in (first, first + 1) if port <= 65_535)


def default_state() -> Path:
    """Return the folder of an agent's records where none is named."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "arborcast"


def default_control_socket() -> Path:
    """Return the unix socket at which commands and agent meet where none is named."""
    named = os.environ.get(SOCKET_VARIABLE)
    return Path(named) if named else default_state() / "agent.sock"


def parse_rate(text: str) -> float:
    """Read a rate such as ``100M``.

    Returns:
        Bits per second.

    Raises:
        ConfigError: it is not a number with K, M or G, or passes MAX_RATE_BPS.
    """
    rate = _figure(text, _RATES)
    if rate is None or not 0 < rate <= MAX_RATE_BPS:
        raise ConfigError(
            f"rate {text!r} is not bits per second above 0 and up to {MAX_RATE_BPS / 1e9:g}G, such as 100M or 1.5G"
        )
    return rate


def parse_delay(text: str) -> float:
    """Read a delay such as ``5ms``.

    Returns:
        Seconds.

    Raises:
        ConfigError: it is not a number with us, ms or s, or passes MAX_DELAY_S.
    """
    delay = _figure(text, _TIMES)
    if delay is None or delay > MAX_DELAY_S:
        raise ConfigError(
            f"delay {text!r} is not a time up to {MAX_DELAY_S:g}s with its unit, such as 5ms, 250us or 1s"
        )
    return delay


def parse_size(text: str) -> int:
    """Read a size such as ``10G`` (multiples of 1024).

    Returns:
        Bytes.

    Raises:
        ConfigError: it is not a number with K, M, G or T.
    """
    size = _figure(text, _SIZES)
    if size is None or size < 1:
        raise ConfigError(f"size {text!r} is not a number of bytes such as 500M or 10G")
    return int(size)


def parse_link(text: str) -> tuple[DeviceId, DeclaredQos]:
    """Read what is declared about a link: ``PEER=RATE`` or ``PEER=RATE,DELAY``.

    Raises:
        ConfigError: it has another form, or a part of it cannot be used.
    """
    peer, equals, figures = text.partition("=")
    rate, comma, delay = figures.partition(",")
    if not equals or not rate or (comma and not delay):
        raise ConfigError(f"link {text!r} is not PEER=RATE[,DELAY], such as B=100M,5ms")
    check_id(peer, "peer")
    return peer, DeclaredQos(parse_rate(rate), parse_delay(delay) if delay else None)


def parse_max_rates(texts: Iterable[str]) -> tuple[float | None, dict[DeviceId, float]]:
    """Read caps: ``RATE`` for all that leaves this device, ``PEER=RATE`` for what goes to one peer.

    Returns:
        The first, None if it is not among them, and the others by peer; bits per second.

    Raises:
        ConfigError: one has another form, or two are for the same.
    """
    of_all: list[float] = []
    of_peers: list[tuple[DeviceId, float]] = []
    for text in texts:
        peer, equals, rate = text.rpartition("=")
        cap = parse_rate(rate)
        if cap < MIN_CAP_BPS:
            raise ConfigError(f"a cap of {rate} bits per second is too low; at least {MIN_CAP_BPS / 1e3:g}K is needed")
        if equals:
            of_peers.append((check_id(peer, "peer"), cap))
        else:
            of_all.append(cap)
    if len(of_all) > 1:
        raise ConfigError("a cap for the whole device is given twice")
    return of_all[0] if of_all else None, gather(of_peers, "a cap")


def parse_peer(text: str) -> tuple[DeviceId, Address]:
    """Read a peer's fixed address: ``PEER=HOST:PORT``.

    Raises:
        ConfigError: it has another form.
    """
    peer, equals, address = text.partition("=")
    if not equals:
        raise ConfigError(f"peer {text!r} is not PEER=HOST:PORT, such as B=192.0.2.7:7400")
    return check_id(peer, "peer"), parse_address(address)


def parse_network(text: str) -> Network:
    """Read a network such as ``10.8.0.0/16``, or one address.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(f"network {text!r} is not an address with a length, such as 10.8.0.0/16") from error


def parse_stun(texts: Iterable[str]) -> tuple[Address, ...] | None:
    """Read STUN servers: ``HOST:PORT``, or ``off`` alone.

    Returns:
        The servers, none for ``off``; None if nothing is said.

    Raises:
        ConfigError: one has another form, or ``off`` is not alone.
    """
    said = tuple(texts)
    if not said:
        return None
    if "off" in said:
        if len(said) > 1:
            raise ConfigError("--stun off and --stun HOST:PORT contradict each other")
        return ()
    return tuple(parse_address(text) for text in said)


def parse_only_peers(names: Iterable[str]) -> frozenset[DeviceId]:
    """Read the names of the peers to link with.

    Raises:
        ConfigError: one is no device's name.
    """
    return frozenset(check_id(name, "peer") for name in names)


def parse_address(text: str, *, any_port: bool = False) -> Address:
    """Read ``HOST:PORT``; an IPv6 host stands in brackets.

    Args:
        text: what the user wrote.
        any_port: whether port 0 (take a free one) makes sense here.

    Raises:
        ConfigError: it has another form.
    """
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        usable = _is_ip(host)
    else:
        usable = bool(host) and ":" not in host
    lowest = 0 if any_port else 1
    if not (usable and port.isascii() and port.isdigit() and lowest <= int(port) <= 65535):
        raise ConfigError(f"address {text!r} is not HOST:PORT, such as 192.0.2.7:7400 or [2001:db8::1]:7400")
    return host, int(port)


def check_server(url: str, *, insecure_http: bool) -> str:
    """Return the server's URL, or refuse it.

    Args:
        url: ``http(s)://host[:port]``.
        insecure_http: whether tokens may cross a network unencrypted.

    Raises:
        ConfigError: it is not such a URL, or is plain HTTP to another host.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or parts.query:
        raise ConfigError(f"server {url!r} is not a URL such as https://tree.example.org:8640")
    if parts.scheme == "http" and not insecure_http and not is_loopback(host):
        raise ConfigError(
            f"server {url!r} is plain HTTP on another host and tokens would cross the network"
            " readable; use https:// or --insecure-http"
        )
    return url


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this very host."""
    return host == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)


def gather(pairs: Iterable[tuple[DeviceId, _V]], what: str) -> dict[DeviceId, _V]:
    """Collect what several flags say, one value for each peer.

    Raises:
        ConfigError: one peer is named twice.
    """
    found: dict[DeviceId, _V] = {}
    for name, value in pairs:
        if name in found:
            raise ConfigError(f"{what} for peer {name!r} is given twice")
        found[name] = value
    return found


def _figure(text: str, units: dict[str, float] | dict[str, int]) -> float | None:
    match = _FIGURE.fullmatch(text.strip())
    if match is None or match[2].lower() not in units:
        return None
    figure = float(match[1]) * units[match[2].lower()]
    return figure if math.isfinite(figure) else None


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
