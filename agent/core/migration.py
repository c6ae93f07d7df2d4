"""Sessions that move: which hop a datagram from an unknown address belongs to, and to which address a hop sends.

The decisions are those of ``paths``, one for each session; here are the hops that they concern and the datagrams that
carry the questions. All of it goes over the shared socket, for that is the one whose addresses peers are told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

from agent.core.congestion import Controller
from agent.core.events import Address
from agent.core.hop import Hop
from agent.core.link import Link, LinkState
from agent.core.paths import Paths
from common.errors import DecodeError
from common.frames import Frame
from common.ids import DeviceId
from common.path_frames import PathAnswer, PathChallenge

MOST_TRIED: Final = 8
"""Sessions whose key is tried on a datagram from an unknown address: its one byte of the session id names few."""
MOST_WAITING: Final = 1_024
"""Challenges and answers that wait to be sent; the next drain takes them all."""


class Migration:
    """Keeps every session on a path that works, and on a better one if there is.

    Args:
        links: all links, by peer.
        by_address: the hops by the address in use; brought up to date here.
        make_controller: makes the congestion control for a hop's new path.
        usable: whether this device may speak with an address.
        entropy: returns so many bytes that nobody can guess.
    """

    def __init__(
        self,
        links: Mapping[DeviceId, Link],
        by_address: dict[Address, Hop],
        make_controller: Callable[[Hop], Controller],
        usable: Callable[[Address], bool],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._links = links
        self._by_address = by_address
        self._make_controller = make_controller
        self._usable = usable
        self._entropy = entropy
        self._paths: dict[DeviceId, tuple[Hop, Paths]] = {}
        self._by_session_byte: dict[int, dict[DeviceId, Hop]] = {}
        self._waiting: deque[tuple[Address, bytes]] = deque(maxlen=MOST_WAITING)
        self.moves = 0
        """How often a session has moved."""

    def open(self, hop: Hop, now: float) -> None:
        """Begin with a new session."""
        self._paths[hop.peer] = hop, Paths(self._entropy, now)
        self._by_session_byte.setdefault(hop.session.local[0], {})[hop.peer] = hop

    def close(self, hop: Hop) -> None:
        """End with the session."""
        del self._paths[hop.peer]
        del self._by_session_byte[hop.session.local[0]][hop.peer]

    def open_strange(self, datagram: bytes, address: Address, now: float) -> tuple[Hop, list[Frame]] | None:
        """Take a control datagram from an address at which no peer is known to be.

        Returns:
            The hop that it belongs to, and what it carries; None if it belongs to none.
        """
        named = self._by_session_byte.get(datagram[1])
        # The session first: it rules out nearly all of a stranger's flood, and reading an address costs more.
        if not named or not self._usable(address):
            return None
        for hop in islice(named.values(), MOST_TRIED):
            newest = hop.newest_number
            try:
                found = hop.open_control(datagram, now)
            except DecodeError:
                continue
            asks = all(isinstance(frame, PathChallenge | PathAnswer) for frame in found)
            if hop.newest_number > newest and not asks:
                token = self._paths[hop.peer][1].on_spoken_from(address, now)
                if token is not None:
                    self._send(hop, address, PathChallenge(token), now)
            return hop, found
        return None

    def on_challenge(self, hop: Hop, frame: PathChallenge, address: Address, now: float) -> None:
        """Answer a question, to where it came from."""
        self._send(hop, address, PathAnswer(frame.token), now)

    def on_answer(self, hop: Hop, frame: PathAnswer, now: float) -> None:
        """Take an answer; the session may move."""
        in_use = hop.session.address
        address = self._paths[hop.peer][1].on_answer(frame.token, in_use, _round_trip(hop), now)
        if address is None or address in self._by_address:
            return
        if self._by_address.get(in_use) is hop:
            del self._by_address[in_use]
        self._by_address[address] = hop
        # Behind another port of the same host it is the same path under another name.
        same = address[0] == in_use[0]
        hop.move(address, None if same else self._make_controller(hop), now)
        self.moves += 1

    def handle_timeout(self, now: float) -> None:
        """Ask the candidates that are not in use, where it is time to."""
        for hop, paths in self._paths.values():
            link = self._links[hop.peer]
            if link.state is not LinkState.OPEN:
                continue
            for address, token in paths.poll_search(hop.session.address, link.addresses, now):
                self._send(hop, address, PathChallenge(token), now)

    def poll_timeout(self) -> float | None:
        """Return when ``handle_timeout`` has something to do."""
        due = [
            paths.poll_timeout() for hop, paths in self._paths.values() if self._links[hop.peer].state is LinkState.OPEN
        ]
        return min(due, default=None)

    def poll(self) -> tuple[Address, bytes] | None:
        """Return a datagram to be sent from the shared socket."""
        return self._waiting.popleft() if self._waiting else None

    def _send(self, hop: Hop, address: Address, frame: Frame, now: float) -> None:
        self._waiting.append((address, hop.seal_apart(frame, now)))


def _round_trip(hop: Hop) -> float | None:
    """Return the round trip of the path in use without the queue that a flow of ours makes, seconds."""
    rtt = hop.recovery.rtt
    known = [rtt.minimum] if rtt.samples else []
    if hop.qos.rtt_s is not None:
        known.append(hop.qos.rtt_s)
    return min(known, default=None)
