"""What the netns backend lays out, before anything is made: names, addresses, shapers and the commands for them.

One network namespace for the server and one for each device. Each link has an interface pair and a /30 of its own, and
so has each device's way to the server: whatever reaches a peer went over the link's own interfaces, for there are no
other routes. All addresses are of 198.18.0.0/15, which is set apart for measurements (RFC 2544): links from 198.18.0.0
on, the public network from 198.18.128.0 on, ways to the server from 198.19.0.0 on, the lab's own way to the server in
the upper half of that.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from common.errors import ConfigError
from common.ids import DeviceId, LinkKey, link_key
from lab.scenario import ETHERNET_MTU_BYTES, LinkFigures, Scenario

UDP_PORT: Final = 7400
"""Every agent's; each has its namespace to itself."""
ETHERNET_HEADER_BYTES: Final = 14
QUEUE_S: Final = 0.02
"""What a link buffers where the scenario does not say, in seconds of its rate."""
BURST_S: Final = 0.002
"""How far a shaper may run ahead of its rate, in seconds of it."""
BURST_FRAMES: Final = 3
QUEUE_FRAMES: Final = 8
WEATHER: Final = ("delay_s", "jitter_s", "loss", "duplicate", "reorder")
"""The figures of a link that take more than a shaper."""
MOST_LINKS: Final = 8_192
MOST_DEVICES: Final = 8_192
LAB_INTERFACE: Final = "lab"
CONTROL_NETWORK: Final = "198.19.0.0/16"
"""What agents keep out of: the ways to the server, and the lab's own."""

