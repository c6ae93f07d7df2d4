import os
from pathlib import Path

import pytest

from agent.core.store import StoreError
from agent.services.file_reader import FileReader


def test_pieces_come_from_their_offsets(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    reader = FileReader(file)
    assert reader.size_bytes == 10
    assert reader.read(4, 3) == b"456"
    assert reader.read(10, 0) == b""


def test_a_file_replaced_by_another_is_sent_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    reader = FileReader(file)
    (tmp_path / "other").write_bytes(b"new")
    (tmp_path / "other").replace(file)
    assert reader.read(0, 3) == b"old"


def test_a_file_edited_in_place_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    reader = FileReader(file)
    os.utime(file, ns=(1, 1))
    with pytest.raises(StoreError) as caught:
        reader.read(0, 3)
    assert caught.value.reason == "changed"


def test_a_file_cut_short_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    reader = FileReader(file)
    os.truncate(file, 5)
    with pytest.raises(StoreError, match="was changed"):
        reader.read(4, 3)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*/none: No such file"):
        FileReader(tmp_path / "none")


def test_what_is_no_regular_file_is_not_sent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(StoreError, match="not a regular file"):
            FileReader(path)


def test_a_closed_reader_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    reader = FileReader(tmp_path / "file")
    reader.close()
    reader.close()
    with pytest.raises(StoreError) as caught:
        reader.read(0, 1)
    assert caught.value.reason == "io"
