import itertools

import pytest

from common.datagrams import BOTH_HEADERS, PacketType
from common.ids import LinkKey
from lab.clock import Agenda
from lab.nat import Kind
from lab.network import FIRST_PORT, Network
from lab.pipe import FRAME_BYTES
from lab.scenario import Access, LinkFigures, Scenario
from lab.slots import SLOT_S

Batch = tuple[float, str, int, list[bytes]]


class Hosts:
    """A, B and C with a link A-B, and everything that arrived."""

    def __init__(self, *, seed: int = 1, **figures: object) -> None:
        self.agenda = Agenda()
        self.batches: list[Batch] = []
        self.sources: list[tuple[str, int]] = []
        link = LinkFigures(**figures)  # type: ignore[arg-type]
        scenario = Scenario(name="ab", devices=("A", "B", "C"), links={("A", "B"): link})
        self.network = Network(scenario, seed, self.agenda, self._deliver)
        for device in scenario.devices:
            self.network.open_socket(device)

    def _deliver(self, device: str, socket: int, batch: list[tuple[bytes, tuple[str, int]]]) -> None:
        self.batches.append((self.agenda.now, device, socket, [datagram for datagram, _ in batch]))
        self.sources += [source for _, source in batch]

    def send(self, *datagrams: bytes, source: str = "A", target: str = "B", port: int = FIRST_PORT) -> None:
        self.network.send(source, 0, (self.network.host(target), port), datagrams)

    def arrived(self) -> list[bytes]:
        return [datagram for *_, batch in self.batches for datagram in batch]


def test_a_datagram_arrives_after_its_serialisation_and_the_delay() -> None:
    hosts = Hosts(rate_bps=1e6, delay_s=0.1)
    hosts.send(bytes(1000))
    hosts.agenda.run_to(1.0)
    [(at, device, socket, _)] = hosts.batches
    due = (1000 + FRAME_BYTES) * 8 / 1e6 + 0.1
    assert due <= at <= due + SLOT_S
    assert (device, socket) == ("B", 0)
    assert hosts.sources == [(hosts.network.host("A"), FIRST_PORT)]


def test_a_train_leaves_at_the_links_rate_and_in_order() -> None:
    hosts = Hosts(rate_bps=10e6)
    train = [bytes([number]) * 1208 for number in range(40)]
    hosts.send(*train)
    hosts.agenda.run_to(1.0)
    assert hosts.arrived() == train
    assert hosts.batches[-1][0] == pytest.approx(40 * 1250 * 8 / 10e6 + 0.001, abs=2 * SLOT_S)


def test_a_bucket_lets_an_idle_link_s_first_datagrams_through_at_once() -> None:
    hosts = Hosts(rate_bps=10e6, delay_s=0.0, bucket_s=0.02)
    hosts.send(*[bytes(1208)] * 40)
    hosts.agenda.run_to(0.001)
    assert len(hosts.arrived()) == 20
    hosts.agenda.run_to(1.0)
    assert hosts.batches[-1][0] == pytest.approx(40 * 1250 * 8 / 10e6 - 0.02, abs=2 * SLOT_S)


def test_what_arrives_in_one_slot_is_one_batch() -> None:
    hosts = Hosts(rate_bps=1e9)
    hosts.send(b"1", b"2", b"3")
    hosts.agenda.run_to(1.0)
    assert [batch for *_, batch in hosts.batches] == [[b"1", b"2", b"3"]]


def test_what_finds_the_queue_full_is_dropped() -> None:
    hosts = Hosts(rate_bps=1e6, queue_bytes=10_500)
    hosts.send(*[bytes(958)] * 30)
    hosts.agenda.run_to(1.0)
    assert len(hosts.arrived()) == 10
    assert hosts.network.dropped("A", "B") == 20
    hosts.send(b"later")
    hosts.agenda.run_to(2.0)
    assert hosts.arrived()[-1] == b"later"


def test_the_two_directions_do_not_wait_for_each_other() -> None:
    hosts = Hosts(rate_bps=1e6)
    hosts.send(*[bytes(1000)] * 5)
    hosts.send(b"back", source="B", target="A")
    hosts.agenda.run_to(0.005)
    assert hosts.arrived() == [b"back"]


