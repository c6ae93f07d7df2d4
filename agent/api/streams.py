"""Files: send one, see what became of it, take it back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from agent.api.bodies import CappedRoute
from agent.api.local import ALIVE_S, NDJSON, Local, LocalAgent
from agent.api.problems import Problem
from agent.core.events import Receipt
from agent.core.store import StoreError
from agent.services.file_reader import FileReader
from agent.services.ledger import Entry, all_verified, ended, happened
from agent.services.names import safe_name
from common.ids import ID_PATTERN, DeviceId

PROGRESS_S: Final = 0.25
"""Seconds between two progress lines, at least."""
MAX_WAIT_S: Final = 7 * 86_400.0

router = APIRouter(prefix="/streams", tags=["streams"], route_class=CappedRoute)


class SendFile(BaseModel):
    """A file to send, and what to wait for."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    path: str = Field(min_length=1, max_length=4096, description="absolute, on this host")
    channel: Annotated[str, Field(pattern=ID_PATTERN)] = "files"
    wait: Literal["all", "none"] = "all"
    timeout: float | None = Field(None, gt=0, le=MAX_WAIT_S, description="seconds")


@router.post("/file")
async def send_file(body: SendFile, local: Local) -> Response:
    """Send a file to every member of the group; the answer is a line of JSON for each thing that happens."""
    if not _is_path(body.path):
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-path", f"no file can have the path {body.path!r}")
    path = Path(body.path)
    if not path.is_absolute():
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "relative-path", f"the path {body.path!r} is relative")
    try:
        reader = FileReader(path)
    except StoreError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "unreadable-file", error.detail) from error
    await local.driver.settled()
    members = local.others()
    stream = local.driver.send_file(body.channel, _wire_name(path), reader.size_bytes, reader)
    entry = local.ledger.get(stream) or Entry(
        stream, body.channel, local.device, "file", path.name, reader.size_bytes, "sending"
    )
    entry.members = members
    return StreamingResponse(_follow(local, entry, body), media_type=NDJSON)


@router.get("")
async def list_streams(local: Local) -> dict[str, list[dict[str, Any]]]:
    """List the streams that this agent knows of, oldest first."""
    return {"streams": [describe(entry) for entry in local.ledger.entries()]}


@router.get("/{stream}")
async def get_stream(stream: str, local: Local) -> dict[str, Any]:
    """Show one stream."""
    return describe(_find(local, stream))


@router.delete("/{stream}", status_code=HTTPStatus.NO_CONTENT)
async def cancel(stream: str, local: Local) -> None:
    """Take a stream back, everywhere."""
    entry = _find(local, stream)
    if entry.source != local.device:
        raise Problem(
            HTTPStatus.CONFLICT,
            "not-the-source",
            f"only device {entry.source!r}, which sends the stream, can cancel it",
        )
    local.driver.cancel(stream)


def describe(entry: Entry) -> dict[str, Any]:
    """Write a stream as JSON."""
    return {
        "stream": entry.stream,
        "channel": entry.channel,
        "source": entry.source,
        "kind": entry.kind,
        "name": entry.name,
        "size_bytes": entry.size_bytes,
        "state": entry.state,
        "held_bytes": entry.held_bytes,
        "reason": entry.reason,
        "sha256": entry.sha256,
        "receipts": _receipts(entry.receipts),
    }


async def _follow(local: LocalAgent, entry: Entry, body: SendFile) -> AsyncIterator[bytes]:
    """Yield a line for the opening, for progress, and for the end."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    deadline = began + (body.timeout or MAX_WAIT_S)
    yield _line(
        "opened",
        stream=entry.stream,
        name=entry.name,
        size_bytes=entry.size_bytes,
        members=list(entry.members),
    )
    told: dict[DeviceId, Receipt] | None = None
    told_at = began
    while True:
        news = entry.news.next()
        now = loop.time()
        receipts = entry.settled(local.others)
        reason = _end(local, entry, receipts, body) or ("timeout" if now >= deadline else None)
        if reason is not None:
            break
        next_line = told_at + (ALIVE_S if receipts == told else PROGRESS_S)
        if told is None or now >= next_line:
            yield _line("alive" if receipts == told else "progress", receipts=_receipts(receipts))
            told, told_at = receipts, now
            next_line = now + ALIVE_S
        # A member that leaves makes no news here, so the roster is looked at with every line.
        await happened(news, max(0.0, min(next_line, deadline) - now))
    yield _line(
        "finished",
        stream=entry.stream,
        ok=reason in ("verified", "not-waited"),
        reason=reason,
        seconds=round(loop.time() - began, 3),
        receipts=_receipts(receipts),
    )


def _end(local: LocalAgent, entry: Entry, receipts: Mapping[DeviceId, Receipt], body: SendFile) -> str | None:
    """Say why there is nothing more to wait for; None while there is."""
    if body.wait == "none":
        return "not-waited"
    if entry.state == "cancelled":
        return "cancelled"
    if entry.state == "failed":
        return entry.reason
    if ended(receipts):
        return "verified" if all_verified(receipts) else "refused"
    return "agent-stopping" if local.stopping else None


def _find(local: LocalAgent, stream: str) -> Entry:
    entry = local.ledger.get(stream)
    if entry is None:
        raise Problem(HTTPStatus.NOT_FOUND, "unknown-stream", f"there is no stream {stream[:64]!r} here")
    return entry


def _is_path(text: str) -> bool:
    """Say whether the system can be asked for it at all."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _wire_name(path: Path) -> str:
    """Return the file's name as it travels; one that is no UTF-8 text goes without what is none."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        return safe_name(path.name)
    return path.name


def _receipts(receipts: Mapping[DeviceId, Receipt]) -> dict[DeviceId, dict[str, Any]]:
    shown = {device: asdict(receipts[device]) for device in sorted(receipts)}
    for receipt in shown.values():
        del receipt["signature"]  # the agent has verified it, and JSON has no bytes
    return shown


def _line(event: str, **fields: object) -> bytes:
    return json.dumps({"event": event, **fields}).encode() + b"\n"
