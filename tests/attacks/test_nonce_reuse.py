"""What an onlooker sees of a source that is killed in mid-transfer, and whose file somebody has changed meanwhile.

An attacker who gets two different ciphertexts of one chunk number has the stream's authentication key.
"""

import os
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from common.datagrams import PacketType, peek_chunk
from lab.happenings import Happening, Verb
from tests.harness.attacked import Attacked, make_file, running, until
from tests.harness.seals import same_bytes
from tests.harness.wire import Wire, pass_on

pytestmark = [pytest.mark.loopback, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

SIZE = 6_000_000
FIRST = 1_000
"""Chunks after which the attacker holds everything back, so that the kill comes in mid-transfer."""
Lab = tuple[Attacked, Wire]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tapped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    with closing(Wire("A", "B")) as wire:
        flags = {device: wire.flags(device) for device in ("A", "B")}
        async with running(Attacked(tmp_path_factory.mktemp("lab"), "A B", flags=flags)) as system:
            yield system, wire


async def killed_in_between(system: Attacked, wire: Wire, file: Path, dies: str) -> None:
    """Begin to send a file and kill an agent when a part of it has arrived; the numbers beyond are seen, but lost."""

    def hold_back(sender: str, datagram: bytes) -> list[bytes]:
        chunk = peek_chunk(datagram)
        return [] if chunk is not None and chunk.number > FIRST else [datagram]

    wire.rule = hold_back
    await system.send("A", file)

    async def arrived() -> bool:
        return bool((await system.stream("B", file.name)).get("held_chunks", 0) >= FIRST)

    await until(arrived)
    await system.happen(Happening(0.0, Verb.KILL, device=dies))
    wire.rule = pass_on


@pytest.mark.parametrize("dies", ["A", "B"])
async def test_a_resumed_file_is_the_same_ciphertext(tapped: Lab, tmp_path: Path, dies: str) -> None:
    system, wire = tapped
    file = make_file(tmp_path, SIZE, f"{dies}-dies.bin")
    await killed_in_between(system, wire, file, dies)
    await system.happen(Happening(0.0, Verb.START, device=dies))
    await system.arrives("B", file, within=60.0)
    assert same_bytes(wire.seen) > FIRST
    assert wire.of_kind(PacketType.DATA, "A")


async def test_a_file_changed_behind_its_source_s_back_is_not_sealed_again(tapped: Lab, tmp_path: Path) -> None:
    """Same size, same inode, same time of its last change: nothing but the tags can tell."""
    system, wire = tapped
    file = make_file(tmp_path, SIZE, "changed.bin")
    await killed_in_between(system, wire, file, "A")
    before = file.stat()
    file.write_bytes(bytes(byte ^ 0xFF for byte in file.read_bytes()))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    await system.happen(Happening(0.0, Verb.START, device="A"))

    async def given_up() -> bool:
        streams = (await system.look("B"))["streams"]
        return all(each["name"] != file.name or each["refused"] for each in streams)

    await until(given_up)
    assert not (system.received("B") / file.name).exists()
    same_bytes(wire.seen)
