"""When probes go, what they promise, and how much silence is too much."""

from collections.abc import Iterable
from itertools import pairwise

import pytest

from agent.core.rhythm import (
    ANNOUNCEMENTS,
    FLOWING_FOR_S,
    LATE_S,
    MOST_GRACE_S,
    MOST_GRACES,
    MOST_SILENT_PROBES,
    MOST_SPREAD_S,
    PROBE_FLOWING_S,
    PROBE_IDLE_S,
    PROBE_IN_TREE_S,
    REFUSED_S,
    Rhythm,
)


def started(now: float = 0.0) -> Rhythm:
    rhythm = Rhythm(now)
    rhythm.start(now)
    return rhythm


def probes(rhythm: Rhythm, until: float) -> list[tuple[float, float]]:
    """Send every probe that is due; return when each went and what it promised."""
    found = []
    while (at := rhythm.poll_timeout()) is not None and at < until:
        promise = rhythm.poll_probe(at)
        assert promise is not None
        found.append((round(at, 6), promise))
    return found


def silence(rhythm: Rhythm) -> float:
    return round(rhythm.silent_at(), 6)


def test_a_new_session_is_probed_at_once_then_once_a_second() -> None:
    rhythm = started()
    assert probes(rhythm, 2.5) == [(0.0, PROBE_IDLE_S), (1.0, PROBE_IDLE_S), (2.0, PROBE_IDLE_S)]


def test_nothing_is_probed_before_a_session_or_after_it() -> None:
    rhythm = Rhythm(0.0)
    rhythm.set_in_tree(True, 0.0)
    rhythm.on_flow(0.0)
    assert rhythm.poll_probe(0.0) is None
    rhythm.start(1.0)
    assert rhythm.poll_probe(1.0) is not None
    rhythm.stop()
    assert rhythm.poll_timeout() is None
    assert rhythm.poll_probe(9.0) is None


def test_a_tree_edge_is_probed_four_times_as_often_from_that_moment_on() -> None:
    rhythm = started()
    rhythm.poll_probe(0.0)
    rhythm.set_in_tree(True, 0.3)
    assert probes(rhythm, 0.7) == [(0.3, PROBE_IN_TREE_S), (0.55, PROBE_IN_TREE_S)]
    rhythm.set_in_tree(True, 0.7)
    assert rhythm.poll_probe(0.7) is None


def test_while_chunks_cross_the_link_something_goes_every_fifty_milliseconds() -> None:
    rhythm = started()
    rhythm.poll_probe(0.0)
    rhythm.on_flow(0.5)
    assert [at for at, _ in probes(rhythm, 0.69)] == [0.5, 0.55, 0.6, 0.65]
    rhythm.on_flow(0.69)
    assert rhythm.poll_probe(0.69) is None


def test_a_slower_rhythm_is_promised_several_times_before_it_begins() -> None:
    rhythm = started()
    rhythm.on_flow(0.0)
    end = FLOWING_FOR_S
    found = [(at, promise) for at, promise in probes(rhythm, end + 3.0) if at >= end - 1e-9]
    announced = [promise for _, promise in found[:ANNOUNCEMENTS]]
    assert announced == [PROBE_IDLE_S] * ANNOUNCEMENTS
    pauses = [round(later[0] - sooner[0], 6) for sooner, later in pairwise(found)]
    assert pauses[: ANNOUNCEMENTS + 1] == [PROBE_FLOWING_S] * ANNOUNCEMENTS + [PROBE_IDLE_S]


def test_a_rhythm_that_gets_slower_still_while_it_is_announced_is_announced_anew() -> None:
    rhythm = started()
    rhythm.set_in_tree(True, 0.0)
    rhythm.on_flow(0.0)
    probes(rhythm, FLOWING_FOR_S + 2.5 * PROBE_FLOWING_S)
    rhythm.set_in_tree(False, FLOWING_FOR_S + 2.5 * PROBE_FLOWING_S)
    found = probes(rhythm, FLOWING_FOR_S + 5.0)
    pauses = [round(later[0] - sooner[0], 6) for sooner, later in pairwise(found)]
    assert [promise for _, promise in found[:ANNOUNCEMENTS]] == [PROBE_IDLE_S] * ANNOUNCEMENTS
    assert pauses[:ANNOUNCEMENTS] == [PROBE_FLOWING_S] * ANNOUNCEMENTS


