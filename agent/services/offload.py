"""Segmentation offload: many datagrams in one system call, cut and joined by the kernel.

Theory of operation. With ``UDP_SEGMENT`` one call sends a train of datagrams of one size (the last may be shorter);
with ``UDP_GRO`` one call receives such a train, with the size in a control message. Both are options of Linux, and of
the path: a device whose driver cannot segment answers EIO or EINVAL, and that peer is then served datagram by datagram
for good. Where the kernel lacks the options, everything is. A train whose datagrams are larger than the interface
takes is answered with the same errors; it says nothing of the peer, so a datagram by itself decides which it was.

Source: udp(7); Linux ``include/uapi/linux/udp.h``.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from typing import Final

UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
MOST_SEGMENTS: Final = 64
"""Datagrams of one call: UDP_MAX_SEGMENTS of older kernels."""
MOST_TRAIN_BYTES: Final = 65_507
"""Bytes of one call: the largest UDP payload over IPv4."""
_SIZE: Final = struct.Struct("=H")
_GRO_SIZE: Final = struct.Struct("=i")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_GRO_SIZE.size)
_UNFIT: Final = (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP, errno.ENOPROTOOPT)
"""What a refused train is answered with: the path cannot segment, or its datagrams are too large."""

Target = tuple[str, int]


class Receiver:
    """Receives from one socket, joined trains where the kernel joins them.

    Args:
        raw: a non-blocking UDP socket.

    Attributes:
        joins: whether the kernel joins.
    """

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._buffer = bytearray(1 << 16)
        self._view = memoryview(self._buffer)
        try:
            raw.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
            self.joins = True
        except OSError:
            self.joins = False

    def receive(self) -> tuple[list[bytes], tuple[str, int]]:
        """Return the datagrams that one call brought, all from one sender.

        Raises:
            BlockingIOError: nothing waits.
            OSError: an ICMP error about an earlier datagram, or the socket failed.
        """
        size, ancillary, _, source = self._raw.recvmsg_into([self._buffer], _ANCILLARY_BYTES)
        segment = size
        for level, kind, data in ancillary:
            if level == socket.SOL_UDP and kind == UDP_GRO:
                segment = _GRO_SIZE.unpack_from(data)[0]
        view = self._view
        if size <= segment:
            return [bytes(view[:size])], source
        return [bytes(view[at : min(at + segment, size)]) for at in range(0, size, segment)], source


class Sender:
    """Sends trains from one socket, in one call each where the kernel and the path allow it.

    Args:
        raw: a non-blocking UDP socket.

    Attributes:
        plain: the addresses that are served datagram by datagram, because segmenting failed there.
        segments: whether the kernel knows the option.
    """

    MOST_PLAIN: Final = 1_024

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self.plain: dict[Target, None] = {}
        try:
            raw.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 0)
            self.segments = True
        except OSError:
            self.segments = False

    def send(self, datagrams: Sequence[bytes], target: Target) -> int:
        """Hand over the beginning of a train.

        Returns:
            How many datagrams were taken; at least one.

        Raises:
            BlockingIOError: the kernel takes none now.
            OSError: the first one was refused; EMSGSIZE is the answer to one that is larger than the interface takes.
        """
        count = run_length(datagrams) if self.segments and target not in self.plain else 1
        if count > 1:
            try:
                control = [(socket.SOL_UDP, UDP_SEGMENT, _SIZE.pack(len(datagrams[0])))]
                self._raw.sendmsg(datagrams[:count], control, 0, target)
            except OSError as error:
                if error.errno not in _UNFIT:
                    raise
                self._raw.sendto(datagrams[0], target)
                # It is not the size, then. Of a train that is as a whole too long nothing is learnt either.
                if error.errno != errno.EMSGSIZE:
                    self._serve_plainly(target)
                return 1
            return count
        self._raw.sendto(datagrams[0], target)
        return 1

    def _serve_plainly(self, target: Target) -> None:
        if len(self.plain) >= self.MOST_PLAIN:
            self.plain.clear()
        self.plain[target] = None


def run_length(datagrams: Sequence[bytes]) -> int:
    """Return how many datagrams from the first fit one call: of one size, the last one perhaps shorter."""
    size = len(datagrams[0])
    if not size:
        return 1
    most = min(len(datagrams), MOST_SEGMENTS, MOST_TRAIN_BYTES // size or 1)
    for count in range(1, most):
        length = len(datagrams[count])
        if length != size:
            return count + 1 if 0 < length < size else count
    return most
