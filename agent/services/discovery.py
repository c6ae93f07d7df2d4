"""Tells the core where this device is: the addresses of its interfaces as they come and go, and whom to ask for more.

Neither of the two is a reason to end: interfaces that cannot be read stay as they were, and a STUN server's name that
has no address is looked up again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from agent.services.endpoint import local_host_towards
from agent.services.interfaces import InterfaceAddress, reached_at, read_interfaces
from common.addresses import Address, numeric, write_address
from common.errors import TransportError

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
"""Seconds between two looks at the interfaces: one costs a quarter of a millisecond."""
RESOLVE_S: Final = 10.0
"""Seconds in which a name has to have an address."""
RESOLVE_EVERY_S: Final = 300.0
"""Seconds after which names are looked up again: servers move."""
RETRY_S: Final = 10.0
"""Seconds until that is tried again if a name had no address, or no way led to it."""

Resolve = Callable[[str, int], Awaitable[list[str]]]


class Core(Protocol):
    """Who is told."""

    def set_candidates(self, candidates: Iterable[Address]) -> None:
        """Take the addresses at which the shared socket is reached."""

    def set_stun_servers(self, servers: Iterable[Address]) -> None:
        """Take the numeric addresses of STUN servers."""


async def resolve(host: str, port: int) -> list[str]:
    """Return the numeric addresses of a host, in the system's order.

    Raises:
        OSError: it has none.
    """
    async with asyncio.timeout(RESOLVE_S):
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    return [str(each[4][0]) for each in found]


class Discovery:
    """Looks at the interfaces and at the names of STUN servers.

    Args:
        core: is told of changes.
        bound: where the shared socket is bound.
        stun: STUN servers, by name or number.
        loopback: whether somebody on this host matters.
        read: returns this host's addresses.
        resolve: returns the numeric addresses of a name.
    """

    def __init__(
        self,
        core: Core,
        bound: Address,
        stun: Iterable[Address],
        *,
        loopback: bool,
        read: Callable[[], tuple[InterfaceAddress, ...]] = read_interfaces,
        resolve: Resolve = resolve,
    ) -> None:
        self._core = core
        self._bound = bound
        self._stun = tuple(stun)
        self._loopback = loopback
        self._read = read
        self._resolve = resolve
        self._found: tuple[Address, ...] | None = None
        self._complaints: set[str] = set()
        self._moved = asyncio.Event()

    def look(self) -> None:
        """Tell the core of this host's addresses, if they changed."""
        try:
            found = reached_at(self._read(), self._bound, loopback=self._loopback)
        except TransportError as error:
            self._complain(str(error))
            return
        if found != self._found:
            log.info("= reached at %s", " ".join(map(write_address, found)) or "no address")
            self._found = found
            self._core.set_candidates(found)
            self._moved.set()

    async def watch_interfaces(self) -> None:
        """Look every few seconds, without end."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def watch_servers(self) -> None:
        """Keep the core told of the STUN servers' addresses, without end; there is an end only where there is none."""
        while self._stun:
            self._moved.clear()
            servers, complete = await self._servers()
            self._core.set_stun_servers(servers)
            # Other interfaces may reach other addresses.
            try:
                async with asyncio.timeout(RESOLVE_EVERY_S if complete else RETRY_S):
                    await self._moved.wait()
            except TimeoutError:
                continue

    async def _servers(self) -> tuple[list[Address], bool]:
        """Return the servers' addresses to which a way leads, and whether every server has one."""
        servers: list[Address] = []
        complete = True
        for host, port in self._stun:
            try:
                found = [host] if numeric(host) is not None else await self._resolve(host, port)
            except (OSError, UnicodeError) as error:
                # A name that took too long is a TimeoutError, which is an OSError.
                self._complain(f"STUN server {host!r} has no address: {str(error) or 'it took too long'}")
                found = []
            reachable = [(str(numeric(each)), port) for each in found if self._leads_to(each, port)]
            if found and not reachable:
                self._complain(f"no way leads to STUN server {write_address((host, port))}")
            complete = complete and bool(reachable)
            servers += reachable
        return servers, complete

    def _leads_to(self, host: str, port: int) -> bool:
        """Tell whether the shared socket's family and this host's routes reach an address."""
        if numeric(host) is None or (":" in host and ":" not in self._bound[0]):
            return False
        return local_host_towards(host, port) is not None

    def _complain(self, sentence: str) -> None:
        """Log a trouble once."""
        if sentence not in self._complaints:
            self._complaints.add(sentence)
            log.warning("= %s", sentence)
