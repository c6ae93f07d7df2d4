"""What agents measure that are told nothing, against what the links are (issue 4, Measurement).

Delay within 10 % or 1 ms, loss within 1 point after 30 s, bandwidth within 20 % at 5 to 200 Mbit/s: loaded, and idle
within 60 s, behind a token bucket of 20 ms of the link's rate.
"""

from collections.abc import Collection, Sequence

import pytest
from _pytest.mark import ParameterSet

from common.messages import QosFigures
from lab.scenario import LinkFigures, Scenario
from lab.simulator import Simulation

RATES_BPS = (5e6, 10e6, 20e6, 50e6, 100e6, 200e6)
PATHS = ((0.001, 0.0), (0.01, 0.01), (0.02, 0.05), (0.1, 0.01))
"""Delay in seconds and share of datagrams lost."""
BUCKET_S = 0.02
LOADED_S = 12.0
IDLE_S = 60.0
IDLE_LOSS_S = 30.0
IDLE_SHARE = 0.01


def ladder(rates_bps: Sequence[float], usual: Collection[tuple[float, int]]) -> list[ParameterSet]:
    """Return every rate with every path: the usual ones, by a path's place, for `make test`, others for `make sim`."""
    return [
        pytest.param(rate_bps, *path, marks=() if (rate_bps, place) in usual else pytest.mark.soak)
        for rate_bps in rates_bps
        for place, path in enumerate(PATHS)
    ]


def pair(rate_bps: float, delay_s: float, loss: float) -> Scenario:
    link = LinkFigures(rate_bps, delay_s=delay_s, loss=loss, bucket_s=BUCKET_S)
    return Scenario("accuracy", ("A", "B"), {("A", "B"): link}, seed=1, declared=False, datagram_bytes=1_472)


def figures(simulation: Simulation, device: str = "A", peer: str = "B") -> QosFigures:
    return simulation.node(device).peers.figures(peer)


def check_delay_and_loss(found: QosFigures, delay_s: float, loss: float) -> None:
    assert found.delay_s == pytest.approx(delay_s, rel=0.1, abs=0.001)
    assert found.loss == pytest.approx(loss, abs=0.01)


@pytest.mark.parametrize(
    ("rate_bps", "delay_s", "loss"),
    ladder(RATES_BPS, {(rate_bps, turn % len(PATHS)) for turn, rate_bps in enumerate(RATES_BPS)}),
)
def test_an_idle_link_is_measured_within_a_minute_for_a_hundredth_of_it(
    rate_bps: float, delay_s: float, loss: float
) -> None:
    with Simulation(pair(rate_bps, delay_s, loss)) as simulation:
        simulation.settle()
        simulation.run_until(IDLE_LOSS_S)
        check_delay_and_loss(figures(simulation), delay_s, loss)
        simulation.run_until(IDLE_S)
        for device, peer in ("AB", "BA"):
            found = figures(simulation, device, peer)
            check_delay_and_loss(found, delay_s, loss)
            assert found.bandwidth_bps == pytest.approx(rate_bps, rel=0.2)
        simulation.run_until(5 * IDLE_S)
        for device, peer in ("AB", "BA"):
            check_delay_and_loss(figures(simulation, device, peer), delay_s, loss)
            (link,) = simulation.node(device).status(now=simulation.now).links
            assert link.bandwidth_bps == pytest.approx(rate_bps, rel=0.2)
            assert 8 * link.bytes_sent <= IDLE_SHARE * rate_bps * simulation.now
            assert "trainreport-refused" not in simulation.node(device).drops


@pytest.mark.parametrize(
    ("rate_bps", "delay_s", "loss"),
    ladder(RATES_BPS[:4], {(5e6, 0), (10e6, 1), (20e6, 2), (10e6, 3)}),
)
def test_a_loaded_link_is_measured_by_what_it_carries(rate_bps: float, delay_s: float, loss: float) -> None:
    with Simulation(pair(rate_bps, delay_s, loss)) as simulation:
        simulation.settle()
        simulation.send_file("A", "files", "load.bin", bytes(round(rate_bps * (LOADED_S + 3.0) / 8)))
        simulation.run_for(LOADED_S)
        found = figures(simulation)
        check_delay_and_loss(found, delay_s, loss)
        assert found.bandwidth_bps == pytest.approx(rate_bps, rel=0.2)


