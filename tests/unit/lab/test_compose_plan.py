import ipaddress
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ConfigError
from lab.compose_plan import ComposePlan, owner_of_project, project_of, written
from lab.netns_plan import CONTROL_NETWORK, Owner
from lab.scenario import LinkFigures, Scenario

CHAIN = Scenario(
    name="chain",
    devices=("A", "B", "C"),
    links={("A", "B"): LinkFigures(rate_bps=50e6), ("B", "C"): LinkFigures(rate_bps=10e6, mtu_bytes=9000)},
)
FOLDER = Path("/tmp/lab $x")  # noqa: S108 - nothing is written there


@pytest.fixture
def plan() -> ComposePlan:
    return ComposePlan(CHAIN, "p", ())


def test_containers_share_a_network_only_where_there_is_a_link_or_the_server_is_one_of_them(plan: ComposePlan) -> None:
    places = {device: {member.network for member in plan.members(device)} for device in (None, "A", "B", "C")}
    assert {len(places["A"]), len(places["B"]), len(places["C"])} == {2, 3}
    shared = {pair: len(places[pair[0]] & places[pair[1]]) for pair in itertools.combinations("ABC", 2)}
    assert shared == {("A", "B"): 1, ("A", "C"): 0, ("B", "C"): 1}
    assert all(len(places[None] & places[device]) == 1 for device in "ABC")


def test_every_address_is_its_containers_alone_and_agents_can_tell_those_of_the_ways_to_the_server(
    plan: ComposePlan,
) -> None:
    members = [member for device in (None, "A", "B", "C") for member in plan.members(device)]
    addresses = [member.address for member in members if member.address is not None]
    assert len(set(addresses)) == len(addresses) == 10
    denied = ipaddress.ip_network(CONTROL_NETWORK)
    for member in members:
        if member.address is not None:
            assert (ipaddress.ip_address(member.address) in denied) == member.network.startswith("control")
            assert ipaddress.ip_address(member.address) in plan.subnets[member.network]


def test_networks_that_the_engine_has_are_kept_clear_of() -> None:
    taken = [ipaddress.IPv4Network(each) for each in ("198.18.0.0/24", "198.19.0.8/29", "10.0.0.0/8")]
    plan = ComposePlan(CHAIN, "p", taken)
    assert str(plan.subnets["link0"]) == "198.18.1.0/29"
    assert [str(plan.subnets[f"control{number}"]) for number in range(3)] == [
        "198.19.0.0/29",
        "198.19.0.16/29",
        "198.19.0.24/29",
    ]


def test_an_engine_without_room_is_told() -> None:
    with pytest.raises(ConfigError, match="leave no room in"):
        ComposePlan(CHAIN, "p", [ipaddress.IPv4Network("198.18.0.0/16")])


def test_the_compose_file_gives_every_container_its_folder_and_no_rights(plan: ComposePlan) -> None:
    services = plan.document(FOLDER, user="7:8", sent={})["services"]
    assert list(services) == ["server", "agent-A", "agent-B", "agent-C"]
    for name, service in services.items():
        own = f"{FOLDER}/{name.removeprefix('agent-')}"
        assert service["volumes"] == [{"type": "bind", "source": own, "target": own, "read_only": False}]
        assert (service["user"], service["read_only"], service["cap_drop"]) == ("7:8", True, ["ALL"])
        assert service["command"][-2:] == ["--ready-file", f"{own}/ready.json"]
    assert services["server"]["ports"] == ["127.0.0.1::8640"]


def test_an_agent_is_told_the_way_to_the_server_and_to_keep_data_off_it(plan: ComposePlan) -> None:
    command = plan.document(FOLDER, user="7:8", sent={})["services"]["agent-B"]["command"]
    server = next(member.address for member in plan.members(None) if member.network == "control1")
    assert command[command.index("--server") + 1] == f"http://{server}:8640"
    assert command[command.index("--deny") + 1] == CONTROL_NETWORK
    assert command[command.index("--stun") + 1] == "off"
    assert command[command.index("--join-token-file") + 1] == f"{FOLDER}/B/join-token"
    assert "--peer" not in command


def test_only_the_source_sees_the_file_and_cannot_change_it(plan: ComposePlan) -> None:
    services = plan.document(FOLDER, user="7:8", sent={"A": Path("/data/model.bin")})["services"]
    assert services["agent-A"]["volumes"][1:] == [
        {"type": "bind", "source": "/data/model.bin", "target": "/data/model.bin", "read_only": True}
    ]
    assert len(services["agent-B"]["volumes"]) == 1


def test_networks_lead_nowhere_else_and_have_the_links_mtu(plan: ComposePlan) -> None:
    networks = plan.document(FOLDER, user="7:8", sent={})["networks"]
    assert networks.pop("outside") == {}
    assert all(network["internal"] for network in networks.values())
    assert networks["link1"]["driver_opts"] == {"com.docker.network.driver.mtu": "9000"}
    assert "driver_opts" not in networks["link0"]


def test_the_engines_names_begin_with_the_project(plan: ComposePlan) -> None:
    assert plan.container(None) == "p-server"
    assert plan.container("B") == "p-agent-B"
    assert plan.called(plan.end(("B", "C"), "C").network) == "p_link1"


def test_a_device_may_have_any_name_that_a_device_may_have() -> None:
    odd = replace(CHAIN, devices=("A", "B", "s.1_x"), links={("A", "s.1_x"): LinkFigures()})
    assert ComposePlan(odd, "p", ()).container("s.1_x") == "p-agent-s.1_x"


def test_a_dollar_in_a_path_is_no_variable(plan: ComposePlan) -> None:
    text = written(plan.document(FOLDER, user="7:8", sent={}))
    assert "/tmp/lab $$x/A" in text  # noqa: S108 - nothing is written there
    assert json.loads(text.replace("$$", "$"))["services"]["agent-A"]["image"] == "arborcast-agent"


def test_a_project_tells_whose_it_is() -> None:
    assert owner_of_project(project_of(Owner(12, 345), 6)) == Owner(12, 345)
    assert owner_of_project("arborcast") is None
