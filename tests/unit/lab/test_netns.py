from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ConfigError
from lab import netns
from lab.happenings import Happening, Verb
from lab.netns import Emulated, NetnsSystem, check_netns
from lab.processes import ChildDied
from lab.progress import QuietWatcher
from lab.scenario import Access, LinkFigures, Scenario

CALM = Scenario(name="calm", devices=("A", "B"), links={("A", "B"): LinkFigures(rate_bps=10e6, delay_s=0.0)})
ROUGH = replace(CALM, links={("A", "B"): LinkFigures(rate_bps=10e6, loss=0.01)})


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this host be one that can make namespaces, with a kernel that has no netem."""
    monkeypatch.setattr(netns, "check_host", lambda: None)
    monkeypatch.setattr(netns, "has_netem", lambda: False)
    monkeypatch.setattr(netns, "has_nft", lambda: True)


@pytest.fixture
def emulator(tmp_path: Path) -> Path:
    program = tmp_path / "emulator"
    program.touch(mode=0o755)
    return program


def test_links_that_only_have_a_rate_need_no_emulator() -> None:
    assert check_netns(CALM, None) == Emulated()


def test_links_with_weather_need_netem_or_an_emulator(emulator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"link A-B delays or loses .* --emulator or ARBORCAST_LINKEMU"):
        check_netns(ROUGH, None)
    assert check_netns(ROUGH, emulator) == Emulated(links=(("A", "B"),))
    monkeypatch.setattr(netns, "has_netem", lambda: True)
    assert check_netns(ROUGH, None) == Emulated()


def test_an_emulator_that_is_no_program_is_refused(emulator: Path, tmp_path: Path) -> None:
    emulator.chmod(0o644)
    for path in (emulator, tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match="is no program that can be run"):
            check_netns(ROUGH, path)


def test_links_that_come_to_lose_frames_need_netem_or_an_emulator_too(emulator: Path) -> None:
    worse = Happening(1.0, Verb.DEGRADE, link=("A", "B"), figures={"loss": 0.05})
    with pytest.raises(ConfigError, match=r"link A-B delays or loses frames, or comes to do so"):
        check_netns(replace(CALM, happenings=(worse,)), None)
    assert check_netns(replace(CALM, happenings=(worse,)), emulator) == Emulated(links=(("A", "B"),))
    for verb, figures in ((Verb.CUT, {}), (Verb.DEGRADE, {"rate_bps": 1e6}), (Verb.DEGRADE, {"loss": 0.0})):
        calm = Happening(1.0, verb, link=("A", "B"), figures=figures)
        assert check_netns(replace(CALM, happenings=(calm,)), None) == Emulated()


async def test_what_happens_to_a_link_is_done_by_ip_and_tc_in_its_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[list[str], list[str]]] = []
    monkeypatch.setattr(netns, "batch", lambda command, lines: done.append((list(command), list(lines))))
    worse = Happening(1.0, Verb.DEGRADE, link=("A", "B"), figures={"rate_bps": 1e6, "mtu_bytes": 1400})
    system = NetnsSystem(replace(CALM, happenings=(worse,)), tmp_path, QuietWatcher())
    await system.happen(worse)
    a, b = system.plan.namespace("A"), system.plan.namespace("B")
    assert [command for command, _ in done] == [["ip", "-n", a], ["ip", "-n", b], ["tc", "-n", a], ["tc", "-n", b]]
    assert done[2][1][0].startswith("qdisc change dev link0")
    await system.happen(Happening(2.0, Verb.KILL))
    assert len(done) == 4


async def test_what_happens_to_an_emulated_link_is_told_to_its_emulator(tmp_path: Path, emulator: Path) -> None:
    worse = Happening(1.0, Verb.DEGRADE, link=("A", "B"), figures={"loss": 0.05})
    system = NetnsSystem(replace(CALM, happenings=(worse,)), tmp_path, QuietWatcher(), emulator=emulator)
    with pytest.raises(ChildDied, match="emulator A-B does not run"):
        await system.happen(worse)


@pytest.mark.parametrize(
    "figures",
    [LinkFigures(loss=0.1, burst=8), LinkFigures(reorder=0.1, reorder_by=50), LinkFigures(back=LinkFigures())],
)
def test_what_only_the_simulator_does_to_a_link_is_refused(figures: LinkFigures) -> None:
    with pytest.raises(ConfigError, match=r"link A-B has bursts.* --backend sim"):
        check_netns(replace(CALM, links={("A", "B"): figures}), None)


def test_each_process_runs_in_its_namespace_and_finds_the_server_on_its_own_network(tmp_path: Path) -> None:
    system = NetnsSystem(CALM, tmp_path, QuietWatcher())
    server = system._server_command(8640)
    assert server[:4] == ["ip", "netns", "exec", system.plan.server]
    assert server[server.index("--host") + 1] == "0.0.0.0"
    assert "--insecure-http" in server
    system.url = system._reached("http://0.0.0.0:8640")
    assert system.url == f"http://{system.plan.lab_network[0]}:8640"
    agent = system._agent_command("B")
    assert agent[3] == system.plan.namespace("B")
    assert agent[agent.index("--server") + 1] == f"http://{system.plan.control_network('B')[0]}:8640"
    assert agent[agent.index("--listen") + 1] == "0.0.0.0:7400"
    assert agent[agent.index("--only-peer") + 1] == "A"
    assert "--peer" not in agent
    assert agent[-2:] == ["--stun", "off"]
    assert "--noproxy '*'" in system.graph_command


def test_two_systems_of_one_process_do_not_share_a_name(tmp_path: Path) -> None:
    first, second = (NetnsSystem(CALM, tmp_path, QuietWatcher()) for _ in range(2))
    assert first.plan.prefix != second.plan.prefix


def test_an_emulated_link_has_a_process_of_its_own(tmp_path: Path, emulator: Path) -> None:
    system = NetnsSystem(ROUGH, tmp_path, QuietWatcher(), emulator=emulator)
    assert system.emulated == Emulated(links=(("A", "B"),))
    assert system.cpu_seconds() == {"server": 0.0, "emulator A-B": 0.0}
    system.check()


ONLINE = replace(CALM, internet={"A": Access("open"), "B": Access("symmetric")})


def test_a_nat_takes_nftables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_netns(ONLINE, None) == Emulated()
    monkeypatch.setattr(netns, "has_nft", lambda: False)
    with pytest.raises(ConfigError, match=r"device B is behind a NAT, which takes nftables"):
        check_netns(ONLINE, None)
    assert check_netns(replace(ONLINE, internet={"A": Access("open")}), None) == Emulated()


def test_an_access_link_with_a_delay_takes_netem_or_an_emulator(emulator: Path, tmp_path: Path) -> None:
    slow = replace(ONLINE, internet={**ONLINE.internet, "B": Access("symmetric", LinkFigures(delay_s=0.01))})
    with pytest.raises(ConfigError, match=r"the access link of B delays"):
        check_netns(slow, None)
    system = NetnsSystem(slow, tmp_path, QuietWatcher(), emulator=emulator)
    assert system.emulated == Emulated(accesses=("B",))
    arguments = system._emulators["B"]._arguments
    assert arguments[1:3] == [
        f"/run/netns/{system.public.near_end('B')}:wan",
        f"/run/netns/{system.public.middle}:port1",
    ]
    assert arguments[-1] == "ba:rate=100,queue=18,delay=10"


def test_a_device_on_the_internet_asks_the_server_there_for_its_address(tmp_path: Path) -> None:
    system = NetnsSystem(ONLINE, tmp_path, QuietWatcher())
    system.url = system._reached("http://0.0.0.0:8640")
    stun = [f"{system.public.server_host}:{port}" for port in (8640, 8641)]
    assert system._agent_command("B")[-4:] == ["--stun", stun[0], "--stun", stun[1]]