@pytest.mark.parametrize(
    ("rate_bps", "loss"),
    [
        *((5e6, loss) for loss in (0.0, 0.01, 0.05)),
        (20e6, 0.01),
        *(pytest.param(20e6, loss, marks=pytest.mark.soak) for loss in (0.0, 0.05)),
    ],
)
def test_what_a_short_buffer_drops_is_not_the_link_s_loss(rate_bps: float, loss: float) -> None:
    buffer_bytes = max(round(0.02 * rate_bps / 8), 8 * 1_514)
    link = LinkFigures(rate_bps, delay_s=0.0001, loss=loss, queue_bytes=buffer_bytes)
    scenario = Scenario("short buffer", ("A", "B"), {("A", "B"): link}, seed=1, declared=False, datagram_bytes=1_472)
    with Simulation(scenario) as simulation:
        simulation.settle()
        simulation.send_file("A", "files", "load.bin", bytes(round(rate_bps * (LOADED_S + 3.0) / 8)))
        simulation.run_for(LOADED_S)
        assert simulation.network.dropped("A", "B") > 0 or rate_bps > 5e6
        check_delay_and_loss(figures(simulation), 0.0001, loss)


@pytest.mark.parametrize("rate_bps", [pytest.param(100e6, marks=pytest.mark.soak), 200e6])
def test_a_fast_loaded_link_is_measured_by_what_it_carries(rate_bps: float) -> None:
    with Simulation(pair(rate_bps, 0.01, 0.01)) as simulation:
        simulation.settle()
        simulation.send_file("A", "files", "load.bin", bytes(round(rate_bps * 5.0 / 8)))
        simulation.run_for(4.0)
        found = figures(simulation)
        check_delay_and_loss(found, 0.01, 0.01)
        assert found.bandwidth_bps == pytest.approx(rate_bps, rel=0.2)


def test_the_two_directions_are_measured_apart() -> None:
    there = LinkFigures(20e6, delay_s=0.01, bucket_s=BUCKET_S, loss=0.05)
    link = LinkFigures(100e6, delay_s=0.01, bucket_s=BUCKET_S, back=there)
    scenario = Scenario("two ways", ("A", "B"), {("A", "B"): link}, seed=1, declared=False, datagram_bytes=1_472)
    with Simulation(scenario) as simulation:
        simulation.settle()
        simulation.run_until(IDLE_S)
        forward, backward = figures(simulation), figures(simulation, "B", "A")
        assert forward.bandwidth_bps == pytest.approx(100e6, rel=0.2)
        assert backward.bandwidth_bps == pytest.approx(20e6, rel=0.2)
        assert forward.loss == pytest.approx(0.0, abs=0.01)
        assert backward.loss == pytest.approx(0.05, abs=0.01)
        group = simulation.server.group
        assert group is not None
        (known,) = group.links()
        assert known.forward is not None
        assert known.backward is not None
        assert known.forward.bandwidth_bps == pytest.approx(100e6, rel=0.2)
        assert known.figures.bandwidth_bps == known.backward.bandwidth_bps
        assert known.figures.loss == known.backward.loss


def test_what_is_declared_bounds_what_is_measured_and_a_link_that_falls_below_it_is_noticed() -> None:
    link = LinkFigures(50e6, delay_s=0.01, bucket_s=BUCKET_S)
    scenario = Scenario("declared", ("A", "B"), {("A", "B"): link}, seed=1, datagram_bytes=1_472)
    with Simulation(scenario) as simulation:
        simulation.settle()
        simulation.run_for(30.0)
        assert figures(simulation).bandwidth_bps == 50e6
        simulation.send_file("A", "files", "load.bin", bytes(20_000_000))
        simulation.run_for(2.0)
        assert figures(simulation).bandwidth_bps == pytest.approx(50e6, rel=0.1)
        simulation.network.degrade(("A", "B"), rate_bps=5e6)
        simulation.run_for(4.0)
        assert figures(simulation).bandwidth_bps == pytest.approx(5e6, rel=0.2)