def test_a_suspect_link_is_probed_at_once_and_as_often_as_a_tree_edge() -> None:
    rhythm = started()
    rhythm.poll_probe(0.0)
    rhythm.set_hasty(True, 0.4)
    assert [at for at, _ in probes(rhythm, 0.8)] == [0.4, 0.65]
    rhythm.set_hasty(False, 0.7)
    assert rhythm.poll_probe(0.7) == PROBE_IDLE_S


@pytest.mark.parametrize(
    ("promise", "silent_s"),
    [(0.0, 0.22), (PROBE_FLOWING_S, 0.22), (PROBE_IN_TREE_S, 1.02), (1.0, 4.02), (1e9, 4.02)],
)
def test_four_promised_probes_that_stay_away_are_too_much_silence(promise: float, silent_s: float) -> None:
    rhythm = started()
    rhythm.on_promise(promise)
    rhythm.on_heard(10.0)
    assert silence(rhythm) == 10.0 + silent_s


def test_where_chunks_cross_a_dead_link_is_noticed_within_300_milliseconds_however_much_round_trips_vary() -> None:
    rhythm = started()
    rhythm.on_promise(PROBE_FLOWING_S)
    rhythm.spread_s = 0.03
    assert silence(rhythm) == 0.25
    rhythm.spread_s = 5.0
    assert silence(rhythm) == 0.22 + MOST_SPREAD_S <= 0.3


@pytest.mark.parametrize(("loss", "count"), [(0.0, 4), (0.01, 4), (0.1, 4), (0.2, 6), (0.3, 8), (0.6, 10), (1.0, 10)])
def test_where_many_probes_get_lost_more_have_to_stay_away(loss: float, count: int) -> None:
    rhythm = started()
    rhythm.on_promise(PROBE_FLOWING_S)
    rhythm.loss = loss
    assert silence(rhythm) == round(count * PROBE_FLOWING_S + 0.02, 6)


def numbered(rhythm: Rhythm, numbers: Iterable[int]) -> Rhythm:
    """Hear probes of these numbers."""
    for number in numbers:
        rhythm.on_number(number)
    return rhythm


@pytest.mark.parametrize(("every", "share"), [(2, 0.5), (4, 0.25), (10, 0.1)])
def test_the_peers_numbers_tell_how_many_of_its_probes_get_lost_on_their_way_here(every: int, share: float) -> None:
    rhythm = numbered(started(), (number for number in range(2**32 - 500, 2**32) if number % every))
    assert rhythm.loss == pytest.approx(share, abs=0.03)
    numbered(rhythm, range(200))
    assert rhythm.loss < 0.01


def test_an_outage_a_probe_overtaken_and_a_new_session_are_no_loss() -> None:
    rhythm = numbered(started(), [1, 2 + MOST_SILENT_PROBES, 1, 2 + MOST_SILENT_PROBES, 3 + MOST_SILENT_PROBES])
    assert rhythm.loss == 0.0
    rhythm.start(1.0)
    assert numbered(rhythm, [900]).loss == 0.0


def test_a_peer_that_the_network_says_is_gone_has_to_answer_soon() -> None:
    rhythm = started()
    rhythm.on_heard(1.0)
    assert rhythm.on_refused(0.001, 2.0)
    assert not rhythm.on_refused(0.001, 2.05)
    assert silence(rhythm) == 2.0 + REFUSED_S
    rhythm.on_heard(2.06)
    assert silence(rhythm) == 2.06 + 4.02
    assert rhythm.on_refused(0.2, 3.0)
    assert silence(rhythm) == 3.0 + 0.6


def test_what_the_network_says_gives_nobody_more_time() -> None:
    rhythm = started()
    rhythm.on_promise(PROBE_FLOWING_S)
    rhythm.on_refused(1.0, 0.1)
    assert silence(rhythm) == 0.22


def test_whoever_is_late_itself_gives_the_others_time_twice_at_most() -> None:
    rhythm = started()
    now = rhythm.silent_at()
    assert rhythm.may_judge(now + LATE_S / 2)
    for _ in range(MOST_GRACES):
        now = rhythm.silent_at() + 1.0
        assert not rhythm.may_judge(now)
        assert silence(rhythm) == round(now + MOST_GRACE_S, 6)
    assert rhythm.may_judge(rhythm.silent_at() + 1.0)
    rhythm.on_heard(now)
    assert not rhythm.may_judge(rhythm.silent_at() + 1.0)
