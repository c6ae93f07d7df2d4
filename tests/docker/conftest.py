"""The engine that the tests run on: whichever answers; without one they are skipped, and say so in one line."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import ConfigError
from lab.compose_engine import Engine, find_engine
from tests.docker.six_hosts import SixHosts

NAMESPACE_VARIABLE = "ARBORCAST_ENGINE_NAMESPACE"
"""Environment variable: the network namespace that the engine lives in, where that is not this one."""


@pytest.fixture(scope="session")
def engine() -> Engine:
    try:
        return find_engine()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def enter() -> list[str]:
    """Return what has to stand before a command that reaches published ports and containers."""
    namespace = os.environ.get(NAMESPACE_VARIABLE)
    return ["nsenter", f"--net={namespace}"] if namespace else []


@pytest.fixture(scope="module")
def lab(engine: Engine, enter: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SixHosts]:
    """The compose lab, up; down again afterwards, and nothing left of it."""
    lab = SixHosts(engine, enter, tmp_path_factory.mktemp("lab"))
    lab.down()
    try:
        lab.up()
        yield lab
    finally:
        lab.down()
    left = engine.run("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={lab.project}")
    left += engine.run("network", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={lab.project}")
    assert left == ""


def pytest_report_header() -> str:
    """Tell which engine it is."""
    try:
        found = find_engine()
    except ConfigError as error:
        return f"engine: {error}"
    version = found.run("version", "--format", "{{.Server.Version}}").strip()
    return f"engine: {version}, {shlex.join(found.compose)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give containers time: some of these tests bring ten of them up."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))
