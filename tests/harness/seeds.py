"""Seeds of simulations: a few for every run of the tests, the others for the long simulations."""

import pytest
from _pytest.mark import ParameterSet


def seeds(count: int, *, usual: int = 1) -> list[ParameterSet]:
    """Return so many seeds from 0, of which the first ``usual`` belong to every run."""
    return [pytest.param(seed, marks=() if seed < usual else pytest.mark.soak) for seed in range(count)]
