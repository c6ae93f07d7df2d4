"""Addresses: how they are written, who can be reached there, and where they lie."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.addresses import is_within, numeric, why_unreachable, write_address
from common.fields import split_candidate

LAN = ipaddress.ip_network("192.168.7.0/24")
ULA = ipaddress.ip_network("fd00::/8")


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_what_is_written_can_be_read_back(host: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    assert split_candidate(write_address((str(host), port))) == (str(host), port)


def test_an_ipv4_address_inside_an_ipv6_one_is_that() -> None:
    assert str(numeric("::ffff:192.0.2.1")) == "192.0.2.1"
    assert str(numeric("2001:db8::1")) == "2001:db8::1"
    assert numeric("192.0.2.256") is None
    assert numeric("") is None


@pytest.mark.parametrize(
    ("host", "word"),
    [
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("255.255.255.255", "broadcast"),
        ("::ffff:255.255.255.255", "broadcast"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
    ],
)
def test_where_nobody_can_be_reached_the_reason_is_named(host: str, word: str) -> None:
    assert word in (why_unreachable(host) or "")


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "127.0.0.1", "169.254.1.1", "::1", "2001:db8::1", "fd00::1", "a.example"]
)
def test_anybody_else_may_be_reached(host: str) -> None:
    assert why_unreachable(host) is None


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("192.168.7.9", True),
        ("::ffff:192.168.7.9", True),
        ("192.168.8.9", False),
        ("fd12::1", True),
        ("2001:db8::1", False),
        ("a.example", False),
    ],
)
def test_an_address_is_in_a_network_of_its_family_or_not(host: str, inside: bool) -> None:
    assert is_within(host, (LAN, ULA)) is inside
    assert not is_within(host, ())
