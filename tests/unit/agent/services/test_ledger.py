import asyncio

import pytest

from agent.core.events import (
    Event,
    FileFailed,
    FileVerified,
    ForgeryFound,
    LinkChanged,
    Receipt,
    ReceiptsChanged,
    StreamCancelled,
    StreamOpened,
    StreamProgress,
)
from agent.services import ledger as ledger_module
from agent.services.ledger import Entry, Ledger, News, all_verified, ended, happened

OWN = StreamOpened("s1", "files", "A", "file", "f", 100)
FOREIGN = StreamOpened("s2", "files", "B", "file", "g", 100)


def fold(*events: Event) -> Ledger:
    ledger = Ledger("A")
    for event in events:
        ledger.on_event(event)
    return ledger


def entry_of(stream: str, *events: Event) -> Entry:
    entry = fold(*events).get(stream)
    assert entry is not None
    return entry


def test_a_stream_from_here_is_sent_and_another_received() -> None:
    assert [entry.state for entry in fold(OWN, FOREIGN).entries()] == ["sending", "receiving"]


def test_progress_and_verification_are_noted() -> None:
    verified = FileVerified("s2", "files", "B", "g", 100, "ff")
    assert entry_of("s2", FOREIGN, StreamProgress("s2", 40, 100)).held_bytes == 40
    entry = entry_of("s2", FOREIGN, verified)
    assert (entry.state, entry.held_bytes, entry.sha256) == ("verified", 100, "ff")


def test_a_failure_and_a_cancellation_keep_their_reason() -> None:
    failed = entry_of("s2", FOREIGN, FileFailed("s2", "no-space", "disk full"))
    assert (failed.state, failed.reason) == ("failed", "no-space: disk full")
    cancelled = entry_of("s1", OWN, StreamCancelled("s1", "the user changed his mind"))
    assert (cancelled.state, cancelled.reason) == ("cancelled", "the user changed his mind")


def test_a_stream_is_sent_when_every_device_said_its_last_word() -> None:
    some = ReceiptsChanged("s1", {"B": Receipt("verified"), "C": Receipt("receiving", 5)})
    every = ReceiptsChanged("s1", {"B": Receipt("verified"), "C": Receipt("refused", 0, "no-space")})
    assert entry_of("s1", OWN, some).state == "sending"
    assert entry_of("s1", OWN, some, every).state == "sent"


def test_events_of_other_things_and_unknown_streams_change_nothing() -> None:
    assert fold(LinkChanged("B", "open"), StreamProgress("none", 1, 2)).entries() == []


@pytest.mark.parametrize(("bringer", "named"), [("C", "C"), (None, "nobody")])
def test_a_forgery_is_logged_with_who_brought_it_and_the_stream_goes_on(
    caplog: pytest.LogCaptureFixture, bringer: str | None, named: str
) -> None:
    entry = entry_of("s2", FOREIGN, StreamProgress("s2", 40, 100), ForgeryFound("s2", "B", 5, 8, bringer))
    assert (entry.state, entry.held_bytes, entry.reason) == ("receiving", 40, entry_of("s2", FOREIGN).reason)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"= chunks 5 to 8 of stream s2 are not what B sent; {named} was bringing it: dropped, asked for elsewhere"
    )


def test_the_oldest_streams_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "ENTRIES_KEPT", 1)
    ledger = fold(OWN, FOREIGN)
    assert [entry.stream for entry in ledger.entries()] == ["s2"]
    assert ledger.get("s1") is None


def test_every_awaited_device_has_a_receipt() -> None:
    entry = entry_of("s1", OWN, ReceiptsChanged("s1", {"B": Receipt("verified", 100)}))
    entry.members = ("B", "C")
    settled = entry.settled(lambda: ("A", "B", "C"))
    assert settled == {"B": Receipt("verified", 100), "C": Receipt("waiting")}
    assert not ended(settled)


def test_a_device_that_left_is_not_waited_for() -> None:
    entry = entry_of("s1", OWN, ReceiptsChanged("s1", {"B": Receipt("verified"), "C": Receipt("receiving", 7)}))
    entry.members = ("B", "C")
    settled = entry.settled(lambda: ("A",))
    assert settled["B"].state == "verified"
    assert settled["C"] == Receipt("refused", 7, "no member of the group any more")
    assert ended(settled)
    assert not all_verified(settled)


async def test_news_wake_those_that_wait_and_not_those_that_come_later() -> None:
    news = News()
    waiting = asyncio.create_task(happened(news.next(), 10))
    await asyncio.sleep(0)
    news.happen()
    assert await waiting
    assert not await happened(news.next(), 0)


async def test_an_event_wakes_who_waits_for_the_stream() -> None:
    ledger = fold(OWN)
    entry = ledger.get("s1")
    assert entry is not None
    news = entry.news.next()
    ledger.on_event(StreamProgress("s1", 1, 100))
    assert await happened(news, 0)
