"""What a device tells of where it may be reached, and in which order."""

import ipaddress
import random
from collections import Counter

import pytest

from agent.core.candidates import OwnCandidates
from agent.core.reflexive import Reflexive
from common.addresses import Address
from common.limits import MAX_CANDIDATES
from common.messages import CandidatesReport
from common.stun import BindingRequest, decode_untrusted, encode_answer

SEEN: Address = ("198.51.100.7", 40_000)
LAN: Address = ("192.168.7.9", 7400)
VPN: Address = ("10.8.0.2", 7400)
SIX: Address = ("2001:db8::9", 7400)
LOOPBACK: Address = ("127.0.0.1", 7400)
DENIED = (ipaddress.ip_network("10.8.0.0/16"),)


def reflexive(*seen: Address) -> Reflexive:
    """Return what has asked so many servers and got these answers."""
    made = Reflexive(Counter(), random.Random(1).randbytes)
    see(made, *seen)
    return made


def see(made: Reflexive, *seen: Address) -> None:
    servers = [("203.0.113.1", port + 1) for port in range(len(seen))]
    made.set_servers(servers, 0.0)
    made.handle_timeout(0.0)
    answers = dict(zip(servers, seen, strict=True))
    while (question := made.poll()) is not None:
        request = decode_untrusted(question[1])
        assert isinstance(request, BindingRequest)
        made.receive(encode_answer(request, answers[question[0]]), question[0], 0.0)


def test_the_order_is_advertised_then_interfaces_then_reflexive_then_loopback() -> None:
    own = OwnCandidates(("203.0.113.5:1",), reflexive(SEEN, SEEN))
    own.set_hosts((LOOPBACK, SIX, LAN, VPN, ("::1", 7400)), 0.0)
    assert own.report() == CandidatesReport(
        candidates=(
            "203.0.113.5:1",
            "192.168.7.9:7400",
            "10.8.0.2:7400",
            "[2001:db8::9]:7400",
            "198.51.100.7:40000",
            "127.0.0.1:7400",
            "[::1]:7400",
        ),
        mapping="stable",
    )


def test_an_address_that_is_known_twice_stands_where_it_stood_first() -> None:
    own = OwnCandidates(("10.8.0.2:7400",), reflexive(LAN, VPN))
    own.set_hosts((LAN, VPN), 0.0)
    assert own.report().candidates == ("10.8.0.2:7400", "192.168.7.9:7400")


def test_what_is_denied_or_reaches_nobody_is_not_told() -> None:
    own = OwnCandidates(("10.8.0.7:1", "203.0.113.5:1"), reflexive(VPN), denied=DENIED)
    own.set_hosts((VPN, LAN, ("fe80::1", 7400), ("0.0.0.0", 7400), ("ff02::1", 7400)), 0.0)
    assert own.report().candidates == ("203.0.113.5:1", "192.168.7.9:7400")


def test_a_device_may_tell_nothing_but_what_is_advertised() -> None:
    own = OwnCandidates(("203.0.113.5:1",), reflexive(SEEN, LAN), only_advertised=True)
    own.set_hosts((LAN, LOOPBACK), 0.0)
    assert own.report() == CandidatesReport(candidates=("203.0.113.5:1",), mapping="varies")


def test_of_many_interfaces_some_give_way_to_the_reflexive_address() -> None:
    own = OwnCandidates(("203.0.113.5:1",), reflexive(SEEN))
    own.set_hosts([(f"172.17.0.{last}", 7400) for last in range(1, 50)], 0.0)
    found = own.report().candidates
    assert len(found) == MAX_CANDIDATES
    assert found[0] == "203.0.113.5:1"
    assert found[1] == "172.17.0.1:7400"
    assert found[-1] == "198.51.100.7:40000"


def test_no_more_is_told_than_allowed() -> None:
    many = [f"203.0.113.5:{port}" for port in range(1, MAX_CANDIDATES + 1)]
    own = OwnCandidates(many, reflexive(SEEN))
    own.set_hosts((LAN, LOOPBACK), 0.0)
    assert own.report().candidates == tuple(many)


@pytest.mark.parametrize("hosts", [(), (LAN,)])
def test_every_change_raises_the_version_and_nothing_else_does(hosts: tuple[Address, ...]) -> None:
    seen = reflexive()
    own = OwnCandidates((), seen)
    own.set_hosts(hosts, 0.0)
    before = own.version
    own.set_hosts((*hosts, *hosts), 0.0)
    assert own.version == before
    see(seen, SEEN)
    assert own.version > before
    before = own.version
    own.set_hosts((VPN,), 0.0)
    assert own.version > before
