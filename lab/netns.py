"""The real system in network namespaces: one for the server, one for each device, and the scenario's links.

Theory of operation. Every link is an interface pair of its own between the namespaces of its two devices, and each
device has one more pair to the server's namespace: its control network, which carries no data, for agents keep out of
it (``--deny``). How to reach their peers they find out by themselves. The kernel shapes both ends of a link to the
scenario's rate. A link that also delays or loses frames is shaped by the kernel's netem, or by an emulator that the
user names. All of it is taken down at the end, however the run ends; what a killed run left is swept away by the next
one.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

import httpx

from common.errors import ConfigError
from common.ids import DeviceId, LinkKey
from lab.emulator import TICK_US, Emulator
from lab.happenings import Happening
from lab.loopback import LoopbackSystem, agent_arguments, server_arguments
from lab.nat import Kind
from lab.netns_events import LinkChanges
from lab.netns_host import (
    NAMESPACES,
    access_bytes,
    batch,
    check_host,
    ethernet_bytes,
    furnish,
    furnish_public,
    has_netem,
    has_nft,
    make,
    make_public,
    remove,
    sweep,
    this_owner,
)
from lab.netns_internet import WAN, PublicNetwork
from lab.netns_plan import UDP_PORT, Plan, emulator_settings, has_weather, weathered
from lab.progress import Watcher
from lab.scenario import LinkFigures, Scenario

EMULATOR_VARIABLE: Final = "ARBORCAST_LINKEMU"
ANYWHERE: Final = "0.0.0.0"  # noqa: S104 - inside a namespace of the lab's own

_runs = itertools.count(1)


class NetnsSystem(LoopbackSystem):
    """A server and agents in namespaces of their own, over shaped links.

    Attributes:
        plan: Names and addresses.
        public: The network of the devices that are on the internet.
        emulated: The links that an emulator carries.
    """

    backend: ClassVar[str] = "netns"
    changes_links: ClassVar[bool] = True

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        watcher: Watcher,
        *,
        emulator: Path | None = None,
        shaped: bool = True,
    ) -> None:
        """Plan the system.

        Args:
            scenario: Devices, links, channels.
            folder: An empty folder with a short path.
            watcher: Is told how it goes.
            emulator: The program for links with delay or loss where the kernel has no netem.
            shaped: Whether links get their rates; if not, those without delay or loss are as fast as the host.

        Raises:
            ConfigError: This host or this backend cannot do what the scenario wants.
        """
        self.emulated = check_netns(scenario, emulator)
        self.shaped = shaped
        self.plan = Plan(scenario, this_owner(), next(_runs), shaped)
        self.public = PublicNetwork(self.plan)
        self._changes = LinkChanges(self.plan, self.emulated.links)
        self._emulators: dict[LinkKey | DeviceId, Emulator] = {}
        if emulator is not None:
            self._emulators |= {link: self._emulator(emulator, link) for link in self.emulated.links}
            self._emulators |= {device: self._access_emulator(emulator, device) for device in self.emulated.accesses}
        super().__init__(scenario, folder, watcher)

    @property
    def graph_command(self) -> str:
        """The curl line that prints the current graph, from this host."""
        return super().graph_command.replace("curl -s", "curl -s --noproxy '*'", 1)

    async def start(self) -> None:
        """Make namespaces and links, then start the server and all agents in them.

        Raises:
            HostRefused: A namespace or a link could not be made.
            ChildDied: A process ended or was not ready in time.
            ConnectError: The server refused a channel.
        """
        for left in sweep():
            self._watcher.say(f"swept away {left} of a run that did not end")
        make(self.plan, self.emulated.links)
        make_public(self.public, self.emulated.accesses)
        for emulator in self._emulators.values():
            await emulator.start()
        furnish(self.plan, self.emulated.links)
        furnish_public(self.public, self.emulated.accesses)
        await super().start()

    async def stop(self) -> None:
        """Stop everything that runs, and take links and namespaces down."""
        try:
            try:
                await super().stop()
            finally:
                for emulator in self._emulators.values():
                    await emulator.stop()
        finally:
            remove((*self.plan.namespaces, *self.public.namespaces))

    def check(self) -> None:
        """Make sure that nothing ended by itself.

        Raises:
            ChildDied: Something did.
        """
        super().check()
        for emulator in self._emulators.values():
            emulator.check()

    async def happen(self, happening: Happening) -> None:
        """Let one thing happen to a link, a process of an agent's or the server's.

        Raises:
            ChildDied: A process that was started was not ready in time, or a link's emulator ended.
            HostRefused: The link could not be changed.
        """
        if happening.link is None:
            await super().happen(happening)
            return
        self._watcher.say(str(happening))
        orders = self._changes.orders(happening.link, happening)
        for program, lines in (("ip", orders.ip), ("tc", orders.tc)):
            for namespace, commands in lines.items():
                batch([program, "-n", namespace], commands)
        if orders.emulator:
            await self._emulators[happening.link].tell(orders.emulator)

    def ethernet_bytes(self) -> dict[LinkKey, tuple[int, int]]:
        """Return the Ethernet bytes that either end of each link sent so far."""
        return ethernet_bytes(self.plan)

    def access_bytes(self) -> dict[DeviceId, tuple[int, int]]:
        """Return the Ethernet bytes that each device on the internet sent and was sent over its access link so far."""
        return access_bytes(self.public)

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor time that each process used so far, in seconds."""
        return super().cpu_seconds() | {emulator.name: emulator.cpu_seconds() for emulator in self._emulators.values()}

    def _server_command(self, port: int) -> list[str]:
        arguments = [*server_arguments(self.folder, port, ANYWHERE), "--insecure-http"]
        return self.plan.inside(self.plan.server, arguments)

    def _agent_command(self, device: DeviceId) -> list[str]:
        server, _ = self.plan.control_network(device)
        url = httpx.URL(self.url).copy_with(host=server)
        arguments = agent_arguments(self.scenario, device, self.folder, str(url), f"{ANYWHERE}:{UDP_PORT}")
        options = self.plan.discovery_options(self.public.stun_servers(device, url.port or 0))
        return self.plan.inside(self.plan.namespace(device), [*arguments, *options])

    def _reached(self, url: str) -> str:
        return str(httpx.URL(url).copy_with(host=self.plan.lab_network[0])).rstrip("/")

    def _emulator(self, program: Path, link: LinkKey) -> Emulator:
        ends = [(self.plan.namespace(device), self.plan.interface(link)) for device in link]
        number = list(self.plan.scenario.links).index(link)
        return self._emulate(program, "-".join(link), ends, self.plan.scenario.links[link], number)

    def _access_emulator(self, program: Path, device: DeviceId) -> Emulator:
        ends = [(self.public.near_end(device), WAN), (self.public.middle, self.public.port(device))]
        number = len(self.plan.scenario.links) + self.public.devices.index(device)
        return self._emulate(program, device, ends, self.plan.scenario.internet[device].figures, number)

    def _emulate(
        self, program: Path, name: str, ends: list[tuple[str, str]], figures: LinkFigures, number: int
    ) -> Emulator:
        places = [f"{NAMESPACES / namespace}:{interface}" for namespace, interface in ends]
        settings = emulator_settings(figures)
        seed = self.plan.scenario.seed + self.plan.run + number
        options = [f"seed:{seed}", f"tick:{TICK_US}", f"ab:{settings}", f"ba:{settings}"]
        return Emulator(f"emulator {name}", [str(program.absolute()), *places, *options])


