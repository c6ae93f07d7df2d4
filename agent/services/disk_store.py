"""All streams that this device keeps: file streams on disk, message streams in memory.

A file being received is ``.NAME.STREAM.part`` in the receive folder until it is verified; everything else about it
is in the agent's state folder. Nothing that another device says chooses a path: only its file's name is used, made
safe.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from agent.core.memory_store import MemoryStreamStore
from agent.core.store import PieceReader, Resumed, Role, StoreError, StreamStore
from agent.services.disk_writer import DiskWriter, most_queued_bytes
from agent.services.file_reader import FileReader
from agent.services.file_stream import FileStreamStore, store_error
from agent.services.handles import Handles
from agent.services.identity import append_line, write_atomically
from agent.services.names import part_name, safe_name
from agent.services.stream_meta import Meta, complete_naming
from common.ids import ChannelId
from common.limits import MAX_STREAMS, MAX_TOMBSTONES, STREAM_MEMORY_BYTES
from common.opening import STREAM_ID_BYTES, Opening

log = logging.getLogger(__name__)

RETENTION_BYTES: Final = 64 * 1024 * 1024
"""What a message stream keeps where its channel is not known."""


class DiskStores:
    """The stores of one agent.

    Args:
        state: the agent's state folder.
        receive: the folder in which received files appear; made when the first one comes.
        wall: unix seconds now; what expired before is dropped.
        quota_bytes: what the receive folder may hold in all; None takes what the disk has.
        stream_bytes: what one stream may take of the device's memory.
        retention_bytes: returns what one message stream of a channel may keep.
        boot: names the present run of the host; empty where nobody knows.
    """

    def __init__(
        self,
        state: Path,
        receive: Path,
        *,
        wall: float,
        quota_bytes: int | None = None,
        stream_bytes: int = STREAM_MEMORY_BYTES,
        retention_bytes: Callable[[ChannelId], int] = lambda _: RETENTION_BYTES,
        boot: str = "",
    ) -> None:
        self._streams = state / "streams"
        self._streams.mkdir(mode=0o700, exist_ok=True)
        self._receive = receive
        self._wall = wall
        self._quota_bytes = quota_bytes
        self._retention_bytes = retention_bytes
        self._boot = boot
        self._handles = Handles()
        self._writer = DiskWriter(most_bytes=most_queued_bytes(stream_bytes))
        self._live: dict[str, FileStreamStore] = {}
        self._graves = Graves(state / "tombstones", wall)

    def close(self) -> None:
        """Write what was received, for a limited time, and close the open files."""
        for store in self._live.values():
            try:
                store.hand_over()
                store.make_safe()
            except StoreError as error:
                log.warning("= stopping: %s", error)
        self._writer.close()
        self._handles.close()

    def receive(self, opening: Opening, sealed: bytes) -> StreamStore:
        """Make room for a stream to be received.

        Raises:
            StoreError: the folder, the disk or the quota does not take it.
        """
        if opening.kind == "message":
            return self._in_memory(opening)
        size = opening.size_bytes or 0
        name = safe_name(opening.name)
        path = self._receive / part_name(name, opening.hex)
        meta = Meta(
            opening=sealed.hex(),
            role="receive",
            expires=opening.expires,
            name=name,
            path=str(path),
            size_bytes=size,
            piece_bytes=opening.piece_bytes,
        )
        try:
            self._receive.mkdir(parents=True, exist_ok=True)
            self._check_room(size)
            _make_part(path, size)
        except OSError as error:
            raise store_error(error, f"making {name!r} in {self._receive}") from error
        return self._keep(opening, meta, None)

    def source(self, opening: Opening, sealed: bytes, reader: PieceReader | None) -> StreamStore:
        """Make the record of a stream that starts here; a file's bytes come from ``reader``.

        Raises:
            StoreError: the record cannot be kept.
        """
        if opening.kind == "message":
            return self._in_memory(opening)
        file = reader if isinstance(reader, FileReader) else None
        meta = Meta(
            opening=sealed.hex(),
            role="source",
            expires=opening.expires,
            name=opening.name,
            path=str(file.path) if file else "",
            size_bytes=opening.size_bytes or 0,
            piece_bytes=opening.piece_bytes,
            modified_ns=file.modified_ns if file else 0,
            inode=file.inode if file else 0,
            boot=self._boot,
        )
        return self._keep(opening, meta, reader)

    def resume(self) -> Iterable[Resumed]:
        """Return the file streams of an earlier run; what expired, was finished off or is spoilt is cleared away."""
        found = []
        for folder in sorted(self._streams.iterdir()):
            try:
                resumed = self._resume_one(folder)
            except (OSError, ValueError, StoreError) as error:
                log.warning("= stream %s cannot be resumed: %s", folder.name, error)
                self._clear(folder)
                continue
            if resumed is not None:
                found.append(resumed)
        return found

    def tombstones(self) -> Mapping[str, float]:
        """Return finished streams (id in hex) with the unix seconds at which each may be forgotten."""
        return dict(self._graves.expiries)

    def bury(self, stream: str, expires: float) -> None:
        """Remember a finished stream until ``expires`` (unix seconds)."""
        self._live.pop(stream, None)
        self._graves.add(stream, expires)

    def _in_memory(self, opening: Opening) -> StreamStore:
        return MemoryStreamStore(limit_bytes=self._retention_bytes(opening.channel))

    def _keep(self, opening: Opening, meta: Meta, reader: PieceReader | None) -> FileStreamStore:
        """Make a stream's folder."""
        folder = self._streams / opening.hex
        try:
            self._make_place()
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            meta.save(folder)
        except (OSError, StoreError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            if meta.role == "receive":
                Path(meta.path).unlink(missing_ok=True)
            if isinstance(error, StoreError):
                raise
            raise store_error(error, f"keeping a record of {meta.name!r}") from error
        store = FileStreamStore(folder, meta, self._handles, self._writer, reader)
        self._live[opening.hex] = store
        return store

    def _make_place(self) -> None:
        """Forget the oldest finished stream when there are too many.

        Raises:
            StoreError: none is finished.
        """
        if len(self._live) < MAX_STREAMS:
            return
        for stream, store in self._live.items():
            if store.meta.done:
                store.discard()
                self.bury(stream, store.meta.expires)
                return
        raise StoreError("too-many", f"{MAX_STREAMS} unfinished file streams are kept here already")

    def _resume_one(self, folder: Path) -> Resumed | None:
        if len(bytes.fromhex(folder.name)) != STREAM_ID_BYTES:
            raise ValueError("it is no stream")
        meta = Meta.load(folder)
        if meta.expires <= self._wall or folder.name in self._graves.expiries:
            self._clear(folder)
            return None
        named = complete_naming(folder, meta)
        if named is None or (named.role == "receive" and named.done and not Path(named.path).exists()):
            # Its user took the file away: it is not to come again.
            self._graves.add(folder.name, meta.expires)
            self._clear(folder)
            return None
        meta, reader = named, None
        if meta.role == "source":
            try:
                reader = self._reopen(meta)
            except StoreError:
                # It cannot go on, and no neighbour shall make this device a receiver of its own file.
                self._graves.add(folder.name, meta.expires)
                raise
            # On the disk before anything is cut: what is cut from here on may not be there after the next power cut.
            meta = replace(meta, boot=self._boot)
            meta.save(folder, sync=True)
        else:
            self._check_part(meta)
        store = FileStreamStore(folder, meta, self._handles, self._writer, reader)
        role: Role = "done" if meta.done else "source" if meta.role == "source" else "receive"
        self._live[folder.name] = store
        return Resumed(bytes.fromhex(meta.opening), store, role)

    def _reopen(self, meta: Meta) -> FileReader:
        """Open a source's file again if it is still the one whose sending began, and what was sent of it is known."""
        if meta.boot not in ("", self._boot):
            raise StoreError("changed", f"the host went down while {meta.path} was being sent")
        return _reopen(meta)

    def _check_part(self, meta: Meta) -> None:
        """Refuse a record whose file is not where this agent would have put it."""
        path = Path(meta.path)
        if path.parent != self._receive and not meta.done:
            raise ValueError(f"its part is in {path.parent}, and files are received in {self._receive}")
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"{path} is gone")

    def _clear(self, folder: Path) -> None:
        """Remove what is kept of a stream; a finished file and a source's file stay."""
        try:
            meta = Meta.load(folder)
            FileStreamStore(folder, meta, self._handles, self._writer).discard()
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)

    def _check_room(self, size: int) -> None:
        """Refuse a file that the quota or the disk has no room for."""
        if self._quota_bytes is not None:
            left = max(0, self._quota_bytes - _folder_bytes(self._receive))
            if size > left:
                raise StoreError(
                    "no-space",
                    f"{show_bytes(size)} are more than the {show_bytes(left)} left of the"
                    f" device's quota of {show_bytes(self._quota_bytes)}",
                )
        promised = sum(_missing_bytes(store.meta) for store in self._live.values())
        left = max(0, shutil.disk_usage(self._receive).free - promised)
        if size > left:
            raise StoreError(
                "no-space",
                f"{show_bytes(size)} are more than the {show_bytes(left)} free on the device's disk",
            )


