"""The four manners (M9 to M12): what each asks of whom, when, and by which epoch a chunk goes on."""

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import manners as module
from agent.core.acks import PACKETS_PER_ACK
from agent.core.events import ControlRequest, QueryGraph, QueryNeighbours
from agent.core.manners import (
    ANSWER_WAIT_S,
    BUFFER_DELAY_SENSITIVE_BYTES,
    FLUSH_DELAY_SENSITIVE_S,
    FLUSH_S,
    GIVE_UP_S,
    LINKS_WAIT_S,
    NO_GRAPH_WAIT_S,
    PUSH_WAIT_S,
    QUERY_LEAST_S,
    QUERY_MOST_TIMES,
    SERVER_ASK_EVERY_S,
    SERVER_WAIT_S,
    Decision,
    EmbeddedManner,
    Forwarding,
    Manner,
    OverflowManner,
    QueryManner,
    SubscribeManner,
    manner_of,
)
from agent.core.routing import GraphTable
from agent.core.stream import Stream
from common.datagrams import PacketType
from common.messages import ChannelSpec
from tests.unit.agent.core.parts import MESSAGE, graph, make_stream

STREAM = make_stream()


def make_manner(routing: str, table: GraphTable | None = None, **rules: Any) -> Manner:
    spec = ChannelSpec.model_validate({"name": "files", "kind": "file", "routing": routing, **rules})
    return manner_of(spec, known(5) if table is None else table, random.Random(1), 0.0)


def known(*epochs: int) -> GraphTable:
    table = GraphTable("B", 0.0)
    for epoch in epochs:
        table.learn_graph(graph(epoch, ("A", "B"), ("B", "C")), 0.0)
    return table


def chunk(
    number: int, epoch: int | None = None, *, count: int = 1, size: int = 1_040, stream: Stream = STREAM
) -> Forwarding:
    """Return chunks of one size to be distributed, one if not said otherwise."""
    previous = None if epoch is None else "A"
    return Forwarding(stream, number, number + count, count * size, epoch, 0, previous, PacketType.DATA)


def requests(manner: Manner, now: float) -> list[ControlRequest]:
    out = []
    while (request := manner.poll_request(now)) is not None:
        out.append(request)
    return out


def gone(decisions: list[Decision]) -> list[tuple[int, int]]:
    """Return the number and the whole epoch of each chunk that goes on."""
    return [(number, found.epoch) for item, found in decisions for number in range(item.start, item.stop)]


@pytest.mark.parametrize(
    ("routing", "kind", "subscribes"),
    [
        ("query", QueryManner, False),
        ("overflow", OverflowManner, False),
        ("subscribe", SubscribeManner, True),
        ("embedded", EmbeddedManner, False),
    ],
)
def test_a_channels_rules_name_its_manner_and_one_alone_subscribes(
    routing: str, kind: type[Manner], subscribes: bool
) -> None:
    manner = make_manner(routing)
    assert type(manner) is kind
    assert manner.subscribes is subscribes


# --- M11, and what all share --------------------------------------------------------------------------------------


def test_m11_a_chunk_goes_on_by_the_epoch_it_names_as_long_as_that_is_known() -> None:
    manner = make_manner("subscribe", known(5, 6))
    for epoch in (5, 6):
        found = manner.admit(chunk(1, epoch), 0.0)
        assert found is not None
        assert found.epoch == epoch
    assert not manner.holds_anything()
    assert manner.poll_timeout() is None


def test_at_its_source_a_chunk_goes_by_the_newest_epoch_and_none_is_cut_before_there_is_one() -> None:
    table = GraphTable("B", 0.0)
    manner = make_manner("subscribe", table)
    assert not manner.may_cut(STREAM)
    assert manner.admit(chunk(1), 0.0) is None
    table.learn_graph(graph(5, ("A", "B")), 0.0)
    assert manner.may_cut(STREAM)
    assert manner.admit(chunk(1), 0.0) is table.current


def test_an_epoch_that_is_older_than_all_kept_is_served_by_the_newest_in_the_end() -> None:
    manner = make_manner("subscribe")
    assert manner.admit(chunk(1, 4), 0.0) is None
    assert gone(manner.release(GIVE_UP_S)) == [(1, 5)]


def test_a_chunk_of_an_unknown_newer_epoch_goes_on_when_the_push_comes() -> None:
    table = known(5)
    manner = make_manner("subscribe", table)
    assert manner.admit(chunk(1, 7), 0.0) is None
    assert manner.admit(chunk(2, 7), 0.01) is None
    assert manner.waits_for(7)
    assert not manner.waits_for(6)
    assert manner.poll_questions(PUSH_WAIT_S - 0.001) == []
    assert manner.release(0.04) == []
    table.learn_graph(graph(7, ("B", "C")), 0.04)
    assert gone(manner.release(0.04)) == [(1, 7), (2, 7)]
    assert not manner.holds_anything()
    assert requests(manner, 5.0) == []


