"""The engine is made up here; tests/docker runs the backend in real containers."""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ConfigError
from lab import compose
from lab.compose import COMPOSE_FILE, ComposeSystem, Container, check_compose
from lab.compose_engine import Engine, EngineRefused
from lab.compose_plan import Subnet
from lab.happenings import Happening, Verb
from lab.processes import ChildDied
from lab.progress import QuietWatcher
from lab.scenario import Access, LinkFigures, Scenario

PAIR = Scenario(name="pair", devices=("A", "B"), links={("A", "B"): LinkFigures(rate_bps=10e6)})
CUT = Happening(1.0, Verb.CUT, link=("A", "B"))
READY = (
    "import json, os, sys, time; from pathlib import Path; path = Path(sys.argv[1]); new = path.with_suffix('.new'); "
    "new.write_text(json.dumps({'url': 'http://x', 'pid': os.getpid()})); new.replace(path); time.sleep(60)"
)


class FakeEngine(Engine):
    """Writes down what it is told. A container is a process of this host, which says that it is ready."""

    def __init__(self, folder: Path) -> None:
        super().__init__("docker", ("docker", "compose"))
        self.told: list[str] = []
        self.given: dict[str, list[str]] = {}
        self.folder = folder
        self.dead: set[str] = set()
        self.refuses = ""
        self.published = 50_000
        self.left: list[str] = []

    def run(self, *arguments: str, within: float = 0.0) -> str:
        if arguments[0] == self.refuses:
            raise EngineRefused("the engine does not")
        self.told.append(" ".join(arguments))
        if arguments[0] == "kill":
            os.kill(self.pid(arguments[3]) or 0, signal.Signals[arguments[2]])
        return ""

    def make(self, project: str, file: Path) -> None:
        self.told.append(f"make {project}")

    def remove(self, project: str, file: Path) -> None:
        self.told.append(f"remove {project}")

    def attach_command(self, container: str) -> list[str]:
        return [sys.executable, "-c", READY, str(self.ready(container))]

    def ready(self, container: str) -> Path:
        return self.folder / container.rpartition("-")[2] / "ready.json"

    def networks(self, container: str) -> list[str]:
        return self.given.get(container, [])

    def port(self, container: str, port: int) -> int:
        self.published += 1
        return self.published

    def pid(self, container: str) -> int | None:
        return int(json.loads(self.ready(container).read_text())["pid"])

    def sent_bytes(self, container: str) -> dict[str, int]:
        if container in self.dead:
            raise EngineRefused("it does not run")
        return {"127.0.0.1": 1, "198.18.0.2" if container.endswith("A") else "198.18.0.3": len(container)}

    def subnets(self) -> list[Subnet]:
        return []

    def sweep(self) -> list[str]:
        return self.left


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path)


@pytest.fixture
def make(tmp_path: Path, engine: FakeEngine) -> Callable[..., ComposeSystem]:
    def system(scenario: Scenario = PAIR) -> ComposeSystem:
        file = tmp_path / "file.bin"
        file.touch()
        return ComposeSystem(scenario, tmp_path, QuietWatcher(), file=file, source="A", engine=engine)

    return system


def container(engine: FakeEngine, folder: Path) -> Container:
    return Container(engine, "c", "agent C", folder / "c")


async def test_a_container_is_ready_when_it_says_so_and_is_sent_signals_by_the_engine(
    tmp_path: Path, engine: FakeEngine
) -> None:
    started = container(engine, tmp_path)
    started.start_with(["other"])
    assert started.pid is None
    started.send_signal(signal.SIGTERM)
    await started.start()
    assert (await started.ready(within=30))["pid"] == started.pid
    assert started.cpu_seconds() >= 0
    await started.stop(within=30)
    assert engine.told == ["kill --signal SIGTERM c"]
    assert not started.running
    assert started.cpu_seconds() == 0.0


async def test_a_container_that_ends_by_itself_is_told_and_one_that_is_gone_can_be_stopped(
    tmp_path: Path, engine: FakeEngine
) -> None:
    started = container(engine, tmp_path)
    await started.start()
    await started.ready(within=30)
    engine.refuses = "kill"
    started.send_signal(signal.SIGTERM)
    started.check()
    os.kill(started.pid or 0, signal.SIGKILL)
    assert started._process is not None
    await started._process.wait()
    with pytest.raises(ChildDied, match="agent C ended by SIGKILL"):
        started.check()


