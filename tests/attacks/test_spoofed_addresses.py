"""Datagrams that lie about their source: they move nothing, and whoever they name gets no flood of answers."""

import asyncio
import base64
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from bench._flood import Kind, garbage
from common.datagrams import PacketType, peek_chunk
from common.path_frames import PathChallenge
from common.sealing import key_id, public_key_of
from common.stun import encode_request
from tests.harness.attacked import Attacked, make_file, running, until
from tests.harness.member import Member
from tests.harness.spoof import Spoofer
from tests.harness.wire import Address, Wire, bound, drained, pass_on

pytestmark = [pytest.mark.loopback, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

MOST_TIMES = 3
"""How many times what came from an unproven address may go there (RFC 9000 section 8.1)."""
SETTLE_S = 0.5
NUMBER = 1_000
Lab = tuple[Attacked, Wire]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tapped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """Agents A and B whose only way to each other is the attacker's."""
    with closing(Wire("A", "B")) as wire:
        flags = {device: wire.flags(device) for device in ("A", "B")}
        async with running(Attacked(tmp_path_factory.mktemp("lab"), "A B", flags=flags)) as system:
            yield system, wire


@pytest.fixture
def victim() -> Iterator[socket.socket]:
    """A host that takes no part: what comes to it is what the attack has brought about."""
    with closing(bound("127.0.0.9")) as made:
        yield made


@pytest.fixture
def spoofer() -> Iterator[Spoofer]:
    with closing(Spoofer()) as made:
        yield made


async def came_to(victim: socket.socket) -> list[bytes]:
    """Wait a moment; return what came."""
    await asyncio.sleep(SETTLE_S)
    return drained(victim)


def captured(wire: Wire) -> dict[PacketType, list[bytes]]:
    return {kind: found for kind in PacketType if (found := wire.of_kind(kind, "A"))}


async def test_captured_datagrams_from_a_spoofed_address_bring_it_no_more_than_was_sent(
    tapped: Lab, victim: socket.socket, spoofer: Spoofer, tmp_path: Path
) -> None:
    system, wire = tapped
    file = make_file(tmp_path, 300_000, f"{tmp_path.name}.bin")
    await system.send("A", file)
    await system.arrives("B", file)
    before = await system.look("B")
    for kind, found in captured(wire).items():
        sent = found[-20:] * 10
        for datagram in sent:
            spoofer.send(victim.getsockname(), wire.home("B"), datagram)
        answers = await came_to(victim)
        # A hello of a pair that has a session is answered by a hello of the same size, everything else by nothing.
        assert sum(map(len, answers)) <= (sum(map(len, sent)) if kind is PacketType.HELLO else 0), kind
    assert system.fingerprint(await system.look("B")) == system.fingerprint(before)


async def test_the_newest_datagram_from_another_address_gets_a_question_and_moves_no_session(
    tapped: Lab, victim: socket.socket, spoofer: Spoofer
) -> None:
    """Whoever holds back what A sends and has it come from elsewhere is asked there, and does not answer."""
    system, wire = tapped
    before = await system.link("B", "A")
    diverted: list[bytes] = []

    def divert(sender: str, datagram: bytes) -> list[bytes]:
        if sender == "A" and datagram[0] >> 4 == PacketType.CONTROL and len(diverted) < 10:
            diverted.append(datagram)
            spoofer.send(victim.getsockname(), wire.home("B"), datagram)
            return []
        return [datagram]

    wire.rule = divert
    await until(lambda: len(diverted) == 10)
    wire.rule = pass_on
    answers = await came_to(victim)
    assert 0 < sum(map(len, answers)) <= MOST_TIMES * sum(map(len, diverted))
    await asyncio.sleep(SETTLE_S)
    after = await system.link("B", "A")
    assert (after["state"], after["address"]) == (before["state"], before["address"])
    assert drained(victim) == []


async def test_chunks_from_a_spoofed_address_are_a_strangers(
    tapped: Lab, victim: socket.socket, spoofer: Spoofer, tmp_path: Path
) -> None:
    system, wire = tapped
    file = make_file(tmp_path, 300_000, f"{tmp_path.name}.bin")
    await system.send("A", file)
    await system.arrives("B", file)
    before = (await system.drops("B")).get("chunk-from-stranger", 0)
    chunks = [each for each in wire.of_kind(PacketType.DATA, "A") if peek_chunk(each)][:50]
    for datagram in chunks:
        spoofer.send(victim.getsockname(), wire.home("B"), datagram)
    assert await came_to(victim) == []
    assert (await system.drops("B"))["chunk-from-stranger"] == before + len(chunks)


async def test_garbage_from_the_peers_own_address_is_not_answered_and_harms_nothing(tapped: Lab) -> None:
    system, wire = tapped
    before = await system.look("B")
    sent = len(wire.seen)
    made = garbage(Kind.ALIKE, random.Random(1), bytes(8))[:NUMBER] + garbage(Kind.RANDOM, random.Random(2), bytes(8))
    # FRAGMENT and chunks of unknown streams may wait for the rest of what they seem to be a part of, for 2 s.
    wire.inject("B", made[:NUMBER])
    await asyncio.sleep(3.0)
    after = await system.look("B")
    assert system.fingerprint(after) == system.fingerprint(before)
    answers = [each for each in wire.seen[sent:] if each.sender == "B" and each.kind != PacketType.CONTROL]
    assert answers == []


async def test_garbage_from_strangers_is_not_answered_at_all(tapped: Lab, victim: socket.socket) -> None:
    system, wire = tapped
    before = await system.look("B")
    made = garbage(Kind.ALIKE, random.Random(1), own_key_id(system))[:NUMBER]
    made += garbage(Kind.RANDOM, random.Random(2), bytes(8))[:NUMBER]
    made += [bytes([first]) + bytes(length) for first in range(256) for length in (0, 11, 87, 1_199)]
    for datagram in made:
        victim.sendto(datagram, wire.home("B"))
    assert await came_to(victim) == []
    after = await system.look("B")
    assert system.fingerprint(after) == system.fingerprint(before)
    assert sum(after["drops"].values()) - sum(before["drops"].values()) == len(made)


def own_key_id(system: Attacked) -> bytes:
    """Return the key id of A, which anybody has seen who saw one of its hellos."""
    identity = json.loads((system.folder / "A" / "state" / "identity.json").read_text())
    return key_id(public_key_of(base64.b64decode(identity["private_key"])))


async def test_a_path_challenge_is_answered_with_no_more_than_it_brought(
    attacked_by_member: tuple[Attacked, Member], victim: socket.socket
) -> None:
    """Even a member makes an agent send no more to a third host than it sends itself."""
    system, member = attacked_by_member
    agent = member.address
    asked = [member.sealed(PathChallenge(bytes(8))) for _ in range(50)]
    for datagram in asked:
        victim.sendto(datagram, agent)
    answers = await came_to(victim)
    assert 0 < sum(map(len, answers)) <= MOST_TIMES * sum(map(len, asked))
    assert (await system.link("A", "M"))["state"] == "open"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked_by_member(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Attacked, Member]]:
    attacked = Attacked(tmp_path_factory.mktemp("lab"), "A", guests=["M"])
    async with running(attacked) as system, Member("M", system.url) as member:
        await member.enrol(system.join_token)
        await member.meet("A")
        await until(lambda: met(system))
        yield system, member


