"""A kept connection for who publishes often: a WebSocket with a frame for each message and an answer for each frame.

The answers come in order: the message's stream and number, or a problem. A problem is the last answer; neither its
message nor what was sent behind it is published, so that a publisher who begins anew with that message loses none and
keeps the order. While the channel's queue is full the frames wait, in the end in the publisher's own socket. Who does
not read the answers is cut off (``kept_connection``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Final

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from agent.api.local import Local, LocalAgent, Name
from agent.api.problems import describe
from agent.core.store import StoreError
from common.errors import RefusedError

BUSY_S: Final = 10.0
"""Seconds for which a message waits for room in its channel's queue."""
ROOM_S: Final = 0.005
"""Seconds until a full queue is looked at again; it holds enough for the links meanwhile."""
_POLICY_VIOLATION: Final = 1008

router = APIRouter(tags=["messages"])


@router.websocket("/messages/publish")
async def publish(websocket: WebSocket, local: Local, channel: Name = "messages") -> None:
    """Publish what one connection brings, until the publisher leaves or a message is refused."""
    local.check_message_channel(channel)
    await websocket.accept()
    await local.driver.settled()
    with contextlib.suppress(WebSocketDisconnect):
        while (payload := await _receive(websocket)) is not None:
            try:
                stream, number = await _publish(local, channel, payload)
            except (RefusedError, StoreError) as error:
                await websocket.send_text(describe(error).model_dump_json())
                await websocket.close(_POLICY_VIOLATION, error.reason)
                return
            await websocket.send_text(json.dumps({"stream": stream, "number": number}))
            # Frames that are here already are given without a wait: the links have their turn between two of them.
            await asyncio.sleep(0)


async def _receive(websocket: WebSocket) -> bytes | None:
    """Wait for the next message; None when the publisher has left."""
    event = await websocket.receive()
    if event["type"] == "websocket.disconnect":
        return None
    data: bytes | None = event.get("bytes")
    return str(event["text"]).encode() if data is None else data


async def _publish(local: LocalAgent, channel: str, payload: bytes) -> tuple[str, int]:
    """Publish a message once there is room for it.

    Raises:
        RefusedError: it is declined; reason ``busy`` if there was no room for BUSY_S.
        StoreError: the stream's record cannot be kept.
    """
    until = local.driver.now + BUSY_S
    while True:
        try:
            return local.driver.publish(channel, payload)
        except RefusedError as error:
            if error.reason != "busy" or local.stopping or local.driver.now >= until:
                raise
        await asyncio.sleep(ROOM_S)
