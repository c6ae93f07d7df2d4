import random
from dataclasses import replace

import pytest

from common.ids import DeviceId
from lab.happenings import Happening, Verb
from lab.progress import QuietWatcher
from lab.report import Report
from lab.scenario import LinkFigures, Scenario
from lab.simulated_run import LEAST_PATIENCE_S, patience_s, run_simulation

LINE = Scenario(
    name="line",
    devices=("A", "B", "C"),
    links={("A", "B"): LinkFigures(), ("B", "C"): LinkFigures(rate_bps=10e6)},
)
DATA = random.Random(1).randbytes(1_000_000)


class Recorder(QuietWatcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.held: dict[DeviceId, list[int]] = {}

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def progress(self, device: DeviceId, held_bytes: int) -> None:
        self.held.setdefault(device, []).append(held_bytes)


def run(scenario: Scenario, *, within: float | None = None, watcher: Recorder | None = None) -> Report:
    return run_simulation(
        scenario, data=DATA, name="x.bin", source="A", seed=1, within=within, watcher=watcher or Recorder()
    )


def test_a_run_reports_devices_channels_and_the_bottleneck() -> None:
    watcher = Recorder()
    report = run(LINE, watcher=watcher)
    assert report.ok
    assert report.edges == (("A", "B"), ("B", "C"))
    assert report.bottleneck_bps == 10e6
    assert report.channels["A", "B"].unicast_bytes == 2 * report.channels["A", "B"].bytes
    seconds = report.devices["C"].seconds
    assert seconds is not None
    assert 0.8 < seconds < 1.2
    assert watcher.said == [f"graph of epoch {report.epoch} spans all 3 devices"]
    for held in watcher.held.values():
        assert held == sorted(held)
        assert held[-1] == len(DATA)


def test_a_dead_device_is_told_and_the_rest_is_judged() -> None:
    report = run(replace(LINE, happenings=(Happening(0.0, Verb.KILL, device="C"),)), within=3.0)
    assert not report.ok
    assert report.devices["B"].sha256_ok
    assert report.devices["C"].note == "the device is dead"
    assert "was not reached within 3.0 s" in report.trouble[0]


def test_a_device_behind_a_cut_link_is_still_receiving_at_the_end() -> None:
    report = run(replace(LINE, happenings=(Happening(0.1, Verb.CUT, link=("B", "C")),)), within=3.0)
    assert report.devices["C"].note == "still receiving"


def test_a_run_without_a_graph_is_a_failure_and_no_crash() -> None:
    apart = replace(LINE, links={("A", "B"): LinkFigures()})
    report = run(apart)
    assert not report.ok
    assert "one graph over all devices was not reached" in report.trouble[0]


def test_a_run_that_ends_without_a_server_reports_no_graph() -> None:
    report = run(replace(LINE, happenings=(Happening(0.1, Verb.KILL),)))
    assert all(outcome.sha256_ok for outcome in report.devices.values())
    assert report.epoch is None


def test_patience_grows_with_the_file_and_waits_for_the_last_happening() -> None:
    assert patience_s(LINE, 1000) == LEAST_PATIENCE_S
    assert patience_s(LINE, 100_000_000) == 10 * 8 * 100_000_000 / 10e6
    assert patience_s(replace(LINE, happenings=(Happening(7.0, Verb.KILL),)), 1000) == LEAST_PATIENCE_S + 7.0


def test_a_cut_tells_when_it_was_noticed_and_when_data_flowed_again() -> None:
    links = {
        ("A", "B"): LinkFigures(rate_bps=10e6),
        ("A", "C"): LinkFigures(rate_bps=8e6),
        ("B", "C"): LinkFigures(rate_bps=5e6),
    }
    happenings = (
        Happening(0.1, Verb.CUT, link=("A", "B")),
        Happening(0.2, Verb.KILL),
        Happening(0.3, Verb.RESTORE, link=("B", "C")),
        Happening(0.4, Verb.START),
    )
    report = run(replace(LINE, links=links, happenings=happenings))
    assert report.ok
    cut, *others = report.events
    assert (cut.event, cut.cut_off) == ("cut A-B", ("B",))
    assert cut.at == pytest.approx(0.1)
    assert cut.detected_s is not None
    assert cut.recovered_s is not None
    assert 0.0 < cut.detected_s < cut.recovered_s
    assert [(other.event, other.detected_s, other.recovered_s) for other in others] == [
        ("kill server", None, None),
        ("restore B-C", None, None),
        ("start server", None, None),
    ]


def test_what_arrives_is_looked_at_only_where_something_happens() -> None:
    report = run(LINE)
    assert report.events == []
