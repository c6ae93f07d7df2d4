"""What the compose backend asks of a container engine: ``docker`` and compose, found and called; refusals are told."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from common.errors import ArborcastError, ConfigError
from lab.compose_plan import AGENT_IMAGE, SERVER_IMAGE, Subnet, owner_of_project
from lab.netns_host import started_at

COMMAND_S: Final = 60.0
UP_S: Final = 180.0
DOWN_S: Final = 120.0
LOCAL: Final = "unix://"
COMPOSE_VARIABLE: Final = "ARBORCAST_COMPOSE"
"""Environment variable that names the compose program, where it is not the one that is found by itself."""
PROJECT_LABEL: Final = "com.docker.compose.project"
# Run inside a container: by each of its addresses, the bytes that its interface sent so far.
_COUNT: Final = (
    "import json, psutil; counted = psutil.net_io_counters(pernic=True); "
    "print(json.dumps({address.address: counted[name].bytes_sent"
    " for name, addresses in psutil.net_if_addrs().items() for address in addresses if address.family == 2}))"
)


class EngineRefused(ArborcastError):
    """A command of ``docker`` or of compose failed; the text holds what it said."""


class Engine:
    """A container engine of this host.

    Attributes:
        docker: The program that speaks to it.
        compose: The program that reads compose files, old or new, with what precedes its own arguments.
    """

    def __init__(self, docker: str, compose: Sequence[str]) -> None:
        """Take the two programs."""
        self.docker = docker
        self.compose = tuple(compose)

    def run(self, *arguments: str, within: float = COMMAND_S) -> str:
        """Run ``docker``.

        Returns:
            What it printed.

        Raises:
            EngineRefused: It failed or took too long.
        """
        return run([self.docker, *arguments], within=within)

    def run_compose(self, *arguments: str, within: float = COMMAND_S) -> str:
        """Run compose.

        Returns:
            What it printed.

        Raises:
            EngineRefused: It failed or took too long.
        """
        return run([*self.compose, *arguments], within=within)

    def check_images(self) -> None:
        """Make sure that the images are there.

        Raises:
            ConfigError: One is not.
        """
        for image in (SERVER_IMAGE, AGENT_IMAGE):
            try:
                self.run("image", "inspect", "--format", "{{.Id}}", image)
            except EngineRefused as error:
                raise ConfigError(f"the engine has no image {image}; make it with: make images") from error

    def make(self, project: str, file: Path) -> None:
        """Make the networks and containers of a compose file, and start none.

        Raises:
            EngineRefused: Something could not be made; what was made before it is there.
        """
        self.run_compose("-p", project, "-f", str(file), "up", "--no-start", within=UP_S)

    def networks(self, container: str) -> list[str]:
        """Return the networks that a container has been given.

        Raises:
            EngineRefused: There is no such container.
        """
        form = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
        return self.run("inspect", "--format", form, container).split()

    def connect(self, network: str, container: str, address: str | None) -> None:
        """Give a container a network, with an address of ours or with any.

        Raises:
            EngineRefused: It could not be given.
        """
        chosen = [] if address is None else ["--ip", address]
        self.run("network", "connect", *chosen, network, container)

    def remove(self, project: str, file: Path) -> None:
        """Remove everything that a compose file made.

        Raises:
            EngineRefused: It could not be removed.
        """
        self.run_compose("-p", project, "-f", str(file), "down", "--volumes", "--timeout", "1", within=DOWN_S)

    def attach_command(self, container: str) -> list[str]:
        """Return a command line that starts a container, writes what it says, and ends as it does."""
        return [self.docker, "start", "--attach", container]

    def port(self, container: str, port: int) -> int:
        """Return the port of this host at which a container's port is published.

        Raises:
            EngineRefused: It is not.
        """
        said = self.run("port", container, f"{port}/tcp")
        number = said.splitlines()[0].rpartition(":")[2] if said else ""
        if not number.isdigit():
            raise EngineRefused(f"port {port} of the container {container} is not published")
        return int(number)

    def pid(self, container: str) -> int | None:
        """Return the number of a container's first process; None if it does not run."""
        try:
            said = self.run("inspect", "--format", "{{.State.Pid}}", container).strip()
        except EngineRefused:
            return None
        return int(said) if said.isdigit() and said != "0" else None

    def sent_bytes(self, container: str) -> dict[str, int]:
        """Return the bytes that a container's interfaces sent so far, by address.

        Raises:
            EngineRefused: It does not run.
        """
        counted: dict[str, int] = json.loads(self.run("exec", container, "python3", "-c", _COUNT))
        return counted

    def subnets(self) -> list[Subnet]:
        """Return the IPv4 networks that the engine has.

        Raises:
            EngineRefused: The engine does not answer.
        """
        networks = self.run("network", "ls", "--quiet").split()
        if not networks:
            return []
        form = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
        found = map(ipaddress.ip_network, self.run("network", "inspect", "--format", form, *networks).split())
        return [network for network in found if isinstance(network, Subnet)]

    def sweep(self) -> list[str]:
        """Take away what labs left that did not come to their end.

        Returns:
            Their projects.

        Raises:
            EngineRefused: Something could not be removed.
        """
        form = f'{{{{.Label "{PROJECT_LABEL}"}}}}'
        said = self.run("ps", "--all", "--format", form) + self.run("network", "ls", "--format", form)
        left = sorted({project for project in said.split() if _is_left(project)})
        for project in left:
            chosen = f"label={PROJECT_LABEL}={project}"
            self._remove_all(("rm", "--force", "--volumes"), self.run("ps", "--all", "--quiet", "--filter", chosen))
            self._remove_all(("network", "rm"), self.run("network", "ls", "--quiet", "--filter", chosen))
        return left

    def _remove_all(self, how: Iterable[str], listed: str) -> None:
        if listed.split():
            self.run(*how, *listed.split())