class Emulated(NamedTuple):
    """What an emulator has to carry.

    Attributes:
        links: Of the scenario's links.
        accesses: Of the access links, by device.
    """

    links: tuple[LinkKey, ...] = ()
    accesses: tuple[DeviceId, ...] = ()


def check_netns(scenario: Scenario, emulator: Path | None) -> Emulated:
    """Make sure that this host and this backend can do what a scenario wants.

    Args:
        scenario: What is wanted.
        emulator: The program for links with delay or loss, if the user named one.

    Returns:
        What the emulator has to carry.

    Raises:
        ConfigError: They cannot; one sentence says why.
    """
    check_host()
    for link, figures in scenario.links.items():
        if figures.burst > 1 or figures.reorder_by or figures.back is not None:
            raise ConfigError(
                f"link {'-'.join(link)} has bursts, a reorder_by or a way back of its own, and the netns backend"
                " can do none of these; run the scenario with --backend sim"
            )
    boxed = [device for device, access in scenario.internet.items() if access.kind != Kind.OPEN]
    if boxed and not has_nft():
        raise ConfigError(f"device {boxed[0]} is behind a NAT, which takes nftables, and this host has none (nft)")
    weather = weathered(scenario)
    accesses = tuple(device for device, access in scenario.internet.items() if has_weather(access.figures))
    if not (weather or accesses) or has_netem():
        return Emulated()
    if emulator is None:
        which = f"link {'-'.join(weather[0])}" if weather else f"the access link of {accesses[0]}"
        raise ConfigError(
            f"{which} delays or loses frames, or comes to do so, and this kernel has no tc netem;"
            f" name a link emulator with --emulator or {EMULATOR_VARIABLE}, or give the link a delay of 0ms and no loss"
        )
    if not (emulator.is_file() and os.access(emulator, os.X_OK)):
        raise ConfigError(f"the link emulator {emulator} is no program that can be run")
    return Emulated(weather, accesses)
