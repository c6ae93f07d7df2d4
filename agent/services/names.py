"""File names from other devices, made safe for this one."""

from __future__ import annotations

import unicodedata
from typing import Final

from common.limits import MAX_NAME_BYTES

UNNAMED: Final = "unnamed"
_ENDING_CHARS: Final = 20
"""Characters of an ending that is kept when a name is cut."""
_INVISIBLE: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control, formatting (such as right-to-left override), lone surrogates, line and paragraph separators."""


def safe_name(name: str) -> str:
    """Return a name that is one path component, visible and plain.

    Path parts before the last go, for either kind of slash; invisible characters, leading dots and outer blanks go;
    what is longer than MAX_NAME_BYTES is cut before its ending. A name of which nothing is left becomes
    ``unnamed``.

    Args:
        name: as the source calls the file; anything.
    """
    last = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    plain = "".join(char for char in last if unicodedata.category(char) not in _INVISIBLE)
    return _fit(*_split(_without_edges(plain) or UNNAMED))


def numbered(name: str, copy: int) -> str:
    """Return the name of the ``copy``-th file of one safe name: ``report (2).pdf``."""
    if copy == 1:
        return name
    stem, ending = _split(name)
    return _fit(stem, f" ({copy}){ending}")


def part_name(name: str, stream: str) -> str:
    """Return the hidden name under which a file is received.

    Args:
        name: its safe name.
        stream: the stream's id in hex.
    """
    return _fit(f".{name}", f".{stream}.part")


def _without_edges(text: str) -> str:
    """Return a text without blanks of any script at its ends, and without dots before it."""
    first = next((at for at, char in enumerate(text) if char != "." and not char.isspace()), len(text))
    return text[first:].rstrip()


def _split(name: str) -> tuple[str, str]:
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending) > _ENDING_CHARS:
        return name, ""
    return stem, dot + ending


def _fit(stem: str, ending: str) -> str:
    room = MAX_NAME_BYTES - len(ending.encode())
    encoded = stem.encode()
    if len(encoded) > room:
        stem = encoded[:room].decode(errors="ignore").rstrip()
    return stem + ending
