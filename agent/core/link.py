"""A link to one peer: its handshake, its state, and whether it still lives.

Theory of operation. While there is no session, hellos go to every address at which the peer may be, with growing
pauses. A hello names a fresh random session id of its sender; a session stands once the peer has echoed ours, so
nothing that was recorded earlier can open one. Both sides may begin at once. An established session that the peer
asks to replace (it restarted) stays until the new one has been echoed too.

An open link is probed. Each probe says when the next one comes; a link that stays silent for several of those
intervals is suspect, and closed if it stays so. Nothing here does I/O: the peers' table feeds hellos in, and takes
hellos, sessions and state changes out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.core.events import Address
from common.datagrams import Hello
from common.errors import LocalProtocolError
from common.ids import DeviceId
from common.limits import USUAL_DATAGRAM_BYTES
from common.sealing import SESSION_ID_BYTES, Sealer, hello_key, session_key

HELLO_FIRST_S: Final = 0.25
"""Pause after the first hello; it doubles up to HELLO_MOST_S."""
HELLO_MOST_S: Final = 5.0
PROBE_IN_TREE_S: Final = 0.25
PROBE_IDLE_S: Final = 1.0
SILENT_PROBES: Final = 4
"""Probe intervals without a sign of life that make a link suspect."""
SILENT_LEAST_S: Final = 1.0
SUSPECT_FOR_S: Final = 4.0
"""How long a suspect link may stay silent before it closes and its session is dropped."""
_NO_SESSION: Final = bytes(SESSION_ID_BYTES)


class LinkState(Enum):
    """What a link is good for."""

    PROBING = "probing"
    OPEN = "open"
    SUSPECT = "suspect"
    CLOSED = "closed"


class LinkInput(Enum):
    """What happens to a link."""

    ESTABLISHED = "established"
    HEARD = "heard"
    SILENT = "silent"
    EXPIRED = "expired"
    LEFT = "left"
    RETRY = "retry"


TRANSITIONS: Final[dict[tuple[LinkState, LinkInput], LinkState]] = {
    (LinkState.PROBING, LinkInput.ESTABLISHED): LinkState.OPEN,
    (LinkState.OPEN, LinkInput.ESTABLISHED): LinkState.OPEN,
    (LinkState.OPEN, LinkInput.SILENT): LinkState.SUSPECT,
    (LinkState.OPEN, LinkInput.LEFT): LinkState.CLOSED,
    (LinkState.SUSPECT, LinkInput.ESTABLISHED): LinkState.OPEN,
    (LinkState.SUSPECT, LinkInput.HEARD): LinkState.OPEN,
    (LinkState.SUSPECT, LinkInput.EXPIRED): LinkState.CLOSED,
    (LinkState.SUSPECT, LinkInput.LEFT): LinkState.CLOSED,
    (LinkState.CLOSED, LinkInput.RETRY): LinkState.PROBING,
}
"""A pair that is missing here is our own mistake."""


@dataclass(frozen=True, slots=True)
class Session:
    """One handshake's result.

    Attributes:
        local: our session id; its first byte is the one the peer writes into hop headers for us.
        remote: the peer's session id.
        address: where the peer was when it echoed ours.
        datagram_bytes: the largest datagram both sides take.
        send_key: seals our control datagrams.
        receive_key: opens the peer's.
    """

    local: bytes
    remote: bytes
    address: Address
    datagram_bytes: int
    send_key: bytes
    receive_key: bytes

    @property
    def packet_bytes(self) -> int:
        """The size by which pacing and congestion control count, bytes; larger datagrams are bursts to them."""
        return min(self.datagram_bytes, USUAL_DATAGRAM_BYTES)


class Link:
    """The link to one peer.

    Args:
        peer: its device id.
        group: both devices' group.
        secret: the pair's static secret.
        datagram_bytes: the largest datagram this device takes.
        rng: for the jitter of pauses.
        entropy: returns so many bytes that nobody can guess.
        now: monotonic seconds.
    """

    def __init__(
        self,
        peer: DeviceId,
        group: str,
        secret: bytes,
        *,
        datagram_bytes: int,
        rng: random.Random,
        entropy: Callable[[int], bytes],
        now: float,
    ) -> None:
        self.peer = peer
        self.state = LinkState.PROBING
        self.session: Session | None = None
        self.sealer = Sealer(hello_key(secret, group))
        self.addresses: tuple[Address, ...] = ()
        self.tried_since = now
        """When the search for the peer began: with its addresses, or with the end of the session before."""
        self.in_tree = False
        self.mtu_bytes: int | None = None
        """What the path takes, as last measured while the link was open; None before."""
        self._group = group
        self._secret = secret
        self._datagram_bytes = datagram_bytes
        self._rng = rng
        self._entropy = entropy
        self._offered = entropy(SESSION_ID_BYTES)
        self._pause = HELLO_FIRST_S
        self._next_hello = now
        self._next_probe: float | None = None
        self._heard_at = now
        self._promised = PROBE_IDLE_S

    @property
    def usable(self) -> bool:
        """Whether the graph may count on it: there is a session, the peer lives, and what the path takes is known."""
        return self.state is LinkState.OPEN and self.mtu_bytes is not None

    def set_addresses(self, addresses: tuple[Address, ...], now: float) -> None:
        """Take the addresses at which the peer may be; new ones are tried at once."""
        if addresses != self.addresses:
            self.addresses = addresses
            self.tried_since = now
            self._pause = HELLO_FIRST_S
            self._next_hello = now

    def handle_hello(self, hello: Hello, address: Address, now: float) -> tuple[Hello | None, bool]:
        """Take an authentic hello.

        Returns:
            The hello to answer with (to ``address``), or None; and whether a new session stands.
        """
        current = self.session
        if current is not None and hello.session == current.remote:
            return (None if hello.confirmed else self._hello(current.local, current.remote, confirmed=True)), False
        if hello.echo != self._offered:
            if current is not None and hello.echo not in (_NO_SESSION, current.local):
                # It echoes a session of the past: late or replayed. An answer would begin a new handshake.
                return None, False
            return self._hello(self._offered, hello.session, confirmed=False), False
        self.session = session = Session(
            local=self._offered,
            remote=hello.session,
            address=address,
            datagram_bytes=min(self._datagram_bytes, hello.datagram_bytes),
            send_key=session_key(self._secret, self._group, self._offered, hello.session),
            receive_key=session_key(self._secret, self._group, hello.session, self._offered),
        )
        self._offered = self._entropy(SESSION_ID_BYTES)
        self._heard_at = now
        self._next_probe = now
        self._promised = PROBE_IDLE_S
        self._transition(LinkInput.ESTABLISHED)
        answer = self._hello(session.local, session.remote, confirmed=True)
        return (None if hello.confirmed else answer), True

    def on_heard(self, now: float) -> bool:
        """Note an authentic sign of life; return whether the link was suspect until now."""
        self._heard_at = now
        if self.state is LinkState.SUSPECT:
            self._transition(LinkInput.HEARD)
            self._next_probe = now
            return True
        return False

    def on_promise(self, seconds: float) -> None:
        """Note within which time the peer's next probe comes."""
        self._promised = min(max(seconds, PROBE_IN_TREE_S), PROBE_IDLE_S)

    def set_in_tree(self, in_tree: bool, now: float) -> None:
        """Note whether the link is a tree edge; such a link is probed more often."""
        if in_tree and not self.in_tree and self._next_probe is not None:
            self._next_probe = now
        self.in_tree = in_tree

    def leave(self, now: float) -> None:
        """Close the link: the peer said that it goes."""
        if self.session is not None:
            self._transition(LinkInput.LEFT)
            self._drop_session(now)

    def poll_hello(self, now: float) -> Hello | None:
        """Return the hello that is due, to be sent to every address of the peer."""
        if self.session is not None or now < self._next_hello:
            return None
        self._next_hello = now + self._pause * self._rng.uniform(0.8, 1.2)
        self._pause = min(2 * self._pause, HELLO_MOST_S)
        return self._hello(self._offered, _NO_SESSION, confirmed=False)

    def poll_probe(self, now: float) -> float | None:
        """Return the promise to write into the probe that is due, seconds; None if none is due."""
        if self._next_probe is None or now < self._next_probe:
            return None
        pause = PROBE_IN_TREE_S if self.in_tree or self.state is LinkState.SUSPECT else PROBE_IDLE_S
        self._next_probe = now + pause
        return pause

    def handle_timeout(self, now: float) -> bool:
        """Let a silent link become suspect, then closed; return whether the state changed."""
        if self.state is LinkState.OPEN and now >= self._silent_at():
            self._transition(LinkInput.SILENT)
            return True
        if self.state is LinkState.SUSPECT and now >= self._silent_at() + SUSPECT_FOR_S:
            self._transition(LinkInput.EXPIRED)
            self._drop_session(now)
            return True
        return False

    def poll_timeout(self) -> float | None:
        """Return when this link wants to be looked at next."""
        if self.session is None:
            return self._next_hello if self.addresses else None
        silent = self._silent_at() + (SUSPECT_FOR_S if self.state is LinkState.SUSPECT else 0.0)
        return silent if self._next_probe is None else min(silent, self._next_probe)

    def _silent_at(self) -> float:
        return self._heard_at + max(SILENT_LEAST_S, SILENT_PROBES * self._promised)

    def _drop_session(self, now: float) -> None:
        self.session = None
        self.tried_since = now
        self.mtu_bytes = None
        self._next_probe = None
        self._pause = HELLO_FIRST_S
        self._next_hello = now
        self._transition(LinkInput.RETRY)

    def _hello(self, session: bytes, echo: bytes, *, confirmed: bool) -> Hello:
        return Hello(session, echo, self._datagram_bytes, confirmed)

    def _transition(self, cause: LinkInput) -> None:
        after = TRANSITIONS.get((self.state, cause))
        if after is None:
            raise LocalProtocolError(f"link {self.peer}: {cause.value} while {self.state.value}")
        self.state = after
