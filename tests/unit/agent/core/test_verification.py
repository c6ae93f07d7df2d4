"""Chunks of an earlier run are checked, some at a time, before they count as held."""

from collections import Counter
from collections.abc import Container

import pytest

from agent.core import verification as module
from agent.core.entry import Entry
from agent.core.memory_store import MemoryStreamStore
from agent.core.rangeset import RangeSet
from agent.core.receipts import ReceiptBook
from agent.core.store import StoreError
from agent.core.stream import SEALED_AT_ONCE
from agent.core.verification import Verification
from tests.unit.agent.core.parts import make_stream, of_size


class Broken(MemoryStreamStore):
    """A store of which nothing can be read, or some chunks cannot."""

    bad: Container[int] = range(1 << 56)

    def read(self, number: int) -> bytes | None:
        if number in self.bad:
            raise StoreError("io", "the medium fails")
        return super().read(number)


def entry_of(store: MemoryStreamStore, pieces: int) -> Entry:
    """Return a stream over a store that an earlier run filled."""
    opening = of_size(pieces * 1_000)
    earlier = make_stream(opening, store=store)
    plains = [bytes(1_000)] * pieces
    earlier.keep(1, 0, earlier.seal(1, 0, plains), plains)
    return Entry(make_stream(opening, store=store), ReceiptBook())


def test_nothing_waits_at_first() -> None:
    verification = Verification(Counter())
    assert not verification
    assert verification.run() == []


def test_a_stream_is_through_when_all_its_chunks_were_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VERIFY_AT_ONCE", 4)
    drops: Counter[str] = Counter()
    verification = Verification(drops)
    one, other = entry_of(MemoryStreamStore(), 6), entry_of(MemoryStreamStore(), 1)
    verification.add(one, RangeSet([(1, 3), (4, 7)]))
    verification.add(other, RangeSet([(1, 2)]))
    assert verification
    assert one in verification
    assert verification.run() == []
    assert list(one.stream.held) == [(1, 3), (4, 6)]
    assert verification.run() == [one, other]
    assert list(one.stream.held) == [(1, 3), (4, 7)]
    assert list(other.stream.held) == [(1, 2)]
    assert one not in verification
    assert not verification
    assert not drops


def test_a_stream_with_nothing_stored_is_through_at_once() -> None:
    verification = Verification(Counter())
    entry = entry_of(MemoryStreamStore(), 0)
    verification.add(entry, RangeSet())
    assert verification.run() == [entry]


def test_chunks_that_changed_or_cannot_be_read_are_counted_and_not_held() -> None:
    drops: Counter[str] = Counter()
    verification = Verification(drops)
    store = MemoryStreamStore()
    changed, unreadable = entry_of(store, 3), entry_of(Broken(), 2)
    store._chunks[2] = b"edited"
    verification.add(changed, RangeSet([(1, 4)]))
    verification.add(unreadable, RangeSet([(1, 3)]))
    assert verification.run() == [changed, unreadable]
    assert list(changed.stream.held) == [(1, 2), (3, 4)]
    assert not unreadable.stream.held
    assert drops == {"resume-chunk-changed": 1, "resume-chunk-unreadable": 2}


def test_every_chunk_is_checked_however_many_of_those_before_it_changed() -> None:
    drops: Counter[str] = Counter()
    verification = Verification(drops)
    store, pieces = MemoryStreamStore(), 3 * SEALED_AT_ONCE
    entry = entry_of(store, pieces)
    changed = (1, 2, 9, SEALED_AT_ONCE, SEALED_AT_ONCE + 1, 2 * SEALED_AT_ONCE + 7, pieces)
    for number in changed:
        store._chunks[number] = b"edited"
    store._tags.pop(30)
    verification.add(entry, RangeSet([(1, pieces + 1)]))
    assert verification.run() == [entry]
    missing = [number for start, stop in entry.stream.missing() for number in range(start, stop)]
    assert missing == sorted({*changed, 30, pieces + 1})
    assert drops == {"resume-chunk-changed": len(changed) + 1}


def test_a_chunk_that_cannot_be_read_does_not_condemn_those_round_it() -> None:
    drops: Counter[str] = Counter()
    verification = Verification(drops)
    store, pieces = Broken(), 2 * SEALED_AT_ONCE + 5
    entry = entry_of(store, pieces)
    store.bad = (5, 6, SEALED_AT_ONCE + 1, pieces)
    store._chunks[7] = b"edited"
    verification.add(entry, RangeSet([(1, pieces + 1)]))
    assert verification.run() == [entry]
    missing = [number for start, stop in entry.stream.missing() for number in range(start, stop)]
    assert missing == [5, 6, 7, SEALED_AT_ONCE + 1, pieces, pieces + 1]
    assert drops == {"resume-chunk-changed": 1, "resume-chunk-unreadable": 4}
