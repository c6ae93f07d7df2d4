"""The public network of the netns backend, before anything of it is made: a bridge, access links, and NAT boxes.

One namespace is the network's middle, a bridge to which every access link leads, and the server's interface. A device
without a NAT has its end of the access link in its own namespace; each other device has a NAT box between, a namespace
of its own with nftables, and the same private addresses behind it as all the others, as in most homes.

What makes the four kinds of a Linux that masquerades: by itself it keeps the port, maps all destinations to it, and
lets in only answers, by address and port. With a set of the hosts that were sent something, these come in from any
port; without, everybody does, to ports that are in use. A random port for each connection maps each destination to
another one. What comes in unasked is dropped before the kernel takes a note of it: a connection that it knew would keep
the device's own from getting that port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from common.ids import DeviceId
from lab.nat import TIMEOUT_S, Kind
from lab.netns_plan import Plan, has_weather, shape, up

MIDDLE: Final = "_internet"
BRIDGE: Final = "bridge"
WAN: Final = "wan"
LAN: Final = "lan"
PUBLIC: Final = "public"
"""The server's interface on the network."""
INNER: Final = "192.168.1.2"
GATEWAY: Final = "192.168.1.1"

_NETWORK: Final = ipaddress.IPv4Network("198.18.128.0/17")
"""Of RFC 2544's block, the part behind the links' networks."""


@dataclass(frozen=True, slots=True)
class PublicNetwork:
    """Names, addresses and rules of one run's public network; empty where no device is on it.

    Attributes:
        plan: Of the run.
    """

    plan: Plan

    @property
    def devices(self) -> tuple[DeviceId, ...]:
        """The devices on it."""
        return tuple(self.plan.scenario.internet)

    @property
    def weathered(self) -> tuple[DeviceId, ...]:
        """Those whose access links take more than a shaper."""
        return tuple(device for device, access in self.plan.scenario.internet.items() if has_weather(access.figures))

    @property
    def middle(self) -> str:
        """The namespace of the bridge; no device's id begins with an underscore."""
        return f"{self.plan.prefix}{MIDDLE}"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All namespaces that it has besides those of the devices and the server."""
        boxes = tuple(self.near_end(device) for device in self.devices if self._kind(device) is not Kind.OPEN)
        return (self.middle, *boxes) if self.devices else ()

    @property
    def server_host(self) -> str:
        """The server's address on it."""
        return str(_NETWORK[1])

    def stun_servers(self, device: DeviceId, port: int) -> list[tuple[str, int]]:
        """Return where the server answers STUN to a device: at the number of its TCP port, and the next one."""
        return [(self.server_host, port), (self.server_host, port + 1)] if device in self.devices else []

    def public_host(self, device: DeviceId) -> str:
        """Return the address that others see of a device."""
        return str(_NETWORK[2 + self.devices.index(device)])

    def near_end(self, device: DeviceId) -> str:
        """Return the namespace where a device's access link begins: its NAT box's, or its own."""
        if self._kind(device) is Kind.OPEN:
            return self.plan.namespace(device)
        return f"{self.plan.prefix}_nat{self.devices.index(device)}"

    def port(self, device: DeviceId) -> str:
        """Return the name of the far end of a device's access link, in the middle."""
        return f"port{self.devices.index(device)}"

    def making(self, emulated: Collection[DeviceId]) -> list[str]:
        """Return the lines for ``ip -batch`` that make its namespaces and interface pairs.

        Args:
            emulated: Devices whose access links an emulator makes.
        """
        lines = [f"netns add {namespace}" for namespace in self.namespaces]
        if lines:
            lines.append(f"link add {BRIDGE} netns {self.middle} type bridge")
            lines.append(f"link add {PUBLIC} netns {self.plan.server} type veth peer name server netns {self.middle}")
        for device in self.devices:
            near = self.near_end(device)
            if device not in emulated:
                far = f"{self.port(device)} netns {self.middle}"
                lines.append(f"link add {WAN} netns {near} type veth peer name {far}")
            if near != self.plan.namespace(device):
                inside = f"{LAN} netns {self.plan.namespace(device)}"
                lines.append(f"link add {LAN} netns {near} type veth peer name {inside}")
        return lines

    def addressing(self) -> dict[str, list[str]]:
        """Return the lines for ``ip -batch`` that give addresses and routes, by namespace."""
        if not self.devices:
            return {}
        length = _NETWORK.prefixlen
        lines = {self.middle: [f"link set {BRIDGE} addrgenmode none", f"link set {BRIDGE} up"]}
        lines[self.plan.server] = up(PUBLIC, f"{self.server_host}/{length}")
        for port in ("server", *(self.port(device) for device in self.devices)):
            lines[self.middle] += [
                f"link set {port} addrgenmode none",
                f"link set {port} master {BRIDGE}",
                f"link set {port} up",
            ]
        for device in self.devices:
            near, own = self.near_end(device), self.plan.namespace(device)
            lines[near] = up(WAN, f"{self.public_host(device)}/{length}")
            if near != own:
                lines[near] += ["link set lo up", *up(LAN, f"{GATEWAY}/24")]
                lines[own] = [*up(LAN, f"{INNER}/24"), f"route add {_NETWORK} via {GATEWAY} dev {LAN}"]
        return lines

    def shaping(self, emulated: Collection[DeviceId]) -> dict[str, list[str]]:
        """Return the lines for ``tc -batch`` that shape both ends of each access link, by namespace.

        Args:
            emulated: Devices whose access links an emulator shapes.
        """
        lines: dict[str, list[str]] = {}
        for device in self.devices:
            figures = self.plan.scenario.internet[device].figures
            weather = has_weather(figures)
            if device not in emulated and (self.plan.shaped or weather):
                lines[self.near_end(device)] = shape("add", WAN, figures, weather=weather)
                lines.setdefault(self.middle, []).extend(shape("add", self.port(device), figures, weather=weather))
        return lines

    def boxes(self) -> dict[str, str]:
        """Return the ruleset of each NAT box, for ``nft``, by namespace."""
        kinds = {device: self._kind(device) for device in self.devices}
        return {self.near_end(device): ruleset(kind) for device, kind in kinds.items() if kind is not Kind.OPEN}

    def _kind(self, device: DeviceId) -> Kind:
        return Kind(self.plan.scenario.internet[device].kind)


