import asyncio
import json

import pytest

from common.limits import EPOCH_CLAIM_AHEAD_S, MAX_BODY_BYTES, MAX_CANDIDATES, SUBSCRIBER_OUTBOX
from common.messages import (
    Accepted,
    AdjacencyReport,
    CandidatesReport,
    EpochUpdate,
    ErrorMessage,
    GraphUpdate,
    NeighboursUpdate,
    QosFigures,
    QosReport,
    Subscribe,
    Unchanged,
)
from server.api import subscribe as module
from server.services import sessions
from tests.unit.server.api_harness import ADMIN, Api, until
from tests.unit.server.harness import SIX_TREE

SCOPES = ("graph", "neighbours", "roster")


async def cut_c_from_a(api: Api) -> None:
    answer = await api.call("PUT", "/v1/groups/lab/devices/C/adjacency", {"peers": ["B", "D"]})
    assert answer.status_code == 204


@pytest.mark.parametrize("scope", SCOPES)
async def test_M5_the_answer_is_the_state_the_roster_and_the_channels(api: Api, scope: str) -> None:
    await api.six()
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    socket.send(Subscribe.model_validate({"scope": scope}))
    expected = ([] if scope == "roster" else [scope]) + ["roster", "channels"]
    assert await socket.receive_types(len(expected)) == expected
    await socket.close()
    assert len(api.coordinator.sessions) == 0
    assert api.coordinator.group("lab").subscriber_count() == 0


async def test_M5_scope_graph_is_pushed_the_new_graph(api: Api) -> None:
    await api.six()
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    socket.send(Subscribe(scope="graph"))
    first = await socket.receive()
    assert isinstance(first, GraphUpdate)
    assert first.graph.trees[0].edges == SIX_TREE
    await socket.receive_types(2)
    await cut_c_from_a(api)
    second = await socket.receive()
    assert isinstance(second, GraphUpdate)
    assert ("B", "C") in second.graph.trees[0].edges
    assert second.graph.epoch > first.graph.epoch
    await socket.close()


async def test_M5_scope_neighbours_is_pushed_its_list_where_it_changed_else_the_epoch(api: Api) -> None:
    await api.six()
    sockets = [api.socket(api.tokens[device]) for device in "AF"]
    for socket in sockets:
        await socket.accepted()
        socket.send(Subscribe(scope="neighbours"))
        await socket.receive_types(3)
    await cut_c_from_a(api)
    changed = await sockets[0].receive()
    assert isinstance(changed, NeighboursUpdate)
    assert changed.trees[0].neighbours == ("B",)
    assert await sockets[1].receive() == EpochUpdate(epoch=changed.epoch)
    for socket in sockets:
        await socket.close()


@pytest.mark.parametrize("scope", ["graph", "neighbours"])
async def test_M5_who_resumes_with_the_current_epoch_hears_unchanged(api: Api, scope: str) -> None:
    await api.six()
    epoch = api.coordinator.group("lab").graph().epoch
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    socket.send(Subscribe.model_validate({"scope": scope, "epoch": epoch}))
    assert await socket.receive() == Unchanged(epoch=epoch)
    await socket.close()


async def test_M5_who_resumes_with_an_old_epoch_gets_those_it_passed_over(api: Api) -> None:
    await api.six()
    seen = api.coordinator.group("lab").graph().epoch
    await cut_c_from_a(api)
    between = api.coordinator.group("lab").graph().epoch
    await api.call("PUT", "/v1/groups/lab/devices/F/adjacency", {"peers": []})
    for scope in ("graph", "neighbours"):
        socket = api.socket(api.tokens["A"])
        await socket.accepted()
        socket.send(Subscribe.model_validate({"scope": scope, "epoch": seen}))
        update = await socket.receive()
        assert isinstance(update, GraphUpdate | NeighboursUpdate)
        assert [passed.epoch for passed in update.passed] == [between]
        await socket.close()


