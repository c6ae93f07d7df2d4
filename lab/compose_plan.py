"""What the compose backend lays out, before anything is made: containers, networks, addresses, the compose file.

One container for the server and one for each device. Each link is a network of its own, and so is each device's way to
the server; none of them leads anywhere else (``internal``), so whatever reaches a peer went over the link's own
network. The server is on one more network, which its REST port is published on. A container finds its folder under the
path that it has on this host, so a path means the same to the lab and to the agents.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.errors import ConfigError
from common.ids import DeviceId, LinkKey
from lab.loopback import agent_options, server_options
from lab.netns_plan import CONTROL_NETWORK, UDP_PORT, Owner
from lab.scenario import Scenario

SERVER_IMAGE: Final = "arborcast-server"
AGENT_IMAGE: Final = "arborcast-agent"
SERVER_PORT: Final = 8640
"""In the server's container; on this host it is any free one."""
ANYWHERE: Final = "0.0.0.0"  # noqa: S104 - inside a container of the lab's own
JOIN_TOKEN: Final = "join-token"  # noqa: S105 - the name of a file
LINK_NETWORK: Final = "198.18.0.0/16"
"""Where links get their addresses: a range set apart for measurements (RFC 2544)."""
OUTSIDE: Final = "outside"
"""The network that the server's REST port is published on."""
MEMORY: Final = "512m"
PROCESSES: Final = 64

_PREFIX_BITS: Final = 29
"""Of one network: an address each for the engine's end of the bridge and for two containers."""
_PROJECT: Final = re.compile(r"arborcast-lab-([0-9]+)-([0-9]+)-[0-9]+")

Subnet = ipaddress.IPv4Network


@dataclass(frozen=True, slots=True)
class Member:
    """A container's place on one network.

    Attributes:
        network: The network's name in the compose file.
        address: Its IPv4 address there; None for any.
    """

    network: str
    address: str | None


