"""The graph and the links it was made from (M3, M13)."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from common.errors import RefusedError
from common.fields import Name
from common.ids import ID_PATTERN, ChannelId, DeviceId
from common.limits import MAX_EPOCH
from common.messages import GraphBody, Message, QosFigures
from server.api import problems
from server.api.access import Found, GroupPath, Member
from server.api.conditional import answer, check_epoch
from server.api.formats import DOT, MERMAID, WRITERS, AdjacencyList, AdjacencyMatrix, NodeLink, Oriented
from server.core.flapping import WITHIN_S
from server.core.group import Group

router = APIRouter(prefix="/v1/groups/{group}", tags=["graph"])


class Link(Message):
    """One link that at least one end reports, or that is held down."""

    between: tuple[Name, Name]
    counts: bool = Field(description="both ends report it and have reported lately: the planner looks at it")
    trees: tuple[Name, ...] = Field(description="the objectives of the trees that hold it")
    figures: QosFigures = Field(description="the worse of what the two ends say, figure by figure")
    forward: QosFigures | None = Field(description="what the first end says; null if nothing")
    backward: QosFigures | None = Field(description="what the second end says; null if nothing")
    held_until: float | None = Field(
        description="unix seconds until which it is taken only where there is no other way, because it comes and goes"
    )
    held_reason: str | None = Field(description="why that is so; null if it is not")


class LinkList(Message):
    """All links."""

    epoch: int
    links: tuple[Link, ...]


@router.get(
    "/graph",
    summary="Show the graph",
    response_model=GraphBody | Oriented | AdjacencyList | AdjacencyMatrix | NodeLink,
    responses={
        200: {
            "description": "The graph; the form follows `format` and `root`.",
            "content": {DOT: {"schema": {"type": "string"}}, MERMAID: {"schema": {"type": "string"}}},
        },
        304: {"description": "The graph is still that of the ETag in If-None-Match."},
        **problems.describe(404, 410),
    },
)
async def show(
    found: Found,
    group: GroupPath,
    _who: Member,
    form: Annotated[
        Literal["json", "list", "matrix", "node-link", "dot", "mermaid"],
        Query(alias="format", description="how to write it; all but json write one tree"),
    ] = "json",
    root: Annotated[
        DeviceId | None, Query(pattern=ID_PATTERN, description="the source from which the tree is seen", examples=["A"])
    ] = None,
    channel: Annotated[
        ChannelId | None,
        Query(pattern=ID_PATTERN, description="show the tree that carries this channel", examples=["files"]),
    ] = None,
    epoch: Annotated[
        int | None, Query(ge=0, le=MAX_EPOCH, description="an epoch that is still kept; the current one by default")
    ] = None,
    if_none_match: Annotated[str | None, Header(description="the ETag of an answer before")] = None,
) -> Response:
    """Show the current graph, or a kept one. Devices that nobody can reach are listed as components of their own."""
    machine = found.coordinator.group(group)
    check_epoch(machine, epoch)
    graph = machine.graph(epoch)
    tree = None if channel is None else graph.tree_for(_objective(machine, channel))
    if root is not None and root not in graph.devices:
        raise RefusedError("unknown-device", f"device {root!r} is not in the graph of epoch {graph.epoch}")
    write, media_type = WRITERS[form]
    etag = f'"{graph.epoch}.{form}.{"all" if tree is None else tree}.{root or ""}"'
    return answer(etag, if_none_match, lambda: write(graph, tree, root), media_type)


@router.get("/links", summary="List the links", responses=problems.describe(404))
async def links(found: Found, group: GroupPath, _who: Member) -> LinkList:
    """List every link that at least one end reports, or that is held down, with what is known about it."""
    machine = found.coordinator.group(group)
    graph = machine.graph()
    edges = {tree.objective: dict.fromkeys(tree.edges) for tree in graph.trees}
    return LinkList(
        epoch=graph.epoch,
        links=tuple(
            Link(
                between=link.key,
                counts=link.counts,
                trees=tuple(objective for objective, found_in in edges.items() if link.key in found_in),
                figures=link.figures,
                forward=link.forward,
                backward=link.backward,
                held_until=None if link.held is None else found.coordinator.unix_time(link.held.until),
                held_reason=None if link.held is None else _reason(link.held.times),
            )
            for link in machine.links()
        ),
    )


def _reason(times: int) -> str:
    return f"lost again within {WITHIN_S:.0f} s; held down {times} time{'s' if times > 1 else ''} lately"


def _objective(machine: Group, name: ChannelId) -> str:
    for channel in machine.channels().channels:
        if channel.name == name:
            return channel.objective
    raise RefusedError("unknown-channel", f"the group has no channel {name!r}")