async def test_an_epoch_claimed_too_far_ahead_is_refused_and_counted(api: Api) -> None:
    await api.six()
    group = api.coordinator.group("lab")
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    socket.send(Subscribe(scope="graph", epoch=group.graph().epoch + int(2 * EPOCH_CLAIM_AHEAD_S * 1e6)))
    error = await socket.receive()
    assert isinstance(error, ErrorMessage)
    assert error.reason == "epoch-ahead"
    assert await socket.closed() == (1008, "epoch-ahead")
    assert group.counts["claims_refused"] == 1


async def test_a_list_of_ten_thousand_addresses_is_refused_over_the_socket_with_the_limit(api: Api) -> None:
    await api.enrol("A")
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    socket.send(Subscribe(scope="roster"))
    await socket.receive_types(2)
    many = tuple(f"192.0.2.1:{port}" for port in range(1, 10_001))
    socket.send(CandidatesReport.model_construct(candidates=many))
    error = await socket.receive()
    assert isinstance(error, ErrorMessage)
    assert f"at most {MAX_CANDIDATES} items" in error.detail
    assert api.coordinator.group("lab").device("A").candidates == ()
    await socket.close()


async def test_reports_are_taken_over_the_socket(api: Api) -> None:
    await api.enrol("A", "B")
    for device, peer in ("AB", "BA"):
        socket = api.socket(api.tokens[device])
        await socket.accepted()
        socket.send(Subscribe(scope="roster"))
        await socket.receive_types(2)
        socket.send(AdjacencyReport(peers=(peer,)))
        socket.send(QosReport(links={peer: QosFigures(bandwidth_bps=5e6)}))
        socket.send(CandidatesReport(candidates=("192.0.2.1:1",)))
        accepted: list[str] = []
        while len(accepted) < 3:
            message = await socket.receive()
            if isinstance(message, Accepted):
                accepted.append(message.of)
        assert accepted == ["adjacency", "qos", "candidates"]
        await socket.close()
    (link,) = api.coordinator.group("lab").links()
    assert link.counts
    assert link.figures.bandwidth_bps == 5e6


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("{", "malformed"),
        (b"\x00\xff", "malformed"),
        (b"", "malformed"),
        ('{"type": "adjacency", "peers": "B"}', "malformed"),
        ('{"type": "qos", "links": {"B": {"loss": NaN}}}', "malformed"),
        (" " * (MAX_BODY_BYTES + 1), "malformed"),
        ('{"type": "adjacency", "peers": ["A"]}', "self-adjacency"),
        ('{"type": "adjacency", "peers": ["Z"]}', "strangers"),
    ],
)
async def test_a_mistake_is_answered_and_the_socket_stays_open(api: Api, data: str | bytes, reason: str) -> None:
    await api.enrol("A", "B")
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    socket.send(Subscribe(scope="roster"))
    await socket.receive_types(2)
    socket.send(data)
    message = await socket.receive()
    while not isinstance(message, ErrorMessage):
        message = await socket.receive()
    assert message.reason == reason
    socket.send(AdjacencyReport(peers=("B",)))
    assert await socket.receive() == Accepted(of="adjacency")
    await socket.close()


async def test_another_subscription_takes_the_place_of_the_one_before(api: Api) -> None:
    await api.six()
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    socket.send(Subscribe(scope="roster"))
    await socket.receive_types(2)
    socket.send(Subscribe(scope="neighbours"))
    assert await socket.receive_types(3) == ["neighbours", "roster", "channels"]
    assert api.coordinator.group("lab").subscriber_count() == 1
    await socket.close()


async def test_the_administrator_sees_the_graph_but_no_keys_and_reports_nothing(api: Api) -> None:
    await api.six()
    socket = api.socket(ADMIN)
    await socket.accepted()
    socket.send(Subscribe(scope="graph"))
    assert (await socket.receive()).type == "graph"
    socket.send(AdjacencyReport(peers=("B",)))
    error = await socket.receive()
    assert isinstance(error, ErrorMessage)
    assert error.reason == "no-device"
    await socket.close()
    socket = api.socket(ADMIN)
    await socket.accepted()
    socket.send(Subscribe(scope="neighbours"))
    assert isinstance(await socket.receive(), ErrorMessage)
    assert await socket.closed() == (1008, "no-device")


