"""Who holds connections open and says nothing, or says it slowly: everybody else is served meanwhile."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from common.limits import FIRST_MESSAGE_S, MAX_SUBSCRIBERS_PER_DEVICE
from lab.loopback import GROUP
from server.settings import READ_HEAD_S
from tests.harness.attacked import Attacked, make_file, running
from tests.harness.member import Member

pytestmark = [pytest.mark.loopback, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SLOW = 300
IDLE = 1_000
ASKED = 50
BEYOND = 12
MARGIN_S = 10.0
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Attacked]:
    async with running(Attacked(tmp_path_factory.mktemp("lab"), "A B")) as system:
        yield system


async def open_many(attacked: Attacked, count: int, first: bytes) -> list[Connection]:
    url = httpx.URL(attacked.url)
    found = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(first)
        found.append((reader, writer))
    return found


async def others_are_served(attacked: Attacked, folder: Path) -> None:
    """See that the graph is answered, and that the agents still get a file across and are attached."""
    headers = {"Authorization": f"Bearer {attacked.admin_token}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers, timeout=5.0) as client:
        for _ in range(ASKED):
            answer = await client.get(f"{attacked.url}/v1/groups/{GROUP}/graph")
            assert answer.status_code == 200
    file = make_file(folder, 1_000_000, f"{folder.name}.bin")
    await attacked.send("A", file)
    await attacked.arrives("B", file)
    assert (await attacked.look("A"))["attached"]


async def ended(connections: list[Connection], within: float) -> int:
    """Return how many of the connections the server has ended, waiting for them."""

    async def end(reader: asyncio.StreamReader) -> bool:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        return True

    done, late = await asyncio.wait([asyncio.create_task(end(reader)) for reader, _ in connections], timeout=within)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return len(done)


def close(connections: list[Connection]) -> None:
    for _, writer in connections:
        writer.transport.abort()


async def test_slow_heads_and_connections_that_say_nothing_hold_up_nobody_and_are_ended(
    attacked: Attacked, tmp_path: Path
) -> None:
    slow = await open_many(attacked, SLOW, b"GET /v1/groups HTTP/1.1\r\nHost: x\r\n")

    async def dribble() -> None:
        for number in range(1_000):
            for _, writer in slow:
                writer.write(f"X-{number}: y\r\n".encode())
            await asyncio.sleep(0.5)

    dribbling = asyncio.create_task(dribble())
    silent: list[Connection] = []
    try:
        silent = await open_many(attacked, IDLE, b"")
        await others_are_served(attacked, tmp_path)
        assert await ended(slow + silent, READ_HEAD_S + MARGIN_S) == SLOW + IDLE
    finally:
        dribbling.cancel()
        await asyncio.gather(dribbling, return_exceptions=True)
        close(slow + silent)


async def test_slow_bodies_hold_up_nobody(attacked: Attacked, tmp_path: Path) -> None:
    head = f"POST /v1/groups/{GROUP}/devices HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{{"
    slow = await open_many(attacked, SLOW, head.encode())
    try:
        await others_are_served(attacked, tmp_path)
    finally:
        close(slow)


async def test_a_thousand_idle_sockets_of_a_member_hold_up_nobody_and_are_ended(
    attacked: Attacked, tmp_path: Path
) -> None:
    """They are open, by a good token, and never say what they want."""
    url = f"ws{attacked.url.removeprefix('http')}/v1/groups/{GROUP}/subscribe"
    async with Member("M", attacked.url) as member:
        await member.enrol(attacked.join_token)
        headers = {"Authorization": f"Bearer {member.token}"}
        async with contextlib.AsyncExitStack() as stack:
            idle = []
            for _ in range(IDLE):
                opened = connect(url, additional_headers=headers, proxy=None, compression=None, ping_interval=None)
                idle.append(await stack.enter_async_context(opened))
            await others_are_served(attacked, tmp_path)
            async with asyncio.timeout(FIRST_MESSAGE_S + 2 * MARGIN_S):
                reasons = [await last_word(each) for each in idle]
            assert set(reasons) == {"malformed"}


async def last_word(socket: ClientConnection) -> str:
    """Read a socket to its end; return the reason that the server gave."""
    reason = ""
    with contextlib.suppress(ConnectionClosed):
        while True:
            reason = json.loads(await socket.recv()).get("reason", "")
    return reason


async def test_a_member_has_no_more_subscriptions_than_its_share(attacked: Attacked, tmp_path: Path) -> None:
    """The oldest give way, and the server goes on serving."""
    url = f"ws{attacked.url.removeprefix('http')}/v1/groups/{GROUP}/subscribe"
    async with Member("N", attacked.url) as member:
        await member.enrol(attacked.join_token)
        headers = {"Authorization": f"Bearer {member.token}"}
        async with contextlib.AsyncExitStack() as stack:
            opened = []
            for _ in range(MAX_SUBSCRIBERS_PER_DEVICE + BEYOND):
                each = await stack.enter_async_context(connect(url, additional_headers=headers, proxy=None))
                await each.send(json.dumps({"type": "subscribe", "scope": "graph", "epoch": None}))
                assert json.loads(await each.recv())["type"] == "graph"
                opened.append(each)
            await others_are_served(attacked, tmp_path)
            async with asyncio.timeout(MARGIN_S):
                assert {await last_word(each) for each in opened[:BEYOND]} == {"superseded"}
            assert [each.close_code for each in opened[BEYOND:]] == [None] * MAX_SUBSCRIBERS_PER_DEVICE
