import io
import sqlite3
import stat
import tarfile
import time
from pathlib import Path

import pytest

from common import limits
from common.errors import ConfigError
from server.services import backup as module
from server.services.backup import back_up, restore
from server.services.store.sqlite import SqliteStore


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir()
    for name in ("admin-token", "join-token-lab", "tls-key.pem"):
        (made / name).write_text(f"what {name} holds\n")
    for name in ("server.json", ".admin-token.new"):
        (made / name).write_text("not kept")
    (made / "link").symlink_to("admin-token")
    return made


async def test_a_backup_of_a_store_in_use_holds_what_was_committed(state: Path, tmp_path: Path) -> None:
    store = SqliteStore.open(state / "state.sqlite3", wall=time.time)
    try:
        revision = await store.put_if_revision("key", b"before", 0)
        names = back_up(state, tmp_path / "it.tar")
        await store.put_if_revision("key", b"after", revision)
    finally:
        await store.close()
    assert names == ("admin-token", "join-token-lab", "state.sqlite3", "tls-key.pem")
    assert stat.S_IMODE((tmp_path / "it.tar").stat().st_mode) == 0o600
    assert listing(tmp_path) == ["it.tar", "state"]

    elsewhere = tmp_path / "deep" / "elsewhere"
    assert restore(elsewhere, tmp_path / "it.tar") == names
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
    assert listing(elsewhere) == sorted(names)
    for name in names:
        assert stat.S_IMODE((elsewhere / name).stat().st_mode) == 0o600
    assert (elsewhere / "tls-key.pem").read_text() == "what tls-key.pem holds\n"
    store = SqliteStore.open(elsewhere / "state.sqlite3", wall=time.time)
    try:
        found = await store.get("key")
        assert found is not None
        assert (found.value, found.revision) == (b"before", revision)
        assert await store.put_if_revision("key", b"on", found.revision) > revision
    finally:
        await store.close()


async def fill(state: Path) -> None:
    await SqliteStore.open(state / "state.sqlite3", wall=time.time).close()


async def test_a_backup_replaces_nothing_and_needs_a_state(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "it.tar"
    with pytest.raises(ConfigError, match=f"^{state} holds no server's state: there is no state.sqlite3$"):
        back_up(state, file)
    await fill(state)
    with pytest.raises(ConfigError, match=f"^cannot back {state} up to /no/such/x.tar: No such file or directory$"):
        back_up(state, Path("/no/such/x.tar"))
    file.write_text("mine")
    with pytest.raises(ConfigError, match=f"^{file} is there already; a backup replaces no file$"):
        back_up(state, file)
    assert file.read_text() == "mine"


async def test_a_backup_that_fails_leaves_nothing(state: Path, tmp_path: Path) -> None:
    (state / "state.sqlite3").write_text("no database at all, but long enough to be looked at" * 20)
    with pytest.raises(ConfigError, match="file is not a database"):
        back_up(state, tmp_path / "it.tar")
    assert listing(tmp_path) == ["state"]


async def test_what_is_there_is_not_restored_over(state: Path, tmp_path: Path) -> None:
    await fill(state)
    back_up(state, tmp_path / "it.tar")
    with pytest.raises(ConfigError, match="is not empty; a backup is put into an empty directory"):
        restore(state, tmp_path / "it.tar")


def archive(path: Path, *members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w") as made:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(data), "/etc/passwd"
            made.addfile(member, io.BytesIO(data))
    return path


def a_database(tmp_path: Path) -> bytes:
    with sqlite3.connect(tmp_path / "some.sqlite3") as connection:
        connection.execute("CREATE TABLE counter (revision INTEGER)")
    connection.close()
    return (tmp_path / "some.sqlite3").read_bytes()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("../outside", b"")], "is no server's backup: it holds '../outside'"),
        ([("/etc/passwd", b"")], "is no server's backup: it holds '/etc/passwd'"),
        ([(".hidden", b"")], "is no server's backup: it holds '.hidden'"),
        ([("a", b""), ("a", b"")], "is no server's backup: it holds 'a'"),
        ([("admin-token", b"t")], "is no server's backup: it holds no state.sqlite3"),
        ([("state.sqlite3", b"x" * 2000)], "the database in .* is damaged: file is not a database"),
        ([("state.sqlite3", b"")], "the database in .* is damaged: no such table: counter"),
    ],
)
def test_what_is_no_backup_is_refused_and_leaves_nothing(
    tmp_path: Path, members: list[tuple[str, bytes]], words: str
) -> None:
    file = archive(tmp_path / "it.tar", *members)
    with pytest.raises(ConfigError, match=words):
        restore(tmp_path / "new", file)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_backup_holds_plain_files_alone(tmp_path: Path, kind: bytes) -> None:
    file = archive(tmp_path / "it.tar", ("state.sqlite3", b""), kind=kind)
    with pytest.raises(ConfigError, match=r"is no server's backup: it holds 'state\.sqlite3'"):
        restore(tmp_path / "new", file)


def test_a_file_that_is_no_archive_or_not_there_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "it.tar"
    with pytest.raises(ConfigError, match=f"^cannot restore {file} to .*: No such file or directory$"):
        restore(tmp_path / "new", file)
    file.write_text("no archive " * 100)
    with pytest.raises(ConfigError, match=f"^cannot restore {file} to .*: invalid header$"):
        restore(tmp_path / "new", file)


def test_a_backup_has_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = ("state.sqlite3", a_database(tmp_path))
    monkeypatch.setattr(module, "MAX_BACKUP_FILES", 3)
    restore(tmp_path / "most", archive(tmp_path / "3.tar", database, ("a", b""), ("b", b"")))
    with pytest.raises(ConfigError, match="holds more than 3 files"):
        restore(tmp_path / "new", archive(tmp_path / "4.tar", database, ("a", b""), ("b", b""), ("c", b"")))
    monkeypatch.setattr(module, "MAX_BACKUP_BYTES", len(database[1]))
    restore(tmp_path / "large", archive(tmp_path / "5.tar", database))
    with pytest.raises(ConfigError, match=f"a in .* is larger than {len(database[1])} bytes"):
        restore(tmp_path / "new", archive(tmp_path / "6.tar", database, ("a", bytes(len(database[1]) + 1))))
    assert limits.MAX_BACKUP_FILES > limits.MAX_GROUPS
