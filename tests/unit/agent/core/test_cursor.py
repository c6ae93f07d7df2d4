"""A peer's place in a stream: what is owed, in which order, and what is not sent after all."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.cursor import Cursor
from common.datagrams import PacketType
from tests.unit.agent.core.parts import make_stream

DATA, REPEAT, PULLED = PacketType.DATA, PacketType.REPEAT, PacketType.PULLED


def drain(cursor: Cursor) -> list[tuple[int, int, int, PacketType]]:
    out = []
    while (item := cursor.pop()) is not None:
        number, owed = item
        out.append((number, owed.epoch, owed.tree, owed.kind))
    return out


def test_nothing_is_owed_at_first() -> None:
    cursor = Cursor(make_stream())
    assert cursor.pop() is None
    assert cursor.owed_count() == 0


def test_chunks_of_one_epoch_and_tree_go_in_their_order() -> None:
    cursor = Cursor(make_stream())
    for number in (3, 1, 2):
        cursor.owe(number, 7, 0, DATA)
    assert len(cursor.owed) == 1
    assert cursor.owed_count() == 3
    assert drain(cursor) == [(1, 7, 0, DATA), (2, 7, 0, DATA), (3, 7, 0, DATA)]


def test_another_epoch_tree_or_kind_waits_for_what_was_owed_before() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(9, 7, 0, DATA)
    cursor.owe(1, 8, 0, DATA)
    cursor.owe(2, 8, 1, DATA)
    cursor.owe(3, 8, 1, PULLED)
    assert drain(cursor) == [(9, 7, 0, DATA), (1, 8, 0, DATA), (2, 8, 1, DATA), (3, 8, 1, PULLED)]


def test_what_was_lost_goes_ahead_of_all_else() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(5, 7, 0, DATA)
    cursor.owe_again(2, 7, 0, REPEAT)
    cursor.owe_again(1, 7, 0, REPEAT)
    cursor.owe_again(3, 6, 0, REPEAT)
    cursor.owe_again(4, 6, 1, REPEAT)
    cursor.owe_again(6, 6, 1, PULLED)
    assert [item[0] for item in drain(cursor)] == [6, 4, 3, 1, 2, 5]


def test_the_first_loss_makes_a_line_of_its_own() -> None:
    cursor = Cursor(make_stream())
    cursor.owe_again(2, 7, 0, REPEAT)
    assert drain(cursor) == [(2, 7, 0, REPEAT)]


def test_what_the_peer_holds_is_not_owed() -> None:
    cursor = Cursor(make_stream())
    cursor.reported.add_range(1, 4)
    cursor.acked.add(5)
    cursor.owe(2, 7, 0, DATA)
    cursor.owe_again(3, 7, 0, REPEAT)
    cursor.owe_again(5, 7, 0, REPEAT)
    assert not cursor.owed


def test_what_the_peer_reports_meanwhile_is_skipped() -> None:
    cursor = Cursor(make_stream())
    for number in range(1, 5):
        cursor.owe(number, 7, 0, DATA)
    cursor.owe(9, 8, 0, DATA)
    cursor.reported.add_range(1, 5)
    assert drain(cursor) == [(9, 8, 0, DATA)]


def test_what_is_forgotten_is_not_sent() -> None:
    cursor = Cursor(make_stream())
    cursor.owe(1, 7, 0, DATA)
    cursor.forget_owed()
    assert cursor.pop() is None


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 3), st.booleans())), st.sets(st.integers(1, 30)))
def test_every_number_owed_comes_out_unless_the_peer_has_it(
    debts: list[tuple[int, int, bool]], reported: set[int]
) -> None:
    cursor = Cursor(make_stream())
    for number, epoch, again in debts:
        (cursor.owe_again if again else cursor.owe)(number, epoch, 0, REPEAT if again else DATA)
    for number in sorted(reported):
        cursor.reported.add(number)
    assert {item[0] for item in drain(cursor)} == {number for number, _, _ in debts} - reported
    assert cursor.owed_count() == 0
