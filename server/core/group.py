"""One group: the machine that turns reports into graphs and pushes. It has no socket and no clock.

Theory of operation
-------------------

In: `enrol`, `evict`, `report`, `subscribe`, `unsubscribe`, `put_channel`, `delete_channel`, `handle_timeout`, and what
`entrance` takes of tokens. Each applies one event. A refusal is a `RefusedError` and has changed nothing. Out, after
any of them, in this order:

1. `poll_record()`: what has to be stored **before** anything else leaves; None when nothing has.
2. `poll_push()` until it gives None: the messages to send, each to one subscriber.
3. `poll_closed()` until it gives None: the subscribers to close, each with a last word.
4. `poll_timeout()`: when to call `handle_timeout` at the latest.

A report that moves what the planner looks at starts the coalescing time; a lost link of a tree ends it at once. When
it ends the planner runs through the hysteresis of each objective. The same trees again: nothing leaves. Other trees,
or other members: a new epoch.

There is one tree for each objective that a channel names, sorted, with "throughput" always first.
"""

from collections.abc import Callable

from common.errors import RefusedError
from common.graph import AcyclicGraph, Tree
from common.ids import ChannelId, DeviceId, GroupId
from common.limits import COALESCE_S, EPOCH_CLAIM_AHEAD_S, LEASE_S, MAX_VIEWERS_PER_GROUP
from common.messages import (
    AdjacencyReport,
    Channels,
    ChannelSpec,
    Enrolment,
    EnrolmentAnswer,
    ErrorMessage,
    MtuUpdate,
    NeighboursBody,
    QosReport,
    Report,
    Roster,
    RosterEntry,
    ServerMessage,
    Subscribe,
)
from server.core.entrance import Entrance
from server.core.epochs import Epochs
from server.core.hysteresis import Hysteresis
from server.core.ledger import Ledger
from server.core.members import DEFAULT_CHANNELS, Members
from server.core.snapshot import DeviceLinks, GroupRecord
from server.core.subscribers import Subscriber, Subscribers
from server.core.topology import Change, LinkState, Topology

FIRST_OBJECTIVE = "throughput"
CLAIM_EVERY_S = 1.0
"""Seconds between two raises of the epoch by what one device claims to have seen: each is a push to everybody."""


