"""The server's state in one file, taken while the server runs, and put back elsewhere.

The database is copied by SQLite's online backup: what is committed when it begins is in it, and a server that writes
meanwhile is not held up. Tokens and certificate are files that are written once. What the server makes anew at each
start is left out.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from common.errors import ConfigError
from common.limits import MAX_BACKUP_BYTES, MAX_BACKUP_FILES

DATABASE = "state.sqlite3"
_MADE_ANEW = ("server.json",)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_COPY_S = 60.0
"""Seconds for which a copy waits for a writer."""


def back_up(state: Path, file: Path) -> tuple[str, ...]:
    """Write a server's state into a tar file that only its owner can read (mode 0600).

    Args:
        state: the server's state directory; the server may run.
        file: where to; nothing may be there.

    Returns:
        The names of what is in it.

    Raises:
        ConfigError: there is no such state, or the file cannot be written.
    """
    if not (state / DATABASE).is_file():
        raise ConfigError(f"{state} holds no server's state: there is no {DATABASE}")
    if file.exists():
        raise ConfigError(f"{file} is there already; a backup replaces no file")
    temporary = file.with_name(f".{file.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with contextlib.ExitStack() as undo:
            undo.callback(temporary.unlink, missing_ok=True)
            names = _write(state, descriptor, file.parent)
            temporary.replace(file)
            undo.pop_all()
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"cannot back {state} up to {file}: {_why(error)}") from error
    return names


def restore(state: Path, file: Path) -> tuple[str, ...]:
    """Put a backup where no state is yet.

    Args:
        state: the directory for it, missing or empty.
        file: what `back_up` wrote.

    Returns:
        The names of what was put there.

    Raises:
        ConfigError: the file is no backup, or there is a state already.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(state.iterdir()):
            raise ConfigError(f"{state} is not empty; a backup is put into an empty directory")
        with tarfile.open(file, "r:") as archive, contextlib.ExitStack() as undo:
            members = _members(archive, file)
            for name, member in members.items():
                undo.callback((state / name).unlink, missing_ok=True)
                _put(state / name, archive.extractfile(member))
            _check(state, file)
            undo.pop_all()
    except (OSError, tarfile.TarError, sqlite3.Error) as error:
        raise ConfigError(f"cannot restore {file} to {state}: {_why(error)}") from error
    return tuple(sorted(members))


def _write(state: Path, descriptor: int, beside: Path) -> tuple[str, ...]:
    with os.fdopen(descriptor, "wb") as opened, tempfile.TemporaryDirectory(dir=beside) as folder:
        copy = Path(folder) / DATABASE
        _copy_database(state / DATABASE, copy)
        found = {DATABASE: copy, **{path.name: path for path in _files(state)}}
        with tarfile.open(fileobj=opened, mode="w") as archive:
            for name in sorted(found):
                archive.add(found[name], arcname=name, recursive=False, filter=_anonymous)
        opened.flush()
        os.fsync(opened.fileno())
    return tuple(sorted(found))


def _files(state: Path) -> Iterator[Path]:
    """Yield what is kept beside the database."""
    for path in state.iterdir():
        kept = not path.name.startswith((".", DATABASE)) and path.name not in _MADE_ANEW
        if kept and path.is_file() and not path.is_symlink():
            yield path


def _copy_database(source: Path, target: Path) -> None:
    with (
        contextlib.closing(
            sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=_COPY_S)
        ) as there,
        contextlib.closing(sqlite3.connect(target)) as here,
    ):
        there.backup(here)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out whose file it was: elsewhere that is somebody else."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def _members(archive: tarfile.TarFile, file: Path) -> dict[str, tarfile.TarInfo]:
    """Return what is in a backup, by name, if all of it may be put into a directory."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in archive:
        if not member.isreg() or not _PLAIN_NAME.fullmatch(member.name) or member.name in found:
            raise ConfigError(f"{file} is no server's backup: it holds {member.name[:80]!r}")
        found[member.name] = member
        if len(found) > MAX_BACKUP_FILES:
            raise ConfigError(f"{file} holds more than {MAX_BACKUP_FILES} files, the most that a backup may")
        if member.size > MAX_BACKUP_BYTES:
            raise ConfigError(
                f"{member.name} in {file} is larger than {MAX_BACKUP_BYTES} bytes, the most that it may be"
            )
    if DATABASE not in found:
        raise ConfigError(f"{file} is no server's backup: it holds no {DATABASE}")
    return found


def _put(path: Path, content: IO[bytes] | None) -> None:
    assert content is not None  # noqa: S101 - a regular file has some
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        shutil.copyfileobj(content, opened)
        opened.flush()
        os.fsync(opened.fileno())


def _check(state: Path, file: Path) -> None:
    """Read the database once."""
    path = state / DATABASE
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            connection.execute("SELECT revision FROM counter").fetchone()
    except sqlite3.Error as error:
        verdict = str(error)
    if verdict != "ok":
        raise ConfigError(f"the database in {file} is damaged: {verdict}")


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
