"""docs/limits.md names every limit with its value, and tests that exist."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any, Final

import pytest

from common import limits

ROOT: Final = Path(__file__).parents[2]
_ROW: Final = re.compile(r"^\| `([A-Za-z_.]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS: Final = [
    (name, value.strip(), re.findall(r"`([^`]+)`", tests))
    for name, value, _, tests in _ROW.findall((ROOT / "docs" / "limits.md").read_text(encoding="utf-8"))
]


def _value_of(name: str) -> Any:
    """Return what a row's name stands for: a constant of common.limits, of another module, or a setting's default."""
    path, _, last = name.rpartition(".")
    if not path:
        return getattr(limits, last)
    try:
        return getattr(importlib.import_module(path), last)
    except ModuleNotFoundError:
        module, _, settings = path.rpartition(".")
        return getattr(importlib.import_module(module), settings).__dataclass_fields__[last].default


def _written(value: float | None) -> str:
    return "–" if value is None else f"{value:,}".removesuffix(".0")


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_limit_is_on_the_page_once() -> None:
    constants = [name for name in vars(limits) if name.isupper()]
    listed = [name for name, _, _ in ROWS]
    assert sorted(name for name in listed if "." not in name) == sorted(constants)
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize(("name", "value", "tests"), ROWS, ids=[row[0] for row in ROWS])
def test_a_limit_has_the_value_and_the_tests_that_the_page_says(name: str, value: str, tests: list[str]) -> None:
    assert value == _written(_value_of(name))
    assert tests, f"{name} wants a test"
    for test in tests:
        path, _, function = test.partition("::")
        assert function in _functions(ROOT / "tests" / path), f"{name}: there is no {test}"
