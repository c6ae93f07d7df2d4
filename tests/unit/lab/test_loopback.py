import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ConfigError
from lab.happenings import Happening, Verb
from lab.loopback import LoopbackSystem, agent_arguments, refuse_link_happenings, server_arguments
from lab.progress import QuietWatcher
from lab.scenario import LinkFigures, Scenario

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


def test_the_server_makes_the_labs_group(tmp_path: Path) -> None:
    arguments = server_arguments(tmp_path, 8640)
    assert arguments[arguments.index("--group") + 1] == "lab"
    assert arguments[arguments.index("--port") + 1] == "8640"


@pytest.mark.parametrize("verb", [Verb.CUT, Verb.RESTORE, Verb.DEGRADE])
def test_what_only_the_simulator_can_do_is_refused(verb: Verb, tmp_path: Path) -> None:
    scenario = replace(PAIR, happenings=(Happening(1.0, verb, link=("A", "B")),))
    with pytest.raises(ConfigError, match="run the scenario with --backend sim"):
        LoopbackSystem(scenario, tmp_path, QuietWatcher())
    refuse_link_happenings(
        replace(PAIR, happenings=(Happening(1.0, Verb.KILL, device="A"), Happening(2.0, Verb.START)))
    )


async def test_an_agent_that_is_not_there_has_no_answer(tmp_path: Path) -> None:
    system = LoopbackSystem(PAIR, tmp_path, QuietWatcher())
    assert await system.status("A") is None
    system.url = "http://127.0.0.1:1"
    system.admin_token_file.parent.mkdir(parents=True)
    system.admin_token_file.write_text("secret\n")
    assert await system.graph() is None
    await system.stop()


def test_the_curl_line_reads_the_token_from_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    system = LoopbackSystem(PAIR, folder, QuietWatcher())
    system.url = "http://127.0.0.1:8640"
    assert json.dumps(str(folder)).strip('"') in system.graph_command
    assert system.graph_command.startswith('curl -s -H "Authorization: Bearer $(cat ')
    assert system.graph_command.endswith(" http://127.0.0.1:8640/v1/groups/lab/graph")
