"""The manner that asks periodically: when it does."""

import itertools

from agent.core.events import QueryNeighbours
from agent.core.manner import PUSH_WAIT_S, QUERY_LEAST_S, SERVER_WAIT_S, Manner
from agent.core.query_manner import QUERY_MOST_TIMES
from tests.unit.agent.core.manner_parts import chunk, known, make_manner, requests


def ask_for(manner: Manner, seconds: float, *, changed: bool, now: float = 0.0) -> list[float]:
    """Let time pass and answer each query at once; return when they went."""
    asked: list[float] = []
    end = now + seconds
    while True:
        at = manner.poll_timeout()
        assert at is not None
        if at > end:
            return asked
        for request in requests(manner, at):
            assert request == QueryNeighbours()
            asked.append(at)
            manner.on_graph(at, changed=changed)


def test_m9_the_first_query_goes_at_once() -> None:
    manner = make_manner("query")
    assert manner.poll_timeout() == 0.0
    assert requests(manner, 0.0) == [QueryNeighbours()]
    assert requests(manner, 0.0) == []


def test_m9_the_period_grows_while_the_graph_stays_up_to_four_times() -> None:
    asked = ask_for(make_manner("query", query_interval_s=10.0), 600.0, changed=False)
    pauses = [after - before for before, after in itertools.pairwise(asked)]
    most = 10.0 * QUERY_MOST_TIMES
    assert pauses[0] < 2.0
    assert 0.9 * most <= pauses[-1] <= 1.1 * most


def test_m9_the_period_shrinks_to_a_second_while_the_graph_changes() -> None:
    manner = make_manner("query", query_interval_s=30.0)
    before = ask_for(manner, 600.0, changed=False)
    manner.on_graph(600.0, changed=True)
    asked = ask_for(manner, 300.0, changed=True, now=600.0)
    pauses = [after - first for first, after in itertools.pairwise(asked)]
    assert before[-1] - before[-2] > 60.0
    assert 0.9 * QUERY_LEAST_S <= pauses[-1] <= 1.1 * QUERY_LEAST_S


def test_m9_a_query_that_failed_is_made_again_soon() -> None:
    manner = make_manner("query", query_interval_s=600.0)
    ask_for(manner, 5_000.0, changed=False)
    manner.on_failed(5_000.0)
    at = manner.poll_timeout()
    assert at is not None
    assert 5_000.0 < at <= 5_000.0 + 1.5 * QUERY_LEAST_S


def test_m9_a_chunk_goes_by_the_epoch_it_names_and_an_unknown_one_is_asked_for_besides() -> None:
    manner = make_manner("query", known(5, 6))
    requests(manner, 0.0)
    found = manner.admit(chunk(1, 5), 0.1)
    assert found is not None
    assert found.epoch == 5
    assert manner.admit(chunk(2, 7), 0.1) is None
    assert manner.poll_timeout() == 0.1 + PUSH_WAIT_S
    manner.poll_questions(0.1 + SERVER_WAIT_S)
    assert requests(manner, 0.1 + SERVER_WAIT_S) == [QueryNeighbours(7)]
