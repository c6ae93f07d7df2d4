"""Which figures the server should know at once."""

import pytest

from agent.core.bulletin import LOOK_S, Bulletin, matters
from common.messages import QosFigures

TOLD = QosFigures(bandwidth_bps=10e6, delay_s=0.01, jitter_s=0.001, loss=0.01, mtu_bytes=1_472)


@pytest.mark.parametrize(
    ("figure", "same", "other"),
    [
        ("bandwidth_bps", 7.1e6, 6.9e6),
        ("bandwidth_bps", 12.9e6, 13.1e6),
        ("bandwidth_bps", 10e6, None),
        ("delay_s", 0.0129, 0.0131),
        ("delay_s", 0.0071, 0.0069),
        ("loss", 0.029, 0.031),
        ("loss", 0.0, 1.0),
    ],
)
def test_a_figure_matters_when_it_differs_clearly(figure: str, same: float, other: float | None) -> None:
    assert not matters(TOLD, TOLD.model_copy(update={figure: same}))
    assert matters(TOLD, TOLD.model_copy(update={figure: other}))


def test_a_short_delay_may_change_by_two_milliseconds() -> None:
    told = QosFigures(delay_s=0.0001)
    assert not matters(told, QosFigures(delay_s=0.002))
    assert matters(told, QosFigures(delay_s=0.0022))


def test_what_becomes_known_matters_and_what_stays_unknown_does_not() -> None:
    assert matters(QosFigures(), QosFigures(bandwidth_bps=1e6))
    assert not matters(QosFigures(), QosFigures())


def test_jitter_and_mtu_wait_for_the_next_report() -> None:
    assert not matters(TOLD, TOLD.model_copy(update={"jitter_s": 1.0, "mtu_bytes": 1_200}))


def test_only_what_changed_is_told_and_once() -> None:
    bulletin = Bulletin()
    bulletin.tell_all({"B": TOLD, "C": TOLD})
    slow = TOLD.model_copy(update={"bandwidth_bps": 1e6})
    assert bulletin.tell_changed({"B": slow, "C": TOLD, "D": slow}) == {"B": slow}
    assert bulletin.tell_changed({"B": slow, "C": TOLD}) == {}


def test_there_are_four_looks_a_second_at_most() -> None:
    bulletin = Bulletin()
    looks = [now for now in (0.01 * turn for turn in range(100, 300)) if bulletin.due(now)]
    assert len(looks) <= 2 / LOOK_S