def test_datagrams_travel_only_along_links() -> None:
    hosts = Hosts()
    hosts.send(b"no link", target="C")
    hosts.network.send("A", 0, ("192.0.2.1", 9), [b"nobody"])
    hosts.agenda.run_to(1.0)
    assert hosts.arrived() == []
    assert hosts.network.unroutable == 2


def test_loss_takes_its_share() -> None:
    hosts = Hosts(rate_bps=1e9, loss=0.1, queue_bytes=10_000_000)
    hosts.send(*[b"x"] * 5000)
    hosts.agenda.run_to(1.0)
    assert hosts.network.lost("A", "B") == 5000 - len(hosts.arrived())
    assert 400 < hosts.network.lost("A", "B") < 600


def test_duplication_brings_a_second_copy() -> None:
    hosts = Hosts(rate_bps=1e9, duplicate=0.5)
    hosts.send(*[b"x"] * 200)
    hosts.agenda.run_to(1.0)
    assert 260 < len(hosts.arrived()) < 340


def test_jitter_keeps_the_order_and_reordering_does_not() -> None:
    train = [number.to_bytes(2, "big") for number in range(500)]
    jittery = Hosts(rate_bps=100e6, jitter_s=0.005)
    jittery.send(*train)
    jittery.agenda.run_to(1.0)
    assert jittery.arrived() == train
    mixed = Hosts(rate_bps=10e6, reorder=0.1)
    mixed.send(*train)
    mixed.agenda.run_to(1.0)
    assert mixed.arrived() != train
    assert sorted(mixed.arrived()) == train


def test_the_same_seed_makes_the_same_faults_and_another_seed_others() -> None:
    def run(seed: int) -> list[Batch]:
        hosts = Hosts(seed=seed, rate_bps=10e6, loss=0.1, duplicate=0.1, reorder=0.1, jitter_s=0.002)
        hosts.send(*[number.to_bytes(2, "big") for number in range(300)])
        hosts.agenda.run_to(1.0)
        return hosts.batches

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_nothing_enters_a_cut_link_until_it_is_restored() -> None:
    hosts = Hosts()
    hosts.send(b"under way")
    hosts.network.cut(("A", "B"))
    hosts.send(b"cut off")
    hosts.agenda.run_to(1.0)
    hosts.network.restore(("A", "B"))
    hosts.send(b"again")
    hosts.agenda.run_to(2.0)
    assert hosts.arrived() == [b"under way", b"again"]


def test_a_degraded_link_has_its_new_figures_until_it_is_restored() -> None:
    hosts = Hosts(rate_bps=1e9, delay_s=0.0)
    hosts.network.degrade(("A", "B"), delay_s=0.5)
    hosts.send(b"slow")
    hosts.agenda.run_to(0.4)
    assert hosts.arrived() == []
    hosts.network.restore(("A", "B"))
    hosts.send(b"fast")
    hosts.agenda.run_to(0.45)
    assert hosts.arrived() == [b"fast"]


def test_each_socket_gets_its_own_batches() -> None:
    hosts = Hosts()
    assert hosts.network.open_socket("B") == (1, FIRST_PORT + 1)
    hosts.send(b"first")
    hosts.send(b"second", port=FIRST_PORT + 1)
    hosts.send(b"nobody listens", port=FIRST_PORT + 9)
    hosts.agenda.run_to(1.0)
    assert [(socket, batch) for _, _, socket, batch in hosts.batches] == [(0, [b"first"]), (1, [b"second"])]


def test_what_is_under_way_to_a_closed_socket_is_lost() -> None:
    hosts = Hosts()
    hosts.send(b"lost")
    hosts.network.close_sockets("B")
    hosts.agenda.run_to(1.0)
    assert hosts.network.open_socket("B") == (0, FIRST_PORT)
    hosts.send(b"found")
    hosts.agenda.run_to(2.0)
    assert hosts.arrived() == [b"found"]


