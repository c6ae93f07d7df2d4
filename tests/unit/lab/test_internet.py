import itertools
import random

import pytest

from common.addresses import Address
from common.stun import BindingSuccess, decode_untrusted, encode_request
from lab.clock import Agenda
from lab.internet import STUN_HOST, STUN_PORTS, Internet
from lab.nat import Kind
from lab.oracle import Oracle
from lab.scenario import Access, LinkFigures, Scenario

PORT = 4000
REQUEST = encode_request(bytes(12))


class World:
    """A device for each kind of access, named after it, and what arrived at each."""

    def __init__(self, *kinds: Kind, figures: LinkFigures | None = None) -> None:
        figures = figures or LinkFigures(delay_s=0.01)
        self.agenda = Agenda()
        self.arrived: list[tuple[str, int, bytes, Address]] = []
        internet = {f"{kind.value}{index}": Access(kind.value, figures) for index, kind in enumerate(kinds)}
        self.devices = tuple(internet)
        scenario = Scenario(name="world", devices=self.devices, links={}, internet=internet)
        self.internet = Internet(scenario, 1, self.agenda, Oracle(), self._deliver)

    def _deliver(self, device: str, port: int, batch: list[tuple[bytes, Address]]) -> None:
        self.arrived += [(device, port, payload, source) for payload, source in batch]

    def send(self, device: str, target: Address, payload: bytes = b"x", port: int = PORT) -> None:
        self.internet.send(device, port, target, [payload])
        self.agenda.run_to(self.agenda.now + 1.0)

    def reflexive(self, device: str, port: int = STUN_PORTS[0]) -> Address:
        """Ask the STUN server, as an agent does."""
        self.send(device, (STUN_HOST, port), REQUEST)
        _, _, payload, _ = self.arrived.pop()
        answer = decode_untrusted(payload)
        assert isinstance(answer, BindingSuccess)
        return answer.mapped


@pytest.mark.parametrize("kind", list(Kind))
def test_every_device_learns_its_address_from_the_stun_server(kind: Kind) -> None:
    world = World(kind)
    (device,) = world.devices
    first, second = (world.reflexive(device, port) for port in STUN_PORTS)
    assert first[0] == second[0] == world.internet.public_host(device)
    assert (first == second) is (kind is not Kind.SYMMETRIC)
    own = world.internet.host(device)
    assert (own == first[0]) is (kind is Kind.OPEN)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(Kind, 2)))
def test_two_devices_that_know_each_others_reflexive_address_meet_unless_a_symmetric_nat_meets_ports(
    one: Kind, other: Kind
) -> None:
    world = World(one, other)
    a, b = world.devices
    addresses = {device: world.reflexive(device) for device in world.devices}
    heard: dict[str, Address] = {}
    # Both send to what they know, and answer to where something came from.
    for _ in range(3):
        for device, peer in ((a, b), (b, a)):
            world.send(device, heard.get(device, addresses[peer]))
        heard.update({device: source for device, _, _, source in world.arrived})
        world.arrived.clear()
    strict = {Kind.SYMMETRIC, Kind.PORT_RESTRICTED}
    hopeless = Kind.SYMMETRIC in (one, other) and {one, other} <= strict
    assert (set(heard) == {a, b}) is not hopeless


def test_an_address_that_nobody_has_and_ones_own_lead_nowhere() -> None:
    world = World(Kind.PORT_RESTRICTED, Kind.OPEN)
    nat, other = world.devices
    inner = world.internet.host(nat)
    assert inner is not None
    for target in ((inner, PORT), ("192.0.2.1", 9), (world.internet.public_host(nat), PORT)):
        world.send(nat, target)
    world.send(other, (inner, PORT))
    assert world.arrived == []
    assert world.internet.unroutable == 4


def test_what_a_nat_does_not_let_in_is_counted() -> None:
    world = World(Kind.PORT_RESTRICTED, Kind.OPEN)
    nat, other = world.devices
    world.send(other, (world.internet.public_host(nat), PORT))
    assert world.internet.filtered == {nat: 1, other: 0}


def test_a_nat_that_begins_anew_shows_another_address() -> None:
    world = World(Kind.ENDPOINT_INDEPENDENT, Kind.OPEN)
    nat, other = world.devices
    before = world.reflexive(nat)
    world.internet.rebind(nat)
    world.internet.rebind(other)
    assert world.reflexive(nat) != before
    world.send(other, before)
    assert world.arrived == []


def test_datagrams_take_the_rate_and_delay_of_both_access_links() -> None:
    world = World(Kind.OPEN, Kind.OPEN, figures=LinkFigures(rate_bps=1e6, delay_s=0.1))
    a, b = world.devices
    world.internet.send(a, PORT, (world.internet.public_host(b), PORT), [bytes(958)] * 5)
    world.agenda.run_to(0.2 + 2 * 0.008)
    assert len(world.arrived) == 0
    world.agenda.run_to(0.2 + 6 * 0.008 + 0.001)
    assert len(world.arrived) == 5


def test_the_stun_server_is_silent_at_garbage_and_at_other_ports() -> None:
    world = World(Kind.OPEN)
    (device,) = world.devices
    answer = REQUEST[:0] + b"\x01\x01" + REQUEST[2:]
    for payload in (random.Random(1).randbytes(40), answer):
        world.send(device, (STUN_HOST, STUN_PORTS[0]), payload)
    world.send(device, (STUN_HOST, 9), REQUEST)
    assert world.arrived == []
    assert world.internet.unroutable == 1


def test_a_device_that_is_not_on_the_internet_has_no_address_there() -> None:
    assert World(Kind.OPEN).internet.host("Z") is None
