"""The real system in containers: one for the server, one for each device, and a network for each link.

Theory of operation. A compose file is written for the scenario, and compose makes its networks and containers; the lab
then starts and stops the containers one by one, as the other backends do their processes. Nothing shapes the links, so
the scenario's figures are declared to the agents. How to reach their peers they find out by themselves. All of it is
taken down at the end, however the run ends; what a killed run left is swept away by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from common.errors import ConfigError
from common.ids import DeviceId, LinkKey
from lab.compose_engine import Engine, EngineRefused, find_engine
from lab.compose_plan import JOIN_TOKEN, SERVER_PORT, ComposePlan, project_of, written
from lab.happenings import Happening, Verb
from lab.loopback import GROUP, LoopbackSystem
from lab.netns_host import this_owner
from lab.processes import Child, cpu_seconds_of
from lab.progress import Watcher
from lab.scenario import Scenario

COMPOSE_FILE: Final = "docker-compose.json"

_runs = itertools.count(1)


class Container(Child):
    """A container that compose made; its own process is the one that counts, the child is ``docker`` attached to it."""

    def __init__(self, engine: Engine, container: str, name: str, folder: Path) -> None:
        """Describe a container.

        Args:
            engine: Where it is.
            container: Its name there.
            name: For messages.
            folder: Where its log goes and its ready file appears.
        """
        self._engine = engine
        self._container = container
        super().__init__(name, engine.attach_command(container), folder)

    def start_with(self, arguments: Sequence[str]) -> None:
        """Take nothing: what runs in a container was settled when it was made."""
        del arguments
        self._arguments = self._engine.attach_command(self._container)

    @property
    def pid(self) -> int | None:
        """The number of the container's first process; None when it does not run."""
        return None if super().pid is None else self._engine.pid(self._container)

    def cpu_seconds(self) -> float:
        """Return the processor time that the container's first process used so far, in seconds."""
        pid = self.pid
        return 0.0 if pid is None else cpu_seconds_of(pid)

    def send_signal(self, how: signal.Signals) -> None:
        """Send the container's process a signal; if it ends of it, it counts as having ended by itself."""
        if super().pid is not None:
            # What has ended meanwhile cannot be sent one, and need not be.
            with contextlib.suppress(EngineRefused):
                self._engine.run("kill", "--signal", how.name, self._container)


