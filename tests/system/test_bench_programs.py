"""The programs that the benches compare with: every byte comes, and what is kept is whole."""

import importlib.util
from pathlib import Path

import pytest

from bench import _raw
from bench._beside import tcp_tree, zenoh_config, zenoh_routers
from bench._programs import Place, Programs, told
from common.errors import ConnectError
from lab.loopback import LoopbackSystem
from lab.progress import QuietWatcher
from lab.scenario import LinkFigures, Scenario

CHAIN = (("A", "B"), ("B", "C"), ("B", "D"))
BYTES = 700_000
DATAGRAM = 1_472
WITHIN_S = 30.0

pytestmark = pytest.mark.loopback


@pytest.fixture
def system(tmp_path: Path) -> LoopbackSystem:
    """Describe a system; nothing of it runs, for the programs need no more than its devices and links."""
    scenario = Scenario(name="chain", devices=("A", "B", "C", "D"), links=dict.fromkeys(CHAIN, LinkFigures()))
    return LoopbackSystem(scenario, tmp_path / "lab", QuietWatcher())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "payload.bin"
    path.write_bytes(bytes(range(250)) * (BYTES // 250))
    return path


def whole(file: Path, kind: str) -> bool:
    return all(file.with_name(f"{kind}-{device}.bin").read_bytes() == file.read_bytes() for device in "BCD")


async def test_the_tcp_tree_brings_the_file_to_every_device(system: LoopbackSystem, file: Path) -> None:
    run = await tcp_tree(system, CHAIN, "A", file, within=WITHIN_S)
    assert sorted(run["devices"]) == ["B", "C", "D"], run
    assert run["seconds"] == max(run["devices"].values())
    assert whole(file, "tcp")


@pytest.mark.skipif(importlib.util.find_spec("zenoh") is None, reason="eclipse-zenoh is not installed")
async def test_zenoh_brings_the_file_to_every_device(system: LoopbackSystem, file: Path) -> None:
    run = await zenoh_routers(system, "A", file, within=WITHIN_S)
    assert sorted(run["devices"]) == ["B", "C", "D"], run
    assert whole(file, "zenoh")


async def test_without_zenoh_its_part_is_skipped_and_says_why(
    system: LoopbackSystem, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert await zenoh_routers(system, "A", file, within=WITHIN_S) == {
        "skipped": "eclipse-zenoh is not installed; .venv/bin/pip install -e '.[bench]' brings it"
    }


def test_of_two_zenoh_routers_one_calls_the_other_and_no_memory_is_shared(system: LoopbackSystem) -> None:
    configs = {device: zenoh_config(Place(system, 7447), device, system.scenario.peers(device)) for device in "ABCD"}
    listens = {device: config["listen"]["endpoints"] for device, config in configs.items()}
    calls = {device: config["connect"]["endpoints"] for device, config in configs.items()}
    assert [len(endpoints) for endpoints in listens.values()] == [1] * 4
    assert calls == {"A": [], "B": listens["A"], "C": listens["B"], "D": listens["B"]}
    assert not any(config["transport"]["shared_memory"]["enabled"] for config in configs.values())


@pytest.mark.parametrize("keeps", [False, True])
async def test_the_raw_relay_passes_every_train_on(system: LoopbackSystem, tmp_path: Path, keeps: bool) -> None:
    place, kept = Place(system, 5301), tmp_path / "kept.bin"
    train = len(_raw.sealed_train(DATAGRAM))
    size = 20 * train
    async with Programs(place) as programs:
        receives, relays = place.target("C", "B"), place.target("B", "A")
        receiver = await programs.start("C", "bench._raw", "receive", *receives.split(":"), str(size))
        assert await receiver.line() == {"ready": True}
        store = str(kept) if keeps else "-"
        relay = await programs.start("B", "bench._raw", "relay", *relays.split(":"), str(size), store, receives)
        assert await relay.line() == {"ready": True}
        sender = await programs.start("A", "bench._raw", "send", relays, str(size), str(DATAGRAM))
        assert await sender.line() == {"ready": True}
        sender.go()
        assert (await relay.line())["bytes"] == size
        assert (await receiver.line())["bytes"] == size
        assert (await sender.line())["bytes"] == size
        assert programs.cpu_seconds().keys() == {"A", "B", "C"}
    if keeps:
        chunks = size // DATAGRAM
        assert kept.stat().st_size == size - chunks * (_raw.HEAD_BYTES + _raw.TAG_BYTES)


async def test_a_program_that_ends_is_told_and_the_others_end_too(system: LoopbackSystem) -> None:
    place = Place(system, 5301)
    arguments = ("bench._raw", "receive", *place.target("A", "B").split(":"), "1")
    async with told("the loop") as figures, Programs(place) as programs:
        waits = await programs.start("A", *arguments)
        await waits.line()
        ends = await programs.start("B", *arguments)
        await ends.line()
    assert figures == {"failed": "the loop: bench._raw at B ended"}
    with pytest.raises(ConnectError, match=r"bench\._raw at A ended"):
        await waits.line()
