"""Bad weather (issue 3): everything completes, exactly once, without spinning and without growth."""

import random
from dataclasses import replace

import pytest

from tests.harness.weather import LINKS, RATE_BPS, Weather, black_out, calm, changes, endure

WEATHERS = {
    "loss 1 %": Weather(calm(loss=0.01)),
    "loss 5 %": Weather(calm(loss=0.05)),
    "loss 10 %": Weather(calm(loss=0.1)),
    "loss 2 % in bursts of 8": Weather(calm(loss=0.02, burst=8)),
    "loss 10 % in bursts of 8": Weather(calm(loss=0.1, burst=8)),
    "loss 10 % in bursts of 50": Weather(calm(loss=0.1, burst=50)),
    "a twentieth overtaken by up to 50": Weather(calm(reorder=0.05, reorder_by=50)),
    "half overtaken by up to 50": Weather(calm(reorder=0.5, reorder_by=50)),
    "duplication 5 %": Weather(calm(duplicate=0.05)),
    "round trip 1 ms": Weather(calm(delay_s=0.0005)),
    "round trip 100 ms": Weather(calm(delay_s=0.05)),
    "round trip 300 ms": Weather(calm(delay_s=0.15)),
    "round trip 300 ms and loss 5 %": Weather(calm(delay_s=0.15, loss=0.05)),
    "rate down to a tenth": Weather(calm(), changes((0.3, {"rate_bps": RATE_BPS / 10}))),
    "rate up from a tenth": Weather(calm(), changes((0.0, {"rate_bps": RATE_BPS / 10}), (1.0, {"rate_bps": RATE_BPS}))),
    "rate down and up and down": Weather(
        calm(),
        changes(
            (0.2, {"rate_bps": 1e6}),
            (1.2, {"rate_bps": RATE_BPS}),
            (1.5, {"rate_bps": 1e6}),
            (2.5, {"rate_bps": RATE_BPS}),
        ),
    ),
    "acknowledgements lost 10 %": Weather(calm(back=calm(loss=0.1))),
    "acknowledgements lost 30 %": Weather(calm(back=calm(loss=0.3))),
    "acknowledgements lost 20 % in bursts of 20": Weather(calm(back=calm(loss=0.2, burst=20))),
    "acknowledgements over a hundredth of the rate": Weather(calm(back=calm(rate_bps=RATE_BPS / 100))),
    "black-out of the first link": Weather(calm(), black_out(LINKS[0], 0.3, 5.0)),
    "black-out of the second link": Weather(calm(), black_out(LINKS[1], 0.3, 5.0)),
    "all at once": Weather(
        calm(delay_s=0.05, jitter_s=0.01, loss=0.05, burst=4, reorder=0.05, reorder_by=50, duplicate=0.05),
        changes((0.5, {"rate_bps": RATE_BPS / 10}), (1.5, {"rate_bps": RATE_BPS})),
    ),
}


@pytest.mark.parametrize("name", WEATHERS)
def test_all_arrives_once_in_bad_weather(name: str) -> None:
    endure(WEATHERS[name], seed=1)


def draw_weather(rng: random.Random) -> Weather:
    """Draw a weather anywhere between what the matrix has."""
    there = calm(
        delay_s=rng.choice((0.0005, 0.005, 0.02, 0.05, 0.15)),
        jitter_s=rng.choice((0.0, 0.0, 0.005)),
        loss=rng.choice((0.0, 0.01, 0.05, 0.1)),
        burst=rng.choice((1, 1, 4, 20, 50)),
        duplicate=rng.choice((0.0, 0.05)),
        reorder=rng.choice((0.0, 0.05, 0.3)),
        reorder_by=50,
    )
    if rng.random() < 0.3:
        there = replace(there, back=calm(delay_s=there.delay_s, loss=rng.choice((0.1, 0.3)), burst=rng.choice((1, 10))))
    happenings = rng.choice(
        (
            (),
            changes((0.3, {"rate_bps": RATE_BPS / 10}), (2.0, {"rate_bps": RATE_BPS})),
            changes((0.0, {"rate_bps": RATE_BPS / 10}), (1.0, {"rate_bps": RATE_BPS})),
            black_out(rng.choice(LINKS), 0.3, rng.choice((0.5, 2.0, 5.0))),
        )
    )
    return Weather(there, happenings)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(400))
def test_all_arrives_once_in_weather_of_any_kind(seed: int) -> None:
    weather = draw_weather(random.Random(f"weather:{seed}"))
    print(weather)  # noqa: T201 - pytest shows it where the test fails
    endure(weather, seed=seed, size_bytes=400_000)
