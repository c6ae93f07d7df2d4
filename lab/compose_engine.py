"""The container engine of this host: which commands reach it, and what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from common.errors import ArborcastError, ConfigError

COMPOSE_VARIABLE: Final = "ARBORCAST_COMPOSE"
"""Environment variable that names the compose command, where it is not found by itself."""
ANSWER_S: Final = 10.0
COMMAND_S: Final = 120.0


class EngineRefused(ArborcastError):
    """A command of the engine failed; the text holds what it said."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The commands that reach the engine.

    Attributes:
        docker: The client.
        compose: The compose command: ``docker compose``, or ``docker-compose`` of old.
    """

    docker: tuple[str, ...]
    compose: tuple[str, ...]

    def run(self, *arguments: str, within: float = COMMAND_S) -> str:
        """Run a command of the client and return what it printed.

        Raises:
            EngineRefused: It failed, or took too long.
        """
        return _run([*self.docker, *arguments], within)

    def run_compose(self, *arguments: str, within: float = COMMAND_S) -> str:
        """Run a compose command and return what it printed.

        Raises:
            EngineRefused: It failed, or took too long.
        """
        return _run([*self.compose, *arguments], within)


def find_engine() -> Engine:
    """Find the engine that answers.

    Raises:
        ConfigError: None does, or there is no compose; one sentence says which.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise ConfigError("no container engine: there is no command docker on this host")
    try:
        _run([docker, "version", "--format", "{{.Server.Version}}"], ANSWER_S)
    except EngineRefused as error:
        raise ConfigError(f"no container engine answers: {error}") from error
    named = os.environ.get(COMPOSE_VARIABLE, "").split()
    for compose in (named, [docker, "compose"], ["docker-compose"]):
        try:
            if compose:
                _run([*compose, "version"], ANSWER_S)
                return Engine((docker,), tuple(compose))
        except EngineRefused:
            continue
    raise ConfigError("the container engine answers, but there is neither `docker compose` nor `docker-compose`")


def _run(command: Sequence[str], within: float) -> str:
    # A session of its own: Ctrl-C is for the lab, which then takes everything down in order.
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=within, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineRefused(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise EngineRefused(f"{' '.join(command)}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout
