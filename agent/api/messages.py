"""Messages: publish one, follow a channel, acknowledge. Who publishes often keeps a connection: see `publishing`."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agent.api.bodies import CappedRoute, read_body
from agent.api.local import ALIVE_S, NDJSON, Local, LocalAgent, Name
from agent.api.problems import Problem
from agent.core.events import MessageGap, MessageReceived
from agent.services.inbox import MAX_CONSUMERS, Reader
from common.ids import ID_PATTERN
from common.limits import MAX_EPOCH, MAX_MESSAGE_BYTES

LINES_AT_ONCE: Final = 64
"""Entries that go into one write."""
MAX_NUMBERS: Final = 4_096
"""Streams that one acknowledgement may name."""

router = APIRouter(tags=["messages"])
cursors = APIRouter(tags=["messages"], route_class=CappedRoute)

StreamHex = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Number = Annotated[int, Field(strict=True, ge=0, le=MAX_EPOCH)]


class Acknowledgement(BaseModel):
    """What a consumer has dealt with."""

    model_config = ConfigDict(extra="forbid")

    consumer: Annotated[str, Field(pattern=ID_PATTERN)]
    channel: Annotated[str, Field(pattern=ID_PATTERN)]
    numbers: dict[StreamHex, Number] = Field(max_length=MAX_NUMBERS, description="the last number of each stream")


@router.post("/messages", status_code=HTTPStatus.CREATED)
async def publish(request: Request, local: Local, channel: Name = "messages") -> Response:
    """Publish the body as one message."""
    payload = await read_body(request, MAX_MESSAGE_BYTES, "message")
    await local.driver.settled()
    stream, number = local.driver.publish(channel, payload)
    return JSONResponse({"stream": stream, "number": number}, HTTPStatus.CREATED)


@router.get("/messages")
async def follow(
    local: Local,
    channel: Name = "messages",
    start: Annotated[Literal["new", "retained"], Query(alias="from")] = "new",
    consumer: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
) -> Response:
    """Follow a channel: a line of JSON for each message, in its source's order and once; payloads in base64.

    A named consumer goes on behind what it acknowledged; of one name, one reader at a time.
    """
    local.check_message_channel(channel)
    if consumer is None:
        reader = local.inbox.read(channel, retained=start == "retained", seen={})
        return StreamingResponse(_lines(local, reader), media_type=NDJSON)
    if not local.cursors.claim(consumer, channel):
        raise Problem(HTTPStatus.CONFLICT, "consumer-busy", f"consumer {consumer!r} is reading already")
    seen = local.cursors.numbers(consumer, channel)
    reader = local.inbox.read(channel, retained=True, seen=seen)
    lines = _claimed(local, consumer, channel, reader)
    return StreamingResponse(lines, media_type=NDJSON)


@cursors.post("/cursors", status_code=HTTPStatus.NO_CONTENT)
async def acknowledge(body: Acknowledgement, local: Local) -> None:
    """Keep what a consumer has dealt with, for good; it is not given those messages again."""
    try:
        kept = local.cursors.acknowledge(body.consumer, body.channel, body.numbers)
    except OSError as error:
        raise Problem(HTTPStatus.INSUFFICIENT_STORAGE, "io", f"cannot keep it: {error.strerror}") from error
    if not kept:
        raise Problem(
            HTTPStatus.CONFLICT,
            "too-many-consumers",
            f"this agent keeps cursors for {MAX_CONSUMERS} consumers already",
        )


async def _claimed(local: LocalAgent, consumer: str, channel: str, reader: Reader) -> AsyncIterator[bytes]:
    try:
        async for lines in _lines(local, reader):
            yield lines
    finally:
        local.cursors.release(consumer, channel)


async def _lines(local: LocalAgent, reader: Reader) -> AsyncIterator[bytes]:
    # Says that the place in the log is taken: what is published from here on is in the answer.
    yield _line({"event": "following"})
    while not local.stopping:
        entries = reader.take(LINES_AT_ONCE)
        if entries:
            yield b"".join(_line(_describe(entry)) for entry in entries)
        elif not await reader.wait(ALIVE_S):
            yield _line({"event": "alive"})
    yield _line({"event": "end", "reason": "agent-stopping"})


def _describe(entry: MessageReceived | MessageGap) -> dict[str, Any]:
    about = {"channel": entry.channel, "source": entry.source, "stream": entry.stream}
    if isinstance(entry, MessageGap):
        return {"event": "gap", **about, "first": entry.first, "last": entry.last}
    payload = base64.b64encode(entry.payload).decode()
    return {"event": "message", **about, "number": entry.number, "payload": payload}


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"
