"""The real system in containers: one for the server, one for each device, by docker compose.

Every link is a network of its own, and so is every device's way to the server, which carries no data (``--deny``):
containers reach none but those they share a network with. State, sockets and received files are in the run's folder,
which is the same in every container, so the lab reads them where they are. Nothing is shaped. All is taken down at
the end, however the run ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from common.errors import ConfigError
from common.ids import DeviceId
from lab.compose_engine import Engine, EngineRefused, find_engine
from lab.compose_file import SERVER, SERVER_PORT, ComposePlan
from lab.happenings import Happening, Verb
from lab.loopback import LoopbackSystem, agent_arguments, server_arguments
from lab.processes import Child
from lab.progress import Watcher
from lab.scenario import Scenario

PREFIX_VARIABLE: Final = "ARBORCAST_LAB_NET"
PREFIX: Final = "10.214"
IMAGES: Final = ("arborcast-server", "arborcast-agent")
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - inside a container


class Container(Child):
    """A container of the project that the lab starts and waits for as for a process of its own.

    The process is the one that follows its log, which ends with the container.

    Args:
        engine: The engine.
        up: Starts it, with its networks.
        container: Its name.
        name: For messages.
        folder: Where its log and its ready file go.
    """

    def __init__(self, engine: Engine, up: Callable[[], None], container: str, name: str, folder: Path) -> None:
        self._engine = engine
        self._up = up
        self._container = container
        super().__init__(name, [*engine.docker, "logs", "--follow", container], folder)

    async def start(self) -> None:
        """Start the container."""
        self._ready.unlink(missing_ok=True)
        await asyncio.to_thread(self._up)
        await self._spawn()

    def start_with(self, arguments: Sequence[str]) -> None:
        """Take other arguments; the ready file is named in the container's own command."""
        self._arguments = list(arguments)

    async def _end(self, how: signal.Signals) -> None:
        self.running = False
        if self._process is not None and self._process.returncode is None:
            await asyncio.to_thread(_quietly, self._engine, "kill", "--signal", how.name, self._container)
            await self._process.wait()


class ComposeSystem(LoopbackSystem):
    """A server and agents in containers, each link a network."""

    backend: ClassVar[str] = "compose"
    changes_links: ClassVar[bool] = True

    def __init__(self, scenario: Scenario, folder: Path, watcher: Watcher, *, engine: Engine | None = None) -> None:
        """Plan the system.

        Args:
            scenario: Devices, links, channels.
            folder: An empty folder with a short path.
            watcher: Is told how it goes.
            engine: The container engine; None for the one that answers.

        Raises:
            ConfigError: No engine answers, the images are missing, or the scenario wants what it cannot do.
        """
        self._engine = engine or check_compose(scenario)
        prefix = os.environ.get(PREFIX_VARIABLE, PREFIX)
        self.plan = ComposePlan(scenario, f"arborcast-lab-{os.getpid()}", prefix)
        self._file = folder / "docker-compose.json"
        super().__init__(scenario, folder, watcher)

    async def start(self) -> None:
        """Make networks and containers, then start the server and all agents.

        Raises:
            EngineRefused: A network or a container could not be made.
            ChildDied: A container ended or was not ready in time.
            ConnectError: The server refused a channel.
        """
        for name in (SERVER, *self.scenario.devices):
            (self.folder / name).mkdir(exist_ok=True)
        body = self.plan.file(
            server_command=[*self._server_command(SERVER_PORT), "--ready-file", str(self._ready_file(SERVER))],
            agent_commands={
                device: [*self._agent_command(device), "--ready-file", str(self._ready_file(device))]
                for device in self.scenario.devices
            },
            folder=self.folder,
            user=f"{os.getuid()}:{os.getgid()}",
        )
        self._file.write_text(json.dumps(body, indent=1))
        await asyncio.to_thread(self._compose, "up", "--no-start")
        await super().start()

    async def stop(self) -> None:
        """Stop everything that runs, and take containers and networks down."""
        try:
            await super().stop()
        finally:
            if self._file.exists():
                await asyncio.to_thread(self._compose, "down", "--timeout", "5")

    async def happen(self, happening: Happening) -> None:
        """Let one thing happen to a container, or take a container off a link's network and back.

        Raises:
            ChildDied: A container that was started was not ready in time.
            EngineRefused: The network could not be changed.
        """
        if happening.link is None:
            await super().happen(happening)
            return
        self._watcher.say(str(happening))
        verb = "disconnect" if happening.verb is Verb.CUT else "connect"
        arguments = (self.plan.network(happening.link), self.plan.container(happening.link[0]))
        await asyncio.to_thread(self._engine.run, "network", verb, *arguments)

    def _child(self, name: str, arguments: list[str], folder: Path) -> Child:
        del arguments  # they stand in the compose file
        service = folder.name

        def up() -> None:
            self._compose("up", "--detach", "--no-deps", "--no-recreate", service)

        return Container(self._engine, up, self.plan.container(service), name, folder)

    def _compose(self, *arguments: str) -> None:
        self._engine.run_compose("-p", self.plan.project, "-f", str(self._file), *arguments)

    def _ready_file(self, name: str) -> Path:
        return self.folder / name / "ready.json"

    def _server_command(self, port: int) -> list[str]:
        arguments = server_arguments(self.folder, port or SERVER_PORT, _EVERYWHERE)
        return [*_in_image(arguments, "arborcast-server"), "--insecure-http", "--no-stun"]

    def _agent_command(self, device: DeviceId) -> list[str]:
        url = f"http://{self.plan.server_address(device)}:{SERVER_PORT}"
        arguments = agent_arguments(self.scenario, device, self.folder, url, f"{_EVERYWHERE}:0")
        options = ["--insecure-http", "--stun", "off", "--deny", self.plan.denied]
        return [*_in_image(arguments, "arborcast"), *options]

    def _reached(self, url: str) -> str:
        del url  # what it listens on inside of its container
        return f"http://{self.plan.server_address(self.scenario.devices[0])}:{SERVER_PORT}"


def check_compose(scenario: Scenario) -> Engine:
    """Make sure that this host and this backend can do what a scenario wants.

    Returns:
        The engine.

    Raises:
        ConfigError: They cannot; one sentence says why.
    """
    for happening in scenario.happenings:
        if happening.verb is Verb.DEGRADE:
            raise ConfigError(
                f'the compose backend cannot do "{happening}": nothing shapes its networks;'
                " run the scenario with --backend sim or netns"
            )
    engine = find_engine()
    for image in IMAGES:
        try:
            engine.run("image", "inspect", image)
        except EngineRefused as error:
            raise ConfigError(f"there is no image {image}; build it with `docker compose build`") from error
    return engine


def _in_image(arguments: list[str], program: str) -> list[str]:
    """Replace this interpreter and its module by the program of the image."""
    return [program, *arguments[3:]]


def _quietly(engine: Engine, *arguments: str) -> None:
    try:
        engine.run(*arguments)
    except EngineRefused:
        return  # it has ended by itself meanwhile
