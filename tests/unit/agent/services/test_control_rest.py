import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from agent.core.events import QueryGraph, QueryNeighbours
from agent.services.control_rest import NoAccess, RestClient, WrongServer
from agent.services.identity import Identity
from agent.services.pinning import WrongCertificate
from common.errors import ConfigError, ConnectError, RefusedError, RemoteProtocolError
from common.fields import encode_key
from common.limits import MAX_CONTROL_BYTES
from common.messages import (
    AdjacencyReport,
    Channels,
    EnrolmentAnswer,
    GraphBody,
    NeighboursBody,
    Roster,
    TreeBody,
    TreeNeighbours,
)
from common.tokens import hash_token

IDENTITY = Identity("lab", "A", bytes(range(32)), "device-token", "A~to-come")
KEY = encode_key(bytes(32))
NEIGHBOURS = NeighboursBody(epoch=5, trees=(TreeNeighbours(objective="throughput", neighbours=("B",)),))
GRAPH = GraphBody(epoch=5, devices=("A", "B"), trees=(TreeBody(objective="throughput", edges=(("A", "B"),)),))
ANSWER = EnrolmentAnswer(
    device="A",
    token="device-token",
    group="lab",
    roster=Roster(version=1, devices=(), key_epoch=0, group_keys={0: KEY}),
    channels=Channels(version=1, channels=()),
    lease_s=15.0,
)
Handler = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answers requests with what a test says, and keeps them."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answer: Handler = lambda _: httpx.Response(204)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)

    @property
    def last(self) -> httpx.Request:
        return self.requests[-1]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[RestClient]:
    made = RestClient("http://127.0.0.1:8640/", IDENTITY, loopback=True, transport=httpx.MockTransport(server))
    yield made
    await made.close()


def problem(status: int, reason: str, detail: str) -> Handler:
    body = json.dumps({"reason": reason, "detail": detail, "status": status})
    return lambda _: httpx.Response(status, content=body)


async def test_enrolment_shows_the_join_token_and_both_keys(client: RestClient, server: Server) -> None:
    server.answer = lambda _: httpx.Response(201, content=ANSWER.model_dump_json())
    assert await client.enrol("join-token") == ANSWER
    assert server.last.method == "POST"
    assert server.last.url.path == "/v1/groups/lab/devices"
    assert server.last.headers["authorization"] == "Bearer join-token"
    assert json.loads(server.last.content) == {
        "device": "A",
        "public_key": encode_key(IDENTITY.public_key),
        "signing_key": encode_key(IDENTITY.signing_key),
        "token_hash": hash_token("A~to-come"),
    }


async def test_every_request_names_the_version(client: RestClient, server: Server) -> None:
    await client.report(AdjacencyReport(peers=()))
    assert server.last.headers["arborcast-version"] == "1"


