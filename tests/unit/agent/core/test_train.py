"""Trains: what is sent, what the other end makes of it, and at which rates one goes on."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.train import (
    FIRST_BYTES_S,
    LEAST_DATAGRAMS,
    MOST_BYTES_S,
    MOST_FAILURES,
    NEXT,
    NEXT_UNLIMITED,
    REPORT_WITHIN_S,
    SILENT_S,
    STRAGGLERS_S,
    Measured,
    Outgoing,
    RateSearch,
    TrainReceiver,
)
from common.errors import DecodeError
from common.limits import MAX_TRAIN_DATAGRAMS
from common.path_frames import Train, TrainReport

SIZE = 1_472


def sent(count: int, rate_bytes_s: float, *, size: int = SIZE) -> tuple[Outgoing, list[tuple[float, Train]]]:
    """Send a whole train, each portion at the time that the train names."""
    train = Outgoing(7, count, size, rate_bytes_s, 100.0)
    now, found = 100.0, list[tuple[float, Train]]()
    while True:
        portion = train.poll(now)
        found += [(now, frame) for frame in portion]
        if len(found) == count:
            return train, found
        now = train.poll_timeout()


def over_a_bucket(
    frames: list[tuple[float, Train]], rate_bytes_s: float, *, bucket_s: float, queue_s: float, loss: float = 0.0
) -> tuple[TrainReport, float]:
    """Let a train pass a token bucket with a queue, and return the report and its time."""
    receiver, paid, rng = TrainReceiver(), 0.0, random.Random(1)
    arrivals = []
    for at, frame in frames:
        due = max(paid, at) + (Train.OVERHEAD_BYTES + frame.padding) / rate_bytes_s
        leaves = max(due - bucket_s, at)
        if leaves - at > queue_s:
            continue
        paid = due
        if rng.random() >= loss:
            arrivals.append((leaves + 0.01, frame))
    # The socket is looked at every 2 ms.
    now = 0.0
    for arrival, frame in arrivals:
        now = (int(arrival / 0.002) + 1) * 0.002
        receiver.on_train(frame, now)
    due_at = receiver.poll_timeout()
    assert due_at is not None
    report = receiver.poll_report(due_at)
    assert report is not None
    return report, due_at


def test_a_train_goes_in_portions_of_a_millisecond_at_its_rate() -> None:
    train, frames = sent(300, 12.5e6)
    times = sorted({at for at, _ in frames})
    assert times[-1] - times[0] == pytest.approx(300 * SIZE / 12.5e6, rel=0.05)
    assert all(later - earlier >= 0.00099 for earlier, later in itertools.pairwise(times))
    assert [frame.index for _, frame in frames] == list(range(300))
    assert {frame.count for _, frame in frames} == {300}
    assert train.poll(times[-1] + 1.0) == []


def test_a_late_timer_lets_the_train_catch_up() -> None:
    train = Outgoing(7, 100, SIZE, 1.472e6, 0.0)
    assert len(train.poll(0.0)) == 1
    assert len(train.poll(0.01)) == 10
    assert train.poll(0.01) == []


def test_a_small_train_is_not_padded() -> None:
    assert Outgoing(7, 2, 0, 1e3, 0.0).poll(0.0)[0].padding == 0


def test_a_report_that_stays_away_is_waited_for_only_so_long() -> None:
    train, frames = sent(24, 1e6)
    over = frames[-1][0] + REPORT_WITHIN_S
    assert train.poll_timeout() == over
    assert not train.expired(over - 0.01)
    assert train.expired(over)


@pytest.mark.parametrize("rate", [0.625e6, 2.5e6, 12.5e6, 25e6])
@pytest.mark.parametrize("queue_s", [0.01, 0.05])
def test_the_second_half_of_a_train_twice_as_fast_tells_the_rate_behind_a_bucket(rate: float, queue_s: float) -> None:
    train, frames = sent(round(2.5 * rate * 0.05 / SIZE), 2.5 * rate)
    report, at = over_a_bucket(frames, rate, bucket_s=0.02, queue_s=queue_s)
    measured = train.on_report(report, at)
    assert measured.arrived_bytes_s == pytest.approx(rate, rel=0.1)
    assert measured.sent_bytes_s == pytest.approx(2.5 * rate, rel=0.1)


@pytest.mark.parametrize("loss", [0.0, 0.05])
@pytest.mark.parametrize("mbit_s", [1, 5, 10, 20, 50, 100, 200])
def test_a_search_ends_with_the_rate_behind_a_bucket(mbit_s: int, loss: float) -> None:
    rate, search, trains = mbit_s * 125e3, RateSearch(), 0
    while not search.over:
        train, frames = sent(search.count(SIZE), search.rate_bytes_s)
        search.on_measured(train.on_report(*over_a_bucket(frames, rate, bucket_s=0.02, queue_s=0.02, loss=loss)))
        trains += 1
    assert search.result_bytes_s == pytest.approx(rate, rel=0.12)
    assert trains <= 8


def test_a_search_from_a_known_rate_needs_one_train_if_nothing_changed() -> None:
    search = RateSearch(1e6)
    assert search.rate_bytes_s == NEXT * 1e6
    search.on_measured(Measured(100, 100, 2.5e6, 1.1e6))
    assert search.over
    assert search.result_bytes_s == 1.1e6


def test_a_search_whose_result_is_news_asks_once_more_and_takes_the_higher() -> None:
    search = RateSearch(1e6)
    ends = []
    for measured in (Measured(100, 100, 2.5e6, 0.3e6), Measured(100, 100, 0.75e6, 0.2e6)):
        search.on_measured(measured)
        ends.append(search.over)
        assert search.rate_bytes_s == pytest.approx(NEXT * 0.3e6)
    assert ends == [False, True]
    assert search.result_bytes_s == 0.3e6


def test_a_train_that_nothing_slowed_down_is_followed_by_a_much_faster_one() -> None:
    search = RateSearch()
    assert search.rate_bytes_s == FIRST_BYTES_S
    search.on_measured(Measured(24, 24, FIRST_BYTES_S, FIRST_BYTES_S))
    assert search.rate_bytes_s == NEXT_UNLIMITED * FIRST_BYTES_S
    search.on_measured(Measured(100, 100, 2.5e6, 1.8e6))
    assert search.rate_bytes_s == NEXT * 1.8e6
    assert not search.over


def test_what_the_fastest_train_says_is_taken() -> None:
    search = RateSearch(50e6)
    assert search.rate_bytes_s == MOST_BYTES_S
    assert search.count(SIZE) <= MAX_TRAIN_DATAGRAMS
    for _ in range(2):
        search.on_measured(Measured(2_500, 2_500, MOST_BYTES_S, 0.99 * MOST_BYTES_S))
    assert search.result_bytes_s == 0.99 * MOST_BYTES_S


def test_a_host_that_cannot_send_any_faster_takes_what_it_got() -> None:
    search = RateSearch(20e6)
    for _ in range(2):
        search.on_measured(Measured(1_000, 1_000, 20e6, 15e6))
    assert search.result_bytes_s == 15e6


def test_no_train_is_faster_than_the_cap() -> None:
    search = RateSearch(most_bytes_s=100e3)
    assert search.rate_bytes_s == 100e3
    assert search.count(SIZE) == LEAST_DATAGRAMS
    search.on_failed()
    assert search.rate_bytes_s == 100e3


def test_trains_without_a_usable_report_slow_the_search_down_and_end_it() -> None:
    search = RateSearch(1e6)
    for _ in range(MOST_FAILURES - 1):
        search.on_measured(Measured(24, 0, 1e6, None))
        assert not search.over
    assert search.rate_bytes_s == FIRST_BYTES_S / 2
    search.on_failed()
    assert search.over
    assert search.result_bytes_s is None


def test_a_report_waits_for_stragglers_of_the_last_datagram_and_comes_once() -> None:
    receiver = TrainReceiver()
    assert receiver.poll_report(0.0) is None
    receiver.on_train(Train(1, 0, 4, 100), 1.0)
    assert receiver.poll_timeout() == 1.0 + SILENT_S
    receiver.on_train(Train(1, 3, 4, 100), 1.1)
    receiver.on_train(Train(1, 2, 4, 100), 1.2)
    assert receiver.poll_report(1.15) is None
    assert receiver.poll_report(1.2 + SILENT_S) == TrainReport(1, 3, 100 + Train.OVERHEAD_BYTES, 100_000)
    assert receiver.poll_timeout() is None
    receiver.on_train(Train(1, 1, 4, 100), 2.0)
    assert receiver.poll_timeout() is None


def test_another_number_begins_another_train() -> None:
    receiver = TrainReceiver()
    receiver.on_train(Train(1, 3, 4, 100), 1.0)
    receiver.on_train(Train(2, 1, 2), 2.0)
    assert receiver.poll_report(2.0 + STRAGGLERS_S) == TrainReport(2, 1, 0, 0)


def test_a_second_half_that_came_in_one_batch_has_no_rate() -> None:
    receiver = TrainReceiver()
    for index in range(4):
        receiver.on_train(Train(1, index, 4, 100), 1.0)
    report = receiver.poll_report(1.0 + STRAGGLERS_S)
    assert report == TrainReport(1, 4, 0, 0)
    train, _ = sent(4, 1e6)
    assert train.on_report(TrainReport(7, 4, 0, 0), 200.0).arrived_bytes_s is None


def test_more_datagrams_than_a_train_has_count_as_all() -> None:
    receiver = TrainReceiver()
    for _ in range(9):
        receiver.on_train(Train(1, 0, 4, 100), 1.0)
    assert receiver.poll_report(2.0) == TrainReport(1, 4, 0, 0)


@pytest.mark.parametrize(
    "report",
    [
        TrainReport(8, 100, 1_000, 10_000),
        TrainReport(7, 101, 1_000, 10_000),
        TrainReport(7, 100, 51 * SIZE, 10_000),
        TrainReport(7, 100, 50 * SIZE, 1),
        TrainReport(7, 100, 50 * SIZE, 0xFFFFFFFF),
    ],
    ids=["another train", "more datagrams", "more bytes", "100 Gbit/s", "more time than has passed"],
)
def test_a_report_that_cannot_be_true_is_refused(report: TrainReport) -> None:
    train, frames = sent(100, 1.25e6)
    with pytest.raises(DecodeError):
        train.on_report(report, frames[-1][0] + 0.1)


def test_a_report_before_the_train_has_gone_is_refused() -> None:
    train = Outgoing(7, 100, SIZE, 1e6, 0.0)
    train.poll(0.0)
    with pytest.raises(DecodeError):
        train.on_report(TrainReport(7, 100, 1_000, 10_000), 0.01)


@given(st.integers(0, 100), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_no_report_makes_a_path_faster_than_what_was_sent(arrived: int, later_bytes: int, span_us: int) -> None:
    train, frames = sent(100, 1.25e6)
    try:
        measured = train.on_report(TrainReport(7, arrived, later_bytes, span_us), frames[-1][0] + 1.0)
    except DecodeError:
        return
    assert measured.arrived_bytes_s is None or measured.arrived_bytes_s <= measured.sent_bytes_s
