"""Datagrams as large as the links take: found by probes before data flows, and what happens when a path takes less."""

import random
from collections.abc import Mapping

import pytest

from common.ids import DeviceId, LinkKey
from lab.happenings import parse_happening
from lab.scenario import LinkFigures, Scenario
from lab.simulator import Simulation

SEEDS = [1, 2, 3]
RATE_BPS = 20e6


def chain(*mtus: int, **weather: float) -> Scenario:
    """Return devices in a row, A first, over links that take so much."""
    devices = tuple("ABCDE"[: len(mtus) + 1])
    links: dict[LinkKey, LinkFigures] = {
        (a, b): LinkFigures(rate_bps=RATE_BPS, delay_s=0.01, mtu_bytes=mtu, **weather)  # type: ignore[arg-type]
        for a, b, mtu in zip(devices, devices[1:], mtus, strict=False)
    }
    return Scenario(name="chain", devices=devices, links=links)


def group_sizes(simulation: Simulation) -> set[int | None]:
    return {simulation.node(device).streams.group_mtu_bytes for device in simulation.scenario.devices}


def links_take(simulation: Simulation) -> Mapping[tuple[DeviceId, DeviceId], int | None]:
    return {
        (device, link.peer): link.mtu_bytes
        for device in simulation.scenario.devices
        for link in simulation.node(device).status(now=simulation.now).links
    }


def datagram_bytes(simulation: Simulation, device: DeviceId, stream: str) -> int:
    return simulation.node(device).streams.by_short[int(stream[:8], 16)].stream.datagram_bytes


def send(simulation: Simulation, size_bytes: int, *happenings: str, after: float = 0.2) -> str:
    """Send a file from A while things happen, and make sure that it arrives everywhere as it is."""
    data = random.Random(5).randbytes(size_bytes)
    receivers = list(simulation.scenario.devices[1:])
    stream = simulation.send_file("A", "files", "f.bin", data)
    simulation.run_for(after if happenings else 0.0)
    for text in happenings:
        scenario = simulation.scenario
        simulation.happen(parse_happening(0.0, text, scenario.devices, scenario.links))
    simulation.run_until(lambda: simulation.verified(stream) == receivers, what="the file at every device")
    for device in receivers:
        assert simulation.content(device, stream) == data
    for link in simulation.scenario.links:
        assert simulation.network.crossings(*link, stream).duplicates == 0
    return stream


@pytest.mark.parametrize(
    ("mtus", "expected"), [((1_500, 1_500), 1_472), ((9_000, 9_000), 8_972), ((9_000, 1_500, 1_280), 1_252)]
)
def test_a_stream_that_is_opened_at_once_fills_the_frames_of_the_narrowest_link(
    mtus: tuple[int, ...], expected: int
) -> None:
    with Simulation(chain(*mtus)) as simulation:
        simulation.settle()
        assert simulation.now < 0.5
        assert group_sizes(simulation) == {expected}
        assert links_take(simulation) == {
            pair: mtu - 28
            for (a, b), mtu in zip(simulation.scenario.links, mtus, strict=True)
            for pair in ((a, b), (b, a))
        }
        stream = send(simulation, 500_000)
        for device in simulation.scenario.devices:
            assert datagram_bytes(simulation, device, stream) == expected
        for link in simulation.scenario.links:
            assert simulation.network.crossings(*link, stream).repairs == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_probes_are_made_up_for(seed: int) -> None:
    with Simulation(chain(1_500, 1_500, loss=0.2), seed=seed) as simulation:
        simulation.settle()
        simulation.run_for(100.0)
        assert set(links_take(simulation).values()) == {1_472}
        assert group_sizes(simulation) == {1_472}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weather", [{}, {"loss": 0.03, "jitter_s": 0.005, "reorder": 0.02, "duplicate": 0.02}])
