"""UDP addresses as text and number: how they are written, which can be reached, and which networks they are in."""

import ipaddress
from collections.abc import Iterable
from typing import Final, TypeAlias

Address: TypeAlias = tuple[str, int]
"""A host, most often a numeric one, and a port."""
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - compared, and bound where the user says so
"""What stands for every address of a host."""
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def write_address(address: Address) -> str:
    """Write ``host:port``; an IPv6 host stands in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def numeric(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read a host as the address that it is; an IPv4 address inside an IPv6 one is that. None for a name."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    inside = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return found if inside is None else inside


def why_unreachable(host: str) -> str | None:
    """Tell why nobody could be reached at a host, whoever that is; None if somebody could. A name may be anybody."""
    address = numeric(host)
    if address is None:
        return None
    if address.is_multicast:
        return "is a multicast address"
    if address.is_unspecified:
        return "is the unspecified address"
    if address == _BROADCAST:
        return "is the broadcast address"
    if address.version == 6 and address.is_link_local:
        return "is an IPv6 link-local address, which means something else on every interface"
    return None


def is_within(host: str, networks: Iterable[Network]) -> bool:
    """Tell whether a host is in one of some networks; a name is in none."""
    address = numeric(host)
    return address is not None and any(address in network for network in networks)
