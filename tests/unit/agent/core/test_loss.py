"""What share a link loses, from probes, from what flows, and from series."""

import random

import pytest

from agent.core.loss import (
    FLOW_FRESH_S,
    PROBES_LEAST,
    SERIES_FRESH_S,
    SERIES_PACKETS,
    WINDOW_MOST_S,
    WINDOW_S,
    LossMeter,
)


class Flow:
    """Packets over a link, acknowledged a hundred times a second."""

    def __init__(self, meter: LossMeter, *, seed: int = 1) -> None:
        self.meter = meter
        self.now = 0.0
        self._rng = random.Random(seed)
        self._sent = self._lost = 0
        self._shallow_sent = self._shallow_lost = 0

    def run(self, seconds: float, *, loss: float, per_second: int = 500, full: float = 0.0, deep: float = 0.0) -> None:
        """Let data flow; a full queue drops a share of every tenth half second, or of each other packet all along."""
        for _ in range(round(100 * seconds)):
            self.now += 0.01
            overflows = full > 0 and int(self.now / WINDOW_S) % 10 == 0
            for _ in range(per_second // 100):
                self._sent += 1
                found_deep = deep > 0 and self._rng.random() < 0.5
                lost = self._rng.random() < (full if overflows else deep if found_deep else loss)
                self._lost += lost
                if deep > 0 and not found_deep:
                    self._shallow_sent += 1
                    self._shallow_lost += lost
            shallow = (self._shallow_sent, self._shallow_lost)
            self.meter.on_flow((self._sent, self._lost), shallow, self.now)


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05, 0.1])
def test_what_flows_tells_the_loss_within_a_point(loss: float) -> None:
    flow = Flow(LossMeter())
    flow.run(10.0, loss=loss)
    assert flow.meter.share == pytest.approx(loss, abs=0.01)
    assert not flow.meter.doubt


def test_a_loss_that_begins_is_told_within_three_seconds_and_so_is_its_end() -> None:
    flow = Flow(LossMeter())
    flow.run(10.0, loss=0.0)
    flow.run(3.0, loss=0.1)
    assert flow.meter.share == pytest.approx(0.1, abs=0.025)
    flow.run(10.0, loss=0.1)
    flow.run(3.0, loss=0.0)
    assert flow.meter.share == pytest.approx(0.0, abs=0.025)


def test_what_a_full_queue_drops_now_and_then_is_not_the_link_s_loss() -> None:
    flow = Flow(LossMeter())
    flow.run(20.0, loss=0.01, full=0.4)
    assert flow.meter.share == pytest.approx(0.01, abs=0.01)


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_what_a_queue_drops_that_is_full_all_the_time_is_not_the_link_s_loss_either(loss: float) -> None:
    flow = Flow(LossMeter())
    flow.run(10.0, loss=loss, deep=0.15)
    assert flow.meter.share == pytest.approx(loss, abs=0.012)


def test_packets_that_came_late_are_no_loss() -> None:
    meter = LossMeter()
    for turn in range(40):
        meter.on_flow((100 * turn, 5 if turn % 2 else 0), (0, 0), 0.5 * turn)
    assert meter.share <= 0.03


def test_a_thin_flow_needs_longer_and_one_of_nothing_has_no_windows() -> None:
    meter = LossMeter()
    for turn in range(30):
        meter.on_flow((4 * turn, 0), (0, 0), turn * 1.0)
        meter.on_probes(1, 0, turn * 1.0)
    assert meter.share == 0.0
    for turn in range(20):
        meter.on_flow((116, 0), (0, 0), 29.0 + turn * WINDOW_MOST_S / 2)
    assert meter.share == 0.0


def test_a_lost_probe_among_the_first_is_not_a_tenth_but_a_reason_to_doubt() -> None:
    meter = LossMeter()
    for turn in range(10):
        meter.on_probes(1, int(turn == 5), float(turn))
    assert meter.share == 1 / PROBES_LEAST
    assert meter.doubt


def test_probes_of_more_than_a_minute_ago_count_no_longer() -> None:
    meter = LossMeter()
    meter.on_probes(1, 1, 0.0)
    for turn in range(70):
        meter.on_probes(1, 0, float(turn))
    assert meter.share == 0.0
    assert not meter.doubt
    meter.on_probes(0, 0, 71.0)
    assert meter.share == 0.0


def test_a_series_settles_a_doubt_and_stands_until_probes_contradict_it() -> None:
    meter = LossMeter()
    meter.on_probes(1, 1, 0.0)
    meter.on_series(400, 400, 2.0, first=True)
    assert (meter.doubt, meter.series_wanted) == (False, False)
    assert meter.share == 0.0
    doubts = []
    for at in (3.0, 4.0):
        meter.on_probes(4, 1, at)
        doubts.append(meter.doubt)
    assert doubts == [False, True]
    assert meter.share == pytest.approx(2 / 408)


def test_a_series_that_lost_something_goes_on_until_it_is_long_enough() -> None:
    meter, sent = LossMeter(), 0
    meter.on_series(400, 380, 1.0, first=True)
    while meter.series_wanted:
        meter.on_series(400, 380, 2.0, first=False)
        sent += 400
    assert sent + 400 == SERIES_PACKETS
    assert meter.share == pytest.approx(0.05)
    for turn in range(240):
        meter.on_probes(1, 0, 3.0 + 0.25 * turn)
    assert meter.doubt


def test_series_that_agree_count_together_and_one_that_does_not_counts_alone() -> None:
    meter = LossMeter()
    for arrived in (2_280, 2_256, 2_280, 2_256):
        meter.on_series(2_400, arrived, 1.0, first=True)
    assert meter.share == pytest.approx(0.055, abs=0.002)
    meter.on_series(2_400, 2_040, 2.0, first=True)
    assert meter.share == pytest.approx(0.15)


def test_a_series_goes_on_only_from_one_that_has_begun() -> None:
    meter = LossMeter()
    meter.on_series(400, 396, 1.0, first=False)
    assert meter.share == pytest.approx(0.01)


def test_an_old_series_is_forgotten() -> None:
    meter = LossMeter()
    meter.on_series(400, 360, 0.0, first=True)
    meter.on_probes(1, 0, SERIES_FRESH_S + 1.0)
    assert meter.share == 0.0


def test_probes_beside_a_flow_do_not_count_and_what_flowed_stands_when_it_ends() -> None:
    flow = Flow(LossMeter())
    flow.run(10.0, loss=0.05)
    told = flow.meter.share
    for _ in range(8):
        flow.meter.on_probes(1, 1, flow.now)
    assert flow.meter.share == told
    flow.meter.on_probes(20, 1, flow.now + FLOW_FRESH_S + 1.0)
    assert flow.meter.share == pytest.approx(told, abs=0.001)
    assert not flow.meter.doubt
    flow.now += FLOW_FRESH_S + 5.0
    flow.run(10.0, loss=0.0)
    assert flow.meter.share == pytest.approx(0.0, abs=0.01)
