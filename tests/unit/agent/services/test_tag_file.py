import errno
import os
from pathlib import Path

import pytest

from agent.services.handles import Handles
from agent.services.piece_run import PieceRun
from agent.services.tag_file import TagFile


def run_of(start: int, *tags: bytes) -> PieceRun:
    run = PieceRun(start)
    run.tags += tags
    return run


def tag(number: int) -> bytes:
    return bytes([number]) * 16


def test_tags_lie_at_their_numbers(tmp_path: Path) -> None:
    file = TagFile(tmp_path / "tags", Handles())
    assert (list(file.numbers()), file.stop) == ([], 1)
    file.write([run_of(2, tag(2), tag(3)), run_of(6, tag(6))])
    again = TagFile(tmp_path / "tags", Handles())
    assert (list(again.numbers()), again.stop) == ([2, 3, 6], 7)
    assert again.read(1, 4) == [None, tag(2), tag(3), None]
    assert again.read(5, 4) == [None, tag(6), None, None]
    assert again.read(9, 2) == [None, None]
    again.forget()
    assert again.read(2, 1) == [None]


def test_the_place_of_a_number_that_is_no_piece_stays_empty_and_the_last_tag_of_a_piece_counts(tmp_path: Path) -> None:
    file = TagFile(tmp_path / "tags", Handles())
    file.write([run_of(1, tag(1), tag(2)), run_of(4, tag(4))])
    file.write([run_of(2, tag(9))])
    again = TagFile(tmp_path / "tags", Handles())
    assert list(again.numbers()) == [1, 2, 4]
    assert again.read(1, 4) == [tag(1), tag(9), None, tag(4)]


def test_a_tag_torn_by_a_crash_is_none(tmp_path: Path) -> None:
    TagFile(tmp_path / "tags", Handles()).write([run_of(1, tag(1), tag(2))])
    os.truncate(tmp_path / "tags", 31)
    file = TagFile(tmp_path / "tags", Handles())
    file.stop = 3
    assert file.read(1, 2) == [tag(1), None]
    assert list(file.numbers()) == [1]


def test_tags_that_cannot_be_read_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    TagFile(tmp_path / "tags", Handles()).write([run_of(1, tag(1))])
    file = TagFile(tmp_path / "tags", Handles())
    monkeypatch.setattr(os, "pread", fail)
    assert file.read(1, 1) == [None]
