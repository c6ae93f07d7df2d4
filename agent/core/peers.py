"""All peers of this device: the roster, a link to each peer that may be reached, and a hop over each open link."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final

from agent.core.congestion import INITIAL_RATE_BYTES_S, ModelController
from agent.core.counters import HopCounters
from agent.core.events import Address, Event, LinkChanged
from agent.core.hop import Hop
from agent.core.link import Link, LinkState, Session
from agent.core.migration import Migration
from agent.core.pacer import SharedRate
from agent.core.policy import PeerPolicy
from agent.core.reachability import Attempt, attempt_of
from agent.core.survey import Survey
from common.addresses import is_within
from common.datagrams import Hello, OtherWireVersion, hello_key_id, open_hello
from common.errors import DecodeError
from common.fields import decode_key
from common.ids import DeviceId
from common.limits import MAX_DELAY_S, MAX_PEERS, MAX_RATE_BPS, USUAL_DATAGRAM_BYTES
from common.link_frames import Bye, Probe
from common.messages import CandidatesReport, QosFigures, RosterEntry
from common.path_frames import TOKEN_BYTES, MtuProbe, PathChallenge
from common.sealing import NONCE_BYTES, key_id, pair_secret

_BITS: Final = 8
_SPREADS: Final = 4
"""Mean deviations that a round trip may take longer (RFC 6298 section 2.3)."""


class Peers:
    """Feeds hellos and probes to links, and makes a Hop of every session.

    Args:
        device: this device.
        group: its group.
        private_key: its X25519 private key, 32 bytes.
        own_key_id: names its public key in hellos.
        datagram_bytes: the largest datagram it takes.
        policy: which peers, and where.
        drops: counts what was dropped, by reason.
        rng: for jitter.
        entropy: returns so many bytes that nobody can guess.
    """

    def __init__(
        self,
        device: DeviceId,
        group: str,
        private_key: bytes,
        own_key_id: bytes,
        *,
        datagram_bytes: int,
        policy: PeerPolicy,
        drops: Counter[str],
        rng: random.Random,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.links: dict[DeviceId, Link] = {}
        self.hops: dict[DeviceId, Hop] = {}
        self.by_address: dict[Address, Hop] = {}
        self.counters: dict[DeviceId, HopCounters] = {}
        self.members: tuple[DeviceId, ...] = ()
        self.roster: dict[DeviceId, RosterEntry] = {}
        """What the roster says of each member."""
        self.events: deque[Event] = deque()
        self.opened: deque[Hop] = deque()
        """Hops with a session that nobody has greeted yet."""
        self.closed: deque[DeviceId] = deque()
        """Peers whose hop is gone."""
        self.epoch = 0
        """Low 32 bits of the newest epoch known here, told in probes; 0 if none is."""
        self.version = 0
        """Grows whenever a link becomes usable or stops being so."""
        self.news = 0
        """Grows whenever a figure of a usable link changes so that the server should know at once."""
        self._device = device
        self._group = group
        self._private_key = private_key
        self._own_key_id = own_key_id
        self._datagram_bytes = datagram_bytes
        self._policy = policy
        self._shared: SharedRate | None = None
        if policy.max_rate_bps is not None:
            self._shared = SharedRate(policy.max_rate_bps / _BITS, 0.0, min(datagram_bytes, USUAL_DATAGRAM_BYTES))
        self._drops = drops
        self._rng = rng
        self._entropy = entropy
        self.survey = Survey(
            self.hops,
            self.links,
            declared_bps=lambda peer: self._policy.declared_bps(peer),
            cap_bps=lambda peer: self._policy.cap_bps(peer),
            rng=rng,
        )
        self._keys: dict[DeviceId, str] = {}
        self._by_key_id: dict[bytes, Link] = {}
        self._hellos: deque[tuple[Address, bytes]] = deque()
        self._sent_bytes: dict[DeviceId, int] = {}
        self.migration = Migration(
            self.links,
            self.by_address,
            lambda hop: self._make_controller(hop.peer, hop.session),
            policy.usable,
            entropy,
        )

    def set_roster(self, entries: Iterable[RosterEntry], now: float) -> None:
        """Take the members, their keys and the addresses at which each may be."""
        members = {entry.device: entry for entry in entries}
        self.members = tuple(sorted(members))
        self.roster = members
        for peer in [peer for peer in self.links if peer not in members]:
            self._remove(peer)
        for peer, entry in members.items():
            if peer == self._device or not self._policy.allows(peer):
                continue
            if self._keys.get(peer) != entry.public_key:
                self._add(entry, now)
            link = self.links.get(peer)
            if link is not None:
                link.set_addresses(self._policy.addresses_of(entry), now)

    def receive_hello(self, datagram: bytes, address: Address, now: float) -> None:
        """Take a hello from anywhere."""
        try:
            link = self._by_key_id.get(hello_key_id(datagram))
            if link is None:
                self._drops["hello-unknown-key"] += 1
                return
            if self._policy.denied and is_within(address[0], self._policy.denied):
                self._drops["hello-from-denied-network"] += 1
                return
            hello = open_hello(datagram, link.sealer)
        except OtherWireVersion as error:
            self._drops["hello-of-other-wire-version"] += 1
            if other := self._by_key_id.get(error.key_id):
                other.other_wire = error.version
            return
        except DecodeError:
            self._drops["hello-not-authentic"] += 1
            return
        answer, established = link.handle_hello(hello, address, now)
        if answer is not None:
            self._queue_hello(link, answer, address)
        if established and link.session is not None:
            self._open(link, link.session, now)

    def on_heard(self, peer: DeviceId, now: float, *, chunks: bool = False) -> None:
        """Note an authentic sign of life, and whether it was a chunk."""
        link = self.links[peer]
        if chunks:
            link.rhythm.on_flow(now)
        if link.on_heard(now):
            self._changed(link)

    def on_unreachable(self, address: Address, now: float) -> None:
        """Note that the network says that nobody is at an address: whoever is there has to answer, soon."""
        hop = self.by_address.get(address)
        if hop is not None and self.links[hop.peer].rhythm.on_refused(hop.qos.rtt_s or 0.0, now):
            hop.send(PathChallenge(self._entropy(TOKEN_BYTES)), reliable=False)

    def on_probe(self, hop: Hop, probe: Probe, now: float) -> None:
        """Take a probe."""
        if not hop.qos.on_probe(probe, now):
            self._drops["probe-implausible"] += 1
        if hop.qos.rtt_s is not None:
            hop.recovery.seed_rtt(hop.qos.rtt_s)
        rhythm, rtt = self.links[hop.peer].rhythm, hop.recovery.rtt
        rhythm.on_promise(probe.next_ms / 1000)
        rhythm.on_number(probe.sent)
        rhythm.spread_s = _SPREADS * (rtt.variance if rtt.samples else hop.qos.jitter_s)

    def on_mtu_answer(self, hop: Hop, size_bytes: int, now: float) -> None:
        """Take the word that a probe of that size arrived.

        Raises:
            DecodeError: none was sent.
        """
        hop.mtu.on_answer(size_bytes, now)
        self._take_mtu(self.links[hop.peer], hop)

    def on_bye(self, hop: Hop, now: float) -> None:
        """Close the link to a peer that leaves."""
        link = self.links[hop.peer]
        link.leave(now)
        self._close(link)

    def leave(self) -> None:
        """Tell every peer that this device leaves."""
        for hop in self.hops.values():
            hop.send(Bye(), reliable=False)

    def set_tree(self, neighbours: Iterable[DeviceId], now: float) -> None:
        """Note which links are tree edges."""
        edges = dict.fromkeys(neighbours)
        for peer, link in self.links.items():
            link.rhythm.set_in_tree(peer in edges, now)

    def usable(self) -> tuple[DeviceId, ...]:
        """Return the peers with an open link, sorted: this device's adjacency (M1)."""
        return tuple(sorted(peer for peer, link in self.links.items() if link.usable))[:MAX_PEERS]

    def smallest_mtu(self) -> int | None:
        """Return what every open link takes, in bytes of a datagram; None without one."""
        found = [link.mtu_bytes for link in self.links.values() if link.usable and link.mtu_bytes is not None]
        return min(found, default=None)

    def figures(self, peer: DeviceId) -> QosFigures:
        """Return what this end knows of a link (M2): no declared figure makes it better than was measured."""
        qos, declared = self.hops[peer].qos, self._policy.declared.get(peer)
        bounds = self._policy.rate_bps(peer), self._policy.cap_bps(peer), qos.bandwidth_bps
        rates = [rate for rate in bounds if rate is not None]
        said = None if declared is None else declared.delay_s
        delays = [delay for delay in (said, qos.delay_s) if delay is not None]
        return QosFigures(
            bandwidth_bps=min([*rates, MAX_RATE_BPS]) if rates else None,
            delay_s=min(max(delays), MAX_DELAY_S) if delays else None,
            jitter_s=min(qos.jitter_s, MAX_DELAY_S),
            loss=min(max(qos.loss.share, 0.0), 1.0),
            mtu_bytes=self.links[peer].mtu_bytes,
        )

    def handle_timeout(self, now: float) -> None:
        """Let links fall silent, hops repair, and probes go out."""
        for peer, link in self.links.items():
            if link.handle_timeout(now):
                if link.session is None:
                    self._close(link)
                else:
                    self._changed(link)
            hop = self.hops.get(peer)
            self._hello_if_due(link, now)
            if hop is None:
                continue
            if hop.frames.overflowed:
                self._drops["hop-overflowed"] += 1
                self.on_bye(hop, now)
                continue
            self._note_sent(link, hop, now)
            promise = link.rhythm.poll_probe(now)
            if promise is not None:
                hop.send(hop.qos.next_probe(now, promise, self.epoch), reliable=False)
            self._search_mtu(link, hop, now)
            hop.handle_timeout(now)
        self.migration.handle_timeout(now)
        self.survey.handle_timeout(now)

    def poll_timeout(self, now: float) -> float | None:
        """Return when ``handle_timeout`` is due."""
        timers = (self.migration.poll_timeout(), self.survey.poll_timeout())
        due = min((at for at in timers if at is not None), default=None)
        for peer, link in self.links.items():
            hop = self.hops.get(peer)
            times = [link.poll_timeout()]
            if hop is not None:
                times += [hop.poll_timeout(now), hop.mtu.poll_timeout()]
            for at in times:
                if at is not None and (due is None or at < due):
                    due = at
        return due

    def attempt(self, peer: DeviceId, own: CandidatesReport, now: float) -> Attempt:
        """Return what is known of the way to a member without an open link.

        Args:
            peer: the member.
            own: where this device may be reached, and what its NAT does.
            now: monotonic seconds.
        """
        return attempt_of(self.roster[peer], self.links.get(peer), self._policy, own, now)

    def poll_hello(self) -> tuple[Address, bytes] | None:
        """Return a hello, or a question about a path, to be sent from the shared socket."""
        return self._hellos.popleft() if self._hellos else self.migration.poll()

    def _add(self, entry: RosterEntry, now: float) -> None:
        if entry.device in self.links:
            self._remove(entry.device)
        if len(self.links) >= MAX_PEERS:
            self._drops["peers-beyond-limit"] += 1
            return
        public_key = decode_key(entry.public_key)
        if key_id(public_key) in self._by_key_id:
            # Whoever enrolled with another device's key must not take that device's hellos.
            self._drops["roster-key-twice"] += 1
            return
        try:
            secret = pair_secret(self._private_key, public_key)
        except DecodeError:
            self._drops["roster-unusable-key"] += 1
            return
        link = Link(
            entry.device,
            self._group,
            secret,
            datagram_bytes=self._datagram_bytes,
            rng=self._rng,
            entropy=self._entropy,
            now=now,
        )
        self.links[entry.device] = link
        self.counters.setdefault(entry.device, HopCounters())
        self._keys[entry.device] = entry.public_key
        self._by_key_id[key_id(public_key)] = link

    def _remove(self, peer: DeviceId) -> None:
        link = self.links.pop(peer)
        self._by_key_id = {name: other for name, other in self._by_key_id.items() if other is not link}
        self._keys.pop(peer, None)
        self._drop_hop(peer)
        self.counters.pop(peer, None)
        self._sent_bytes.pop(peer, None)
        self.closed.append(peer)
        self.version += 1
        self.events.append(LinkChanged(peer, LinkState.CLOSED.value))

    def _open(self, link: Link, session: Session, now: float) -> None:
        self._drop_hop(link.peer)
        controller = self._make_controller(link.peer, session)
        hop = Hop(link.peer, session, controller, self.counters[link.peer], now, self._shared)
        self.survey.recall(hop, now)
        self.hops[link.peer] = hop
        self.by_address[session.address] = hop
        self.migration.open(hop, now)
        self.opened.append(hop)
        if hop.mtu.measured:
            link.mtu_bytes = hop.mtu.mtu_bytes
        if link.usable:
            self._changed(link)

    def _make_controller(self, peer: DeviceId, session: Session) -> ModelController:
        rate_bps = self._policy.rate_bps(peer)
        rate = None if rate_bps is None else rate_bps / _BITS
        return ModelController(
            packet_bytes=session.packet_bytes,
            initial_rate_bytes_s=rate or INITIAL_RATE_BYTES_S,
            max_rate_bytes_s=rate,
        )

    def _note_sent(self, link: Link, hop: Hop, now: float) -> None:
        """Note that chunks went over a link since the last look at it."""
        sent = hop.counters.data_bytes_sent
        if sent != self._sent_bytes.get(link.peer, 0):
            self._sent_bytes[link.peer] = sent
            link.rhythm.on_flow(now)

    def _search_mtu(self, link: Link, hop: Hop, now: float) -> None:
        """Send the probes that are due, and take the end of a search."""
        for size in hop.mtu.poll_probes(now, hop.recovery.rtt.pto()):
            hop.send(MtuProbe(size), reliable=False)
        self._take_mtu(link, hop)

    def _take_mtu(self, link: Link, hop: Hop) -> None:
        """Let a link count as soon as it is known what its path takes, and tell of changes."""
        mtu = hop.mtu
        if mtu.measured and link.mtu_bytes != mtu.mtu_bytes:
            counted, link.mtu_bytes = link.mtu_bytes is not None, mtu.mtu_bytes
            if counted:
                self.news += 1
            else:
                self._changed(link)

    def _close(self, link: Link) -> None:
        self._drop_hop(link.peer)
        self.closed.append(link.peer)
        self._changed(link)

    def _drop_hop(self, peer: DeviceId) -> None:
        hop = self.hops.pop(peer, None)
        if hop is None:
            return
        self.migration.close(hop)
        if self.by_address.get(hop.session.address) is hop:
            del self.by_address[hop.session.address]

    def _changed(self, link: Link) -> None:
        self.version += 1
        self.events.append(LinkChanged(link.peer, link.state.value))

    def _hello_if_due(self, link: Link, now: float) -> None:
        if not link.addresses:
            return
        for address, hello in link.poll_hellos(now):
            self._queue_hello(link, hello, address)

    def _queue_hello(self, link: Link, hello: Hello, address: Address) -> None:
        self._hellos.append((address, hello.encode(self._own_key_id, link.sealer, self._entropy(NONCE_BYTES))))
