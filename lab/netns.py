"""The real system in network namespaces: one for the server, one for each device, and the scenario's links.

Theory of operation. Every link is an interface pair of its own between the namespaces of its two devices, and each
device has one more pair to the server's namespace: its control network, which carries no data, for agents tell nobody
their address there. The kernel shapes both ends of a link to the scenario's rate. A link that also delays or loses
frames is shaped by the kernel's netem, or by an emulator that the user names. All of it is taken down at the end,
however the run ends; what a killed run left is swept away by the next one.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import ClassVar, Final

import httpx

from common.errors import ConfigError
from common.ids import DeviceId, LinkKey
from lab.emulator import TICK_US, Emulator
from lab.happenings import Happening
from lab.loopback import LoopbackSystem, agent_arguments, server_arguments
from lab.netns_events import LinkChanges
from lab.netns_host import (
    NAMESPACES,
    batch,
    check_host,
    ethernet_bytes,
    furnish,
    has_netem,
    make,
    remove,
    sweep,
    this_owner,
)
from lab.netns_plan import UDP_PORT, Plan, emulator_settings, weathered
from lab.progress import Watcher
from lab.scenario import Scenario

EMULATOR_VARIABLE: Final = "ARBORCAST_LINKEMU"
ANYWHERE: Final = "0.0.0.0"  # noqa: S104 - inside a namespace of the lab's own

_runs = itertools.count(1)


class NetnsSystem(LoopbackSystem):
    """A server and agents in namespaces of their own, over shaped links.

    Attributes:
        plan: Names and addresses.
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
        self._changes = LinkChanges(self.plan, self.emulated)
        self._emulators = {link: self._emulator(emulator, link) for link in self.emulated if emulator is not None}
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
        make(self.plan, self.emulated)
        for emulator in self._emulators.values():
            await emulator.start()
        furnish(self.plan, self.emulated)
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
            remove(self.plan.namespaces)

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

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor time that each process used so far, in seconds."""
        return super().cpu_seconds() | {emulator.name: emulator.cpu_seconds() for emulator in self._emulators.values()}

    def _server_command(self, port: int) -> list[str]:
        arguments = [*server_arguments(self.folder, port, ANYWHERE), "--insecure-http"]
        return self.plan.inside(self.plan.server, arguments)

    def _agent_command(self, device: DeviceId) -> list[str]:
        server, _ = self.plan.control_network(device)
        url = str(httpx.URL(self.url).copy_with(host=server))
        arguments = agent_arguments(self.scenario, device, self.folder, url, f"{ANYWHERE}:{UDP_PORT}")
        return self.plan.inside(self.plan.namespace(device), [*arguments, *self.plan.peer_options(device)])

    def _reached(self, url: str) -> str:
        return str(httpx.URL(url).copy_with(host=self.plan.lab_network[0])).rstrip("/")

    def _emulator(self, program: Path, link: LinkKey) -> Emulator:
        interface = self.plan.interface(link)
        settings = emulator_settings(self.plan.scenario.links[link])
        seed = self.plan.scenario.seed + self.plan.run + list(self.plan.scenario.links).index(link)
        ends = [f"{NAMESPACES / self.plan.namespace(device)}:{interface}" for device in link]
        options = [f"seed:{seed}", f"tick:{TICK_US}", f"ab:{settings}", f"ba:{settings}"]
        return Emulator(f"emulator {'-'.join(link)}", [str(program.absolute()), *ends, *options])


def check_netns(scenario: Scenario, emulator: Path | None) -> tuple[LinkKey, ...]:
    """Make sure that this host and this backend can do what a scenario wants.

    Args:
        scenario: What is wanted.
        emulator: The program for links with delay or loss, if the user named one.

    Returns:
        The links that the emulator has to carry.

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
    weather = weathered(scenario)
    if not weather or has_netem():
        return ()
    if emulator is None:
        raise ConfigError(
            f"link {'-'.join(weather[0])} delays or loses frames, or comes to do so, and this kernel has no tc netem;"
            f" name a link emulator with --emulator or {EMULATOR_VARIABLE}, or give the link a delay of 0ms and no loss"
        )
    if not (emulator.is_file() and os.access(emulator, os.X_OK)):
        raise ConfigError(f"the link emulator {emulator} is no program that can be run")
    return weather
