import contextlib
import errno
import hashlib
import itertools
import os
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import common.blocks
from agent.core import sinks
from agent.core.events import FileVerified
from agent.core.memory_store import BytesReader
from agent.core.rangeset import RangeSet
from agent.core.sinks import FileSink, Outcome, Refuted
from agent.core.store import StoreError
from agent.services import file_stream, naming, piece_run
from agent.services.disk_writer import DiskWriter
from agent.services.file_stream import FileStreamStore
from agent.services.handles import Handles
from agent.services.piece_run import PieceRun
from agent.services.stream_meta import Meta
from common.datagrams import FLAG_PROOF
from common.signing import PURPOSE_BLOCK, block_statement
from tests.unit.agent.core.parts import AUTHOR, FILE, SIGNER, of_size

DATA = bytes(range(250)) * 10
PIECES = [DATA[:1_000], DATA[1_000:2_000], DATA[2_000:]]


def tag(number: int) -> bytes:
    return bytes([number]) * 16


@pytest.fixture
def handles() -> Iterator[Handles]:
    opened = Handles()
    yield opened
    opened.close()


@pytest.fixture
def writer() -> Iterator[DiskWriter]:
    opened = DiskWriter()
    yield opened
    opened.close()


@pytest.fixture
def meta(tmp_path: Path) -> Meta:
    """A stream of three pieces that is being received."""
    (tmp_path / "stream").mkdir()
    part = tmp_path / ".model.bin.part"
    part.write_bytes(bytes(len(DATA)))
    made = Meta("aa", "receive", 2_000.0, "model.bin", str(part), len(DATA), 1_000)
    made.save(tmp_path / "stream")
    return made


@pytest.fixture
def store(tmp_path: Path, meta: Meta, handles: Handles, writer: DiskWriter) -> FileStreamStore:
    return FileStreamStore(tmp_path / "stream", meta, handles, writer)


def proof_of(number: int, content: bytes) -> bytes:
    """Return the proof of that number as the source signs it."""
    digest = hashlib.sha256(content).digest()
    return digest + SIGNER.sign(PURPOSE_BLOCK, block_statement(FILE.stream, number, digest))


def reopen(tmp_path: Path, meta: Meta) -> FileStreamStore:
    """Return the stream as another process finds it."""
    return FileStreamStore(tmp_path / "stream", meta, Handles(), DiskWriter())


def fill(store: FileStreamStore) -> None:
    for number, piece in enumerate(PIECES, start=1):
        store.write_run(number, [piece], [tag(number)])
    store.write_run(4, [b"closing"], [tag(4)])


def test_what_is_written_reads_back(store: FileStreamStore) -> None:
    fill(store)
    assert [store.read(number) for number in (1, 2, 3, 4)] == [*PIECES, b"closing"]
    assert store.tags_run(1, 4) == [tag(n) for n in (1, 2, 3, 4)]


def test_what_is_not_written_is_not_there(store: FileStreamStore) -> None:
    store.write_run(3, [PIECES[2]], [tag(3)])
    assert store.tags_run(1, 4) == [None, None, tag(3), None]
    assert store.read(4) is None
    assert store.read(900) is None


def test_held_ranges_outlive_the_process(tmp_path: Path, meta: Meta, store: FileStreamStore) -> None:
    store.write_run(3, [PIECES[2]], [tag(3)])
    store.write_run(1, [PIECES[0]], [tag(1)])
    store.write_run(4, [b"closing"], [tag(4)])
    store.write_run(90, [b"record"], [tag(90)])
    assert list(store.held()) == [(1, 2), (3, 5), (90, 91)]
    again = reopen(tmp_path, meta)
    assert list(again.held()) == [(1, 2), (3, 5), (90, 91)]
    assert again.read(4) == b"closing"