async def test_whether_another_agent_runs_as_this_device_is_asked_of_the_server(
    client: RestClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for body, in_use in (({"device": "A", "in_use": True, "more": 1}, True), ({"device": "A"}, False)):
        server.answer = lambda _, body=body: httpx.Response(200, json=body)  # type: ignore[misc]
        assert await client.is_in_use() is in_use
    assert (server.last.method, server.last.url.path) == ("GET", "/v1/groups/lab/devices/A")
    server.answer = problem(404, "unknown-device", "no")
    with pytest.raises(RefusedError, match="unknown-device"):
        await client.is_in_use()
    monkeypatch.setattr("agent.services.control_rest.LOOK_S", 0.0)
    server.answer = lambda _: asyncio.sleep(5)  # type: ignore[assignment, return-value]
    with pytest.raises(ConnectError, match="does not answer within 0 s"):
        await client.is_in_use()


async def test_a_server_of_another_version_or_time_is_found_out_before_the_enrolment(
    client: RestClient, server: Server
) -> None:
    await client.greet("join-token")
    assert (server.last.method, server.last.url.path) == ("GET", "/v1")
    assert server.last.headers["authorization"] == "Bearer join-token"
    server.answer = problem(404, "not-found", "a server from before there were versions")
    await client.greet("join-token")
    server.answer = problem(400, "other-version", "update the device")
    with pytest.raises(NoAccess) as caught:
        await client.greet("join-token")
    assert (caught.value.reason, caught.value.detail) == ("other-version", "update the device")
    server.answer = lambda _: httpx.Response(200, headers={"Date": "Mon, 01 Jan 2024 00:00:00 GMT"})
    with pytest.raises(NoAccess, match=r"clock-wrong: this device's clock is .* d ahead of the server's"):
        await client.greet("join-token")


async def test_an_enrolment_whose_answer_was_lost_is_taken_up_by_the_device_s_own_token(
    client: RestClient, server: Server
) -> None:
    for reason in ("bad-token", "device-exists"):

        def answer(request: httpx.Request, reason: str = reason) -> httpx.Response:
            if request.headers["authorization"] == "Bearer A~to-come":
                return httpx.Response(201, content=ANSWER.model_dump_json())
            return problem(409, reason, "not by this")(request)

        server.answer = answer
        assert await client.enrol("join-token") == ANSWER
    assert len(server.requests) == 4
    server.answer = problem(403, "read-only", "this token is for looking only")
    with pytest.raises(NoAccess, match="for looking only"):
        await client.enrol("reader-token")
    assert len(server.requests) == 5


async def test_a_change_of_token_shows_the_old_one_and_the_hash_of_the_new(client: RestClient, server: Server) -> None:
    await client.rotate_token()
    assert (server.last.method, server.last.url.path) == ("POST", "/v1/groups/lab/devices/A/token")
    assert server.last.headers["authorization"] == "Bearer device-token"
    assert json.loads(server.last.content) == {"token_hash": hash_token("A~to-come")}
    server.answer = problem(401, "bad-token", "unknown token")
    with pytest.raises(NoAccess, match="unknown token"):
        await client.rotate_token()


async def test_another_server_than_the_one_trusted_is_told_from_one_that_is_gone(
    client: RestClient, server: Server
) -> None:
    def wrong(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no") from WrongCertificate(bytes(32), bytes(range(32)))

    server.answer = wrong
    with pytest.raises(WrongServer, match=bytes(range(32)).hex()):
        await client.rotate_token()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
async def test_an_enrolment_that_is_declined_says_why(client: RestClient, server: Server, status: int) -> None:
    server.answer = problem(status, "device-exists", "device 'A' is enrolled already")
    with pytest.raises(NoAccess) as caught:
        await client.enrol("join-token")
    assert (caught.value.reason, caught.value.detail) == (
        "device-exists",
        "device 'A' is enrolled already",
    )


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_that_cannot_answer_now_may_be_asked_again(
    client: RestClient, server: Server, status: int
) -> None:
    server.answer = problem(status, "busy", "later")
    for ask in (client.enrol("t"), client.query(QueryGraph()), client.report(AdjacencyReport(peers=()))):
        with pytest.raises(ConnectError, match="cannot answer now: later"):
            await ask


async def test_a_server_that_is_gone_is_an_error_of_the_connection(client: RestClient, server: Server) -> None:
    def gone(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    server.answer = gone
    with pytest.raises(ConnectError, match="connection refused"):
        await client.query(QueryGraph())


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"\xff", b"<html>"])
async def test_an_answer_that_is_none_is_an_error(client: RestClient, server: Server, content: bytes) -> None:
    server.answer = lambda _: httpx.Response(200, content=content)
    for ask in (client.enrol("t"), client.query(QueryGraph()), client.query(QueryNeighbours())):
        with pytest.raises(RemoteProtocolError, match="what is no"):
            await ask


async def test_a_query_for_neighbours_names_the_device_and_the_epoch(client: RestClient, server: Server) -> None:
    server.answer = lambda _: httpx.Response(200, content=NEIGHBOURS.model_dump_json())
    assert await client.query(QueryNeighbours(5)) == NEIGHBOURS
    assert server.last.url.path == "/v1/groups/lab/devices/A/neighbours"
    assert server.last.url.params["epoch"] == "5"
    assert server.last.headers["authorization"] == "Bearer device-token"
    await client.query(QueryNeighbours())
    assert "epoch" not in server.last.url.params


async def test_a_query_for_the_graph_gets_the_graph(client: RestClient, server: Server) -> None:
    server.answer = lambda _: httpx.Response(200, content=GRAPH.model_dump_json())
    assert await client.query(QueryGraph()) == GRAPH
    assert server.last.url.path == "/v1/groups/lab/graph"


async def test_an_unchanged_answer_is_taken_from_memory(client: RestClient, server: Server) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers.get("if-none-match") == '"5"':
            return httpx.Response(304, headers={"ETag": '"5"'})
        return httpx.Response(200, content=NEIGHBOURS.model_dump_json(), headers={"ETag": '"5"'})

    server.answer = answer
    assert await client.query(QueryNeighbours()) == NEIGHBOURS
    assert await client.query(QueryNeighbours()) == NEIGHBOURS
    assert "if-none-match" in server.last.headers
    await client.query(QueryNeighbours(5))
    assert "if-none-match" not in server.last.headers


async def test_remembered_answers_are_bounded(client: RestClient, server: Server) -> None:
    server.answer = lambda _: httpx.Response(200, content=NEIGHBOURS.model_dump_json(), headers={"ETag": '"5"'})
    for epoch in range(100):
        await client.query(QueryNeighbours(epoch))
    assert len(client._kept) == 64


@pytest.mark.parametrize("status", [401, 403])
async def test_a_device_that_is_no_member_any_more_is_told(client: RestClient, server: Server, status: int) -> None:
    server.answer = problem(status, "unauthorized", "unknown token")
    for ask in (client.query(QueryGraph()), client.report(AdjacencyReport(peers=("B",)))):
        with pytest.raises(NoAccess, match="unknown token"):
            await ask


async def test_a_refusal_without_a_problem_body_is_still_said(client: RestClient, server: Server) -> None:
    server.answer = lambda _: httpx.Response(404, content=b"not json")
    with pytest.raises(RefusedError) as caught:
        await client.query(QueryNeighbours(1))
    assert (caught.value.reason, caught.value.detail) == ("http-404", "Not Found")


async def test_a_report_goes_to_the_devices_own_resource(client: RestClient, server: Server) -> None:
    await client.report(AdjacencyReport(peers=("B",)))
    assert server.last.method == "PUT"
    assert server.last.url.path == "/v1/groups/lab/devices/A/adjacency"
    assert json.loads(server.last.content)["peers"] == ["B"]


async def test_authorities_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot use the authorities"):
        RestClient("https://h", IDENTITY, loopback=False, ca_file=tmp_path / "none.pem")


async def test_a_server_that_was_restored_is_shown_the_token_before_once(client: RestClient, server: Server) -> None:
    client.identity = client.identity.prepared("A~new").confirmed(made=0.0)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] == "Bearer device-token":
            return httpx.Response(204)
        return problem(401, "bad-token", "unknown token")(request)

    server.answer = answer
    with pytest.raises(ConnectError, match="the one before is tried next"):
        await client.report(AdjacencyReport(peers=()))
    await client.report(AdjacencyReport(peers=()))
    server.answer = problem(401, "bad-token", "unknown token")
    with pytest.raises(NoAccess, match="unknown token"):
        await client.report(AdjacencyReport(peers=()))


