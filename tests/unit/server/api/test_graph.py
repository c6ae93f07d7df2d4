import time

import pytest

from server.core.flapping import FIRST_S
from tests.unit.server.api_harness import Api, check_problem

PATH = "/v1/groups/lab/graph"
EDGES = [["A", "B"], ["A", "C"], ["B", "E"], ["C", "D"], ["D", "F"]]


async def test_M3_any_member_may_see_the_graph(api: Api) -> None:
    await api.six()
    for token in (api.tokens["F"], "admin~for-tests-only"):
        body = (await api.call("GET", PATH, token=token)).json()
        assert body["devices"] == ["A", "B", "C", "D", "E", "F"]
        assert body["trees"] == [
            {"objective": "throughput", "edges": EDGES, "components": [["A", "B", "C", "D", "E", "F"]]}
        ]


async def test_a_graph_is_304_when_the_client_has_that_form_of_it(api: Api) -> None:
    await api.six()
    etags = []
    for params in ({}, {"root": "A"}, {"format": "matrix"}, {"channel": "files"}):
        etag = (await api.call("GET", PATH, params=params)).headers["etag"]
        assert (await api.call("GET", PATH, params=params, headers={"If-None-Match": etag})).status_code == 304
        etags.append(etag)
    assert len(set(etags)) == 4
    assert (await api.call("GET", PATH, headers={"If-None-Match": etags[1]})).status_code == 200


async def test_a_kept_epoch_is_shown_and_one_that_is_not_is_a_problem(api: Api) -> None:
    await api.six()
    epoch = api.coordinator.group("lab").graph().epoch
    await api.call("PUT", "/v1/groups/lab/devices/C/adjacency", {"peers": ["B", "D"]})
    assert (await api.call("GET", PATH, params={"epoch": epoch})).json()["trees"][0]["edges"] == EDGES
    assert (await api.call("GET", PATH)).json()["trees"][0]["edges"] != EDGES
    check_problem(await api.call("GET", PATH, params={"epoch": 1}), 410, "epoch-gone")
    check_problem(await api.call("GET", PATH, params={"epoch": 2**53 - 1}), 404, "unknown-epoch")


async def test_a_channel_chooses_the_tree_that_carries_it(api: Api) -> None:
    await api.six()
    spec = {"name": "chat", "kind": "message", "objective": "latency"}
    assert (await api.call("PUT", "/v1/groups/lab/channels/chat", spec)).status_code == 200
    whole = (await api.call("GET", PATH)).json()
    assert [tree["objective"] for tree in whole["trees"]] == ["throughput", "latency"]
    one = (await api.call("GET", PATH, params={"channel": "chat"})).json()
    assert one["trees"] == [whole["trees"][1]]
    check_problem(await api.call("GET", PATH, params={"channel": "nothing"}), 404, "unknown-channel")


@pytest.mark.parametrize("form", ["json", "list", "matrix", "dot", "mermaid"])
async def test_a_root_that_is_no_device_is_a_problem(api: Api, form: str) -> None:
    await api.six()
    answer = await api.call("GET", PATH, params={"root": "Z", "format": form})
    check_problem(answer, 404, "unknown-device")


async def test_a_form_that_is_unknown_is_refused_with_those_that_are(api: Api) -> None:
    problem = check_problem(await api.call("GET", PATH, params={"format": "svg"}), 422, "invalid")
    assert "mermaid" in problem["detail"]


async def test_links_of_a_group_without_any_are_an_empty_list(api: Api) -> None:
    body = (await api.call("GET", "/v1/groups/lab/links")).json()
    assert body["links"] == []
    assert body["epoch"] == api.coordinator.group("lab").graph().epoch


async def test_a_link_that_comes_and_goes_is_shown_as_held_down(api: Api) -> None:
    await api.six()
    path, token = "/v1/groups/lab/devices/C/adjacency", api.tokens["C"]
    for peers in (["B", "D"], ["A", "B", "D"]) * 2:
        assert (await api.call("PUT", path, {"peers": peers}, token=token)).status_code == 204
    links = {tuple(link["between"]): link for link in (await api.call("GET", "/v1/groups/lab/links")).json()["links"]}
    assert links["A", "C"]["counts"]
    assert 0 < links["A", "C"]["held_until"] - time.time() <= FIRST_S
    assert links["A", "C"]["held_reason"] == "lost again within 60 s; held down 1 time lately"
    assert (links["A", "B"]["held_until"], links["A", "B"]["held_reason"]) == (None, None)