def ruleset(kind: Kind) -> str:
    """Return what makes a NAT box of a kind, for ``nft -f``."""
    if kind is Kind.SYMMETRIC:
        return _RULES.format(masquerade="masquerade fully-random", enter="", note="", admit="")
    if kind is Kind.PORT_RESTRICTED:
        return _RULES.format(masquerade="masquerade", enter="", note="", admit="")
    known = f"iifname {WAN} meta l4proto udp udp dport @mapped"
    if kind is Kind.ADDRESS_RESTRICTED:
        known += " ip saddr @hosts"
    return _RULES.format(
        masquerade="masquerade",
        enter=f"{known} dnat to {INNER}",
        note=f"iifname {LAN} meta l4proto udp update @mapped {{ udp sport }} update @hosts {{ ip daddr }}",
        admit=f"iifname {WAN} ct status dnat accept",
    )


_RULES: Final = f"""
table ip nat {{{{
    set mapped {{{{ type inet_service; size 65535; flags dynamic,timeout; timeout {TIMEOUT_S:.0f}s; }}}}
    set hosts {{{{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout {TIMEOUT_S:.0f}s; }}}}
    chain enter {{{{
        type nat hook prerouting priority dstnat; policy accept;
        {{enter}}
    }}}}
    chain leave {{{{
        type nat hook postrouting priority srcnat; policy accept;
        oifname {WAN} {{masquerade}}
    }}}}
    chain note {{{{
        type filter hook prerouting priority mangle; policy accept;
        {{note}}
    }}}}
    chain own {{{{
        type filter hook input priority filter; policy accept;
        iifname {WAN} drop
    }}}}
    chain through {{{{
        type filter hook forward priority filter; policy drop;
        iifname {LAN} accept
        ct state established,related accept
        {{admit}}
    }}}}
}}}}
"""
