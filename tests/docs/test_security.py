"""The page about security promises nothing that no test tries."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"

_TEST = re.compile(r"`(test_\w+)`")
_HEADING = "## Attackers"
_OF_THE_SUITE = {"test_every_frame_type_of_the_wire_is_attacked_here"}


def _page() -> str:
    return PAGE.read_text(encoding="utf-8")


def _named() -> list[str]:
    return sorted(set(_TEST.findall(_page())))


def _existing() -> set[str]:
    """Return the names of all test functions."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(node.name)
    return found


def _attempts() -> Iterator[tuple[str, str, str]]:
    """Yield what each attacker tries, what comes of it, and the tests that are named for it."""
    for line in _page().partition(_HEADING)[2].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and cells[0] != "tries":
            yield cells[0], cells[1], cells[2]


EXISTING = _existing()


@pytest.mark.parametrize("name", _named())
def test_every_test_that_is_named_exists(name: str) -> None:
    assert name in EXISTING


def test_every_cannot_names_a_test_and_every_attempt_says_what_comes_of_it() -> None:
    attempts = list(_attempts())
    assert len(attempts) > 30
    for tried, result, tests in attempts:
        assert re.match(r"can(not)?\b", result), (tried, result)
        if result.startswith("cannot"):
            assert _TEST.search(tests), f"nothing tries: {tried}"


def test_every_attack_is_on_the_page() -> None:
    """What is tried in tests/attacks is named, but for what holds the suite itself together."""
    named = set(_named())
    for path in sorted((ROOT / "tests" / "attacks").glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                assert node.name in named | _OF_THE_SUITE, node.name
