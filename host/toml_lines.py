"""Find the line of a key in a TOML text.

``tomllib`` gives values without their places. This scanner reads only what is needed to point a person at a mistake:
table headers, the keys at the start of lines, and where a value that spans lines ends. It is run on texts that
``tomllib`` has already accepted.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY: Final = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_PART: Final = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_TOKEN: Final = re.compile(r'''"""|\'\'\'|"(?:[^"\\]|\\.)*"|'[^']*'|#.*|[\[\]{}]''')


class TomlLines:
    """The lines of the tables and keys of one TOML text.

    A path is made of keys, and of positions (from 0) in arrays of tables: ``("links", 2, "rate")``.
    """

    def __init__(self, text: str) -> None:
        """Scan a text.

        Args:
            text: A TOML document that ``tomllib`` accepts.
        """
        self._lines: dict[KeyPath, int] = {}
        self._counts: dict[KeyPath, int] = {}
        table: KeyPath = ()
        quote = ""
        depth = 0
        for number, line in enumerate(text.splitlines(), 1):
            if not quote and depth == 0:
                header = _HEADER.fullmatch(line)
                if header is not None:
                    table = self._open_table(header[1], header[2])
                    self._lines.setdefault(table, number)
                    continue
                key = _KEY.match(line)
                if key is not None:
                    self._note_key(table, key[1], number)
                    quote, depth = _after(line[key.end() :], quote, depth)
                    continue
            quote, depth = _after(line, quote, depth)

    def line(self, path: KeyPath) -> int:
        """Return the line of a path, or of the longest known beginning of it (1 when nothing of it is known)."""
        for length in range(len(path), 0, -1):
            found = self._lines.get(path[:length])
            if found is not None:
                return found
        return 1

    def _open_table(self, brackets: str, name: str) -> KeyPath:
        path: KeyPath = ()
        parts = _parts(name)
        for part in parts[:-1]:
            path = self._latest((*path, part))
        path = (*path, parts[-1])
        if brackets == "[[":
            position = self._counts.get(path, 0)
            self._counts[path] = position + 1
            return (*path, position)
        return path

    def _latest(self, path: KeyPath) -> KeyPath:
        count = self._counts.get(path)
        return path if count is None else (*path, count - 1)

    def _note_key(self, table: KeyPath, dotted: str, number: int) -> None:
        path = table
        for part in _parts(dotted):
            path = (*path, part)
            self._lines.setdefault(path, number)


def not_toml(text: str, message: str) -> tuple[int, str]:
    """Return the line and the words of what ``tomllib`` says of a text.

    Args:
        text: what it refuses.
        message: its error.
    """
    what, _, place = message.rpartition(" (at ")
    line = len(text.splitlines()) or 1
    if place.startswith("line "):
        line = int(place.removeprefix("line ").split(",")[0])
    return line, what or message


def _parts(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(dotted)]


def _after(line: str, quote: str, depth: int) -> tuple[str, int]:
    """Follow open triple quotes and brackets through one line."""
    position = 0
    while True:
        if quote:
            end = line.find(quote, position)
            if end < 0:
                return quote, depth
            position = end + len(quote)
            quote = ""
        token = _TOKEN.search(line, position)
        if token is None:
            return quote, depth
        position = token.end()
        if token[0] in ('"""', "'''"):
            quote = token[0]
        elif token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
