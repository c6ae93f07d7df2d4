from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.events import GraphChanged, LinkChanged
from common.messages import GraphBody, GraphUpdate, NeighboursUpdate, TreeBody, TreeNeighbours
from tests.unit.agent.serving import Served, served


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made:
        yield made


async def test_the_status_joins_what_core_and_shell_say(agent: Served) -> None:
    report = (await agent.client.get("/status")).json()
    assert report["drops"] == {"garbage": 2, "socket-eperm": 1}
    assert (report["device"], report["epoch"], report["attached"]) == ("A", 7, True)


async def test_the_changes_tell_when_links_graph_and_streams_changed(agent: Served) -> None:
    agent.local.changes.on_event(LinkChanged("B", "open"), now=3.0)
    agent.local.changes.on_event(GraphChanged(9, {"throughput": ("B",)}), now=4.0)
    report = (await agent.client.get("/changes")).json()
    assert report.pop("now") > 0.0
    assert report == {
        "links": [{"at": 3.0, "peer": "B", "state": "open"}],
        "graphs": [{"at": 4.0, "epoch": 9, "neighbours": {"throughput": ["B"]}}],
        "streams": {"5a": {"last_at": 7.5, "silences": [[1.0, 2.0]]}},
    }


async def test_there_is_no_graph_before_the_server_spoke(agent: Served) -> None:
    response = await agent.client.get("/graph")
    assert (response.status_code, response.json()["reason"]) == (404, "no-graph")


async def test_the_whole_graph_is_an_adjacency_list(agent: Served) -> None:
    body = GraphBody(
        epoch=9,
        devices=("A", "B", "C"),
        trees=(TreeBody(objective="throughput", edges=(("A", "B"),)),),
    )
    agent.last.note(GraphUpdate(graph=body))
    report = (await agent.client.get("/graph")).json()
    assert (report["scope"], report["epoch"]) == ("graph", 9)
    assert report["trees"][0]["neighbours"] == {"A": ["B"], "B": ["A"], "C": []}
    assert report["trees"][0]["components"] == [["A", "B"], ["C"]]
    assert report["trees"][0]["edges"] == [["A", "B"]]


async def test_with_scope_neighbours_the_device_knows_its_own(agent: Served) -> None:
    tree = TreeNeighbours(objective="throughput", neighbours=("B", "C"))
    agent.last.note(NeighboursUpdate(epoch=9, trees=(tree,)))
    report = (await agent.client.get("/graph")).json()
    assert report["scope"] == "neighbours"
    assert report["trees"] == [{"objective": "throughput", "neighbours": {"A": ["B", "C"]}}]
