"""The simulated coordination server, and each device's way to it.

The server is the very `Group` machine that the real server runs; REST and WebSocket are replaced by a fixed one-way
delay. What the real shells do round the machines is done here in the same order: a record is stored before the messages
made by it leave; a lost server is tried again with jittered backoff.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from agent.core.events import ControlFailed, ControlRequest, QueryGraph, QueryNeighbours
from agent.services.last_state import LastState
from common.errors import ArborcastError
from common.ids import DeviceId
from common.messages import (
    ChannelSpec,
    Enrolment,
    EnrolmentAnswer,
    GraphBody,
    NeighboursBody,
    ServerMessage,
    Subscribe,
)
from lab.clock import Agenda, Alarm
from server.core.group import Group
from server.core.snapshot import GroupRecord

GROUP: Final = "lab"
DELAY_S: Final = 0.002
RETRY_S: Final = (0.25, 15.0)
WALL_AT_START: Final = 1_800_000_000.0

Answer = ServerMessage | NeighboursBody | GraphBody | ControlFailed


class Receiver(Protocol):
    """The device's end of the control plane."""

    def receive_control(self, message: Answer) -> None:
        """Take an answer or a push."""

    def control_connected(self) -> None:
        """Learn that the subscription socket is up."""

    def control_lost(self) -> None:
        """Learn that it is down."""


class SimulatedServer:
    """One coordination server with one group.

    Attributes:
        group: The running machine; None while the server is dead.
        queries: Queries answered, by device.
    """

    def __init__(self, agenda: Agenda, seed: int, channels: tuple[ChannelSpec, ...]) -> None:
        """Start the server.

        Args:
            agenda: The simulated time.
            seed: Its tokens and keys follow from it.
            channels: Channels to add to the group's own, or to put in their place.
        """
        self.group: Group | None = None
        self.queries: dict[DeviceId, int] = {}
        self._agenda = agenda
        self._entropy = random.Random(f"{seed}:server").randbytes
        self._record: GroupRecord | None = None
        self._subscribers: dict[int, ControlClient] = {}
        self._alarm = Alarm(agenda, self._on_alarm)
        self.start()
        for channel in channels:
            self.put_channel(channel)

    @property
    def wall(self) -> float:
        """Unix seconds of the simulated time."""
        return WALL_AT_START + self._agenda.now

    def start(self) -> None:
        """Start the server from what it stored."""
        if self.group is None:
            now = self._agenda.now
            self.group = Group(GROUP, now=now, wall=self.wall, entropy=self._entropy, stored=self._record)
            self._drain()

    def kill(self) -> None:
        """Stop the server at once; what it had stored stays."""
        self.group = None
        self._alarm.set(None)
        subscribers, self._subscribers = self._subscribers, {}
        for number in sorted(subscribers):
            self._agenda.after(DELAY_S, subscribers[number].on_lost, number)

    def put_channel(self, channel: ChannelSpec) -> None:
        """Add a channel to the group, or change it."""
        if self.group is not None:
            self.group.put_channel(channel, now=self._agenda.now, wall=self.wall)
            self._drain()

    def enrol(self, enrolment: Enrolment) -> EnrolmentAnswer | None:
        """Make a device a member; None when the server is dead."""
        if self.group is None:
            return None
        answer = self.group.enrol(enrolment, now=self._agenda.now, wall=self.wall)
        self._drain()
        return answer

    def connect(self, number: int, client: ControlClient) -> bool:
        """Open a subscription socket; False when the server is dead."""
        if self.group is None:
            return False
        self._subscribers[number] = client
        return True

    def disconnect(self, number: int) -> None:
        """Close a subscription socket."""
        if self._subscribers.pop(number, None) is not None and self.group is not None:
            self.group.unsubscribe(number)
            self._drain()

    def execute(self, number: int, device: DeviceId, request: ControlRequest) -> Answer | None:
        """Carry out one request of a device.

        Returns:
            The answer; None where the answer is a push or there is none.
        """
        if self.group is None or number not in self._subscribers:
            return ControlFailed(request, "unreachable")
        try:
            answer = self._execute(self.group, number, device, request)
        except ArborcastError as error:
            answer = ControlFailed(request, str(error))
        self._drain()
        return answer

    def _execute(self, group: Group, number: int, device: DeviceId, request: ControlRequest) -> Answer | None:
        now = self._agenda.now
        if isinstance(request, Subscribe):
            group.subscribe(number, device, request, now=now, wall=self.wall)
            return None
        if isinstance(request, QueryNeighbours):
            self.queries[device] = self.queries.get(device, 0) + 1
            return group.neighbours(device, request.epoch)
        if isinstance(request, QueryGraph):
            self.queries[device] = self.queries.get(device, 0) + 1
            return GraphBody.from_graph(group.graph(request.epoch))
        group.report(device, request, now=now, wall=self.wall)
        return None

    def _on_alarm(self) -> None:
        if self.group is not None:
            self.group.handle_timeout(now=self._agenda.now, wall=self.wall)
            self._drain()

    def _drain(self) -> None:
        group = self.group
        if group is None:
            return
        while (record := group.poll_record()) is not None:
            self._record = record
        while (push := group.poll_push()) is not None:
            number, message = push
            client = self._subscribers.get(number)
            if client is not None:
                self._agenda.after(DELAY_S, client.on_message, (number, message))
        while (closed := group.poll_closed()) is not None:
            client = self._subscribers.pop(closed[0], None)
            if client is not None:
                self._agenda.after(DELAY_S, client.on_lost, closed[0])
        self._alarm.set(group.poll_timeout())


