"""A link to one peer: its handshake, its state, and whether it still lives.

Theory of operation. While there is no session, hellos go to every address at which the peer may be, with growing
pauses. A hello names a fresh random session id of its sender, another one for each address; a session stands once the
peer has echoed ours from the address that was told it. So nothing that was recorded earlier can open one, and none
stands at an address whose host has not read what was sent there. Both sides may begin at once. An established session
that the peer asks to replace (it restarted) stays until the new one has been echoed too.

An open link is probed (`Rhythm`). A link that stays silent for too long is suspect, and closed if it stays so. A
suspect link is probed on, and hellos go to all addresses of the peer as well: it may have moved, or a NAT between may
have forgotten it. Nothing here does I/O: the peers' table feeds hellos in, and takes hellos, sessions and state changes
out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Final

from agent.core.events import Address
from agent.core.rhythm import Rhythm
from common.datagrams import Hello
from common.errors import LocalProtocolError
from common.ids import DeviceId
from common.limits import USUAL_DATAGRAM_BYTES
from common.sealing import SESSION_ID_BYTES, Sealer, hello_key, session_key

HELLO_FIRST_S: Final = 0.25
"""Pause after the first hello; it doubles up to HELLO_MOST_S."""
HELLO_MOST_S: Final = 5.0
HELLO_SUSPECT_S: Final = 0.5
"""Seconds after which a suspect link says hello: most come back by a probe, and keep their session."""
SUSPECT_FOR_S: Final = 4.0
"""How long a suspect link may stay silent before it closes and its session is dropped, seconds."""
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
        self.rhythm = Rhythm(now)
        self.tried_since = now
        """When the search for the peer began: with its addresses, or with the end of the session before."""
        self.mtu_bytes: int | None = None
        """What the path takes, as last measured while the link was open; None before."""
        self.other_wire: int | None = None
        """The wire version of a hello that came in the peer's name and is not this one's; a claim, for the operator."""
        self._group = group
        self._secret = secret
        self._datagram_bytes = datagram_bytes
        self._rng = rng
        self._entropy = entropy
        self._offered = entropy(SESSION_ID_BYTES)
        """Of which every address gets a session id of its own."""
        self._pause = HELLO_FIRST_S
        self._next_hello = now
        self._renewed_at = now - HELLO_MOST_S
        """When new addresses were last tried at once."""
        self._suspect_at = now

    @property
    def usable(self) -> bool:
        """Whether the graph may count on it: there is a session, the peer lives, and what the path takes is known."""
        return self.state is LinkState.OPEN and self.mtu_bytes is not None

    def set_addresses(self, addresses: tuple[Address, ...], now: float) -> None:
        """Take the addresses at which the peer may be; new ones are tried at once, every few seconds at most.

        Whoever tells others all the time does not choose how much goes to them.
        """
        if addresses != self.addresses:
            self.addresses = addresses
            self.tried_since = now
            if now - self._renewed_at >= HELLO_MOST_S:
                self._renewed_at = now
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
        offer = self._offer(address)
        if hello.echo != offer:
            if current is not None and hello.echo != current.local and not self._offered_somewhere(hello.echo):
                # It echoes a session of the past: late or replayed. An answer would begin a new handshake.
                return None, False
            return self._hello(offer, hello.session, confirmed=False), False
        self.session = session = Session(
            local=offer,
            remote=hello.session,
            address=address,
            datagram_bytes=min(self._datagram_bytes, hello.datagram_bytes),
            send_key=session_key(self._secret, self._group, offer, hello.session),
            receive_key=session_key(self._secret, self._group, hello.session, offer),
        )
        self._offered = self._entropy(SESSION_ID_BYTES)
        self.other_wire = None
        self.rhythm.start(now)
        self.rhythm.set_hasty(False, now)
        self._transition(LinkInput.ESTABLISHED)
        answer = self._hello(session.local, session.remote, confirmed=True)
        return (None if hello.confirmed else answer), True

    def on_heard(self, now: float) -> bool:
        """Note an authentic sign of life; return whether the link was suspect until now."""
        self.rhythm.on_heard(now)
        if self.state is LinkState.SUSPECT:
            self._transition(LinkInput.HEARD)
            self.rhythm.set_hasty(False, now)
            return True
        return False

    def leave(self, now: float) -> None:
        """Close the link: the peer said that it goes."""
        if self.session is not None:
            self._transition(LinkInput.LEFT)
            self._drop_session(now)

    def poll_hellos(self, now: float) -> list[tuple[Address, Hello]]:
        """Return the hellos that are due, one for every address of the peer."""
        if self.state not in (LinkState.PROBING, LinkState.SUSPECT) or now < self._next_hello:
            return []
        self._next_hello = now + self._pause * self._rng.uniform(0.8, 1.2)
        self._pause = min(2 * self._pause, HELLO_MOST_S)
        offers = [(address, self._offer(address)) for address in self.addresses]
        return [(address, self._hello(offer, _NO_SESSION, confirmed=False)) for address, offer in offers]

    def handle_timeout(self, now: float) -> bool:
        """Let a silent link become suspect, then closed; return whether the state changed."""
        if self.state is LinkState.OPEN and now >= self.rhythm.silent_at() and self.rhythm.may_judge(now):
            self._transition(LinkInput.SILENT)
            self._suspect_at = now
            self._pause = HELLO_FIRST_S
            self._next_hello = now + HELLO_SUSPECT_S
            self.rhythm.set_hasty(True, now)
            return True
        if self.state is LinkState.SUSPECT and now >= self._suspect_at + SUSPECT_FOR_S:
            self._transition(LinkInput.EXPIRED)
            self._drop_session(now)
            return True
        return False

    def poll_timeout(self) -> float | None:
        """Return when this link wants to be looked at next."""
        hello = self._next_hello if self.addresses else None
        if self.state is LinkState.PROBING:
            return hello
        times = [self.rhythm.poll_timeout()]
        if self.state is LinkState.SUSPECT:
            times += [hello, self._suspect_at + SUSPECT_FOR_S]
        else:
            times.append(self.rhythm.silent_at())
        return min(at for at in times if at is not None)

    def _drop_session(self, now: float) -> None:
        self.session = None
        self.tried_since = now
        self.mtu_bytes = None
        self.rhythm.stop()
        self._pause = HELLO_FIRST_S
        self._next_hello = now
        self._transition(LinkInput.RETRY)

    def _offer(self, address: Address) -> bytes:
        """Return the session id that an address is told: who has not read it there cannot echo it from there."""
        return sha256(self._offered + f"{address[0]} {address[1]}".encode()).digest()[:SESSION_ID_BYTES]

    def _offered_somewhere(self, echo: bytes) -> bool:
        """Whether a hello echoes nothing yet, or what another address of the peer was told."""
        return echo == _NO_SESSION or any(echo == self._offer(address) for address in self.addresses)

    def _hello(self, session: bytes, echo: bytes, *, confirmed: bool) -> Hello:
        return Hello(session, echo, self._datagram_bytes, confirmed)

    def _transition(self, cause: LinkInput) -> None:
        after = TRANSITIONS.get((self.state, cause))
        if after is None:
            raise LocalProtocolError(f"link {self.peer}: {cause.value} while {self.state.value}")
        self.state = after
