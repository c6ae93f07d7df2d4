"""A peer's place in a stream: what is owed, in which order, and what is not sent after all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.cursor import Cursor
from agent.core.rangeset import RangeSet
from common.datagrams import PacketType
from tests.unit.agent.core.parts import make_stream

DATA, REPEAT, PULLED = PacketType.DATA, PacketType.REPEAT, PacketType.PULLED


def drain(cursor: Cursor, most: int = 100) -> list[tuple[int, int, int, PacketType]]:
    """Take all that is owed, in runs of at most ``most``; return it chunk by chunk."""
    out = []
    while (run := cursor.next_run(most)) is not None:
        assert 0 < run.stop - run.start <= most
        out += [(number, run.owed.epoch, run.owed.tree, run.kind) for number in range(run.start, run.stop)]
        cursor.taken(run, run.stop)
    return out


def test_nothing_is_owed_at_first() -> None:
    cursor = Cursor(make_stream())
    assert cursor.next_run(10) is None
    assert cursor.owed_count() == 0


def test_chunks_of_one_epoch_and_tree_go_in_their_order() -> None:
    cursor = Cursor(make_stream())
    for number in (3, 1, 2):
        cursor.owe(number, number + 1, 7, 0, DATA)
    assert len(cursor.owed) == 1
    assert cursor.owed_count() == 3
    assert drain(cursor) == [(1, 7, 0, DATA), (2, 7, 0, DATA), (3, 7, 0, DATA)]


def test_another_epoch_tree_or_kind_waits_for_what_was_owed_before() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(9, 10, 7, 0, DATA)
    cursor.owe(1, 2, 8, 0, DATA)
    cursor.owe(2, 3, 8, 1, DATA)
    cursor.owe(3, 4, 8, 1, PULLED)
    assert drain(cursor) == [(9, 7, 0, DATA), (1, 8, 0, DATA), (2, 8, 1, DATA), (3, 8, 1, PULLED)]


def test_what_was_lost_goes_ahead_of_all_else() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(5, 6, 7, 0, DATA)
    cursor.owe_again(2, 3, 7, 0, REPEAT)
    cursor.owe_again(1, 2, 7, 0, REPEAT)
    cursor.owe_again(3, 4, 6, 0, REPEAT)
    cursor.owe_again(4, 5, 6, 1, REPEAT)
    cursor.owe_again(6, 7, 6, 1, PULLED)
    assert [item[0] for item in drain(cursor)] == [6, 4, 3, 1, 2, 5]


def test_the_first_loss_makes_a_line_of_its_own() -> None:
    cursor = Cursor(make_stream())
    cursor.owe_again(2, 3, 7, 0, REPEAT)
    assert drain(cursor) == [(2, 7, 0, REPEAT)]


def test_what_the_peer_holds_is_not_owed() -> None:
    cursor = Cursor(make_stream())
    cursor.reported.add_range(1, 4)
    cursor.acked.add(5)
    cursor.owe(2, 3, 7, 0, DATA)
    cursor.owe(1, 4, 7, 0, DATA)
    cursor.owe_again(3, 4, 7, 0, REPEAT)
    cursor.owe_again(5, 6, 7, 0, REPEAT)
    assert not cursor.owed


def test_of_consecutive_chunks_only_those_are_owed_that_the_peer_lacks() -> None:
    cursor = Cursor(make_stream())
    cursor.reported.add_range(3, 5)
    cursor.acked.add_range(7, 9)
    cursor.owe(1, 10, 7, 0, DATA)
    cursor.owe_again(1, 10, 7, 0, REPEAT)
    assert [list(owed.numbers) for owed in cursor.owed] == [[(1, 3), (5, 7), (9, 10)], [(1, 3), (5, 10)]]
    assert cursor.owed_count() == 5 + 7


def test_what_the_peer_reports_meanwhile_is_skipped() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(1, 5, 7, 0, DATA)
    cursor.owe(9, 10, 8, 0, DATA)
    cursor.reported.add_range(1, 5)
    assert drain(cursor) == [(9, 8, 0, DATA)]


def test_a_run_is_as_long_as_it_may_be_and_its_chunks_are_alike() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(1, 9, 7, 0, DATA)
    cursor.owe(9, 11, 8, 0, DATA)
    cursor.reported.add(3)
    cursor.crossed.add_range(5, 8)
    runs = []
    while (run := cursor.next_run(2)) is not None:
        runs.append((run.start, run.stop, run.owed.epoch, run.kind))
        cursor.taken(run, run.stop)
    assert runs == [
        (1, 3, 7, DATA),
        (4, 5, 7, DATA),
        (5, 7, 7, REPEAT),
        (7, 8, 7, REPEAT),
        (8, 9, 7, DATA),
        (9, 11, 8, DATA),
    ]


@pytest.mark.parametrize("kind", [REPEAT, PULLED])
def test_what_is_no_first_crossing_goes_as_it_is_owed_whether_it_crossed_or_not(kind: PacketType) -> None:
    cursor = Cursor(make_stream())
    cursor.crossed.add_range(2, 4)
    cursor.owe(1, 6, 7, 0, kind)
    run = cursor.next_run(100)
    assert run is not None
    assert (run.start, run.stop, run.kind) == (1, 6, kind)


def test_a_run_stays_owed_until_it_was_taken_and_so_does_its_rest() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(1, 9, 7, 0, DATA)
    run = cursor.next_run(5)
    assert run is not None
    assert run == cursor.next_run(5)
    assert cursor.owed_count() == 8
    cursor.taken(run, run.start + 2)
    assert cursor.owed_count() == 6
    assert [item[0] for item in drain(cursor)] == [3, 4, 5, 6, 7, 8]


def test_a_run_that_is_taken_is_taken_from_where_it_was_owed() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(1, 4, 7, 0, DATA)
    run = cursor.next_run(5)
    assert run is not None
    cursor.owe_again(1, 3, 6, 0, REPEAT)
    cursor.taken(run, run.stop)
    assert drain(cursor) == [(1, 6, 0, REPEAT), (2, 6, 0, REPEAT)]


def test_no_chunk_is_sent_that_the_peer_has_no_credit_for_yet() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(1, 9, 7, 0, DATA)
    cursor.owe(3, 12, 8, 0, PULLED)
    cursor.credit = 5
    assert [item[:2] for item in drain(cursor, 3)] == [(1, 7), (2, 7), (3, 7), (4, 7), (3, 8), (4, 8)]
    assert cursor.next_run(3) is None
    assert cursor.owed_count() == 4 + 7
    cursor.credit = 7
    assert [item[:2] for item in drain(cursor, 3)] == [(5, 7), (6, 7), (5, 8), (6, 8)]
    cursor.reported.add_range(1, 20)
    assert drain(cursor) == []
    assert cursor.owed_count() == 0


def test_what_waits_for_credit_does_not_hold_up_what_has_it() -> None:
    cursor = Cursor(make_stream())
    cursor.credit = 10
    cursor.owe(10, 20, 7, 0, DATA)
    cursor.owe(3, 5, 8, 0, DATA)
    cursor.owe_again(12, 13, 6, 0, REPEAT)
    assert [item[:2] for item in drain(cursor)] == [(3, 8), (4, 8)]
    assert cursor.owed_count() == 11


def test_what_is_forgotten_is_not_sent() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(1, 2, 7, 0, DATA)
    cursor.forget_owed()
    assert cursor.next_run(10) is None


NUMBERS = st.sets(st.integers(1, 30))


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9), st.integers(1, 3), st.booleans())),
    NUMBERS,
    NUMBERS,
    NUMBERS,
    st.integers(1, 12),
)
def test_every_number_owed_comes_out_unless_the_peer_has_it(
    debts: list[tuple[int, int, int, bool]], before: set[int], meanwhile: set[int], crossed: set[int], most: int
) -> None:
    cursor = Cursor(make_stream())
    cursor.reported.union_update(RangeSet((number, number + 1) for number in before))
    cursor.crossed.union_update(RangeSet((number, number + 1) for number in crossed))
    lines: list[tuple[int, PacketType, set[int]]] = []
    for number, count, epoch, again in debts:
        (cursor.owe_again if again else cursor.owe)(number, number + count, epoch, 0, REPEAT if again else DATA)
        line = (epoch, REPEAT if again else DATA, set(range(number, number + count)) - before)
        at = 0 if again else len(lines) - 1
        if line[2]:
            if lines and lines[at][:2] == line[:2]:
                lines[at][2].update(line[2])
            else:
                lines.insert(0 if again else len(lines), line)
    cursor.reported.union_update(RangeSet((number, number + 1) for number in meanwhile))
    assert drain(cursor, most) == [
        (number, epoch, 0, REPEAT if number in crossed else kind)
        for epoch, kind, numbers in lines
        for number in sorted(numbers - meanwhile)
    ]
    assert cursor.owed_count() == 0


def test_what_was_never_sent_nor_reported_nor_is_owed_is_owed_anew_as_pulled() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(1, 3, 7, 0, DATA)
    drain(cursor)
    cursor.crossed.add_range(1, 3)
    cursor.reported.add_range(4, 5)
    cursor.owe(6, 7, 7, 0, DATA)
    assert cursor.owe_anew(1, 8, 7, 0)
    assert drain(cursor) == [(6, 7, 0, DATA), (3, 7, 0, PULLED), (5, 7, 0, PULLED), (7, 7, 0, PULLED)]
    cursor.crossed.add_range(1, 8)
    assert not cursor.owe_anew(1, 8, 7, 0)
    assert cursor.owed_count() == 0


def test_a_renewed_place_keeps_what_the_peer_has_and_may_be_sent_but_owes_nothing() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(1, 9, 7, 0, DATA)
    cursor.flying.add_range(1, 3)
    cursor.crossed.add_range(1, 3)
    cursor.reported.add_range(4, 5)
    cursor.lowest, cursor.credit, cursor.heard, cursor.opening_sent, cursor.asked = 1, 90, True, True, True
    cursor.graphs_sent[7] = None
    renewed = cursor.renewed()
    assert (renewed.owed_count(), renewed.flying.ranges(), cursor.flying.ranges()) == (0, [], [])
    assert (renewed.lowest, renewed.credit, renewed.heard, renewed.opening_sent) == (1, 90, True, True)
    assert renewed.graphs_sent == {7: None}
    renewed.owe(1, 9, 7, 0, DATA)
    sent = drain(renewed)
    assert (4, 7, 0, DATA) not in sent
    assert (2, 7, 0, REPEAT) in sent
    assert not renewed.asked
