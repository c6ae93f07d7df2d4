"""A scenario as a compose file: a network for every link, and one for every device's way to the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.errors import ConfigError
from common.ids import DeviceId, LinkKey
from lab.scenario import Scenario

SERVER: Final = "server"
SERVER_PORT: Final = 8640
MOST_NETWORKS: Final = 127
"""Links, and devices, that have room in the second half of an IPv4 prefix of 16 bits."""
_SERVER_HOST: Final = 250


@dataclass(frozen=True, slots=True)
class ComposePlan:
    """Names and addresses of one run.

    Attributes:
        scenario: Devices and links.
        project: Name of the compose project, in front of every container's.
        prefix: The first two numbers of all addresses, such as ``10.214``.
    """

    scenario: Scenario
    project: str
    prefix: str

    def __post_init__(self) -> None:
        """Check that there is room.

        Raises:
            ConfigError: The scenario has too many devices or links, or devices on the internet.
        """
        for what, count in (("links", len(self.scenario.links)), ("devices", len(self.scenario.devices))):
            if count > MOST_NETWORKS:
                raise ConfigError(f"the scenario has {count} {what}; the compose backend takes at most {MOST_NETWORKS}")
        if self.scenario.internet:
            raise ConfigError(
                f"device {min(self.scenario.internet)} is on the internet, and the compose backend has no NATs;"
                " run the scenario with --backend sim or netns"
            )

    @property
    def denied(self) -> str:
        """The network of which all control networks are part."""
        return f"{self.prefix}.128.0/17"

    def container(self, name: str) -> str:
        """Return the container of a device, or of the server."""
        return f"{self.project}-{name}"

    def network(self, link: LinkKey) -> str:
        """Return the full name of a link's network."""
        return f"{self.project}_{_network(link)}"

    def server_address(self, device: DeviceId) -> str:
        """Return where a device reaches the server."""
        return f"{self.prefix}.{self._control(device)}.{_SERVER_HOST}"

    def file(
        self,
        *,
        server_command: Sequence[str],
        agent_commands: Mapping[DeviceId, Sequence[str]],
        folder: Path,
        user: str,
    ) -> dict[str, Any]:
        """Return the compose file, to be written as JSON (which is YAML).

        Args:
            server_command: What the server's container runs.
            agent_commands: What each agent's container runs.
            folder: Is the same folder in every container: state, sockets and received files are there.
            user: Number of the user and group, ``1000:1000``, that the folder belongs to.
        """
        common = {
            "user": user,
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "tmpfs": ["/tmp"],  # noqa: S108 - inside a container
            "healthcheck": {"disable": True},
        }
        shared = [f"{folder}:{folder}"]
        devices = self.scenario.devices
        services: dict[str, Any] = {
            SERVER: common
            | {
                "image": "arborcast-server",
                "container_name": self.container(SERVER),
                "entrypoint": list(server_command),
                "volumes": shared,
                "networks": {_way(device): {"ipv4_address": self.server_address(device)} for device in devices},
            }
        }
        for device in devices:
            services[device] = common | {
                "image": "arborcast-agent",
                "container_name": self.container(device),
                "hostname": device,
                "entrypoint": list(agent_commands[device]),
                "volumes": shared,
                "networks": [_way(device)] + [_network(link) for link in self.scenario.links if device in link],
            }
        networks = {_network(link): self._internal(number) for number, link in enumerate(self.scenario.links, 1)}
        networks |= {_way(device): self._internal(self._control(device)) for device in devices}
        return {"version": "2.4", "services": services, "networks": networks}

    def _control(self, device: DeviceId) -> int:
        return 128 + self.scenario.devices.index(device)

    def _internal(self, number: int) -> dict[str, Any]:
        return {"internal": True, "ipam": {"config": [{"subnet": f"{self.prefix}.{number}.0/24"}]}}


def _network(link: LinkKey) -> str:
    return f"link-{'-'.join(link)}"


def _way(device: DeviceId) -> str:
    return f"control-{device}"
