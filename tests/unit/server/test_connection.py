import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from server import connection
from server.connection import BoundedProtocol
from server.settings import MAX_HEAD_BYTES

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body and answer its length."""
    length = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message["body"])
        more = message["more_body"]
    text = str(length).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@asynccontextmanager
async def serving(limit: int = 10) -> AsyncIterator[int]:
    config = uvicorn.Config(
        application,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        limit_concurrency=limit,
        timeout_keep_alive=1,
    )
    state = uvicorn.server.ServerState()
    server = await asyncio.get_running_loop().create_server(lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for protocol in tuple(state.connections):
            protocol.transport.abort()


async def talk(port: int, *pieces: bytes) -> bytes:
    """Send pieces, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        async with asyncio.timeout(5):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.002)
            got = await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()
    return got


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_HEAD_S", 0.2)


@pytest.mark.parametrize(
    "pieces",
    [
        (REQUEST[:-2], *[b"a: " + b"x" * 1_000 + b"\r\n"] * 40),
        (REQUEST[:-2] + b"a: ", *[b"x" * 1_000] * 40),
        (b"GET /", *[b"x" * 1_000] * 40),
        (REQUEST[:-2] + b"a: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",),
        (b"\r\n" * 20_000,),
    ],
)
async def test_a_head_that_is_too_long_is_refused(pieces: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_HEAD_S", 60.0)
    async with serving() as port:
        # The answer may be lost with what was not read; that the connection ends is what counts.
        assert (await talk(port, *pieces)).partition(b"\r\n")[0] in (
            b"HTTP/1.1 431 Request Header Fields Too Large",
            b"",
        )


async def test_the_refusal_says_why() -> None:
    async with serving() as port:
        answer = await talk(port, REQUEST[:-2] + b"a: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert (await talk(port, b"\0\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_trailers_without_end_close_the_connection() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    async with serving() as port:
        assert await talk(port, head, *[b"a: " + b"x" * 1_000 + b"\r\n"] * 40) == b""


@pytest.mark.parametrize("start", [b"", b"GET / HTTP", b"\r\n", REQUEST + b"\r\n", REQUEST + b"GET /"])
async def test_a_head_that_does_not_end_closes_the_connection_after_a_time(start: bytes) -> None:
    async with serving() as port:
        answer = await talk(port, start)
        assert answer.startswith(b"HTTP/1.1 200 ") == start.startswith(REQUEST)


async def test_a_long_body_and_several_requests_are_served() -> None:
    body = b"x" * 100_000
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    async with serving() as port:
        answer = await talk(port, REQUEST, post, body[:50_000], body[50_000:], post + body, REQUEST)
    assert answer.count(b"HTTP/1.1 200 ") == 4
    assert answer.count(b"100000") == 2


async def test_a_connection_beyond_the_limit_is_closed_at_once() -> None:
    async with serving(limit=2) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        assert await talk(port, REQUEST) == b""
        for _, writer in held:
            writer.close()
