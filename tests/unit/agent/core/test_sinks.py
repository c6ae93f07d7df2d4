"""What becomes of chunks: files verified block by block, messages put together, and what is said of what is missing."""

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import sinks as module
from agent.core.events import FileFailed, FileVerified, MessageGap, MessageReceived
from agent.core.memory_store import MemoryStreamStore
from agent.core.rangeset import RangeSet
from agent.core.sinks import (
    FINISH_AT_ONCE_BYTES,
    HASH_AT_ONCE,
    READ_AT_ONCE,
    FileHasher,
    FileSink,
    MessageSink,
    Outcome,
    Refuted,
)
from agent.core.store import StoreError
from common.blocks import DIGEST_BYTES, Blocks
from common.datagrams import FLAG_END, FLAG_PROOF, FLAG_START
from common.limits import MAX_MESSAGE_BYTES
from common.signing import (
    PURPOSE_BLOCK,
    PURPOSE_MESSAGE,
    PURPOSE_OPENING,
    SIGNATURE_BYTES,
    Signer,
    block_statement,
    message_statement,
)
from tests.unit.agent.core.parts import AUTHOR, FILE, MESSAGE, SECRET, SIGNER, of_size

TAG = bytes(16)
WHOLE = FLAG_START | FLAG_END
CONTENT = b"a" * 1_000 + b"b" * 1_000 + b"c" * 500
DIGEST = hashlib.sha256(CONTENT).digest()
VERIFIED = FileVerified(FILE.hex, "files", "A", "model.bin", 2_500, DIGEST.hex())
SIX = b"".join(bytes([letter]) * 1_000 for letter in b"abcdef")
"""Six pieces: in blocks of two their proofs are the chunks 3, 6 and 9."""
STRANGER = Signer(bytes(32), "lab")
"""A member of the group, and not the source."""


def proof_of(number: int, content: bytes, signer: Signer = SIGNER) -> bytes:
    """Return the proof of that number as a device signs it."""
    digest = hashlib.sha256(content).digest()
    return digest + signer.sign(PURPOSE_BLOCK, block_statement(FILE.stream, number, digest))


def chunks_of(content: bytes, blocks: Blocks) -> dict[int, bytes]:
    """Return a file's chunks as its source cuts them."""
    chunks = {}
    sent = 0
    for number in range(1, blocks.closing + 1):
        if blocks.is_proof(number):
            chunks[number] = proof_of(number, content[:sent])
        else:
            chunks[number] = content[sent : sent + 1_000]
            sent += len(chunks[number])
    assert sent == len(content)
    return chunks


