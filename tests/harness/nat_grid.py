"""The table of docs/nat-grid.md, which says what the tests expect."""

from __future__ import annotations

from pathlib import Path

from lab.nat import Kind

PAGE = Path(__file__).parents[2] / "docs" / "nat-grid.md"


def nat_grid() -> dict[tuple[Kind, Kind], bool]:
    """Read which kinds can open a link to each other."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    kinds = [Kind(name) for name in rows[0][1:]]
    assert kinds == list(Kind)
    words = {"direct": True, "around": False}
    return {(Kind(row[0]), kind): words[cell] for row in rows[1:] for kind, cell in zip(kinds, row[1:], strict=True)}
