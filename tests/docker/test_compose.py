"""docker-compose.yml for real: six hosts that reach only those they share a network with, and what may befall them."""

import json

import pytest

from lab.compose_engine import EngineRefused
from tests.docker.six_hosts import DEVICES, LINKS, PREFIX, SixHosts

SENT_MIB = 64
MIB = 1 << 20


def test_the_agents_find_the_mesh_and_nothing_else(lab: SixHosts) -> None:
    def open_links() -> set[str]:
        links = json.loads(lab.curl("/v1/groups/lab/links"))["links"]
        return {"-".join(link["between"]) for link in links if link["counts"]}

    lab.until("all six links are open", lambda: open_links() == set(LINKS))
    for device in DEVICES:
        candidates = json.loads(lab.curl("/v1/groups/lab/devices"))["devices"][DEVICES.index(device)]["candidates"]
        assert candidates, device
        assert all(int(each.split(".")[2]) < 128 for each in candidates), "the control networks are not told"


@pytest.mark.parametrize(("listener", "over"), [("B", ["UDP", "TCP"]), ("C", ["UDP", "TCP"]), ("D", []), ("F", [])])
def test_a_reaches_its_peers_and_cannot_reach_f(lab: SixHosts, listener: str, over: list[str]) -> None:
    assert lab.heard("A", listener) == over


def test_a_file_from_a_reaches_everybody_and_crosses_each_network_once(lab: SixHosts) -> None:
    wanted = lab.make_file("A", "large.bin", SENT_MIB)
    before = lab.counters()
    lab.inside("A", "arborcast", "send", "/var/lib/arborcast/large.bin", "--timeout", "240", "--quiet", within=260.0)
    after = lab.counters()
    assert {device: lab.received(device, "large.bin") for device in "BCDEF"} == dict.fromkeys("BCDEF", wanted)
    sent: dict[str, int] = {}
    for end, (out, _) in after.items():
        network = end.split()[1].rpartition(".")[0]
        sent[network] = sent.get(network, 0) + out - before[end][0]
    tree = {tuple(edge) for edge in lab.edges()}
    for number, link in enumerate(LINKS, 11):
        crossed = sent[f"{PREFIX}.{number}"]
        if tuple(link.split("-")) in tree:
            assert SENT_MIB * MIB < crossed < 1.15 * SENT_MIB * MIB, link
        else:
            assert crossed < 0.05 * SENT_MIB * MIB, link
    for number in range(129, 135):
        assert sent[f"{PREFIX}.{number}"] < 0.05 * SENT_MIB * MIB, "control networks carry no data"


def test_a_relay_that_is_killed_in_the_middle_costs_nobody_the_file(lab: SixHosts) -> None:
    wanted = lab.make_file("A", "killed.bin", 48)
    sending = lab.started("A", "arborcast", "send", "/var/lib/arborcast/killed.bin", "--timeout", "240")
    lab.until("some of it is at F", lambda: lab.begun("F", "killed.bin"))
    lab.engine.run("kill", "--signal", "KILL", lab.container("D"))
    lab.engine.run("start", lab.container("D"))
    said = sending.communicate(timeout=260)[0]
    assert sending.returncode == 0, said
    assert {device: lab.received(device, "killed.bin") for device in "BCDEF"} == dict.fromkeys("BCDEF", wanted)


def test_a_network_that_is_taken_away_is_gone_round(lab: SixHosts) -> None:
    wanted = lab.make_file("A", "cut.bin", 48)
    network = f"{lab.project}_ab"
    sending = lab.started("A", "arborcast", "send", "/var/lib/arborcast/cut.bin", "--timeout", "240")
    lab.until("some of it is at B", lambda: lab.begun("B", "cut.bin"))
    lab.engine.run("network", "disconnect", network, lab.container("A"))
    said = sending.communicate(timeout=260)[0]
    assert sending.returncode == 0, said
    assert lab.received("E", "cut.bin") == wanted
    assert ("A", "B") not in lab.edges()
    lab.engine.run("network", "connect", network, lab.container("A"))
    lab.until("the link is back", lambda: '"state": "open"' in _link(lab, "A", "B"))


def test_the_server_may_be_restarted(lab: SixHosts) -> None:
    before = lab.graph()["epoch"]
    lab.engine.run("restart", "--time", "5", lab.container("server"))
    lab.until("it answers", lambda: _ready(lab))
    wanted = lab.make_file("F", "after.bin", 1)
    lab.inside("F", "arborcast", "send", "/var/lib/arborcast/after.bin", "--timeout", "120", "--quiet")
    assert {device: lab.received(device, "after.bin") for device in "ABCDE"} == dict.fromkeys("ABCDE", wanted)
    assert lab.graph()["epoch"] >= before


def test_an_evicted_device_is_out_and_the_rest_go_on(lab: SixHosts) -> None:
    lab.curl("/v1/groups/lab/devices/E", "-X", "DELETE", token="admin-token")
    lab.until("no tree has it", lambda: "E" not in lab.graph()["devices"])
    lab.until("its agent has ended", lambda: not lab.answers("E"))
    wanted = lab.make_file("A", "without.bin", 1)
    lab.inside("A", "arborcast", "send", "/var/lib/arborcast/without.bin", "--timeout", "120", "--quiet")
    assert {device: lab.received(device, "without.bin") for device in "BCDF"} == dict.fromkeys("BCDF", wanted)


def test_links_are_shaped_by_the_second_file(lab: SixHosts) -> None:
    lab.compose("up", "--no-recreate", "shape-a", shaped=True)
    said = lab.compose("logs", "--no-color", "shape-a", shaped=True)
    assert f"in {PREFIX}.11.0/24: 100mbit" in said
    assert f"in {PREFIX}.12.0/24: 80mbit" in said


@pytest.mark.parametrize("what", ["read_only", "user", "capabilities"])
def test_containers_have_no_more_rights_than_they_need(lab: SixHosts, what: str) -> None:
    for name in ("server", "A", "F"):
        found = json.loads(lab.engine.run("inspect", lab.container(name)))[0]
        held = {
            "read_only": found["HostConfig"]["ReadonlyRootfs"] is True,
            "user": found["Config"]["User"] == "10001:10001",
            "capabilities": found["HostConfig"]["CapDrop"] == ["ALL"] and not found["HostConfig"]["CapAdd"],
        }
        assert held[what], name


def _link(lab: SixHosts, device: str, peer: str) -> str:
    links = json.loads(lab.inside(device, "arborcast", "status", "--json"))["links"]
    return json.dumps(next(link for link in links if link["peer"] == peer))


def _ready(lab: SixHosts) -> bool:
    try:
        lab.inside("server", "arborcast-server", "healthy", "--state", "/var/lib/arborcast")
    except EngineRefused:
        return False
    return True
