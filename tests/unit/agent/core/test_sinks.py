"""What becomes of chunks: files hashed in order, messages put together, and what is said of what is missing."""

import dataclasses
import hashlib
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import sinks as module
from agent.core.events import Event, FileFailed, FileVerified, MessageGap, MessageReceived
from agent.core.memory_store import MemoryStreamStore
from agent.core.rangeset import RangeSet
from agent.core.sinks import FileHasher, FileSink, MessageSink
from agent.core.store import StoreError
from common.datagrams import FLAG_CLOSING, FLAG_END, FLAG_START
from common.limits import MAX_MESSAGE_BYTES
from tests.unit.agent.core.parts import FILE, MESSAGE, of_size

TAG = bytes(16)
WHOLE = FLAG_START | FLAG_END
PIECES = [b"a" * 1_000, b"b" * 1_000, b"c" * 500]
DIGEST = hashlib.sha256(b"".join(PIECES)).digest()
VERIFIED = FileVerified(FILE.hex, "files", "A", "model.bin", 2_500, DIGEST.hex())


class Failing(MemoryStreamStore):
    """A store whose medium fails, in reading or in giving the file its name."""

    failing = ""

    def read(self, number: int) -> bytes | None:
        if self.failing == "read":
            raise StoreError("io", "the medium fails")
        return super().read(number)

    def finish(self, digest: bytes | None) -> None:
        if self.failing == "finish":
            raise StoreError("bad-name", "no such name")
        super().finish(digest)


@dataclasses.dataclass
class FileBench:
    """A file sink with its store."""

    size_bytes: int = 2_500
    store: Failing = dataclasses.field(default_factory=Failing)
    held: RangeSet = dataclasses.field(default_factory=RangeSet)

    def __post_init__(self) -> None:
        self.sink = FileSink(of_size(self.size_bytes), self.held, self.store)

    def keep(self, number: int, plain: bytes) -> None:
        self.store.write(number, plain, TAG)
        self.held.add(number)

    def take(self, number: int, plain: bytes) -> list[Event]:
        self.keep(number, plain)
        closing = number == of_size(self.size_bytes).closing_number
        return list(self.sink.on_chunk(number, FLAG_CLOSING if closing else 0, plain))


# --- files --------------------------------------------------------------------------------------------------------


@given(st.permutations([1, 2, 3, 4]))
def test_a_file_is_verified_once_its_pieces_came_in_any_order(order: list[int]) -> None:
    bench = FileBench()
    said = [event for number in order for event in bench.take(number, [*PIECES, DIGEST][number - 1])]
    assert said == [VERIFIED]
    assert bench.store.digest == DIGEST
    assert list(bench.sink.advance()) == []
    assert list(bench.sink.skip_below(9)) == []


def test_an_empty_file_needs_its_closing_record_alone() -> None:
    bench = FileBench(size_bytes=0)
    digest = hashlib.sha256(b"").digest()
    assert bench.take(1, digest) == [FileVerified(FILE.hex, "files", "A", "model.bin", 0, digest.hex())]


def test_a_file_with_another_hash_fails_once_and_gets_no_name() -> None:
    bench = FileBench()
    for number, piece in enumerate(PIECES, 1):
        assert bench.take(number, piece) == []
    (failed,) = bench.take(4, bytes(32))
    assert isinstance(failed, FileFailed)
    assert failed.reason == "hash-mismatch"
    assert bench.store.digest is None
    assert list(bench.sink.advance()) == []


def test_a_closing_record_of_an_earlier_run_is_read_back() -> None:
    bench = FileBench()
    for number, plain in enumerate([*PIECES, DIGEST], 1):
        bench.keep(number, plain)
    assert list(bench.sink.advance()) == [VERIFIED]


def test_a_name_that_cannot_be_taken_is_a_failure() -> None:
    bench = FileBench()
    bench.store.failing = "finish"
    said = [event for number, plain in enumerate([*PIECES, DIGEST], 1) for event in bench.take(number, plain)]
    assert said == [FileFailed(FILE.hex, "bad-name", "no such name")]


def test_a_store_that_cannot_be_read_fails_the_file_once() -> None:
    bench = FileBench()
    bench.take(2, PIECES[1])
    bench.store.failing = "read"
    assert bench.take(1, PIECES[0]) == [FileFailed(FILE.hex, "io", "the medium fails")]
    assert bench.take(3, PIECES[2]) == []
    assert list(bench.sink.advance()) == []


def test_a_closing_record_that_cannot_be_read_back_fails_the_file() -> None:
    bench = FileBench(size_bytes=0)
    bench.keep(1, bytes(32))
    bench.store.failing = "read"
    assert list(bench.sink.advance()) == [FileFailed(FILE.hex, "io", "the medium fails")]


def test_a_piece_that_the_store_lost_is_missing_again() -> None:
    bench = FileBench()
    bench.held.add_range(2, 4)
    assert bench.take(1, PIECES[0]) == []
    assert list(bench.held) == [(1, 2), (3, 4)]
    bench.keep(3, PIECES[2])
    bench.take(2, PIECES[1])
    assert bench.take(4, DIGEST) == [VERIFIED]