def chunk(kind: PacketType, number: int) -> bytes:
    return BOTH_HEADERS.pack(kind << 4, 1, 1, 7, 0, 5, number).ljust(1000, b"x")


def test_every_chunk_sent_twice_is_needless_however_it_is_called() -> None:
    hosts = Hosts()
    hosts.send(*[chunk(PacketType.DATA, number) for number in range(30)])
    hosts.send(*[chunk(PacketType.REPEAT, number) for number in range(30)])
    assert hosts.network.crossings("A", "B").needless == 30


def test_repairs_of_what_the_network_lost_are_needed() -> None:
    hosts = Hosts(rate_bps=1e9, loss=0.3)
    numbers = range(200)
    hosts.send(*[chunk(PacketType.DATA, number) for number in numbers])
    hosts.send(*[chunk(PacketType.REPEAT, number) for number in numbers], b"no chunk")
    hosts.agenda.run_to(1.0)
    first = len({datagram for datagram in hosts.arrived() if datagram[0] >> 4 == PacketType.DATA})
    assert hosts.network.crossings("A", "B").needless == first
    assert 100 < first < 180


def test_repairs_of_what_a_queue_a_cut_or_a_closed_socket_swallowed_are_needed() -> None:
    hosts = Hosts(rate_bps=1e6, queue_bytes=10_500)
    hosts.send(*[chunk(PacketType.DATA, number) for number in range(30)])
    arriving = 30 - hosts.network.dropped("A", "B")
    hosts.network.close_sockets("B")
    hosts.agenda.run_to(1.0)
    hosts.network.open_socket("B")
    hosts.network.cut(("A", "B"))
    hosts.send(*[chunk(PacketType.REPEAT, number) for number in range(30)])
    hosts.network.restore(("A", "B"))
    hosts.send(chunk(PacketType.REPEAT, 0))
    crossings = hosts.network.crossings("A", "B")
    assert 0 < arriving < 30
    assert (crossings.repeats, crossings.needless) == (31, 0)


def losses_in_a_row(hosts: Hosts, count: int) -> list[int]:
    """Send numbered datagrams and return how long each run of lost ones is."""
    hosts.send(*[number.to_bytes(2, "big").ljust(1472) for number in range(count)])
    hosts.agenda.run_to(10.0)
    arrived = [-1, *(int.from_bytes(datagram[:2], "big") for datagram in hosts.arrived()), count]
    return [after - before - 1 for before, after in itertools.pairwise(arrived) if after - before > 1]


@pytest.mark.parametrize("burst", [1, 4, 20])
def test_losses_come_in_bursts_of_the_length_that_is_asked_for(burst: float) -> None:
    runs = losses_in_a_row(Hosts(rate_bps=1e9, loss=0.1, burst=burst, queue_bytes=100_000_000), 50_000)
    assert sum(runs) == pytest.approx(5_000, rel=0.2)
    expected = 1 / 0.9 if burst == 1 else burst
    assert sum(runs) / len(runs) == pytest.approx(expected, rel=0.2)


def test_a_burst_passes_though_nothing_is_sent() -> None:
    hosts = Hosts(rate_bps=1e6, loss=0.5, burst=100)
    lost = 0
    for _ in range(500):
        before = hosts.network.lost("A", "B")
        hosts.send(b"x")
        hosts.agenda.run_to(hosts.agenda.now + 10.0)
        hosts.send(b"x")
        lost += hosts.network.lost("A", "B") - before == 1
        hosts.agenda.run_to(hosts.agenda.now + 10.0)
    assert 180 < lost < 320, "ten seconds later the one says nothing of the other"


def test_a_link_that_loses_all_needs_no_bursts() -> None:
    assert losses_in_a_row(Hosts(loss=1.0, burst=8), 20) == [20]


def test_a_datagram_is_overtaken_by_no_more_than_it_may_be() -> None:
    train = [number.to_bytes(2, "big").ljust(1472, b"x") for number in range(2_000)]
    hosts = Hosts(rate_bps=10e6, reorder=0.2, reorder_by=50, queue_bytes=10_000_000)
    hosts.send(*train)
    hosts.agenda.run_to(10.0)
    order = [int.from_bytes(datagram[:2], "big") for datagram in hosts.arrived()]
    assert sorted(order) == list(range(2_000))
    overtaken = [at - number for at, number in enumerate(order)]
    assert 40 <= max(overtaken) <= 50


