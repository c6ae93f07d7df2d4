"""What the agent is doing, and the graph it works by."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from fastapi.encoders import jsonable_encoder

from agent.api.local import Local
from agent.api.problems import Problem
from common.messages import GraphUpdate

router = APIRouter(tags=["status"])


@router.get("/status")
async def status(local: Local) -> dict[str, Any]:
    """Show links, streams, drops and queries."""
    report: dict[str, Any] = jsonable_encoder(local.driver.status())
    shell: dict[str, Any] = jsonable_encoder(local.shell_status())
    report["drops"] = {**report.get("drops", {}), **shell.pop("drops", {})}
    return {**report, **shell}


@router.get("/changes")
async def changes(local: Local) -> dict[str, Any]:
    """Show when links and graph changed lately, and when each stream brought something new."""
    report: dict[str, Any] = jsonable_encoder(
        {
            "now": local.driver.now,
            "links": local.changes.links,
            "graphs": local.changes.graphs,
            "streams": local.driver.arrivals(),
        }
    )
    return report


@router.get("/graph")
async def graph(local: Local) -> dict[str, Any]:
    """Show the graph as this agent knows it: each device with its neighbours, or its own neighbours alone."""
    last = local.last.graph
    if last is None:
        raise Problem(HTTPStatus.NOT_FOUND, "no-graph", "no graph has come from the server yet")
    if isinstance(last, GraphUpdate):
        whole = last.graph.to_graph()
        return {
            "scope": "graph",
            "epoch": whole.epoch,
            "devices": list(whole.devices),
            "trees": [
                {
                    "objective": tree.objective,
                    "edges": [list(edge) for edge in tree.edges],
                    "neighbours": whole.adjacency_list(index),
                    "components": whole.components(index),
                }
                for index, tree in enumerate(whole.trees)
            ],
        }
    return {
        "scope": "neighbours",
        "epoch": last.epoch,
        "devices": list(local.last.members()),
        "trees": [
            {"objective": tree.objective, "neighbours": {local.device: list(tree.neighbours)}} for tree in last.trees
        ],
    }