class ComposePlan:
    """Names and addresses of one run.

    Attributes:
        project: The compose project, which everything of the run is named after.
        subnets: By network, the links' first; the network of the REST port is not among them.
    """

    def __init__(self, scenario: Scenario, project: str, taken: Iterable[Subnet]) -> None:
        """Lay out a run.

        Args:
            scenario: Devices and links.
            project: A name that no other run has.
            taken: The networks that the engine has already.

        Raises:
            ConfigError: There are no addresses left.
        """
        self.scenario = scenario
        self.project = project
        self._links = {link: f"link{number}" for number, link in enumerate(scenario.links)}
        self._controls = {device: f"control{number}" for number, device in enumerate(scenario.devices)}
        used = tuple(taken)
        links, controls = _free(LINK_NETWORK, used), _free(CONTROL_NETWORK, used)
        self.subnets = {name: _next(links) for name in self._links.values()}
        self.subnets |= {name: _next(controls) for name in self._controls.values()}

    def container(self, device: DeviceId | None) -> str:
        """Return the name of a device's container, or the server's for None."""
        return f"{self.project}-{_service(device)}"

    def called(self, network: str) -> str:
        """Return the engine's name of a network of the compose file."""
        return f"{self.project}_{network}"

    def end(self, link: LinkKey, device: DeviceId) -> Member:
        """Return a device's place on a link."""
        network = self._links[link]
        return Member(network, self._host(network, link.index(device)))

    def members(self, device: DeviceId | None) -> list[Member]:
        """Return where a device's container is, or the server's for None."""
        if device is None:
            return [Member(OUTSIDE, None), *(Member(name, self._host(name, 0)) for name in self._controls.values())]
        control = self._controls[device]
        own = [Member(control, self._host(control, 1))]
        return own + [self.end(link, device) for link in self._links if device in link]

    def document(self, folder: Path, *, user: str, sent: Mapping[DeviceId, Path]) -> dict[str, Any]:
        """Return the compose file, for compose 1.29 and later.

        Args:
            folder: Where everything of the run is; a folder for each container is in it.
            user: ``UID:GID`` of the processes in all containers: the lab's own, for they share files.
            sent: Files outside the folder that devices have to read.
        """
        services = {_service(None): self._server(folder, user)}
        for device in self.scenario.devices:
            services[_service(device)] = self._agent(device, folder, user, sent)
        networks: dict[str, Any] = {
            name: {"internal": True, "ipam": {"config": [{"subnet": str(subnet)}]}}
            for name, subnet in self.subnets.items()
        }
        for link, name in self._links.items():
            mtu_bytes = self.scenario.links[link].mtu_bytes
            if mtu_bytes is not None:
                networks[name]["driver_opts"] = {"com.docker.network.driver.mtu": str(mtu_bytes)}
        return {"services": services, "networks": networks | {OUTSIDE: {}}}

    def _server(self, folder: Path, user: str) -> dict[str, Any]:
        command = [*server_options(folder, SERVER_PORT, ANYWHERE), "--insecure-http", "--no-stun"]
        return {
            **self._common(None, SERVER_IMAGE, command, folder, user),
            "networks": _addresses(self.members(None)),
            "ports": [f"127.0.0.1::{SERVER_PORT}"],
        }

    def _agent(self, device: DeviceId, folder: Path, user: str, sent: Mapping[DeviceId, Path]) -> dict[str, Any]:
        url = f"http://{self._host(self._controls[device], 0)}:{SERVER_PORT}"
        token = folder / device / JOIN_TOKEN
        command = agent_options(self.scenario, device, folder, url, f"{ANYWHERE}:{UDP_PORT}", token)
        command += ["--insecure-http", "--stun", "off", "--deny", CONTROL_NETWORK]
        service = self._common(device, AGENT_IMAGE, command, folder, user)
        if device in sent:
            service["volumes"].append(_bind(sent[device], read_only=True))
        return service | {"networks": _addresses(self.members(device))}

    def _common(
        self, device: DeviceId | None, image: str, command: list[str], folder: Path, user: str
    ) -> dict[str, Any]:
        own = folder / (device or "server")
        return {
            "image": image,
            "container_name": self.container(device),
            "user": user,
            "command": [*command, "--ready-file", str(own / "ready.json")],
            "volumes": [_bind(own)],
            "healthcheck": {"disable": True},
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "mem_limit": MEMORY,
            "pids_limit": PROCESSES,
        }

    def _host(self, network: str, number: int) -> str:
        """Return the address of the first or second container on a network; the engine's own end comes before them."""
        return str(self.subnets[network].network_address + 2 + number)


def project_of(owner: Owner, run: int) -> str:
    """Name a run after the process that does it, so that a later run can tell whether it is still there."""
    return f"arborcast-lab-{owner.pid}-{owner.started}-{run}"


def owner_of_project(project: str) -> Owner | None:
    """Return whose run a compose project is; None if it is none of a lab's."""
    match = _PROJECT.fullmatch(project)
    return None if match is None else Owner(int(match[1]), int(match[2]))


def written(document: Mapping[str, Any]) -> str:
    """Return a compose file's text. It is JSON, which YAML holds; a ``$`` would begin a variable of compose's."""
    return json.dumps(document, indent=2).replace("$", "$$") + "\n"


def _service(device: DeviceId | None) -> str:
    """Return a service's name; no device can have the server's, for it has a word in front."""
    return "server" if device is None else f"agent-{device}"


def _bind(path: Path, *, read_only: bool = False) -> dict[str, Any]:
    return {"type": "bind", "source": str(path), "target": str(path), "read_only": read_only}


def _addresses(members: Iterable[Member]) -> dict[str, Any]:
    return {member.network: {"ipv4_address": member.address} if member.address else {} for member in members}


def _free(pool: str, taken: tuple[Subnet, ...]) -> Iterator[Subnet]:
    near = tuple(network for network in taken if network.overlaps(Subnet(pool)))
    for subnet in Subnet(pool).subnets(new_prefix=_PREFIX_BITS):
        if not any(subnet.overlaps(network) for network in near):
            yield subnet


def _next(subnets: Iterator[Subnet]) -> Subnet:
    found = next(subnets, None)
    if found is None:
        raise ConfigError(
            f"the engine's networks leave no room in {LINK_NETWORK} or {CONTROL_NETWORK} for another link or device"
        )
    return found
