import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.core.store import Resumed
from agent.services import naming
from agent.services.disk_store import DiskStores
from agent.services.stream_meta import Meta
from tests.unit.agent.fakes import make_opening

DATA = b"x" * 2_500
STREAM = make_opening().hex


class Crash(BaseException):
    """The end of the process, which nothing catches."""


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Callable[[], DiskStores]]:
    made: list[DiskStores] = []

    def make() -> DiskStores:
        (tmp_path / "state").mkdir(exist_ok=True)
        made.append(DiskStores(tmp_path / "state", tmp_path / "in", wall=1_500.0))
        return made[-1]

    yield make
    for each in made:
        each.close()


def receive(stores: DiskStores) -> None:
    store = stores.receive(make_opening(), b"sealed")
    store.write_run(1, [DATA[:1_000], DATA[1_000:2_000], DATA[2_000:]], [bytes([number]) * 16 for number in (1, 2, 3)])
    store.finish(bytes(32))


def no_link(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def crash(*_: object, **__: object) -> None:
    raise Crash


def crash_in_finish(stores: DiskStores, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Receive a file and die at one of the steps of its naming."""
    save = Meta.save

    def save_until_done(meta: Meta, folder: Path) -> None:
        if meta.done:
            raise Crash
        save(meta, folder)

    def save_until_noted(meta: Meta, folder: Path) -> None:
        if meta.final:
            raise Crash
        save(meta, folder)

    with monkeypatch.context() as patched:
        if "without links" in where:
            patched.setattr(os, "link", no_link)
        step = where.removesuffix(" without links")
        if step == "note":
            patched.setattr(Meta, "save", save_until_noted)
        elif step == "link":
            patched.setattr(os, "link", crash)
        elif step == "unlink":
            receive_with_unlink(stores, patched)
            return
        else:
            patched.setattr(Meta, "save", save_until_done)
        with pytest.raises(Crash):
            receive(stores)


def receive_with_unlink(stores: DiskStores, patched: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def unlink_no_part(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".part" and (path.parent / "model.bin").exists():
            raise Crash
        unlink(path, missing_ok=missing_ok)

    patched.setattr(Path, "unlink", unlink_no_part)
    with pytest.raises(Crash):
        receive(stores)


@pytest.mark.parametrize("where", ["note", "link", "unlink", "done", "done without links"])
def test_a_crash_at_any_step_delivers_the_file_once(
    stores: Callable[[], DiskStores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    crash_in_finish(stores(), monkeypatch, where)
    (resumed,) = list(stores().resume())
    assert isinstance(resumed, Resumed)
    assert resumed.role == ("receive" if where in ("note", "link") else "done")
    assert list(resumed.store.held()) == [(1, 4)]
    resumed.store.finish(bytes(32))
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["model.bin"]
    assert (tmp_path / "in" / "model.bin").read_bytes() == DATA
    kept = Meta.load(tmp_path / "state" / "streams" / STREAM)
    assert (kept.done, kept.sha256, kept.path) == (True, "00" * 32, str(tmp_path / "in" / "model.bin"))


def test_a_name_that_another_file_took_meanwhile_is_left_to_it(
    stores: Callable[[], DiskStores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_in_finish(stores(), monkeypatch, "link")
    (tmp_path / "in" / "model.bin").write_bytes(b"y" * len(DATA))
    (resumed,) = list(stores().resume())
    resumed.store.finish(bytes(32))
    assert (tmp_path / "in" / "model.bin").read_bytes() == b"y" * len(DATA)
    assert (tmp_path / "in" / "model (2).bin").read_bytes() == DATA


def test_a_file_that_was_taken_away_after_the_crash_does_not_come_again(
    stores: Callable[[], DiskStores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_in_finish(stores(), monkeypatch, "done")
    (tmp_path / "in" / "model.bin").unlink()
    again = stores()
    assert list(again.resume()) == []
    assert list(again.tombstones()) == [STREAM]


def test_a_record_that_cannot_be_completed_is_completed_at_the_next_start(
    stores: Callable[[], DiskStores], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save = Meta.save

    def no_space(meta: Meta, folder: Path) -> None:
        if meta.done:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(meta, folder)

    with monkeypatch.context() as patched:
        patched.setattr(Meta, "save", no_space)
        receive(stores())
        assert "the end of 'model.bin' is not on record yet" in caplog.text
        assert [each.role for each in stores().resume()] == ["done"]
    assert [each.role for each in stores().resume()] == ["done"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["model.bin"]


def test_a_name_is_noted_before_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(DATA)
    (tmp_path / "model.bin").touch()
    noted: list[tuple[str, bool]] = []
    final = naming.take_name(
        tmp_path / "part", "model.bin", lambda path: noted.append((path.name, os.path.lexists(path)))
    )
    assert final == tmp_path / "model (2).bin"
    assert noted == [("model (2).bin", False)]


def test_a_folder_of_the_noted_name_is_not_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.bin").mkdir()
    assert not naming.has_name(tmp_path / "part", tmp_path / "model.bin", 0)
