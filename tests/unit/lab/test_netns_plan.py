import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from lab.netns_plan import Owner, Plan, emulator_settings, has_weather, owner_of, shaper
from lab.scenario import LinkFigures, Scenario

PLAIN = LinkFigures(rate_bps=100e6, delay_s=0.0)
ROUGH = LinkFigures(rate_bps=50e6, delay_s=0.02, jitter_s=0.004, loss=0.01, duplicate=0.02, reorder=0.03)
THREE = Scenario(name="three", devices=("A", "B", "C"), links={("A", "B"): PLAIN, ("B", "C"): ROUGH})
PLAN = Plan(THREE, Owner(4194304, 99), 7)


def test_a_namespace_tells_who_made_it() -> None:
    assert [owner_of(namespace) for namespace in PLAN.namespaces] == [Owner(4194304, 99)] * 4
    assert PLAN.namespace("A") == "arborcast-4194304.99.7-A"


@pytest.mark.parametrize(
    "name", ["arborcast", "arborcast-5-A", "arborcast-x.1.1-A", "mine-5.1.1-A", "arborcast-5.1.1-"]
)
def test_a_namespace_of_somebody_else_has_no_owner_here(name: str) -> None:
    assert owner_of(name) is None


@given(st.floats(10e6, 10e9))
def test_a_shaper_holds_twenty_milliseconds_of_its_rate_and_no_more(rate_bps: float) -> None:
    made = shaper(LinkFigures(rate_bps=rate_bps))
    assert made.burst_bytes >= 1514
    assert 0.019 <= made.queue_s <= 0.0201


def test_a_slow_link_still_has_room_for_some_frames() -> None:
    made = shaper(LinkFigures(rate_bps=64e3))
    assert (made.burst_bytes, made.queue_bytes) == (3 * 1514, 8 * 1514)


def test_the_queue_of_the_scenario_counts_where_there_is_one() -> None:
    assert shaper(replace(PLAIN, queue_bytes=125_000)).queue_bytes == 125_000


def test_each_link_and_each_way_to_the_server_is_a_network_of_its_own() -> None:
    pairs = [(PLAN.address("A", "B"), PLAN.address("B", "A")), (PLAN.address("B", "C"), PLAN.address("C", "B"))]
    pairs += [PLAN.control_network(device) for device in THREE.devices]
    pairs.append(PLAN.lab_network)
    networks = [{ipaddress.IPv4Network(f"{end}/30", strict=False) for end in pair} for pair in pairs]
    assert all(len(network) == 1 for network in networks)
    assert len(set.union(*networks)) == len(pairs)
    everything = ipaddress.IPv4Network("198.18.0.0/15")
    assert all(network.subnet_of(everything) for network in set.union(*networks))


def test_the_labs_own_interface_has_a_name_that_the_kernel_takes() -> None:
    assert len(PLAN.root_interface) <= 15


def test_everything_is_made_inside_the_namespaces_but_the_labs_own_end() -> None:
    lines = PLAN.making(())
    assert [line for line in lines if line.startswith("netns add")] == [f"netns add {ns}" for ns in PLAN.namespaces]
    pairs = [line for line in lines if line.startswith("link add")]
    assert pairs[0] == f"link add {PLAN.root_interface} type veth peer name lab netns {PLAN.server}"
    assert all(line.count(" netns ") == 2 for line in pairs[1:])
    a, b = PLAN.namespace("A"), PLAN.namespace("B")
    assert f"link add link0 netns {a} type veth peer name link0 netns {b}" in pairs
    assert len(pairs) == 1 + 3 + 2


def test_an_emulators_interfaces_get_addresses_but_are_not_made_or_shaped_here() -> None:
    emulated = (("B", "C"),)
    assert not any("name link1 " in line for line in PLAN.making(emulated))
    assert f"address add {PLAN.address('C', 'B')}/30 dev link1" in PLAN.addressing()[PLAN.namespace("C")]
    assert PLAN.namespace("C") not in PLAN.shaping(emulated)


