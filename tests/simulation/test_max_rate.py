"""What a cap lets leave a device, measured on the links: within five percent of it, whatever is sent or lost."""

from dataclasses import replace

import pytest

from agent.core.config import NodeConfig
from common.ids import DeviceId
from lab.device import SimulatedDevice
from lab.scenario import LinkFigures, Scenario
from lab.simulator import Simulation

SIZE = 64 << 20
PEERS = ("B", "C", "D")


def star(loss: float = 0.0) -> Scenario:
    """Return A in the middle of three fast links."""
    links = {("A", peer): LinkFigures(rate_bps=100e6, delay_s=0.005, loss=loss) for peer in PEERS}
    return Scenario(name="star", devices=("A", *PEERS), links=links)


class Capped:
    """A sends a file without end for these tests; its cap is what the test says."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        scenario: Scenario,
        *,
        max_rate_bps: float | None = None,
        max_rates: dict[DeviceId, float] | None = None,
    ) -> None:
        config_of = SimulatedDevice._config

        def capped(device: SimulatedDevice, port: int) -> NodeConfig:
            config = config_of(device, port)
            if device.name != "A":
                return config
            return replace(config, max_rate_bps=max_rate_bps, max_rates=max_rates or {})

        monkeypatch.setattr(SimulatedDevice, "_config", capped)
        self.simulation = Simulation(scenario)
        self.simulation.settle()
        self.simulation.send_file("A", "files", "load.bin", bytes(SIZE))
        self.simulation.run_for(1.0)

    def sent(self) -> dict[DeviceId, int]:
        """Return the bytes of chunk datagrams that left A so far, by peer, as the links saw them."""
        crossings = {peer: self.simulation.network.crossings("A", peer) for peer in PEERS}
        return {peer: crossed.data_bytes + crossed.repair_bytes for peer, crossed in crossings.items()}

    def rates(self, seconds: float) -> dict[DeviceId, float]:
        """Let time pass and return the bits per second that left A meanwhile, by peer."""
        before = self.sent()
        self.simulation.run_for(seconds)
        return {peer: (sent - before[peer]) * 8 / seconds for peer, sent in self.sent().items()}


@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_three_next_hops_keep_to_the_devices_cap_together(monkeypatch: pytest.MonkeyPatch, loss: float) -> None:
    capped = Capped(monkeypatch, star(loss=loss), max_rate_bps=20e6)
    for _ in range(3):
        rates = capped.rates(1.0)
        assert sum(rates.values()) == pytest.approx(20e6, rel=0.05)
        assert max(rates.values()) <= 1.25 * min(rates.values())
    repeats = [capped.simulation.network.crossings("A", peer).repeats for peer in PEERS]
    assert (min(repeats) > 0) == (loss > 0)


def test_one_links_cap_holds_for_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    capped = Capped(monkeypatch, star(), max_rates={"B": 5e6})
    rates = capped.rates(2.0)
    assert rates["B"] == pytest.approx(5e6, rel=0.05)
    assert min(rates["C"], rates["D"]) > 80e6


def test_a_links_cap_within_the_devices_leaves_the_rest_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    capped = Capped(monkeypatch, star(), max_rate_bps=20e6, max_rates={"B": 2e6})
    rates = capped.rates(3.0)
    assert sum(rates.values()) == pytest.approx(20e6, rel=0.05)
    assert rates["B"] == pytest.approx(2e6, rel=0.05)
    assert rates["C"] == pytest.approx(9e6, rel=0.1)


def test_a_cap_with_loss_counts_what_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    capped = Capped(monkeypatch, star(loss=0.05), max_rates=dict.fromkeys(PEERS, 5e6))
    for rate in capped.rates(4.0).values():
        assert rate == pytest.approx(5e6, rel=0.05)
    assert capped.simulation.network.crossings("A", "B").repeats > 0


def test_a_cap_that_is_no_limit_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    capped = Capped(monkeypatch, star(), max_rate_bps=1e9)
    assert min(capped.rates(0.5).values()) > 80e6
