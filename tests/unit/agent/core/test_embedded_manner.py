"""The manner whose graphs travel with the stream: who asks whom for them."""

from agent.core.events import QueryGraph
from agent.core.manner import PUSH_WAIT_S, QUERY_LEAST_S, SERVER_WAIT_S
from tests.unit.agent.core.manner_parts import chunk, gone, make_manner, requests
from tests.unit.agent.core.parts import MESSAGE, graph, make_stream


def test_m12_the_source_fetches_the_whole_graph_and_looks_after_it() -> None:
    manner = make_manner("embedded", query_interval_s=10.0)
    assert requests(manner, 0.0) == []
    assert manner.poll_timeout() is None
    manner.on_source(1.0)
    assert manner.poll_timeout() == 1.0
    assert requests(manner, 1.0) == [QueryGraph()]
    manner.on_resume(2.0)
    at = manner.poll_timeout()
    assert at is not None
    assert 10.0 <= at <= 12.0
    assert requests(manner, at) == [QueryGraph()]


def test_m12_a_fetch_that_failed_is_made_again_soon() -> None:
    manner = make_manner("embedded", query_interval_s=600.0)
    manner.on_failed(0.0)
    assert manner.poll_timeout() is None
    manner.on_source(0.0)
    requests(manner, 0.0)
    manner.on_failed(1.0)
    at = manner.poll_timeout()
    assert at is not None
    assert 1.0 < at <= 1.0 + 1.5 * QUERY_LEAST_S


def test_m12_a_relay_goes_by_the_streams_own_graph_and_asks_nobody_but_the_previous_hop() -> None:
    stream = make_stream(MESSAGE)
    manner = make_manner("embedded")
    assert manner.table_of(stream) is stream.graphs
    assert not manner.may_cut(stream)
    assert manner.admit(chunk(1, 7, stream=stream), 0.0) is None
    assert not manner.waits_for(7)
    assert manner.poll_timeout() == PUSH_WAIT_S
    assert manner.poll_questions(PUSH_WAIT_S) == [("A", stream.short, 7)]
    assert manner.poll_questions(SERVER_WAIT_S) == []
    assert requests(manner, 100.0) == []
    stream.graphs.learn_graph(graph(7, ("A", "B"), ("B", "C")), 0.2)
    assert gone(manner.release(0.2)) == [(1, 7)]


def test_m12_a_source_that_also_relays_wakes_for_whichever_is_first() -> None:
    stream = make_stream(MESSAGE)
    manner = make_manner("embedded", query_interval_s=10.0)
    manner.on_source(0.0)
    requests(manner, 0.0)
    manner.admit(chunk(1, 7, stream=stream), 5.0)
    assert manner.poll_timeout() == 5.0 + PUSH_WAIT_S
