"""The paths between two devices that have a session: which address of the peer it uses, and whether another is better.

Theory of operation. A session begins at the address whose hello came back first. It moves for two reasons:

- The peer speaks from another address: a NAT between has rebound, or the peer has moved. Its newest authentic datagram
  that is more than a question about a path makes us ask that address a question (a challenge) that only the peer can
  answer. With the answer the session moves there.
- Another candidate is nearer. From time to time the candidates not in use are asked; one whose answers beat the round
  trip of the path in use by a margin, twice in a row, takes its place.

Until an address has answered nothing goes there but challenges, which are no longer than what came from it.

Source:
    RFC 9000 sections 8.2 and 9 (path validation, connection migration); RFC 8445 (candidates).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from agent.core.events import Address
from common.path_frames import TOKEN_BYTES

MOST_OPEN: Final = 32
"""Challenges that wait for their answer at a time: all candidates of a peer, and as many addresses it spoke from."""
CHALLENGE_S: Final = 3.0
"""Seconds for which an answer counts."""
ROAM_EVERY_S: Final = 0.2
"""Seconds between two challenges to addresses that the peer spoke from."""
SEARCH_FIRST_S: Final = 2.0
"""Seconds from the beginning of a session to the first look at the other candidates; the pause doubles."""
SEARCH_MOST_S: Final = 300.0
"""Seconds between two looks at most."""
CONFIRM_S: Final = 0.5
"""Seconds after which a better path is asked once more."""
BETTER_SHARE: Final = 0.8
"""Share of the round trip in use below which another path is better …"""
BETTER_S: Final = 0.001
"""… if it is better by so many seconds, too."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A challenge that was sent.

    Attributes:
        address: where it went.
        sent_at: when, monotonic seconds.
        roaming: whether the peer spoke from there.
    """

    address: Address
    sent_at: float
    roaming: bool


class Paths:
    """The addresses of one peer in one session.

    Args:
        entropy: returns so many bytes that nobody can guess.
        now: monotonic seconds.
    """

    def __init__(self, entropy: Callable[[int], bytes], now: float) -> None:
        self._entropy = entropy
        self._open: dict[bytes, _Question] = {}
        self._roamed_at = now - ROAM_EVERY_S
        self._search_at = now + SEARCH_FIRST_S
        self._pause = SEARCH_FIRST_S
        self._won: Address | None = None
        """Whoever was better at the last look."""

    def on_spoken_from(self, address: Address, now: float) -> bytes | None:
        """Take note that the peer's newest datagram came from an address that is not in use.

        Returns:
            The challenge to send there, if it is time for one.
        """
        if now - self._roamed_at < ROAM_EVERY_S:
            return None
        self._roamed_at = now
        return self._ask(address, now, roaming=True)

    def poll_search(self, in_use: Address, candidates: Iterable[Address], now: float) -> list[tuple[Address, bytes]]:
        """Return the challenges that are due to candidates which are not in use."""
        if now < self._search_at:
            return []
        others = [address for address in candidates if address != in_use]
        self._pause = min(2 * self._pause, SEARCH_MOST_S)
        self._search_at = now + self._pause
        asked = [(address, self._ask(address, now, roaming=False)) for address in others]
        return [(address, token) for address, token in asked if token is not None]

    def on_answer(self, token: bytes, in_use: Address, rtt_s: float | None, now: float) -> Address | None:
        """Take an answer to a challenge.

        Args:
            token: what was answered.
            in_use: the address in use.
            rtt_s: the round trip there, seconds; None where it is not known.
            now: monotonic seconds.

        Returns:
            The address to move to, if there is reason to.
        """
        question = self._open.pop(token, None)
        if question is None or now - question.sent_at > CHALLENGE_S or question.address == in_use:
            return None
        if question.roaming:
            return question.address
        took = now - question.sent_at
        if rtt_s is None or took > min(BETTER_SHARE * rtt_s, rtt_s - BETTER_S):
            if self._won == question.address:
                self._won = None
            return None
        if self._won == question.address:
            self._won = None
            return question.address
        self._won = question.address
        self._search_at = min(self._search_at, now + CONFIRM_S)
        return None

    def poll_timeout(self) -> float:
        """Return when ``poll_search`` has something to do."""
        return self._search_at

    def _ask(self, address: Address, now: float, *, roaming: bool) -> bytes | None:
        self._open = {token: asked for token, asked in self._open.items() if now - asked.sent_at <= CHALLENGE_S}
        if len(self._open) >= MOST_OPEN:
            return None
        token = self._entropy(TOKEN_BYTES)
        self._open[token] = _Question(address, now, roaming)
        return token
