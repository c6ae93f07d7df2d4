import asyncio
from collections.abc import Iterator

import pytest

from agent.core.events import Event, GraphChanged, OpenSocket, QueryGraph, Transmit
from agent.core.memory_store import BytesReader
from agent.services import driver as driver_module
from agent.services.driver import Driver
from common.errors import RefusedError, TransportError
from common.messages import Unchanged
from tests.unit.agent.fakes import FakeCore, FakeSockets

PEER = ("192.0.2.7", 7400)


class Rig:
    """A driver between fakes."""

    def __init__(self) -> None:
        self.core = FakeCore()
        self.sockets = FakeSockets()
        self.events: list[Event] = []
        self.requests: list[object] = []
        self.driver = Driver(self.core, on_event=self.events.append, on_request=self.requests.append)


@pytest.fixture
async def rig() -> Iterator[Rig]:  # type: ignore[misc]
    made = Rig()
    made.driver.start(made.sockets)
    yield made
    made.driver.stop()


def train(*datagrams: bytes) -> list[Transmit]:
    return [Transmit(0, PEER, list(datagrams))]


async def test_where_this_device_is_reached_and_whom_to_ask_for_more_is_fed(rig: Rig) -> None:
    rig.driver.set_candidates([PEER])
    rig.core.transmits.append(train(b"question"))
    rig.driver.set_stun_servers([PEER])
    assert (rig.core.told("candidates"), rig.core.told("stun")) == ([(PEER,)], [(PEER,)])
    assert rig.sockets.sent == [(0, PEER, [b"question"])]


async def test_every_input_is_fed_and_every_output_drained(rig: Rig) -> None:
    feeds = (
        lambda: rig.driver.receive_batch([(b"x", PEER)], 3),
        lambda: rig.driver.receive_control(Unchanged(epoch=1)),
        lambda: rig.driver.control_connected(),
        lambda: rig.driver.control_lost(),
        lambda: rig.driver.cancel("s1"),
        lambda: rig.driver.publish("chat", b"hi"),
        lambda: rig.driver.send_file("files", "f", 1, BytesReader(b"x")),
    )
    for feed in feeds:
        rig.core.transmits.extend([train(b"1"), train(b"2", b"3")])
        rig.core.requests.append(QueryGraph())
        rig.core.events.append(GraphChanged(1))
        feed()
        assert rig.sockets.sent == [(0, PEER, [b"1"]), (0, PEER, [b"2", b"3"])]
        assert rig.requests == [QueryGraph()]
        assert GraphChanged(1) in rig.events
        rig.sockets.sent.clear()
        rig.requests.clear()
        rig.events.clear()
    assert [kind for kind, _ in rig.core.inputs] == [
        "datagrams",
        "control",
        "connected",
        "lost",
        "cancel",
        "publish",
    ]
    assert rig.core.told("datagrams") == [([(b"x", PEER)], 3)]


async def test_the_timer_wakes_the_core(rig: Rig) -> None:
    woken = asyncio.Event()
    rig.driver._on_event = lambda _: woken.set()
    rig.core.timeout = rig.driver.now
    rig.driver.drain()
    rig.core.events.append(GraphChanged(1))
    await asyncio.wait_for(woken.wait(), 5)
    assert len(rig.core.told("timeout")) == 1


async def test_there_is_one_timer_and_the_last_word_counts(rig: Rig) -> None:
    rig.core.timeout = rig.driver.now
    rig.driver.drain()
    rig.core.timeout = None
    rig.driver.drain()
    assert rig.driver._timer is None
    await asyncio.sleep(0)
    assert rig.core.told("timeout") == []


async def test_a_socket_that_is_asked_for_is_opened_and_named(rig: Rig) -> None:
    request = OpenSocket("chat", "B")
    rig.core.events.append(request)
    rig.driver.drain()
    assert rig.core.told("socket") == [(request, 1, 7401)]
    assert rig.events == []


async def test_a_socket_that_cannot_be_opened_does_no_harm(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(port: int = 0) -> tuple[int, int]:
        raise TransportError("too many")

    monkeypatch.setattr(rig.sockets, "open", fail)
    rig.core.events.extend([OpenSocket("chat", "B"), GraphChanged(1)])
    rig.driver.drain()
    assert rig.core.told("socket") == []
    assert rig.events == [GraphChanged(1)]


async def test_before_the_sockets_nothing_is_sent_or_opened() -> None:
    rig = Rig()
    rig.core.transmits.append(train(b"1"))
    rig.core.events.append(OpenSocket("chat", "B"))
    rig.driver.drain()
    assert rig.sockets.opened == 0
    assert len(rig.core.transmits) == 1
    rig.driver.start(rig.sockets)
    assert rig.sockets.sent == [(0, PEER, [b"1"])]
    rig.driver.stop()


async def test_a_handler_may_feed_the_core_while_it_is_drained(rig: Rig) -> None:
    def on_event(event: Event) -> None:
        rig.events.append(event)
        rig.core.transmits.append(train(b"answer"))
        rig.driver.receive_control(Unchanged(epoch=2))

    rig.driver._on_event = on_event
    rig.core.events.append(GraphChanged(1))
    rig.driver.drain()
    assert rig.sockets.sent == [(0, PEER, [b"answer"])]


async def test_a_kernel_that_takes_no_more_pauses_the_core_without_a_hot_loop(rig: Rig) -> None:
    rig.sockets.congested = True
    rig.core.transmits.append(train(b"1"))
    rig.core.timeout = 0.0
    before = rig.driver.now
    rig.driver.drain()
    assert rig.sockets.sent == []
    assert rig.driver._timer is not None
    assert rig.driver._timer.when() >= before + driver_module.CONGESTED_WAIT_S
    rig.sockets.congested = False
    rig.driver.drain()
    assert rig.sockets.sent == [(0, PEER, [b"1"])]


async def test_a_refusal_reaches_the_caller_and_outputs_still_go(rig: Rig) -> None:
    rig.core.refusal = RefusedError("unknown-channel", "there is no such channel")
    rig.core.transmits.append(train(b"1"))
    with pytest.raises(RefusedError):
        rig.driver.publish("none", b"x")
    assert rig.sockets.sent == [(0, PEER, [b"1"])]


async def test_an_error_that_should_not_be_leaves_the_timer_running(rig: Rig) -> None:
    rig.core.failure = ValueError("a mistake of ours")
    rig.core.timeout = rig.driver.now + 60
    with pytest.raises(ValueError, match="a mistake"):
        rig.driver.receive_batch([(b"x", PEER)], 0)
    assert rig.driver._timer is not None


async def test_an_error_while_draining_does_not_become_a_hot_loop(rig: Rig) -> None:
    def fail(_: Event) -> None:
        raise ValueError("a mistake of ours")

    rig.driver._on_event = fail
    rig.core.events.append(GraphChanged(1))
    rig.core.timeout = 0.0
    before = rig.driver.now
    with pytest.raises(ValueError, match="a mistake"):
        rig.driver.drain()
    assert rig.driver._timer is not None
    assert rig.driver._timer.when() >= before + driver_module.FAILED_WAIT_S


async def test_a_stopped_driver_says_goodbye_and_then_nothing() -> None:
    rig = Rig()
    rig.driver.start(rig.sockets)
    rig.core.timeout = rig.driver.now + 60
    rig.core.transmits.append(train(b"bye"))
    rig.driver.stop()
    assert rig.core.told("leave") == [None]
    assert rig.sockets.sent == [(0, PEER, [b"bye"])]
    assert rig.driver._timer is None
    rig.core.transmits.append(train(b"late"))
    rig.driver.drain()
    assert rig.sockets.sent == [(0, PEER, [b"bye"])]


async def test_the_status_is_the_cores(rig: Rig) -> None:
    assert rig.driver.status()["epoch"] == 7


async def test_a_settled_core_is_not_waited_for(rig: Rig) -> None:
    await asyncio.wait_for(rig.driver.settled(), 5)


async def test_a_settling_core_is_waited_for_until_it_says_that_it_is_not(rig: Rig) -> None:
    rig.core.settling_for = 2
    waiting = asyncio.ensure_future(rig.driver.settled())
    await asyncio.sleep(0)
    rig.driver.control_connected()
    await asyncio.sleep(0)
    assert not waiting.done()
    rig.driver.control_connected()
    await asyncio.wait_for(waiting, 5)


async def test_a_core_that_never_settles_is_not_waited_for_for_long(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "SETTLED_WITHIN_S", 0.0)
    rig.core.settling_for = 1_000
    await asyncio.wait_for(rig.driver.settled(), 5)
