"""The coordinator: the single writer around the groups' machines.

Every event goes through `apply`, which runs it to its end without waiting. What follows from it leaves in this order,
group by group: first the graph and the members are stored, then the pushes go to the sessions, then the link figures
are stored. While a record is on its way to the disk further events are applied and their records merge into one:
writes never queue up.

A store that fails holds nobody up who is already a member: pushes leave all the same, for the epochs that they name
stay above all others by the clock. Whoever waits for `settled` gets the failure, `failing` says so, and the write is
tried again.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from common.errors import ConfigError, DecodeError, RefusedError, TransportError
from common.ids import GroupId
from common.limits import MAX_GROUPS
from common.messages import ChannelSpec, ErrorMessage, ServerMessage, describe
from server.core.group import Group
from server.core.members import DEFAULT_CHANNELS
from server.core.snapshot import GraphsRecord, GroupRecord, LinksRecord, MembersRecord
from server.services.sessions import Sessions
from server.services.store.seam import KeyValueStore, RevisionConflict

STORE_RETRY_S = 1.0
_PREFIX = "groups/"
# In the order in which they are written: a group exists once its members do.
_PARTS: dict[str, type[BaseModel]] = {"links": LinksRecord, "graphs": GraphsRecord, "members": MembersRecord}

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from: monotonic seconds for spans, unix seconds for epochs."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


@dataclass
class _Hosted:
    """One group with what waits to be stored and sent."""

    group: Group
    revisions: dict[str, int] = field(default_factory=dict)
    stored: dict[str, BaseModel] = field(default_factory=dict)
    record: GroupRecord | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    busy: bool = False
    failing: bool = False
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


class Coordinator:
    """All groups of this server."""

    def __init__(
        self,
        store: KeyValueStore,
        *,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Start with no group; see `start`.

        Args:
            store: where the state lives.
            clock: where time comes from; the machine's by default.
            entropy: gives that many random bytes, for tokens and keys.
        """
        self._store = store
        self._clock = clock or Clock()
        self._entropy = entropy
        self._groups: dict[GroupId, _Hosted] = {}
        self.sessions = Sessions()
        self.store_writes = 0
        self.store_failures = 0

    @property
    def failing(self) -> bool:
        """Tell whether the last write of any group failed."""
        return any(hosted.failing for hosted in self._groups.values())

    def is_failing(self, name: GroupId) -> bool:
        """Tell whether the last write of a group failed.

        Raises:
            RefusedError: unknown-group.
        """
        return self._hosted(name).failing

    async def start(self) -> None:
        """Take up every stored group.

        Raises:
            ConfigError: what is stored cannot be read.
            TransportError: the store failed.
        """
        for key in await self._store.keys(_PREFIX):
            name, part = key.removeprefix(_PREFIX).split("/")
            if part == "members":
                self._host(await self._load(name))

    async def stop(self) -> None:
        """Store what is not stored yet, and stop; the store stays open."""
        for name, hosted in self._groups.items():
            with contextlib.suppress(TransportError):
                await self.settled(name)
            self._end(hosted)
            # Whatever else was due soon can wait for the next start; link figures that wait to be stored cannot.
            hosted.group.store_now(now=self._clock.monotonic(), wall=self._clock.wall())
            record = hosted.group.poll_record()
            if record is not None:
                await self._write(hosted, record, _PARTS)
        self._groups.clear()

    def groups(self) -> tuple[Group, ...]:
        """List the groups, by name."""
        return tuple(self._groups[name].group for name in sorted(self._groups))

    def group(self, name: GroupId) -> Group:
        """Give a group to read from; events go through `apply`.

        Raises:
            RefusedError: unknown-group.
        """
        return self._hosted(name).group

    async def create_group(self, name: GroupId, channels: tuple[ChannelSpec, ...] | None = None) -> str:
        """Make a group; give its first join token.

        Args:
            name: its id.
            channels: its channels; the default ones if None.

        Raises:
            RefusedError: group-exists, or too-many-groups.
            TransportError: the store failed, and there is no such group.
        """
        if name in self._groups:
            raise RefusedError("group-exists", f"there is a group {name!r} already")
        if len(self._groups) >= MAX_GROUPS:
            raise RefusedError("too-many-groups", f"there are {MAX_GROUPS} groups, which is the most")
        now, wall = self._clock.monotonic(), self._clock.wall()
        group = Group(
            name,
            now=now,
            wall=wall,
            entropy=self._entropy,
            channels=DEFAULT_CHANNELS if channels is None else channels,
        )
        token = group.entrance.add_join_token(now=now, wall=wall)
        hosted = self._host(_Hosted(group))
        self._after(hosted)
        try:
            await self.settled(name)
        except TransportError:
            self._forget(name)
            raise
        return token

    def apply(self, name: GroupId, event: Callable[[Group, float, float], _T]) -> _T:
        """Apply one event to a group, and set going what follows from it.

        Args:
            name: the group.
            event: called with the group, monotonic seconds and unix seconds.

        Raises:
            RefusedError: unknown-group, or what the event raises.
        """
        hosted = self._hosted(name)
        try:
            return event(hosted.group, self._clock.monotonic(), self._clock.wall())
        finally:
            self._after(hosted)

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._clock.monotonic()

    def wall(self) -> float:
        """Return unix seconds."""
        return self._clock.wall()

    def unix_time(self, at: float) -> float:
        """Return the unix seconds of a time in monotonic seconds."""
        return at - self._clock.monotonic() + self._clock.wall()

    async def settled(self, name: GroupId) -> None:
        """Wait until everything applied to a group so far is stored.

        Raises:
            TransportError: the store failed.
        """
        hosted = self._hosted(name)
        if hosted.record is not None or hosted.busy:
            waiter = asyncio.get_running_loop().create_future()
            hosted.waiters.append(waiter)
            hosted.wake.set()
            await waiter

    async def _load(self, name: GroupId) -> _Hosted:
        parts: dict[str, BaseModel] = {}
        revisions: dict[str, int] = {}
        for part, model in _PARTS.items():
            entry = await self._store.get(f"{_PREFIX}{name}/{part}")
            if entry is None:
                raise ConfigError(f"the stored group {name!r} lacks its {part}")
            try:
                parts[part] = model.model_validate_json(entry.value)
            except ValidationError as error:
                raise ConfigError(f"the stored {part} of group {name!r} cannot be read: {describe(error)}") from None
            revisions[part] = entry.revision
        record = GroupRecord.model_validate({"name": name, **parts})
        now, wall = self._clock.monotonic(), self._clock.wall()
        try:
            group = Group(name, now=now, wall=wall, entropy=self._entropy, stored=record)
        except DecodeError as error:
            raise ConfigError(f"the stored graph of group {name!r} cannot be read: {error}") from error
        stored = {part: getattr(record, part) for part in _PARTS}
        return _Hosted(group, revisions, stored)

    def _host(self, hosted: _Hosted) -> _Hosted:
        self._groups[hosted.group.name] = hosted
        hosted.task = asyncio.create_task(self._pump(hosted), name=f"group {hosted.group.name}")
        self._arm(hosted)
        return hosted

    def _forget(self, name: GroupId) -> None:
        self._end(self._groups.pop(name))

    @staticmethod
    def _end(hosted: _Hosted) -> None:
        if hosted.timer is not None:
            hosted.timer.cancel()
        if hosted.task is not None:
            hosted.task.cancel()

    def _hosted(self, name: GroupId) -> _Hosted:
        hosted = self._groups.get(name)
        if hosted is None:
            raise RefusedError("unknown-group", f"there is no group {name[:80]!r}")
        return hosted

    def _after(self, hosted: _Hosted) -> None:
        """Send what follows from an event, at once if nothing has to be stored before it."""
        record = hosted.group.poll_record()
        if record is not None:
            hosted.record = record
        if hosted.record is None and not hosted.busy:
            self._deliver(*_drain(hosted.group))
        else:
            hosted.wake.set()
        self._arm(hosted)

    def _arm(self, hosted: _Hosted) -> None:
        if hosted.timer is not None:
            hosted.timer.cancel()
            hosted.timer = None
        at = hosted.group.poll_timeout()
        if at is not None:
            delay = max(at - self._clock.monotonic(), 0.0)
            hosted.timer = asyncio.get_running_loop().call_later(delay, self._on_timer, hosted)

    def _on_timer(self, hosted: _Hosted) -> None:
        hosted.timer = None
        hosted.group.handle_timeout(now=self._clock.monotonic(), wall=self._clock.wall())
        self._after(hosted)

    async def _pump(self, hosted: _Hosted) -> None:
        """Store and send what the events of one group leave, one batch after the other."""
        while True:
            await hosted.wake.wait()
            hosted.wake.clear()
            try:
                await self._batch(hosted)
            except Exception:
                # A fault of ours must not leave the group deaf.
                _log.exception("= a batch of group %s failed", hosted.group.name)

    async def _batch(self, hosted: _Hosted) -> None:
        """Store one record, send the pushes that it covers, and tell who waited for it."""
        hosted.busy = True
        record, hosted.record = hosted.record, None
        waiters, hosted.waiters = hosted.waiters, []
        failure: TransportError | None = TransportError("the server failed; its log says how")
        try:
            pushes, closed = _drain(hosted.group)
            # What the links said, the largest part, need not be on the disk for a push to leave, once the group is.
            first = ("graphs", "members") if "members" in hosted.stored else tuple(_PARTS)
            failure = None if record is None else await self._write(hosted, record, first)
            self._deliver(pushes, closed)
            if record is not None and failure is None:
                failure = await self._write(hosted, record, ("links",))
            if failure is not None and hosted.record is None:
                hosted.record = record
                asyncio.get_running_loop().call_later(STORE_RETRY_S, hosted.wake.set)
        finally:
            hosted.busy = False
            for waiter in waiters:
                if waiter.done():
                    continue
                if failure is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(failure)

    async def _write(self, hosted: _Hosted, record: GroupRecord, names: Iterable[str]) -> TransportError | None:
        """Store those of some parts of a record that are not the ones stored last; give what went wrong."""
        parts = {part: getattr(record, part) for part in names}
        changed = {part: value for part, value in parts.items() if hosted.stored.get(part) is not value}
        if not changed:
            return None
        try:
            if "members" not in hosted.revisions:
                hosted.revisions = await self._orphans(record.name)
            texts = await asyncio.to_thread(_encode, changed)
            for part, text in texts.items():
                key = f"{_PREFIX}{record.name}/{part}"
                hosted.revisions[part] = await self._store.put_if_revision(key, text, hosted.revisions.get(part, 0))
                hosted.stored[part] = changed[part]
                self.store_writes += 1
        except (TransportError, RevisionConflict) as error:
            self.store_failures += 1
            hosted.failing = True
            _log.exception("= group %s cannot be stored", record.name)
            return TransportError(f"the state cannot be stored: {error}")
        hosted.failing = False
        return None

    async def _orphans(self, name: GroupId) -> dict[str, int]:
        """Find the parts that a creation which was cut short left: there is no such group, and they may be replaced."""
        entries = {part: await self._store.get(f"{_PREFIX}{name}/{part}") for part in _PARTS}
        if entries["members"] is not None:
            return {}
        return {part: entry.revision for part, entry in entries.items() if entry is not None}

    def _deliver(self, pushes: list[tuple[int, ServerMessage]], closed: list[tuple[int, ErrorMessage]]) -> None:
        for number, message in pushes:
            self.sessions.deliver(number, message)
        for number, last_word in closed:
            self.sessions.close(number, last_word)


def _drain(group: Group) -> tuple[list[tuple[int, ServerMessage]], list[tuple[int, ErrorMessage]]]:
    """Take everything that a group has to send."""
    pushes = list(iter(group.poll_push, None))
    closed = list(iter(group.poll_closed, None))
    return pushes, closed


def _encode(parts: dict[str, BaseModel]) -> dict[str, bytes]:
    return {part: value.model_dump_json().encode() for part, value in parts.items()}
