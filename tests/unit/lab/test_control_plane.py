import base64
import itertools
import random

from agent.core.events import ControlFailed, QueryGraph, QueryNeighbours
from common.messages import (
    AdjacencyReport,
    Channels,
    ChannelSpec,
    Enrolment,
    GraphBody,
    GraphUpdate,
    NeighboursBody,
    Roster,
    Subscribe,
)
from lab.clock import Agenda
from lab.control_plane import DELAY_S, Answer, ControlClient, Membership, SimulatedServer

NUMBERS = itertools.count(1)


class FakeDevice:
    """Keeps what the server says to it."""

    def __init__(self, agenda: Agenda, server: SimulatedServer, name: str) -> None:
        self.heard: list[Answer | str] = []
        self.membership = Membership()
        self.agenda = agenda
        self.server = server
        self.enrolment = Enrolment(
            device=name,
            public_key=base64.b64encode(name.encode() * 32).decode(),
            signing_key=base64.b64encode(name.encode() * 32).decode(),
        )
        self.connect()

    def connect(self) -> None:
        self.client = ControlClient(
            self.agenda,
            self.server,
            self.enrolment,
            self.membership,
            lambda: next(NUMBERS),
            random.Random(1),
            self,
        )

    def receive_control(self, message: Answer) -> None:
        self.heard.append(message)

    def control_connected(self) -> None:
        self.heard.append("connected")

    def control_lost(self) -> None:
        self.heard.append("lost")

    def last(self, kind: type[Answer]) -> Answer:
        return [message for message in self.heard if isinstance(message, kind)][-1]


def pair() -> tuple[Agenda, SimulatedServer, FakeDevice, FakeDevice]:
    agenda = Agenda()
    server = SimulatedServer(agenda, 1, (ChannelSpec(name="chat", kind="message"),))
    a, b = FakeDevice(agenda, server, "A"), FakeDevice(agenda, server, "B")
    agenda.run_to(1.0)
    return agenda, server, a, b


def report_each_other(agenda: Agenda, a: FakeDevice, b: FakeDevice) -> None:
    a.client.request(AdjacencyReport(peers=("B",)))
    b.client.request(AdjacencyReport(peers=("A",)))
    agenda.run_to(agenda.now + 1.0)


def test_a_device_enrols_and_then_is_connected() -> None:
    _, server, a, _ = pair()
    assert [type(message).__name__ for message in a.heard] == ["Roster", "Channels", "str"]
    assert server.group is not None
    assert [entry.device for entry in server.group.roster().devices] == ["A", "B"]
    channels = a.last(Channels)
    assert isinstance(channels, Channels)
    assert "chat" in [channel.name for channel in channels.channels]


def test_answers_and_pushes_take_the_delay_both_ways() -> None:
    agenda, server, a, b = pair()
    a.client.request(Subscribe(scope="graph", epoch=None))
    asked = agenda.now
    agenda.run_to(asked + 2 * DELAY_S - 1e-6)
    assert not any(isinstance(message, GraphUpdate) for message in a.heard)
    agenda.run_to(asked + 2 * DELAY_S)
    assert isinstance(a.heard[-3], GraphUpdate | Roster | Channels)
    report_each_other(agenda, a, b)
    update = a.last(GraphUpdate)
    assert isinstance(update, GraphUpdate)
    assert update.graph.trees[0].edges == (("A", "B"),)
    assert server.queries == {}


def test_queries_are_answered_and_counted() -> None:
    agenda, server, a, b = pair()
    report_each_other(agenda, a, b)
    a.client.request(QueryNeighbours())
    a.client.request(QueryGraph())
    agenda.run_to(agenda.now + 1.0)
    neighbours = a.last(NeighboursBody)
    assert isinstance(neighbours, NeighboursBody)
    assert neighbours.trees[0].neighbours == ("B",)
    assert isinstance(a.last(GraphBody), GraphBody)
    assert server.queries == {"A": 2}


def test_a_query_that_the_server_declines_fails_at_the_device() -> None:
    agenda, _, a, _ = pair()
    a.client.request(QueryNeighbours(epoch=1))
    agenda.run_to(agenda.now + 1.0)
    failed = a.last(ControlFailed)
    assert isinstance(failed, ControlFailed)
    assert failed.request == QueryNeighbours(epoch=1)


def test_a_killed_server_is_lost_and_found_again_with_the_same_members_and_a_graph_not_older() -> None:
    agenda, server, a, b = pair()
    report_each_other(agenda, a, b)
    assert server.group is not None
    before = server.group.graph()
    server.kill()
    server.kill()
    assert server.execute(1, "A", QueryGraph()) == ControlFailed(QueryGraph(), "unreachable")
    agenda.run_to(agenda.now + 5.0)
    a.client.request(QueryNeighbours())
    agenda.run_to(agenda.now + 0.1)
    assert a.heard[-2:] == ["lost", ControlFailed(QueryNeighbours(), "not connected")]
    server.start()
    server.start()
    agenda.run_to(agenda.now + 30.0)
    assert a.heard[-1] == "connected"
    after = server.group.graph()
    assert after.devices == before.devices
    assert after.epoch >= before.epoch


def test_a_device_that_starts_while_the_server_is_dead_enrols_later() -> None:
    agenda = Agenda()
    server = SimulatedServer(agenda, 1, ())
    server.kill()
    device = FakeDevice(agenda, server, "A")
    server.put_channel(ChannelSpec(name="late", kind="message"))
    agenda.run_to(3.0)
    assert device.heard == []
    server.start()
    agenda.run_to(30.0)
    assert device.heard[-1] == "connected"


def test_a_dead_device_hears_nothing_and_comes_back_without_enrolling_again() -> None:
    agenda, server, a, _ = pair()
    a.client.request(Subscribe(scope="graph", epoch=None))
    a.client.request(QueryGraph())
    agenda.run_to(agenda.now + DELAY_S)
    a.client.close()
    a.client.close()
    heard = list(a.heard)
    agenda.run_to(agenda.now + 1.0)
    assert a.heard == heard
    assert server.group is not None
    assert server.group.subscriber_count() == 0
    a.connect()
    agenda.run_to(agenda.now + 1.0)
    assert a.heard[len(heard) :] == ["connected"]
    assert [type(message).__name__ for message in a.membership.last.messages()] == ["Roster", "Channels"]


def test_a_device_killed_while_it_connects_leaves_no_connection() -> None:
    agenda, server, a, _ = pair()
    a.client.close()
    a.connect()
    agenda.run_to(agenda.now + DELAY_S)
    a.client.close()
    agenda.run_to(agenda.now + 1.0)
    assert a.heard.count("connected") == 1
    assert server.group is not None
    assert server.group.subscriber_count() == 0


def test_a_subscription_that_the_server_closes_is_opened_again() -> None:
    agenda, server, a, _ = pair()
    a.client.request(Subscribe(scope="graph", epoch=None))
    agenda.run_to(agenda.now + 1.0)
    assert server.group is not None
    server.group.evict("A", now=agenda.now, wall=server.wall)
    server.put_channel(ChannelSpec(name="other", kind="message"))
    agenda.run_to(agenda.now + 0.1)
    assert a.heard[-1] == "lost"
    agenda.run_to(agenda.now + 5.0)
    assert a.heard[-1] == "connected"
