"""Datagrams that lie about where they come from: raw IPv4, so root alone can send them."""

import contextlib
import socket
import struct

import pytest

Address = tuple[str, int]

_IP_HEADER = struct.Struct("!BBHHHBBH4s4s")
_UDP_HEADER = struct.Struct("!HHHH")
_VERSION_AND_LENGTH = 0x45
_TIME_TO_LIVE = 64


class Spoofer:
    """Sends as whoever it likes."""

    def __init__(self) -> None:
        try:
            self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        except PermissionError:
            pytest.skip("only root may send from addresses that are not its own")

    def send(self, source: Address, target: Address, datagram: bytes) -> None:
        """Send a datagram to a target in another's name; the kernel fills in the IP checksum, UDP does without."""
        size = _IP_HEADER.size + _UDP_HEADER.size + len(datagram)
        ends = socket.inet_aton(source[0]), socket.inet_aton(target[0])
        ip = _IP_HEADER.pack(_VERSION_AND_LENGTH, 0, size, 0, 0, _TIME_TO_LIVE, socket.IPPROTO_UDP, 0, *ends)
        udp = _UDP_HEADER.pack(source[1], target[1], _UDP_HEADER.size + len(datagram), 0)
        with contextlib.suppress(BlockingIOError):
            self._raw.sendto(ip + udp + datagram, target)

    def close(self) -> None:
        """Close the socket."""
        self._raw.close()