_LINKS: Final = int(ipaddress.IPv4Address("198.18.0.0"))
_CONTROL: Final = int(ipaddress.IPv4Address("198.19.0.0"))
_LAB: Final = int(ipaddress.IPv4Address("198.19.128.0"))
_LAB_NETWORKS: Final = 8_192
_RUNS: Final = 64
"""Networks between those of two processes with neighbouring numbers."""
_NAME: Final = re.compile(r"arborcast-([0-9]+)\.([0-9]+)\.[0-9]+-.+")


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that made a namespace, so that a later run can tell whether it is still there.

    Attributes:
        pid: Its number.
        started: When it began, in clock ticks since the machine's start; a number that is used again differs in it.
    """

    pid: int
    started: int


def owner_of(namespace: str) -> Owner | None:
    """Return who made a namespace; None if it is none of a lab's."""
    match = _NAME.fullmatch(namespace)
    return None if match is None else Owner(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Shaper:
    """One direction of a link, as a token bucket filter has it.

    Attributes:
        rate_bps: Bits per second of Ethernet frames: 14 bytes of header, no preamble, checksum or gap.
        burst_bytes: The bucket.
        queue_bytes: What may wait besides; more is dropped.
    """

    rate_bps: float
    burst_bytes: int
    queue_bytes: int

    @property
    def queue_s(self) -> float:
        """Seconds of the rate that bucket and queue hold together."""
        return (self.burst_bytes + self.queue_bytes) * 8 / self.rate_bps


def shaper(figures: LinkFigures) -> Shaper:
    """Return the shaper for a link: it holds `QUEUE_S` of the rate, or what the scenario says."""
    frame_bytes = mtu_bytes(figures) + ETHERNET_HEADER_BYTES
    burst_bytes = max(BURST_FRAMES * frame_bytes, int(BURST_S * figures.rate_bps / 8))
    queue_bytes = figures.queue_bytes or int(QUEUE_S * figures.rate_bps / 8) - burst_bytes
    return Shaper(figures.rate_bps, burst_bytes, max(QUEUE_FRAMES * frame_bytes, queue_bytes))


def mtu_bytes(figures: LinkFigures) -> int:
    """Return the largest IP packet that a link takes, in bytes."""
    return figures.mtu_bytes or ETHERNET_MTU_BYTES


def has_weather(figures: LinkFigures) -> bool:
    """Tell whether a link does more to frames than to let them wait for their turn."""
    return any(getattr(figures, name) for name in WEATHER)


def weathered(scenario: Scenario) -> tuple[LinkKey, ...]:
    """Return the links that delay or lose frames, from the start or because something happens to them later."""
    later = {
        happening.link for happening in scenario.happenings if any(happening.figures.get(name) for name in WEATHER)
    }
    return tuple(link for link, figures in scenario.links.items() if has_weather(figures) or link in later)


@dataclass(frozen=True, slots=True)
class Plan:
    """Names and addresses of one run.

    Attributes:
        scenario: Devices and links.
        owner: The process that makes it.
        run: Tells the runs of one process apart.
        shaped: Whether links get their rates; if not, those without delay or loss are as fast as the host.
    """

    scenario: Scenario
    owner: Owner
    run: int
    shaped: bool = True

    def __post_init__(self) -> None:
        """Check that there are addresses for everything.

        Raises:
            ConfigError: There are not.
        """
        if len(self.scenario.links) > MOST_LINKS or len(self.scenario.devices) > MOST_DEVICES:
            raise ConfigError(f"the netns backend has addresses for {MOST_LINKS} links and {MOST_DEVICES} devices")

    @property
    def prefix(self) -> str:
        """What the names of this run's namespaces begin with."""
        return f"arborcast-{self.owner.pid}.{self.owner.started}.{self.run}-"

    @property
    def server(self) -> str:
        """The server's namespace; no device of a scenario has that name."""
        return f"{self.prefix}server"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All namespaces of this run."""
        return (self.server, *(self.namespace(device) for device in self.scenario.devices))

    @property
    def root_interface(self) -> str:
        """The lab's own end of its way to the server, outside of all namespaces; at most 15 characters."""
        return f"arbl{self.owner.pid}x{self.run % 100}"[:15]

    @property
    def weathered(self) -> tuple[LinkKey, ...]:
        """The links that take more than a shaper at some time of the run."""
        return weathered(self.scenario)

    @property
    def lab_network(self) -> tuple[str, str]:
        """The server's and the lab's address on the way between them."""
        # Two labs that were started one after the other must not meet in their later runs.
        return _pair(_LAB, (_RUNS * self.owner.pid + self.run) % _LAB_NETWORKS)

    def namespace(self, device: DeviceId) -> str:
        """Return the namespace of a device."""
        return f"{self.prefix}{device}"

    def interface(self, link: LinkKey) -> str:
        """Return the name that both ends of a link have, each in its own namespace."""
        return f"link{self._links().index(link)}"

    def address(self, device: DeviceId, peer: DeviceId) -> str:
        """Return a device's address on its link to a peer."""
        link = link_key(device, peer)
        return _pair(_LINKS, self._links().index(link))[link.index(device)]

    def control_network(self, device: DeviceId) -> tuple[str, str]:
        """Return the server's and the device's address on the way between them."""
        return _pair(_CONTROL, self.scenario.devices.index(device))

    def inside(self, namespace: str, command: Collection[str]) -> list[str]:
        """Return a command line that runs another one in a namespace."""
        # `ip` and `env` become the command, so it keeps their process number. A proxy could not be reached from inside.
        return ["ip", "netns", "exec", namespace, "env", "no_proxy=*", "NO_PROXY=*", *command]

    def discovery_options(self, stun: Iterable[tuple[str, int]]) -> list[str]:
        """Return an agent's options that let it find its peers, and keep its data off the ways to the server.

        Args:
            stun: The STUN servers that it reaches, if any.
        """
        servers = [f"{host}:{port}" for host, port in stun] or ["off"]
        options = ["--insecure-http", "--deny", CONTROL_NETWORK]
        for server in servers:
            options += ["--stun", server]
        return options

    def making(self, emulated: Collection[LinkKey]) -> list[str]:
        """Return the lines for ``ip -batch`` that make all namespaces and interface pairs.

        Args:
            emulated: Links whose interfaces an emulator makes.
        """
        lines = [f"netns add {namespace}" for namespace in self.namespaces]
        lines.append(_veth(self.root_interface, "", LAB_INTERFACE, self.server))
        for index, device in enumerate(self.scenario.devices):
            lines.append(_veth("control", self.namespace(device), f"control{index}", self.server))
        for link in self._links():
            if link not in emulated:
                a, b = (self.namespace(device) for device in link)
                lines.append(_veth(self.interface(link), a, self.interface(link), b))
        return lines

    def addressing(self) -> dict[str, list[str]]:
        """Return the lines for ``ip -batch`` that give addresses, by namespace; "" is the one the lab runs in."""
        server, lab = self.lab_network
        lines = {"": up(self.root_interface, f"{lab}/30")}
        lines[self.server] = ["link set lo up", *up(LAB_INTERFACE, f"{server}/30")]
        for index, device in enumerate(self.scenario.devices):
            server, own = self.control_network(device)
            lines[self.server] += up(f"control{index}", f"{server}/30")
            lines[self.namespace(device)] = ["link set lo up", *up("control", f"{own}/30")]
        for link in self._links():
            mtu = mtu_bytes(self.scenario.links[link])
            for device, peer in (link, link[::-1]):
                interface = self.interface(link)
                lines[self.namespace(device)].append(f"link set {interface} mtu {mtu}")
                lines[self.namespace(device)] += up(interface, f"{self.address(device, peer)}/30")
        return lines

    def shaping(self, emulated: Collection[LinkKey]) -> dict[str, list[str]]:
        """Return the lines for ``tc -batch`` that shape both ends of each link, by namespace.

        Args:
            emulated: Links that an emulator shapes.
        """
        lines: dict[str, list[str]] = {}
        weathered = self.weathered
        changing = {happening.link for happening in self.scenario.happenings if happening.figures}
        for link, figures in self.scenario.links.items():
            if link not in emulated and (self.shaped or link in weathered or link in changing):
                shaping = shape("add", self.interface(link), figures, weather=link in weathered)
                for device in link:
                    lines.setdefault(self.namespace(device), []).extend(shaping)
        return lines

    def _links(self) -> tuple[LinkKey, ...]:
        return tuple(self.scenario.links)


def up(interface: str, address: str) -> list[str]:
    """Return the lines for ``ip -batch`` that give an interface an address with its network's length, and set it up."""
    # No IPv6: its neighbour discovery would be counted as the link's traffic.
    return [
        f"link set {interface} addrgenmode none",
        f"address add {address} dev {interface}",
        f"link set {interface} up",
    ]


def shape(verb: str, interface: str, figures: LinkFigures, *, weather: bool) -> list[str]:
    """Return the lines for ``tc -batch`` that shape one end of a link.

    Args:
        verb: ``add``, or ``change`` for what was added with the same ``weather``.
        interface: Its name.
        figures: The link's.
        weather: Whether the link delays or loses frames at some time of the run.
    """
    bucket = shaper(figures)
    tbf = f"tbf rate {bucket.rate_bps:.0f}bit burst {bucket.burst_bytes} limit {bucket.queue_bytes}"
    if not weather:
        return [f"qdisc {verb} dev {interface} root {tbf}"]
    # netem holds what is on its way; only the filter behind it has a queue that drops (tc-netem(8), examples).
    on_its_way = (figures.delay_s + figures.jitter_s) * figures.rate_bps / 8 / 100
    netem = f"netem limit {1000 + int(on_its_way)} delay {_us(figures.delay_s + figures.jitter_s / 2)}"
    if figures.jitter_s:
        netem += f" {_us(figures.jitter_s / 2)}"
    for word, share in (("loss", figures.loss), ("duplicate", figures.duplicate), ("reorder", figures.reorder)):
        if share:
            netem += f" {word} {100 * share:.6g}%"
    return [
        f"qdisc {verb} dev {interface} root handle 1: {netem}",
        f"qdisc {verb} dev {interface} parent 1:1 handle 10: {tbf}",
    ]


def emulator_settings(figures: LinkFigures, *, whole: bool = False) -> str:
    """Return one direction of a link as the emulator takes it: megabits per second, milliseconds and per cent.

    Args:
        figures: The link's.
        whole: Whether to say also what is nothing, for an emulator that may have been told otherwise before.
    """
    settings = {
        "rate": figures.rate_bps / 1e6,
        "queue": 1e3 * shaper(figures).queue_bytes * 8 / figures.rate_bps,
        "delay": 1e3 * figures.delay_s,
        # It holds frames up to so much shorter or longer, the scenario up to so much longer.
        "jitter": 1e3 * figures.jitter_s / 2,
        "loss": 100 * figures.loss,
        "dup": 100 * figures.duplicate,
        "reorder": 100 * figures.reorder,
    }
    if figures.jitter_s:
        settings["delay"] += settings["jitter"]
    return ",".join(f"{key}={value:.6g}" for key, value in settings.items() if value or whole or key == "rate")


def _pair(base: int, index: int) -> tuple[str, str]:
    network = base + 4 * index
    return str(ipaddress.IPv4Address(network + 1)), str(ipaddress.IPv4Address(network + 2))


def _veth(name: str, namespace: str, peer: str, peer_namespace: str) -> str:
    place = f" netns {namespace}" if namespace else ""
    return f"link add {name}{place} type veth peer name {peer} netns {peer_namespace}"


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.0f}us"
