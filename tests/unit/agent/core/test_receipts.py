"""Receipts on their way up the tree: merging, and when they are passed on."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.events import Receipt
from agent.core.receipts import PROGRESS_EVERY_S, ReceiptBook
from common.limits import MAX_DEVICES_PER_GROUP, MAX_REASON_BYTES
from common.stream_frames import RECEIPT_STATES, SIGNED_STATES, ReceiptEntry

entries = st.lists(
    st.builds(
        ReceiptEntry,
        st.sampled_from("BCD"),
        st.sampled_from(RECEIPT_STATES),
        st.integers(0, 3),
        st.sampled_from(["", "io", "no-space"]),
    ),
    max_size=8,
)


def genuine(_: ReceiptEntry) -> bool:
    return True


def book_of(*parts: list[ReceiptEntry]) -> ReceiptBook:
    book = ReceiptBook()
    for part in parts:
        book.merge(part, genuine)
    return book


@given(entries)
def test_merging_twice_is_merging_once(news: list[ReceiptEntry]) -> None:
    book = book_of(news)
    before = dict(book.receipts)
    assert not book.merge(news, genuine)
    assert not book.merge(book.entries(), genuine)
    assert book.receipts == before


@given(entries, st.randoms(use_true_random=False))
def test_the_order_of_merging_is_nothing(news: list[ReceiptEntry], rng: random.Random) -> None:
    shuffled = list(news)
    rng.shuffle(shuffled)
    assert book_of(news).receipts == book_of(shuffled).receipts


@given(entries, entries, entries)
def test_what_is_merged_on_the_way_is_what_is_merged_at_the_source(
    one: list[ReceiptEntry], two: list[ReceiptEntry], three: list[ReceiptEntry]
) -> None:
    relay = book_of(two, three)
    assert book_of(one, relay.entries()).receipts == book_of(three, two, one).receipts


@pytest.mark.parametrize(
    ("less", "more"), list(itertools.combinations(["waiting", "receiving", "cancelled", "refused", "verified"], 2))
)
def test_a_state_never_goes_back(less: str, more: str) -> None:
    book = book_of([ReceiptEntry("B", more, 0, "")])
    assert not book.merge([ReceiptEntry("B", less, 99, "")], genuine)
    assert book_of([ReceiptEntry("B", less, 99, "")]).merge([ReceiptEntry("B", more, 0, "")], genuine)


def test_progress_counts_only_forward() -> None:
    book = ReceiptBook()
    assert book.put("B", Receipt("receiving", 5))
    assert not book.put("B", Receipt("receiving", 5))
    assert not book.put("B", Receipt("receiving", 4))
    assert book.put("B", Receipt("receiving", 6))


def test_the_first_news_is_due_at_once_and_progress_once_a_second() -> None:
    book = ReceiptBook()
    assert book.due_at() is None
    book.put("B", Receipt("receiving", 1))
    assert book.due_at() == 0.0
    assert book.take(10.0) == [ReceiptEntry("B", "receiving", 1, "")]
    assert book.due_at() is None
    book.put("B", Receipt("receiving", 2))
    assert book.due_at() == 10.0 + PROGRESS_EVERY_S


@pytest.mark.parametrize("state", ["verified", "refused", "cancelled"])
def test_a_final_receipt_is_due_at_once(state: str) -> None:
    book = ReceiptBook()
    book.put("B", Receipt("receiving", 1))
    book.take(10.0)
    book.merge([ReceiptEntry("B", state, 1, "")], genuine)
    assert book.due_at() == 0.0
    book.take(10.1)
    book.put("C", Receipt("receiving", 1))
    assert book.due_at() == 10.1 + PROGRESS_EVERY_S


def test_only_what_changed_is_passed_on_and_all_of_it_on_request() -> None:
    book = ReceiptBook()
    book.put("B", Receipt("receiving", 1))
    book.put("C", Receipt("receiving", 1))
    book.take(0.0)
    book.put("C", Receipt("verified", 2))
    assert [entry.device for entry in book.take(0.1)] == ["C"]
    assert book.take(0.2) == []
    assert [entry.device for entry in book.entries()] == ["B", "C"]


@pytest.mark.parametrize(("state", "due_at"), [("receiving", 10.0 + PROGRESS_EVERY_S), ("verified", 0.0)])
def test_all_is_passed_on_once_more_when_the_way_changed_and_at_once_if_some_is_final(
    state: str, due_at: float
) -> None:
    book = book_of([ReceiptEntry("B", "receiving", 1, ""), ReceiptEntry("C", state, 2, "")])
    book.take(10.0)
    book.touch_all()
    assert book.due_at() == due_at
    assert [entry.device for entry in book.take(10.5)] == ["B", "C"]


def test_a_long_reason_is_cut_between_two_characters() -> None:
    book = ReceiptBook()
    book.put("B", Receipt("refused", 0, "x" + "é" * MAX_REASON_BYTES))
    (entry,) = book.entries()
    assert entry.reason == "x" + "é" * ((MAX_REASON_BYTES - 1) // 2)
    assert len(entry.reason.encode()) <= MAX_REASON_BYTES


def test_more_devices_than_a_group_has_are_not_taken() -> None:
    book = ReceiptBook()
    receipt = Receipt("waiting")
    book.receipts = {f"D{number}": receipt for number in range(MAX_DEVICES_PER_GROUP)}
    assert not book.put("B", receipt)
    assert book.put("D7", Receipt("verified", 1))


@pytest.mark.parametrize("state", SIGNED_STATES)
def test_a_last_word_that_is_not_its_devices_own_changes_nothing_and_is_looked_at_once(state: str) -> None:
    asked: list[str] = []

    def is_genuine(entry: ReceiptEntry) -> bool:
        asked.append(entry.device)
        return entry.signature == b"right"

    book = ReceiptBook()
    book.put("B", Receipt("receiving", 1))
    assert not book.merge([ReceiptEntry("B", state, 9, "", b"wrong")], is_genuine)
    assert book.receipts == {"B": Receipt("receiving", 1)}
    assert book.merge([ReceiptEntry("B", "receiving", 2, "")], is_genuine), "progress is not signed"
    for _ in range(3):
        book.merge([ReceiptEntry("B", state, 9, "", b"right")], is_genuine)
    assert asked == ["B", "B"]
    assert [entry.signature for entry in book.entries()] == [b"right"], "whoever is nearer to the source looks again"
