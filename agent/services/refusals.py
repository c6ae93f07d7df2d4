"""What the network refuses: ICMP errors about datagrams that were sent, by the address they were sent to.

Theory of operation. Linux keeps such errors in a queue of the socket, where it is asked to, together with the address
of the datagram that caused each. They also make the next call on the socket fail, whatever that call was about; so the
call is made again, and the queue says whom it concerns. Errors that this host makes up itself, for it has no route,
are the answer to the call that sends. Not every error says that nobody is there: a datagram that was too large for the
path, as a probe for its MTU may be, is told of in the same way.

Source: ip(7), IP_RECVERR.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from typing import Final, NamedTuple

# Of linux/in.h, linux/in6.h and linux/socket.h; Python has names for none but the last.
_IP_RECVERR: Final = 11
_IPV6_RECVERR: Final = 25
_ANCILLARY_BYTES: Final = 512
"""Room for the description of one error and the address of who told it."""
MOST_AT_ONCE: Final = 64
"""Errors taken in one go: the kernel's queue is bounded by the socket's buffer, a wake of the loop by this."""
UNREACHABLE: Final = frozenset(
    (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL)
)
"""What says that nobody is to be reached at an address now."""
_RECVERR: Final = ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR))
_ERROR: Final = struct.Struct("=I")
"""The beginning of a `struct sock_extended_err`: the error's number."""


class Refusal(NamedTuple):
    """One error about a datagram.

    Attributes:
        target: where that was sent to, as the socket writes it.
        error: its errno; 0 where the kernel did not say.
    """

    target: tuple[str, int]
    error: int

    @property
    def unreachable(self) -> bool:
        """Whether it says that nobody is to be reached there."""
        return self.error in UNREACHABLE


def listen_for_refusals(raw: socket.socket) -> None:
    """Ask the kernel to keep the errors of a socket by address; where it cannot, there are none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        if raw.family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def take_refusals(raw: socket.socket) -> list[Refusal]:
    """Return the errors about datagrams of a socket since the last look."""
    found: list[Refusal] = []
    flag = getattr(socket, "MSG_ERRQUEUE", 0)
    while flag and len(found) < MOST_AT_ONCE:
        try:
            _, described, _, target = raw.recvmsg(0, _ANCILLARY_BYTES, flag)
        except OSError:
            break
        if target:
            numbers = [_ERROR.unpack_from(data)[0] for level, kind, data in described if (level, kind) in _RECVERR]
            found.append(Refusal((str(target[0]), int(target[1])), next(iter(numbers), 0)))
    return found
