"""Control datagrams of every frame type, played again, altered, cut short and out of order by whoever sees them.

A member that the test plays seals one datagram for each type of frame; the agent takes it once. Everything after that
comes from its very address, as an attacker on the path would send it, and has to be worth nothing.
"""

from collections.abc import AsyncIterator
from typing import get_args

import pytest
import pytest_asyncio

from common.frames import Frame
from common.graph_frames import AskGraph, GraphRecord, LostEdges
from common.link_frames import Ack, Bye, ChannelPort, Probe
from common.path_frames import MtuAnswer, MtuProbe, PathAnswer, PathChallenge, Train, TrainReport
from common.stream_frames import (
    AskOpening,
    Cancel,
    Have,
    Interrupted,
    ReceiptEntry,
    Receipts,
    Stop,
    StreamOpening,
    Want,
)
from tests.harness.attacked import Attacked, running, until
from tests.harness.member import Member

pytestmark = [pytest.mark.loopback, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

AGAIN = 20
NOT_AUTHENTIC = "control-not-authentic"
SHORT = 0x01020304


def frames(device: str, sealed: bytes) -> dict[str, Frame]:
    """Return a frame of every type, each of which means something to the agent.

    Args:
        device: who says them.
        sealed: an opening.
    """
    said: list[Frame] = [
        Probe(1, 0, 0, 1, 1, 1_000, 0),
        Ack(1, 0, ((1, 2),)),
        Have(SHORT, 1, 2, ((1, 2),)),
        Want(SHORT, ((1, 2),)),
        Stop(SHORT),
        StreamOpening(sealed),
        AskOpening(SHORT),
        AskGraph(0, 1),
        GraphRecord(0, 1, 0, 1, b"no graph"),
        Receipts(SHORT, (ReceiptEntry(device, "receiving", 5, ""),)),
        Cancel(SHORT, sealed),
        ChannelPort("files", 4_000),
        Bye(),
        MtuProbe(1_300),
        MtuAnswer(1_300),
        PathChallenge(bytes(8)),
        PathAnswer(bytes(8)),
        Train(1, 0, 20, 600),
        TrainReport(1, 10, 5_000, 1_000),
        Interrupted(SHORT, delivering=True),
        LostEdges(device, 1, 1, ("A",)),
    ]
    return {type(frame).__name__: frame for frame in said}


def frames_of(member: Member) -> dict[str, Frame]:
    return frames(member.device, member.sealed_opening(member.opening("model.bin", 5_000)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Attacked]:
    async with running(Attacked(tmp_path_factory.mktemp("lab"), "A", guests=["M"])) as system:
        yield system


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def member(attacked: Attacked) -> AsyncIterator[Member]:
    async with Member("M", attacked.url) as made:
        await made.enrol(attacked.join_token)
        await made.meet("A")
        await until(lambda: is_open(attacked))
        yield made


async def is_open(attacked: Attacked) -> bool:
    links = (await attacked.look("A"))["links"]
    return [(link["state"], link["mtu_bytes"] is not None) for link in links] == [("open", True)]


async def count(attacked: Attacked) -> int:
    """Return how many datagrams the agent has dropped, for whatever reason."""
    return sum((await attacked.drops("A")).values())


async def is_counted(attacked: Attacked, wanted: int) -> bool:
    return await count(attacked) >= wanted


async def dropped(attacked: Attacked, member: Member, datagrams: list[bytes]) -> dict[str, int]:
    """Send datagrams; return what the agent counts of them, once it has counted each, and see that nothing changed."""
    before = await attacked.look("A")
    already = sum(before["drops"].values())
    member.send(*datagrams)
    await until(lambda: is_counted(attacked, already + len(datagrams)))
    after = await attacked.look("A")
    assert attacked.fingerprint(after) == attacked.fingerprint(before)
    found = {why: after["drops"][why] - before["drops"].get(why, 0) for why in after["drops"]}
    return {why: number for why, number in found.items() if number}


async def dropped_of(attacked: Attacked, member: Member, datagrams: list[bytes]) -> dict[str, int]:
    """Send datagrams that are good; return what the agent dropped of them, once it has taken as many bytes."""
    before = await attacked.look("A")
    received = before["links"][0]["bytes_received"] + sum(map(len, datagrams))
    member.send(*datagrams)
    await until(lambda: has_received(attacked, received))
    after = await attacked.look("A")
    return {why: n for why, n in after["drops"].items() if n != before["drops"].get(why, 0)}


async def has_received(attacked: Attacked, size_bytes: int) -> bool:
    return bool((await attacked.link("A", "M"))["bytes_received"] >= size_bytes)


async def taken(attacked: Attacked, member: Member, name: str) -> bytes:
    """Let the agent take one datagram with a frame; return it."""
    datagram = member.sealed(frames_of(member)[name])
    received = (await attacked.link("A", "M"))["bytes_received"]
    member.send(datagram)
    await until(lambda: has_received(attacked, received + len(datagram)))
    return datagram


async def test_every_frame_type_of_the_wire_is_attacked_here() -> None:
    assert {type(frame) for frame in frames("M", b"").values()} == set(get_args(Frame))


async def test_a_control_datagram_of_any_type_counts_once(attacked: Attacked, member: Member) -> None:
    for name in frames_of(member):
        if name == "Bye":
            continue  # the next test's
        datagram = await taken(attacked, member, name)
        assert await dropped(attacked, member, [datagram] * AGAIN) == {NOT_AUTHENTIC: AGAIN}, name


async def test_a_farewell_that_is_played_again_ends_no_later_session(attacked: Attacked, member: Member) -> None:
    farewell = member.sealed(Bye())
    session = member.hop.session.local
    member.send(farewell)
    await until(lambda: member.hop.session.local != session)
    await until(lambda: is_open(attacked))
    found = await dropped(attacked, member, [farewell] * AGAIN)
    assert found == {NOT_AUTHENTIC: AGAIN}


async def test_a_control_datagram_of_any_type_with_one_bit_changed_is_worth_nothing(
    attacked: Attacked, member: Member
) -> None:
    for name, frame in frames_of(member).items():
        datagram = member.sealed(frame)  # it never arrives: the number is fresh
        places = range(len(datagram)) if len(datagram) < 120 else [*range(40), *range(40, len(datagram), 29)]
        altered = [datagram[:at] + bytes([datagram[at] ^ 1]) + datagram[at + 1 :] for at in places]
        assert await dropped(attacked, member, altered) == {NOT_AUTHENTIC: len(altered)}, name


async def test_a_control_datagram_of_any_type_cut_short_is_worth_nothing(attacked: Attacked, member: Member) -> None:
    for name, frame in frames_of(member).items():
        datagram = member.sealed(frame)
        lengths = range(len(datagram)) if len(datagram) < 120 else [*range(40), *range(40, len(datagram), 29)]
        found = await dropped(attacked, member, [datagram[:length] for length in lengths])
        assert set(found) <= {NOT_AUTHENTIC, "datagram-not-understood"}, name
        assert sum(found.values()) == len(lengths), name


async def test_control_datagrams_out_of_order_are_taken_once_each(attacked: Attacked, member: Member) -> None:
    datagrams = [member.sealed(AskOpening(number)) for number in range(1, 200)]
    assert await dropped_of(attacked, member, list(reversed(datagrams))) == {}
    assert await dropped(attacked, member, datagrams) == {NOT_AUTHENTIC: len(datagrams)}