def test_pieces_are_written_together_and_a_crash_costs_the_last_few(
    tmp_path: Path, meta: Meta, store: FileStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_stream, "BATCH_BYTES", 2_000)
    store.write_run(1, PIECES[:1], [tag(1)])
    assert (store.read(1), store.tags_run(1, 1), store.backlog_bytes) == (PIECES[0], [tag(1)], 1_000)
    assert list(reopen(tmp_path, meta).held()) == []
    store.write_run(2, PIECES[1:2], [tag(2)])
    store.flush()
    assert store.backlog_bytes == 0
    again = reopen(tmp_path, meta)
    assert list(again.held()) == [(1, 3)]
    assert again.read(2) == PIECES[1]


@pytest.mark.parametrize("name", ["GATHER_S", "MOST_GATHERED_RUNS"])
def test_pieces_do_not_wait_long_nor_in_many_parts(
    store: FileStreamStore, writer: DiskWriter, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(file_stream, name, 0)
    store.write_run(2, PIECES[1:2], [tag(2)])
    assert not store._gathered.runs
    store.flush()
    assert store.read(2) == PIECES[1]


def test_runs_are_read_from_memory_and_from_the_disk_alike(store: FileStreamStore) -> None:
    store.write_run(2, PIECES[1:2], [tag(2)])
    store.flush()
    store.write_run(1, PIECES[:1], [tag(1)])
    store.write_run(3, PIECES[2:], [tag(3)])
    store.write_run(4, [b"closing"], [tag(4)])
    for _ in range(2):
        assert store.read_run(1, 9) == [*PIECES, b"closing"]
        assert store.read_run(2, 2) == PIECES[1:]
        assert store.read_run(3, 1) == PIECES[2:]
        assert store.tags_run(1, 5) == [tag(1), tag(2), tag(3), tag(4), None]
        assert store.tags_run(4, 2) == [tag(4), None]
        assert store.read_run(5, 3) == []
        store.flush()


def test_the_closing_record_follows_the_last_run(store: FileStreamStore) -> None:
    store.write_run(2, PIECES[1:], [tag(2), tag(3)])
    store.write_run(4, [b"closing"], [tag(4)])
    assert store.read_run(2, 3) == [*PIECES[1:], b"closing"]
    assert list(store.held()) == [(2, 5)]


def test_numbers_past_the_end_have_no_tag_and_no_bytes(store: FileStreamStore) -> None:
    fill(store)
    store.write_run(90, [b"record"], [tag(90)])
    for start, count in ((5, 1), (5, 9), (90, 1), (1_000, 3)):
        assert store.tags_run(start, count) == [None] * count


# --- several blocks -----------------------------------------------------------------------------------------------

LARGE = bytes(range(250)) * 18
"""Five pieces: in blocks of two the chunks 3, 6 and 8 are proofs."""
CHUNKS = [LARGE[:1_000], LARGE[1_000:2_000], b"3", LARGE[2_000:3_000], LARGE[3_000:4_000], b"6", LARGE[4_000:], b"8"]
RUNS = [(1, 3), (3, 4), (4, 6), (6, 7), (7, 8), (8, 9)]
"""The chunks that come together: pieces of one block, or a proof."""


@pytest.fixture
def large(tmp_path: Path, meta: Meta, monkeypatch: pytest.MonkeyPatch) -> Meta:
    """A stream of three blocks that is being received."""
    monkeypatch.setattr(common.blocks, "BLOCK_BYTES", 2_000)
    os.truncate(meta.path, len(LARGE))
    made = replace(meta, size_bytes=len(LARGE))
    made.save(tmp_path / "stream")
    return made


@pytest.fixture
def blocks_store(tmp_path: Path, large: Meta, handles: Handles, writer: DiskWriter) -> FileStreamStore:
    return FileStreamStore(tmp_path / "stream", large, handles, writer)


def take(store: FileStreamStore, start: int, stop: int) -> None:
    store.write_run(start, CHUNKS[start - 1 : stop - 1], [tag(number) for number in range(start, stop)])


@pytest.mark.parametrize("flushed", [(), ((4, 6),), ((1, 3), (3, 4), (7, 8)), tuple(RUNS)])
@pytest.mark.parametrize("order", [RUNS, RUNS[::-1], RUNS[3:] + RUNS[:3]])
def test_pieces_lie_together_in_the_file_and_proofs_beside_it(
    tmp_path: Path,
    large: Meta,
    blocks_store: FileStreamStore,
    order: list[tuple[int, int]],
    flushed: tuple[tuple[int, int], ...],
) -> None:
    store = blocks_store
    for start, stop in order:
        take(store, start, stop)
        if (start, stop) in flushed:
            store.flush()
    for start in range(1, 9):
        for count in range(1, 10):
            assert store.read_run(start, count) == CHUNKS[start - 1 : start - 1 + count]
            expected = [tag(number) if number < 9 else None for number in range(start, start + count)]
            assert store.tags_run(start, count) == expected
    assert list(store.held()) == [(1, 9)]
    assert list(reopen(tmp_path, large).held()) == [(1, 9)]
    store.finish(bytes(32))
    assert (tmp_path / "model.bin").read_bytes() == LARGE
    assert store.read_run(1, 9) == CHUNKS


@given(st.sets(st.sampled_from(RUNS)))
def test_what_is_missing_between_blocks_is_not_there(numbers: set[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory() as name:
        patched.setattr(common.blocks, "BLOCK_BYTES", 2_000)
        part = Path(name) / "part"
        part.write_bytes(bytes(len(LARGE)))
        handles, writer = Handles(), DiskWriter()
        meta = Meta("aa", "receive", 2_000.0, "model.bin", str(part), len(LARGE), 1_000)
        store = FileStreamStore(Path(name), meta, handles, writer)
        for start, stop in numbers:
            take(store, start, stop)
        there = {number for start, stop in numbers for number in range(start, stop)}
        assert [number for start, stop in store.held() for number in range(start, stop)] == sorted(there)
        assert store.tags_run(1, 8) == [tag(number) if number in there else None for number in range(1, 9)]
        assert [store.read(number) for number in (3, 6, 8)] == [
            CHUNKS[number - 1] if number in there else None for number in (3, 6, 8)
        ]
        writer.close()
        handles.close()


@pytest.mark.parametrize("flushed", [False, True])
def test_what_was_forged_is_written_over_by_what_comes_in_its_place(
    tmp_path: Path, large: Meta, blocks_store: FileStreamStore, flushed: bool
) -> None:
    store = blocks_store
    store.write_run(4, [b"x" * 1_000, b"y" * 1_000], [tag(99), tag(98)])
    store.write_run(6, [b"forged"], [tag(97)])
    if flushed:
        store.flush()
    store.write_run(5, CHUNKS[4:5], [tag(5)])
    store.write_run(6, CHUNKS[5:6], [tag(6)])
    assert store.read_run(4, 3) == [b"x" * 1_000, *CHUNKS[4:6]]
    assert store.tags_run(4, 3) == [tag(99), tag(5), tag(6)]
    store.write_run(4, CHUNKS[3:4], [tag(4)])
    for _ in range(2):
        assert store.read_run(4, 3) == CHUNKS[3:6]
        assert store.tags_run(4, 3) == [tag(4), tag(5), tag(6)]
        store.flush()
    again = reopen(tmp_path, large)
    assert list(again.held()) == [(4, 7)]
    assert again.read_run(4, 3) == CHUNKS[3:6]
    assert again.tags_run(4, 3) == [tag(4), tag(5), tag(6)]


def test_a_source_of_several_blocks_keeps_tags_and_proofs_and_reads_its_file(
    tmp_path: Path, large: Meta, handles: Handles, writer: DiskWriter
) -> None:
    source = replace(large, role="source", path="/nowhere")
    store = FileStreamStore(tmp_path / "stream", source, handles, writer, BytesReader(LARGE))
    for start, stop in RUNS[:4]:
        take(store, start, stop)
    assert store.read_run(1, 7) == CHUNKS[:7], "the file is there whole"
    assert store.read(8) is None
    store.flush()
    again = FileStreamStore(tmp_path / "stream", source, Handles(), DiskWriter(), BytesReader(LARGE))
    assert list(again.held()) == [(1, 7)]
    assert again.tags_run(1, 9) == [*(tag(number) for number in range(1, 7)), None, None, None]
    assert again.read_run(3, 4) == CHUNKS[2:6]


def test_a_file_of_several_blocks_that_its_user_cut_ends_with_a_whole_piece(
    tmp_path: Path, blocks_store: FileStreamStore
) -> None:
    for start, stop in RUNS:
        take(blocks_store, start, stop)
    blocks_store.finish(bytes(32))
    os.truncate(tmp_path / "model.bin", 3_500)
    assert blocks_store.read_run(1, 9) == CHUNKS[:4]
    assert blocks_store.read(5) is None
    assert blocks_store.read(6) == CHUNKS[5]


def test_a_forged_block_is_found_out_and_the_right_one_makes_the_file(
    tmp_path: Path, large: Meta, blocks_store: FileStreamStore
) -> None:
    held, opening = RangeSet(), of_size(len(LARGE))
    sink = FileSink(opening, large.blocks, AUTHOR, held, blocks_store)
    proven = {3: 2_000, 6: 4_000, 8: 4_500}

    def take_in(start: int, plains: list[bytes]) -> list[Outcome]:
        blocks_store.write_run(start, plains, [tag(start + at) for at in range(len(plains))])
        held.add_range(start, start + len(plains))
        return list(sink.on_run(start, 0, plains))

    def right(start: int, stop: int) -> list[Outcome]:
        if start in proven:
            return take_in(start, [proof_of(start, LARGE[: proven[start]])])
        return take_in(start, CHUNKS[start - 1 : stop - 1])

    for start, stop in RUNS[:2] + RUNS[3:]:
        assert right(start, stop) == []
    assert take_in(4, [CHUNKS[3], b"z" * 1_000]) == [Refuted(4, 6)]
    held.remove_range(4, 6)
    blocks_store.flush()
    assert right(5, 6) == []
    assert [type(outcome) for outcome in right(4, 5)] == [FileVerified]
    assert (tmp_path / "model.bin").read_bytes() == LARGE


# --- what is written and when -------------------------------------------------------------------------------------


def test_what_is_being_written_is_read_from_memory(
    store: FileStreamStore, writer: DiskWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go, real = threading.Event(), os.pwritev

    def slow(handle: int, data: list[bytes], offset: int) -> int:
        may_go.wait(10.0)
        return real(handle, data, offset)

    monkeypatch.setattr(os, "pwritev", slow)
    store.write_run(1, PIECES, [tag(1), tag(2), tag(3)])
    store.hand_over()
    assert store.backlog_bytes == store.unwritten_bytes == len(DATA)
    assert store.read_run(2, 2) == PIECES[1:]
    assert store.tags_run(1, 2) == [tag(1), tag(2)]
    may_go.set()
    store.flush()
    assert store.backlog_bytes == store.unwritten_bytes == 0
    assert store.read_run(2, 2) == PIECES[1:]


def make_other(tmp_path: Path, meta: Meta, handles: Handles, writer: DiskWriter) -> FileStreamStore:
    """Make another stream with the same writer, of a thousand pieces."""
    (tmp_path / "other").mkdir()
    part = tmp_path / ".other.bin.part"
    part.touch()
    facts = replace(meta, name="other.bin", path=str(part), size_bytes=1_000_000)
    return FileStreamStore(tmp_path / "other", facts, handles, writer)


class Held:
    """A disk that writes nothing until told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_go, self.writing, real = threading.Event(), threading.Event(), os.pwritev

        def held(handle: int, data: list[bytes], offset: int) -> int:
            self.writing.set()
            self.may_go.wait(10.0)
            return real(handle, data, offset)

        monkeypatch.setattr(os, "pwritev", held)


def test_what_is_unwritten_counts_what_others_have_ahead_of_it(
    tmp_path: Path,
    meta: Meta,
    store: FileStreamStore,
    handles: Handles,
    writer: DiskWriter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, other = Held(monkeypatch), make_other(tmp_path, meta, handles, writer)
    other.write_run(1, [bytes(1_000)] * 100, [tag(1)] * 100)
    other.hand_over()
    assert store.unwritten_bytes == 0, "nothing of it waits"
    store.write_run(1, PIECES, [tag(1), tag(2), tag(3)])
    assert store.unwritten_bytes == 100_000 + len(DATA)
    store.hand_over()
    other.write_run(101, [bytes(1_000)] * 100, [tag(1)] * 100)
    other.hand_over()
    assert (store.unwritten_bytes, other.unwritten_bytes) == (100_000 + len(DATA), 200_000 + len(DATA))
    disk.may_go.set()
    store.flush()
    assert store.unwritten_bytes == 0


def test_a_small_file_does_not_wait_for_what_others_have_ahead_of_it(
    tmp_path: Path,
    meta: Meta,
    store: FileStreamStore,
    handles: Handles,
    writer: DiskWriter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sinks, "FINISH_AT_ONCE_BYTES", 50_000)
    disk, other = Held(monkeypatch), make_other(tmp_path, meta, handles, writer)
    other.write_run(1, [bytes(1_000)] * 100, [tag(1)] * 100)
    other.hand_over()
    disk.writing.wait(10.0)
    held = RangeSet([(1, 5)])
    proof = proof_of(4, DATA)
    sink = FileSink(FILE, meta.blocks, AUTHOR, held, store)
    store.write_run(1, PIECES, [tag(1), tag(2), tag(3)])
    store.write_run(4, [proof], [tag(4)])
    assert [*sink.on_run(1, 0, PIECES), *sink.on_run(4, FLAG_PROOF, [proof])] == []
    assert not store._gathered.runs, "it is on its way, for nothing more comes"
    # What comes behind it does not hold it up.
    other.write_run(101, [bytes(1_000)] * 100, [tag(1)] * 100)
    other.hand_over()
    assert list(sink.advance()) == []
    disk.may_go.set()
    with writer._changed:
        assert writer._changed.wait_for(lambda: not store._lane.pending, 10.0)
    assert [type(event) for event in sink.advance()] == [FileVerified]
    assert (tmp_path / "model.bin").read_bytes() == DATA


def test_what_a_stalled_stream_has_gathered_is_handed_over_in_time(
    tmp_path: Path, meta: Meta, store: FileStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_stream, "GATHER_S", 3_600.0)
    sink = FileSink(FILE, meta.blocks, AUTHOR, RangeSet([(1, 2)]), store)
    store.write_run(1, PIECES[:1], [tag(1)])
    assert list(sink.advance()) == []
    assert store._gathered.runs
    monkeypatch.setattr(file_stream, "GATHER_S", 0.0)
    assert list(sink.advance()) == []
    assert not store._gathered.runs
    store.flush()
    assert list(reopen(tmp_path, meta).held()) == [(1, 2)]


def test_reading_looks_at_the_runs_that_it_needs(
    tmp_path: Path, meta: Meta, handles: Handles, writer: DiskWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    class Noting(PieceRun):
        def __contains__(self, number: int) -> bool:
            looked.append(number)
            return super().__contains__(number)

    monkeypatch.setattr(piece_run, "PieceRun", Noting)
    disk, other = Held(monkeypatch), make_other(tmp_path, meta, handles, writer)
    pieces = {number: number.to_bytes(4, "big") * 250 for number in range(1, 201)}
    for number in [*range(1, 201, 2), *range(2, 201, 2)]:
        other.write_run(number, [pieces[number]], [tag(1)])
    assert other.read_run(101, 4) == [pieces[number] for number in range(101, 105)]
    assert len(looked) <= 4 * 4
    disk.may_go.set()


def test_a_stream_dropped_while_it_is_written_leaves_nothing(
    tmp_path: Path, store: FileStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, may_go, real = threading.Event(), threading.Event(), os.pwritev

    def slow(handle: int, data: list[bytes], offset: int) -> int:
        writing.set()
        may_go.wait(10.0)
        return real(handle, data, offset)

    monkeypatch.setattr(os, "pwritev", slow)
    for number in (1, 2):
        store.write_run(number, PIECES[number - 1 : number], [tag(number)])
        store.hand_over()
    writing.wait(10.0)
    threading.Timer(0.01, may_go.set).start()
    store.discard()
    assert may_go.is_set()
    assert list(tmp_path.iterdir()) == []
    assert (store.backlog_bytes, store.tags_run(1, 1)) == (0, [None])


@pytest.mark.parametrize("crash_at", range(12))
def test_a_tag_on_the_disk_means_bytes_wherever_a_crash_comes(
    tmp_path: Path, meta: Meta, store: FileStreamStore, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    calls, real = itertools.count(), os.pwritev

    def crash(handle: int, data: list[bytes], offset: int) -> int:
        if next(calls) >= crash_at:
            raise OSError(errno.EIO, "the machine stopped")
        return real(handle, [b"".join(data)[:700]], offset)  # in parts, to have more places to stop at

    monkeypatch.setattr(os, "pwritev", crash)
    monkeypatch.setattr(file_stream, "BATCH_BYTES", 1)
    with contextlib.suppress(StoreError):
        for number in (2, 3, 1):
            store.write_run(number, PIECES[number - 1 : number], [tag(number)])
        store.flush()
    monkeypatch.undo()
    again = reopen(tmp_path, meta)
    for start, stop in again.held():
        assert again.read_run(start, stop - start) == PIECES[start - 1 : stop - 1]


def test_an_empty_stream_holds_nothing(store: FileStreamStore) -> None:
    assert list(store.held()) == []


def test_a_finished_file_gets_its_name(tmp_path: Path, store: FileStreamStore) -> None:
    fill(store)
    store.finish(bytes(32))
    assert (tmp_path / "model.bin").read_bytes() == DATA
    assert not (tmp_path / ".model.bin.part").exists()
    assert store.read(2) == PIECES[1]
    assert Meta.load(tmp_path / "stream").done
    assert Meta.load(tmp_path / "stream").sha256 == "00" * 32


def test_a_finished_file_replaces_nothing(tmp_path: Path, store: FileStreamStore) -> None:
    (tmp_path / "model.bin").write_text("mine")
    (tmp_path / "model (2).bin").symlink_to("/nowhere/else")
    fill(store)
    store.finish(bytes(32))
    assert (tmp_path / "model.bin").read_text() == "mine"
    assert (tmp_path / "model (3).bin").read_bytes() == DATA


def test_a_medium_without_links_still_replaces_nothing(
    tmp_path: Path, store: FileStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    (tmp_path / "model.bin").write_text("mine")
    fill(store)
    store.finish(bytes(32))
    assert (tmp_path / "model.bin").read_text() == "mine"
    assert (tmp_path / "model (2).bin").read_bytes() == DATA


def test_a_name_that_cannot_be_taken_is_an_error(store: FileStreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(StoreError, match=r"naming 'model.bin' failed: Read-only") as caught:
        store.finish(bytes(32))
    assert caught.value.reason == "io"


def test_names_run_out_before_anything_is_replaced(
    tmp_path: Path, store: FileStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "MAX_COPIES", 1)
    (tmp_path / "model.bin").touch()
    with pytest.raises(StoreError, match="1 files of that name"):
        store.finish(bytes(32))


def test_a_finished_file_is_not_written_again(tmp_path: Path, store: FileStreamStore) -> None:
    fill(store)
    store.finish(bytes(32))
    store.write_run(1, [b"x" * 1_000], [tag(9)])
    assert (tmp_path / "model.bin").read_bytes() == DATA


def test_a_finished_file_that_its_user_removed_is_missing(tmp_path: Path, meta: Meta, store: FileStreamStore) -> None:
    fill(store)
    store.finish(bytes(32))
    (tmp_path / "model.bin").unlink()
    again = reopen(tmp_path, store.meta)
    assert again.read(1) is None


def test_a_finished_file_that_its_user_cut_has_no_such_piece(tmp_path: Path, store: FileStreamStore) -> None:
    fill(store)
    store.finish(bytes(32))
    os.truncate(tmp_path / "model.bin", 1_500)
    assert store.read(1) == PIECES[0]
    assert store.read(2) is None


def test_discarding_removes_the_part_and_the_record(tmp_path: Path, store: FileStreamStore) -> None:
    fill(store)
    store.discard()
    assert list(tmp_path.iterdir()) == []
    assert store.tags_run(4, 1) == [None]
    store.discard()


def test_discarding_leaves_a_finished_file(tmp_path: Path, store: FileStreamStore) -> None:
    fill(store)
    store.finish(bytes(32))
    store.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_a_part_is_never_written_through_a_symlink(tmp_path: Path, meta: Meta, store: FileStreamStore) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    Path(meta.path).unlink()
    Path(meta.path).symlink_to(victim)
    store.write_run(1, PIECES[:1], [tag(1)])
    with pytest.raises(StoreError) as caught:
        list(store.held())
    assert caught.value.reason == "io"
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_space_and_what_was_taken_is_tried_again(
    store: FileStreamStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(StoreError) as caught:
        store.write_run(4, [b"closing"], [tag(4)])
    assert caught.value.reason == "no-space"
    assert store.read(4) is None
    store.write_run(1, PIECES[:2], [tag(1), tag(2)])
    for call in (store.flush, lambda: store.finish(bytes(32)), store.held):
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.reason == "no-space"
    assert store.read_run(1, 2) == PIECES[:2]
    monkeypatch.undo()
    with contextlib.suppress(StoreError):  # of the last trial, if it was still to fail
        store.flush()
    store.write_run(3, PIECES[2:], [tag(3)])
    store.write_run(4, [b"closing"], [tag(4)])
    assert list(store.held()) == [(1, 5)]
    assert store.read_run(1, 4) == [*PIECES, b"closing"]


def test_a_failure_is_told_before_more_is_taken(
    store: FileStreamStore, writer: DiskWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    store.write_run(1, PIECES[:1], [tag(1)])
    store.hand_over()
    with writer._changed:
        assert writer._changed.wait_for(lambda: store._lane.failure is not None, 10.0)
    assert store.unwritten_bytes == 0, "what failed is not waited for"
    with pytest.raises(StoreError, match=r"no space left writing 'model.bin': No space left on device"):
        store.write_run(2, PIECES[1:2], [tag(2)])
    assert store.tags_run(1, 2) == [tag(1), None]


def test_a_source_loses_no_tag_to_a_full_disk(
    tmp_path: Path, meta: Meta, handles: Handles, writer: DiskWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = replace(meta, role="source", path="/nowhere")
    store = FileStreamStore(tmp_path / "stream", source, handles, writer, BytesReader(DATA))
    monkeypatch.setattr(os, "pwritev", full)
    store.write_run(1, PIECES, [tag(1), tag(2), tag(3)])
    with pytest.raises(StoreError):
        store.flush()
    monkeypatch.setattr(file_stream, "MOST_GATHERED_TAGS", 4)
    with pytest.raises(StoreError):
        store.write_run(1, PIECES[:1], [tag(1)])
    with pytest.raises(StoreError):
        store.hand_over()
    monkeypatch.undo()
    store.flush()
    assert store.tags_run(1, 3) == [tag(1), tag(2), tag(3)]
    assert list(reopen(tmp_path, source).held()) == [(1, 4)]


def test_a_disk_that_takes_nothing_ends_the_wait(
    tmp_path: Path, meta: Meta, handles: Handles, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go, real = threading.Event(), os.pwritev

    def hang(handle: int, data: list[bytes], offset: int) -> int:
        may_go.wait(10.0)
        return real(handle, data, offset)

    monkeypatch.setattr(os, "pwritev", hang)
    writer = DiskWriter(most_bytes=1_000, wait_s=0.01, cancel_s=0.01)
    store = FileStreamStore(tmp_path / "stream", meta, handles, writer)
    store.write_run(1, PIECES[:1], [tag(1)])
    with pytest.raises(StoreError, match=r"1000 bytes wait .* did not take them in 0.01 s") as caught:
        store.flush()
    assert caught.value.reason == "io"
    with pytest.raises(StoreError, match=r"1000 bytes wait for the disk, and at most 1000 may") as caught:
        store.write_run(2, PIECES[1:2], [tag(2)])
    assert caught.value.reason == "io"
    assert store.tags_run(1, 2) == [tag(1), None]
    may_go.set()
    with writer._changed:
        assert writer._changed.wait_for(lambda: not writer.queued_bytes, 10.0)
    writer.close()
    assert store.read_run(1, 2) == [PIECES[0], bytes(1_000)]


def test_memory_is_bounded_however_much_comes_however_fast(tmp_path: Path, meta: Meta, handles: Handles) -> None:
    piece, most, pieces = 8_000, 256_000, 2_000
    writer = DiskWriter(most_bytes=most)
    facts = replace(meta, size_bytes=piece * pieces, piece_bytes=piece)
    blocks = facts.blocks
    store = FileStreamStore(tmp_path / "stream", facts, handles, writer)
    tracemalloc.start()
    try:
        start = 1
        while start <= blocks.closing:
            with writer._changed:
                # As credit has it: nothing is sent while the queue is full.
                assert writer._changed.wait_for(lambda: writer.queued_bytes < most, 10.0)
            count = min(8, blocks.proof_from(start) - start) or 1
            store.write_run(start, [bytes(piece) for _ in range(count)], [tag(1)] * count)
            start += count
        store.flush()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        writer.close()
    # What is queued, the batch that came last and the one that is being gathered: a file of 16 MB fits in none of it.
    assert peak < most + 3 * file_stream.BATCH_BYTES
    assert store.tags_run(blocks.closing - 1, 2) == [tag(1)] * 2


def test_a_write_that_the_disk_takes_in_parts_is_finished(
    store: FileStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, data, at: real(fd, [b"".join(data)[:7]], at))
    fill(store)
    store.flush()
    monkeypatch.undo()
    assert store.read(2) == PIECES[1]
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    store.write_run(1, PIECES[:1], [tag(1)])
    with pytest.raises(StoreError) as caught:
        store.flush()
    assert caught.value.reason == "no-space"


def test_a_medium_that_fails_to_read_is_an_error(store: FileStreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)
    store.flush()

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StoreError, match="reading"):
        store.read(1)
    assert store.tags_run(1, 1) == [None]


@pytest.mark.parametrize("cut", [1, 10, 27, 28, 30])
def test_a_record_torn_by_a_crash_is_left_out_and_written_again(
    tmp_path: Path, large: Meta, blocks_store: FileStreamStore, cut: int
) -> None:
    blocks_store.write_run(3, [b"proof"], [tag(3)])
    blocks_store.write_run(6, [b"more"], [tag(6)])
    records = tmp_path / "stream" / "records"
    whole = records.read_bytes()
    os.truncate(records, len(whole) - min(cut, 31))
    again = reopen(tmp_path, large)
    assert again.read(3) == b"proof"
    assert again.read(6) is None
    again.write_run(6, [b"more"], [tag(6)])
    assert records.read_bytes() == whole


def test_a_source_keeps_tags_and_reads_its_file(
    tmp_path: Path, meta: Meta, handles: Handles, writer: DiskWriter
) -> None:
    source = replace(meta, role="source", path="/nowhere")
    store = FileStreamStore(tmp_path / "stream", source, handles, writer, BytesReader(DATA))
    fill(store)
    assert [store.read(number) for number in (1, 2, 3, 4)] == [*PIECES, b"closing"]
    assert list(store.held()) == [(1, 5)]
    store.finish(bytes(32))
    assert Meta.load(tmp_path / "stream").done
    store.drop_below(3)
    assert list(store.held()) == [(1, 5)]


def test_an_empty_file_has_its_closing_record_alone(
    tmp_path: Path, meta: Meta, handles: Handles, writer: DiskWriter
) -> None:
    os.truncate(meta.path, 0)
    store = FileStreamStore(tmp_path / "stream", replace(meta, size_bytes=0), handles, writer)
    store.write_run(1, [b"closing"], [tag(1)])
    assert store.read(1) == b"closing"
    store.finish(bytes(32))
    assert (tmp_path / "model.bin").read_bytes() == b""


@given(st.lists(st.integers(min_value=1, max_value=40), unique=True))
def test_held_is_what_was_written(numbers: list[int]) -> None:
    found = file_stream._ranges(sorted(numbers))
    spread = [number for first, end in found for number in range(first, end)]
    assert spread == sorted(numbers)
