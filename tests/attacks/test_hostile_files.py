"""Files of a member that means no good: names that are paths, sizes that are absurd, links that lie in wait.

The member has real keys, so its streams are authentic; what it says of them is what is on trial. That a member passes a
stream off as another device's is tried elsewhere.
"""

import asyncio
import hashlib
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from common.limits import MAX_FILE_BYTES, MAX_STREAMS
from common.opening import Opening
from common.stream_frames import StreamOpening
from tests.harness.attacked import Attacked, make_file, running, until
from tests.harness.member import PIECE_BYTES, Member

pytestmark = [pytest.mark.loopback, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

DATA = b"not what you hoped for " * 100
DIGEST = hashlib.sha256(DATA).digest()
NAMES = (
    "../escaped",
    "../../../../escaped",
    "/escaped",
    "/etc/cron.d/escaped",
    "//escaped",
    "a/../../escaped",
    "..\\..\\escaped",
    "C:\\escaped",
    "\\\\server\\share\\escaped",
    "./escaped",
    "escaped/",
    "..",
    ".",
    "...",
    "/",
    " ",
    "~/escaped",
    "$HOME",
    ".ssh",
    ".hidden",
    "-rf",
    "new\nline",
    "bell\x07",
    "\u202egnp.exe",
    "\u2028line",
    "\u200binvisible",
    "\uff0e\uff0e\uff0fescaped",
    "\u2025\u2215escaped",
    "e\u0301",
    "CON",
    "nul.txt",
    "x" * 255,
    "\U0001f600" * 60,
    "%2e%2e%2fescaped",
    "model.bin.part",
    "lock",
    "identity.json",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Attacked]:
    folder = tmp_path_factory.mktemp("home") / "home" / "lab"
    async with running(Attacked(folder, "A", guests=["M"])) as system:
        yield system


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def member(attacked: Attacked) -> AsyncIterator[Member]:
    async with met(attacked) as made:
        yield made


@asynccontextmanager
async def met(attacked: Attacked) -> AsyncIterator[Member]:
    """Become a member, and open a link to A."""
    async with Member("M", attacked.url) as made:
        await made.enrol(attacked.join_token)
        await made.meet("A")
        await until(lambda: is_open(attacked))
        yield made


async def is_open(attacked: Attacked) -> bool:
    return [link["state"] for link in (await attacked.look("A"))["links"]] == ["open"]


async def role(attacked: Attacked, opening: Opening) -> str:
    streams = (await attacked.look("A"))["streams"]
    return next((each["role"] for each in streams if each["stream"] == opening.hex), "")


async def refusal(attacked: Attacked, opening: Opening) -> str | None:
    streams = (await attacked.look("A"))["streams"]
    return next((each["refused"] for each in streams if each["stream"] == opening.hex), None)


async def delivered(attacked: Attacked, member: Member, opening: Opening) -> None:
    """Send a whole file to the agent, and wait until that has verified and named it."""
    member.open_stream(opening)
    await until(lambda: role(attacked, opening))
    member.send(*member.file(opening, DATA, DIGEST))
    await until(lambda: is_done(attacked, opening), told=lambda: (opening.name, attacked.log("A")))


async def is_done(attacked: Attacked, opening: Opening) -> bool:
    return await role(attacked, opening) == "done"


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def landed_in(attacked: Attacked) -> set[Path]:
    return set(attacked.received("A").glob("*"))


async def test_no_name_leads_out_of_the_receive_folder(attacked: Attacked, member: Member) -> None:
    received = attacked.received("A")
    above = attacked.folder.parents[1]
    before = {name for name in files_below(above) if "/received/" not in name}
    earlier = landed_in(attacked)
    for name in NAMES:
        await delivered(attacked, member, member.opening(name, len(DATA)))
    after = files_below(above)
    # Beside the received files: the records of the streams, by their ids, and nothing else.
    strange = {name for name in set(after) - before if "/received/" not in name and "/state/streams/" not in name}
    assert {name for name in strange if not name.endswith(("server.json", "-wal", "-shm", "ready.json"))} == set()
    assert not any("escaped" in name for name in after if "/received/" not in name)
    landed = sorted(landed_in(attacked) - earlier)
    assert len(landed) == len(NAMES)
    for path in landed:
        assert path.is_file()
        assert path.parent == received
        assert path.read_bytes() == DATA
        assert not path.name.startswith((".", " "))
        assert path.name.isprintable()
        assert len(os.fsencode(path.name)) <= 255
    assert not any(map(os.path.lexists, ("/etc/cron.d/escaped", "/escaped")))


async def test_names_that_are_no_text_never_become_a_stream(attacked: Attacked, member: Member) -> None:
    earlier = landed_in(attacked)
    for name in ("nul\0byte", "", "x" * 256, "\U0001f600" * 64):
        opening = member.opening(name, len(DATA))
        before = (await attacked.drops("A")).get("opening-not-authentic", 0)
        member.open_stream(opening)
        await until(partial(counts, attacked, "opening-not-authentic", before + 1))
        assert await role(attacked, opening) == ""
    assert landed_in(attacked) == earlier


async def counts(attacked: Attacked, reason: str, wanted: int) -> bool:
    return (await attacked.drops("A")).get(reason, 0) >= wanted


async def test_links_that_lie_in_the_receive_folder_are_neither_followed_nor_replaced(
    attacked: Attacked, member: Member, tmp_path: Path
) -> None:
    received, outside = attacked.received("A"), tmp_path / "outside"
    outside.mkdir()
    precious = outside / "precious"
    precious.write_bytes(b"precious")
    received.mkdir(parents=True, exist_ok=True)
    (received / "linked.bin").symlink_to(precious)
    (received / "dangling").symlink_to(outside / "made")
    (received / "folder").symlink_to(outside)
    for name in ("linked.bin", "dangling", "folder", "folder/inside"):
        await delivered(attacked, member, member.opening(name, len(DATA)))
    assert files_below(outside) == {"precious": b"precious"}
    assert (received / "linked (2).bin").read_bytes() == DATA
    assert (received / "dangling (2)").read_bytes() == DATA
    assert (received / "folder (2)").read_bytes() == DATA
    assert (received / "inside").read_bytes() == DATA
    assert (received / "linked.bin").is_symlink()


async def test_a_link_in_the_place_of_a_part_file_is_not_followed(
    attacked: Attacked, member: Member, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    received = attacked.received("A")
    received.mkdir(parents=True, exist_ok=True)
    opening = member.opening("part.bin", len(DATA))
    (received / f".part.bin.{opening.hex}.part").symlink_to(precious)
    await delivered(attacked, member, opening)
    assert precious.read_bytes() == b"precious"
    assert not (received / "part.bin").is_symlink()


async def test_a_size_that_no_file_has_never_becomes_a_stream(attacked: Attacked, member: Member) -> None:
    sizes: list[Any] = [2**60, 2**63, 2**64, MAX_FILE_BYTES + 1, -1, 1e18, "9" * 400, None, True, [5], math.inf]
    earlier = landed_in(attacked)
    refused = (await attacked.drops("A")).get("opening-not-authentic", 0)
    for count, size in enumerate(sizes, refused + 1):
        opening = replace(member.opening("huge.bin", 5), size_bytes=size).signed(member.signer)
        member.open_stream(opening)
        await until(partial(counts, attacked, "opening-not-authentic", count))
        assert await role(attacked, opening) == ""
    assert landed_in(attacked) == earlier


async def test_the_largest_size_that_is_allowed_takes_no_room_and_no_memory(attacked: Attacked, member: Member) -> None:
    """16 TiB in 2^34 pieces: a device without such a disk refuses it, and holds nothing of it."""
    opening = member.opening("huge.bin", MAX_FILE_BYTES)
    rss, disk = resident(attacked), on_disk(attacked.folder / "A")
    member.open_stream(opening)
    reason = await until(lambda: refusal(attacked, opening))
    assert reason == "no-space"
    last = MAX_FILE_BYTES // PIECE_BYTES
    member.send(*(member.chunk(opening, number, bytes(PIECE_BYTES)) for number in (1, last // 2, last - 1, last)))
    await asyncio.sleep(0.5)
    assert on_disk(attacked.folder / "A") - disk < 1_000_000
    assert resident(attacked) - rss < 32 * 1024 * 1024
    assert (await attacked.link("A", "M"))["state"] == "open"


def resident(attacked: Attacked) -> int:
    """Return the bytes of memory that A's agent holds."""
    pages = int(Path(f"/proc/{attacked.pids()['agent A']}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def on_disk(folder: Path) -> int:
    """Return the bytes that a folder's files really take."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


@pytest_asyncio.fixture(loop_scope="module")
async def narrow(tmp_path: Path) -> AsyncIterator[tuple[Attacked, Member]]:
    """An agent of its own for each test, with little room, and a member."""
    attacked = Attacked(tmp_path / "lab", "A", flags={"A": ("--quota", "1M")}, guests=["M"])
    async with running(attacked) as system, met(system) as member:
        yield system, member


async def test_many_files_that_are_promised_together_do_not_pass_the_quota(narrow: tuple[Attacked, Member]) -> None:
    attacked, member = narrow
    openings = [member.opening(f"part-{number}.bin", 300_000) for number in range(8)]
    for opening in openings:
        member.open_stream(opening)
    await until(lambda: all_known(attacked, openings))
    refused = [await refusal(attacked, opening) for opening in openings]
    assert refused.count("no-space") >= 5
    for opening in openings:
        member.send(*(member.chunk(opening, number, bytes(PIECE_BYTES)) for number in range(1, 301)))
    await asyncio.sleep(1.0)
    assert on_disk(attacked.received("A")) <= 1_100_000


async def all_known(attacked: Attacked, openings: list[Opening]) -> bool:
    streams = {each["stream"] for each in (await attacked.look("A"))["streams"]}
    return all(opening.hex in streams for opening in openings)


async def test_more_streams_than_a_device_keeps_are_refused_and_the_others_go_on(
    narrow: tuple[Attacked, Member],
) -> None:
    attacked, member = narrow
    openings = [member.opening("", None) for _ in range(MAX_STREAMS + 50)]
    for at in range(0, len(openings), 50):
        member.send(*(member.sealed(StreamOpening(member.sealed_opening(each))) for each in openings[at : at + 50]))
        await asyncio.sleep(0.05)
    await until(lambda: counts(attacked, "too-many-streams", 1))
    assert len((await attacked.look("A"))["streams"]) == MAX_STREAMS
    answer = await attacked.client("A").post("/messages?channel=messages", content=b"x")
    assert answer.json()["reason"] == "too-many-streams"
    assert (await attacked.link("A", "M"))["state"] == "open"


async def test_a_file_whose_hash_is_not_the_promised_one_never_gets_its_name(
    attacked: Attacked, member: Member, tmp_path: Path
) -> None:
    refuted = (await attacked.drops("A")).get("chunks-refuted", 0)
    opening = member.opening("refuted.bin", len(DATA))
    member.open_stream(opening)
    await until(lambda: role(attacked, opening))
    member.send(*member.file(opening, DATA, hashlib.sha256(b"other").digest()))
    await until(lambda: counts(attacked, "chunks-refuted", refuted + 1))
    await asyncio.sleep(0.5)
    assert not (attacked.received("A") / "refuted.bin").exists()
    file = make_file(tmp_path, 1_000)
    await attacked.send("A", file)
