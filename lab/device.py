"""One simulated device: the agent's core with simulated sockets, a simulated disk and a way to the server.

It does what the agent's shell does and no more: feed the node, drain its four outputs, re-arm its one timer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from agent.core.config import NodeConfig
from agent.core.events import Event, OpenSocket
from agent.core.memory_store import BytesReader, MemoryStores
from agent.core.node import Node
from agent.core.policy import DeclaredQos
from common.addresses import Address
from common.errors import LocalProtocolError
from common.fields import encode_key
from common.ids import DeviceId
from common.messages import Enrolment
from lab.clock import Agenda, Alarm
from lab.control_plane import GROUP, Answer, ControlClient, Membership, SimulatedServer
from lab.internet import STUN_HOST, STUN_PORTS
from lab.network import Network
from lab.scenario import Scenario

MOST_ALARMS_AT_ONCE: Final = 10_000


class SimulatedDevice:
    """A device that can be killed and started again; its stores are its disk and outlive the node.

    Attributes:
        name: The device's id.
        stores: Its disk.
        node: The running agent core; None while the device is dead.
        requests: Control requests that its node made, by type name.
        alarms: How often its timer rang.
    """

    def __init__(
        self,
        name: DeviceId,
        scenario: Scenario,
        seed: int,
        agenda: Agenda,
        network: Network,
        server: SimulatedServer,
        numbers: Callable[[], int],
        on_event: Callable[[DeviceId, Event], None],
    ) -> None:
        """Make a device that is not started.

        Args:
            name: The device's id.
            scenario: Its links and settings.
            seed: Its keys and everything random in it follow from it.
            agenda: The simulated time.
            network: Where its sockets are.
            server: The coordination server.
            numbers: Gives numbers for its connections to the server.
            on_event: Called with every event of its node.
        """
        self.name = name
        self.stores = MemoryStores()
        self.node: Node | None = None
        self.requests: dict[str, int] = {}
        self.alarms = 0
        self._scenario = scenario
        self._seed = seed
        self._agenda = agenda
        self._network = network
        self._server = server
        self._numbers = numbers
        self._on_event = on_event
        self._membership = Membership()
        self._control: ControlClient | None = None
        self._alarm = Alarm(agenda, self._on_alarm)
        self._alarms_at_once = 0
        self._last_alarm = -1.0
        self._starts = 0
        self._private_key = random.Random(f"{seed}:{name}:key").randbytes(32)

    def start(self) -> None:
        """Start the agent, for the first time or from what is on its disk."""
        if self.node is not None:
            return
        self._starts += 1
        _, port = self._network.open_socket(self.name)
        config = self._config(port)
        rng = random.Random(f"{self._seed}:{self.name}:{self._starts}")
        self.node = Node(
            config,
            stores=self.stores,
            rng=random.Random(rng.random()),
            entropy=random.Random(rng.random()).randbytes,
            now=self._agenda.now,
            wall=self._server.wall,
        )
        self._control = ControlClient(
            self._agenda,
            self._server,
            Enrolment(
                device=self.name,
                public_key=encode_key(config.public_key),
                signing_key=encode_key(config.signer.public_key),
            ),
            self._membership,
            self._numbers,
            rng,
            self,
        )
        if self._network.internet.host(self.name) is not None:
            servers = [(STUN_HOST, port) for port in STUN_PORTS]
            self.node.set_stun_servers(servers, now=self._agenda.now)
        for message in self._membership.last.messages():
            self.node.receive_control(message, now=self._agenda.now)
        self._drain(self.node)

    def kill(self) -> None:
        """Stop the agent at once, as SIGKILL does; only what is in its stores stays."""
        if self.node is None:
            return
        self.node = None
        self._alarm.set(None)
        self._network.close_sockets(self.name)
        if self._control is not None:
            self._control.close()
            self._control = None

    def receive(self, socket: int, batch: Sequence[tuple[bytes, Address]]) -> None:
        """Take what arrived at a socket."""
        node = self.node
        if node is not None:
            node.receive_datagrams(batch, socket=socket, now=self._agenda.now)
            self._drain(node)

    def send_file(self, channel: str, name: str, data: bytes) -> str:
        """Send a file from here.

        Raises:
            RefusedError: The node refused it.
        """
        node = self._running()
        stream = node.send_file(channel, name, len(data), BytesReader(data), now=self._agenda.now)
        self._drain(node)
        return stream

    def publish(self, channel: str, payload: bytes) -> tuple[str, int]:
        """Publish a message from here.

        Raises:
            RefusedError: The node refused it.
        """
        node = self._running()
        published = node.publish(channel, payload, now=self._agenda.now)
        self._drain(node)
        return published

    def cancel(self, stream: str) -> None:
        """Take a stream back."""
        node = self._running()
        node.cancel(stream, now=self._agenda.now)
        self._drain(node)

    def receive_control(self, message: Answer) -> None:
        """Take an answer or a push of the server."""
        node = self._running()
        node.receive_control(message, now=self._agenda.now)
        self._drain(node)

    def control_connected(self) -> None:
        """Learn that the server can be reached."""
        node = self._running()
        node.control_connected(now=self._agenda.now)
        self._drain(node)

    def control_lost(self) -> None:
        """Learn that it cannot."""
        node = self._running()
        node.control_lost(now=self._agenda.now)
        self._drain(node)

    def _config(self, port: int) -> NodeConfig:
        peers = self._scenario.peers(self.name)
        declared = {}
        for peer in peers if self._scenario.declared else ():
            figures = self._scenario.figures(self.name, peer)
            declared[peer] = DeclaredQos(figures.rate_bps, figures.delay_s)
        return NodeConfig(
            device=self.name,
            group=GROUP,
            private_key=self._private_key,
            scope="neighbours" if self.name in self._scenario.scopes else "graph",
            declared=declared,
            only_peers=frozenset(peers),
            candidates=tuple(f"{host}:{port}" for host in self._network.hosts(self.name)),
            datagram_bytes=self._scenario.datagram_bytes,
        )

    def _running(self) -> Node:
        if self.node is None:
            raise LocalProtocolError(f"device {self.name} is not running")
        return self.node

    def _on_alarm(self) -> None:
        node = self.node
        if node is None:
            return
        self.alarms += 1
        now = self._agenda.now
        self._alarms_at_once = self._alarms_at_once + 1 if now == self._last_alarm else 0
        self._last_alarm = now
        if self._alarms_at_once > MOST_ALARMS_AT_ONCE:
            raise LocalProtocolError(f"the timer of {self.name} stands still at {now} s: {node.poll_timeout()}")
        node.handle_timeout(now=now)
        self._drain(node)

    def _drain(self, node: Node) -> None:
        now = self._agenda.now
        settled = False
        while not settled:
            settled = True
            while transmits := node.poll_transmit(now=now):
                for transmit in transmits:
                    self._network.send(self.name, transmit.socket, transmit.address, transmit.datagrams)
            while (request := node.poll_control()) is not None:
                kind = type(request).__name__
                self.requests[kind] = self.requests.get(kind, 0) + 1
                if self._control is not None:
                    self._control.request(request)
            while (event := node.poll_event()) is not None:
                if isinstance(event, OpenSocket):
                    socket, port = self._network.open_socket(self.name)
                    node.socket_opened(event, socket, port, now=now)
                    settled = False
                self._on_event(self.name, event)
        self._alarm.set(node.poll_timeout())
