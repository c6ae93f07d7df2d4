"""Groups and the tokens that let devices join them: the administrator's."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from common.errors import RefusedError
from common.fields import Name
from common.ids import GroupId
from common.limits import MAX_CHANNELS, MAX_JOIN_EXPIRY_S, MAX_JOIN_USES, MAX_NOTE_CHARS
from common.messages import ChannelSpec, Message
from server.api import problems
from server.api.access import Administrator, Found, GroupPath
from server.core.join_tokens import JoinTerms, id_of

router = APIRouter(prefix="/v1/groups", tags=["groups"], dependencies=[Administrator])


JoinTokenPath = Annotated[
    str,
    Path(pattern=r"^[0-9a-f]{16}$", description="the join token's id, as it is listed", examples=["5e884898da280471"]),
]


class NewGroup(Message):
    """A group to make."""

    group: Name = Field(examples=["lab"])
    channels: tuple[ChannelSpec, ...] | None = Field(
        None, max_length=MAX_CHANNELS, description="its channels; null for `files` and `messages`"
    )


class NewJoinToken(Message):
    """What a new join token shall be good for."""

    expires_s: float | None = Field(
        None, strict=True, gt=0, le=MAX_JOIN_EXPIRY_S, description="seconds until it is void; null for never"
    )
    uses: int | None = Field(
        None, strict=True, ge=1, le=MAX_JOIN_USES, description="how many devices it lets in; null for any number"
    )
    note: str = Field("", strict=True, max_length=MAX_NOTE_CHARS, description="what it is for; it is listed")


class JoinToken(Message):
    """A token that lets devices enrol; it is shown this once."""

    group: GroupId
    join_token: str = Field(examples=["join~Q2hhbmdlIG1l"])
    id: str = Field(description="names it in the list, and to make it void", examples=["5e884898da280471"])


class JoinTokenState(Message):
    """What is known of a join token that is valid; never the token itself."""

    id: str
    created: float = Field(description="unix seconds; 0 where that was not kept yet")
    expires: float | None = Field(description="unix seconds from which it is void; null for never")
    uses_left: int | None = Field(description="how many devices it lets in yet; null for any number")
    note: str


class JoinTokenList(Message):
    """The join tokens of a group that are valid."""

    join_tokens: tuple[JoinTokenState, ...]


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
    return JoinToken(group=new.group, join_token=token, id=id_of(token))


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
async def add_join_token(found: Found, group: GroupPath, new: NewJoinToken | None = None) -> JoinToken:
    """Make one more token that lets devices enrol; those before stay valid."""
    terms = JoinTerms() if new is None else JoinTerms(new.expires_s, new.uses, new.note)
    token = found.coordinator.apply(
        group, lambda machine, now, wall: machine.entrance.add_join_token(terms, now=now, wall=wall)
    )
    await found.coordinator.settled(group)
    return JoinToken(group=group, join_token=token, id=id_of(token))


@router.get("/{group}/join-tokens", summary="List the join tokens", responses=problems.describe(403, 404))
async def join_tokens(found: Found, group: GroupPath) -> JoinTokenList:
    """List the join tokens that are valid, oldest first: what each is good for, and never the token itself."""
    valid = found.coordinator.group(group).entrance.join_tokens(wall=found.coordinator.wall())
    return JoinTokenList(
        join_tokens=tuple(
            JoinTokenState(
                id=each.id, created=each.created, expires=each.expires, uses_left=each.uses_left, note=each.note
            )
            for each in valid
        )
    )


@router.delete(
    "/{group}/join-tokens",
    status_code=204,
    summary="Make all join tokens void",
    responses=problems.describe(403, 404, 503),
)
async def void_join_tokens(found: Found, group: GroupPath) -> Response:
    """Make every join token of the group void. Devices that have joined stay."""
    return await _void(found, group, None)


@router.delete(
    "/{group}/join-tokens/{join_token}",
    status_code=204,
    summary="Make a join token void",
    responses=problems.describe(403, 404, 503),
)
async def void_join_token(found: Found, group: GroupPath, join_token: JoinTokenPath) -> Response:
    """Make one join token void, by its id. Devices that have joined by it stay."""
    return await _void(found, group, join_token)


async def _void(found: Found, group: GroupId, name: str | None) -> Response:
    found.coordinator.apply(
        group, lambda machine, now, wall: machine.entrance.void_join_token(name, now=now, wall=wall)
    )
    await found.coordinator.settled(group)
    return Response(status_code=204)