async def test_a_token_that_is_changed_while_a_request_is_under_way_is_no_refusal(
    client: RestClient, server: Server
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        client.identity = client.identity.confirmed(made=0.0)
        return problem(401, "bad-token", "unknown token")(request)

    server.answer = answer
    with pytest.raises(ConnectError, match="token was changed meanwhile"):
        await client.query(QueryGraph())


async def test_an_answer_may_have_its_most_bytes_and_no_more_however_it_is_packed(
    server: Server, client: RestClient
) -> None:
    text = NEIGHBOURS.model_dump_json()
    whole = text + " " * (MAX_CONTROL_BYTES - len(text))
    server.answer = lambda _: httpx.Response(200, content=whole)
    assert await client.query(QueryNeighbours()) == NEIGHBOURS
    packed = gzip.compress((whole + " ").encode())
    assert len(packed) < MAX_CONTROL_BYTES // 100
    server.answer = lambda _: httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=packed)
    with pytest.raises(RemoteProtocolError, match=f"more than {MAX_CONTROL_BYTES} bytes"):
        await client.query(QueryNeighbours())
    server.answer = lambda _: httpx.Response(
        200, headers={"Content-Encoding": "gzip"}, content=gzip.compress(text.encode())
    )
    assert await client.query(QueryNeighbours()) == NEIGHBOURS