@pytest.mark.parametrize(
    ("token", "group", "status", "reason"),
    [
        (None, "lab", 401, "no-token"),
        ("x", "lab", 401, "bad-token"),
        ("x", "nowhere", 401, "bad-token"),
        (ADMIN, "nowhere", 404, "unknown-group"),
    ],
)
async def test_who_may_not_subscribe_gets_a_problem_instead_of_a_socket(
    api: Api, token: str | None, group: str, status: int, reason: str
) -> None:
    socket = api.socket(token, group)
    start, body = await socket.event(), await socket.event()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert (b"content-type", b"application/problem+json") in start["headers"]
    assert json.loads(body["body"])["reason"] == reason


@pytest.mark.parametrize("data", ["{", '{"type": "adjacency", "peers": []}', b"\xff"])
async def test_a_first_message_that_is_no_subscribe_ends_the_socket(api: Api, data: str | bytes) -> None:
    await api.enrol("A")
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    socket.send(data)
    assert isinstance(await socket.receive(), ErrorMessage)
    assert await socket.closed() == (1008, "malformed")


async def test_who_says_nothing_is_not_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_MESSAGE_S", 0.01)
    await api.enrol("A")
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    error = await socket.receive()
    assert isinstance(error, ErrorMessage)
    assert "no 'subscribe' came" in error.detail
    assert await socket.closed() == (1008, "malformed")


async def test_who_leaves_before_the_first_message_leaves_nothing_behind(api: Api) -> None:
    await api.enrol("A")
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    await socket.close()
    assert len(api.coordinator.sessions) == 0


async def test_an_evicted_device_is_told_and_closed(api: Api) -> None:
    await api.six()
    socket = api.socket(api.tokens["C"])
    await socket.accepted()
    socket.send(Subscribe(scope="graph"))
    await socket.receive_types(3)
    assert (await api.call("DELETE", "/v1/groups/lab/devices/C")).status_code == 204
    error = await socket.receive()
    assert isinstance(error, ErrorMessage)
    assert error.reason == "evicted"
    assert await socket.closed() == (1008, "evicted")
    metrics = (await api.call("GET", "/metrics")).text
    assert 'arborcast_subscriptions_closed_total{reason="evicted"} 1.0' in metrics


async def test_a_subscriber_that_does_not_read_is_closed_as_slow(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SLOW_SUBSCRIBER_S", 0.05)
    monkeypatch.setattr(module, "_FAREWELL_S", 0.05)
    await api.six()
    slow, quick = api.socket(api.tokens["A"]), api.socket(api.tokens["B"])
    for socket in (slow, quick):
        await socket.accepted()
        socket.send(Subscribe(scope="graph"))
        await socket.receive_types(3)
    slow.readable.clear()
    for _ in range(SUBSCRIBER_OUTBOX * 3):
        slow.send(QosReport(links={}))
    await cut_c_from_a(api)
    assert (await quick.receive()).type == "graph"
    await until(lambda: len(api.coordinator.sessions) == 1)
    assert api.coordinator.group("lab").subscriber_count() == 1
    metrics = (await api.call("GET", "/metrics")).text
    assert 'arborcast_subscriptions_closed_total{reason="slow"} 1.0' in metrics
    slow.readable.set()
    await asyncio.sleep(0)
    await quick.close()


async def test_a_slow_subscriber_that_reads_at_last_hears_why(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SLOW_SUBSCRIBER_S", 0.05)
    await api.six()
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    socket.readable.clear()
    socket.send(Subscribe(scope="graph"))
    await until(lambda: len(api.coordinator.sessions) == 1)
    await until(lambda: len(api.coordinator.sessions) == 0)
    socket.readable.set()
    assert await socket.closed() == (1013, "slow")
