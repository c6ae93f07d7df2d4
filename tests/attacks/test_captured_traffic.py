"""Traffic of two real agents in an attacker's hands: kept and played again, altered, cut short, forged, disordered."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from common.datagrams import (
    CHUNK_OVERHEAD_BYTES,
    FRAGMENT_HEADERS_BYTES,
    HEADERS_BYTES,
    HOP_HEADER_BYTES,
    PacketType,
    peek_chunk,
)
from common.ids import DeviceId
from lab.happenings import Happening, Verb
from tests.harness.attacked import Attacked, make_file, running, until
from tests.harness.wire import Rule, Wire, pass_on

pytestmark = [pytest.mark.loopback, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

AGAIN = 20
SIZE = 3_000_000
NARROW = 1_300
"""Bytes of a datagram above which the attacker loses all, so that chunks have to go in fragments."""
Lab = tuple[Attacked, Wire]
Captured = dict[PacketType, list[bytes]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tapped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """Agents A and B whose only way to each other is the attacker's."""
    with closing(Wire("A", "B")) as wire:
        flags = {device: wire.flags(device) for device in ("A", "B")}
        async with running(Attacked(tmp_path_factory.mktemp("lab"), "A B", flags=flags)) as system:
            yield system, wire


def losing(kinds: set[int], numbers: range) -> Rule:
    """Lose some chunks as long as they come in these ways."""

    def rule(sender: DeviceId, datagram: bytes) -> list[bytes]:
        chunk = peek_chunk(datagram)
        lost = chunk is not None and chunk.kind in kinds and chunk.number in numbers
        return [] if lost else [datagram]

    return rule


