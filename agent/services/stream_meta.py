"""What is kept of a file stream beside its chunks: ``meta.json`` in the stream's folder."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from agent.services.identity import write_atomically
from agent.services.naming import has_name
from common.blocks import Blocks


@dataclass(frozen=True, slots=True)
class Meta:
    """What is kept of a stream beside its chunks.

    Attributes:
        opening: sealed, in hex.
        role: ``source`` or ``receive``.
        expires: unix seconds after which the stream is of no use.
        name: the safe name that the file shall have, or has.
        path: at the source the file; at a receiver where its bytes are now.
        size_bytes: of the file.
        piece_bytes: of every piece but the last.
        modified_ns: at the source, when the file was last changed.
        inode: at the source, which file it is.
        done: whether it is complete and verified.
        sha256: of the verified file, in hex.
        final: at a receiver the path that a verified file is about to get, or has.
        boot: at a source the run of the host in which tags were written that the disk may not have yet.
    """

    opening: str
    role: str
    expires: float
    name: str
    path: str
    size_bytes: int
    piece_bytes: int
    modified_ns: int = 0
    inode: int = 0
    done: bool = False
    sha256: str = ""
    final: str = ""
    boot: str = ""

    @property
    def blocks(self) -> Blocks:
        """How the file's chunks are numbered."""
        return Blocks.of(self.size_bytes, self.piece_bytes)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a stream's ``meta.json``.

        Raises:
            ValueError: it cannot be used.
            OSError: it cannot be read.
        """
        try:
            meta = cls(**json.loads((folder / "meta.json").read_bytes()))
            usable = (
                meta.role in ("source", "receive")
                and isinstance(meta.path, str)
                and isinstance(meta.name, str)
                and isinstance(meta.final, str)
                and isinstance(meta.boot, str)
                and isinstance(meta.expires, int | float)
                and type(meta.size_bytes) is int
                and type(meta.piece_bytes) is int
                and meta.size_bytes >= 0 < meta.piece_bytes
                and bytes.fromhex(meta.opening)
            )
        except TypeError as error:
            raise ValueError(f"{folder / 'meta.json'} is not a stream's record") from error
        if not usable:
            raise ValueError(f"{folder / 'meta.json'} is not a stream's record")
        return meta

    def save(self, folder: Path, *, sync: bool = False) -> None:
        """Write a stream's ``meta.json``.

        Args:
            folder: the stream's own.
            sync: whether it has to outlive a power cut.

        Raises:
            OSError: it cannot be written.
        """
        write_atomically(folder / "meta.json", json.dumps(asdict(self)).encode(), sync=sync)


def complete_naming(folder: Path, meta: Meta) -> Meta | None:
    """Complete what a crash left of a verified file's naming.

    Args:
        folder: the stream's own.
        meta: its record.

    Returns:
        The record as it is now: unchanged if the file has not got its name. None if it got it and its user took it
        away.

    Raises:
        OSError: the receive folder cannot be read.
    """
    if meta.role != "receive" or meta.done or not meta.final:
        return meta
    part, final = Path(meta.path), Path(meta.final)
    if not has_name(part, final, meta.size_bytes):
        return meta if os.path.lexists(part) else None
    named = replace(meta, done=True, path=meta.final)
    with contextlib.suppress(OSError):  # such as a full disk: the next start comes here again
        part.unlink(missing_ok=True)
        named.save(folder)
    return named
