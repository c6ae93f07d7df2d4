from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lab.traces import GraphNote, LinkNote, Trace


def test_nothing_arrived_where_nothing_did() -> None:
    trace = Trace()
    assert trace.first_arrival(0.0) is None
    trace.arrived(5.0)
    assert trace.first_arrival(5.0) is None
    assert trace.first_arrival(4.0) == 4.0, "before the first arrival nothing is known"


@given(st.lists(st.floats(0.0, 100.0), min_size=2, unique=True), st.floats(0.0, 100.0))
def test_with_every_arrival_taken_down_the_first_one_after_a_time_is_exact(times: list[float], after: float) -> None:
    trace = Trace()
    for at in sorted(times):
        trace.arrived(at)
    after = max(after, min(times))
    assert trace.first_arrival(after) == min((at for at in times if at > after), default=None)


def said(silences: list[list[float]], last_at: float) -> dict[str, Any]:
    return {
        "now": 9.0,
        "links": [{"at": 1.0, "peer": "B", "state": "open"}, {"at": 4.0, "peer": "B", "state": "suspect"}],
        "graphs": [{"at": 2.0, "epoch": 7, "neighbours": {"throughput": ["B", "C"], "latency": ["D"]}}],
        "streams": {"5a": {"last_at": last_at, "silences": silences}},
    }


def test_what_an_agent_says_again_is_taken_once() -> None:
    trace = Trace()
    trace.take(said([[1.0, 1.5]], 2.0), "5a", "throughput")
    trace.take(said([[1.0, 1.5], [2.0, 3.0]], 3.5), "5a", "throughput")
    assert trace.links == [LinkNote(1.0, "B", "open"), LinkNote(4.0, "B", "suspect")]
    assert trace.graphs == [GraphNote(2.0, frozenset("BC"))]
    assert trace.silences == [(1.0, 1.5), (2.0, 3.0)]
    assert trace.first_arrival(1.2) == 1.5
    assert trace.first_arrival(1.7) == 1.7, "arrivals are close together between two silences"
    assert trace.first_arrival(2.0) == 3.0
    assert trace.first_arrival(3.5) is None


def test_another_stream_and_another_objective_do_not_count() -> None:
    trace = Trace()
    trace.take(said([[1.0, 1.5]], 2.0), "77", "balanced")
    assert trace.graphs == [GraphNote(2.0, frozenset())]
    assert trace.last_at is None