class Group:
    """The members of one group, the links between them, and the graph that follows.

    Attributes:
        name: its id.
        counts: how often what happened.
        entrance: the tokens that let devices in, and that prove the members.
    """

    def __init__(
        self,
        name: GroupId,
        *,
        now: float,
        wall: float,
        entropy: Callable[[int], bytes],
        stored: GroupRecord | None = None,
        channels: tuple[ChannelSpec, ...] = DEFAULT_CHANNELS,
    ) -> None:
        """Start a new group, or take up a stored one.

        Args:
            name: the group's id.
            now: monotonic seconds.
            wall: unix seconds at `now`.
            entropy: gives that many random bytes, for tokens and group keys.
            stored: what was stored of it; None for a new group.
            channels: the channels of a new group.

        Raises:
            DecodeError: a stored graph does not hold together.
        """
        self.name = name
        self.counts: dict[str, int] = {}
        self._members = Members(
            wall=wall, entropy=entropy, stored=None if stored is None else stored.members, channels=channels
        )
        self.entrance = Entrance(self._members, self._note, self._count)
        self._topology = Topology()
        self._subscribers = Subscribers()
        self._claimed_at: dict[DeviceId | None, float] = {}
        self._hysteresis: dict[str, Hysteresis] = {}
        self._plan_at: float | None = None
        self._roster_at: float | None = None
        self._mtu: int | None = None
        self._mtu_at: float | None = None
        self._ledger = Ledger(name, self._members, self._topology, stored=stored)
        if stored is None:
            trees = tuple(Tree(objective, ()) for objective in self._objectives())
            self._epochs = Epochs(AcyclicGraph(max(int(wall * 1e6), 1), (), trees))
            self._note(now, wall, links=True)
        else:
            self._restore(stored, now=now, wall=wall)

    # --- events ---------------------------------------------------------------------------------------------------

    def enrol(
        self, enrolment: Enrolment, *, now: float, wall: float, replaces: bool = False, join_token: str | None = None
    ) -> EnrolmentAnswer:
        """Make a device a member. The answer must not leave before `poll_record()` is stored.

        Args:
            enrolment: its id and public key, and the hash of its token if it made that itself.
            now: monotonic seconds.
            wall: unix seconds at `now`.
            replaces: the request proved, by the member's token, that it comes from the member of that id.
            join_token: what lets it in; None if something else does. One use of it is spent.

        Raises:
            RefusedError: device-exists, key-taken, group-full, or bad-token.
        """
        if join_token is not None:
            self.entrance.check(join_token, wall=wall)
        token = self._members.enrol(enrolment, wall=wall, replaces=replaces)
        if join_token is not None:
            self._members.join_tokens.spend(join_token, now=now, wall=wall)
        if enrolment.device not in self._topology:
            self._topology.add(enrolment.device, now=now)
            self._plan_by(now + COALESCE_S)
        self._push_roster_by(now + COALESCE_S)
        self._count("enrolments")
        self._note(now, wall)
        return EnrolmentAnswer(
            device=enrolment.device,
            token=token,
            group=self.name,
            roster=self.roster(),
            channels=self.channels(),
            lease_s=LEASE_S,
        )

    def evict(self, device: DeviceId, *, now: float, wall: float) -> None:
        """Remove a member: its token is void, its subscriptions close, the rest get a new group key.

        Raises:
            RefusedError: unknown-device.
        """
        self._members.evict(device, wall=wall)
        self._claimed_at.pop(device, None)
        self._subscribers.close_device(
            device, ErrorMessage(reason="evicted", detail=f"device {device!r} is no longer a member of the group")
        )
        self._apply(self._topology.remove(device), now)
        self._ledger.on_evicted()
        self._count("evictions")
        self._push_roster()
        self._plan(now, wall)
        self._note(now, wall, links=True)

    def report(self, device: DeviceId, report: Report, *, now: float, wall: float) -> None:
        """Take what a device reports (M1, M2); any report renews its lease.

        Raises:
            RefusedError: unknown-device, self-adjacency, or strangers.
        """
        self._members.check(device)
        if isinstance(report, AdjacencyReport):
            self._check_peers(device, report.peers)
            self._ledger.on_links(device, now)
            change = self._topology.report_peers(device, report.peers, now=now)
        elif isinstance(report, QosReport):
            self._check_peers(device, tuple(report.links))
            self._ledger.on_links(device, now)
            change = self._topology.report_figures(device, report.links, now=now)
        else:
            change = self._topology.renew(device, now=now)
            if self._members.set_candidates(device, report, wall=wall):
                self._push_roster_by(now + COALESCE_S)
                self._note(now, wall)
        self._count(f"reports_{report.type}")
        self._apply(change, now)
        if self._plan_at is not None and self._plan_at <= now:
            self._plan(now, wall)

    def subscribe(
        self, subscriber: int, device: DeviceId | None, message: Subscribe, *, now: float, wall: float
    ) -> None:
        """Take a subscriber in; its first answer waits in `poll_push` (M5).

        Args:
            subscriber: a number that the caller chose for it.
            device: whose it is; None for the administrator's.
            message: what it asks for, and the last epoch it saw.
            now: monotonic seconds.
            wall: unix seconds at `now`.

        Raises:
            RefusedError: unknown-device, no-device (only a device has neighbours), device-in-use (another run of its
                agent is subscribed and lives), too-many-viewers, or epoch-ahead (the epoch it claims lies further ahead
                than a clock may be wrong, or it claimed another one just now).
        """
        if device is not None:
            self._members.check(device)
            if message.instance is not None and self.is_in_use(device, but=message.instance):
                raise RefusedError("device-in-use", f"another agent runs as device {device!r}; stop one of them")
        elif message.scope != "graph":
            raise RefusedError("no-device", "only a device has neighbours; subscribe with its token, or to scope graph")
        elif subscriber not in self._subscribers and self._subscribers.viewers() >= MAX_VIEWERS_PER_GROUP:
            raise RefusedError(
                "too-many-viewers",
                f"{MAX_VIEWERS_PER_GROUP} who are no devices follow the graph, which is the most",
            )
        claimed = message.epoch
        if claimed is not None and claimed > self._epochs.current.epoch:
            self._take_claim(device, claimed, now=now, wall=wall)
        if device is not None and subscriber not in self._subscribers:
            self._topology.flapping.on_restart(device, now=now)
        current = self._epochs.current
        who = Subscriber(device, message.scope, message.instance)
        passed = self._epochs.passed(claimed, now=now)
        self._subscribers.add(subscriber, who, current, unchanged=claimed == current.epoch, passed=passed)
        if device is not None:
            self._subscribers.push((subscriber,), self.roster())
            self._subscribers.push((subscriber,), self.channels())
            if self._mtu is not None:
                self._subscribers.push((subscriber,), MtuUpdate(mtu_bytes=self._mtu))
        self._count("subscriptions")

    def unsubscribe(self, subscriber: int) -> None:
        """Forget a subscriber."""
        self._subscribers.remove(subscriber)

    def put_channel(self, spec: ChannelSpec, *, now: float, wall: float) -> None:
        """Add a channel, or replace the one of that name.

        Raises:
            RefusedError: too-many-channels.
        """
        if self._members.put_channel(spec, wall=wall):
            self._channels_changed(now, wall)

    def delete_channel(self, name: ChannelId, *, now: float, wall: float) -> None:
        """Remove a channel.

        Raises:
            RefusedError: unknown-channel.
        """
        self._members.delete_channel(name, wall=wall)
        self._channels_changed(now, wall)

    def handle_timeout(self, *, now: float, wall: float) -> None:
        """Do what time has made due; to be called at `poll_timeout`, harmless earlier."""
        change = self._topology.expire(now=now)
        if change.lost:
            self._count("leases_expired")
        self._apply(change, now)
        if self._mtu_at is not None and self._mtu_at <= now:
            self._push_mtu()
        due = [
            at for at in (self._plan_at, *(held.poll_timeout() for held in self._hysteresis.values())) if at is not None
        ]
        if due and min(due) <= now:
            self._plan(now, wall)
        if self._roster_at is not None and self._roster_at <= now:
            self._push_roster()
        tokens = self._members.join_tokens
        if tokens.due_at is not None and tokens.due_at <= now and tokens.purge(now=now, wall=wall):
            self._note(now, wall)
        if self._ledger.due_at is not None and self._ledger.due_at <= now:
            self._note(now, wall, links=True)

    def store_now(self, *, now: float, wall: float) -> None:
        """Have everything stored, also what could wait: the server is about to stop."""
        self._note(now, wall, links=True)

    # --- what follows ---------------------------------------------------------------------------------------------

    def poll_record(self) -> GroupRecord | None:
        """Take what has to be stored before anything else leaves; None when nothing has."""
        return self._ledger.poll()

    def poll_push(self) -> tuple[int, ServerMessage] | None:
        """Take the next message to send, and the subscriber to send it to; None when there is none."""
        return self._subscribers.poll()

    def poll_closed(self) -> tuple[int, ErrorMessage] | None:
        """Take the next subscriber to close, and its last word; None when there is none."""
        return self._subscribers.poll_closed()

    def poll_timeout(self) -> float | None:
        """Say when `handle_timeout` has to be called at the latest, in monotonic seconds; None for never."""
        times = [
            self._plan_at,
            self._roster_at,
            self._mtu_at,
            self._ledger.due_at,
            self._members.join_tokens.due_at,
            self._topology.next_expiry(),
            *(held.poll_timeout() for held in self._hysteresis.values()),
        ]
        return min((at for at in times if at is not None), default=None)

    # --- what can be read -----------------------------------------------------------------------------------------

    def graph(self, epoch: int | None = None) -> AcyclicGraph:
        """Give the current graph, or a kept one.

        Raises:
            StaleEpoch: that epoch is not kept.
        """
        return self._epochs.current if epoch is None else self._epochs.get(epoch)

    def neighbours(self, device: DeviceId, epoch: int | None = None) -> NeighboursBody:
        """Give a device's neighbours in the current graph, or in a kept one (M4).

        Raises:
            RefusedError: unknown-device.
            StaleEpoch: that epoch is not kept.
        """
        self._members.check(device)
        return NeighboursBody.from_graph(self.graph(epoch), device)

    def links(self) -> tuple[LinkState, ...]:
        """List every link that at least one end reports, or that is held down."""
        return self._topology.links()

    def roster(self) -> Roster:
        """Give all members and the group keys."""
        return self._members.roster()

    def device(self, device: DeviceId) -> RosterEntry:
        """Give one member.

        Raises:
            RefusedError: unknown-device.
        """
        return self._members.entry(device)

    def channels(self) -> Channels:
        """Give all channels."""
        return self._members.channels

    def alive(self, device: DeviceId) -> bool:
        """Tell whether a member's lease runs."""
        return self._topology.alive(device)

    def device_count(self) -> int:
        """Count the members."""
        return len(self._topology)

    def link_count(self) -> int:
        """Count the links that count: both ends report them."""
        return len(self._topology.counting())

    def is_in_use(self, device: DeviceId, *, but: str | None = None) -> bool:
        """Tell whether an agent that lives is subscribed as a device, in another run than one."""
        return self._topology.alive(device) and self._subscribers.is_subscribed(device, but=but)

    def subscriber_count(self) -> int:
        """Count the open subscriptions."""
        return len(self._subscribers)

    def authenticate(self, token: str) -> DeviceId | None:
        """Tell which member a token proves; None if none."""
        return self._members.authenticate(token)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _restore(self, stored: GroupRecord, *, now: float, wall: float) -> None:
        """Take up what was stored; leases run from now, the stored graph stands."""
        self._epochs = Epochs.restored(stored.graphs, now=now, wall=wall)
        known = self._members
        for device in known.devices():
            links = stored.links.devices.get(device, DeviceLinks(peers=(), figures={}))
            # The parts are stored one after the other: a member may have gone after its links were stored.
            peers = tuple(peer for peer in links.peers if peer in known)
            figures = {peer: found for peer, found in links.figures.items() if peer in known}
            self._topology.restore(device, peers, figures, now=now)
        known.join_tokens.purge(now=now, wall=wall)
        self._mtu = self._topology.smallest_mtu()
        self._plan_by(now + COALESCE_S)

    def _check_peers(self, device: DeviceId, peers: tuple[DeviceId, ...]) -> None:
        if device in peers:
            raise RefusedError("self-adjacency", f"device {device!r} reports a link to itself")
        strangers = [peer for peer in peers if peer not in self._members]
        if strangers:
            shown = ", ".join(strangers[:10]) + (f" and {len(strangers) - 10} more" if len(strangers) > 10 else "")
            raise RefusedError("strangers", f"not members of the group: {shown}")

    def _take_claim(self, device: DeviceId | None, claimed: int, *, now: float, wall: float) -> None:
        """Go above an epoch that a device says it has seen: our own state was lost, or our clock stepped back."""
        if claimed > int((wall + EPOCH_CLAIM_AHEAD_S) * 1e6):
            self._count("claims_refused")
            raise RefusedError(
                "epoch-ahead", f"epoch {claimed} lies more than {EPOCH_CLAIM_AHEAD_S:.0f} s ahead of the server's clock"
            )
        last = self._claimed_at.get(device)
        if last is not None and now < last + CLAIM_EVERY_S:
            self._count("claims_refused")
            raise RefusedError("epoch-ahead", f"one claim of an epoch ahead is taken every {CLAIM_EVERY_S:.0f} s")
        self._claimed_at[device] = now
        self._epochs.highest_seen = max(self._epochs.highest_seen, claimed)
        self._count("claims_taken")
        current = self._epochs.current
        self._advance(current.devices, current.trees, now, wall)

    def _apply(self, change: Change, now: float) -> None:
        """Start the coalescing time if something moved; end it if a tree lost an edge."""
        held = self._topology.flapping.count
        if held:
            self.counts["links_held_down"] = held
        if self._mtu_at is None and self._topology.smallest_mtu() not in (None, self._mtu):
            self._mtu_at = now + COALESCE_S
        if not change.moved:
            return
        trees = self._epochs.current.trees
        cut = any(edge in tree.edges for edge in change.lost for tree in trees)
        self._plan_by(now if cut else now + COALESCE_S)

    def _plan(self, now: float, wall: float) -> None:
        """Choose the trees anew; a new epoch if they, or the members, are others than before."""
        self._plan_at = None
        self._push_mtu()
        self._count("plans")
        current = self._epochs.current
        standing = {tree.objective: tree.edges for tree in current.trees}
        objectives = self._objectives()
        self._hysteresis = {
            objective: self._hysteresis.get(objective) or Hysteresis(objective) for objective in objectives
        }
        links = self._topology.counting()
        trees = tuple(
            Tree(objective, self._hysteresis[objective].settle(standing.get(objective, ()), links, now=now))
            for objective in objectives
        )
        devices = self._topology.devices()
        if (devices, trees) != (current.devices, current.trees):
            self._advance(devices, trees, now, wall)

    def _advance(self, devices: tuple[DeviceId, ...], trees: tuple[Tree, ...], now: float, wall: float) -> None:
        before = self._epochs.current
        after = AcyclicGraph(self._epochs.next_epoch(wall=wall), devices, trees)
        self._epochs.advance(after, now=now)
        self._ledger.on_graph()
        self._count("epochs")
        self._subscribers.graph_changed(before, after)
        self._note(now, wall, links=True)

    def _objectives(self) -> tuple[str, ...]:
        named = {
            channel.objective: None for channel in self.channels().channels if channel.objective != FIRST_OBJECTIVE
        }
        return (FIRST_OBJECTIVE, *sorted(named))

    def _channels_changed(self, now: float, wall: float) -> None:
        self._subscribers.push_to_devices(self.channels())
        self._plan(now, wall)
        self._note(now, wall)

    def _push_roster(self) -> None:
        self._roster_at = None
        self._subscribers.push_to_devices(self.roster())

    def _push_mtu(self) -> None:
        """Tell how large a datagram every link takes, if that is another size than was told last."""
        self._mtu_at = None
        smallest = self._topology.smallest_mtu()
        if smallest is not None and smallest != self._mtu:
            self._mtu = smallest
            self._subscribers.push_to_devices(MtuUpdate(mtu_bytes=smallest))

    def _push_roster_by(self, at: float) -> None:
        self._roster_at = at if self._roster_at is None else min(at, self._roster_at)

    def _plan_by(self, at: float) -> None:
        self._plan_at = at if self._plan_at is None else min(at, self._plan_at)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _note(self, now: float, wall: float, *, links: bool = False) -> None:
        """Have the state stored."""
        self._ledger.write(self._epochs, now=now, wall=wall, links=links)