def test_a_link_is_shaped_at_both_ends() -> None:
    shaping = PLAN.shaping((("B", "C"),))
    line = "qdisc add dev link0 root tbf rate 100000000bit burst 25000 limit 225000"
    assert shaping == {PLAN.namespace("A"): [line], PLAN.namespace("B"): [line]}


def test_the_kernels_weather_stands_before_the_shaper() -> None:
    netem, tbf = PLAN.shaping(())[PLAN.namespace("C")]
    assert netem == (
        "qdisc add dev link1 root handle 1: netem limit 2500 delay 22000us 2000us loss 1% duplicate 2% reorder 3%"
    )
    assert tbf.startswith("qdisc add dev link1 parent 1:1 handle 10: tbf rate 50000000bit ")
    steady = replace(PLAN, scenario=replace(THREE, links={("A", "B"): replace(PLAIN, delay_s=0.01)}))
    assert steady.shaping(())[PLAN.namespace("A")][0].endswith("delay 10000us")


def test_an_unshaped_system_shapes_only_what_delays_or_loses() -> None:
    assert list(replace(PLAN, shaped=False).shaping(())) == [PLAN.namespace("B"), PLAN.namespace("C")]


def test_weather_is_whatever_is_more_than_a_rate() -> None:
    assert not has_weather(PLAIN)
    assert has_weather(ROUGH)
    assert has_weather(replace(PLAIN, loss=0.001))


def test_the_emulator_is_told_megabits_milliseconds_and_per_cent() -> None:
    assert emulator_settings(ROUGH) == "rate=50,queue=18,delay=22,jitter=2,loss=1,dup=2,reorder=3"
    assert emulator_settings(replace(PLAIN, delay_s=0.01, queue_bytes=250_000)) == "rate=100,queue=20,delay=10"


def test_an_agent_keeps_out_of_the_ways_to_the_server_and_asks_the_stun_servers_it_reaches() -> None:
    assert PLAN.discovery_options([]) == ["--insecure-http", "--deny", "198.19.0.0/16", "--stun", "off"]
    asked = PLAN.discovery_options([("198.18.128.1", 8640), ("198.18.128.1", 8641)])
    assert asked[3:] == ["--stun", "198.18.128.1:8640", "--stun", "198.18.128.1:8641"]
    denied = ipaddress.IPv4Network(asked[2])
    for host in (*PLAN.control_network("A"), *PLAN.lab_network):
        assert ipaddress.IPv4Address(host) in denied
    assert ipaddress.IPv4Address(PLAN.address("A", "B")) not in denied


def test_a_command_runs_in_its_namespace_without_a_proxy() -> None:
    command = PLAN.inside("ns", ["python", "-V"])
    assert command == ["ip", "netns", "exec", "ns", "env", "no_proxy=*", "NO_PROXY=*", "python", "-V"]


def test_more_devices_than_addresses_are_refused() -> None:
    crowd = replace(THREE, devices=tuple(f"d{number}" for number in range(8193)))
    with pytest.raises(ConfigError, match="8192 devices"):
        Plan(crowd, Owner(1, 1), 1)


def test_both_ends_of_a_link_take_what_the_scenario_says_or_what_ethernet_does() -> None:
    links = {**THREE.links, ("A", "B"): replace(PLAIN, mtu_bytes=9000)}
    lines = replace(PLAN, scenario=replace(THREE, links=links)).addressing()
    assert "link set link0 mtu 9000" in lines[PLAN.namespace("A")]
    assert "link set link1 mtu 1500" in lines[PLAN.namespace("B")]
    assert [line for line in lines[PLAN.namespace("B")] if "mtu" in line] == [
        "link set link0 mtu 9000",
        "link set link1 mtu 1500",
    ]


def test_a_shaper_lets_the_largest_frame_of_its_link_through() -> None:
    assert shaper(LinkFigures(rate_bps=64e3, mtu_bytes=9000)).burst_bytes == 3 * 9014


def test_labs_that_run_at_the_same_time_have_networks_of_their_own() -> None:
    plans = [Plan(THREE, Owner(pid, 1), run) for pid in range(1_000, 1_004) for run in range(1, 10)]
    assert len({plan.lab_network for plan in plans}) == len(plans)
