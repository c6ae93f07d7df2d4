"""The compose lab of docker-compose.yml, driven from outside: by compose, by docker, and over its published port."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

ROOT: Final = Path(__file__).parents[2]
DEVICES: Final = ("a", "b", "c", "d", "e", "f")
LINKS: Final = ("ab", "ac", "bc", "be", "cd", "df")
COMPOSE_VARIABLE: Final = "ARBORCAST_COMPOSE"
"""Names the compose program, where it is not on the PATH or not the first one there."""
NAMESPACE_VARIABLE: Final = "ARBORCAST_ENGINE_NAMESPACE"
"""Names the network namespace of the engine, where that is not this one: published ports are there."""
COMMAND_S: Final = 120.0
UP_S: Final = 600.0
LOOK_S: Final = 0.3
# Run in a container: by each of its addresses, the bytes that its interface sent and received so far.
_COUNT: Final = (
    "import json, psutil; counted = psutil.net_io_counters(pernic=True); print(json.dumps({address.address: "
    "[counted[name].bytes_sent, counted[name].bytes_recv]"
    " for name, addresses in psutil.net_if_addrs().items() for address in addresses if address.family == 2}))"
)

_T = TypeVar("_T")


class Failed(AssertionError):
    """A command failed; the text holds what it said."""


def call(command: Sequence[str], *, within: float = COMMAND_S, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed; fail with what it said."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def until(found: Callable[[], _T | None], what: str, *, within: float = COMMAND_S) -> _T:
    """Ask until there is an answer that is not None, and fail if there never is."""
    end = time.monotonic() + within
    while True:
        answer = found()
        if answer is not None:
            return answer
        if time.monotonic() > end:
            raise Failed(f"not within {within:g} s: {what}")
        time.sleep(LOOK_S)


def compose_program() -> list[str] | None:
    """Return the compose that is here: the one that is named, the new one or the old one."""
    named = os.environ.get(COMPOSE_VARIABLE)
    if named:
        return named.split()
    for program in (["docker", "compose"], ["docker-compose"]):
        try:
            call([*program, "version"])
        except (OSError, Failed):
            continue
        return program
    return None


def why_not() -> str:
    """Return why the compose lab cannot be run here; nothing if it can."""
    if shutil.which("docker") is None:
        return "there is no docker program here"
    try:
        call(["docker", "version", "--format", "{{.Server.Version}}"])
    except Failed as error:
        return f"no Docker engine answers: {str(error).splitlines()[-1]}"
    if compose_program() is None:
        return "there is neither `docker compose` nor `docker-compose` here"
    return ""


def in_namespace(command: Sequence[str]) -> list[str]:
    """Return a command as it runs where published ports can be reached."""
    namespace = os.environ.get(NAMESPACE_VARIABLE)
    return [*(["nsenter", f"--net={namespace}"] if namespace else []), *command]


def free_port() -> int:
    """Return a TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ComposedLab:
    """The lab under a project name, addresses and a port of its own, so that one that is up stays as it is."""

    def __init__(
        self, files: Sequence[str] = ("docker-compose.yml",), *, network: str, port: int | None = None
    ) -> None:
        """Name it; nothing is started.

        Args:
            files: The compose files.
            network: The first half of all addresses.
            port: Of this host, for the REST interface; None for a free one.
        """
        program = compose_program()
        assert program is not None
        self.project = f"arborcast-test-{os.getpid()}-{network.replace('.', '-')}"
        self.port = port or free_port()
        self.env = {"ARBORCAST_PORT": str(self.port), "ARBORCAST_NET": network}
        self._compose = [*program, "-p", self.project, *(part for file in files for part in ("-f", file))]
        self._containers: dict[str, str] = {}

    def compose(self, *arguments: str, within: float = COMMAND_S) -> str:
        """Run compose."""
        return call([*self._compose, *arguments], within=within, env=self.env)

    def docker(self, *arguments: str) -> str:
        """Run docker."""
        return call(["docker", *arguments]).strip()

    def up(self) -> None:
        """Build what has to be built, start everything, and wait until every device has a graph with all of them."""
        self.compose("up", "--build", "--detach", within=UP_S)
        self.settled()

    def down(self) -> None:
        """Take everything away, the volumes too."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")

    def logs(self) -> str:
        """Return what everything said last."""
        return self.compose("logs", "--tail", "20")

    def container(self, service: str) -> str:
        """Return the id of a service's container, also while it does not run."""
        if service not in self._containers:
            # By label: compose tells of none that does not run.
            chosen = [f"label=com.docker.compose.{key}" for key in (f"project={self.project}", f"service={service}")]
            options = [part for label in chosen for part in ("--filter", label)]
            self._containers[service] = self.docker("ps", "--all", "--quiet", *options)
        return self._containers[service]

    def execute(self, service: str, *command: str, within: float = COMMAND_S) -> str:
        """Run a command in a service's container."""
        return call(["docker", "exec", self.container(service), *command], within=within)

    def python(self, service: str, code: str, *arguments: str) -> str:
        """Run Python in a service's container."""
        return self.execute(service, "python3", "-c", code, *arguments)

    def status(self, device: str) -> dict[str, Any]:
        """Return an agent's status."""
        shown: dict[str, Any] = json.loads(self.execute(device, "arborcast", "status", "--json"))
        return shown

    def addresses(self, service: str) -> dict[str, str]:
        """Return a container's addresses by network."""
        form = "{{json .NetworkSettings.Networks}}"
        networks = json.loads(self.docker("inspect", "--format", form, self.container(service)))
        return {name.removeprefix(f"{self.project}_"): found["IPAddress"] for name, found in networks.items()}

    def counted(self, device: str) -> dict[str, tuple[int, int]]:
        """Return what the kernel counted on each of a device's networks: bytes sent and received."""
        by_address = json.loads(self.python(device, _COUNT))
        return {
            network: (by_address[address][0], by_address[address][1])
            for network, address in self.addresses(device).items()
            if address in by_address
        }

    def graph(self) -> dict[str, Any]:
        """Return the graph by the README's curl line, with the reader's token."""
        token = self.execute("server", "cat", "/var/lib/arborcast/read-token").strip()
        certificate = self.execute("server", "cat", "/var/lib/arborcast/tls-cert.pem")
        line = 'curl -sS --fail --noproxy "*" --cacert <(echo "$1") -H "Authorization: Bearer $2" "$3"'
        url = f"https://127.0.0.1:{self.port}/v1/groups/lab/graph"
        shown: dict[str, Any] = json.loads(call(in_namespace(["bash", "-c", line, "-", certificate, token, url])))
        return shown

    def settled(self, devices: Sequence[str] = DEVICES) -> dict[str, Any]:
        """Wait until the graph holds some devices in one piece and the others, if members, alone; return it."""
        names = [device.upper() for device in devices]

        def found() -> dict[str, Any] | None:
            try:
                graph = self.graph()
            except Failed:
                return None
            pieces = [tree["components"] for tree in graph["trees"]]
            alone = [[device] for device in graph["devices"] if device not in names]
            return graph if pieces and all(sorted(p) == sorted([names, *alone]) for p in pieces) else None

        return until(found, f"a graph over {', '.join(names)}\n{self.logs()}")

    def make_file(self, device: str, name: str, size_bytes: int) -> str:
        """Make a file of random bytes in a device's state folder, and return its SHA-256."""
        self.execute(device, "sh", "-c", f"head -c {size_bytes} /dev/urandom > /var/lib/arborcast/{name}")
        return self._hash(device, f"/var/lib/arborcast/{name}")

    def received(self, device: str, name: str) -> str | None:
        """Return the SHA-256 of a file that a device received; None while it has not."""
        try:
            return self._hash(device, f"/var/lib/arborcast/received/{name}")
        except Failed:
            return None

    def send(self, device: str, name: str, *options: str, within: float = COMMAND_S) -> dict[str, Any]:
        """Send a file, and return how it ended."""
        said = self.execute(
            device, "arborcast", "send", f"/var/lib/arborcast/{name}", "--json", *options, within=within
        )
        told: dict[str, Any] = json.loads(said)
        return told

    def _hash(self, device: str, path: str) -> str:
        return self.execute(device, "sha256sum", path).split()[0]
