import asyncio
import random
from collections.abc import Callable

import httpx
import pytest

from agent.services.control_rest import RestClient
from agent.services.identity import Identity
from agent.services.rotation import RETRY_S, TokenRotation
from common.errors import ConfigError, ConnectError
from tests.unit.server.harness import entropy

DAY = 86_400.0


class Middle(random.Random):
    """Draws the middle of every interval."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class Rig:
    """A rotation between a disk and a server that may fail."""

    def __init__(self, made: float | None = 1_000.0) -> None:
        self.kept: list[Identity] = []
        self.wall = 1_000.0
        self.disk_full = False
        self.status = 201
        self.requests: list[httpx.Request] = []
        identity = Identity("lab", "A", bytes(32), "old", token_made=made)
        self.rest = RestClient("http://h:1", identity, loopback=True, transport=httpx.MockTransport(self._answer))
        self.rotation = TokenRotation(
            self.rest, keep=self._keep, rng=Middle(), wall=lambda: self.wall, entropy=entropy(), every_s=DAY
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, content=b"{}")

    def _keep(self, identity: Identity) -> None:
        if self.disk_full:
            raise ConfigError("cannot write")
        self.kept.append(identity)


async def test_a_new_token_is_kept_before_the_server_hears_of_it_and_before_it_is_used() -> None:
    rig = Rig()
    await rig.rotation.rotate()
    first, last = rig.kept
    assert first.token == "old"
    assert first.next_token is not None
    assert first.next_token.startswith("A~")
    assert (last.token, last.next_token, last.token_made) == (first.next_token, None, 1_000.0)
    assert rig.requests[0].headers["authorization"] == "Bearer old"
    assert rig.rest.identity == last


async def test_an_answer_that_is_lost_costs_nothing_and_the_same_token_is_told_again() -> None:
    rig = Rig()
    rig.status = 503
    for _ in range(2):
        with pytest.raises(ConnectError):
            await rig.rotation.rotate()
    assert rig.rest.identity.token == "old"
    rig.status = 201
    await rig.rotation.rotate()
    assert len({request.content for request in rig.requests}) == 1
    assert len(rig.kept) == 2


async def test_a_token_that_cannot_be_kept_is_neither_told_nor_used() -> None:
    rig = Rig()
    rig.disk_full = True
    with pytest.raises(ConfigError):
        await rig.rotation.rotate()
    assert rig.requests == []
    rig.disk_full = False
    rig._keep(rig.rest.identity.prepared("A~kept"))
    rig.rest.identity = rig.kept[-1]
    rig.disk_full = True
    with pytest.raises(ConfigError):
        await rig.rotation.rotate()
    # The server takes both now; this device goes on with the one that its disk has.
    assert rig.rest.identity.token == "old"


@pytest.mark.parametrize(
    ("made", "wall", "wait"),
    [
        (1_000.0, 1_000.0, DAY),
        (1_000.0, 1_000.0 + DAY / 4, DAY * 3 / 4),
        (1_000.0, 1_000.0 + 2 * DAY, 0.0),
        (1_000.0 + 9 * DAY, 1_000.0, DAY),
        (None, 5.0, DAY),
    ],
)
def test_a_token_is_due_a_day_after_it_was_made_whatever_the_clock_says(
    made: float | None, wall: float, wait: float
) -> None:
    rig = Rig(made)
    rig.wall = wall
    assert rig.rotation.wait_s() == pytest.approx(wait)


def test_devices_that_began_together_do_not_come_together() -> None:
    rig = Rig()
    rig.rotation._rng = random.Random(1)
    waits = [rig.rotation.wait_s() for _ in range(100)]
    assert DAY * 0.9 <= min(waits) < DAY * 0.92 < DAY * 1.08 < max(waits) <= DAY * 1.1


async def test_it_goes_on_after_a_failure(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    slept: list[float] = []
    steps: list[Callable[[], None]] = [
        lambda: setattr(rig, "status", 503),
        lambda: setattr(rig, "status", 201),
        lambda: None,
    ]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if not steps:
            raise asyncio.CancelledError
        steps.pop(0)()

    monkeypatch.setattr("agent.services.rotation.asyncio.sleep", sleep)
    with caplog.at_level("INFO"), pytest.raises(asyncio.CancelledError):
        await rig.rotation.run()
    assert slept == [DAY, RETRY_S, DAY, DAY]
    assert "the token is not changed, next try in some 600 s: the server cannot answer now" in caplog.text
    assert "this device has a new token" in caplog.text
    assert rig.rest.identity.token not in ("old", None)
    assert str(rig.rest.identity.token) not in caplog.text
