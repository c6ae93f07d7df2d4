"""The server's group as a state machine, driven with arbitrary calls: what its invariants forbid never happens."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Final

from pydantic import ValidationError

from common.errors import RefusedError
from common.fields import encode_key
from common.ids import link_key
from common.limits import (
    CLEAR_HOLD_S,
    EPOCH_AGE_S,
    EPOCHS_MAX,
    GROUP_KEYS_KEPT,
    HOLD_S,
    LEASE_S,
    MAX_CHANNELS,
    MAX_JOIN_TOKENS,
    MAX_SUBSCRIBERS_PER_DEVICE,
    MAX_TREES,
    SUBSCRIBER_OUTBOX,
)
from common.messages import (
    Accepted,
    AdjacencyReport,
    CandidatesReport,
    ChannelSpec,
    Enrolment,
    EpochUpdate,
    GraphUpdate,
    NeighboursUpdate,
    QosFigures,
    QosReport,
    Subscribe,
)
from server.core.outbox import Outbox
from server.core.snapshot import GroupRecord
from tests.fuzz.choices import Choices
from tests.unit.server.harness import Bench

_NAMES: Final = ("A", "B", "C", "D", "E", "F", "nobody")
_WAITS: Final = (0.0, 0.01, 0.05, 0.3, CLEAR_HOLD_S, HOLD_S, LEASE_S, EPOCH_AGE_S, 400.0)
_STEPS: Final = 200
_TIMEOUTS: Final = 10_000


class GroupMachine:
    """One group, its subscribers' outboxes, and what must be true of them after each step.

    Args:
        data: what is done.
    """

    def __init__(self, data: bytes) -> None:
        self._choices = Choices(data)
        self._bench = Bench()
        self._subscribers = 0
        self._outboxes: dict[int, Outbox] = {}
        self._epochs: dict[int, int] = {}
        self._highest = 0
        self._joins: list[str] = []

    def run(self) -> None:
        """Do it."""
        steps = (
            self._enrol,
            self._evict,
            self._report,
            self._report,
            self._report_both,
            self._subscribe,
            self._unsubscribe,
            self._change_channels,
            self._change_tokens,
            self._wait,
            self._restart,
            self._read,
        )
        for _ in range(_STEPS):
            if not self._choices:
                break
            with contextlib.suppress(RefusedError, ValidationError):
                self._choices.pick(steps)()
            self._check()

    def _enrol(self) -> None:
        device = self._choices.pick(_NAMES[:-1])
        key = hashlib.sha256(self._choices.pick(_NAMES).encode()).digest()
        enrolment = Enrolment(device=device, public_key=encode_key(key))
        bench = self._bench
        answer = bench.group.enrol(enrolment, now=bench.now, wall=bench.wall, replaces=bool(self._choices.below(2)))
        assert bench.group.authenticate(answer.token) == device
        bench.tokens[device] = answer.token

    def _evict(self) -> None:
        device, bench = self._choices.pick(_NAMES), self._bench
        bench.group.evict(device, now=bench.now, wall=bench.wall)
        assert bench.group.authenticate(bench.tokens[device]) is None

    def _report(self) -> None:
        choices, bench = self._choices, self._bench
        device = choices.pick(_NAMES)
        peers = tuple(choices.pick(_NAMES) for _ in range(choices.below(7)))
        kind = choices.below(3)
        if kind == 0:
            report: AdjacencyReport | QosReport | CandidatesReport = AdjacencyReport(peers=peers)
        elif kind == 1:
            report = QosReport(links={peer: self._figures() for peer in peers})
        else:
            report = CandidatesReport(candidates=tuple(f"192.0.2.{choices.below(300)}:1" for _ in peers))
        bench.group.report(device, report, now=bench.now, wall=bench.wall)

    def _report_both(self) -> None:
        """Report a link from both its ends, so that it counts."""
        a, b = self._choices.pick(_NAMES[:-1]), self._choices.pick(_NAMES[:-1])
        group = self._bench.group
        for one, other in ((a, b), (b, a)):
            peers = {other: None, **dict.fromkeys(self._peers_of(one))}
            self._bench.qos(one, {other: self._figures()})
            self._bench.adjacency(one, *sorted(peers))
        assert any(link.key == link_key(a, b) for link in group.links())

    def _peers_of(self, device: str) -> list[str]:
        return [
            other for link in self._bench.group.links() for other in link.key if device in link.key if other != device
        ]

    def _figures(self) -> QosFigures:
        choices = self._choices
        return QosFigures(
            bandwidth_bps=choices.pick((None, 0.0, 1e-9, 1e6, 1.1e6, 5e6, 1e9, 400e9)),
            delay_s=choices.pick((None, 0.0, 1e-9, 0.01, 60.0)),
            loss=choices.pick((None, 0.0, 0.05, 1.0)),
            mtu_bytes=choices.pick((None, 1_200, 1_472, 9_000)),
        )

    def _subscribe(self) -> None:
        choices, bench = self._choices, self._bench
        device = choices.pick((*_NAMES, None))
        number = choices.below(self._subscribers + 1)
        again = number in self._outboxes and choices.below(2)
        if not again:
            number = self._subscribers
            self._subscribers += 1
        current = bench.group.graph().epoch
        scope = choices.pick(("graph", "neighbours", "roster"))
        epoch = choices.pick((None, 0, current, current - 1, current + 1, current + 10**12, 2**53 - 1))
        message = Subscribe.model_validate({"scope": scope, "epoch": epoch})
        bench.group.subscribe(number, device, message, now=bench.now, wall=bench.wall)
        self._outboxes.setdefault(number, Outbox())
        self._epochs[number] = -1

    def _unsubscribe(self) -> None:
        number = self._choices.below(self._subscribers + 1)
        self._bench.group.unsubscribe(number)
        self._outboxes.pop(number, None)

    def _change_channels(self) -> None:
        choices, bench = self._choices, self._bench
        name = choices.pick(("files", "messages", "chat"))
        if choices.below(3) == 0:
            bench.group.delete_channel(name, now=bench.now, wall=bench.wall)
            return
        objective, routing = choices.pick(("throughput", "latency")), choices.pick(("query", "embedded"))
        spec = {"name": name, "kind": choices.pick(("file", "message")), "objective": objective, "routing": routing}
        for number in range(70 if choices.below(16) == 15 else 0):
            with contextlib.suppress(RefusedError):
                many = ChannelSpec.model_validate({**spec, "name": f"many{number}"})
                bench.group.put_channel(many, now=bench.now, wall=bench.wall)
        bench.group.put_channel(ChannelSpec.model_validate(spec), now=bench.now, wall=bench.wall)

    def _change_tokens(self) -> None:
        bench = self._bench
        if self._choices.below(4) == 0:
            bench.group.void_join_tokens(now=bench.now, wall=bench.wall)
            assert not any(bench.group.admits(token) for token in self._joins)
            self._joins.clear()
            return
        token = bench.group.add_join_token(now=bench.now, wall=bench.wall)
        self._joins.append(token)
        assert bench.group.admits(token)

    def _wait(self) -> None:
        """Let time pass; the wall's clock may be set meanwhile."""
        bench = self._bench
        until = bench.now + self._choices.pick(_WAITS)
        if self._choices.below(8) == 7:
            bench.offset += self._choices.pick((-1e9, -3_600.0, 3_600.0, 1e9))
        for _ in range(_TIMEOUTS):
            at = bench.group.poll_timeout()
            if at is None or at > until:
                break
            bench.now = max(at, bench.now)
            bench.group.handle_timeout(now=bench.now, wall=bench.wall)
        else:
            raise AssertionError("time stands still")
        bench.now = until

    def _restart(self) -> None:
        """Go on from what is stored."""
        bench = self._bench
        bench.group.store_now(now=bench.now, wall=bench.wall)
        record = bench.group.poll_record()
        if record is None:
            return
        again = Bench(stored=GroupRecord.model_validate_json(record.model_dump_json()))
        again.offset, again.tokens = bench.wall, bench.tokens
        assert again.group.graph() == bench.group.graph()
        assert again.group.roster() == bench.group.roster()
        self._bench = again
        self._outboxes.clear()

    def _read(self) -> None:
        """Let one subscriber read what waits for it."""
        number = self._choices.below(self._subscribers + 1)
        outbox = self._outboxes.get(number)
        while outbox is not None and (message := outbox.take()) is not None:
            if isinstance(message, GraphUpdate):
                assert message.graph.to_graph().epoch >= self._epochs[number]
                self._epochs[number] = message.graph.epoch
            elif isinstance(message, NeighboursUpdate | EpochUpdate):
                assert message.epoch >= self._epochs[number]
                self._epochs[number] = message.epoch

    def _check(self) -> None:
        bench = self._bench
        self._deliver()
        graph = bench.group.graph()
        assert graph.epoch >= self._highest
        self._highest = graph.epoch
        roster, channels = bench.group.roster(), bench.group.channels().channels
        members = {entry.device for entry in roster.devices}
        assert len({entry.public_key for entry in roster.devices}) == len(members)
        assert set(graph.devices) <= members
        assert 1 <= len(graph.trees) <= MAX_TREES
        assert len(channels) <= MAX_CHANNELS
        assert len(roster.group_keys) <= GROUP_KEYS_KEPT
        assert roster.key_epoch in roster.group_keys
        assert len(bench.group._epochs._kept) <= EPOCHS_MAX
        assert len(self._joins) <= MAX_JOIN_TOKENS
        assert bench.group.subscriber_count() == len(self._outboxes)
        for link in bench.group.links():
            assert set(link.key) <= members
        due = bench.group.poll_timeout()
        assert due is None or due >= bench.now - 1e-9 or self._served(due)

    def _served(self, due: float) -> bool:
        """Whether a timer that is due lets go once it is served."""
        bench = self._bench
        for _ in range(_TIMEOUTS):
            bench.group.handle_timeout(now=bench.now, wall=bench.wall)
            later = bench.group.poll_timeout()
            if later is None or later > bench.now:
                self._deliver()
                return True
        raise AssertionError(f"the timer of {due} is due for ever")

    def _deliver(self) -> None:
        bench = self._bench
        own: dict[str, int] = {}
        for number, message in bench.pushes():
            if number in self._outboxes:
                self._outboxes[number].offer(message)
        for number, last_word in bench.closed():
            self._outboxes.pop(number)
            assert last_word.reason in ("evicted", "superseded")
        for who in bench.group._subscribers._subscribers.values():
            if who.device is not None:
                own[who.device] = own.get(who.device, 0) + 1
        assert max(own.values(), default=0) <= MAX_SUBSCRIBERS_PER_DEVICE
        for outbox in self._outboxes.values():
            outbox.offer(Accepted(of="qos"))
            assert len(outbox) <= SUBSCRIBER_OUTBOX + GROUP_KEYS_KEPT * 3


def fuzz_group(data: bytes) -> None:
    """A server's group, whatever it is told."""
    GroupMachine(data).run()


def group_seeds() -> list[bytes]:
    """Return a short life of a group, and all kinds of steps."""
    enrol = b"".join(bytes([0, place, place, 0]) for place in range(4))
    links = b"".join(bytes([4, a, b, 3, 3, 1, 1, 3, 3, 1, 1]) for a, b in ((0, 1), (1, 2), (0, 2), (2, 3)))
    listen = bytes([5, 0, 0, 0, 0, 5, 1, 1, 1, 0, 5, 7, 2, 0, 0])
    rest = bytes([9, 3, 0, 11, 0, 7, 2, 1, 0, 1, 9, 3, 0, 10, 1, 2, 9, 6, 0, 8, 1, 8, 0, 10, 6, 0])
    return [enrol + links + listen + rest, enrol + links + rest + listen + rest]
