import json
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from common.errors import ConfigError, ConnectError
from common.graph import AcyclicGraph, Tree
from common.messages import ChannelSpec
from lab.happenings import Happening, Verb
from lab.loopback import LoopbackSystem, agent_arguments, refuse_link_happenings, server_arguments
from lab.progress import QuietWatcher
from lab.scenario import Access, LinkFigures, Scenario

PAIR = Scenario(
    name="pair",
    devices=("A", "B"),
    links={("A", "B"): LinkFigures(rate_bps=50e6, delay_s=0.005)},
    scopes={"B": "neighbours"},
    datagram_bytes=1400,
)


def test_an_agent_gets_its_links_and_their_declared_figures(tmp_path: Path) -> None:
    arguments = agent_arguments(PAIR, "B", tmp_path, "http://127.0.0.1:9")
    told = dict(zip(arguments[4::2], arguments[5::2], strict=True))
    assert arguments[:4] == [sys.executable, "-m", "agent", "agent"]
    assert told["--server"] == "http://127.0.0.1:9"
    assert told["--device"] == "B"
    assert told["--scope"] == "neighbours"
    assert told["--only-peer"] == "A"
    assert told["--link"] == "A=50M,5ms"
    assert told["--datagram-bytes"] == "1400"
    assert told["--listen"] == "127.0.0.1:0"


def test_an_agent_that_has_to_measure_gets_its_links_alone(tmp_path: Path) -> None:
    arguments = agent_arguments(replace(PAIR, declared=False), "B", tmp_path, "http://127.0.0.1:9")
    assert "--only-peer" in arguments
    assert "--link" not in arguments


def test_the_server_makes_the_labs_group(tmp_path: Path) -> None:
    arguments = server_arguments(tmp_path, 8640)
    assert arguments[arguments.index("--group") + 1] == "lab"
    assert arguments[arguments.index("--port") + 1] == "8640"


@pytest.mark.parametrize("verb", [Verb.CUT, Verb.RESTORE, Verb.DEGRADE])
def test_what_only_the_simulator_can_do_is_refused(verb: Verb, tmp_path: Path) -> None:
    scenario = replace(PAIR, happenings=(Happening(1.0, verb, link=("A", "B")),))
    with pytest.raises(ConfigError, match="run the scenario with --backend sim or netns"):
        LoopbackSystem(scenario, tmp_path, QuietWatcher())
    refuse_link_happenings(
        replace(PAIR, happenings=(Happening(1.0, Verb.KILL, device="A"), Happening(2.0, Verb.START)))
    )


def test_devices_on_the_internet_are_refused(tmp_path: Path) -> None:
    scenario = replace(PAIR, internet={"B": Access("open")})
    with pytest.raises(ConfigError, match=r"device B is on the internet.* --backend sim or netns"):
        LoopbackSystem(scenario, tmp_path, QuietWatcher())


async def test_an_agent_that_is_not_there_has_no_answer(tmp_path: Path) -> None:
    system = LoopbackSystem(PAIR, tmp_path, QuietWatcher())
    assert await system.status("A") is None
    system.url = "http://127.0.0.1:1"
    system.admin_token_file.parent.mkdir(parents=True)
    system.admin_token_file.write_text("secret\n")
    assert await system.graph() is None
    await system.stop()


def test_a_system_that_is_not_started_has_no_processes(tmp_path: Path) -> None:
    system = LoopbackSystem(PAIR, tmp_path, QuietWatcher())
    assert system.pids() == {}
    assert system.cpu_seconds() == {"server": 0.0}


def test_the_curl_line_reads_the_token_from_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    system = LoopbackSystem(PAIR, folder, QuietWatcher())
    system.url = "http://127.0.0.1:8640"
    assert json.dumps(str(folder)).strip('"') in system.graph_command
    assert system.graph_command.startswith('curl -s -H "Authorization: Bearer $(cat ')
    assert system.graph_command.endswith(" http://127.0.0.1:8640/v1/groups/lab/graph")


async def test_a_graph_that_never_spans_all_devices_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.loopback.GRAPH_S", 0.1)
    system = LoopbackSystem(PAIR, tmp_path, QuietWatcher())
    answers: list[AcyclicGraph | None] = [AcyclicGraph(1, ("A", "B"), (Tree("throughput", ()),)), None]

    async def graph() -> AcyclicGraph | None:
        return answers[-1]

    monkeypatch.setattr(system, "graph", graph)
    with pytest.raises(ConnectError, match=r"no graph spans all devices after 0\.1 s; the server has no graph"):
        await system.span()
    answers.pop()
    with pytest.raises(ConnectError, match=r"the server has the components \(\('A',\), \('B',\)\)"):
        await system.span()


async def test_a_graph_counts_when_every_agent_that_subscribes_works_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = AcyclicGraph(7, ("A", "B"), (Tree("throughput", (("A", "B"),)),))
    statuses = {"A": {"epoch": 7}, "B": {"epoch": 6}}

    async def the_graph() -> AcyclicGraph:
        return graph

    async def status(device: str) -> dict[str, int]:
        found = dict(statuses[device])
        statuses[device]["epoch"] = 7
        return found

    system = LoopbackSystem(PAIR, tmp_path, QuietWatcher())
    monkeypatch.setattr(system, "graph", the_graph)
    monkeypatch.setattr(system, "status", status)
    assert await system.span() == graph
    assert statuses["B"]["epoch"] == 7


async def test_a_channel_that_the_server_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = LoopbackSystem(PAIR, tmp_path, QuietWatcher())

    async def refuse(*_: object) -> httpx.Response:
        return httpx.Response(409, text="too-many-channels")

    monkeypatch.setattr(system, "_ask_server", refuse)
    with pytest.raises(ConnectError, match="the server refused the channel extra: too-many-channels"):
        await system._put_channel(ChannelSpec(name="extra", kind="message"))


async def test_a_server_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    system = LoopbackSystem(PAIR, tmp_path, QuietWatcher())
    system.url = "http://127.0.0.1:1"
    system.admin_token_file.parent.mkdir(parents=True)
    system.admin_token_file.write_text("secret\n")
    with pytest.raises(ConnectError, match=r"the server does not answer at http://127\.0\.0\.1:1: ConnectError"):
        await system._put_channel(ChannelSpec(name="extra", kind="message"))
