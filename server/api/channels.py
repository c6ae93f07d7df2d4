"""Channels: the named services of a group and their rules."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from common.errors import RefusedError
from common.ids import ID_PATTERN, ChannelId
from common.messages import Channels, ChannelSpec
from server.api import problems
from server.api.access import Administrator, Found, GroupPath, Member

router = APIRouter(prefix="/v1/groups/{group}/channels", tags=["channels"])

ChannelPath = Annotated[ChannelId, Path(pattern=ID_PATTERN, description="the channel", examples=["files"])]


@router.get("", summary="List the channels", responses=problems.describe(404))
async def every(found: Found, group: GroupPath, _who: Member) -> Channels:
    """List all channels with their rules."""
    return found.coordinator.group(group).channels()


@router.put(
    "/{channel}",
    summary="Add or change a channel",
    dependencies=[Administrator],
    responses=problems.describe(403, 404, 409, 503),
)
async def put(found: Found, group: GroupPath, channel: ChannelPath, spec: ChannelSpec) -> ChannelSpec:
    """Add a channel, or replace the one of that name; every device is told."""
    if spec.name != channel:
        raise RefusedError("name-mismatch", f"the address names channel {channel!r}, the body {spec.name!r}")
    found.coordinator.apply(group, lambda machine, now, wall: machine.put_channel(spec, now=now, wall=wall))
    await found.coordinator.settled(group)
    return spec


@router.delete(
    "/{channel}",
    status_code=204,
    summary="Remove a channel",
    dependencies=[Administrator],
    responses=problems.describe(403, 404, 503),
)
async def delete(found: Found, group: GroupPath, channel: ChannelPath) -> Response:
    """Remove a channel; every device is told."""
    found.coordinator.apply(group, lambda machine, now, wall: machine.delete_channel(channel, now=now, wall=wall))
    await found.coordinator.settled(group)
    return Response(status_code=204)
