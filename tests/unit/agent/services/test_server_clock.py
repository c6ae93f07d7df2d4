import logging
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from agent.services.server_clock import ServerClock
from common.limits import MAX_CLOCK_SKEW_S

WALL = 1_800_000_000.0


def date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def clock(ahead_s: float) -> ServerClock:
    made = ServerClock(lambda: WALL + ahead_s)
    made.note(date(WALL))
    return made


@pytest.mark.parametrize("ahead_s", [0.0, 1.0, -1.0, MAX_CLOCK_SKEW_S, -MAX_CLOCK_SKEW_S])
def test_a_clock_that_is_about_right_is_nothing_to_talk_about(ahead_s: float) -> None:
    assert clock(ahead_s).skew_s == ahead_s
    assert clock(ahead_s).wrong() is None


@pytest.mark.parametrize(
    ("ahead_s", "words"),
    [
        (MAX_CLOCK_SKEW_S + 1, "10 min ahead of"),
        (-MAX_CLOCK_SKEW_S - 1, "10 min behind"),
        (7_200.0, "2 h ahead of"),
        (-900_000.0, "10.4 d behind"),
    ],
)
def test_a_wrong_clock_is_told_with_how_much_and_which_way(ahead_s: float, words: str) -> None:
    assert clock(ahead_s).wrong() == (
        f"this device's clock is {words} the server's, and more than 10 min make streams expire early or be refused:"
        " set one of them right"
    )


@pytest.mark.parametrize("text", [None, "", "yesterday", "Mon, 99 Jan 2024 00:00:00 GMT"])
def test_an_answer_without_a_date_says_nothing(text: str | None) -> None:
    made = ServerClock(lambda: WALL)
    made.note(text)
    assert (made.skew_s, made.wrong()) == (None, None)


def test_it_is_logged_once_and_again_after_it_was_right(caplog: pytest.LogCaptureFixture) -> None:
    made = ServerClock(lambda: WALL)
    with caplog.at_level(logging.WARNING):
        for server_s in (WALL, WALL - 5_000, WALL - 5_000, WALL, WALL + 5_000):
            made.note(date(server_s))
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "ahead of" in caplog.messages[0]
    assert "behind" in caplog.messages[1]


def test_less_than_a_minute_is_told_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.services.server_clock.MAX_CLOCK_SKEW_S", 5.0)
    assert "clock is 30 s ahead of the server's, and more than 5 s" in str(clock(30.0).wrong())
