"""The manner with a buffer: when it asks, and that nothing of it is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.events import QueryNeighbours
from agent.core.manner import LINKS_WAIT_S, QUERY_LEAST_S
from agent.core.overflow_manner import (
    ANSWER_WAIT_S,
    BUFFER_DELAY_SENSITIVE_BYTES,
    FLUSH_DELAY_SENSITIVE_S,
    FLUSH_S,
    NO_GRAPH_WAIT_S,
)
from agent.core.routing import GraphTable
from common.datagrams import PacketType
from tests.unit.agent.core.manner_parts import STREAM, chunk, gone, known, make_manner, requests
from tests.unit.agent.core.parts import graph


def test_m10_the_buffer_holds_chunks_until_it_overflows_then_asks_then_goes_by_the_answer() -> None:
    table = known(5)
    manner = make_manner("overflow", table, buffer_bytes=3_000)
    assert manner.admit(chunk(1), 0.0) is None
    assert manner.admit(chunk(2), 0.0) is None
    assert requests(manner, 0.0) == []
    assert manner.may_cut(STREAM)
    assert manner.admit(chunk(3), 0.0) is None
    assert not manner.may_cut(STREAM)
    assert requests(manner, 0.0) == [QueryNeighbours()]
    assert manner.release(0.01) == []
    table.learn_graph(graph(8, ("B", "C")), 0.02)
    manner.on_graph(0.02, changed=True)
    assert gone(manner.release(0.02)) == [(1, 8), (2, 8), (3, 8)]
    assert not manner.holds_anything()
    assert manner.may_cut(STREAM)
    assert manner.poll_timeout() is None


@pytest.mark.parametrize(("sensitive", "flush_s"), [(False, FLUSH_S), (True, FLUSH_DELAY_SENSITIVE_S)])
def test_m10_what_does_not_fill_the_buffer_is_flushed_by_a_timer(sensitive: bool, flush_s: float) -> None:
    manner = make_manner("overflow", delay_sensitive=sensitive)
    manner.admit(chunk(1), 1.0)
    assert manner.poll_timeout() == 1.0 + flush_s
    assert manner.release(1.0 + flush_s / 2) == []
    assert requests(manner, 1.0 + flush_s / 2) == []
    assert manner.release(1.0 + flush_s) == []
    assert requests(manner, 1.0 + flush_s) == [QueryNeighbours()]
    assert manner.poll_timeout() == 1.0 + flush_s + ANSWER_WAIT_S


def test_m10_a_delay_sensitive_channel_has_a_smaller_buffer() -> None:
    manner = make_manner("overflow", delay_sensitive=True)
    manner.admit(chunk(1, size=BUFFER_DELAY_SENSITIVE_BYTES - 1), 0.0)
    assert requests(manner, 0.0) == []
    manner.admit(chunk(2, size=1), 0.0)
    assert requests(manner, 0.0) == [QueryNeighbours()]


def test_m10_the_end_of_a_stream_flushes_at_once() -> None:
    manner = make_manner("overflow")
    manner.admit(chunk(1), 0.0)
    manner.on_stream_end(0.001)
    manner.on_stream_end(0.001)
    assert requests(manner, 0.001) == [QueryNeighbours()]


def test_m10_the_newest_known_epoch_serves_if_the_answer_fails_or_stays_away() -> None:
    for fails in (True, False):
        manner = make_manner("overflow")
        manner.admit(chunk(1), 0.0)
        manner.on_stream_end(0.0)
        if fails:
            manner.on_failed(0.1)
        assert gone(manner.release(0.1)) == ([(1, 5)] if fails else [])
        assert gone(manner.release(ANSWER_WAIT_S)) == ([] if fails else [(1, 5)])


def test_m10_without_any_graph_it_keeps_the_buffer_and_asks_again() -> None:
    table = GraphTable("B", 0.0)
    manner = make_manner("overflow", table)
    manner.admit(chunk(1), 0.0)
    manner.on_stream_end(0.0)
    requests(manner, 0.0)
    manner.on_failed(0.1)
    assert manner.release(0.1) == []
    assert manner.holds_anything()
    assert manner.poll_timeout() == 0.1 + NO_GRAPH_WAIT_S
    assert manner.release(0.1 + NO_GRAPH_WAIT_S) == []
    assert requests(manner, 0.1 + NO_GRAPH_WAIT_S) == [QueryNeighbours()]
    table.learn_graph(graph(5, ("A", "B")), 0.4)
    manner.on_graph(0.4, changed=True)
    assert gone(manner.release(0.4)) == [(1, 5)]


def test_m10_a_query_that_failed_before_there_was_any_graph_is_made_again_soon() -> None:
    manner = make_manner("overflow", GraphTable("B", 0.0))
    manner.on_failed(0.0)
    assert manner.poll_timeout() == QUERY_LEAST_S
    assert requests(manner, QUERY_LEAST_S) == [QueryNeighbours()]
    assert manner.poll_timeout() is None


def test_m10_news_before_it_asked_are_no_answer() -> None:
    manner = make_manner("overflow")
    manner.admit(chunk(1), 0.0)
    manner.on_graph(0.01, changed=True)
    manner.on_failed(0.01)
    assert manner.release(0.01) == []


def test_m10_a_chunk_that_goes_on_by_another_epoch_than_it_came_by_is_no_first_crossing() -> None:
    manner = make_manner("overflow", known(5, 6))
    for number, epoch in ((1, 6), (2, 5), (3, None)):
        manner.admit(chunk(number, epoch), 0.0)
    manner.on_stream_end(0.0)
    manner.on_graph(0.0, changed=False)
    kinds = [item.kind for item, _ in manner.release(0.0)]
    assert kinds == [PacketType.DATA, PacketType.PULLED, PacketType.DATA]


def test_m10_a_run_fills_the_buffer_with_all_its_chunks_and_stays_one() -> None:
    table = known(5)
    manner = make_manner("overflow", table, buffer_bytes=3_000)
    run = chunk(1, 4, count=3)
    assert manner.admit(run, 0.0) is None
    assert not manner.may_cut(STREAM)
    assert requests(manner, 0.0) == [QueryNeighbours()]
    manner.on_graph(0.02, changed=True)
    ((item, _),) = manner.release(0.02)
    assert (item.start, item.stop, item.size_bytes, item.kind) == (1, 4, 3_120, PacketType.PULLED)
    assert run.kind is PacketType.DATA


def test_m10_a_change_of_links_makes_it_ask_a_little_later_if_there_ever_was_a_graph() -> None:
    manner = make_manner("overflow")
    manner.on_links(1.0)
    assert manner.poll_timeout() == 1.0 + LINKS_WAIT_S
    assert requests(manner, 1.1) == []
    assert requests(manner, 1.0 + LINKS_WAIT_S) == [QueryNeighbours()]
    assert manner.poll_timeout() is None
    lone = make_manner("overflow", GraphTable("B", 0.0))
    lone.on_links(1.0)
    assert lone.poll_timeout() is None


def test_m10_a_stream_of_an_earlier_run_makes_it_ask_at_once() -> None:
    manner = make_manner("overflow")
    manner.on_resume(1.0)
    manner.admit(chunk(1), 1.0)
    assert manner.poll_timeout() == 1.0
    assert requests(manner, 1.0) == [QueryNeighbours()]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["chunk", "answer", "failed", "end", "graph"]), st.floats(0, 3), st.integers(1, 2_000)
        ),
        max_size=60,
    ),
    st.integers(0, 5_000),
)
def test_m10_the_overflow_never_drops_repeats_or_reorders(
    plan: list[tuple[str, float, int]], buffer_bytes: int
) -> None:
    table = GraphTable("B", 0.0)
    manner = make_manner("overflow", table, buffer_bytes=buffer_bytes)
    now, put, epoch = 0.0, 0, 0
    out: list[int] = []
    for step, pause, size in [*plan, ("graph", 0.0, 1), ("end", 0.0, 1), ("answer", 9.0, 1)]:
        now += pause
        if step == "chunk":
            put += 1
            manner.admit(chunk(put, size=size), now)
        elif step == "answer":
            manner.on_graph(now, changed=False)
        elif step == "failed":
            manner.on_failed(now)
        elif step == "end":
            manner.on_stream_end(now)
        else:
            epoch += 1
            table.learn_graph(graph(epoch, ("A", "B")), now)
        out.extend(number for number, _ in gone(manner.release(now)))
    out.extend(number for number, _ in gone(manner.release(now + ANSWER_WAIT_S)))
    assert out == list(range(1, put + 1))
