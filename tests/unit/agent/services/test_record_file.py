import errno
import os
from pathlib import Path

import pytest

from agent.services.handles import Handles
from agent.services.record_file import RecordFile

TAG = bytes(range(16))


def test_records_outlive_the_process(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "records", Handles())
    assert file.records == {}
    file.write(4, b"closing", TAG)
    file.write(90, b"", TAG)
    assert RecordFile(tmp_path / "records", Handles()).records == {4: (TAG, b"closing"), 90: (TAG, b"")}
    file.forget()
    assert file.records == {}


def test_of_a_record_that_is_written_again_the_last_one_counts(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "records", Handles())
    file.write(4, b"forged", bytes(16))
    file.write(8, b"other", TAG)
    file.write(4, b"closing", TAG)
    for found in (file, RecordFile(tmp_path / "records", Handles())):
        assert found.records == {4: (TAG, b"closing"), 8: (TAG, b"other")}


def test_a_torn_record_is_cut_off(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "records", Handles())
    file.write(4, b"closing", TAG)
    whole = (tmp_path / "records").read_bytes()
    for torn in range(len(whole)):
        (tmp_path / "records").write_bytes(whole + whole[:torn])
        again = RecordFile(tmp_path / "records", Handles())
        assert again.records == {4: (TAG, b"closing")}
        assert (tmp_path / "records").read_bytes() == whole


def test_a_record_that_is_not_written_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev

    def fill_up(handle: int, data: list[bytes], offset: int) -> int:
        if offset % 35:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, [data[0][:10]], offset)

    file = RecordFile(tmp_path / "records", Handles())
    file.write(4, b"closing", TAG)
    monkeypatch.setattr(os, "pwritev", fill_up)
    with pytest.raises(OSError, match="No space"):
        file.write(5, b"more", TAG)
    assert (tmp_path / "records").stat().st_size == 35
    monkeypatch.undo()
    file.write(6, b"more", TAG)
    assert list(RecordFile(tmp_path / "records", Handles()).records) == [4, 6]