@dataclass(slots=True)
class Membership:
    """What a device keeps on its disk about its group."""

    enrolled: bool = False
    last: LastState = field(default_factory=lambda: LastState(Path("never-saved")))


class ControlClient:
    """One device's connection to the server: enrols, subscribes, asks, and comes back after a loss."""

    def __init__(
        self,
        agenda: Agenda,
        server: SimulatedServer,
        enrolment: Enrolment,
        membership: Membership,
        numbers: Callable[[], int],
        rng: random.Random,
        receiver: Receiver,
    ) -> None:
        """Start to connect.

        Args:
            agenda: The simulated time.
            server: The server.
            enrolment: What the device shows to become a member.
            membership: What is on its disk; filled at the first enrolment.
            numbers: Gives a number that no connection had yet.
            rng: For the jitter of the backoff.
            receiver: The device.
        """
        self._agenda = agenda
        self._server = server
        self._enrolment = enrolment
        self._membership = membership
        self._numbers = numbers
        self._rng = rng
        self._receiver: Receiver | None = receiver
        self._number: int | None = None
        self._retry_s = RETRY_S[0]
        agenda.after(DELAY_S, self._attach)

    def close(self) -> None:
        """Drop the connection for good: the device is dead."""
        self._receiver = None
        if self._number is not None:
            self._agenda.after(DELAY_S, self._server.disconnect, self._number)
            self._number = None

    def request(self, request: ControlRequest) -> None:
        """Send a request to the server."""
        number = self._number
        if number is None:
            self._agenda.after(0.0, self._answer, ControlFailed(request, "not connected"))
        else:
            self._agenda.after(DELAY_S, self._execute, (number, request))

    def on_message(self, push: tuple[int, ServerMessage]) -> None:
        """Take a push that has arrived."""
        number, message = push
        if number == self._number:
            self._answer(message)

    def on_lost(self, number: int) -> None:
        """Learn that a connection broke."""
        if number == self._number and self._receiver is not None:
            self._number = None
            self._receiver.control_lost()
            self._again()

    def _attach(self, _: None) -> None:
        """Enrol and open the socket: the request has reached the server, if there is one."""
        if self._receiver is None:
            return
        answer = None
        if not self._membership.enrolled:
            answer = self._server.enrol(self._enrolment)
            self._membership.enrolled = answer is not None
        number = self._numbers()
        if not self._membership.enrolled or not self._server.connect(number, self):
            self._again()
            return
        self._agenda.after(DELAY_S, self._attached, (number, answer))

    def _attached(self, opened: tuple[int, EnrolmentAnswer | None]) -> None:
        number, answer = opened
        if self._receiver is None:
            self._server.disconnect(number)
            return
        self._number = number
        self._retry_s = RETRY_S[0]
        if answer is not None:
            self._answer(answer.roster)
            self._answer(answer.channels)
        self._receiver.control_connected()

    def _again(self) -> None:
        wait = self._retry_s * (0.5 + self._rng.random())
        self._retry_s = min(2 * self._retry_s, RETRY_S[1])
        self._agenda.after(wait, self._attach)

    def _execute(self, asked: tuple[int, ControlRequest]) -> None:
        number, request = asked
        answer = self._server.execute(number, self._enrolment.device, request)
        if answer is not None:
            self._agenda.after(DELAY_S, self._answer, answer)

    def _answer(self, answer: Answer) -> None:
        if self._receiver is None:
            return
        if not isinstance(answer, NeighboursBody | GraphBody | ControlFailed):
            self._membership.last.note(answer)
        self._receiver.receive_control(answer)