def test_the_way_back_may_be_another_one() -> None:
    hosts = Hosts(delay_s=0.0, back=LinkFigures(delay_s=0.2, loss=0.5))
    for _ in range(2):
        hosts.send(*[b"there"] * 100)
        hosts.send(*[b"back"] * 100, source="B", target="A")
        hosts.agenda.run_to(hosts.agenda.now + 0.1)
        assert hosts.arrived() == [b"there"] * 100
        hosts.agenda.run_to(hosts.agenda.now + 1.0)
        assert 30 < hosts.arrived().count(b"back") < 70
        hosts.batches.clear()
        hosts.network.restore(("A", "B"))
    assert (hosts.network.sent("A", "B"), hosts.network.sent("B", "A")) == (200, 200)


def test_a_datagram_larger_than_the_link_takes_vanishes_and_takes_no_time() -> None:
    hosts = Hosts(rate_bps=1e6, mtu_bytes=1280)
    hosts.send(bytes(1253), bytes(1252))
    hosts.agenda.run_to(1.0)
    assert [len(datagram) for datagram in hosts.arrived()] == [1252]
    assert hosts.batches[0][0] == pytest.approx((1252 + FRAME_BYTES) * 8 / 1e6 + 0.001, abs=2 * SLOT_S)
    assert (hosts.network.oversize("A", "B"), hosts.network.oversize("B", "A")) == (1, 0)


def test_a_link_is_an_ethernet_one_until_it_shrinks() -> None:
    hosts = Hosts()
    hosts.send(bytes(1472), bytes(1473))
    hosts.network.degrade(("A", "B"), mtu_bytes=1400)
    hosts.send(bytes(1372), bytes(1472))
    hosts.network.restore(("A", "B"))
    hosts.send(bytes(1472))
    hosts.agenda.run_to(1.0)
    assert [len(datagram) for datagram in hosts.arrived()] == [1472, 1372, 1472]


def online(*, links: dict[LinkKey, LinkFigures]) -> tuple[Network, Agenda, list[tuple[str, int, bytes]]]:
    """Lay out A and B on the internet, A behind a NAT, and C."""
    agenda, arrived = Agenda(), list[tuple[str, int, bytes]]()
    internet = {"A": Access(Kind.PORT_RESTRICTED), "B": Access(Kind.OPEN)}
    scenario = Scenario(name="online", devices=("A", "B", "C"), links=links, internet=internet)
    network = Network(
        scenario, 1, agenda, lambda device, socket, batch: arrived.extend((device, socket, each) for each, _ in batch)
    )
    for device in scenario.devices:
        network.open_socket(device)
    return network, agenda, arrived


def test_devices_on_the_internet_reach_each_other_without_a_link() -> None:
    network, agenda, arrived = online(links={("B", "C"): LinkFigures()})
    assert [len(network.hosts(device)) for device in "ABC"] == [1, 2, 1]
    network.send("A", 0, (network.internet.public_host("B"), FIRST_PORT), [b"out"])
    agenda.run_to(1.0)
    network.send("B", 0, (network.internet.public_host("A"), FIRST_PORT), [b"back"])
    network.send("B", 0, (network.host("C"), FIRST_PORT), [b"by link"])
    network.send("C", 0, (network.internet.public_host("B"), FIRST_PORT), [b"no way"])
    agenda.run_to(2.0)
    assert sorted(arrived) == [("A", 0, b"back"), ("B", 0, b"out"), ("C", 0, b"by link")]
    assert network.unroutable == 1


def test_what_comes_from_the_internet_for_a_closed_socket_is_lost() -> None:
    network, agenda, arrived = online(links={})
    network.close_sockets("B")
    network.send("A", 0, (network.internet.public_host("B"), FIRST_PORT), [b"x"])
    network.send("A", 0, (network.internet.public_host("B"), 9), [b"x"])
    agenda.run_to(1.0)
    assert arrived == []