class Graves:
    """Tombstones on disk, one line each; an old file is written anew without what expired.

    Args:
        path: the file.
        wall: unix seconds now.
    """

    def __init__(self, path: Path, wall: float) -> None:
        self._path = path
        self._lines = 0
        self.expiries: dict[str, float] = {}
        try:
            # Damage in one line must not hide the others, nor what is added to the file from now on.
            text = path.read_text(errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("= the tombstones cannot be read: %s", error)
            return
        for line in text.splitlines():
            stream, _, written = line.partition(" ")
            try:
                expires = float(written)
            except ValueError:
                continue
            if expires > wall and math.isfinite(expires):
                self.expiries[stream] = expires
        while len(self.expiries) > MAX_TOMBSTONES:
            self._forget_oldest()
        self._write_anew()

    def add(self, stream: str, expires: float) -> None:
        """Remember one more; of too many the oldest is forgotten."""
        self.expiries[stream] = expires
        if len(self.expiries) > MAX_TOMBSTONES:
            self._forget_oldest()
        if self._lines >= 2 * MAX_TOMBSTONES:
            self._write_anew()
            return
        self._lines += 1
        try:
            append_line(self._path, f"{stream} {expires!r}")
        except OSError as error:
            log.warning("= the end of stream %s cannot be kept: %s", stream, error)

    def _forget_oldest(self) -> None:
        del self.expiries[next(iter(self.expiries))]

    def _write_anew(self) -> None:
        lines = [f"{each} {at!r}\n" for each, at in self.expiries.items()]
        self._lines = len(lines)
        try:
            write_atomically(self._path, "".join(lines).encode())
        except OSError as error:
            log.warning("= old tombstones cannot be cleared away: %s", error)


def show_bytes(count: int) -> str:
    """Write a number of bytes for people: ``10.0 MiB``."""
    figure = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if figure < 1024:
            return f"{count} bytes" if unit == "bytes" else f"{figure:.1f} {unit}"
        figure /= 1024
    return f"{figure:.1f} TiB"


def _make_part(path: Path, size: int) -> None:
    """Make the empty file that is going to be filled; what lay there under its name is not followed."""
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path, flags, 0o666)
    try:
        os.ftruncate(handle, size)
    finally:
        os.close(handle)


def _reopen(meta: Meta) -> FileReader:
    """Open a source's file again if it is still the one whose sending began."""
    reader = FileReader(Path(meta.path))
    found = (reader.size_bytes, reader.modified_ns, reader.inode)
    if found != (meta.size_bytes, meta.modified_ns, meta.inode):
        reader.close()
        raise StoreError("changed", f"{meta.path} is not the file any more whose sending began")
    return reader


def _folder_bytes(folder: Path) -> int:
    """Sum the files of the receive folder; one that is arriving counts whole."""
    with os.scandir(folder) as entries:
        return sum(
            entry.stat(follow_symlinks=False).st_size for entry in entries if entry.is_file(follow_symlinks=False)
        )


def _missing_bytes(meta: Meta) -> int:
    """Return what an arriving file will still take of the disk."""
    if meta.done or meta.role == "source":
        return 0
    try:
        return max(0, meta.size_bytes - Path(meta.path).stat().st_blocks * 512)
    except OSError:
        return 0
