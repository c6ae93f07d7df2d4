"""Random partial meshes for tests: connected, seeded, with as much trouble on the links as asked for."""

from __future__ import annotations

import random

from common.ids import LinkKey, link_key
from lab.scenario import LinkFigures, Scenario


def random_mesh(
    devices: int,
    *,
    seed: int,
    degree: float = 4.0,
    loss: float = 0.0,
    duplicate: float = 0.0,
    reorder: float = 0.0,
    jitter_s: float = 0.0,
) -> Scenario:
    """Draw a connected partial mesh.

    Args:
        devices: How many, at least 2.
        seed: The mesh follows from it, and is the scenario's seed.
        degree: Links per device on average.
        loss: The most that a link loses, 0 to 1; each link draws its share up to it.
        duplicate: The most that a link duplicates, 0 to 1.
        reorder: The most that a link reorders, 0 to 1.
        jitter_s: The most jitter in seconds.

    Returns:
        A scenario with devices ``d000``, ``d001`` and so on.
    """
    rng = random.Random(f"mesh:{seed}")
    names = [f"d{index:03}" for index in range(devices)]
    pairs: dict[LinkKey, None] = {}
    for index in range(1, devices):
        pairs[link_key(names[index], names[rng.randrange(index)])] = None
    wanted = min(round(devices * degree / 2), devices * (devices - 1) // 2)
    while len(pairs) < wanted:
        a, b = rng.sample(names, 2)
        pairs[link_key(a, b)] = None
    links = {
        pair: LinkFigures(
            rate_bps=rng.choice((20e6, 50e6, 100e6)),
            delay_s=rng.choice((0.001, 0.005, 0.02)),
            jitter_s=rng.random() * jitter_s,
            loss=rng.random() * loss,
            duplicate=rng.random() * duplicate,
            reorder=rng.random() * reorder,
        )
        for pair in sorted(pairs)
    }
    return Scenario(name=f"mesh-{devices}", devices=tuple(names), links=links, seed=seed)
