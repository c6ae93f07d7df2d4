import pytest

from lab.random_mesh import random_mesh


@pytest.mark.parametrize("devices", [2, 12, 100])
def test_a_random_mesh_is_connected_and_partial(devices: int) -> None:
    mesh = random_mesh(devices, seed=3)
    reached = [mesh.devices[0]]
    for device in reached:
        reached += [peer for peer in mesh.peers(device) if peer not in reached]
    assert sorted(reached) == list(mesh.devices)
    assert len(mesh.links) <= max(devices - 1, 2 * devices)


def test_the_same_seed_draws_the_same_mesh() -> None:
    assert random_mesh(12, seed=1, loss=0.05) == random_mesh(12, seed=1, loss=0.05)
    assert random_mesh(12, seed=1) != random_mesh(12, seed=2)


def test_no_link_is_worse_than_asked_for() -> None:
    mesh = random_mesh(30, seed=1, loss=0.05, duplicate=0.02, reorder=0.03, jitter_s=0.004)
    assert all(
        figures.loss <= 0.05 and figures.duplicate <= 0.02 and figures.reorder <= 0.03 and figures.jitter_s <= 0.004
        for figures in mesh.links.values()
    )
