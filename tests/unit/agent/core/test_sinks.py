"""What becomes of chunks: files hashed in order, messages put together, and what is said of what is missing."""

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import sinks as module
from agent.core.events import Event, FileFailed, FileVerified, MessageGap, MessageReceived
from agent.core.memory_store import MemoryStreamStore
from agent.core.rangeset import RangeSet
from agent.core.sinks import FINISH_AT_ONCE_BYTES, HASH_AT_ONCE, READ_AT_ONCE, FileHasher, FileSink, MessageSink
from agent.core.store import StoreError
from common.datagrams import FLAG_END, FLAG_PROOF, FLAG_START
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
        self.store.write_run(number, [plain], [TAG])
        self.held.add(number)

    def take(self, number: int, plain: bytes) -> list[Event]:
        self.keep(number, plain)
        closing = number == of_size(self.size_bytes).closing_number
        return list(self.sink.on_run(number, FLAG_PROOF if closing else 0, [plain]))

    def take_run(self, start: int, plains: list[bytes]) -> list[Event]:
        self.store.write_run(start, plains, [TAG] * len(plains))
        self.held.add_range(start, start + len(plains))
        return list(self.sink.on_run(start, 0, plains))


# --- files --------------------------------------------------------------------------------------------------------


@given(st.permutations([1, 2, 3, 4]))
def test_a_file_is_verified_once_its_pieces_came_in_any_order(order: list[int]) -> None:
    bench = FileBench()
    said = [event for number in order for event in bench.take(number, [*PIECES, DIGEST][number - 1])]
    assert said == [VERIFIED]
    assert bench.store.digest == DIGEST
    assert list(bench.sink.advance()) == []
    assert list(bench.sink.skip_below(9)) == []


@given(st.permutations(range(12)), st.integers(0, 1 << 32))
def test_a_file_is_verified_once_its_runs_came_in_any_order(order: list[int], seed: int) -> None:
    rng = random.Random(seed)
    pieces = [rng.randbytes(1_000) for _ in range(30)]
    cuts = sorted({1, 31, *(rng.randint(1, 30) for _ in range(9))})
    runs = [(start, pieces[start - 1 : stop - 1]) for start, stop in itertools.pairwise(cuts)]
    bench = FileBench(size_bytes=30_000)
    digest = hashlib.sha256(b"".join(pieces)).digest()
    said = []
    for turn in order:
        if turn == 11:
            said += bench.take(31, digest)
        elif turn < len(runs):
            said += bench.take_run(*runs[turn])
    assert [type(event) for event in said] == [FileVerified]
    assert bench.store.digest == digest


def test_pieces_that_come_in_order_are_hashed_as_they_come_and_not_read_back() -> None:
    bench = FileBench(size_bytes=5_000)
    bench.store.failing = "read"
    assert bench.take_run(1, PIECES[:1] * 3) == []
    assert bench.take_run(4, PIECES[:1] * 2) == []
    digest = hashlib.sha256(b"a" * 5_000).digest()
    assert [type(event) for event in bench.take(6, digest)] == [FileVerified]


def test_a_run_that_has_the_closing_record_in_it_is_taken_too() -> None:
    bench = FileBench()
    assert bench.take_run(1, [*PIECES, DIGEST]) == [VERIFIED]


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
    monkeypatch.setattr(module, "READ_AT_ONCE", 1)
    bench = FileBench(size_bytes=5_000)
    for number in range(1, 6):
        bench.keep(number, bytes(1_000))
    hasher = FileHasher(5, bench.held, bench.store)
    assert [hasher.catch_up(), hasher.catch_up(), hasher.done] == [True, True, False]
    assert not hasher.catch_up()
    assert hasher.done
    assert hasher.digest() == hashlib.sha256(bytes(5_000)).digest()
    assert not hasher.feed(6, [b"no piece"])
    assert hasher.digest() == hashlib.sha256(bytes(5_000)).digest()


def test_stored_pieces_are_read_some_together_and_no_further_than_they_are_stored() -> None:
    reads: list[tuple[int, int]] = []

    class Noting(MemoryStreamStore):
        def read_run(self, start: int, count: int) -> list[bytes]:
            reads.append((start, count))
            return super().read_run(start, count)

    pieces = HASH_AT_ONCE + READ_AT_ONCE + 9
    store, held = Noting(), RangeSet([(1, pieces + 1)])
    store.write_run(1, [b"x"] * pieces, [TAG] * pieces)
    hasher = FileHasher(pieces, held, store)
    held.discard(10)
    assert not hasher.catch_up()
    assert reads == [(1, 9)]
    held.add(10)
    assert hasher.catch_up()
    assert hasher.next_number == 10 + HASH_AT_ONCE
    assert max(count for _, count in reads) == READ_AT_ONCE
    assert not hasher.catch_up()
    assert hasher.done
    assert sum(count for _, count in reads) == pieces


