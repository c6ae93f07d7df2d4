"""What is laid out; tests/system/test_lab_nat_boxes.py tries the boxes themselves."""

import ipaddress
from dataclasses import replace

import pytest

from lab.nat import Kind
from lab.netns_internet import GATEWAY, INNER, PublicNetwork, ruleset
from lab.netns_plan import Owner, Plan
from lab.scenario import Access, LinkFigures, Scenario

SLOW = LinkFigures(rate_bps=10e6, delay_s=0.02)
INTERNET = {"A": Access("open"), "B": Access("symmetric"), "C": Access("port-restricted", SLOW)}
WORLD = Scenario(name="world", devices=("A", "B", "C", "D"), links={("A", "D"): LinkFigures()}, internet=INTERNET)
PLAN = Plan(WORLD, Owner(1, 2), 3)
NET = PublicNetwork(PLAN)


def test_only_devices_behind_a_nat_have_a_box_of_their_own() -> None:
    assert NET.namespaces == (f"{PLAN.prefix}_internet", f"{PLAN.prefix}_nat1", f"{PLAN.prefix}_nat2")
    assert NET.near_end("A") == PLAN.namespace("A")
    assert NET.near_end("B") == f"{PLAN.prefix}_nat1"
    assert list(NET.boxes()) == [NET.near_end("B"), NET.near_end("C")]


def test_public_addresses_are_apart_from_all_others() -> None:
    hosts = [NET.server_host, *(NET.public_host(device) for device in "ABC")]
    assert len(set(hosts)) == 4
    others = [PLAN.address("A", "D"), *PLAN.control_network("A"), *PLAN.lab_network]
    network = ipaddress.IPv4Network("198.18.128.0/17")
    assert all(ipaddress.IPv4Address(host) in network for host in hosts)
    assert not any(ipaddress.IPv4Address(host) in network for host in others)


def test_access_links_lead_to_the_bridge_and_boxes_to_their_devices() -> None:
    lines = NET.making(())
    assert f"link add bridge netns {NET.middle} type bridge" in lines
    assert f"link add public netns {PLAN.server} type veth peer name server netns {NET.middle}" in lines
    assert f"link add wan netns {PLAN.namespace('A')} type veth peer name port0 netns {NET.middle}" in lines
    assert f"link add wan netns {NET.near_end('B')} type veth peer name port1 netns {NET.middle}" in lines
    assert f"link add lan netns {NET.near_end('B')} type veth peer name lan netns {PLAN.namespace('B')}" in lines
    assert not any(PLAN.namespace("D") in line for line in lines)
    assert not any("port2" in line for line in NET.making(("C",)))


def test_every_home_has_the_same_private_addresses_and_a_way_out() -> None:
    lines = NET.addressing()
    for device in "BC":
        assert f"address add {INNER}/24 dev lan" in lines[PLAN.namespace(device)]
        assert f"route add 198.18.128.0/17 via {GATEWAY} dev lan" in lines[PLAN.namespace(device)]
        assert f"address add {NET.public_host(device)}/17 dev wan" in lines[NET.near_end(device)]
    assert f"address add {NET.public_host('A')}/17 dev wan" in lines[PLAN.namespace("A")]
    assert f"address add {NET.server_host}/17 dev public" in lines[PLAN.server]
    assert [line for line in lines[NET.middle] if "master" in line] == [
        f"link set {port} master bridge" for port in ("server", "port0", "port1", "port2")
    ]


def test_access_links_are_shaped_at_both_ends() -> None:
    lines = NET.shaping(())
    assert lines[NET.near_end("B")] == ["qdisc add dev wan root tbf rate 100000000bit burst 25000 limit 225000"]
    assert "qdisc add dev port2 root handle 1: netem limit 1250 delay 20000us" in lines[NET.middle]
    assert NET.weathered == ("C",)
    emulated = NET.shaping(("C",))
    assert NET.near_end("C") not in emulated
    assert not any("port2" in line for line in emulated[NET.middle])
    assert list(PublicNetwork(replace(PLAN, shaped=False)).shaping(("C",))) == []


def test_without_devices_on_it_there_is_no_network() -> None:
    none = PublicNetwork(replace(PLAN, scenario=replace(WORLD, internet={})))
    assert (none.namespaces, none.making(()), none.addressing(), none.shaping(()), none.boxes()) == ((), [], {}, {}, {})


@pytest.mark.parametrize(
    ("kind", "told", "not_told"),
    [
        (Kind.SYMMETRIC, "masquerade fully-random", "dnat to"),
        (Kind.PORT_RESTRICTED, "masquerade", "dnat to"),
        (Kind.ADDRESS_RESTRICTED, f"ip saddr @hosts dnat to {INNER}", "fully-random"),
        (Kind.ENDPOINT_INDEPENDENT, f"udp dport @mapped dnat to {INNER}", "ip saddr @hosts"),
    ],
)
def test_the_rules_of_a_box_are_those_of_its_kind(kind: Kind, told: str, not_told: str) -> None:
    rules = ruleset(kind)
    assert told in rules
    assert not_told not in rules
    assert "iifname wan drop" in rules
    assert rules.count("{") == rules.count("}")
