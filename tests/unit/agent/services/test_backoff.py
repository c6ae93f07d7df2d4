import random

from agent.services.backoff import Backoff


def test_waits_double_up_to_the_limit() -> None:
    backoff = Backoff(random.Random(1))
    waits = [backoff.next() for _ in range(10)]
    for wait, bound in zip(waits, (0.25, 0.5, 1, 2, 4, 8, 15, 15, 15, 15), strict=True):
        assert bound / 2 <= wait <= bound


def test_agents_that_lost_the_server_together_come_back_apart() -> None:
    waits = {Backoff(random.Random(seed)).next() for seed in range(100)}
    assert len(waits) == 100


def test_waits_begin_anew_after_a_success() -> None:
    backoff = Backoff(random.Random(1))
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.25
