"""This host's addresses, by interface."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from common.addresses import WILDCARDS, Address, numeric, why_unreachable
from common.errors import TransportError


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """One address of one interface.

    Attributes:
        interface: its name.
        host: numeric, without an interface's name in it.
        up: whether the interface carries anything now.
        loopback: whether nobody but this host is behind it.
    """

    interface: str
    host: str
    up: bool
    loopback: bool


def read_interfaces() -> tuple[InterfaceAddress, ...]:
    """Return the IPv4 and IPv6 addresses of all interfaces, sorted by interface.

    Raises:
        TransportError: the kernel does not tell.
    """
    try:
        addresses, states = psutil.net_if_addrs(), psutil.net_if_stats()
    except OSError as error:
        raise TransportError(f"cannot read this host's addresses: {error.strerror or error}") from error
    found = []
    for name in sorted(addresses):
        up = name in states and states[name].isup
        for each in addresses[name]:
            host = numeric(each.address.partition("%")[0])
            if each.family in (socket.AF_INET, socket.AF_INET6) and host is not None:
                found.append(InterfaceAddress(name, str(host), up, host.is_loopback))
    return tuple(found)


def reached_at(found: Iterable[InterfaceAddress], bound: Address, *, loopback: bool) -> tuple[Address, ...]:
    """Return the addresses at which the shared socket can be reached.

    Args:
        found: this host's.
        bound: where the socket is bound; ``::`` takes IPv4 as well.
        loopback: whether somebody on this host matters.
    """
    host, port = bound
    if host not in WILDCARDS:
        return (bound,)
    return tuple(
        (each.host, port)
        for each in found
        if each.up
        and (loopback or not each.loopback)
        and (host == "::" or ":" not in each.host)
        and why_unreachable(each.host) is None
    )
