"""A member that forges: streams, chunks and last words in another device's name, on real sockets.

It holds the group key, and the key of every stream whose opening it asks for; what it has not is another's signing key.
"""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from common.blocks import Blocks
from common.datagrams import FLAG_END, FLAG_START, peek_chunk
from common.opening import Opening
from common.signing import SIGNATURE_BYTES, Signer
from common.stream_frames import AskOpening, Cancel, ReceiptEntry, Receipts, StreamOpening
from lab.loopback import GROUP
from tests.harness.attacked import Attacked, make_file, running, until
from tests.harness.member import Member
from tests.harness.wire import Wire, pass_on

pytestmark = [pytest.mark.loopback, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

SIZE = 3_000_000
Lab = tuple[Attacked, Wire, Member]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """Agents A and B, whose link the forger M can hold back, and M's own link to B."""
    with closing(Wire("A", "B")) as wire:
        flags = {"A": wire.flags("A"), "B": wire.flags("B")}
        attacked = Attacked(tmp_path_factory.mktemp("lab"), "A B", flags=flags, guests=["M"])
        async with running(attacked) as system, Member("M", system.url) as member:
            await member.enrol(system.join_token)
            await member.meet("B")
            await until(lambda: is_open(system))
            yield system, wire, member


@pytest.fixture(autouse=True)
def nothing_held_back(lab: Lab) -> Iterator[None]:
    """Let everything pass again, whatever a test held back."""
    yield
    lab[1].rule = pass_on


async def is_open(system: Attacked) -> bool:
    links = (await system.look("B"))["links"]
    return ("M", "open") in [(link["peer"], link["state"]) for link in links]


async def counts(system: Attacked, reason: str) -> int:
    return (await system.drops("B")).get(reason, 0)


async def counted(system: Attacked, reason: str, wanted: int) -> bool:
    return await counts(system, reason) >= wanted


async def streams(system: Attacked) -> list[str]:
    return [each["stream"] for each in (await system.look("B"))["streams"]]


async def test_an_opening_in_another_device_s_name_is_no_stream(lab: Lab) -> None:
    system, _, member = lab
    known = await streams(system)
    own = member.opening("model.bin", 5_000)
    as_a = replace(own, source="A")
    for count, forged in enumerate(
        (
            as_a.signed(member.signer),  # by the forger's key, and says so
            replace(as_a.signed(member.signer), signer=Signer(os.urandom(32), GROUP).public_key),
            replace(as_a, signature=bytes(SIGNATURE_BYTES)),
            replace(as_a, signature=own.signature),
        ),
        1,
    ):
        before = sum((await system.drops("B")).values())
        member.open_stream(forged)
        await until(lambda before=before: dropped(system, before + 1))
        assert await streams(system) == known, count


async def dropped(system: Attacked, wanted: int) -> bool:
    return sum((await system.drops("B")).values()) >= wanted


async def test_an_opening_of_another_device_with_one_fact_changed_is_no_stream(lab: Lab, tmp_path: Path) -> None:
    system, wire, member = lab
    opening = await opening_of(system, wire, member, tmp_path)
    known = await streams(system)
    for change in ({"name": "other"}, {"size_bytes": 5}, {"expires": opening.expires + 1}, {"stream": os.urandom(16)}):
        before = sum((await system.drops("B")).values())
        member.open_stream(replace(opening, **change))
        await until(lambda before=before: dropped(system, before + 1))
    assert await streams(system) == known


async def opening_of(system: Attacked, wire: Wire, member: Member, folder: Path) -> Opening:
    """Begin a file from A to B, hold its chunks back, and have the forger ask B for its opening."""

    def hold_back(sender: str, datagram: bytes) -> list[bytes]:
        return [datagram] if peek_chunk(datagram) is None else []

    wire.rule = hold_back
    stream = await system.send("A", new_file(folder))
    await until(lambda: is_known(system, stream))
    member.send(member.sealed(AskOpening(int(stream[:8], 16))))
    return await until(lambda: heard(member, stream))  # type: ignore[no-any-return]


def new_file(folder: Path) -> Path:
    """Make a file such as B has not got yet: a folder, and so its name, is one test's."""
    return make_file(folder, SIZE, f"{folder.name}.bin")


async def is_known(system: Attacked, stream: str) -> bool:
    return stream in await streams(system)


def heard(member: Member, stream: str) -> Opening | None:
    for frame in member.heard:
        if isinstance(frame, StreamOpening):
            opening = Opening.decode_untrusted(member.group_keys.open(b"opening", frame.sealed), GROUP)
            if opening.hex == stream:
                return opening
    return None


async def test_chunks_that_a_member_seals_in_its_source_s_place_are_not_delivered(lab: Lab, tmp_path: Path) -> None:
    """They come first, under the right key and numbers; the block's proof refutes them, and A's own come after."""
    system, wire, member = lab
    opening = await opening_of(system, wire, member, tmp_path)
    numbers = Blocks.of(SIZE, opening.piece_bytes)
    forged = [
        member.chunk(opening, number, bytes(opening.piece_bytes))
        for number in range(1, 400)
        if not numbers.is_proof(number)
    ]
    refuted = await counts(system, "chunks-refuted")
    member.send(*forged)
    await until(lambda: holds(system, opening, 300))
    wire.rule = pass_on
    await system.arrives("B", tmp_path / opening.name, within=60.0)
    assert await counts(system, "chunks-refuted") > refuted


async def holds(system: Attacked, opening: Opening, chunks: int) -> bool:
    found = (await system.look("B"))["streams"]
    return any(each["stream"] == opening.hex and each["held_chunks"] >= chunks for each in found)


async def test_a_message_in_another_device_s_stream_is_not_delivered(lab: Lab) -> None:
    system, _, member = lab
    answer = await system.client("A").post("/messages?channel=messages", content=b"mine")
    stream = answer.json()["stream"]
    await until(lambda: is_known(system, stream))
    member.send(member.sealed(AskOpening(int(stream[:8], 16))))
    opening = await until(lambda: heard(member, stream))
    await until(lambda: holds(system, opening, 1))
    refuted = await counts(system, "chunks-refuted")
    for signature in (bytes(SIGNATURE_BYTES), member.signer.sign(b"message", b"forged")):
        member.send(member.chunk(opening, 2, b"forged" + signature, flags=FLAG_START | FLAG_END))
        await until(lambda: counted(system, "chunks-refuted", refuted + 1))
    (await system.client("A").post("/messages?channel=messages", content=b"mine too")).raise_for_status()
    assert await messages(system, 2) == [b"mine", b"mine too"]


async def messages(system: Attacked, count: int) -> list[bytes]:
    """Return the first messages that B's application gets."""
    found: list[bytes] = []
    async with asyncio.timeout(20.0):
        async with system.client("B").stream("GET", "/messages?channel=messages&from=retained") as answer:
            async for line in answer.aiter_lines():
                entry = json.loads(line)
                if entry["event"] == "message":
                    found.append(base64.b64decode(entry["payload"]))
                if len(found) == count:
                    return found
    return found


async def test_another_device_s_stream_is_not_taken_back(lab: Lab, tmp_path: Path) -> None:
    system, wire, member = lab
    opening = await opening_of(system, wire, member, tmp_path)
    refused = await counts(system, "cancel-refused")
    about = opening.stream + b"why"
    for signature in (bytes(SIGNATURE_BYTES), member.signer.sign(b"cancel", about), opening.signature):
        sealed = member.group_keys.seal(b"cancel", signature + b"why", os.urandom(12))
        member.send(member.sealed(Cancel(opening.short, sealed)))
    await until(lambda: counted(system, "cancel-refused", refused + 3))
    wire.rule = pass_on
    await system.arrives("B", tmp_path / opening.name, within=60.0)


async def test_a_last_word_in_another_device_s_name_does_not_end_a_send(lab: Lab, tmp_path: Path) -> None:
    """M says that A has verified B's file."""
    system, wire, member = lab
    wire.rule = lambda sender, datagram: [datagram] if peek_chunk(datagram) is None else []
    file = new_file(tmp_path)
    stream = await system.send("B", file)
    short = int(stream[:8], 16)
    said = [
        ReceiptEntry("A", "verified", SIZE, "", signature)
        for signature in (bytes(SIGNATURE_BYTES), member.signer.sign(b"receipt", b"A"))
    ]
    for entry in said:
        member.send(member.sealed(Receipts(short, (entry,))))
    await asyncio.sleep(0.5)
    answer = (await system.client("B").get("/streams")).json()["streams"]
    receipts = next(each["receipts"] for each in answer if each["stream"] == stream)
    assert receipts["A"]["state"] != "verified"
    wire.rule = pass_on
    await system.arrives("A", file, within=60.0)
