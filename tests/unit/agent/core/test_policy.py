"""What the operator allows, denies, declares and caps."""

import ipaddress

import pytest

from agent.core.policy import DeclaredQos, PeerPolicy
from common.fields import encode_key
from common.messages import RosterEntry

DENIED = (ipaddress.ip_network("10.9.0.0/16"), ipaddress.ip_network("2001:db8:9::/48"))
NOBODY = PeerPolicy(None, {}, {})


def entry(*candidates: str) -> RosterEntry:
    return RosterEntry(
        device="Q", public_key=encode_key(bytes(32)), signing_key=encode_key(bytes(32)), candidates=candidates
    )


def test_every_member_is_allowed_unless_some_are_named() -> None:
    assert NOBODY.allows("B")
    assert [PeerPolicy(frozenset("B"), {}, {}).allows(peer) for peer in "BC"] == [True, False]


@pytest.mark.parametrize(
    "host", ["10.9.0.1", "::ffff:10.9.0.1", "2001:db8:9::1", "224.0.0.1", "0.0.0.0", "fe80::1", "a.example"]
)
def test_no_datagram_goes_to_a_denied_network_or_to_what_is_no_host_s_number(host: str) -> None:
    policy = PeerPolicy(None, {}, {}, denied=DENIED)
    assert not policy.usable((host, 1))
    assert policy.usable(("10.8.0.1", 1))


def test_the_operators_address_is_tried_first_and_none_twice() -> None:
    given = PeerPolicy(None, {"Q": ("10.0.0.7", 7)}, {}, denied=DENIED)
    told = entry("10.0.0.1:1", "10.9.0.1:1", "10.0.0.7:7", "[2001:db8:8::1]:1")
    assert given.addresses_of(told) == (("10.0.0.7", 7), ("10.0.0.1", 1), ("2001:db8:8::1", 1))
    assert NOBODY.addresses_of(entry("10.9.0.1:1")) == (("10.9.0.1", 1),)
    assert NOBODY.addresses_of(entry()) == ()


def test_a_capped_link_gives_no_more_than_the_cap() -> None:
    capped = PeerPolicy(
        None, {}, {"B": DeclaredQos(8e6), "C": DeclaredQos(1e6)}, max_rates={"B": 2e6, "C": 2e6, "D": 3e6}
    )
    assert [capped.rate_bps(peer) for peer in "BCDE"] == [2e6, 1e6, 3e6, None]


def test_what_was_declared_and_what_is_capped_are_told_apart() -> None:
    policy = PeerPolicy(None, {}, {"B": DeclaredQos(8e6)}, max_rate_bps=5e6, max_rates={"B": 9e6, "C": 2e6})
    assert [policy.declared_bps(peer) for peer in "BC"] == [8e6, None]
    assert [policy.cap_bps(peer) for peer in "BCD"] == [5e6, 2e6, 5e6]
    assert NOBODY.cap_bps("B") is None
