"""Devices: enrol, list, evict, and what each reports (M1, M2) and asks (M4)."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field
from starlette.requests import HTTPConnection

from common.errors import TransportError
from common.ids import DeviceId, GroupId
from common.limits import MAX_EPOCH
from common.messages import (
    AdjacencyReport,
    CandidatesReport,
    DeviceToken,
    Enrolment,
    EnrolmentAnswer,
    Message,
    NeighboursBody,
    QosReport,
    Report,
    RosterEntry,
    TokenRotation,
)
from server.api import problems
from server.api.access import DevicePath, Found, GroupPath, Member, Token, check_may_enrol
from server.api.conditional import answer, check_epoch
from server.core.group import Group

router = APIRouter(prefix="/v1/groups/{group}/devices", tags=["devices"])


class DeviceState(RosterEntry):
    """One member, and whether it has reported lately."""

    alive: bool = Field(description="its lease runs: it has reported in the last 15 s, or the server just started")
    in_use: bool = Field(description="an agent that lives is subscribed as it: a second one would be refused")


class DeviceList(Message):
    """All members."""

    devices: tuple[DeviceState, ...]


@router.post("", status_code=201, summary="Enrol a device", responses=problems.describe(403, 404, 409, 503))
async def enrol(
    connection: HTTPConnection, found: Found, group: GroupPath, token: Token, enrolment: Enrolment
) -> EnrolmentAnswer:
    """Make a device a member; send a join token of the group.

    A device that makes its own token and sends the hash of it may lose the answer: it enrols again with that token.
    Without a hash the answer holds a token, which is shown this once. An id that is taken is refused, unless the
    request carries that device's own token: then key and token are replaced.
    """
    admission = check_may_enrol(connection, group, enrolment.device, token)
    if found.coordinator.is_failing(group):
        raise TransportError("the state cannot be stored now")
    result = found.coordinator.apply(
        group,
        lambda machine, now, wall: machine.enrol(
            enrolment, now=now, wall=wall, replaces=admission.replaces, join_token=admission.join_token
        ),
    )
    try:
        await found.coordinator.settled(group)
    except TransportError:
        if result.token is not None and not admission.replaces:
            # Nobody will ever know its token: the id must stay free.
            _undo(found, group, enrolment.device, admission.join_token)
        raise
    return result


@router.get("", summary="List the devices", responses=problems.describe(404))
async def every(found: Found, group: GroupPath, _who: Member) -> DeviceList:
    """List all members with their public keys and addresses."""
    machine = found.coordinator.group(group)
    return DeviceList(devices=tuple(_state(machine, entry) for entry in machine.roster().devices))


@router.get("/{device}", summary="Show a device", responses=problems.describe(404))
async def one(found: Found, group: GroupPath, _who: Member, device: DevicePath) -> DeviceState:
    """Show one member."""
    machine = found.coordinator.group(group)
    return _state(machine, machine.device(device))


@router.delete("/{device}", status_code=204, summary="Evict a device", responses=problems.describe(403, 404, 503))
async def evict(found: Found, group: GroupPath, who: Member, device: DevicePath) -> Response:
    """Remove a member: the administrator any, a device itself.

    Its token is void at once, its subscriptions are closed, and the others get a new group key.
    """
    who.check_is(device)
    found.coordinator.apply(group, lambda machine, now, wall: machine.evict(device, now=now, wall=wall))
    await found.coordinator.settled(group)
    return Response(status_code=204)


@router.post(
    "/{device}/token", summary="Change a device's token", responses=problems.describe(403, 404, 503), status_code=201
)
async def rotate(
    found: Found, group: GroupPath, who: Member, device: DevicePath, rotation: TokenRotation
) -> DeviceToken:
    """Take a new token, by the one that the device has; that one stays good until the new one is first used.

    So an answer that is lost costs nothing. Best the device makes the token itself, and sends its hash alone.
    """
    who.check_is_itself(device)
    result = found.coordinator.apply(
        group, lambda machine, now, wall: machine.entrance.rotate_token(device, rotation.token_hash, now=now, wall=wall)
    )
    await found.coordinator.settled(group)
    return result


@router.put(
    "/{device}/adjacency", status_code=204, summary="Report the adjacent devices", responses=problems.describe(403, 404)
)
async def put_adjacency(
    found: Found, group: GroupPath, who: Member, device: DevicePath, report: AdjacencyReport
) -> Response:
    """Report all devices to which there is an open link (M1); it replaces the report before and renews the lease."""
    return _report(found, group, who, device, report)


@router.put("/{device}/qos", status_code=204, summary="Report link figures", responses=problems.describe(403, 404))
async def put_qos(found: Found, group: GroupPath, who: Member, device: DevicePath, report: QosReport) -> Response:
    """Report figures of links (M2); links that are not named keep theirs. It renews the lease."""
    return _report(found, group, who, device, report)


@router.put("/{device}/candidates", status_code=204, summary="Report addresses", responses=problems.describe(403, 404))
async def put_candidates(
    found: Found, group: GroupPath, who: Member, device: DevicePath, report: CandidatesReport
) -> Response:
    """Report the addresses at which the device may be reached, and what its NAT does; it replaces what was before.

    It renews the lease.
    """
    return _report(found, group, who, device, report)


@router.get(
    "/{device}/neighbours",
    summary="Ask for a device's neighbours",
    response_model=NeighboursBody,
    responses={
        **problems.describe(403, 404, 410),
        304: {"description": "The neighbours are still those of the epoch in If-None-Match."},
    },
)
async def neighbours(
    found: Found,
    group: GroupPath,
    who: Member,
    device: DevicePath,
    epoch: Annotated[
        int | None, Query(ge=0, le=MAX_EPOCH, description="an epoch that is still kept; the current one by default")
    ] = None,
    if_none_match: Annotated[str | None, Header(description="the ETag of an answer before")] = None,
) -> Response:
    """Answer a query (M4): the device's neighbours in each tree. The ETag is the epoch."""
    who.check_is(device)
    machine = found.coordinator.group(group)
    # Who asks while a report is being coalesced gets the graph that stands; the push follows.
    check_epoch(machine, epoch)
    body = machine.neighbours(device, epoch)
    return answer(f'"{body.epoch}"', if_none_match, body.model_dump_json)


def _undo(found: Found, group: GroupId, device: DeviceId, join_token: str | None) -> None:
    """Take an enrolment back, and the use of its join token."""
    found.coordinator.apply(group, lambda machine, now, wall: machine.evict(device, now=now, wall=wall))
    if join_token is not None:
        found.coordinator.apply(
            group, lambda machine, now, wall: machine.entrance.give_back_join(join_token, now=now, wall=wall)
        )


def _report(found: Found, group: GroupId, who: Member, device: DeviceId, report: Report) -> Response:
    who.check_is(device)
    found.coordinator.apply(group, lambda machine, now, wall: machine.report(device, report, now=now, wall=wall))
    return Response(status_code=204)


def _state(machine: Group, entry: RosterEntry) -> DeviceState:
    return DeviceState(
        device=entry.device,
        public_key=entry.public_key,
        signing_key=entry.signing_key,
        candidates=entry.candidates,
        mapping=entry.mapping,
        alive=machine.alive(entry.device),
        in_use=machine.is_in_use(entry.device),
    )