def test_a_path_that_comes_to_take_less_gets_fragments_and_every_byte_arrives_once(
    seed: int, weather: Mapping[str, float]
) -> None:
    with Simulation(chain(1_500, 1_500, 1_500, **weather), seed=seed) as simulation:
        simulation.settle()
        simulation.run_for(5.0)
        stream = send(simulation, 2_000_000, "degrade B-C mtu=1400")
        assert datagram_bytes(simulation, "D", stream) == 1_472
        assert links_take(simulation)["B", "C"] == 1_372
        middle, last = (simulation.network.crossings(*link, stream) for link in (("B", "C"), ("C", "D")))
        assert middle.chunks == last.chunks
        # Two fragments of 18 bytes of headers each take the place of one chunk with a hop header of 12.
        assert middle.data_bytes > last.data_bytes
        # Both ends hear of it, and the next stream is cut to fit.
        simulation.run_for(0.2)
        assert group_sizes(simulation) == {1_372}
        again = send(simulation, 100_000)
        assert datagram_bytes(simulation, "D", again) == 1_372


def test_a_jumbo_path_that_shrinks_to_the_least_takes_eight_fragments() -> None:
    with Simulation(chain(9_000, 9_000)) as simulation:
        simulation.settle()
        stream = send(simulation, 2_000_000, "degrade A-B mtu=1280", after=0.1)
        assert datagram_bytes(simulation, "C", stream) == 8_972
        assert links_take(simulation)["A", "B"] == 1_252
        assert simulation.network.crossings("B", "C", stream).data_bytes < 2_020_000


def test_a_path_that_widens_again_is_found_out_for_later_streams() -> None:
    with Simulation(chain(1_500, 1_500)) as simulation:
        simulation.settle()
        send(simulation, 1_000_000, "degrade A-B mtu=1400", after=0.1)
        simulation.run_for(0.2)
        assert group_sizes(simulation) == {1_372}
        simulation.happen(parse_happening(0.0, "restore A-B", ("A", "B", "C"), simulation.scenario.links))
        simulation.run_for(40.0)
        assert group_sizes(simulation) == {1_472}


def test_a_late_link_that_takes_less_carries_an_open_stream_in_fragments() -> None:
    with Simulation(chain(1_500, 1_280)) as simulation:
        simulation.kill("C")
        simulation.run_until(lambda: group_sizes_of(simulation, "AB") == {1_472}, what="A and B alone")
        data = random.Random(6).randbytes(1_000_000)
        stream = simulation.send_file("A", "files", "f.bin", data)
        simulation.run_for(0.2)
        simulation.start("C")
        simulation.run_until(lambda: simulation.verified(stream) == ["B", "C"], what="the file at both")
        assert datagram_bytes(simulation, "C", stream) == 1_472
        assert simulation.content("C", stream) == data
        assert simulation.network.crossings("B", "C", stream).duplicates == 0
        assert simulation.network.oversize("B", "C") < 50


def group_sizes_of(simulation: Simulation, devices: str) -> set[int | None]:
    return {simulation.node(device).streams.group_mtu_bytes for device in devices}


def test_a_link_that_is_gone_for_a_while_keeps_its_size() -> None:
    with Simulation(chain(1_500, 1_500)) as simulation:
        simulation.settle()
        stream = simulation.send_file("A", "files", "f.bin", random.Random(7).randbytes(1_000_000))
        simulation.run_for(0.1)
        simulation.network.cut(("A", "B"))
        simulation.run_for(0.8)
        simulation.network.restore(("A", "B"))
        simulation.run_until(lambda: simulation.verified(stream) == ["B", "C"], what="the file at both")
        assert links_take(simulation)["A", "B"] == 1_472


def test_devices_that_allow_the_least_alone_send_no_probes() -> None:
    scenario = chain(1_500, 1_500)
    small = Scenario(name="small", devices=scenario.devices, links=scenario.links, datagram_bytes=1_200, happenings=())
    with Simulation(small) as simulation:
        simulation.settle()
        assert group_sizes(simulation) == {1_200}
        assert datagram_bytes(simulation, "A", send(simulation, 100_000)) == 1_200
