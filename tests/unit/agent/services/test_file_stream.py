import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.memory_store import BytesReader
from agent.core.store import StoreError
from agent.services import file_stream, naming
from agent.services.file_stream import FileStreamStore, Meta
from agent.services.handles import Handles

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
def meta(tmp_path: Path) -> Meta:
    """A stream of three pieces that is being received."""
    (tmp_path / "stream").mkdir()
    part = tmp_path / ".model.bin.part"
    part.write_bytes(bytes(len(DATA)))
    made = Meta("aa", "receive", 2_000.0, "model.bin", str(part), len(DATA), 1_000)
    made.save(tmp_path / "stream")
    return made


@pytest.fixture
def store(tmp_path: Path, meta: Meta, handles: Handles) -> FileStreamStore:
    return FileStreamStore(tmp_path / "stream", meta, handles)


def fill(store: FileStreamStore) -> None:
    for number, piece in enumerate(PIECES, start=1):
        store.write(number, piece, tag(number))
    store.write(4, b"closing", tag(4))


def test_what_is_written_reads_back(store: FileStreamStore) -> None:
    fill(store)
    assert [store.read(number) for number in (1, 2, 3, 4)] == [*PIECES, b"closing"]
    assert [store.tag(number) for number in (1, 2, 3, 4)] == [tag(n) for n in (1, 2, 3, 4)]


def test_what_is_not_written_is_not_there(store: FileStreamStore) -> None:
    store.write(3, PIECES[2], tag(3))
    assert store.tag(1) is None
    assert store.tag(4) is None
    assert store.read(4) is None
    assert store.read(900) is None


def test_held_ranges_outlive_the_process(tmp_path: Path, meta: Meta, store: FileStreamStore) -> None:
    store.write(3, PIECES[2], tag(3))
    store.write(1, PIECES[0], tag(1))
    store.write(4, b"closing", tag(4))
    store.write(90, b"record", tag(90))
    assert list(store.held()) == [(1, 2), (3, 5), (90, 91)]
    again = FileStreamStore(tmp_path / "stream", meta, Handles())
    assert list(again.held()) == [(1, 2), (3, 5), (90, 91)]
    assert again.read(4) == b"closing"


def test_pieces_in_order_are_written_together_and_a_crash_costs_the_last_few(
    tmp_path: Path, meta: Meta, store: FileStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_stream, "RUN_BYTES", 2_000)
    store.write(1, PIECES[0], tag(1))
    assert (store.read(1), store.tag(1)) == (PIECES[0], tag(1))
    assert list(FileStreamStore(tmp_path / "stream", meta, Handles()).held()) == []
    store.write(2, PIECES[1], tag(2))
    again = FileStreamStore(tmp_path / "stream", meta, Handles())
    assert list(again.held()) == [(1, 3)]
    assert again.read(2) == PIECES[1]


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
    store.write(1, b"x" * 1_000, tag(9))
    assert (tmp_path / "model.bin").read_bytes() == DATA


def test_a_finished_file_that_its_user_removed_is_missing(tmp_path: Path, meta: Meta, store: FileStreamStore) -> None:
    fill(store)
    store.finish(bytes(32))
    (tmp_path / "model.bin").unlink()
    again = FileStreamStore(tmp_path / "stream", store.meta, Handles())
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
    assert store.tag(4) is None
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
    store.write(1, PIECES[0], tag(1))
    with pytest.raises(StoreError) as caught:
        list(store.held())
    assert caught.value.reason == "io"
    assert store.tag(1) is None
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_space(store: FileStreamStore, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(file_stream, "RUN_BYTES", 1)
    for chunk in (1, 4):
        with pytest.raises(StoreError) as caught:
            store.write(chunk, b"x" * 1_000, tag(chunk))
        assert caught.value.reason == "no-space"
    monkeypatch.undo()
    fill(store)
    assert list(store.held()) == [(1, 5)]


def test_a_write_that_the_disk_takes_in_parts_is_finished(
    store: FileStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:7], at))
    fill(store)
    monkeypatch.undo()
    assert store.read(2) == PIECES[1]
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    monkeypatch.setattr(file_stream, "RUN_BYTES", 1)
    with pytest.raises(StoreError):
        store.write(1, PIECES[0], tag(1))


def test_a_medium_that_fails_to_read_is_an_error(store: FileStreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StoreError, match="reading"):
        store.read(1)
    assert store.tag(1) is None


@pytest.mark.parametrize("cut", [1, 10, 27, 28, 30])
def test_a_record_torn_by_a_crash_is_left_out_and_written_again(
    tmp_path: Path, meta: Meta, store: FileStreamStore, cut: int
) -> None:
    store.write(4, b"closing", tag(4))
    store.write(5, b"more", tag(5))
    records = tmp_path / "stream" / "records"
    whole = records.read_bytes()
    os.truncate(records, len(whole) - min(cut, 31))
    again = FileStreamStore(tmp_path / "stream", meta, Handles())
    assert again.read(4) == b"closing"
    assert again.read(5) is None
    again.write(5, b"more", tag(5))
    assert records.read_bytes() == whole


def test_a_source_keeps_tags_and_reads_its_file(tmp_path: Path, meta: Meta, handles: Handles) -> None:
    source = replace(meta, role="source", path="/nowhere")
    store = FileStreamStore(tmp_path / "stream", source, handles, BytesReader(DATA))
    fill(store)
    assert [store.read(number) for number in (1, 2, 3, 4)] == [*PIECES, b"closing"]
    assert list(store.held()) == [(1, 5)]
    store.finish(bytes(32))
    assert Meta.load(tmp_path / "stream").done
    store.drop_below(3)
    assert list(store.held()) == [(1, 5)]


def test_an_empty_file_has_its_closing_record_alone(tmp_path: Path, meta: Meta, handles: Handles) -> None:
    os.truncate(meta.path, 0)
    store = FileStreamStore(tmp_path / "stream", replace(meta, size_bytes=0), handles)
    store.write(1, b"closing", tag(1))
    assert store.read(1) == b"closing"
    store.finish(bytes(32))
    assert (tmp_path / "model.bin").read_bytes() == b""


@given(st.lists(st.integers(min_value=1, max_value=40), unique=True))
def test_held_is_what_was_written(numbers: list[int]) -> None:
    found = file_stream._ranges(sorted(numbers))
    spread = [number for first, end in found for number in range(first, end)]
    assert spread == sorted(numbers)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"opening": "aa"}', "null"],
)
def test_a_spoilt_record_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(ValueError, match=r".*"):
        Meta.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"role": "thief"},
        {"path": 5},
        {"name": None},
        {"expires": "soon"},
        {"size_bytes": -1},
        {"size_bytes": True},
        {"piece_bytes": 0},
        {"opening": "xyz"},
        {"opening": ""},
    ],
)
def test_a_record_with_a_wrong_field_is_an_error(tmp_path: Path, meta: Meta, change: dict[str, object]) -> None:
    replace(meta, **change).save(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r".*"):
        Meta.load(tmp_path)
