"""Ten agents in namespaces, two behind each kind of NAT box, find each other as docs/nat-grid.md says."""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from common.ids import link_key
from lab.nat import Kind
from lab.netns import NetnsSystem, check_netns
from lab.progress import QuietWatcher
from lab.scenario import Access, Scenario
from tests.harness.nat_grid import nat_grid

KINDS = {f"{kind.value}-{number}": kind for kind in Kind for number in (1, 2)}
SCENARIO = Scenario(
    name="grid",
    devices=tuple(sorted(KINDS)),
    links={},
    internet={device: Access(kind.value) for device, kind in sorted(KINDS.items())},
    datagram_bytes=1472,
)
PATIENCE_S = 60.0
STILL_S = 6.0
"""After the last link that can open: longer than the longest pause between two hellos."""


async def statuses(system: NetnsSystem) -> dict[str, dict[str, Any]]:
    told = {device: await system.status(device) for device in SCENARIO.devices}
    return {device: dict(status) for device, status in told.items() if status is not None}


async def open_pairs(system: NetnsSystem) -> set[tuple[str, str]]:
    found = await statuses(system)
    ends = {
        (device, link["peer"])
        for device, status in found.items()
        for link in status["links"]
        if link["state"] == "open"
    }
    return {link_key(a, b) for a, b in ends if (b, a) in ends}


@pytest.mark.timeout(180)
async def test_agents_behind_real_nats_open_every_link_that_can_be(tmp_path: Path) -> None:
    try:
        check_netns(SCENARIO, None)
    except ConfigError as error:
        pytest.skip(str(error))
    grid = nat_grid()
    wanted = {
        (one, other) for one, other in itertools.combinations(SCENARIO.devices, 2) if grid[KINDS[one], KINDS[other]]
    }
    system = NetnsSystem(SCENARIO, tmp_path / "lab", QuietWatcher())
    try:
        await system.start()
        until = time.monotonic() + PATIENCE_S
        while not wanted <= await open_pairs(system):
            assert time.monotonic() < until, wanted - await open_pairs(system)
            await asyncio.sleep(0.5)
        await asyncio.sleep(STILL_S)
        assert await open_pairs(system) == wanted
        graph = await system.graph()
        assert graph is not None
        assert graph.components() == (SCENARIO.devices,), "where two cannot meet, the graph goes round"
        assert all(edge in wanted for tree in graph.trees for edge in tree.edges)
        for device, status in (await statuses(system)).items():
            told = {missing["peer"] for missing in status["missing"]}
            assert told == {
                peer for peer in SCENARIO.devices if peer != device and link_key(device, peer) not in wanted
            }
        assert all(sum(both) > 0 for both in system.access_bytes().values())
    finally:
        await system.stop()
