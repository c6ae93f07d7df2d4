import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from common.errors import ConfigError, RefusedError, TransportError
from common.messages import (
    AdjacencyReport,
    ChannelSpec,
    Enrolment,
    EnrolmentAnswer,
    GraphUpdate,
    QosFigures,
    QosReport,
    ServerMessage,
    Subscribe,
    decode_server_message,
)
from server.core.group import Group
from server.services import coordinator as module
from server.services.coordinator import Coordinator
from server.services.store.memory import MemoryStore
from tests.unit.server.api_harness import until
from tests.unit.server.harness import SIX, SIX_TREE, WALL, entropy, key_of, peers_of


class Store(MemoryStore):
    """A store that can be slow, and that can fail."""

    def __init__(self) -> None:
        super().__init__(monotonic=lambda: 0.0)
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.writes: list[str] = []

    async def put_if_revision(self, key: str, value: bytes, revision: int) -> int:
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.writes.append(key)
        return await super().put_if_revision(key, value, revision)


class Inbox:
    """Collects what a session is sent."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[ServerMessage] = asyncio.Queue()

    async def send(self, text: str) -> None:
        self.messages.put_nowait(decode_server_message(text))

    async def graph(self) -> GraphUpdate:
        while True:
            message = await self.messages.get()
            if isinstance(message, GraphUpdate):
                return message


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def coordinator(store: Store) -> AsyncIterator[Coordinator]:
    found = Coordinator(store, entropy=entropy())
    await found.start()
    yield found
    store.error = None
    store.open.set()
    await found.stop()


def enrol(coordinator: Coordinator, device: str) -> EnrolmentAnswer:
    enrolment = Enrolment(device=device, public_key=key_of(device), signing_key=key_of(device))
    return coordinator.apply("lab", lambda group, now, wall: group.enrol(enrolment, now=now, wall=wall))


def report(coordinator: Coordinator, device: str, links: dict[tuple[str, str], float]) -> None:
    rates = peers_of(device, links)
    reports = (
        AdjacencyReport(peers=tuple(rates)),
        QosReport(links={peer: QosFigures(bandwidth_bps=rate) for peer, rate in rates.items()}),
    )

    def send(group: Group, now: float, wall: float) -> None:
        for entry in reports:
            group.report(device, entry, now=now, wall=wall)

    coordinator.apply("lab", send)


def subscribe(coordinator: Coordinator, number: int, device: str | None) -> None:
    message = Subscribe(scope="graph")
    coordinator.apply("lab", lambda group, now, wall: group.subscribe(number, device, message, now=now, wall=wall))


async def listen(coordinator: Coordinator, device: str | None) -> tuple[Inbox, Callable[[], Any]]:
    inbox = Inbox()
    session = coordinator.sessions.open(inbox.send)
    running = asyncio.create_task(session.run())
    subscribe(coordinator, session.number, device)

    async def stop() -> None:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    return inbox, stop


async def test_M3_M5_reports_lead_to_a_push_of_the_tree(coordinator: Coordinator) -> None:
    await coordinator.create_group("lab")
    for device in "ABCDEF":
        enrol(coordinator, device)
    inbox, stop = await listen(coordinator, "A")
    for device in "ABCDEF":
        report(coordinator, device, SIX)
    while True:
        graph = (await inbox.graph()).graph
        if graph.trees[0].edges == SIX_TREE:
            break
    assert coordinator.group("lab").graph() == graph.to_graph()
    await stop()


async def test_a_new_epoch_is_stored_before_it_is_pushed(coordinator: Coordinator, store: Store) -> None:
    await coordinator.create_group("lab")
    inbox, stop = await listen(coordinator, None)
    await inbox.graph()
    store.open.clear()
    enrol(coordinator, "A")
    settled = asyncio.create_task(coordinator.settled("lab"))
    await until(lambda: coordinator.group("lab").graph().devices == ("A",))
    assert inbox.messages.empty()
    assert not settled.done()
    store.writes.clear()
    store.open.set()
    assert (await inbox.graph()).graph.devices == ("A",)
    await settled
    assert "groups/lab/graphs" in store.writes
    await stop()


async def test_only_the_parts_that_changed_are_written(coordinator: Coordinator, store: Store) -> None:
    await coordinator.create_group("lab")
    assert store.writes == ["groups/lab/links", "groups/lab/graphs", "groups/lab/members"]
    store.writes.clear()
    coordinator.apply("lab", lambda group, now, wall: group.entrance.add_join_token(now=now, wall=wall))
    await coordinator.settled("lab")
    assert store.writes == ["groups/lab/members"]
    await coordinator.settled("lab")
    assert coordinator.store_writes == 4


async def test_a_restart_takes_up_every_group(store: Store) -> None:
    first = Coordinator(store, entropy=entropy())
    await first.start()
    token = await first.create_group("lab")
    await first.create_group("other", (ChannelSpec(name="chat", kind="message"),))
    answer = enrol(first, "A")
    await first.settled("lab")
    await first.stop()
    second = Coordinator(store, entropy=entropy(1))
    await second.start()
    assert [group.name for group in second.groups()] == ["lab", "other"]
    assert second.group("lab").authenticate(answer.token or "") == "A"
    assert second.group("lab").entrance.admits(token, wall=WALL)
    assert [channel.name for channel in second.group("other").channels().channels] == ["chat"]
    await second.stop()


async def test_stopping_stores_the_link_figures_that_still_waited(store: Store) -> None:
    first = Coordinator(store, entropy=entropy())
    await first.create_group("lab")
    for device in "AB":
        enrol(first, device)
    for device in "AB":
        report(first, device, {("A", "B"): 5e6})
    await first.stop()
    second = Coordinator(store, entropy=entropy(1))
    await second.start()
    assert second.group("lab").links()[0].figures.bandwidth_bps == 5e6
    await second.stop()


async def test_a_group_that_exists_is_refused_and_so_is_one_that_does_not(coordinator: Coordinator) -> None:
    await coordinator.create_group("lab")
    with pytest.raises(RefusedError, match="group-exists"):
        await coordinator.create_group("lab")
    with pytest.raises(RefusedError, match="unknown-group"):
        coordinator.group("nowhere")


async def test_groups_have_a_limit(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GROUPS", 0)
    with pytest.raises(RefusedError, match="too-many-groups"):
        await coordinator.create_group("lab")


async def test_a_refused_event_leaves_everything_as_it_was(coordinator: Coordinator, store: Store) -> None:
    await coordinator.create_group("lab")
    writes = len(store.writes)
    with pytest.raises(RefusedError, match="unknown-device"):
        report(coordinator, "Z", SIX)
    await coordinator.settled("lab")
    assert len(store.writes) == writes


async def test_a_failing_store_is_reported_to_who_waits_and_holds_no_push_up(
    coordinator: Coordinator, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_RETRY_S", 0.01)
    await coordinator.create_group("lab")
    inbox, stop = await listen(coordinator, None)
    await inbox.graph()
    store.error = TransportError("disk full")
    enrol(coordinator, "A")
    with pytest.raises(TransportError, match="disk full"):
        await coordinator.settled("lab")
    states = [coordinator.failing]
    assert coordinator.store_failures >= 1
    assert (await inbox.graph()).graph.devices == ("A",)
    store.error = None
    await coordinator.settled("lab")
    states.append(coordinator.failing)
    assert states == [True, False]
    assert "groups/lab/members" in store.writes
    await stop()


async def test_a_group_that_cannot_be_stored_is_not_made(coordinator: Coordinator, store: Store) -> None:
    store.error = TransportError("disk full")
    with pytest.raises(TransportError, match="disk full"):
        await coordinator.create_group("lab")
    assert coordinator.groups() == ()


async def test_another_writer_of_the_same_state_is_noticed(coordinator: Coordinator, store: Store) -> None:
    await coordinator.create_group("lab")
    entry = await store.get("groups/lab/members")
    assert entry is not None
    await store.put_if_revision("groups/lab/members", entry.value, entry.revision)
    enrol(coordinator, "A")
    with pytest.raises(TransportError, match="revision"):
        await coordinator.settled("lab")
    assert coordinator.failing


async def test_an_evicted_device_s_session_is_closed(coordinator: Coordinator) -> None:
    await coordinator.create_group("lab")
    enrol(coordinator, "A")
    inbox = Inbox()
    session = coordinator.sessions.open(inbox.send)
    subscribe(coordinator, session.number, "A")
    coordinator.apply("lab", lambda group, now, wall: group.evict("A", now=now, wall=wall))
    await session.run()
    assert session.last_word is not None
    assert session.last_word.reason == "evicted"


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("links", None, "lacks its links"),
        ("graphs", b"{", "graphs of group 'lab' cannot be read"),
        ("members", b"{}", "members of group 'lab' cannot be read"),
        (
            "graphs",
            b'{"kept": [{"graph": {"epoch": 1, "devices": ["B", "A"], "trees": [{"objective": "t", "edges": []}]}, '
            b'"superseded_wall": null}], "highest_seen": 0}',
            "stored graph of group 'lab' cannot be read",
        ),
    ],
)
async def test_a_damaged_state_is_refused_by_name(store: Store, part: str, value: bytes | None, message: str) -> None:
    first = Coordinator(store, entropy=entropy())
    await first.create_group("lab")
    await first.stop()
    entry = await store.get(f"groups/lab/{part}")
    assert entry is not None
    await store.delete(f"groups/lab/{part}", entry.revision)
    if value is not None:
        await store.put_if_revision(f"groups/lab/{part}", value, 0)
    with pytest.raises(ConfigError, match=message):
        await Coordinator(store, entropy=entropy()).start()


async def test_a_fault_of_ours_fails_who_waits_and_leaves_the_group_alive(
    coordinator: Coordinator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await coordinator.create_group("lab")

    def broken(group: Group) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(module, "_drain", broken)
        coordinator.apply("lab", lambda group, now, wall: group.entrance.add_join_token(now=now, wall=wall))
        with pytest.raises(TransportError, match="the server failed"):
            await coordinator.settled("lab")
    assert "ZeroDivisionError" in caplog.text
    enrol(coordinator, "A")
    await coordinator.settled("lab")
    assert not coordinator.failing


class HalfStore(Store):
    """A store that fails from a part of a group on."""

    fails_at: str | None = None

    async def put_if_revision(self, key: str, value: bytes, revision: int) -> int:
        if self.fails_at is not None and key.endswith(self.fails_at):
            raise TransportError("disk full")
        return await super().put_if_revision(key, value, revision)


@pytest.mark.parametrize("part", ["links", "graphs", "members"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_creation_that_was_cut_short_leaves_the_name_free(part: str, restarted: bool) -> None:
    store = HalfStore()
    coordinator = Coordinator(store, entropy=entropy())
    await coordinator.start()
    await coordinator.create_group("other")
    store.fails_at = f"groups/lab/{part}"
    for _ in range(2):
        with pytest.raises(TransportError, match="disk full"):
            await coordinator.create_group("lab")
    store.fails_at = None
    assert not coordinator.failing
    if restarted:
        await coordinator.stop()
        coordinator = Coordinator(store, entropy=entropy())
        await coordinator.start()
    assert [group.name for group in coordinator.groups()] == ["other"]
    token = await coordinator.create_group("lab")
    await coordinator.stop()
    coordinator = Coordinator(store, entropy=entropy())
    await coordinator.start()
    assert coordinator.group("lab").entrance.admits(token, wall=WALL)
    await coordinator.stop()


async def test_a_group_that_another_server_made_is_not_overwritten(coordinator: Coordinator, store: Store) -> None:
    other = Coordinator(store, entropy=entropy())
    await other.start()
    token = await other.create_group("lab")
    with pytest.raises(TransportError, match="revision"):
        await coordinator.create_group("lab")
    await other.stop()
    await other.start()
    assert other.group("lab").entrance.admits(token, wall=WALL)
    await other.stop()


async def test_one_failing_group_fails_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STORE_RETRY_S", 60.0)
    store = HalfStore()
    coordinator = Coordinator(store, entropy=entropy())
    await coordinator.start()
    for name in ("lab", "other"):
        await coordinator.create_group(name)
    store.fails_at = "groups/lab/members"
    enrol(coordinator, "A")
    with pytest.raises(TransportError):
        await coordinator.settled("lab")
    coordinator.apply("other", lambda group, now, wall: group.entrance.add_join_token(now=now, wall=wall))
    await coordinator.settled("other")
    assert (coordinator.is_failing("lab"), coordinator.is_failing("other"), coordinator.failing) == (True, False, True)
    store.fails_at = None
    await coordinator.settled("lab")
    assert not coordinator.failing
    await coordinator.stop()


async def test_a_damaged_state_is_named_without_what_is_in_it(store: Store) -> None:
    for part in ("links", "graphs", "members"):
        await store.put_if_revision(f"groups/lab/{part}", b'{"secret": "my-group-key"}', 0)
    with pytest.raises(ConfigError, match="links of group 'lab' cannot be read") as refused:
        await Coordinator(store, entropy=entropy()).start()
    assert "my-group-key" not in str(refused.value)
    assert refused.value.__cause__ is None