def let_go(held: RangeSet, outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return what a sink says; what it refutes is held no longer before it is asked to go on."""
    said = []
    for outcome in outcomes:
        said.append(outcome)
        if isinstance(outcome, Refuted):
            held.remove_range(outcome.start, outcome.stop)
    return said


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
    """A file sink with its store, and the file's chunks as its source sends them."""

    content: bytes = CONTENT
    per_block: int = 1_000
    store: Failing = dataclasses.field(default_factory=Failing)
    held: RangeSet = dataclasses.field(default_factory=RangeSet)

    def __post_init__(self) -> None:
        self.blocks = Blocks(-(-len(self.content) // 1_000), self.per_block)
        self.chunks = chunks_of(self.content, self.blocks)
        self.sink = FileSink(of_size(len(self.content)), self.blocks, AUTHOR, self.held, self.store)

    def keep(self, number: int, plain: bytes | None = None) -> None:
        self.store.write_run(number, [self.chunks[number] if plain is None else plain], [TAG])
        self.held.add(number)

    def take(self, number: int, plain: bytes | None = None) -> list[Outcome]:
        """Take a chunk: the source's own, or other bytes in its place."""
        return self.take_run(number, [self.chunks[number] if plain is None else plain])

    def take_run(self, start: int, plains: list[bytes]) -> list[Outcome]:
        self.store.write_run(start, plains, [TAG] * len(plains))
        self.held.add_range(start, start + len(plains))
        flags = FLAG_PROOF if self.blocks.is_proof(start) else 0
        return let_go(self.held, self.sink.on_run(start, flags, plains))

    def take_all(self, numbers: Iterable[int]) -> list[Outcome]:
        return [outcome for number in numbers for outcome in self.take(number)]

    def advance(self) -> list[Outcome]:
        return let_go(self.held, self.sink.advance())

    @property
    def verified(self) -> FileVerified:
        """What is said of the file when it is whole."""
        digest = hashlib.sha256(self.content).hexdigest()
        return FileVerified(FILE.hex, "files", "A", "model.bin", len(self.content), digest)


# --- files --------------------------------------------------------------------------------------------------------


@given(st.permutations([1, 2, 3, 4]))
def test_a_file_is_verified_once_its_pieces_came_in_any_order(order: list[int]) -> None:
    bench = FileBench()
    assert bench.take_all(order) == [VERIFIED]
    assert bench.store.digest == DIGEST
    assert bench.advance() == []
    assert list(bench.sink.skip_below(9)) == []


@given(st.integers(0, 9), st.integers(1, 4), st.integers(0, 1 << 32))
def test_a_file_of_several_blocks_is_verified_once_its_chunks_came_in_any_order(
    pieces: int, per_block: int, seed: int
) -> None:
    rng = random.Random(seed)
    bench = FileBench(rng.randbytes(max(0, pieces * 1_000 - rng.randrange(1_000))), per_block)
    assert bench.take_all(rng.sample(sorted(bench.chunks), len(bench.chunks))) == [bench.verified]
    assert bench.store.digest == hashlib.sha256(bench.content).digest()
    assert bench.sink.verified_below == bench.blocks.closing + 1


@given(st.integers(1, 40), st.integers(0, 1 << 32))
def test_a_file_is_verified_once_its_runs_came_in_any_order(per_block: int, seed: int) -> None:
    rng = random.Random(seed)
    bench = FileBench(rng.randbytes(30_000), per_block)
    proofs = [number for number in bench.chunks if bench.blocks.is_proof(number)]
    ends = [stop for number in proofs for stop in (number, number + 1)]
    cuts = sorted({1, *ends, *(rng.randint(1, bench.blocks.closing) for _ in range(9))})
    runs = [(start, [bench.chunks[at] for at in range(start, stop)]) for start, stop in itertools.pairwise(cuts)]
    rng.shuffle(runs)
    assert [outcome for run in runs for outcome in bench.take_run(*run)] == [bench.verified]
    assert bench.store.digest == hashlib.sha256(bench.content).digest()


@pytest.mark.parametrize(("size_bytes", "proofs"), [(1_999, 1), (2_000, 1), (2_001, 2), (4_000, 2), (4_001, 3)])
def test_a_file_of_just_so_many_blocks_and_one_of_a_byte_more_are_verified(size_bytes: int, proofs: int) -> None:
    bench = FileBench(SIX[:size_bytes], per_block=2)
    assert sum(map(bench.blocks.is_proof, bench.chunks)) == proofs
    *others, closing = bench.chunks
    assert bench.take_all(others) == []
    assert bench.take(closing) == [bench.verified]


def test_pieces_that_come_in_order_are_hashed_as_they_come_and_not_read_back() -> None:
    bench = FileBench(b"a" * 5_000)
    bench.store.failing = "read"
    assert bench.take_run(1, [b"a" * 1_000] * 3) == []
    assert bench.take_run(4, [b"a" * 1_000] * 2) == []
    assert bench.sink.verified_below == 1, "their proof has not come"
    bench.store.failing = ""
    assert bench.take(6) == [bench.verified]


def test_a_run_that_has_the_closing_record_in_it_is_taken_too() -> None:
    bench = FileBench()
    assert bench.take_run(1, list(bench.chunks.values())) == [VERIFIED]
    bench = FileBench(SIX, per_block=2)
    assert bench.take_run(1, list(bench.chunks.values())) == [bench.verified]


def test_an_empty_file_needs_its_closing_record_alone() -> None:
    bench = FileBench(b"")
    assert bench.take(1) == [FileVerified(FILE.hex, "files", "A", "model.bin", 0, hashlib.sha256(b"").hexdigest())]


def test_a_closing_record_of_an_earlier_run_is_read_back() -> None:
    bench = FileBench()
    for number in bench.chunks:
        bench.keep(number)
    assert bench.advance() == [VERIFIED]


def test_a_name_that_cannot_be_taken_is_a_failure() -> None:
    bench = FileBench()
    bench.store.failing = "finish"
    assert bench.take_all(bench.chunks) == [FileFailed(FILE.hex, "bad-name", "no such name")]


def test_a_store_that_cannot_be_read_fails_the_file_once() -> None:
    bench = FileBench()
    bench.take(2)
    bench.store.failing = "read"
    assert bench.take(1) == [FileFailed(FILE.hex, "io", "the medium fails")]
    assert bench.take(3) == []
    assert bench.advance() == []


def test_a_closing_record_that_cannot_be_read_back_fails_the_file() -> None:
    bench = FileBench(b"")
    bench.keep(1)
    bench.store.failing = "read"
    assert bench.advance() == [FileFailed(FILE.hex, "io", "the medium fails")]


def test_a_piece_that_the_store_lost_is_missing_again() -> None:
    bench = FileBench()
    bench.held.add_range(2, 4)
    assert bench.take(1) == []
    assert list(bench.held) == [(1, 2), (3, 4)]
    bench.keep(3)
    bench.take(2)
    assert bench.take(4) == [VERIFIED]


def test_a_proof_that_the_store_lost_is_missing_again() -> None:
    bench = FileBench(SIX, per_block=2)
    bench.held.add(3)
    assert bench.take_all([1, 2]) == []
    assert list(bench.held) == [(1, 3)]
    assert bench.take_all([4, 5, 6, 7, 8, 9]) == []
    assert bench.take(3) == [bench.verified]


def test_a_file_whose_pieces_passed_their_retention_fails_once() -> None:
    bench = FileBench()
    (failed,) = bench.sink.skip_below(3)
    assert isinstance(failed, FileFailed)
    assert failed.reason == "expired"
    assert list(bench.sink.skip_below(4)) == []


# --- files: what their source never sent --------------------------------------------------------------------------


def _proof_as(number: int, content: bytes, *, stream: bytes = FILE.stream, purpose: bytes = PURPOSE_BLOCK) -> bytes:
    digest = hashlib.sha256(content).digest()
    return digest + SIGNER.sign(purpose, block_statement(stream, number, digest))


FORGED_PROOFS: dict[str, Callable[[int, bytes], bytes]] = {
    "another's signature": lambda number, content: proof_of(number, content, STRANGER),
    "another file, another's signature": lambda number, _: proof_of(number, b"forged", STRANGER),
    "another number": lambda number, content: proof_of(number + 3, content),
    "another stream": lambda number, content: _proof_as(number, content, stream=MESSAGE.stream),
    "another purpose": lambda number, content: _proof_as(number, content, purpose=PURPOSE_OPENING),
    "another group": lambda number, content: proof_of(number, content, Signer(SECRET, "other")),
    "another digest": lambda number, content: bytes(DIGEST_BYTES) + proof_of(number, content)[DIGEST_BYTES:],
    "a digest alone": lambda number, content: proof_of(number, content)[:DIGEST_BYTES],
    "no signature": lambda number, content: proof_of(number, content)[:DIGEST_BYTES] + bytes(SIGNATURE_BYTES),
    "a byte too few": lambda number, content: proof_of(number, content)[:-1],
    "a byte too many": lambda number, content: proof_of(number, content) + b"\0",
    "nothing": lambda number, content: b"",
}


@pytest.mark.parametrize("forgery", FORGED_PROOFS)
@pytest.mark.parametrize("number", [3, 6, 9])
def test_a_proof_that_the_source_did_not_sign_is_refuted_by_itself_and_the_right_one_taken(
    forgery: str, number: int
) -> None:
    bench = FileBench(SIX, per_block=2)
    others = [other for other in bench.chunks if other != number]
    assert bench.take_all(others) == []
    upto = SIX[: number // 3 * 2_000]
    for _ in range(2):
        assert bench.take(number, FORGED_PROOFS[forgery](number, upto)) == [Refuted(number, number + 1)]
        assert bench.sink.verified_below == number - 2
        assert bench.store.digest is None
        assert bench.advance() == []
    assert bench.take(number) == [bench.verified]


def test_a_proof_of_an_earlier_block_is_none_of_a_later_one() -> None:
    bench = FileBench(SIX, per_block=2)
    bench.take_all([1, 2, 3, 4, 5])
    assert bench.take(6, bench.chunks[3]) == [Refuted(6, 7)]
    assert bench.take_all([6, 7, 8, 9]) == [bench.verified]


@pytest.mark.parametrize("place", [1, 2, 4, 5, 7, 8])
@pytest.mark.parametrize("seed", range(4))
def test_a_forged_piece_refutes_its_block_and_no_other_and_the_right_pieces_are_taken(place: int, seed: int) -> None:
    bench = FileBench(SIX, per_block=2)
    block = range((place - 1) // 3 * 3 + 1, (place - 1) // 3 * 3 + 3)
    order = random.Random(seed).sample(sorted(bench.chunks), len(bench.chunks))
    said = [outcome for number in order for outcome in bench.take(number, b"forged" if number == place else None)]
    assert said == [Refuted(block.start, block.stop)]
    assert bench.store.digest is None
    assert list(bench.held.missing(1, 10)) == [(block.start, block.stop)]
    assert bench.sink.verified_below == block.start
    assert bench.take_all(block) == [bench.verified]
    assert bench.store.digest == hashlib.sha256(SIX).digest()


def test_pieces_in_one_anothers_places_are_refuted() -> None:
    bench = FileBench(SIX, per_block=2)
    bench.take_all([3, 4, 5, 6, 7, 8, 9])
    assert bench.take(1, bench.chunks[2]) == []
    assert bench.take(2, bench.chunks[1]) == [Refuted(1, 3)]
    # Those of the next block fail here too.
    assert bench.take(1, bench.chunks[4]) == []
    assert bench.take(2, bench.chunks[5]) == [Refuted(1, 3)]
    assert bench.take_all([2, 1]) == [bench.verified]


def test_what_is_forged_again_is_refuted_again_and_the_blocks_before_it_stay() -> None:
    bench = FileBench(SIX, per_block=2)
    assert bench.take_all([1, 2, 3]) == []
    for _ in range(3):
        assert bench.take_run(4, [b"forged", SIX[3_000:4_000]]) == []
        assert bench.take(6) == [Refuted(4, 6)]
        assert list(bench.held) == [(1, 4), (6, 7)]
        bench.held.discard(6)
    assert bench.take_all([6, 5, 4]) == []
    assert bench.sink.verified_below == 7
    assert bench.take_all([7, 8, 9]) == [bench.verified]


def test_forged_pieces_with_a_proof_of_their_own_get_no_further_than_the_proof() -> None:
    bench = FileBench(SIX, per_block=2)
    forged = [b"x" * 1_000, b"y" * 1_000]
    assert bench.take_run(1, forged) == []
    assert bench.take(3, proof_of(3, b"".join(forged), STRANGER)) == [Refuted(3, 4)]
    assert bench.take(3) == [Refuted(1, 3)]
    assert bench.take_all(range(1, 10)) == [bench.verified]


def test_two_forged_blocks_are_refuted_one_after_the_other() -> None:
    bench = FileBench(SIX, per_block=2)
    for number in range(2, 10):
        bench.keep(number, b"forged" if number in (2, 5) else None)
    assert bench.take(1) == [Refuted(1, 3)]
    assert bench.take_all([1, 2]) == [Refuted(4, 6)]
    assert bench.take_all([4, 5]) == [bench.verified]


@pytest.mark.parametrize("size_bytes", [500, 1_000, 1_001, 2_000, 4_001])
def test_the_last_block_is_refuted_whole_however_short_it_is(size_bytes: int) -> None:
    bench = FileBench(SIX[:size_bytes], per_block=2)
    closing = bench.blocks.closing
    start = max(number for number in range(1, closing) if number % 3 == 1)
    bench.take_all(range(1, closing - 1))
    assert bench.take(closing - 1, b"forged") == []
    assert bench.take(closing) == [Refuted(start, closing)]
    assert bench.take_all(range(start, closing)) == [bench.verified]


def test_a_piece_of_another_length_is_refuted() -> None:
    for changed in (b"c" * 499, b"c" * 501, b""):
        bench = FileBench()
        bench.take_all([1, 2, 4])
        assert bench.take(3, changed) == [Refuted(1, 4)]
        assert bench.take_all([1, 2, 3]) == [VERIFIED]


def test_a_source_that_signs_for_another_file_than_it_sends_delivers_nothing() -> None:
    bench = FileBench()
    bench.take_all([1, 2, 3])
    assert bench.take(4, proof_of(4, b"another file")) == [Refuted(1, 4)]
    assert bench.store.digest is None
    # A file without bytes has no pieces to be fetched again: its proof is.
    bench = FileBench(b"")
    assert bench.take(1, proof_of(1, b"another file")) == [Refuted(1, 2)]
    assert bench.take(1) == [bench.verified]


def test_forged_chunks_of_an_earlier_run_are_refuted_as_soon_as_they_are_looked_at() -> None:
    bench = FileBench(SIX, per_block=2)
    for number in bench.chunks:
        bench.keep(number, b"forged" if number == 5 else None)
    assert bench.advance() == [Refuted(4, 6)]
    assert bench.advance() == []
    assert bench.take_all([4, 5]) == [bench.verified]


# --- files: what is stored ----------------------------------------------------------------------------------------


def catch_up_all(hasher: FileHasher, most: int) -> list[int]:
    """Hash what is stored, so many at most at a time; return the next number after each time."""
    nexts = [hasher.next_number]
    while True:
        hasher.catch_up(most)
        if hasher.next_number == nexts[-1]:
            return nexts[1:]
        nexts.append(hasher.next_number)


def test_stored_pieces_are_hashed_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_AT_ONCE", 1)
    bench = FileBench(bytes(5_000))
    for number in range(1, 6):
        bench.keep(number)
    hasher = FileHasher(bench.blocks, bench.held, bench.store)
    assert catch_up_all(hasher, 2) == [3, 5, 6]
    assert (hasher.at_proof, hasher.done) == (True, False)
    digest = hasher.digest()
    assert digest == hashlib.sha256(bytes(5_000)).digest()
    assert not hasher.feed(6, [b"no piece"])
    assert hasher.digest() == digest
    hasher.pass_proof()
    assert (hasher.at_proof, hasher.done) == (False, True)
    assert not hasher.feed(7, [b"behind the end"])
    assert hasher.digest() == digest


@pytest.mark.parametrize(("per_block", "expected"), [(2, [5, 9]), (1_000, [5])])
def test_a_sink_looks_at_a_bounded_part_of_what_is_stored_at_a_time(
    monkeypatch: pytest.MonkeyPatch, per_block: int, expected: list[int]
) -> None:
    monkeypatch.setattr(module, "HASH_AT_ONCE", 4)
    bench = FileBench(SIX, per_block)
    for number in bench.chunks:
        bench.keep(number)
    nexts = []
    while not (said := bench.advance()):
        nexts.append(bench.sink._hasher.next_number)
    assert said == [bench.verified]
    assert nexts == expected


def test_stored_pieces_are_read_some_together_and_no_further_than_they_are_stored() -> None:
    reads: list[tuple[int, int]] = []

    class Noting(MemoryStreamStore):
        def read_run(self, start: int, count: int) -> list[bytes]:
            reads.append((start, count))
            return super().read_run(start, count)

    pieces = HASH_AT_ONCE + READ_AT_ONCE + 9
    store, held = Noting(), RangeSet([(1, pieces + 1)])
    store.write_run(1, [b"x"] * pieces, [TAG] * pieces)
    hasher = FileHasher(Blocks(pieces, pieces), held, store)
    held.discard(10)
    hasher.catch_up(HASH_AT_ONCE)
    assert hasher.next_number == 10
    assert reads == [(1, 9)]
    held.add(10)
    hasher.catch_up(HASH_AT_ONCE)
    assert hasher.next_number == 10 + HASH_AT_ONCE
    assert max(count for _, count in reads) == READ_AT_ONCE
    hasher.catch_up(HASH_AT_ONCE)
    assert hasher.at_proof
    assert sum(count for _, count in reads) == pieces


def test_stored_pieces_are_read_no_further_than_their_block() -> None:
    bench = FileBench(SIX, per_block=2)
    for number in bench.chunks:
        bench.keep(number)
    hasher = FileHasher(bench.blocks, bench.held, bench.store)
    for proof in (3, 6, 9):
        hasher.catch_up(HASH_AT_ONCE)
        assert (hasher.next_number, hasher.at_proof) == (proof, True)
        assert hasher.digest() == bench.chunks[proof][:DIGEST_BYTES]
        hasher.pass_proof()
    assert hasher.done


def test_a_run_is_hashed_only_if_it_is_the_next_one_and_what_comes_behind_it_is_told() -> None:
    held = RangeSet([(5, 6)])
    hasher = FileHasher(Blocks(6, 1_000), held, MemoryStreamStore())
    assert hasher.feed(1, [b"a", b"b"])
    assert hasher.next_number == 3
    assert not hasher.feed(1, [b"a"])
    assert not hasher.feed(3, [b"c"] * 5)
    # It is hashed; behind it is a piece that is stored already.
    assert not hasher.feed(3, [b"c", b"d"])
    assert hasher.next_number == 5
    # It is hashed, and there is nothing behind it: its proof has not come.
    assert hasher.feed(5, [b"e", b"f"])
    assert hasher.at_proof
    assert hasher.digest() == hashlib.sha256(b"abcdef").digest()


def test_a_hasher_goes_back_to_the_last_proof_that_it_passed() -> None:
    hasher = FileHasher(Blocks(5, 2), RangeSet(), MemoryStreamStore())
    hasher.feed(1, [b"forged"])
    assert hasher.go_back() == 1
    assert hasher.digest() == hashlib.sha256(b"").digest()
    hasher.feed(1, [b"a", b"b"])
    assert hasher.at_proof
    hasher.pass_proof()
    for _ in range(2):
        assert hasher.feed(4, [b"forged", b"too"])
        assert hasher.go_back() == 4
        assert hasher.digest() == hashlib.sha256(b"ab").digest()
    hasher.feed(4, [b"c", b"d"])
    hasher.pass_proof()
    hasher.feed(7, [b"e"])
    assert (hasher.next_number, hasher.at_proof, hasher.done) == (8, True, False)
    assert hasher.digest() == hashlib.sha256(b"abcde").digest()
    hasher.pass_proof()
    assert hasher.done


def test_what_the_store_lost_in_the_middle_of_what_is_read_together_is_missing_again() -> None:
    bench = FileBench(bytes(6_000))
    for number in (2, 3, 5, 6):
        bench.keep(number)
    bench.held.add(4)
    assert bench.take(1) == []
    assert list(bench.held) == [(1, 4), (5, 7)]
    assert bench.take(7) == []
    assert bench.take(4) == [bench.verified]


def test_what_a_file_has_gathered_is_handed_over_when_it_is_whole_and_before_that_in_time() -> None:
    class Gathering(Failing):
        def hand_over(self, *, overdue_only: bool = False) -> None:
            asked.append(overdue_only)

    asked: list[bool] = []
    bench = FileBench(store=Gathering())
    assert bench.take_run(1, [bench.chunks[number] for number in (1, 2, 3)]) == []
    asked.clear()
    assert bench.advance() == []
    assert asked == [True]
    assert bench.take(4) == [VERIFIED]
    assert bench.advance() == []
    assert asked == [True, False]


def test_a_file_is_not_finished_while_its_disk_is_far_behind() -> None:
    class Behind(Failing):
        unwritten = FINISH_AT_ONCE_BYTES + 1

        @property
        def unwritten_bytes(self) -> int:
            return self.unwritten

    store = Behind()
    bench = FileBench(store=store)
    assert bench.take_all(bench.chunks) == []
    assert store.digest is None
    assert bench.advance() == []
    store.unwritten = FINISH_AT_ONCE_BYTES
    assert bench.advance() == [VERIFIED]
    assert bench.advance() == []


# --- messages -----------------------------------------------------------------------------------------------------

Chunk = tuple[int, int, bytes]
"""Number, flags and plain bytes."""


@dataclasses.dataclass
class MessageBench:
    """A message sink with its store."""

    store: MemoryStreamStore = dataclasses.field(default_factory=MemoryStreamStore)
    held: RangeSet = dataclasses.field(default_factory=RangeSet)
    flags: dict[int, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sink = MessageSink(MESSAGE, AUTHOR, self.held, self.store, self.flags)

    def put(self, start: int, flags: int, plains: list[bytes]) -> None:
        """Keep chunks and put messages together of them; nothing is delivered of that."""
        stop = start + len(plains)
        self.store.write_run(start, plains, [TAG] * len(plains))
        self.held.add_range(start, stop)
        self.flags.update(dict.fromkeys(range(start, stop), flags))
        assert list(self.sink.on_run(start, flags, plains)) == []

    def take(self, *chunks: Chunk) -> list[Outcome]:
        said = []
        for number, flags, plain in chunks:
            self.put(number, flags, [plain])
            said += self.advance()
        return said

    def advance(self) -> list[Outcome]:
        return let_go(self.held, self.sink.advance())

    def skip_below(self, number: int) -> list[Outcome]:
        return let_go(self.held, self.sink.skip_below(number))


def payloads(outcomes: list[Outcome]) -> list[bytes]:
    return [outcome.payload for outcome in outcomes if isinstance(outcome, MessageReceived)]


def received(number: int, payload: bytes) -> MessageReceived:
    return MessageReceived("messages", "A", MESSAGE.hex, number, payload)


def gap(first: int, last: int) -> MessageGap:
    return MessageGap("messages", "A", MESSAGE.hex, first, last)


def signed(
    first: int,
    last: int,
    payload: bytes,
    *,
    signer: Signer = SIGNER,
    purpose: bytes = PURPOSE_MESSAGE,
    stream: bytes = MESSAGE.stream,
) -> bytes:
    """Return a message's bytes: what is in it, and a signature."""
    return payload + signer.sign(purpose, message_statement(stream, first, last, payload))


def message(first: int, payload: bytes, piece: int = 40, **forged: Any) -> list[Chunk]:
    """Cut a message into the chunks from a number on, as its source does."""
    last = first + (len(payload) + SIGNATURE_BYTES - 1) // piece
    return in_chunks(first, signed(first, last, payload, **forged), piece)


def in_chunks(first: int, data: bytes, piece: int = 40) -> list[Chunk]:
    """Cut bytes into the chunks of a message."""
    parts = [data[at : at + piece] for at in range(0, len(data), piece)] or [b""]
    ends = {0: FLAG_START, len(parts) - 1: FLAG_END} if len(parts) > 1 else {0: WHOLE}
    return [(first + index, ends.get(index, 0), part) for index, part in enumerate(parts)]


def cut(messages: Iterable[bytes]) -> Iterator[Chunk]:
    """Cut messages into numbered chunks."""
    number = 1
    for payload in messages:
        chunks = message(number, payload)
        number += len(chunks)
        yield from chunks


@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(0, 1 << 32))
def test_messages_are_delivered_once_in_their_order_whatever_the_order_of_their_chunks(
    messages: list[bytes], seed: int
) -> None:
    bench, chunks = MessageBench(), list(cut(messages))
    random.Random(seed).shuffle(chunks)
    said = bench.take(*chunks)
    assert payloads(said) == messages
    assert len(said) == len(messages)
    assert bench.advance() == []


@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(0, 1 << 32))
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
    said = []
    for run in runs:
        bench.put(*run)
        if rng.random() < 0.5:
            said += bench.advance()
    said += bench.advance()
    assert payloads(said) == messages
    assert len(said) == len(messages)


def test_what_comes_is_put_together_and_delivered_when_it_is_asked_for() -> None:
    bench = MessageBench()
    for number, flags, plain in cut([b"one", b"two"]):
        bench.put(number, flags, [plain])
    assert bench.sink.verified_below == 1
    sink = bench.sink.advance()
    assert next(sink) == received(2, b"one")
    assert bench.sink.verified_below == 3
    assert list(sink) == [received(4, b"two")]
    assert bench.sink.verified_below == 5


def test_each_message_of_a_run_names_its_own_chunk() -> None:
    bench = MessageBench()
    whole = [signed(number, number, letter) for number, letter in enumerate((b"a", b"b", b"c", b"d"), 1)]
    bench.put(3, WHOLE, whole[2:])
    assert bench.advance() == []
    bench.put(1, WHOLE, whole[:2])
    assert bench.advance() == [received(1, b"a"), received(2, b"b"), received(3, b"c"), received(4, b"d")]


def test_a_message_names_its_last_chunk_and_may_have_its_signature_in_parts() -> None:
    bench = MessageBench()
    first, *others = message(1, b"abc", piece=20)
    assert len(others) == 3
    assert bench.take(first) == []
    assert bench.sink.verified_below == 1
    assert bench.take(*others) == [received(4, b"abc")]


def test_what_was_given_up_is_told_and_the_rest_of_its_message_is_not_delivered() -> None:
    bench = MessageBench()
    first, _, third = message(1, b"lost" * 10)
    assert bench.take(first, third, *message(4, b"whole")) == []
    assert bench.skip_below(3) == [gap(2, 2)]
    assert bench.sink.verified_below == 3
    assert payloads(bench.advance()) == [b"whole"]
    assert bench.skip_below(2) == []


def test_what_has_come_whole_is_delivered_before_more_is_given_up() -> None:
    bench = MessageBench()
    for number, flags, plain in message(1, b"whole"):
        bench.put(number, flags, [plain])
    assert bench.skip_below(9) == [received(2, b"whole"), gap(3, 8)]
    assert bench.skip_below(9) == []
    assert payloads(bench.take(*message(9, b"next"))) == [b"next"]


def test_a_chunk_that_the_store_lost_is_a_gap() -> None:
    bench = MessageBench()
    bench.held.add_range(1, 3)
    assert bench.advance() == [gap(1, 1), gap(2, 2)]
    assert payloads(bench.take(*message(3, b"whole"))) == [b"whole"]


def test_a_message_may_have_its_most_bytes_and_what_claims_to_be_larger_is_refuted() -> None:
    bench = MessageBench()
    most = bytes(MAX_MESSAGE_BYTES)
    assert bench.take(*message(1, most, piece=1 << 19)) == [received(3, most)]
    # It is not waited for its end: no source makes such a one.
    (start, *_, last) = message(4, most + b"x", piece=1 << 19)
    bench.take(start, (5, 0, bytes(1 << 19)))
    assert bench.take((6, 0, last[2])) == [Refuted(4, 7)]
    assert payloads(bench.take(*message(4, b"small"))) == [b"small"]


def test_an_over_long_message_is_refuted_even_if_it_ends_there_and_is_signed() -> None:
    bench = MessageBench()
    assert bench.take((1, WHOLE, signed(1, 1, bytes(MAX_MESSAGE_BYTES + 1)))) == [Refuted(1, 2)]


# --- messages: what their source never sent -----------------------------------------------------------------------

FORGED_MESSAGES: dict[str, list[Chunk]] = {
    "another's signature": message(3, b"forged", signer=STRANGER),
    "another group": message(3, b"forged", signer=Signer(SECRET, "other")),
    "another purpose": message(3, b"forged", purpose=PURPOSE_BLOCK),
    "another stream": message(3, b"forged", stream=FILE.stream),
    "another message's signature": in_chunks(3, b"forged" + signed(3, 4, b"second")[-SIGNATURE_BYTES:]),
    "another number": in_chunks(3, signed(1, 2, b"first")),
    "fewer chunks": in_chunks(3, signed(3, 3, b"second")),
    "more chunks": in_chunks(3, signed(3, 5, b"second")),
    "no signature": in_chunks(3, b"forged" + bytes(SIGNATURE_BYTES)),
    "less than a signature": in_chunks(3, bytes(SIGNATURE_BYTES - 1)),
    "nothing": [(3, WHOLE, b"")],
}


@pytest.mark.parametrize("forgery", FORGED_MESSAGES)
def test_a_message_that_the_source_did_not_sign_is_refuted_and_the_right_one_delivered(forgery: str) -> None:
    bench = MessageBench()
    chunks = list(cut([b"first", b"second", b"third"]))
    assert payloads(bench.take(*chunks[:2])) == [b"first"]
    assert bench.take(*chunks[4:]) == []
    forged = FORGED_MESSAGES[forgery]
    for _ in range(2):
        said = bench.take(*forged)
        assert said == [Refuted(3, 3 + len(forged))]
        assert bench.sink.verified_below == 3
        assert bench.advance() == []
    assert bench.take(*chunks[2:4]) == [received(4, b"second"), received(6, b"third")]


@given(st.integers(0, 5), st.integers(0, 1 << 32))
def test_one_forged_chunk_refutes_its_message_and_no_other(at: int, seed: int) -> None:
    messages = [b"first", b"second", b"third"]
    chunks = list(cut(messages))
    number, flags, plain = chunks[at]
    forged = chunks.copy()
    forged[at] = (number, flags, bytes([plain[0] ^ 1]) + plain[1:])
    random.Random(seed).shuffle(forged)
    bench = MessageBench()
    said = bench.take(*forged)
    first = at // 2 * 2 + 1
    assert [outcome for outcome in said if isinstance(outcome, Refuted)] == [Refuted(first, first + 2)]
    assert payloads(said) == messages[: at // 2]
    assert payloads(bench.take(*chunks[at // 2 * 2 : at // 2 * 2 + 2])) == messages[at // 2 :]


def test_of_messages_that_came_together_those_behind_a_forged_one_wait_for_the_right_one() -> None:
    bench = MessageBench()
    for number, flags, plain in [*message(1, b"one"), *message(3, b"forged", signer=STRANGER), *message(5, b"three")]:
        bench.put(number, flags, [plain])
    assert bench.advance() == [received(2, b"one"), Refuted(3, 5)]
    assert bench.sink.verified_below == 3
    assert list(bench.held) == [(1, 3), (5, 7)]
    for number, flags, plain in message(3, b"two"):
        bench.put(number, flags, [plain])
    assert bench.advance() == [received(4, b"two"), received(6, b"three")]


def test_stored_messages_are_verified_up_to_one_that_is_forged() -> None:
    bench = MessageBench()
    bench.put(5, FLAG_START, [message(5, b"three")[0][2]])
    bench.put(6, FLAG_END, [message(5, b"three")[1][2]])
    bench.put(3, FLAG_START, [b"forged" * 6])
    bench.put(4, FLAG_END, [b"forged" * 6])
    assert bench.take(*message(1, b"one")) == [received(2, b"one"), Refuted(3, 5)]
    assert bench.take(*message(3, b"two")) == [received(4, b"two"), received(6, b"three")]


def test_a_message_that_begins_inside_another_refutes_what_came_of_the_first() -> None:
    bench = MessageBench()
    first, second, third = message(1, b"whole" * 8)
    assert bench.take(first, (2, FLAG_START, second[2])) == [Refuted(1, 2)]
    # The first chunk was right, and the second not: it is found out when the first is here again.
    assert bench.take(first) == [Refuted(1, 2)]
    bench.held.discard(2)
    assert bench.take(first, second, third) == [received(3, b"whole" * 8)]


def test_a_chunk_of_no_message_is_refuted() -> None:
    bench = MessageBench()
    chunks = list(cut([b"one", b"two"]))
    for flags in (0, FLAG_END):
        assert bench.take((1, flags, chunks[0][2])) == [Refuted(1, 2)]
    assert payloads(bench.take(*chunks[:2])) == [b"one"]
    for flags in (0, FLAG_END):
        assert bench.take((3, flags, chunks[2][2])) == [Refuted(3, 4)]
    assert payloads(bench.take(*chunks[2:])) == [b"two"]


def test_a_message_without_its_end_is_refuted_when_the_next_begins() -> None:
    bench = MessageBench()
    chunks = list(cut([b"one", b"two"]))
    assert bench.take(chunks[0], (2, 0, chunks[1][2])) == []
    assert bench.take(chunks[2]) == [Refuted(1, 3)]
    assert bench.take(*chunks[:2], chunks[3]) == [received(2, b"one"), received(4, b"two")]


def test_chunks_that_hang_together_wrongly_are_put_together_no_further() -> None:
    bench = MessageBench()
    # Not one begins a message: the first of them fails, and the others wait for what comes in its place.
    bench.put(1, 0, [b"forged"] * 5)
    assert bench.advance() == [Refuted(1, 2)]
    assert bench.take(message(1, b"one")[0]) == []
    assert bench.sink.verified_below == 1


def test_a_forged_message_is_given_up_with_the_rest_when_nobody_retains_the_right_one() -> None:
    bench = MessageBench()
    for number, flags, plain in message(1, b"forged", signer=STRANGER):
        bench.put(number, flags, [plain])
    assert bench.skip_below(5) == [Refuted(1, 3), gap(1, 4)]
    assert payloads(bench.take(*message(5, b"next"))) == [b"next"]


def test_forged_chunks_behind_a_gap_are_refuted_too() -> None:
    bench = MessageBench()
    assert bench.skip_below(3) == [gap(1, 2)]
    assert bench.take((3, FLAG_END, b"the end of what was given up")) == []
    assert bench.take(*message(4, b"forged", signer=STRANGER)) == [Refuted(4, 6)]
    assert payloads(bench.take(*message(4, b"whole"))) == [b"whole"]
    assert bench.take((6, 0, b"forged")) == [Refuted(6, 7)]


@pytest.mark.parametrize("before", [[], [(3, FLAG_END, b"the end of what was given up")]])
def test_a_forged_beginning_behind_a_gap_does_not_make_the_rest_of_what_was_given_up_be_refuted(
    before: list[Chunk],
) -> None:
    bench = MessageBench()
    assert bench.skip_below(3) == [gap(1, 2)]
    assert bench.take(*before) == []
    first = 3 + len(before)
    assert bench.take(*message(first, b"forged", signer=STRANGER)) == [Refuted(first, first + 2)]
    # The source's own chunks of these numbers are the rest of a message that began in the gap.
    assert bench.take((first, 0, b"more of it"), (first + 1, FLAG_END, b"and its end")) == []
    assert payloads(bench.take(*message(first + 2, b"whole"))) == [b"whole"]
    assert bench.take((first + 4, 0, b"forged")) == [Refuted(first + 4, first + 5)]


def test_what_is_refuted_is_said_once_though_it_is_held_still_when_the_sink_goes_on() -> None:
    bench = MessageBench()
    for number, flags, plain in message(1, b"forged", signer=STRANGER):
        bench.put(number, flags, [plain])
    assert list(bench.sink.advance()) == [Refuted(1, 3)]
