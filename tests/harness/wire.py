"""The network between two agents in an attacker's hands: it sees, keeps, holds back, alters and makes up datagrams.

An agent knows its peer by nothing but the wire's own socket, so whatever the wire sends bears the peer's address.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from common.datagrams import PacketType
from common.ids import DeviceId

Address = tuple[str, int]
Rule = Callable[[DeviceId, bytes], Iterable[bytes]]

HOST = "127.0.0.1"
BUFFER_BYTES = 4 * 1024 * 1024
BATCH = 512
MOST_KEPT = 200_000


@dataclass(frozen=True, slots=True)
class Passed:
    """One datagram that an agent sent.

    Attributes:
        sender: which agent.
        datagram: its bytes.
        delivered: whether it went on as it is.
    """

    sender: DeviceId
    datagram: bytes
    delivered: bool

    @property
    def kind(self) -> int:
        """The type in its first byte."""
        return self.datagram[0] >> 4


class Wire:
    """Two sockets, one that stands for each of two agents.

    Args:
        one: a device.
        other: the other device.
    """

    def __init__(self, one: DeviceId, other: DeviceId) -> None:
        self.seen: list[Passed] = []
        """All that either agent sent, oldest first."""
        self.rule: Rule = pass_on
        """What goes on of each datagram, and in which form; asked with its sender."""
        self._other = {one: other, other: one}
        self._faces = {device: bound() for device in (one, other)}
        self._homes: dict[DeviceId, Address] = {}
        self._loop = asyncio.get_running_loop()
        for device, face in self._faces.items():
            self._loop.add_reader(face, self._on_readable, device, face)

    def flags(self, device: DeviceId) -> list[str]:
        """Return the flags by which an agent is reached through the wire alone."""
        host, port = self._faces[self._other[device]].getsockname()
        return ["--advertise", f"{host}:{port}", "--only-advertised"]

    def home(self, device: DeviceId) -> Address:
        """Return where an agent really is."""
        return self._homes[device]

    def inject(self, target: DeviceId, datagrams: Iterable[bytes]) -> None:
        """Send datagrams to an agent from its peer's address."""
        for datagram in datagrams:
            self._send(target, datagram)

    def of_kind(self, kind: PacketType, sender: DeviceId | None = None) -> list[bytes]:
        """Return what was delivered of one type."""
        wanted = [each for each in self.seen if each.delivered and each.kind == kind]
        return [each.datagram for each in wanted if sender in (None, each.sender)]

    def close(self) -> None:
        """Close both sockets."""
        for face in self._faces.values():
            self._loop.remove_reader(face)
            face.close()

    def _on_readable(self, device: DeviceId, face: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                datagram, self._homes[device] = face.recvfrom(1 << 16)
            except OSError:
                return
            onwards = list(self.rule(device, datagram))
            if len(self.seen) < MOST_KEPT:
                self.seen.append(Passed(device, datagram, datagram in onwards))
            for each in onwards:
                self._send(self._other[device], each)

    def _send(self, target: DeviceId, datagram: bytes) -> None:
        home = self._homes.get(target)
        if home is not None:
            # A full buffer, or an agent that is not there: the network loses datagrams.
            with contextlib.suppress(OSError):
                self._faces[target].sendto(datagram, home)


def pass_on(sender: DeviceId, datagram: bytes) -> list[bytes]:
    """Pass a datagram on as it is."""
    return [datagram]


def bound(host: str = HOST) -> socket.socket:
    """Return a socket of its own on the loopback interface."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    made.bind((host, 0))
    return made


def drained(raw: socket.socket) -> list[bytes]:
    """Return all that has come to a socket so far."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(raw.recv(1 << 16))
    return found
