"""What all manners do with a chunk whose epoch they do not know."""

import itertools

import pytest

from agent.core import manner as module
from agent.core.events import QueryNeighbours
from agent.core.manner import GIVE_UP_S, PUSH_WAIT_S, SERVER_ASK_EVERY_S, SERVER_WAIT_S
from agent.core.routing import GraphTable
from tests.unit.agent.core.manner_parts import STREAM, chunk, gone, known, make_manner, requests
from tests.unit.agent.core.parts import graph


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


@pytest.mark.parametrize("routing", ["query", "overflow"])
def test_an_epoch_that_only_a_peer_knows_is_asked_for_once_a_second_at_most(routing: str) -> None:
    manner = make_manner(routing)
    requests(manner, 0.0)
    for turn in range(10):
        manner.on_peer_epoch(9, 0.01 * turn)
    assert requests(manner, 0.1) == [QueryNeighbours(9)]