def test_a_file_whose_pieces_passed_their_retention_fails_once() -> None:
    bench = FileBench()
    (failed,) = bench.sink.skip_below(3)
    assert isinstance(failed, FileFailed)
    assert failed.reason == "expired"
    assert list(bench.sink.skip_below(4)) == []


def test_stored_pieces_are_hashed_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HASH_AT_ONCE", 2)
    bench = FileBench(size_bytes=5_000)
    for number in range(1, 6):
        bench.keep(number, bytes(1_000))
    hasher = FileHasher(5, bench.held, bench.store)
    assert [hasher.catch_up(), hasher.catch_up(), hasher.done] == [True, True, False]
    assert not hasher.catch_up()
    assert hasher.done
    assert hasher.digest() == hashlib.sha256(bytes(5_000)).digest()
    hasher.feed(6, b"no piece")
    assert hasher.digest() == hashlib.sha256(bytes(5_000)).digest()


# --- messages -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class MessageBench:
    """A message sink with its store."""

    store: MemoryStreamStore = dataclasses.field(default_factory=MemoryStreamStore)
    held: RangeSet = dataclasses.field(default_factory=RangeSet)
    flags: dict[int, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sink = MessageSink(MESSAGE, self.held, self.store, self.flags)

    def take(self, number: int, flags: int, plain: bytes) -> list[Event]:
        self.store.write(number, plain, TAG)
        self.held.add(number)
        if flags:
            self.flags[number] = flags
        return list(self.sink.on_chunk(number, flags, plain))


def payloads(events: list[Event]) -> list[bytes]:
    return [event.payload for event in events if isinstance(event, MessageReceived)]


def gap(first: int, last: int) -> MessageGap:
    return MessageGap("messages", "A", MESSAGE.hex, first, last)


def cut(messages: list[bytes], piece: int = 3) -> Iterator[tuple[int, int, bytes]]:
    """Cut messages into numbered chunks."""
    number = 0
    for message in messages:
        pieces = [message[at : at + piece] for at in range(0, len(message), piece)] or [b""]
        for index, part in enumerate(pieces):
            number += 1
            yield number, (FLAG_START if not index else 0) | (FLAG_END if index == len(pieces) - 1 else 0), part


@given(st.lists(st.binary(max_size=12), max_size=12), st.integers(0, 1 << 32))
def test_messages_are_delivered_once_in_their_order_whatever_the_order_of_their_chunks(
    messages: list[bytes], seed: int
) -> None:
    bench, chunks = MessageBench(), list(cut(messages))
    random.Random(seed).shuffle(chunks)
    said = [event for chunk in chunks for event in bench.take(*chunk)]
    assert payloads(said) == messages
    assert len(said) == len(messages)
    assert list(bench.sink.advance()) == []


def test_a_message_names_its_last_chunk() -> None:
    bench = MessageBench()
    assert bench.take(1, FLAG_START, b"ab") == []
    assert bench.take(2, FLAG_END, b"c") == [MessageReceived("messages", "A", MESSAGE.hex, 2, b"abc")]


def test_what_was_given_up_is_told_and_the_rest_of_its_message_is_not_delivered() -> None:
    bench = MessageBench()
    bench.take(1, FLAG_START, b"lost")
    bench.take(3, FLAG_END, b"half")
    bench.take(4, WHOLE, b"whole")
    assert list(bench.sink.skip_below(3)) == [gap(2, 2)]
    assert payloads(list(bench.sink.advance())) == [b"whole"]
    assert list(bench.sink.skip_below(2)) == []


def test_a_chunk_that_the_store_lost_is_a_gap() -> None:
    bench = MessageBench()
    bench.held.add_range(1, 3)
    assert list(bench.sink.advance()) == [gap(1, 1), gap(2, 2)]
    assert payloads(bench.take(3, WHOLE, b"whole")) == [b"whole"]


def test_a_message_that_begins_anew_drops_what_came_before() -> None:
    bench = MessageBench()
    bench.take(1, FLAG_START, b"old")
    bench.take(2, FLAG_START, b"new")
    assert payloads(bench.take(3, FLAG_END, b"er")) == [b"newer"]


def test_a_message_may_have_its_most_bytes_and_a_larger_one_is_dropped() -> None:
    bench = MessageBench()
    half = bytes(MAX_MESSAGE_BYTES // 2)
    bench.take(1, FLAG_START, half)
    (received,) = payloads(bench.take(2, FLAG_END, half))
    assert len(received) == MAX_MESSAGE_BYTES
    bench.take(3, FLAG_START, half)
    bench.take(4, 0, half)
    assert bench.take(5, 0, b"x") == []
    assert bench.take(6, FLAG_END, b"x") == []
    assert payloads(bench.take(7, WHOLE, b"small")) == [b"small"]
