import random

import pytest

from lab.nat import MOST_MAPPINGS, TIMEOUT_S, Kind, Nat

NATS = [kind for kind in Kind if kind is not Kind.OPEN]
STABLE = [kind for kind in NATS if kind is not Kind.SYMMETRIC]
PEER, ITS_OTHER_PORT, OTHER = ("198.18.0.2", 4000), ("198.18.0.2", 4001), ("198.18.0.3", 4000)


def nat(kind: Kind) -> Nat:
    return Nat(kind, random.Random(1))


@pytest.mark.parametrize("kind", STABLE)
def test_one_mapping_serves_all_destinations_and_keeps_the_port(kind: Kind) -> None:
    box = nat(kind)
    assert [box.outbound(4000, target, 0.0) for target in (PEER, OTHER)] == [4000, 4000]


def test_a_symmetric_nat_maps_each_destination_to_a_port_of_its_own() -> None:
    box = nat(Kind.SYMMETRIC)
    ports = [box.outbound(4000, target, 0.0) for target in (PEER, ITS_OTHER_PORT, OTHER)]
    assert len(set(ports)) == 3
    assert 4000 not in ports
    assert box.outbound(4000, PEER, 1.0) == ports[0]


@pytest.mark.parametrize(
    ("kind", "comes_in"),
    [
        (Kind.ENDPOINT_INDEPENDENT, [True, True, True]),
        (Kind.ADDRESS_RESTRICTED, [True, True, False]),
        (Kind.PORT_RESTRICTED, [True, False, False]),
        (Kind.SYMMETRIC, [True, False, False]),
    ],
)
def test_each_kind_lets_in_whom_its_name_says(kind: Kind, comes_in: list[bool]) -> None:
    box = nat(kind)
    outer = box.outbound(4000, PEER, 0.0)
    found = [box.inbound(outer, source, 0.0) for source in (PEER, ITS_OTHER_PORT, OTHER)]
    assert found == [4000 if each else None for each in comes_in]


@pytest.mark.parametrize("kind", NATS)
def test_nobody_comes_in_before_anything_went_out(kind: Kind) -> None:
    assert nat(kind).inbound(4000, PEER, 0.0) is None


@pytest.mark.parametrize("kind", NATS)
def test_a_mapping_lives_as_long_as_it_carries_something_in_either_direction(kind: Kind) -> None:
    box = nat(kind)
    outer = box.outbound(4000, PEER, 0.0)
    assert box.inbound(outer, PEER, 0.9 * TIMEOUT_S) == 4000
    assert box.inbound(outer, PEER, 1.8 * TIMEOUT_S) == 4000
    assert box.outbound(4000, PEER, 2.7 * TIMEOUT_S) == outer
    assert box.inbound(outer, PEER, 3.7 * TIMEOUT_S) is None


def test_a_permission_ends_though_the_mapping_goes_on() -> None:
    box = nat(Kind.PORT_RESTRICTED)
    box.outbound(4000, PEER, 0.0)
    box.outbound(4000, OTHER, 0.9 * TIMEOUT_S)
    assert box.inbound(4000, PEER, 1.5 * TIMEOUT_S) is None
    assert box.inbound(4000, OTHER, 1.5 * TIMEOUT_S) == 4000


def test_a_forgotten_mapping_is_made_anew() -> None:
    box = nat(Kind.SYMMETRIC)
    before = box.outbound(4000, PEER, 0.0)
    assert box.outbound(4000, PEER, TIMEOUT_S) != before
    assert box.inbound(before, PEER, TIMEOUT_S) is None


@pytest.mark.parametrize("kind", NATS)
def test_a_box_that_begins_anew_maps_to_other_ports(kind: Kind) -> None:
    box = nat(kind)
    before = box.outbound(4000, PEER, 0.0)
    box.rebind()
    assert box.inbound(before, PEER, 0.1) is None
    assert box.outbound(4000, PEER, 0.2) not in (before, 4000)


def test_two_inner_ports_do_not_share_an_outer_one() -> None:
    box = nat(Kind.PORT_RESTRICTED)
    box.rebind()
    taken = box.outbound(4000, PEER, 0.0)
    box._preserves = True
    assert box.outbound(taken, PEER, 0.0) != taken


def test_the_tables_are_bounded() -> None:
    box = nat(Kind.SYMMETRIC)
    first = box.outbound(4000, ("198.18.1.1", 1), 0.0)
    for port in range(2, MOST_MAPPINGS + 2):
        box.outbound(4000, ("198.18.1.1", port), 0.0)
    assert len(box._by_inner) == len(box._by_outer) == MOST_MAPPINGS
    assert box.inbound(first, ("198.18.1.1", 1), 0.0) is None
    open_to_many = nat(Kind.PORT_RESTRICTED)
    for port in range(1, MOST_MAPPINGS + 2):
        open_to_many.outbound(4000, ("198.18.1.1", port), 0.0)
    assert open_to_many.inbound(4000, ("198.18.1.1", 1), 0.0) is None
    assert open_to_many.inbound(4000, ("198.18.1.1", 2), 0.0) == 4000
