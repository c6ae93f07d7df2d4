"""The STUN responder: tells any client from which address its datagrams arrive here.

Theory of operation. It listens on two UDP ports. A client that is told the same address by both has a NAT whose mapping
does not depend on the destination, and peers can reach it there. A request is answered from the address and port that
it came to, in one datagram of at most about twice its size, and nothing is remembered; so a forged source gets little
more than the forger sends. What is no Binding request is counted by reason and not answered.

Source: RFC 8489; RFC 5780 section 4.3 for what two answers tell.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Final

from common.addresses import WILDCARDS
from common.errors import DecodeError, TransportError
from common.limits import MAX_STUN_BYTES
from common.stun import BindingRequest, decode_untrusted, encode_answer

log = logging.getLogger(__name__)

BATCH_DATAGRAMS: Final = 64
"""Datagrams taken in one wake: about a millisecond of work, so that a flood does not hold up the groups."""
_MAPPED: Final = "::ffff:"

# Of linux/in.h; Python has names for those of IPv6 alone.
_IP_PKTINFO: Final = 8
_PKTINFO: Final = struct.Struct("=I4s4s")
_PKTINFO6: Final = struct.Struct("=16sI")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_PKTINFO6.size)
_NO_SUCH_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

_Control = list[tuple[int, int, bytes]]


class StunResponder:
    """Answers on its sockets from `start` to `close`.

    Args:
        host: the numeric address of the server; a wildcard stands for all addresses of both families.
        port: the first UDP port; the other is the next one, and is done without where it is taken.

    Attributes:
        answered: requests answered, errors included.
        dropped: datagrams that were not answered, by reason.

    Raises:
        TransportError: the first port cannot be bound.
    """

    def __init__(self, host: str, port: int) -> None:
        self.answered = 0
        self.dropped: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        # A server that listens on every address of one family answers on those of both.
        hosts = WILDCARDS if host in WILDCARDS else (host,)
        self._sockets: list[socket.socket] = _bind(hosts, port)
        self.ports: tuple[int, ...] = (port,)
        try:
            self._sockets += _bind(hosts, port + 1)
            self.ports = (port, port + 1)
        except TransportError as error:
            log.warning("= %s; clients cannot tell by one port what their NAT does", error)

    def start(self) -> None:
        """Answer from now on, on the running loop."""
        self._loop = asyncio.get_running_loop()
        for each in self._sockets:
            self._loop.add_reader(each, self._on_readable, each)
        log.info("= STUN on UDP port %s", " and ".join(map(str, self.ports)))

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets:
            if self._loop is not None:
                self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()

    def _on_readable(self, each: socket.socket) -> None:
        for _ in range(BATCH_DATAGRAMS):
            try:
                data, control, _, source = each.recvmsg(MAX_STUN_BYTES + 1, _ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # An ICMP error about an earlier answer is reported once, by the next call.
                self.dropped[_name(error)] += 1
                continue
            self._receive(each, data, _answer_from(control), source)

    def _receive(
        self, each: socket.socket, data: bytes, control: _Control, source: tuple[str, int] | tuple[str, int, int, int]
    ) -> None:
        if len(data) > MAX_STUN_BYTES:
            self.dropped["oversized"] += 1
            return
        try:
            request = decode_untrusted(data)
        except DecodeError:
            self.dropped["malformed"] += 1
            return
        if not isinstance(request, BindingRequest):
            self.dropped["not-a-request"] += 1
            return
        answer = encode_answer(request, (source[0].removeprefix(_MAPPED), source[1]))
        try:
            each.sendmsg([answer], control, 0, source)
        except OSError as error:
            self.dropped[_name(error)] += 1
        else:
            self.answered += 1


def _bind(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Bind one port on each address; a family that this host has not is left out.

    Raises:
        TransportError: the port cannot be bound.
    """
    bound: list[socket.socket] = []
    try:
        for host in hosts:
            with contextlib.suppress(_NoSuchFamily):
                bound.append(_bind_one(host, port))
        if not bound:
            raise TransportError(f"cannot listen for STUN on {' and '.join(hosts)}: no such address here")
    except TransportError:
        for each in bound:
            each.close()
        raise
    return bound


class _NoSuchFamily(Exception):
    """This host has no address of that family."""


def _bind_one(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    raw: socket.socket | None = None
    try:
        raw = socket.socket(family, socket.SOCK_DGRAM)
        raw.setblocking(False)
        if family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if host in WILDCARDS and sys.platform == "linux":
            # An answer has to come from the address that was asked, whichever of this host's that is.
            if family == socket.AF_INET6:
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                raw.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        raw.bind((host, port))
    except (OSError, OverflowError) as error:
        if raw is not None:
            raw.close()
        if isinstance(error, OSError) and error.errno in _NO_SUCH_FAMILY:
            raise _NoSuchFamily from error
        reason = error.strerror or error if isinstance(error, OSError) else "there is no such port"
        raise TransportError(f"cannot listen for STUN on UDP {host} port {port}: {reason}") from error
    return raw


def _answer_from(control: _Control) -> _Control:
    """Return what makes an answer leave from the address that its request came to; the route is the kernel's choice."""
    for level, kind, data in control:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) == _PKTINFO.size:
            _, local, _ = _PKTINFO.unpack(data)
            return [(level, kind, _PKTINFO.pack(0, local, bytes(4)))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(data) == _PKTINFO6.size:
            local, _ = _PKTINFO6.unpack(data)
            return [(level, kind, _PKTINFO6.pack(local, 0))]
    return []


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "OSERROR").lower()