def narrow(sender: DeviceId, datagram: bytes) -> list[bytes]:
    """Lose what is larger than a narrow path takes."""
    return [datagram] if len(datagram) <= NARROW else []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def captured(tapped: Lab, tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """Let files cross, and B die once, so that datagrams of every type pass; return those that came from A, by type."""
    system, wire = tapped
    folder = tmp_path_factory.mktemp("captured")
    wire.rule = losing({PacketType.DATA}, range(10, 30))
    await system.send("A", make_file(folder, SIZE, "repeated.bin"))
    await system.arrives("B", folder / "repeated.bin")
    wire.rule = losing({PacketType.DATA, PacketType.REPEAT}, range(500, SIZE))
    await system.send("A", make_file(folder, SIZE, "pulled.bin"))
    await until(lambda: holds(system, "pulled.bin", 400))
    await system.happen(Happening(0.0, Verb.KILL, device="B"))
    wire.rule = pass_on
    await system.happen(Happening(0.0, Verb.START, device="B"))
    await system.arrives("B", folder / "pulled.bin")
    wire.rule = narrow
    await system.send("A", make_file(folder, SIZE, "fragments.bin"))
    await system.arrives("B", folder / "fragments.bin")
    wire.rule = pass_on
    found = {kind: wire.of_kind(kind, "A") for kind in PacketType}
    assert all(found.values()), {kind.name: len(each) for kind, each in found.items()}
    return found


async def holds(system: Attacked, name: str, chunks: int) -> bool:
    return bool((await system.stream("B", name)).get("held_chunks", 0) >= chunks)


async def quiet(system: Attacked) -> dict[str, Any]:
    """Wait until no chunk is on its way; return B's status."""
    last = await system.look("B")
    while True:
        await asyncio.sleep(0.3)
        now = await system.look("B")
        if system.fingerprint(now) == system.fingerprint(last):
            return now
        last = now


async def unharmed(system: Attacked, wire: Wire, datagrams: list[bytes]) -> tuple[dict[str, int], dict[str, Any]]:
    """Send B datagrams from A's address; see that nothing changes; return what was dropped, and B's link to A."""
    before = await quiet(system)
    wire.inject("B", datagrams)
    after = await quiet(system)
    assert system.fingerprint(after) == system.fingerprint(before)
    dropped = {why: n - before["drops"].get(why, 0) for why, n in after["drops"].items()}
    return {why: n for why, n in dropped.items() if n}, after["links"][0]


async def test_captured_datagrams_of_every_type_are_worth_nothing_a_second_time(
    tapped: Lab, captured: Captured, tmp_path: Path
) -> None:
    system, wire = tapped
    files = sorted(path.name for path in system.received("B").iterdir())
    for kind, found in captured.items():
        again = [*found[:AGAIN], *found[-AGAIN:]] * 2
        dropped, _ = await unharmed(system, wire, again)
        if kind is PacketType.CONTROL:
            assert dropped == {"control-not-authentic": len(again)}
        else:
            # A hello of this session, or a chunk that is here, is no news.
            assert set(dropped) <= {"fragment-refused", "chunk-of-old-session"}, kind
    assert sorted(path.name for path in system.received("B").iterdir()) == files
    assert await still_works(system, tmp_path)


async def test_captured_datagrams_of_every_type_with_one_bit_changed_are_worth_nothing(
    tapped: Lab, captured: Captured, tmp_path: Path
) -> None:
    system, wire = tapped
    rng = random.Random(1)
    for kind, found in captured.items():
        # Of chunks the hop header is nobody's promise: a later test alters that.
        first = {PacketType.HELLO: 1, PacketType.CONTROL: 0, PacketType.FRAGMENT: FRAGMENT_HEADERS_BYTES}
        datagram = found[-1]
        places = range(first.get(kind, HOP_HEADER_BYTES + 4), len(datagram))
        chosen = sorted(rng.sample(places, min(len(places), 150)))
        altered = [datagram[:at] + bytes([datagram[at] ^ 1 << rng.randrange(8)]) + datagram[at + 1 :] for at in chosen]
        dropped, _ = await unharmed(system, wire, altered)
        assert sum(dropped.values()) == len(altered) or kind is PacketType.FRAGMENT, (kind, dropped)
    assert await still_works(system, tmp_path)


async def test_captured_datagrams_of_every_type_cut_short_are_worth_nothing(
    tapped: Lab, captured: Captured, tmp_path: Path
) -> None:
    system, wire = tapped
    for kind, found in captured.items():
        datagram = found[-1]
        lengths = [*range(min(len(datagram), 80)), *range(80, len(datagram), 17)]
        dropped, _ = await unharmed(system, wire, [datagram[:length] for length in lengths])
        assert sum(dropped.values()) == len(lengths) or kind is PacketType.FRAGMENT, (kind, dropped)
    assert await still_works(system, tmp_path)


async def still_works(system: Attacked, folder: Path) -> bool:
    """See that the next file crosses, over the link that there was."""
    file = new_file(folder)
    await system.send("A", file)
    await system.arrives("B", file)
    return True


def new_file(folder: Path) -> Path:
    """Make a file such as B has not got yet: a folder, and so its name, is one test's."""
    return make_file(folder, SIZE, f"{folder.name}.bin")


# --- while a file is on its way ---------------------------------------------------------------------------------------


async def crosses(system: Attacked, wire: Wire, folder: Path, rule: Rule) -> dict[str, int]:
    """Send a file under a rule of the attacker's; it arrives whole; return what B dropped."""
    before = (await quiet(system))["drops"]
    file = new_file(folder)
    wire.rule = rule
    try:
        await system.send("A", file)
        await system.arrives("B", file, within=60.0)
    finally:
        wire.rule = pass_on
    return {why: n - before.get(why, 0) for why, n in (await system.drops("B")).items() if n != before.get(why, 0)}


def each(change: Callable[[random.Random, bytes], list[bytes]]) -> Rule:
    """Make a rule of what becomes of each chunk; whatever else passes is passed on."""
    rng = random.Random(7)

    def rule(sender: DeviceId, datagram: bytes) -> list[bytes]:
        return [datagram] if peek_chunk(datagram) is None else change(rng, datagram)

    return rule


async def test_a_file_crosses_while_every_datagram_comes_twice(tapped: Lab, tmp_path: Path) -> None:
    system, wire = tapped
    before = (await system.link("B", "A"))["duplicates_received"]
    dropped = await crosses(system, wire, tmp_path, lambda sender, datagram: [datagram, datagram])
    assert dropped["control-not-authentic"] > 0
    assert (await system.link("B", "A"))["duplicates_received"] - before > 1_000


async def test_a_file_crosses_while_datagrams_are_disordered(tapped: Lab, tmp_path: Path) -> None:
    system, wire = tapped
    held: dict[DeviceId, list[bytes]] = {"A": [], "B": []}
    rng = random.Random(3)

    def disorder(sender: DeviceId, datagram: bytes) -> list[bytes]:
        held[sender].append(datagram)
        if len(held[sender]) < 8 and len(datagram) > NARROW:
            return []
        out, held[sender] = held[sender], []
        rng.shuffle(out)
        return out

    assert await crosses(system, wire, tmp_path, disorder) == {}


async def test_a_file_crosses_while_forged_chunks_run_ahead_of_the_real_ones(tapped: Lab, tmp_path: Path) -> None:
    system, wire = tapped
    forged = 0

    def forge(rng: random.Random, datagram: bytes) -> list[bytes]:
        nonlocal forged
        forged += 1
        return [datagram[:HEADERS_BYTES] + rng.randbytes(len(datagram) - HEADERS_BYTES), datagram]

    dropped = await crosses(system, wire, tmp_path, each(forge))
    # Some come ahead of the opening too, and wait for it like the real ones.
    assert 1_000 < dropped.pop("chunk-not-authentic") <= forged
    assert set(dropped) <= {"chunk-of-unknown-stream"}


async def test_a_file_crosses_while_chunks_swap_their_numbers(tapped: Lab, tmp_path: Path) -> None:
    system, wire = tapped

    def renumber(rng: random.Random, datagram: bytes) -> list[bytes]:
        at = HEADERS_BYTES - 1
        return [datagram[:at] + bytes([datagram[at] ^ 1]) + datagram[at + 1 :], datagram]

    dropped = await crosses(system, wire, tmp_path, each(renumber))
    assert dropped["chunk-not-authentic"] > 1_000


async def test_a_file_crosses_while_hop_headers_are_rewritten(tapped: Lab, tmp_path: Path) -> None:
    system, wire = tapped

    def rewrite(rng: random.Random, datagram: bytes) -> list[bytes]:
        # Tree, epoch and age: what nothing authenticates on a chunk.
        tree = datagram[0] & 0xF0 | rng.randrange(16)
        return [bytes([tree]) + datagram[1:6] + rng.randbytes(6) + datagram[12:]]

    await crosses(system, wire, tmp_path, each(rewrite))


async def test_a_file_crosses_while_chunks_are_cut_short(tapped: Lab, tmp_path: Path) -> None:
    system, wire = tapped

    def cut(rng: random.Random, datagram: bytes) -> list[bytes]:
        short = [] if rng.random() < 0.5 else [datagram[: rng.randrange(CHUNK_OVERHEAD_BYTES)]]
        return [*short, datagram[: rng.randrange(CHUNK_OVERHEAD_BYTES, len(datagram))], datagram]

    dropped = await crosses(system, wire, tmp_path, each(cut))
    assert dropped["chunk-not-authentic"] > 1_000


async def test_nothing_that_is_sent_can_be_read(tapped: Lab, tmp_path: Path) -> None:
    system, wire = tapped
    earlier = len(wire.seen)
    file = tmp_path / "words.txt"
    file.write_bytes(b"the quick brown fox " * 20_000)
    await system.send("A", file)
    await system.arrives("B", file)
    answer = await system.client("A").post("/messages?channel=messages", content=b"the quick brown fox")
    answer.raise_for_status()
    await quiet(system)
    crossed = [passed.datagram for passed in wire.seen[earlier:]]
    assert sum(map(len, crossed)) > file.stat().st_size
    for words in (b"quick", b"words.txt", b"files", b"messages"):
        assert not any(words in datagram for datagram in crossed)
    # Three bytes come about by chance once in 40 such files.
    assert sum(b"lab" in datagram for datagram in crossed) <= 3
