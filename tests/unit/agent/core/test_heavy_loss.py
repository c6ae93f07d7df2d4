"""A path that loses so much that it is being sent more than it carries."""

from agent.core.heavy_loss import HEAVY_LOSS, HEAVY_SAMPLES, LOSS_SAMPLE_PACKETS, HeavyLoss

PACKET = 1_200
SAMPLE = LOSS_SAMPLE_PACKETS * PACKET


def end_round(watch: HeavyLoss, *, lost: float, rate: float = 0.0, size: int = SAMPLE) -> float | None:
    """Let a round pass that lost a share of so many bytes."""
    watch.on_bytes(size - int(lost * size), int(lost * size))
    watch.on_rate(rate)
    return watch.end_round()


def test_heavy_loss_again_and_again_tells_the_highest_rate_meanwhile() -> None:
    watch = HeavyLoss(PACKET)
    rates = [3_000.0, *[1_000.0] * (HEAVY_SAMPLES - 1)]
    assert [end_round(watch, lost=HEAVY_LOSS + 0.1, rate=rate) for rate in rates] == [None, 3_000.0]
    # The next sample is the first one again.
    assert end_round(watch, lost=HEAVY_LOSS + 0.1) is None


def test_a_sample_that_loses_little_begins_anew() -> None:
    watch = HeavyLoss(PACKET)
    for _ in range(3):
        assert end_round(watch, lost=HEAVY_LOSS + 0.1, rate=9_000.0) is None
        assert end_round(watch, lost=HEAVY_LOSS) is None
    end_round(watch, lost=0.5, rate=2_000.0)
    assert end_round(watch, lost=0.5, rate=1_000.0) == 2_000.0


def test_a_share_of_few_bytes_is_taken_together_with_the_next() -> None:
    watch = HeavyLoss(PACKET)
    told = [end_round(watch, lost=0.5, rate=1_000.0, size=SAMPLE // 2) for _ in range(4)]
    assert told == [None, None, None, 1_000.0]