def test_a_run_is_hashed_only_if_it_is_the_next_one_and_what_comes_behind_it_is_told() -> None:
    held = RangeSet([(5, 6)])
    hasher = FileHasher(6, held, MemoryStreamStore())
    assert not hasher.feed(2, [b"b"])
    assert hasher.feed(1, [b"a", b"b"])
    assert hasher.next_number == 3
    assert not hasher.feed(1, [b"a"])
    assert not hasher.feed(3, [b"c"] * 5)
    # It is hashed; behind it is a piece that is stored already.
    assert not hasher.feed(3, [b"c", b"d"])
    assert hasher.next_number == 5
    # It is hashed, and there is nothing behind it.
    assert not hasher.feed(5, [b"e", b"f"])
    assert hasher.done
    assert hasher.digest() == hashlib.sha256(b"abcdef").digest()


def test_what_the_store_lost_in_the_middle_of_what_is_read_together_is_missing_again() -> None:
    bench = FileBench(size_bytes=6_000)
    for number in (2, 3, 5, 6):
        bench.keep(number, bytes(1_000))
    bench.held.add(4)
    assert bench.take(1, bytes(1_000)) == []
    assert list(bench.held) == [(1, 4), (5, 7)]
    assert bench.take(7, hashlib.sha256(bytes(6_000)).digest()) == []
    assert [type(event) for event in bench.take(4, bytes(1_000))] == [FileVerified]


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
        self.store.write_run(number, [plain], [TAG])
        self.held.add(number)
        if flags:
            self.flags[number] = flags
        return list(self.sink.on_run(number, flags, [plain]))

    def take_run(self, start: int, flags: int, plains: list[bytes]) -> list[Event]:
        stop = start + len(plains)
        self.store.write_run(start, plains, [TAG] * len(plains))
        self.held.add_range(start, stop)
        self.flags.update(dict.fromkeys(range(start, stop), flags))
        return list(self.sink.on_run(start, flags, plains))


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


@given(st.lists(st.binary(max_size=12), max_size=12), st.integers(0, 1 << 32))
def test_messages_are_delivered_once_in_their_order_whatever_the_runs_their_chunks_came_in(
    messages: list[bytes], seed: int
) -> None:
    rng = random.Random(seed)
    runs: list[tuple[int, int, list[bytes]]] = []
    for number, flags, part in cut(messages):
        if runs and runs[-1][1] == flags and rng.random() < 0.8:
            runs[-1][2].append(part)
        else:
            runs.append((number, flags, [part]))
    rng.shuffle(runs)
    bench = MessageBench()
    said = [event for run in runs for event in bench.take_run(*run)]
    assert payloads(said) == messages
    assert len(said) == len(messages)


def test_each_message_of_a_run_names_its_own_chunk() -> None:
    bench = MessageBench()
    assert bench.take_run(3, WHOLE, [b"c", b"d"]) == []
    assert [
        (event.number, event.payload)
        for event in bench.take_run(1, WHOLE, [b"a", b"b"])
        if isinstance(event, MessageReceived)
    ] == [
        (1, b"a"),
        (2, b"b"),
        (3, b"c"),
        (4, b"d"),
    ]


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


def test_what_a_file_has_gathered_is_handed_over_when_it_is_whole_and_before_that_in_time() -> None:
    class Gathering(MemoryStreamStore):
        def hand_over(self, *, overdue_only: bool = False) -> None:
            asked.append(overdue_only)

    asked: list[bool] = []
    store = Gathering()
    held = RangeSet([(1, 4)])
    sink = FileSink(FILE, held, store)
    store.write_run(1, PIECES, [TAG] * 3)
    assert list(sink.on_run(1, 0, PIECES)) == []
    asked.clear()
    assert list(sink.advance()) == []
    assert asked == [True]
    held.add(4)
    assert list(sink.on_run(4, FLAG_PROOF, [DIGEST])) == [VERIFIED]
    assert list(sink.advance()) == []
    assert asked == [True, False]


def test_a_file_is_not_finished_while_its_disk_is_far_behind() -> None:
    class Behind(MemoryStreamStore):
        unwritten = FINISH_AT_ONCE_BYTES + 1

        @property
        def unwritten_bytes(self) -> int:
            return self.unwritten

    store = Behind()
    held = RangeSet()
    sink = FileSink(FILE, held, store)
    store.write_run(1, PIECES, [TAG] * 3)
    held.add_range(1, 4)
    assert list(sink.on_run(1, 0, PIECES)) == []
    held.add(4)
    assert list(sink.on_run(4, FLAG_PROOF, [DIGEST])) == []
    assert store.digest is None
    assert list(sink.advance()) == []
    store.unwritten = FINISH_AT_ONCE_BYTES
    assert list(sink.advance()) == [VERIFIED]
    assert list(sink.advance()) == []
