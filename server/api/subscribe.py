"""The subscription socket (M5): the state at once, every change after it; reports may come over it too.

The first message is a `subscribe`. The answer is the graph state, then for a device the roster, the channels and, once
links have said it, how large a datagram all of them take. After it a device may send reports; each is answered with
`accepted` or `error`. A mistake does not close the socket; not reading does.
"""

import asyncio
import contextlib

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from common.errors import ConnectError, DecodeError, RefusedError
from common.ids import GroupId
from common.limits import FIRST_MESSAGE_S
from common.messages import (
    Accepted,
    ClientMessage,
    ErrorMessage,
    Subscribe,
    decode_client_message,
    encode_message,
)
from server.api.access import Backend, Role, Who, authenticate, backend, bearer_of
from server.api.problems import refusal
from server.services.sessions import Session

router = APIRouter()

# RFC 6455 section 7.4.1; 1013 stands in IANA's registry: try again later.
_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013
_FAREWELL_S = 1.0
_DETAIL_CHARS = 4_096


@router.websocket("/v1/groups/{group}/subscribe")
async def subscribe(websocket: WebSocket, group: GroupId) -> None:
    """Serve one subscription to its end."""
    found = backend(websocket)
    try:
        who = authenticate(websocket, group, bearer_of(websocket))
    except RefusedError as error:
        found.metrics.refused(error.reason)
        await websocket.send_denial_response(refusal(error))
        return
    await websocket.accept()
    last_word: ErrorMessage | None
    try:
        first = await _first(websocket)
    except DecodeError as error:
        last_word = ErrorMessage(reason="malformed", detail=str(error)[:_DETAIL_CHARS])
    else:
        last_word = None if first is None else await _serve(websocket, found, group, who, first)
    if last_word is not None:
        found.metrics.closed(last_word.reason)
        await _farewell(websocket, last_word)


async def _first(websocket: WebSocket) -> Subscribe | None:
    """Wait for the message that says what is wanted; None if the other side leaves.

    Raises:
        DecodeError: it is something else, or comes too late.
    """
    try:
        async with asyncio.timeout(FIRST_MESSAGE_S):
            data = await _receive(websocket)
    except TimeoutError as error:
        raise DecodeError(f"no 'subscribe' came within {FIRST_MESSAGE_S:.0f} s") from error
    if data is None:
        return None
    message = decode_client_message(data)
    if not isinstance(message, Subscribe):
        raise DecodeError(f"the first message has to be 'subscribe', not {message.type!r}")
    return message


async def _serve(
    websocket: WebSocket, found: Backend, group: GroupId, who: Who, first: Subscribe
) -> ErrorMessage | None:
    """Run reader and sender until either ends; give the reason if it is the server's."""

    async def send(text: str) -> None:
        try:
            await websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectError("the subscriber is gone") from error

    coordinator = found.coordinator
    session = coordinator.sessions.open(send)
    try:
        _take(found, group, who, session, first)
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(session.run())
            reader = tasks.create_task(_read(websocket, found, group, who, session))
            await asyncio.wait((sender, reader), return_when=asyncio.FIRST_COMPLETED)
            sender.cancel()
            reader.cancel()
    except RefusedError as error:
        found.metrics.refused(error.reason)
        return ErrorMessage(reason=error.reason, detail=error.detail[:_DETAIL_CHARS])
    finally:
        coordinator.sessions.forget(session.number)
        with contextlib.suppress(RefusedError):
            coordinator.apply(group, lambda machine, now, wall: machine.unsubscribe(session.number))
    return session.last_word


async def _read(websocket: WebSocket, found: Backend, group: GroupId, who: Who, session: Session) -> None:
    """Take what comes after the first message, until the other side leaves."""
    while (data := await _receive(websocket)) is not None:
        try:
            _take(found, group, who, session, decode_client_message(data))
        except DecodeError as error:
            found.metrics.refused("malformed")
            session.offer(ErrorMessage(reason="malformed", detail=str(error)[:_DETAIL_CHARS]))
        except RefusedError as error:
            found.metrics.refused(error.reason)
            session.offer(ErrorMessage(reason=error.reason, detail=error.detail[:_DETAIL_CHARS]))


def _take(found: Backend, group: GroupId, who: Who, session: Session, message: ClientMessage) -> None:
    """Apply one report, or put another subscription in the place of the one before.

    Raises:
        RefusedError: no-device, or what the group refuses.
    """
    device = who.device
    if isinstance(message, Subscribe):
        if who.role is Role.READER:
            message = _without_claim(found, group, message)
        found.coordinator.apply(
            group, lambda machine, now, wall: machine.subscribe(session.number, device, message, now=now, wall=wall)
        )
        return
    if device is None:
        raise RefusedError("no-device", f"only a device reports; this is the {who.role.value}'s token")
    found.coordinator.apply(group, lambda machine, now, wall: machine.report(device, message, now=now, wall=wall))
    session.offer(Accepted(of=message.type))


def _without_claim(found: Backend, group: GroupId, message: Subscribe) -> Subscribe:
    """Leave out an epoch that has not been yet: to believe in it would change the graph's epoch for everybody."""
    if message.epoch is not None and message.epoch > found.coordinator.group(group).graph().epoch:
        return message.model_copy(update={"epoch": None})
    return message


async def _receive(websocket: WebSocket) -> str | bytes | None:
    """Wait for the next message; None when the other side has left."""
    event = await websocket.receive()
    if event["type"] == "websocket.disconnect":
        return None
    text: str | None = event.get("text")
    data: bytes | None = event.get("bytes")
    return text if text is not None else data or b""


async def _farewell(websocket: WebSocket, last_word: ErrorMessage) -> None:
    """Say why, and close; who does not read does not get to hold this up."""
    code = _TRY_AGAIN_LATER if last_word.reason == "slow" else _POLICY_VIOLATION
    with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        async with asyncio.timeout(_FAREWELL_S):
            if last_word.reason != "slow":
                await websocket.send_text(encode_message(last_word))
            await websocket.close(code, last_word.reason)
