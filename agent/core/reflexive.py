"""This device's addresses as others see them, asked of STUN servers from the shared socket.

Theory of operation. Every server is asked by itself, again and again: that keeps the NAT's mapping alive and notices
when it changes. A question is repeated with doubling pauses (RFC 8489 section 6.2.1) under one transaction id that
nobody can guess; an answer counts only from the server that was asked. Two servers, or two ports of one, that saw the
same address show a mapping which does not depend on the destination, so that peers can use it too; two addresses show
one that does. An answer that differs from the same server's last one means that the NAT began anew: the other answers
are then stale, and are asked for again before anything is concluded from a difference.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from common.addresses import Address, numeric, why_unreachable
from common.errors import DecodeError
from common.fields import NatMapping
from common.limits import MAX_STUN_SERVERS
from common.stun import COOKIE, TRANSACTION_BYTES, BindingRequest, BindingSuccess, decode_untrusted, encode_request

EVERY_S: Final = 25.0
"""Seconds between two questions to one server: NATs forget a UDP mapping after 30 s at the earliest in the field."""
RTO_S: Final = 0.5
"""Seconds until a question is repeated first; the pause doubles."""
REPEATS: Final = 7
"""How often one question is sent (Rc of RFC 8489 section 6.2.1)."""
LAST_WAIT_S: Final = 16 * RTO_S
"""Seconds from the last one until the server counts as silent (Rm)."""
RECHECK_S: Final = 5.0
"""Seconds between two questions to one server at least, however often a NAT changes its mind."""
FORGET_S: Final = 300.0
"""Seconds for which an address is believed in though its server is silent: the NAT most likely still has it."""

_HARDEST_FIRST: Final[tuple[NatMapping, ...]] = ("varies", "stable", "unknown", "none")


@dataclass(slots=True)
class _Server:
    address: Address
    due: float
    transaction: bytes = b""
    """Of the question under way; empty if there is none."""
    sent: int = 0
    """How often that question was sent."""
    asked_at: float = float("-inf")
    answer: Address | None = None
    answered_at: float = float("-inf")
    stale: bool = False
    """Whether the answer was given before something changed."""


class Reflexive:
    """Asks STUN servers, and concludes from their answers.

    Args:
        drops: counts what was dropped, by reason.
        entropy: returns so many bytes that nobody can guess.
    """

    def __init__(self, drops: Counter[str], entropy: Callable[[int], bytes]) -> None:
        self.addresses: tuple[Address, ...] = ()
        """What the servers saw, IPv4 first."""
        self.mapping: NatMapping = "unknown"
        """What the NAT in front does; of two families that of the one with the harder NAT."""
        self.version = 0
        """Grows whenever one of these changes."""
        self._drops = drops
        self._entropy = entropy
        self._servers: list[_Server] = []
        self._own: frozenset[Address] = frozenset()
        self._judged: dict[int, NatMapping] = {}
        self._queue: deque[tuple[Address, bytes]] = deque()

    def set_servers(self, servers: Iterable[Address], now: float) -> None:
        """Take the servers to ask, numeric; what those that stay have answered is kept."""
        known = {server.address: server for server in self._servers}
        wanted = tuple(dict.fromkeys(servers))[:MAX_STUN_SERVERS]
        if wanted != tuple(known):
            self._servers = [known.get(address) or _Server(address, now) for address in wanted]
            self._conclude()

    def set_own(self, addresses: Iterable[Address], now: float) -> None:
        """Take the addresses at which this device listens; after a change every server is asked again."""
        own = frozenset(addresses)
        if own == self._own:
            return
        self._own = own
        for server in self._servers:
            self._ask_again(server, now)
        self._conclude()

    def receive(self, datagram: bytes, source: Address, now: float) -> None:
        """Take what looks like STUN and came in on the shared socket."""
        try:
            message = decode_untrusted(datagram)
        except DecodeError:
            self._drops["stun-not-understood"] += 1
            return
        if isinstance(message, BindingRequest):
            self._drops["stun-request"] += 1
            return
        server = self._asked(message.transaction)
        if server is None:
            self._drops["stun-not-asked"] += 1
        elif server.address != source:
            self._drops["stun-wrong-source"] += 1
        elif not isinstance(message, BindingSuccess):
            self._drops["stun-declined"] += 1
            self._rest(server, now)
        elif message.mapped[1] == 0 or why_unreachable(message.mapped[0]) is not None:
            self._drops["stun-unusable-address"] += 1
            self._rest(server, now)
        else:
            self._learn(server, (str(numeric(message.mapped[0])), message.mapped[1]), now)

    def handle_timeout(self, now: float) -> None:
        """Ask, ask again, or give up, whatever is due."""
        silent = False
        for server in self._servers:
            if now < server.due:
                continue
            if server.sent < REPEATS:
                self._ask(server, now)
            else:
                self._rest(server, now)
                if server.stale or now - server.answered_at >= FORGET_S:
                    server.answer, silent = None, True
        if silent:
            self._conclude()

    def poll(self) -> tuple[Address, bytes] | None:
        """Return a request to be sent from the shared socket, and where to, or None."""
        return self._queue.popleft() if self._queue else None

    def poll_timeout(self) -> float | None:
        """Return when ``handle_timeout`` is due."""
        return min((server.due for server in self._servers), default=None)

    def _asked(self, transaction: bytes) -> _Server | None:
        for server in self._servers:
            if server.transaction and transaction == COOKIE + server.transaction:
                return server
        return None

    def _ask(self, server: _Server, now: float) -> None:
        if not server.transaction:
            server.transaction = self._entropy(TRANSACTION_BYTES)
            server.asked_at = now
        self._queue.append((server.address, encode_request(server.transaction)))
        server.sent += 1
        server.due = now + (RTO_S * 2 ** (server.sent - 1) if server.sent < REPEATS else LAST_WAIT_S)

    def _ask_again(self, server: _Server, now: float) -> None:
        server.stale = True
        if not server.transaction:
            server.due = max(now, server.asked_at + RECHECK_S)

    def _rest(self, server: _Server, now: float) -> None:
        """End a question; the next one comes in its time."""
        server.transaction, server.sent = b"", 0
        server.due = now + EVERY_S

    def _learn(self, server: _Server, answer: Address, now: float) -> None:
        before, server.answer = server.answer, answer
        server.answered_at, server.stale = now, False
        self._rest(server, now)
        if before is not None and before != answer:
            for other in self._servers:
                if other is not server and other.answer is not None:
                    self._ask_again(other, now)
        self._conclude()

    def _conclude(self) -> None:
        families: dict[int, list[_Server]] = {4: [], 6: []}
        for server in self._servers:
            if server.answer is not None:
                families[6 if ":" in server.answer[0] else 4].append(server)
        self._judged = {family: self._judge(family, servers) for family, servers in families.items() if servers}
        mapping: NatMapping = next((each for each in _HARDEST_FIRST if each in self._judged.values()), "unknown")
        addresses = tuple(
            dict.fromkeys(server.answer for servers in families.values() for server in servers if server.answer)
        )
        if (addresses, mapping) != (self.addresses, self.mapping):
            self.addresses, self.mapping = addresses, mapping
            self.version += 1

    def _judge(self, family: int, servers: list[_Server]) -> NatMapping:
        """Conclude from the answers about one family; while one is stale nothing new is concluded from a difference."""
        answers = [server.answer for server in servers if not server.stale]
        if answers and self._own.issuperset(answers):
            return "none"
        if len(answers) >= 2:
            return "stable" if len(dict.fromkeys(answers)) == 1 else "varies"
        return self._judged.get(family, "unknown") if len(answers) < len(servers) else "unknown"
