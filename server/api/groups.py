"""Groups and the tokens that let devices join them: the administrator's."""

from fastapi import APIRouter, Response
from pydantic import Field

from common.errors import RefusedError
from common.fields import Name
from common.ids import GroupId
from common.limits import MAX_CHANNELS
from common.messages import ChannelSpec, Message
from server.api import problems
from server.api.access import Administrator, Found, GroupPath

router = APIRouter(prefix="/v1/groups", tags=["groups"], dependencies=[Administrator])


class NewGroup(Message):
    """A group to make."""

    group: Name = Field(examples=["lab"])
    channels: tuple[ChannelSpec, ...] | None = Field(
        None, max_length=MAX_CHANNELS, description="its channels; null for `files` and `messages`"
    )


class JoinToken(Message):
    """A token that lets devices enrol; it is shown this once."""

    group: GroupId
    join_token: str = Field(examples=["join~Q2hhbmdlIG1l"])


class GroupSummary(Message):
    """One group at a glance."""

    group: GroupId
    epoch: int
    devices: int
    links: int = Field(description="links that count: both ends report them")
    subscribers: int


class GroupList(Message):
    """All groups."""

    groups: tuple[GroupSummary, ...]


@router.post("", status_code=201, summary="Make a group", responses=problems.describe(403, 409, 503))
async def create(found: Found, new: NewGroup) -> JoinToken:
    """Make a group with its channels, and a first join token for it."""
    names = [channel.name for channel in new.channels or ()]
    if len(dict.fromkeys(names)) != len(names):
        raise RefusedError("invalid", "two channels have one name")
    token = await found.coordinator.create_group(new.group, new.channels)
    return JoinToken(group=new.group, join_token=token)


@router.get("", summary="List the groups", responses=problems.describe(403))
async def every(found: Found) -> GroupList:
    """List all groups with their size and current epoch."""
    return GroupList(
        groups=tuple(
            GroupSummary(
                group=group.name,
                epoch=group.graph().epoch,
                devices=group.device_count(),
                links=group.link_count(),
                subscribers=group.subscriber_count(),
            )
            for group in found.coordinator.groups()
        )
    )


@router.post(
    "/{group}/join-tokens",
    status_code=201,
    summary="Make a join token",
    responses=problems.describe(403, 404, 409, 503),
)
async def add_join_token(found: Found, group: GroupPath) -> JoinToken:
    """Make one more token that lets devices enrol; those before stay valid."""
    token = found.coordinator.apply(group, lambda machine, now, wall: machine.add_join_token(now=now, wall=wall))
    await found.coordinator.settled(group)
    return JoinToken(group=group, join_token=token)


@router.delete(
    "/{group}/join-tokens",
    status_code=204,
    summary="Make all join tokens void",
    responses=problems.describe(403, 404, 503),
)
async def void_join_tokens(found: Found, group: GroupPath) -> Response:
    """Make every join token of the group void. Devices that have joined stay."""
    found.coordinator.apply(group, lambda machine, now, wall: machine.void_join_tokens(now=now, wall=wall))
    await found.coordinator.settled(group)
    return Response(status_code=204)
