"""What the rooms import, pyproject.toml declares and docs/architecture.md explains is one list."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("server", "agent", "common", "host", "lab")

# Imported, and declared by the package that it is a part of.
BROUGHT_BY = {"starlette": "fastapi"}
# Declared, and used without an import of ours.
FOUND_BY = {"httptools": "uvicorn"}


def _imported() -> set[str]:
    """Return the names of the third-party packages that some module of the rooms imports."""
    names: set[str] = set()
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return {name.replace("_", "-") for name in names - sys.stdlib_module_names - set(ROOMS)}


def _declared() -> set[str]:
    """Return the names in the project's runtime dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[^A-Za-z0-9_.-]", entry)[0] for entry in project["dependencies"]}


def test_every_package_that_is_imported_is_declared() -> None:
    assert {BROUGHT_BY.get(name, name) for name in _imported()} - _declared() == set()


def test_every_package_that_is_declared_is_used() -> None:
    assert _declared() - _imported() - set(FOUND_BY) == set()


def test_every_package_that_is_declared_earns_its_line() -> None:
    section = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Dependencies")[2]
    table = section.partition("\n## ")[0]
    assert set(re.findall(r"^\| ([a-z0-9-]+) \|", table, re.MULTILINE)) - {"package"} == _declared()


def test_the_lock_pins_every_package_that_is_declared() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert _declared() - set(re.findall(r"^([a-z0-9.-]+)==", lock, re.MULTILINE)) == set()
