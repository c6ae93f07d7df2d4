"""The real system on the loopback interface: one server process and one agent process for each device.

Only the scenario's links are allowed (``--only-peer``) and their figures are declared (``--link``), so the tree is the
scenario's and not that of the noise on one host. Nothing is shaped: the links are as fast as the host.
"""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx

from common.errors import ConfigError, ConnectError
from common.graph import AcyclicGraph
from common.ids import DeviceId, LinkKey
from common.messages import ChannelSpec, GraphBody
from lab.happenings import Happening, Verb
from lab.processes import Child
from lab.progress import Watcher
from lab.scenario import Scenario
from lab.simulator import channels_of, subscribes
from lab.units import show_rate, show_seconds

GROUP: Final = "lab"
RECEIVED: Final = "received"
SOCKET: Final = "agent.sock"
START_S: Final = 30.0
GRAPH_S: Final = 30.0
STOP_S: Final = 5.0
LOOK_S: Final = 0.05
REQUEST_S: Final = 10.0


class LoopbackSystem:
    """A server and agents as processes of this host.

    Attributes:
        backend: Its name, for reports.
        shaped: Whether the links have the scenario's rates, and are not just as fast as the host.
        changes_links: Whether links can be cut, restored and degraded here.
        url: The server's address.
        folder: Where all state, logs, sockets and received files are.
    """

    backend: ClassVar[str] = "loopback"
    shaped: bool = False
    changes_links: ClassVar[bool] = False

    def __init__(self, scenario: Scenario, folder: Path, watcher: Watcher) -> None:
        """Describe the processes.

        Args:
            scenario: Devices, links, channels.
            folder: An empty folder with a short path (unix sockets are in it).
            watcher: Is told how it goes.

        Raises:
            ConfigError: The scenario wants something that this backend cannot do.
        """
        if not self.changes_links:
            refuse_link_happenings(scenario)
        self.scenario = scenario
        self.folder = folder
        self.url = ""
        self._watcher = watcher
        self._server = self._child(None)
        self._agents: dict[DeviceId, Child] = {}
        self._clients: dict[DeviceId, httpx.AsyncClient] = {}

    @property
    def admin_token_file(self) -> Path:
        """The file with the token that opens everything at the server."""
        return self.folder / "server" / "state" / "admin-token"

    @property
    def graph_command(self) -> str:
        """The curl line that prints the current graph."""
        header = f'"Authorization: Bearer $(cat {shlex.quote(str(self.admin_token_file))})"'
        return f"curl -s -H {header} {self.url}/v1/groups/{GROUP}/graph"

    async def start(self) -> None:
        """Start the server and all agents, and wait until they are ready.

        Raises:
            ChildDied: One of them ended or was not ready in time.
            ConnectError: The server refused a channel.
        """
        await self._server.start()
        self.url = self._reached(str((await self._server.ready(within=START_S))["url"]).rstrip("/"))
        # The same port after a restart, or the agents would not find the server again.
        self._server.start_with(self._server_command(httpx.URL(self.url).port or 0))
        for channel in channels_of(self.scenario):
            await self._put_channel(channel)
        for device in self.scenario.devices:
            self._agents[device] = self._child(device)
            await self._agents[device].start()
        self._watcher.say(f"server at {self.url}, {len(self._agents)} agents starting")
        for agent in self._agents.values():
            await agent.ready(within=START_S)

    async def stop(self) -> None:
        """Stop everything that runs: agents first, so that they can say goodbye."""
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()
        children = [*self._agents.values(), self._server]
        await asyncio.gather(*(child.stop(within=STOP_S) for child in children))

    def check(self) -> None:
        """Make sure that nothing ended by itself.

        Raises:
            ChildDied: Something did.
        """
        for child in (self._server, *self._agents.values()):
            child.check()

    async def span(self) -> AcyclicGraph:
        """Wait until the graph spans all devices and every agent that subscribes works with it.

        Raises:
            ChildDied: A process ended.
            ConnectError: It took too long.
        """
        graph: AcyclicGraph | None = None
        try:
            async with asyncio.timeout(GRAPH_S):
                while True:
                    self.check()
                    graph = await self.graph()
                    if graph is not None and await self._settled(graph):
                        return graph
                    await asyncio.sleep(LOOK_S)
        except TimeoutError as error:
            found = "no graph" if graph is None else f"the components {graph.components()}"
            raise ConnectError(f"no graph spans all devices after {GRAPH_S} s; the server has {found}") from error

    async def graph(self) -> AcyclicGraph | None:
        """Ask the server for its graph; None when it does not answer."""
        try:
            answer = await self._ask_server("GET", "graph")
        except httpx.TransportError:
            return None
        return GraphBody.model_validate_json(answer.content).to_graph() if answer.is_success else None

    async def status(self, device: DeviceId) -> Mapping[str, Any] | None:
        """Ask an agent for its status; None when it does not answer."""
        return await self.ask_agent(device, "/status")

    async def ask_agent(self, device: DeviceId, resource: str) -> Mapping[str, Any] | None:
        """Ask an agent's local API for something; None when it does not answer, or has it not."""
        try:
            answer = await self.client(device).get(resource)
            answer.raise_for_status()
        except httpx.HTTPError:
            return None
        found: Mapping[str, Any] = answer.json()
        return found

    def client(self, device: DeviceId) -> httpx.AsyncClient:
        """Return the way to an agent's local API."""
        client = self._clients.get(device)
        if client is None:
            transport = httpx.AsyncHTTPTransport(uds=str(self.folder / device / SOCKET))
            client = httpx.AsyncClient(transport=transport, base_url="http://agent", timeout=REQUEST_S)
            self._clients[device] = client
        return client

    def received(self, device: DeviceId) -> Path:
        """Return the folder where a device's files appear."""
        return self.folder / device / RECEIVED

    def running(self, device: DeviceId) -> bool:
        """Tell whether a device's agent was started and not killed since."""
        return self._agents[device].running

    def send_signal(self, device: DeviceId, how: signal.Signals) -> None:
        """Send a signal to an agent that the lab then takes for dead by itself."""
        self._agents[device].send_signal(how)

    async def happen(self, happening: Happening) -> None:
        """Kill or start a process.

        Raises:
            ChildDied: A process that was started was not ready in time.
        """
        self._watcher.say(str(happening))
        child = self._server if happening.device is None else self._agents[happening.device]
        if happening.verb is Verb.KILL:
            await child.kill()
        elif not child.running:
            await child.start()
            await child.ready(within=START_S)

    def pids(self) -> dict[str, int]:
        """Return the numbers of the processes that run, by name: ``server``, ``agent C``."""
        children = (self._server, *self._agents.values())
        return {child.name: child.pid for child in children if child.pid is not None}

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor time that each process used so far, in seconds."""
        return {child.name: child.cpu_seconds() for child in (self._server, *self._agents.values())}

    def ethernet_bytes(self) -> dict[LinkKey, tuple[int, int]]:
        """Return the bytes of all frames that both ends of each link sent so far; empty where nobody counts them.

        The two are in the order of the link's name: of A-B first A's, then B's.
        """
        return {}

    def access_bytes(self) -> dict[DeviceId, tuple[int, int]]:
        """Return the bytes of all frames that each device sent and was sent over its access link so far.

        Empty where no device is on the internet.
        """
        return {}

    def _reached(self, url: str) -> str:
        """Return where the agents and the lab reach the server that says it listens at ``url``."""
        return url

    def _child(self, device: DeviceId | None) -> Child:
        """Describe the process of a device's agent, or the server's for None."""
        if device is None:
            return Child("server", self._server_command(0), self.folder / "server")
        return Child(f"agent {device}", self._agent_command(device), self.folder / device)

    def _server_command(self, port: int) -> list[str]:
        return server_arguments(self.folder, port)

    def _agent_command(self, device: DeviceId) -> list[str]:
        return agent_arguments(self.scenario, device, self.folder, self.url)

    async def _settled(self, graph: AcyclicGraph) -> bool:
        if graph.components() != (self.scenario.devices,):
            return False
        if not subscribes(self.scenario):
            return True
        statuses = [await self.status(device) for device in self.scenario.devices]
        return all(status is not None and status["epoch"] == graph.epoch for status in statuses)

    async def _put_channel(self, channel: ChannelSpec) -> None:
        try:
            answer = await self._ask_server("PUT", f"channels/{channel.name}", channel.model_dump_json())
        except httpx.TransportError as error:
            raise ConnectError(f"the server does not answer at {self.url}: {error!r}") from error
        if not answer.is_success:
            raise ConnectError(f"the server refused the channel {channel.name}: {answer.text}")

    async def _ask_server(self, method: str, resource: str, body: str | None = None) -> httpx.Response:
        token = self.admin_token_file.read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(timeout=REQUEST_S, trust_env=False) as client:
            url = f"{self.url}/v1/groups/{GROUP}/{resource}"
            return await client.request(method, url, headers=headers, content=body)


def server_arguments(folder: Path, port: int, host: str = "127.0.0.1") -> list[str]:
    """Return the server's command line.

    Args:
        folder: Where everything of the run is.
        port: TCP port to listen on; 0 takes a free one.
        host: Address to listen on.
    """
    return [sys.executable, "-m", "server", *server_options(folder, port, host)]


def server_options(folder: Path, port: int, host: str) -> list[str]:
    """Return what `server_arguments` does, without the program."""
    state = folder / "server" / "state"
    return ["run", "--host", host, "--port", str(port), "--state", str(state), "--group", GROUP]


def agent_arguments(
    scenario: Scenario, device: DeviceId, folder: Path, url: str, listen: str = "127.0.0.1:0"
) -> list[str]:
    """Return an agent's command line.

    Args:
        scenario: Its links, scope and datagram size.
        device: Which agent.
        folder: Where everything of the run is.
        url: The server's address.
        listen: UDP address and port of the agent.
    """
    return [sys.executable, "-m", "agent", *agent_options(scenario, device, folder, url, listen)]


def agent_options(
    scenario: Scenario, device: DeviceId, folder: Path, url: str, listen: str, join_token: Path | None = None
) -> list[str]:
    """Return what `agent_arguments` does, without the program.

    Args:
        scenario: Its links, scope and datagram size.
        device: Which agent.
        folder: Where everything of the run is.
        url: The server's address.
        listen: UDP address and port of the agent.
        join_token: The file with it; None for where the server puts it.
    """
    own = folder / device
    options = {
        "--server": url,
        "--group": GROUP,
        "--join-token-file": str(join_token or folder / "server" / "state" / f"join-token-{GROUP}"),
        "--device": device,
        "--listen": listen,
        "--scope": scenario.scopes.get(device, "graph"),
        "--datagram-bytes": str(scenario.datagram_bytes),
        "--state": str(own / "state"),
        "--receive": str(own / RECEIVED),
        "--control-socket": str(own / SOCKET),
    }
    arguments = ["agent"]
    for option, value in options.items():
        arguments += [option, value]
    for peer in scenario.peers(device):
        arguments += ["--only-peer", peer]
        if not scenario.declared:
            continue
        figures = scenario.figures(device, peer)
        arguments += ["--link", f"{peer}={show_rate(figures.rate_bps)},{show_seconds(figures.delay_s)}"]
    return arguments


def refuse_link_happenings(scenario: Scenario) -> None:
    """Refuse what cannot happen to real sockets on one host without root.

    Raises:
        ConfigError: The scenario cuts, restores or degrades a link, or has devices on the internet.
    """
    if scenario.internet:
        raise ConfigError(
            f"device {min(scenario.internet)} is on the internet, and the loopback backend has no NATs;"
            " run the scenario with --backend sim or netns"
        )
    for happening in scenario.happenings:
        if happening.link is not None:
            raise ConfigError(
                f'the loopback backend cannot do "{happening}": its links are real sockets that nothing shapes;'
                " run the scenario with --backend sim or netns"
            )
