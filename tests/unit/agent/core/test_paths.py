"""Which address of a peer a session uses, and when it moves."""

import random
from itertools import count

from agent.core.paths import (
    CHALLENGE_S,
    CONFIRM_S,
    MOST_OPEN,
    ROAM_EVERY_S,
    SEARCH_FIRST_S,
    SEARCH_MOST_S,
    Paths,
)

USED = ("192.0.2.1", 7_400)
OTHER = ("198.51.100.7", 7_400)
THIRD = ("203.0.113.9", 7_400)
RTT_S = 0.02


def make_paths() -> Paths:
    return Paths(random.Random(1).randbytes, 0.0)


def search(paths: Paths, now: float, *candidates: tuple[str, int]) -> dict[tuple[str, int], bytes]:
    return dict(paths.poll_search(USED, candidates, now))


def test_an_address_the_peer_spoke_from_is_asked_once_in_a_while() -> None:
    paths = make_paths()
    assert paths.on_spoken_from(OTHER, 0.0) is not None
    assert paths.on_spoken_from(OTHER, ROAM_EVERY_S / 2) is None
    assert paths.on_spoken_from(THIRD, ROAM_EVERY_S) is not None


def test_a_session_moves_to_where_the_peer_spoke_from_once_it_answers_there() -> None:
    paths = make_paths()
    token = paths.on_spoken_from(OTHER, 0.0)
    assert token is not None
    assert paths.on_answer(token, USED, None, 0.1) == OTHER
    assert paths.on_answer(token, USED, None, 0.1) is None


def test_a_late_answer_an_unknown_one_and_one_from_the_address_in_use_move_nothing() -> None:
    paths = make_paths()
    token = paths.on_spoken_from(OTHER, 0.0)
    assert token is not None
    assert paths.on_answer(bytes(8), USED, RTT_S, 0.1) is None
    assert paths.on_answer(token, USED, RTT_S, CHALLENGE_S + 0.1) is None
    token = paths.on_spoken_from(OTHER, 10.0)
    assert token is not None
    assert paths.on_answer(token, OTHER, RTT_S, 10.1) is None


def test_candidates_not_in_use_are_asked_with_pauses_that_double() -> None:
    paths = make_paths()
    assert search(paths, SEARCH_FIRST_S - 0.1, USED, OTHER) == {}
    assert list(search(paths, SEARCH_FIRST_S, USED, OTHER, THIRD)) == [OTHER, THIRD]
    pauses = []
    now = SEARCH_FIRST_S
    for _ in range(9):
        pauses.append(paths.poll_timeout() - now)
        now = paths.poll_timeout()
        assert len(search(paths, now, OTHER)) == 1
    assert pauses[:3] == [4.0, 8.0, 16.0]
    assert pauses[-1] == SEARCH_MOST_S


def answer(paths: Paths, now: float, took: float, rtt_s: float | None = RTT_S) -> tuple[str, int] | None:
    token = search(paths, now, OTHER)[OTHER]
    return paths.on_answer(token, USED, rtt_s, now + took)


def test_a_nearer_candidate_takes_over_after_it_has_won_twice() -> None:
    paths = make_paths()
    assert answer(paths, SEARCH_FIRST_S, RTT_S / 2) is None
    again = paths.poll_timeout()
    assert again == SEARCH_FIRST_S + RTT_S / 2 + CONFIRM_S
    assert answer(paths, again, RTT_S / 2) == OTHER


def test_a_candidate_that_wins_once_by_chance_does_not_take_over() -> None:
    paths = make_paths()
    for now, took in zip(count(SEARCH_FIRST_S, 400.0), (0.5, 1.0, 0.5, 2.0), strict=False):
        assert answer(paths, now, took * RTT_S) is None


def test_a_candidate_must_be_better_by_both_margins() -> None:
    for rtt_s, took in ((0.002, 0.0011), (0.1, 0.09), (None, 0.001)):
        paths = make_paths()
        for now in (SEARCH_FIRST_S, 1_000.0):
            assert answer(paths, now, took, rtt_s) is None


def test_another_winner_begins_anew() -> None:
    paths = make_paths()
    tokens = search(paths, SEARCH_FIRST_S, OTHER, THIRD)
    for address in (OTHER, THIRD):
        assert paths.on_answer(tokens[address], USED, RTT_S, SEARCH_FIRST_S + 0.001) is None
    tokens = search(paths, paths.poll_timeout(), OTHER, THIRD)
    assert paths.on_answer(tokens[OTHER], USED, RTT_S, paths.poll_timeout()) is None


def test_questions_under_way_are_bounded_and_old_ones_make_room() -> None:
    paths = make_paths()
    many = [("192.0.2.2", port) for port in range(1, MOST_OPEN + 10)]
    assert len(search(paths, SEARCH_FIRST_S, *many)) == MOST_OPEN
    assert paths.on_spoken_from(OTHER, SEARCH_FIRST_S) is None
    assert paths.on_spoken_from(OTHER, SEARCH_FIRST_S + CHALLENGE_S + 0.1) is not None
