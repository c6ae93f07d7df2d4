"""This host's addresses, and which of them lead to a socket."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from agent.services.interfaces import InterfaceAddress, reached_at, read_interfaces
from common.errors import TransportError


def address(family: int, host: str) -> Any:
    return SimpleNamespace(family=family, address=host)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this host one of known interfaces."""
    addresses = {
        "wlan0": [address(socket.AF_INET, "192.168.7.9")],
        "eth0": [
            address(socket.AF_INET, "10.0.0.5"),
            address(socket.AF_INET6, "2001:db8::5"),
            address(socket.AF_INET6, "fe80::5%eth0"),
            address(17, "02:fc:00:00:00:01"),
        ],
        "lo": [address(socket.AF_INET, "127.0.0.1"), address(socket.AF_INET6, "::1")],
        "gone": [address(socket.AF_INET, "10.9.0.5")],
    }
    states = {
        "wlan0": SimpleNamespace(isup=False),
        "eth0": SimpleNamespace(isup=True),
        "lo": SimpleNamespace(isup=True),
    }
    monkeypatch.setattr("psutil.net_if_addrs", lambda: addresses)
    monkeypatch.setattr("psutil.net_if_stats", lambda: states)


@pytest.mark.usefixtures("host")
def test_every_address_is_read_with_its_interface_and_state() -> None:
    assert read_interfaces() == (
        InterfaceAddress("eth0", "10.0.0.5", up=True, loopback=False),
        InterfaceAddress("eth0", "2001:db8::5", up=True, loopback=False),
        InterfaceAddress("eth0", "fe80::5", up=True, loopback=False),
        InterfaceAddress("gone", "10.9.0.5", up=False, loopback=False),
        InterfaceAddress("lo", "127.0.0.1", up=True, loopback=True),
        InterfaceAddress("lo", "::1", up=True, loopback=True),
        InterfaceAddress("wlan0", "192.168.7.9", up=False, loopback=False),
    )


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("bound", "loopback", "hosts"),
    [
        ("::", False, ["10.0.0.5", "2001:db8::5"]),
        ("0.0.0.0", False, ["10.0.0.5"]),
        ("::", True, ["10.0.0.5", "2001:db8::5", "127.0.0.1", "::1"]),
        ("0.0.0.0", True, ["10.0.0.5", "127.0.0.1"]),
        ("192.168.7.9", True, ["192.168.7.9"]),
    ],
)
def test_a_socket_is_reached_at_what_it_is_bound_to_and_is_up(bound: str, loopback: bool, hosts: list[str]) -> None:
    assert reached_at(read_interfaces(), (bound, 7400), loopback=loopback) == tuple((host, 7400) for host in hosts)


def test_this_very_host_has_a_loopback_address() -> None:
    assert any(each.loopback and each.up for each in read_interfaces())


def test_a_kernel_that_does_not_tell_is_a_transport_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("psutil.net_if_addrs", refuse)
    with pytest.raises(TransportError, match="cannot read this host's addresses: Operation not permitted"):
        read_interfaces()
