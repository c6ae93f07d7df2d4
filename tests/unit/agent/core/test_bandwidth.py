"""The windowed maximum of delivery rates."""

from agent.core.bandwidth import BANDWIDTH_ROUNDS, BandwidthFilter


def test_the_highest_rate_of_the_last_rounds_counts() -> None:
    bandwidth = BandwidthFilter(1_000.0)
    assert bandwidth.take(500.0, 1, limited=False)
    assert bandwidth.bytes_s == 500.0
    bandwidth.take(900.0, 1, limited=False)
    bandwidth.take(700.0, 2, limited=False)
    assert bandwidth.bytes_s == 900.0
    for number in range(3, BANDWIDTH_ROUNDS + 1):
        bandwidth.take(600.0, number, limited=False)
    assert bandwidth.bytes_s == 900.0
    bandwidth.take(600.0, BANDWIDTH_ROUNDS + 1, limited=False)
    assert bandwidth.bytes_s == 700.0


def test_a_limited_sample_counts_if_it_is_higher_and_never_ages_the_others() -> None:
    bandwidth = BandwidthFilter(1_000.0)
    assert not bandwidth.take(900.0, 1, limited=True)
    assert bandwidth.bytes_s == 1_000.0
    assert bandwidth.take(2_000.0, 2, limited=True)
    for number in range(3, 3 * BANDWIDTH_ROUNDS):
        assert not bandwidth.take(5.0, number, limited=True)
    assert bandwidth.bytes_s == 2_000.0


def test_what_is_old_can_be_forgotten_but_not_the_newest() -> None:
    bandwidth = BandwidthFilter(1_000.0)
    bandwidth.forget(1)
    assert bandwidth.bytes_s == 1_000.0
    for number, rate in enumerate((900.0, 800.0, 700.0)):
        bandwidth.take(rate, number, limited=False)
    bandwidth.forget(2)
    assert bandwidth.bytes_s == 800.0
    bandwidth.forget(0)
    assert bandwidth.bytes_s == 700.0


def test_a_lower_rate_can_take_the_place_of_all_samples() -> None:
    bandwidth = BandwidthFilter(1_000.0)
    bandwidth.take(900.0, 1, limited=False)
    bandwidth.lower(0.0)
    bandwidth.lower(950.0)
    assert bandwidth.bytes_s == 900.0
    bandwidth.lower(300.0)
    bandwidth.take(200.0, 1, limited=False)
    assert bandwidth.bytes_s == 300.0
