import asyncio

import pytest

from agent.services.control_rest import NoAccess
from agent.services.rival import LOOK_S, WAIT_S, Rival, await_alone
from common.errors import ConnectError, RefusedError, RemoteProtocolError


class Rest:
    """Answers what a test says, and moves the clock by a second at each question."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: bool | Exception) -> None:
        self.answers = list(answers)
        self.pauses: list[float] = []
        self.now = 100.0
        monkeypatch.setattr(asyncio, "sleep", self.sleep)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def is_in_use(self) -> bool:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_nothing_is_waited_for_where_nobody_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = Rest(monkeypatch, False)
    await await_alone(rest, "A", "lab")
    assert rest.pauses == []


@pytest.mark.parametrize("error", [ConnectError("gone"), RefusedError("bad-token", "no"), RemoteProtocolError("what")])
async def test_a_server_that_cannot_tell_holds_no_start_up(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    rest = Rest(monkeypatch, True, error)
    await await_alone(rest, "A", "lab")
    assert rest.pauses == [LOOK_S]


async def test_one_that_goes_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = Rest(monkeypatch, True, True, True, False)
    await await_alone(rest, "A", "lab")
    assert rest.pauses == [LOOK_S] * 3


async def test_one_that_stays_ends_the_start_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = Rest(monkeypatch, *[True] * 100)
    with pytest.raises(NoAccess) as caught:
        await await_alone(rest, "A", "lab")
    assert caught.value.reason == "device-in-use"
    assert caught.value.detail == (
        "another agent runs as device 'A' of group 'lab'; stop one of them, or give this one a --device and a --state"
        " of its own"
    )
    assert sum(rest.pauses) == WAIT_S


def test_the_time_counts_anew_after_this_one_was_taken() -> None:
    rival = Rival()
    assert not rival.lasts(0.0)
    assert not rival.lasts(WAIT_S - 0.1)
    rival.gone()
    assert not rival.lasts(WAIT_S)
    assert rival.lasts(2 * WAIT_S)
