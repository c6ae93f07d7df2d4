"""The search for what a path takes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.mtu import (
    IP_MTUS,
    IPV4_HEADERS_BYTES,
    IPV6_HEADERS_BYTES,
    RAISE_FIRST_S,
    RAISE_MOST_S,
    SUSPECT_LOST,
    TRIES,
    PathMtu,
)
from common.errors import DecodeError
from common.limits import DEFAULT_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES, MIN_DATAGRAM_BYTES

TIMEOUT_S = 0.1


def search(limit_bytes: int = DEFAULT_DATAGRAM_BYTES, *, ipv6: bool = False) -> PathMtu:
    return PathMtu(limit_bytes, ipv6=ipv6, now=0.0)


def run(mtu: PathMtu, path: int, until: float, now: float = 0.0) -> list[tuple[float, tuple[int, ...]]]:
    """Let time pass on a path that answers what it takes, and return the probes sent with their times."""
    sent = []
    while (due := mtu.poll_timeout()) is not None and due <= until:
        now = max(now, due)
        sizes = mtu.poll_probes(now, TIMEOUT_S)
        if sizes:
            sent.append((now, sizes))
        for size in sizes:
            if size <= path:
                mtu.on_answer(size, now)
    return sent


def lose(mtu: PathMtu, now: float) -> None:
    """Let so many large datagrams be lost in a row that the size is suspect."""
    mtu.on_feedback(0, SUSPECT_LOST, now)


def test_the_ladder_names_the_usual_sizes_of_paths_the_largest_first() -> None:
    assert search().poll_probes(0.0, TIMEOUT_S) == (8_972, 8_868, 1_472, 1_464, 1_432, 1_422, 1_392, 1_372, 1_252)
    assert search(ipv6=True).poll_probes(0.0, TIMEOUT_S)[-3:] == (1_372, 1_352, 1_232)
    assert search(1_472).poll_probes(0.0, TIMEOUT_S) == (1_472, 1_464, 1_432, 1_422, 1_392, 1_372, 1_252)
    assert search(1_300).poll_probes(0.0, TIMEOUT_S) == (1_300, 1_252)


def test_where_both_ends_take_the_least_alone_there_is_nothing_to_search() -> None:
    mtu = search(MIN_DATAGRAM_BYTES)
    assert (mtu.measured, mtu.mtu_bytes, mtu.poll_timeout()) == (True, MIN_DATAGRAM_BYTES, None)
    assert mtu.poll_probes(0.0, TIMEOUT_S) == ()


@pytest.mark.parametrize("ip_mtu", IP_MTUS)
@pytest.mark.parametrize("ipv6", [False, True])
def test_each_rung_is_found_in_the_first_round(ip_mtu: int, ipv6: bool) -> None:
    headers = IPV6_HEADERS_BYTES if ipv6 else IPV4_HEADERS_BYTES
    mtu = search(MAX_DATAGRAM_BYTES, ipv6=ipv6)
    run(mtu, ip_mtu - headers, 0.0)
    assert (mtu.measured, mtu.mtu_bytes) == (True, ip_mtu - headers)


def test_the_first_answer_counts_and_a_larger_one_raises_it() -> None:
    mtu = search()
    mtu.poll_probes(0.0, TIMEOUT_S)
    assert not mtu.measured
    mtu.on_answer(1_392, 0.01)
    assert (mtu.measured, mtu.mtu_bytes) == (True, 1_392)
    mtu.on_answer(1_472, 0.01)
    mtu.on_answer(1_464, 0.01)
    assert mtu.mtu_bytes == 1_472


def test_what_got_no_answer_is_tried_three_times_and_asked_for_again_with_growing_pauses() -> None:
    mtu = search()
    sent = run(mtu, 1_472, 4 * RAISE_MOST_S)
    assert [sizes for _, sizes in sent[1:TRIES]] == [(8_972, 8_868)] * (TRIES - 1)
    starts = [at for at, _ in sent[::TRIES]]
    pauses = [b - a - TRIES * TIMEOUT_S for a, b in pairwise(starts)]
    assert pauses == pytest.approx([RAISE_FIRST_S * 2**n for n in range(5)] + [RAISE_MOST_S] * (len(pauses) - 5))


def test_a_lost_probe_is_sent_again_and_its_answer_raises_the_result() -> None:
    mtu = search(1_472)
    assert mtu.poll_probes(0.0, TIMEOUT_S)[0] == 1_472
    mtu.on_answer(1_464, 0.0)
    assert mtu.poll_probes(0.05, TIMEOUT_S) == ()
    assert mtu.poll_probes(TIMEOUT_S, TIMEOUT_S) == (1_472,)
    mtu.on_answer(1_472, TIMEOUT_S)
    assert (mtu.mtu_bytes, mtu.poll_timeout()) == (1_472, None)


def test_a_path_that_answers_nothing_counts_as_measured_after_three_tries() -> None:
    mtu = search()
    run(mtu, 0, TRIES * TIMEOUT_S - 0.01)
    assert not mtu.measured
    run(mtu, 0, TRIES * TIMEOUT_S)
    assert (mtu.measured, mtu.mtu_bytes) == (True, MIN_DATAGRAM_BYTES)


def test_an_answer_to_what_was_not_sent_is_refused_and_changes_nothing() -> None:
    mtu = search(1_472)
    with pytest.raises(DecodeError, match="no probe of 1472 bytes"):
        mtu.on_answer(1_472, 0.0)
    mtu.poll_probes(0.0, TIMEOUT_S)
    with pytest.raises(DecodeError, match="no probe of 9000 bytes"):
        mtu.on_answer(9_000, 0.0)
    assert (mtu.measured, mtu.mtu_bytes) == (False, MIN_DATAGRAM_BYTES)


def test_a_path_that_takes_less_than_it_did_is_measured_anew_downwards() -> None:
    mtu = search(1_472)
    run(mtu, 1_472, 0.0)
    for _ in range(SUSPECT_LOST - 1):
        mtu.on_feedback(0, 1, 1.0)
    assert mtu.poll_timeout() is None
    mtu.on_feedback(0, 1, 1.0)
    sent = run(mtu, 1_400, 2.0, now=1.0)
    assert sent[0][1] == (1_472, 1_464, 1_432, 1_422, 1_392, 1_372, 1_252, 1_200)
    assert len(sent) == TRIES
    assert mtu.mtu_bytes == 1_392
    at, sizes = run(mtu, 1_472, 100.0)[0]
    assert at == pytest.approx(1.0 + TRIES * TIMEOUT_S + RAISE_FIRST_S)
    assert sizes == (1_472, 1_464, 1_432, 1_422)
    assert mtu.mtu_bytes == 1_472


def test_losses_between_arrivals_are_only_losses() -> None:
    mtu = search(1_472)
    run(mtu, 1_472, 0.0)
    for _ in range(10):
        mtu.on_feedback(0, SUSPECT_LOST - 1, 1.0)
        mtu.on_feedback(1, 3, 1.0)
    assert mtu.poll_timeout() is None


def test_losses_that_were_chance_leave_the_size_as_it_is() -> None:
    mtu = search(1_472)
    run(mtu, 1_472, 0.0)
    lose(mtu, 1.0)
    assert len(run(mtu, 1_472, 2.0, now=1.0)) == 1
    assert (mtu.mtu_bytes, mtu.poll_timeout()) == (1_472, None)


def test_a_dead_path_says_nothing_about_sizes() -> None:
    mtu = search(1_472)
    run(mtu, 1_472, 0.0)
    lose(mtu, 1.0)
    lose(mtu, 1.0)
    assert len(run(mtu, 0, 2.0, now=1.0)) == TRIES
    assert (mtu.mtu_bytes, mtu.poll_timeout()) == (1_472, None)


def test_the_least_size_is_never_suspect() -> None:
    mtu = search(1_472)
    run(mtu, 0, 1.0)
    due = mtu.poll_timeout()
    lose(mtu, 1.0)
    assert mtu.poll_timeout() == due


def test_an_answer_that_comes_after_its_search_still_counts() -> None:
    mtu = search(1_472)
    mtu.poll_probes(0.0, TIMEOUT_S)
    run(mtu, 0, TRIES * TIMEOUT_S)
    mtu.on_answer(1_472, 1.0)
    assert (mtu.mtu_bytes, mtu.poll_timeout()) == (1_472, None)


@given(st.integers(1_180, 9_100), st.integers(MIN_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES), st.booleans(), st.randoms())
def test_the_result_never_passes_the_path_and_is_its_best_rung_whatever_is_lost(
    path: int, limit_bytes: int, ipv6: bool, rng: object
) -> None:
    mtu = search(limit_bytes, ipv6=ipv6)
    now = 0.0
    while (due := mtu.poll_timeout()) is not None and due < 10_000.0:
        now = due
        for size in mtu.poll_probes(now, TIMEOUT_S):
            if size <= path and rng.random() > 0.3:  # type: ignore[attr-defined]
                mtu.on_answer(size, now)
    headers = IPV6_HEADERS_BYTES if ipv6 else IPV4_HEADERS_BYTES
    rungs = [MIN_DATAGRAM_BYTES, limit_bytes, *(size - headers for size in IP_MTUS)]
    fits = [size for size in rungs if MIN_DATAGRAM_BYTES <= size <= min(max(path, MIN_DATAGRAM_BYTES), limit_bytes)]
    assert mtu.mtu_bytes == max(fits)
