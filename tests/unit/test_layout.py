"""The house's own shape: tests mirror modules, and nothing below tests/ shadows a room."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests" / "unit"
ROOMS = ("server", "agent", "common", "host", "lab")


def _modules() -> list[str]:
    """List every module of the rooms, as a path from the repository's root."""
    return sorted(path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def _mirror(module: str) -> Path:
    """Name the test module that belongs to a module (test_init.py to an __init__.py)."""
    path = Path(module)
    stem = "init" if path.stem == "__init__" else path.stem
    return UNIT / path.parent / f"test_{stem}.py"


def _has_code(module: str) -> bool:
    """Tell whether some function of the module does more than declare itself, as those of a Protocol do."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(not _declares_only(statement) for function in functions for statement in function.body)


def _declares_only(statement: ast.stmt) -> bool:
    """Tell whether a statement is a docstring, an ellipsis or a pass."""
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


@pytest.mark.parametrize("module", [module for module in _modules() if _has_code(module)])
def test_every_module_with_code_has_its_test_module(module: str) -> None:
    mirror = _mirror(module)
    assert mirror.exists(), f"{module} wants {mirror.relative_to(ROOT)}"


@pytest.mark.parametrize(
    "test",
    sorted(path.relative_to(UNIT).as_posix() for room in ROOMS for path in (UNIT / room).rglob("test_*.py")),
)
def test_every_unit_test_module_belongs_to_a_module(test: str) -> None:
    # test_graph.py and test_graph_codec.py both belong to graph.py.
    folder, name = Path(test).parent, Path(test).stem.removeprefix("test_")
    modules = ["init", *(path.stem for path in (ROOT / folder).glob("[!_]*.py"))]
    assert any(name == module or name.startswith(f"{module}_") for module in modules), (
        f"tests/unit/{test} mirrors no module of {folder}/"
    )


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {(ROOT / module).parent for module in _modules()}
    assert sorted(f for f in folders if not (f / "__init__.py").exists()) == []


def test_no_package_below_tests_shadows_a_room() -> None:
    assert sorted((ROOT / "tests").rglob("__init__.py")) == []
