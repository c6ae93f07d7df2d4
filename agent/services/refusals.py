"""What the network refuses: ICMP errors about datagrams that were sent, by the address they were sent to.

Theory of operation. Linux keeps such errors in a queue of the socket, where it is asked to, together with the address
of the datagram that caused each. They also make the next call on the socket fail, whatever that call was about; so the
call is made again, and the queue says whom it concerns. Errors that this host makes up itself, for it has no route,
are the answer to the call that sends.

Source: ip(7), IP_RECVERR.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from typing import Final

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


def listen_for_refusals(raw: socket.socket) -> None:
    """Ask the kernel to keep the errors of a socket by address; where it cannot, there are none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        if raw.family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)


def take_refusals(raw: socket.socket) -> list[tuple[str, int]]:
    """Return the addresses, as the socket writes them, of datagrams that were refused since the last look."""
    found: list[tuple[str, int]] = []
    flag = getattr(socket, "MSG_ERRQUEUE", 0)
    while flag and len(found) < MOST_AT_ONCE:
        try:
            _, _, _, target = raw.recvmsg(0, _ANCILLARY_BYTES, flag)
        except OSError:
            break
        if target:
            found.append((str(target[0]), int(target[1])))
    return found