def find_engine() -> Engine:
    """Find an engine that answers, and compose.

    Returns:
        The engine.

    Raises:
        ConfigError: Something is missing; one sentence says what.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise ConfigError("the compose backend runs containers, and there is no program docker on the PATH")
    host = os.environ.get("DOCKER_HOST", LOCAL)
    if not host.startswith(LOCAL):
        raise ConfigError(
            f"the compose backend shares folders with its containers, so the engine has to be on this host; DOCKER_HOST"
            f" says {host}"
        )
    try:
        run([docker, "version", "--format", "{{.Server.Version}}"], within=COMMAND_S)
    except EngineRefused as error:
        raise ConfigError(f"the compose backend runs containers, and no engine answers: {error}") from error
    return Engine(docker, _find_compose(docker))


def run(command: Sequence[str], *, within: float) -> str:
    """Run a command.

    Args:
        command: A program and its arguments.
        within: Seconds before giving up.

    Returns:
        What it printed.

    Raises:
        EngineRefused: It failed or took too long.
    """
    called = " ".join(command[:3])
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EngineRefused(f"`{called}` did not end within {within:g} s") from error
    except OSError as error:
        raise EngineRefused(f"cannot run `{called}`: {error}") from error
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise EngineRefused(said[-1] if said else f"`{called}` ended with exit code {done.returncode}")
    return done.stdout


def _find_compose(docker: str) -> tuple[str, ...]:
    named = tuple(os.environ.get(COMPOSE_VARIABLE, "").split())
    if named:
        return named
    try:
        run([docker, "compose", "version"], within=COMMAND_S)
    except EngineRefused:
        standing_alone = shutil.which("docker-compose")
        if standing_alone is None:
            raise ConfigError(
                "the compose backend needs compose: neither `docker compose` nor `docker-compose` is here"
            ) from None
        return (standing_alone,)
    return docker, "compose"


def _is_left(project: str) -> bool:
    owner = owner_of_project(project)
    return owner is not None and started_at(owner.pid) != owner.started
