"""The lab of docker-compose.yml, as the tests drive it."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from lab.compose_engine import Engine, EngineRefused

ROOT: Final = Path(__file__).parents[2]
DEVICES: Final = "ABCDEF"
LINKS: Final = ("A-B", "A-C", "B-C", "B-E", "C-D", "D-F")
PREFIX: Final = "10.215"
PORT: Final = 18_640
LOOK_S: Final = 0.5
_COUNTERS: Final = """
import json, psutil
counted = psutil.net_io_counters(pernic=True)
found = {}
for name, addresses in psutil.net_if_addrs().items():
    for each in addresses:
        if each.family.name == "AF_INET":
            found[each.address] = [counted[name].bytes_sent, counted[name].bytes_recv]
print(json.dumps(found))
"""
_LISTEN: Final = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
    udp.bind(("0.0.0.0", 9999))
    tcp.bind(("0.0.0.0", 9999))
    tcp.listen()
    print("listening", flush=True)
    for kind, waiting, take in (("UDP", udp, udp.recv), ("TCP", tcp, lambda _: tcp.accept())):
        waiting.settimeout(6)
        try:
            take(9)
            print(kind, flush=True)
        except TimeoutError:
            pass
"""
_SPEAK: Final = """
import socket, sys
for host in sys.argv[1:]:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.settimeout(1)
            try:
                probe.connect((host, 9999))
                probe.send(b"hello")
            except OSError:
                pass
"""


class SixHosts:
    """The compose lab.

    Args:
        engine: The engine.
        enter: What has to stand before a command that reaches published ports.
        folder: For what is fetched out of containers.
    """

    def __init__(self, engine: Engine, enter: Sequence[str], folder: Path) -> None:
        self.engine = engine
        self.project = f"arborcasttest{os.getpid()}"
        self._enter = list(enter)
        self._folder = folder
        os.environ |= {"ARBORCAST_NET": PREFIX, "ARBORCAST_PORT": str(PORT)}
        self._files = ["-p", self.project, "-f", str(ROOT / "docker-compose.yml")]

    # --- compose --------------------------------------------------------------------------------------------------

    def compose(self, *arguments: str, within: float = 120.0, shaped: bool = False) -> str:
        """Run a compose command on the lab."""
        more = ["-f", str(ROOT / "docker-compose.shaped.yml")] if shaped else []
        return self.engine.run_compose(*self._files, *more, *arguments, within=within)

    def up(self, *services: str) -> None:
        """Bring the lab up, or some of it."""
        self.compose("up", "--detach", *services, within=240.0)
        if not services:
            self.until("every agent answers", lambda: all(self.answers(name) for name in DEVICES))
            self.until("one tree spans all", lambda: self.graph()["trees"][0]["components"] == [list(DEVICES)])

    def down(self) -> None:
        """Take everything down, state included."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")

    def container(self, device: str) -> str:
        """Return the container of a device, or of the server."""
        return self.compose("ps", "--quiet", device.lower()).strip()

    def inside(self, device: str, *command: str, within: float = 120.0) -> str:
        """Run a command in a device's container, or the server's."""
        return self.compose("exec", "-T", device.lower(), *command, within=within)

    def started(self, device: str, *command: str) -> "subprocess.Popen[str]":
        """Start a command in a device's container and leave it to itself."""
        line = [*self.engine.compose, *self._files, "exec", "-T", device.lower(), *command]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def answers(self, device: str) -> bool:
        """Tell whether a device's agent answers."""
        try:
            self.inside(device, "arborcast", "healthy")
        except EngineRefused:
            return False
        return True

    def until(self, what: str, true: Callable[[], bool], within: float = 60.0) -> None:
        """Look now and then until something is so."""
        end = time.monotonic() + within
        while not true():
            assert time.monotonic() < end, f"not within {within} s: {what}"
            time.sleep(LOOK_S)

    # --- files ----------------------------------------------------------------------------------------------------

    def make_file(self, device: str, name: str, mib: int) -> str:
        """Make a file of random bytes on a device; return its SHA-256."""
        path = f"/var/lib/arborcast/{name}"
        self.inside(device, "sh", "-c", f"head -c {mib << 20} /dev/urandom > {path}")
        return self.inside(device, "sha256sum", path).split()[0]

    def received(self, device: str, name: str) -> str:
        """Return the SHA-256 of a received file."""
        return self.inside(device, "sha256sum", f"/var/lib/arborcast/received/{name}").split()[0]

    def arrived(self, device: str, name: str) -> bool:
        """Tell whether a file has its name on a device."""
        try:
            self.inside(device, "test", "-f", f"/var/lib/arborcast/received/{name}")
        except EngineRefused:
            return False
        return True

    def begun(self, device: str, name: str) -> bool:
        """Tell whether some of a file has come to a device."""
        listed = self.inside(device, "arborcast", "status", "--json")
        streams = json.loads(listed)["streams"]
        return any(each["name"] == name and each["held_bytes"] > 0 for each in streams)

    # --- networks -------------------------------------------------------------------------------------------------

    def addresses(self, device: str) -> list[str]:
        """Return the addresses of a container in the networks of links."""
        networks = json.loads(self.engine.run("inspect", self.container(device)))[0]["NetworkSettings"]["Networks"]
        return sorted(
            each["IPAddress"] for name, each in networks.items() if "control" not in name and each["IPAddress"]
        )

    def heard(self, speaker: str, listener: str) -> list[str]:
        """Let one device speak to all addresses of another; return over what that heard it: UDP, TCP, or nothing."""
        listening = self.started(listener, "python3", "-u", "-c", _LISTEN)
        assert listening.stdout is not None
        assert listening.stdout.readline() == "listening\n"
        self.inside(speaker, "python3", "-c", _SPEAK, *self.addresses(listener))
        return listening.communicate(timeout=30)[0].split()

    def counters(self) -> dict[str, tuple[int, int]]:
        """Return the bytes that the kernel counted at each end of each network, sent and received, by address."""
        found: dict[str, tuple[int, int]] = {}
        for device in DEVICES:
            ends = json.loads(self.inside(device, "python3", "-c", _COUNTERS))
            found |= {f"{device} {address}": tuple(counted) for address, counted in ends.items()}
        return found

    # --- the server -----------------------------------------------------------------------------------------------

    def curl(self, resource: str, *options: str, token: str = "read-token") -> str:
        """Ask the server from the host, as the README says: by curl, with its certificate and a token."""
        certificate = self._folder / "cert.pem"
        certificate.write_text(self.inside("server", "cat", "/var/lib/arborcast/tls-cert.pem"))
        secret = self.inside("server", "cat", f"/var/lib/arborcast/{token}").strip()
        line = [*self._enter, "curl", "-sS", "--max-time", "10", "--cacert", str(certificate), *options]
        line += ["-H", f"Authorization: Bearer {secret}", f"https://127.0.0.1:{PORT}{resource}"]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=30).stdout

    def graph(self) -> dict[str, Any]:
        """Return the current graph."""
        found: dict[str, Any] = json.loads(self.curl("/v1/groups/lab/graph"))
        return found

    def edges(self) -> list[tuple[str, str]]:
        """Return the edges of the current tree."""
        return [(a, b) for a, b in self.graph()["trees"][0]["edges"]]
