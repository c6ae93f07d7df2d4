"""The agent's UDP sockets: batches in, trains out.

Theory of operation. Every socket is non-blocking and watched by the event loop. When one is readable it is drained,
about `BATCH_DATAGRAMS` a wake, and the whole batch goes to one callback; a busy one is looked at by intervals
(`moderation`). A train is sent in as few calls as kernel
and path allow (`offload`); what the kernel will not take now waits in the socket's bounded backlog until it is
writable. What overflows that backlog, and what the kernel refuses, is counted by reason and dropped: recovering from
loss is the transport's business. No datagram is ever cut by IP: one that is larger than the interface takes is refused
(EMSGSIZE), and what a path takes is found by the core's probes, not by the kernel's cache of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.core.events import Address
from agent.services.moderation import INTERVAL_S, LARGE_BYTES, RAPID_S, Look, Moderation
from agent.services.offload import Receiver, Sender
from agent.services.refusals import UNREACHABLE, listen_for_refusals, take_refusals
from common.errors import TransportError

log = logging.getLogger(__name__)

Datagram = tuple[bytes, Address]
OnBatch = Callable[[Sequence[Datagram], int], None]
OnUnreachable = Callable[[Address], None]

SHARED: Final = 0
"""The number of the socket that serves every channel which has none of its own."""

BATCH_DATAGRAMS: Final = 256
"""Datagrams taken in one wake: at 1,400 bytes each some 350 KiB, a few milliseconds of work."""
BACKLOG_DATAGRAMS: Final = 1_024
"""Datagrams that wait for one socket: more than a 10 ms train at 1 Gbit/s."""
BUFFER_BYTES: Final = 4 * 1024 * 1024
"""What is asked of the kernel for each direction; it may grant less."""
MAX_SOCKETS: Final = 4_096
"""Sockets of one agent: 64 channels with a socket for each of 64 peers."""
_ROUTES_KEPT: Final = 8_192
# Of linux/in.h and linux/in6.h; Python has no names for them.
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_PROBE: Final = 3

_MAPPED: Final = "::ffff:"


@dataclass(slots=True)
class _Socket:
    number: int
    raw: socket.socket
    receiver: Receiver
    sender: Sender
    moderation: Moderation
    backlog: deque[tuple[bytes, tuple[str, int]]] = field(default_factory=deque)
    woken_at: float = 0.0
    """When an arrival last woke the loop, seconds of its clock."""
    look: asyncio.TimerHandle | None = None
    """The next look at it while it is busy."""


class Endpoint:
    """All UDP sockets of one agent.

    Args:
        host: the address that every socket binds; ``::`` serves IPv4 as well.
        port: of the shared socket; 0 takes a free one.
        on_batch: takes what one wake of one socket brought, and the socket's number.
        on_room: called when a socket that could not keep up has room again.
        on_unreachable: told, a little later, of an address that the network or this host says cannot be reached.

    Raises:
        TransportError: the address cannot be bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        on_batch: OnBatch,
        on_room: Callable[[], None],
        on_unreachable: OnUnreachable = lambda address: None,
    ) -> None:
        self._host = host
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._on_batch = on_batch
        self._on_room = on_room
        self._on_unreachable = on_unreachable
        self._unreachable: dict[Address, None] = {}
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, _Socket] = {}
        self._next_number = SHARED
        self._routes: dict[Address, tuple[str, int] | None] = {}
        self._refused: dict[str, None] = {}
        self.drops: Counter[str] = Counter()
        self.open(port)

    @property
    def address(self) -> Address:
        """Where the shared socket is bound."""
        host, port = self._sockets[SHARED].raw.getsockname()[:2]
        return host, port

    @property
    def congested(self) -> bool:
        """Whether some socket has more to send than the kernel takes now."""
        return any(each.backlog for each in self._sockets.values())

    @property
    def offload(self) -> dict[str, object]:
        """What the kernel does for whole trains on the shared socket, and for which addresses it does not."""
        shared = self._sockets[SHARED]
        return {
            "receive": "joined" if shared.receiver.joins else "plain",
            "send": "segmented" if shared.sender.segments else "plain",
            "plain_addresses": [f"{host}:{port}" for host, port in shared.sender.plain],
        }

    def open(self, port: int = 0) -> tuple[int, int]:
        """Bind one more socket.

        Args:
            port: 0 takes a free one.

        Returns:
            The socket's number and its port.

        Raises:
            TransportError: there are too many, or the address cannot be bound.
        """
        if len(self._sockets) >= MAX_SOCKETS:
            raise TransportError(f"{MAX_SOCKETS} UDP sockets are open; no more are allowed")
        raw = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            raw.setblocking(False)
            self._prepare(raw)
            raw.bind((self._host, port))
        except OSError as error:
            raw.close()
            raise TransportError(f"cannot listen on UDP {self._host} port {port}: {error.strerror or error}") from error
        number = self._next_number
        self._next_number += 1
        granted = raw.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        opened = _Socket(number, raw, Receiver(raw), Sender(raw), Moderation(granted))
        self._sockets[number] = opened
        self._loop.add_reader(raw, self._on_readable, opened)
        return number, raw.getsockname()[1]

    def send(self, number: int, address: Address, datagrams: Iterable[bytes]) -> None:
        """Send a train, now or as soon as the kernel takes it.

        Args:
            number: of the socket; one that is gone counts as ``no-socket``.
            address: a numeric host and a port.
            datagrams: in order.
        """
        each = self._sockets.get(number)
        target = self._route(address)
        if each is None or target is None:
            self.drops["no-socket" if each is None else "unusable-address"] += 1
            return
        train = list(datagrams)
        sent = 0 if each.backlog else self._send_train(each, train, target)
        if sent < len(train):
            if not each.backlog:
                self._loop.add_writer(each.raw, self._on_writable, each)
            for datagram in train[sent:]:
                self._keep(each, datagram, target)

    def close(self) -> None:
        """Close every socket; what waits is dropped."""
        for each in self._sockets.values():
            self._loop.remove_reader(each.raw)
            self._loop.remove_writer(each.raw)
            if each.look is not None:
                each.look.cancel()
            each.raw.close()
        self._sockets.clear()

    def _prepare(self, raw: socket.socket) -> None:
        for option, name in ((socket.SO_RCVBUF, "net.core.rmem_max"), (socket.SO_SNDBUF, "net.core.wmem_max")):
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
            # The kernel answers with twice what it grants.
            granted = raw.getsockopt(socket.SOL_SOCKET, option) // 2
            if granted < BUFFER_BYTES and name not in self._refused:
                self._refused[name] = None
                log.warning(
                    "= the kernel grants %d KiB of socket buffer instead of %d; raise %s for fast links",
                    granted // 1024,
                    BUFFER_BYTES // 1024,
                    name,
                )
        if self._family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listen_for_refusals(raw)
        if sys.platform == "linux":
            # "Do not fragment", and no heed to what the kernel believes of the path; a kernel without it cuts.
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
                if self._family == socket.AF_INET6:
                    raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)

    def _on_readable(self, each: _Socket) -> None:
        now = self._loop.time()
        # After a pause one small datagram is most likely all there is; what is not wakes the loop again.
        calm, each.woken_at = now - each.woken_at >= RAPID_S, now
        sizes = self._receive(each, calm=calm)
        if not sizes or each.number not in self._sockets:
            return
        if each.moderation.on_wake(now, max(sizes)) is Look.LATER:
            self._loop.remove_reader(each.raw)
            each.look = self._loop.call_later(INTERVAL_S, self._on_look, each)

    def _on_look(self, each: _Socket) -> None:
        """Look at a busy socket, as its interval is over."""
        sizes: list[int] = []
        try:
            sizes = self._receive(each, calm=False)
        finally:
            # Whatever a batch did to whom it was handed to, the socket is looked at again.
            if each.number in self._sockets:
                self._plan_look(each, sizes)

    def _plan_look(self, each: _Socket, sizes: list[int]) -> None:
        """Say when a socket is looked at again that was just looked at and had datagrams of these sizes."""
        more = len(sizes) >= BATCH_DATAGRAMS
        following = each.moderation.on_look(sum(sizes), max(sizes, default=0), more=more)
        if following is Look.ON_ARRIVAL:
            each.look = None
            self._loop.add_reader(each.raw, self._on_readable, each)
        else:
            pause = INTERVAL_S if following is Look.LATER else 0.0
            each.look = self._loop.call_later(pause, self._on_look, each)

    def _receive(self, each: _Socket, *, calm: bool) -> list[int]:
        """Take what waits, up to a batch, and hand it over; return the bytes of each datagram.

        Args:
            each: the socket.
            calm: whether to leave it at the first datagram if that is a small one.
        """
        batch: list[Datagram] = []
        receive = each.receiver.receive
        for _ in range(BATCH_DATAGRAMS):
            try:
                datagrams, source = receive()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # An ICMP error about an earlier datagram is reported once, by the next call.
                self._count(error)
                self._take_refusals(each)
                continue
            address = _from_wire(source)
            batch.extend([(datagram, address) for datagram in datagrams])
            if len(batch) >= BATCH_DATAGRAMS or (calm and len(datagrams[-1]) < LARGE_BYTES):
                break
        if batch:
            self._on_batch(batch, each.number)
        else:
            # Errors wake the loop as datagrams do, and a call that sent may have used up the report of them.
            self._take_refusals(each)
        return [len(datagram) for datagram, _ in batch]

    def _on_writable(self, each: _Socket) -> None:
        while each.backlog:
            datagram, target = each.backlog[0]
            if not self._send_train(each, [datagram], target):
                return
            each.backlog.popleft()
        self._loop.remove_writer(each.raw)
        self._on_room()

    def _send_train(self, each: _Socket, train: list[bytes], target: tuple[str, int]) -> int:
        """Hand a train to the kernel; return how many datagrams need not wait."""
        sent, reported = 0, False
        while sent < len(train):
            try:
                sent += each.sender.send(train[sent:] if sent else train, target)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # Perhaps an earlier datagram's error, to anybody: then this one has not been tried yet.
                if not reported and self._take_refusals(each):
                    reported = True
                    continue
                self._count(error)
                if error.errno in UNREACHABLE:
                    self._note_unreachable(target)
                sent += 1
        return sent

    def _take_refusals(self, each: _Socket) -> bool:
        """Take what the network refused; tell whether there was anything."""
        refused = take_refusals(each.raw)
        for refusal in refused:
            if refusal.unreachable:
                self._note_unreachable(refusal.target)
        return bool(refused)

    def _note_unreachable(self, target: tuple[str, int]) -> None:
        """Tell of an address, each once, when the present call is done: it may have come from whoever is told."""
        if not self._unreachable:
            self._loop.call_soon(self._tell_unreachable)
        if len(self._unreachable) < _ROUTES_KEPT:
            self._unreachable[_from_wire(target)] = None

    def _tell_unreachable(self) -> None:
        addresses, self._unreachable = self._unreachable, {}
        for address in addresses:
            self._on_unreachable(address)

    def _keep(self, each: _Socket, datagram: bytes, target: tuple[str, int]) -> None:
        if len(each.backlog) >= BACKLOG_DATAGRAMS:
            self.drops["backlog-full"] += 1
        else:
            each.backlog.append((datagram, target))

    def _count(self, error: OSError) -> None:
        self.drops[errno.errorcode.get(error.errno or 0, "OSERROR").lower()] += 1

    def _route(self, address: Address) -> tuple[str, int] | None:
        """Return how this socket's family writes an address; None if it cannot reach it."""
        try:
            return self._routes[address]
        except KeyError:
            if len(self._routes) >= _ROUTES_KEPT:
                self._routes.clear()
            return self._routes.setdefault(address, _to_wire(address, self._family))


def default_host() -> str:
    """Return the address that takes datagrams on all interfaces: of both families where this host has IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("::", 0))
    except OSError:
        return "0.0.0.0"  # noqa: S104 - every interface may lead to a peer
    return "::"


def local_host_towards(host: str, port: int) -> str | None:
    """Return the local address from which this host would reach another; nothing is sent.

    Args:
        host: a name or an address.
        port: of the other side.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, target = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _to_wire(address: Address, family: int) -> tuple[str, int] | None:
    host, port = address
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    if not 0 < port <= 65_535:
        return None
    if family == socket.AF_INET6:
        return (_MAPPED + host if version == 4 else host), port
    return (host, port) if version == 4 else None


def _from_wire(source: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    host = source[0]
    if host.startswith(_MAPPED) and "." in host:
        host = host[len(_MAPPED) :]
    return host, source[1]