class ComposeSystem(LoopbackSystem):
    """A server and agents in containers, over networks of their own.

    Attributes:
        engine: What runs them.
        plan: Names and addresses.
    """

    backend: ClassVar[str] = "compose"
    changes_links: ClassVar[bool] = True

    def __init__(
        self, scenario: Scenario, folder: Path, watcher: Watcher, *, file: Path, source: DeviceId, engine: Engine
    ) -> None:
        """Plan the system.

        Args:
            scenario: Devices, links, channels.
            folder: An empty folder with a short path.
            watcher: Is told how it goes.
            file: What is going to be sent.
            source: Who sends it.
            engine: Where to run it.

        Raises:
            ConfigError: This backend cannot do what the scenario wants.
            EngineRefused: The engine does not answer.
        """
        refuse_for_compose(scenario)
        self.engine = engine
        for left in engine.sweep():
            watcher.say(f"swept away {left}, a run that did not end")
        self.plan = ComposePlan(scenario, project_of(this_owner(), next(_runs)), engine.subnets())
        self._sent = {source: file.resolve()}
        super().__init__(scenario, folder, watcher)

    async def start(self) -> None:
        """Make networks and containers, then start the server and all agents in them.

        Raises:
            EngineRefused: A container or a network could not be made or reached.
            ChildDied: A container ended or was not ready in time.
            ConnectError: The server refused a channel.
        """
        for device in self.scenario.devices:
            (self.folder / device).mkdir(exist_ok=True)
        document = self.plan.document(self.folder, user=f"{os.geteuid()}:{os.getegid()}", sent=self._sent)
        (self.folder / COMPOSE_FILE).write_text(written(document), encoding="utf-8")
        await asyncio.to_thread(self._make)
        await super().start()

    async def stop(self) -> None:
        """Stop everything that runs, and take containers and networks down."""
        try:
            await super().stop()
        finally:
            file = self.folder / COMPOSE_FILE
            if file.exists():
                await asyncio.to_thread(self.engine.remove, self.plan.project, file)

    async def happen(self, happening: Happening) -> None:
        """Cut or restore a link, or kill or start a container.

        Raises:
            ChildDied: A container that was started was not ready in time.
            EngineRefused: The engine did not do it.
        """
        if happening.link is None:
            await super().happen(happening)
            if happening.device is None and happening.verb is Verb.START:
                # A port that any free one was taken for is another one now.
                self.url = self._reached(self.url)
            return
        self._watcher.say(str(happening))
        await asyncio.gather(
            *(asyncio.to_thread(self._connect, happening, happening.link, device) for device in happening.link)
        )

    def ethernet_bytes(self) -> dict[LinkKey, tuple[int, int]]:
        """Return the bytes that the interfaces at both ends of each link sent so far, as their kernel counts them.

        Empty where something happens meanwhile: an interface that comes back begins at 0.
        """
        if self.scenario.happenings:
            return {}
        counted: dict[str | None, int] = {}
        for device in self.scenario.devices:
            # A container that died by itself is told elsewhere.
            with contextlib.suppress(EngineRefused):
                counted.update(self.engine.sent_bytes(self.plan.container(device)))

        def sent(link: LinkKey, device: DeviceId) -> int:
            return counted.get(self.plan.end(link, device).address, 0)

        return {link: (sent(link, link[0]), sent(link, link[1])) for link in self.scenario.links}

    def _make(self) -> None:
        """Have compose make everything, and join what it has not joined: old ones do that only when they start it."""
        self.engine.make(self.plan.project, self.folder / COMPOSE_FILE)
        for device in (None, *self.scenario.devices):
            container = self.plan.container(device)
            joined = self.engine.networks(container)
            for member in self.plan.members(device):
                if self.plan.called(member.network) not in joined:
                    self.engine.connect(self.plan.called(member.network), container, member.address)

    def _connect(self, happening: Happening, link: LinkKey, device: DeviceId) -> None:
        member, container = self.plan.end(link, device), self.plan.container(device)
        network = self.plan.called(member.network)
        if happening.verb is Verb.CUT:
            self.engine.run("network", "disconnect", network, container)
        else:
            self.engine.connect(network, container, member.address)

    def _child(self, device: DeviceId | None) -> Child:
        if device is None:
            return Container(self.engine, self.plan.container(None), "server", self.folder / "server")
        # The server has made it by now, and an agent sees no folder but its own.
        token = self.admin_token_file.parent / f"join-token-{GROUP}"
        shutil.copy(token, self.folder / device / JOIN_TOKEN)
        return Container(self.engine, self.plan.container(device), f"agent {device}", self.folder / device)

    def _reached(self, url: str) -> str:
        del url
        return f"http://127.0.0.1:{self.engine.port(self.plan.container(None), SERVER_PORT)}"


def check_compose(scenario: Scenario) -> Engine:
    """Make sure that this host and this backend can do what a scenario wants.

    Returns:
        The engine that answers.

    Raises:
        ConfigError: They cannot; one sentence says why.
    """
    refuse_for_compose(scenario)
    engine = find_engine()
    engine.check_images()
    return engine


def refuse_for_compose(scenario: Scenario) -> None:
    """Refuse what cannot happen to containers' networks.

    Raises:
        ConfigError: The scenario degrades a link, or has devices on the internet.
    """
    if scenario.internet:
        raise ConfigError(
            f"device {min(scenario.internet)} is on the internet, and the compose backend has no NATs;"
            " run the scenario with --backend sim or netns"
        )
    for happening in scenario.happenings:
        if happening.verb is Verb.DEGRADE:
            raise ConfigError(
                f'the compose backend cannot do "{happening}": nothing shapes its networks;'
                " run the scenario with --backend sim or netns"
            )