def test_it_waits_50_ms_for_the_push_then_asks_the_previous_hop_then_the_server_and_gives_up_after_a_second() -> None:
    manner = make_manner("subscribe")
    manner.admit(chunk(1, 7), 10.0)
    assert manner.poll_timeout() == 10.0 + PUSH_WAIT_S
    assert manner.poll_questions(10.0 + PUSH_WAIT_S) == [("A", 0, 7)]
    assert manner.poll_timeout() == 10.0 + SERVER_WAIT_S
    assert requests(manner, 10.06) == []
    assert manner.poll_questions(10.0 + SERVER_WAIT_S) == []
    assert requests(manner, 10.0 + SERVER_WAIT_S) == [QueryNeighbours(7)]
    assert manner.poll_timeout() == 10.0 + GIVE_UP_S
    assert manner.poll_questions(10.5) == []
    assert manner.release(10.0 + GIVE_UP_S - 0.001) == []
    assert gone(manner.release(10.0 + GIVE_UP_S)) == [(1, 5)]
    assert manner.poll_timeout() is None
    assert requests(manner, 12.0) == []


def test_the_server_is_asked_at_most_once_a_second_for_epochs() -> None:
    manner = make_manner("subscribe")
    asked: list[float] = []
    for turn in range(100):
        now = turn * 0.1
        manner.admit(chunk(turn, 10 + turn), now)
        manner.release(now)
        manner.poll_questions(now)
        asked.extend([now] * len(requests(manner, now)))
    pauses = [after - before for before, after in itertools.pairwise(asked)]
    assert 6 <= len(asked) <= 10
    assert min(pauses) >= SERVER_ASK_EVERY_S - 1e-9


def test_without_any_graph_the_server_is_asked_for_the_current_one_and_what_waits_is_let_go() -> None:
    manner = make_manner("subscribe", GraphTable("B", 0.0))
    assert manner.admit(chunk(1, 7), 0.0) is None
    manner.poll_questions(SERVER_WAIT_S)
    assert requests(manner, SERVER_WAIT_S) == [QueryNeighbours(None)]
    assert manner.release(GIVE_UP_S) == []
    assert not manner.holds_anything()


def test_no_more_chunks_wait_than_the_bound_and_room_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD_CHUNKS", 2)
    table = known(5)
    manner = make_manner("subscribe", table)
    assert manner.admit(chunk(1, 7), 0.0) is None
    assert manner.admit(chunk(2, 7), 0.0) is None
    found = manner.admit(chunk(3, 7), 0.0)
    assert found is not None
    assert found.epoch == 5
    manner.release(GIVE_UP_S)
    assert manner.admit(chunk(4, 7), 2.0) is None


def test_the_bound_counts_chunks_and_not_the_runs_they_came_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD_CHUNKS", 10)
    table = known(5)
    manner = make_manner("subscribe", table)
    assert manner.admit(chunk(1, 7, count=9), 0.0) is None
    assert manner.admit(chunk(10, 7), 0.0) is None
    assert manner.admit(chunk(11, 7), 0.0) is table.current
    assert gone(manner.release(GIVE_UP_S)) == [(number, 5) for number in range(1, 11)]
    assert manner.admit(chunk(12, 7, count=10), 2.0) is None
    assert manner.admit(chunk(22, 7), 2.0) is table.current


@pytest.mark.parametrize(
    ("routing", "alone"), [("query", False), ("subscribe", False), ("embedded", False), ("overflow", True)]
)
def test_a_source_cuts_in_trains_unless_each_chunk_may_be_the_one_that_overflows_a_buffer(
    routing: str, alone: bool
) -> None:
    run = make_manner(routing).cut_run
    assert run == 1 if alone else run >= PACKETS_PER_ACK


@pytest.mark.parametrize("routing", ["query", "overflow", "subscribe", "embedded"])
def test_news_that_do_not_concern_a_manner_change_nothing(routing: str) -> None:
    manner = make_manner(routing)
    requests(manner, 0.0)
    manner.on_stream_end(0.1)
    manner.on_graph(0.1, changed=False)
    manner.on_peer_epoch(0, 0.1)
    manner.on_peer_epoch(5, 0.1)
    assert requests(manner, 0.1) == []
    assert not manner.holds_anything()
    assert manner.release(0.1) == []


def test_a_manner_that_is_told_by_pushes_asks_nothing_of_its_own() -> None:
    manner = make_manner("subscribe")
    manner.on_source(0.0)
    manner.on_resume(0.0)
    manner.on_links(0.0)
    manner.on_peer_epoch(9, 0.0)
    manner.on_failed(0.0)
    assert requests(manner, 1_000.0) == []


@pytest.mark.parametrize("routing", ["query", "overflow"])
def test_an_epoch_that_only_a_peer_knows_is_asked_for_once_a_second_at_most(routing: str) -> None:
    manner = make_manner(routing)
    requests(manner, 0.0)
    for turn in range(10):
        manner.on_peer_epoch(9, 0.01 * turn)
    assert requests(manner, 0.1) == [QueryNeighbours(9)]


# --- M9 -----------------------------------------------------------------------------------------------------------


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


# --- M10 ----------------------------------------------------------------------------------------------------------


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


# --- M12 ----------------------------------------------------------------------------------------------------------


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
