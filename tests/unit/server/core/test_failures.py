import pytest

from server.core.failures import FailureLimit, TooManyFailures, key_of


def test_a_few_failures_are_told_and_then_the_address_waits() -> None:
    limit = FailureLimit(at_once=3, every_s=6.0)
    assert [limit.fail("192.0.2.1", now=0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limit.fail("192.0.2.1", now=0.0) == 6.0
    assert limit.fail("192.0.2.1", now=3.0) == pytest.approx(3.0)
    assert limit.fail("192.0.2.2", now=3.0) == 0.0
    assert limit.fail("192.0.2.1", now=6.0) == 0.0
    assert limit.fail("192.0.2.1", now=6.0) == 6.0


def test_an_address_that_is_quiet_long_enough_is_forgotten() -> None:
    limit = FailureLimit(at_once=2, every_s=5.0)
    limit.fail("192.0.2.1", now=0.0)
    limit.fail("192.0.2.2", now=4.0)
    assert len(limit) == 2
    limit.fail("192.0.2.2", now=5.0)
    assert len(limit) == 1
    limit.fail("192.0.2.3", now=100.0)
    assert len(limit) == 1


def test_the_table_is_bounded_and_the_longest_quiet_gives_way() -> None:
    limit = FailureLimit(at_once=1, every_s=1_000.0, most_addresses=2)
    for number in (1, 2, 1, 3):
        limit.fail(f"192.0.2.{number}", now=0.0)
    assert len(limit) == 2
    assert limit.fail("192.0.2.1", now=0.0) > 0
    assert limit.fail("192.0.2.2", now=0.0) == 0.0


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_addresses_that_one_client_is_likely_to_have_are_one(host: str, key: str) -> None:
    assert key_of(host) == key


def test_who_is_put_off_is_told_for_how_long() -> None:
    error = TooManyFailures(5.6)
    assert (error.reason, error.retry_after_s) == ("too-many-failures", 5.6)
    assert "try again in 6 s" in error.detail