async def met(system: Attacked) -> bool:
    return [link["state"] for link in (await system.look("A"))["links"]] == ["open"]


# --- STUN -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Responder:
    """A server that runs."""

    system: Attacked

    @property
    def address(self) -> Address:
        """Where it answers STUN: at UDP ports of the number of its TCP port, and of the next one."""
        parts = urlsplit(self.system.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    async def answered(self) -> int:
        """Return how many requests it has answered so far."""
        headers = {"Authorization": f"Bearer {self.system.admin_token}"}
        async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
            text = (await client.get(f"{self.system.url}/metrics")).text
        line = next(line for line in text.splitlines() if line.startswith("arborcast_stun_answers_total "))
        return int(float(line.split()[1]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def responder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Responder]:
    async with running(Attacked(tmp_path_factory.mktemp("lab"), "")) as system:
        yield Responder(system)


COOKIE = 0x2112A442


def requests() -> dict[str, bytes]:
    """Return requests that might bring more than they cost."""
    transaction = bytes(range(12))
    attributes = b"".join(struct.pack("!HH", number, 0) for number in range(1, 300))
    return {
        "plain": encode_request(transaction),
        "old (RFC 3489)": struct.pack("!HHI", 1, 0, 7) + transaction,
        "with 299 attributes that nobody knows": struct.pack("!HHI", 1, len(attributes), COOKIE)
        + transaction
        + attributes,
    }


async def test_a_stun_answer_is_never_larger_than_three_requests(
    responder: Responder, victim: socket.socket, spoofer: Spoofer
) -> None:
    for name, request in requests().items():
        spoofer.send(victim.getsockname(), responder.address, request)
        answers = await came_to(victim)
        assert len(answers) == 1, name
        assert len(answers[0]) <= MOST_TIMES * len(request), name


async def test_stun_answers_do_not_go_to_and_fro_between_two_ports(responder: Responder, spoofer: Spoofer) -> None:
    host, port = responder.address
    before = await responder.answered()
    with closing(bound()) as client:
        client.sendto(encode_request(bytes(12)), responder.address)
        answer = (await came_to(client))[0]
        client.sendto(answer, responder.address)
        assert await came_to(client) == []
    # In the name of the other port: if that answered the answer, the two would never stop.
    spoofer.send((host, port + 1), (host, port), encode_request(bytes(12)))
    await asyncio.sleep(SETTLE_S)
    assert await responder.answered() == before + 2


async def test_garbage_is_not_answered_by_the_stun_responder(responder: Responder, victim: socket.socket) -> None:
    before = await responder.answered()
    rng = random.Random(1)
    for length in [*range(1, 60), *range(60, 1_400, 20)]:
        victim.sendto(rng.randbytes(length), responder.address)
        victim.sendto(b"\0\1" + rng.randbytes(length), responder.address)
    assert await came_to(victim) == []
    assert await responder.answered() == before


async def test_an_agent_answers_no_stun_request(tapped: Lab, victim: socket.socket) -> None:
    _, wire = tapped
    for request in requests().values():
        victim.sendto(request, wire.home("B"))
    assert await came_to(victim) == []


async def test_a_forged_stun_answer_tells_an_agent_nothing(tapped: Lab, victim: socket.socket) -> None:
    system, wire = tapped
    before = await system.look("B")
    mapped = struct.pack("!HHBBHI", 0x0020, 8, 0, 1, 4_000 ^ 0x2112, 0x0A000001 ^ COOKIE)
    for number in range(256):
        head = struct.pack("!HHI", 0x0101, len(mapped), COOKIE) + bytes([number]) * 12
        victim.sendto(head + mapped, wire.home("B"))
    assert await came_to(victim) == []
    after = await system.look("B")
    assert (after["candidates"], after["reflexive"]) == (before["candidates"], before["reflexive"])
