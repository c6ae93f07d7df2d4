"""Why there is no open link to a peer: one sentence for the operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.core.link import Link, LinkState
from agent.core.policy import PeerPolicy
from common.addresses import is_within
from common.datagrams import WIRE_VERSION
from common.fields import NatMapping, split_candidate
from common.messages import CandidatesReport, RosterEntry

PATIENCE_S: Final = 10.0
"""Seconds without an answer before NATs are named as the likely cause: hellos cross within a second or two."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of the way to a peer without an open link.

    Attributes:
        allowed: whether this device may link with it.
        told: how many addresses the peer, or the operator for it, told.
        denied: how many of these lie in a network to keep out of.
        tried: how many are tried.
        families: whether one of them is of a family that this device has addresses of.
        state: of the link; None where there is none to be had.
        session: whether both sides have heard each other.
        seconds: since they are tried, or since the link closed.
        own: what this device's NAT does.
        its: what the peer's NAT does.
        wire: another wire version than this device's that the peer seems to speak; None where nothing says so.
    """

    allowed: bool
    told: int
    denied: int
    tried: int
    families: bool
    state: LinkState | None
    session: bool
    seconds: float
    own: NatMapping
    its: NatMapping
    wire: int | None = None


def attempt_of(entry: RosterEntry, link: Link | None, policy: PeerPolicy, own: CandidatesReport, now: float) -> Attempt:
    """Return what is known of the way to a member.

    Args:
        entry: what the roster says of it.
        link: to it; None where there is none to be had.
        policy: which peers, and where.
        own: where this device may be reached, and what its NAT does.
        now: monotonic seconds.
    """
    told = [split_candidate(candidate) for candidate in entry.candidates]
    if entry.device in policy.addresses:
        told.append(policy.addresses[entry.device])
    tried = [address for address in told if policy.usable(address)]
    families = {candidate.startswith("[") for candidate in own.candidates}
    return Attempt(
        allowed=policy.allows(entry.device),
        told=len(told),
        denied=sum(is_within(host, policy.denied) for host, _ in told),
        tried=len(tried),
        families=not families or any((":" in host) in families for host, _ in tried),
        state=None if link is None else link.state,
        session=link is not None and link.session is not None,
        seconds=0.0 if link is None else now - link.tried_since,
        own=own.mapping,
        its=entry.mapping,
        wire=None if link is None else link.other_wire,
    )


def why_no_link(attempt: Attempt) -> str:
    """Return the reason."""
    if not attempt.allowed:
        return "not in --only-peer"
    if attempt.state is None:
        return "its public key cannot be used, or there are more peers than one device may have"
    if attempt.session:
        return _why_not_yet(attempt.state)
    if attempt.wire is not None:
        older = "it" if attempt.wire < WIRE_VERSION else "this device"
        return f"it speaks wire version {attempt.wire}, and this device {WIRE_VERSION}: update {older}"
    if not attempt.told:
        return "it told no address"
    if not attempt.tried:
        return "its addresses are all denied" if attempt.denied else "none of its addresses can be anybody's"
    if not attempt.families:
        return "it has addresses of another IP version than this device"
    plural = "" if attempt.tried == 1 else "es"
    silence = f"no answer from {attempt.tried} address{plural} for {attempt.seconds:.0f} s"
    nats = _why_nats(attempt.own, attempt.its)
    return f"{silence}: {nats}" if nats and attempt.seconds >= PATIENCE_S else silence


def _why_not_yet(state: LinkState) -> str:
    return "it fell silent" if state is LinkState.SUSPECT else "it answers; what the path takes is being measured"


def _why_nats(own: NatMapping, its: NatMapping) -> str:
    """Say how two NATs keep each other out; nothing where they need not."""
    if own == its == "varies":
        return "both are behind NATs whose mapping varies by destination (symmetric)"
    if {own, its} == {"varies", "stable"}:
        varies, other = ("this device", "the peer's") if own == "varies" else ("it", "this device's")
        return (
            f"{varies} is behind a NAT whose mapping varies by destination (symmetric),"
            f" and {other} NAT lets only known ports in (likely)"
        )
    return ""