async def test_a_system_is_made_joined_started_and_removed(
    make: Callable[..., ComposeSystem], engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def accept(*_: object) -> None:
        """Take every channel."""

    system = make()
    monkeypatch.setattr(system, "_put_channel", accept)
    plan = system.plan
    engine.given = {plan.container(device): [plan.called("control0")] for device in (None, "A")}
    token = tmp_path / "server" / "state" / "join-token-lab"
    token.parent.mkdir(parents=True)
    token.write_text("secret")
    await system.start()
    await system.stop()
    project = plan.project
    assert engine.told[0] == f"make {project}"
    assert sorted(engine.told[1:6]) == [
        f"network connect --ip 198.18.0.2 {project}_link0 {project}-agent-A",
        f"network connect --ip 198.18.0.3 {project}_link0 {project}-agent-B",
        f"network connect --ip 198.19.0.10 {project}_control1 {project}-server",
        f"network connect --ip 198.19.0.11 {project}_control1 {project}-agent-B",
        f"network connect {project}_outside {project}-server",
    ]
    assert engine.told[6:9] == [f"kill --signal SIGTERM {plan.container(device)}" for device in ("A", "B", None)]
    assert engine.told[-1] == f"remove {project}"
    assert system.url == "http://127.0.0.1:50001"
    assert (tmp_path / "B" / "join-token").read_text() == "secret"
    assert json.loads((tmp_path / COMPOSE_FILE).read_text())["services"]["server"]["user"] == (
        f"{os.geteuid()}:{os.getegid()}"
    )


async def test_a_system_that_was_not_made_has_nothing_to_remove(
    make: Callable[..., ComposeSystem], engine: FakeEngine
) -> None:
    await make().stop()
    assert engine.told == []


async def test_a_link_is_cut_and_restored_at_both_ends(make: Callable[..., ComposeSystem], engine: FakeEngine) -> None:
    system = make(replace(PAIR, happenings=(CUT,)))
    project = system.plan.project
    await system.happen(CUT)
    assert sorted(engine.told) == [
        f"network disconnect {project}_link0 {project}-agent-A",
        f"network disconnect {project}_link0 {project}-agent-B",
    ]
    engine.told.clear()
    await system.happen(replace(CUT, verb=Verb.RESTORE))
    assert sorted(engine.told) == [
        f"network connect --ip 198.18.0.2 {project}_link0 {project}-agent-A",
        f"network connect --ip 198.18.0.3 {project}_link0 {project}-agent-B",
    ]


async def test_a_server_that_starts_again_is_asked_at_its_new_port(
    make: Callable[..., ComposeSystem], engine: FakeEngine
) -> None:
    system = make()
    await system.happen(Happening(1.0, Verb.START))
    assert system.url == "http://127.0.0.1:50001"
    await system.happen(Happening(2.0, Verb.KILL))
    assert system.url == "http://127.0.0.1:50001"


def test_the_bytes_of_a_link_are_those_that_its_two_ends_sent(
    make: Callable[..., ComposeSystem], engine: FakeEngine
) -> None:
    system = make()
    sent = len(system.plan.container("A"))
    assert system.ethernet_bytes() == {("A", "B"): (sent, sent)}
    engine.dead.add(system.plan.container("B"))
    assert system.ethernet_bytes() == {("A", "B"): (sent, 0)}
    assert make(replace(PAIR, happenings=(CUT,))).ethernet_bytes() == {}


def test_what_was_left_behind_is_told(make: Callable[..., ComposeSystem], engine: FakeEngine, tmp_path: Path) -> None:
    said: list[str] = []

    class Listener(QuietWatcher):
        def say(self, sentence: str) -> None:
            said.append(sentence)

    engine.left = ["arborcast-lab-1-2-3"]
    ComposeSystem(PAIR, tmp_path, Listener(), file=tmp_path / "f", source="A", engine=engine)
    assert said == ["swept away arborcast-lab-1-2-3, a run that did not end"]


def test_what_containers_networks_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> None:
    monkeypatch.setattr(compose, "find_engine", lambda: engine)
    assert check_compose(replace(PAIR, happenings=(CUT,))) is engine
    worse = replace(CUT, verb=Verb.DEGRADE, figures={"rate_bps": 1e6})
    with pytest.raises(ConfigError, match=r'compose backend cannot do "degrade A-B".* --backend sim or netns'):
        check_compose(replace(PAIR, happenings=(worse,)))
    with pytest.raises(ConfigError, match=r"device B is on the internet, and the compose backend has no NATs"):
        check_compose(replace(PAIR, internet={"B": Access("open")}))
