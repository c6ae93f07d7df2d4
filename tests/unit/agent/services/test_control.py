import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from agent.core.events import ControlFailed, QueryGraph, QueryNeighbours
from agent.services import control as control_module
from agent.services.control import ControlClient, Outbox
from agent.services.control_rest import NoAccess, RestClient, WrongServer
from agent.services.identity import Identity
from agent.services.pinning import WrongCertificate
from agent.services.rotation import TokenRotation
from common.messages import (
    AdjacencyReport,
    EnrolmentAnswer,
    ErrorMessage,
    QosFigures,
    QosReport,
    Subscribe,
    Unchanged,
    encode_message,
)
from common.tokens import hash_token
from tests.unit.agent.fakes import FakeListener, NoWaits
from tests.unit.agent.services.test_control_rest import ANSWER, NEIGHBOURS, Handler, problem
from tests.unit.agent.services.test_control_rest import Server as RestServer

IDENTITY = Identity("lab", "A", bytes(range(32)), "device-token")
SUBSCRIBE = Subscribe(scope="graph", epoch=None)
Serve = Callable[[ServerConnection], Awaitable[None]]


class Rig:
    """A control client between a listener and a server on loopback."""

    def __init__(self, port: int, sockets: "Sockets", rest: RestServer) -> None:
        self.sockets = sockets
        self.rest = rest
        self.listener = FakeListener()
        self.client = ControlClient(
            f"http://127.0.0.1:{port}",
            RestClient(
                f"http://127.0.0.1:{port}",
                IDENTITY,
                loopback=True,
                transport=httpx.MockTransport(rest),
            ),
            listener=self.listener,
            rng=NoWaits(),
            loopback=True,
        )
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.client.run(), name="control")

    async def hear(self) -> Any:
        return await asyncio.wait_for(self.listener.heard.get(), 5)

    async def failure(self) -> BaseException:
        assert self.task is not None
        done, _ = await asyncio.wait([self.task], timeout=5)
        assert done
        error = self.task.exception()
        assert error is not None
        return error


class Sockets:
    """The server's side of the subscription: a test takes each connection as it comes."""

    def __init__(self) -> None:
        self.opened: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.reject: HTTPStatus | None = None
        self.before: Callable[[], None] = lambda: None
        self.requests: asyncio.Queue[Request] = asyncio.Queue()

    async def serve(self, connection: ServerConnection) -> None:
        self.opened.put_nowait(connection)
        await connection.wait_closed()

    def process(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.put_nowait(request)
        self.before()
        return connection.respond(self.reject, "no") if self.reject else None

    async def take(self) -> ServerConnection:
        return await asyncio.wait_for(self.opened.get(), 5)


async def receive(connection: ServerConnection) -> dict[str, Any]:
    message = json.loads(await asyncio.wait_for(connection.recv(), 5))
    assert isinstance(message, dict)
    return message


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    sockets = Sockets()
    server: Server = await serve(sockets.serve, "127.0.0.1", 0, process_request=sockets.process, close_timeout=0.1)
    port = next(iter(server.sockets)).getsockname()[1]
    made = Rig(port, sockets, RestServer())
    yield made
    if made.task is not None:
        made.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, NoAccess):
            await made.task
    await made.client.close()
    server.close()
    await server.wait_closed()


async def test_the_subscription_is_the_first_message_whatever_the_core_asks_first(rig: Rig) -> None:
    def ask() -> None:
        rig.client.request(AdjacencyReport(peers=("B",)))
        rig.client.request(SUBSCRIBE)

    rig.listener.on_connected = ask
    rig.start()
    connection = await rig.sockets.take()
    assert (await receive(connection))["type"] == "subscribe"
    assert (await receive(connection))["type"] == "adjacency"
    assert rig.client.attached
    request = rig.sockets.requests.get_nowait()
    assert request.headers["Authorization"] == "Bearer device-token"
    assert request.path == "/v1/groups/lab/subscribe"


async def test_what_the_server_says_is_heard_in_order(rig: Rig) -> None:
    rig.start()
    connection = await rig.sockets.take()
    for epoch in (1, 2):
        await connection.send(encode_message(Unchanged(epoch=epoch)))
    heard = [await rig.hear() for _ in range(3)]
    assert heard == ["connected", Unchanged(epoch=1), Unchanged(epoch=2)]


async def test_a_message_that_cannot_be_read_is_passed_over(rig: Rig) -> None:
    rig.start()
    connection = await rig.sockets.take()
    for text in ("{", '{"type": "news from the future"}', encode_message(Unchanged(epoch=1))):
        await connection.send(text)
    assert [await rig.hear() for _ in range(2)] == ["connected", Unchanged(epoch=1)]


async def test_reports_travel_on_the_socket_while_it_is_up(rig: Rig) -> None:
    rig.listener.on_connected = lambda: rig.client.request(SUBSCRIBE)
    rig.start()
    connection = await rig.sockets.take()
    await receive(connection)
    rig.client.request(QosReport(links={"B": QosFigures(loss=0.5)}))
    assert (await receive(connection))["links"]["B"]["loss"] == 0.5
    assert rig.rest.requests == []


async def test_a_lost_connection_is_told_and_made_again(rig: Rig) -> None:
    rig.start()
    for _ in range(3):
        connection = await rig.sockets.take()
        assert await rig.hear() == "connected"
        await connection.close()
        assert await rig.hear() == "lost"
        assert not rig.client.attached


async def test_without_a_subscription_reports_go_by_rest(rig: Rig) -> None:
    done = asyncio.Event()

    def answer(_: httpx.Request) -> httpx.Response:
        done.set()
        return httpx.Response(204)

    rig.rest.answer = answer
    # The core reports when it is told of the socket, but does not subscribe (all of its channels query).
    rig.listener.on_connected = lambda: rig.client.request(AdjacencyReport(peers=("B",)))
    rig.start()
    await rig.sockets.take()
    await asyncio.wait_for(done.wait(), 5)
    assert rig.rest.last.url.path == "/v1/groups/lab/devices/A/adjacency"


async def test_a_report_that_fails_is_told(rig: Rig) -> None:
    rig.sockets.reject = HTTPStatus.SERVICE_UNAVAILABLE
    rig.rest.answer = problem(409, "stranger", "device 'Z' is no member")
    report = AdjacencyReport(peers=("Z",))
    rig.client.request(report)
    rig.start()
    failed = await rig.hear()
    assert isinstance(failed, ControlFailed)
    assert failed.request == report
    assert "is no member" in failed.reason


async def test_a_subscription_without_a_socket_waits_for_the_next_time(rig: Rig) -> None:
    rig.client.request(SUBSCRIBE)
    rig.start()
    await rig.sockets.take()
    assert await rig.hear() == "connected"
    assert not rig.client.attached


async def test_a_query_is_answered(rig: Rig) -> None:
    rig.rest.answer = lambda _: httpx.Response(200, content=NEIGHBOURS.model_dump_json())
    rig.start()
    assert await rig.hear() == "connected"
    rig.client.request(QueryNeighbours())
    assert await rig.hear() == NEIGHBOURS


async def test_a_query_that_fails_is_told_with_its_reason(rig: Rig) -> None:
    rig.rest.answer = problem(404, "stale-epoch", "epoch 3 is not kept any more")
    rig.start()
    assert await rig.hear() == "connected"
    rig.client.request(QueryNeighbours(3))
    failed = await rig.hear()
    assert failed == ControlFailed(QueryNeighbours(3), "stale-epoch: epoch 3 is not kept any more")


async def test_too_many_queries_fail_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(control_module.QUERIES_WAITING + 1):
        rig.client.request(QueryGraph())
    failed = await rig.hear()
    assert failed == ControlFailed(QueryGraph(), "64 queries are waiting already")


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
async def test_a_device_that_the_server_refuses_ends(rig: Rig, status: HTTPStatus) -> None:
    rig.sockets.reject = status
    rig.start()
    error = await rig.failure()
    assert isinstance(error, NoAccess)
    assert "does not accept device 'A' of group 'lab' any more" in error.detail


async def test_a_server_that_is_not_ready_is_tried_again(rig: Rig) -> None:
    rig.sockets.reject = HTTPStatus.SERVICE_UNAVAILABLE
    rig.start()
    for _ in range(3):
        await asyncio.wait_for(rig.sockets.requests.get(), 5)
    rig.sockets.reject = None
    assert await rig.hear() == "connected"


async def test_an_evicted_device_ends_with_the_servers_words(rig: Rig) -> None:
    rig.start()
    connection = await rig.sockets.take()
    message = ErrorMessage(reason="evicted", detail="device 'A' was evicted")
    await connection.send(encode_message(message))
    error = await rig.failure()
    assert isinstance(error, NoAccess)
    assert (error.reason, "was evicted" in error.detail) == ("evicted", True)


async def test_a_close_reason_that_means_no_access_ends(rig: Rig) -> None:
    rig.start()
    connection = await rig.sockets.take()
    await connection.close(1008, "evicted")
    error = await rig.failure()
    assert isinstance(error, NoAccess)
    assert error.reason == "evicted"


async def test_a_closing_for_another_reason_is_no_eviction(rig: Rig) -> None:
    rig.start()
    connection = await rig.sockets.take()
    await connection.close(1008, "malformed")
    await rig.sockets.take()


async def test_a_slow_subscriber_that_is_closed_comes_back(rig: Rig) -> None:
    rig.start()
    connection = await rig.sockets.take()
    await connection.send(encode_message(ErrorMessage(reason="slow", detail="outbox full")))
    await connection.close(1013, "slow")
    await rig.sockets.take()


@pytest.mark.parametrize("ask", [QueryGraph(), AdjacencyReport(peers=("B",))])
async def test_a_token_that_rest_refuses_ends(rig: Rig, ask: Any) -> None:
    rig.rest.answer = problem(401, "unauthorized", "unknown token")
    rig.client.request(ask)
    rig.start()
    error = await rig.failure()
    assert isinstance(error, NoAccess)
    assert "unknown token" in error.detail


async def test_a_server_that_takes_nothing_loses_the_connection(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(control_module, "SEND_S", 0.001)
    monkeypatch.setattr(ClientConnection, "send", hang)
    rig.listener.on_connected = lambda: rig.client.request(SUBSCRIBE)
    rig.start()
    assert [await rig.hear() for _ in range(2)] == ["connected", "lost"]


async def enrol(rig: Rig, keep: Callable[[Identity], None]) -> EnrolmentAnswer:
    return await rig.client.enrol("join-token", keep=keep, entropy=bytes, wall=lambda: 1_000.0)


async def test_enrolment_waits_for_a_server_that_is_not_there_yet(rig: Rig) -> None:
    answers: Iterator[Handler] = iter(
        [
            problem(503, "starting", "soon"),
            lambda _: httpx.Response(200, content=b"not an answer"),
            lambda _: httpx.Response(201, content=ANSWER.model_dump_json()),
        ]
    )
    greeting = problem(404, "not-found", "no such thing here")
    rig.rest.answer = lambda request: (greeting if request.url.path == "/v1" else next(answers))(request)
    kept: list[Identity] = []
    assert await enrol(rig, kept.append) == ANSWER
    # Made and kept before the server hears of it, the same at every try, and the one that counts once it took it.
    first, last = kept
    assert first.next_token is not None
    assert first.next_token.startswith("A~")
    assert (last.token, last.next_token, last.token_made) == (first.next_token, None, 1_000.0)
    sent = [request for request in rig.rest.requests if request.url.path != "/v1"]
    hashes = {json.loads(request.content)["token_hash"] for request in sent}
    assert hashes == {hash_token(first.next_token)}
    assert len(sent) == 3
    assert rig.client.identity == last


async def test_an_enrolment_that_a_restart_cut_short_goes_on_with_the_token_that_was_kept(rig: Rig) -> None:
    rig.client._rest.identity = rig.client.identity.prepared("A~kept")
    rig.rest.answer = lambda _: httpx.Response(201, content=ANSWER.model_dump_json())
    kept: list[Identity] = []
    await enrol(rig, kept.append)
    assert [identity.token for identity in kept] == ["A~kept"]


async def test_an_enrolment_at_another_server_is_not_tried_again(rig: Rig) -> None:
    def wrong(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no") from WrongCertificate(bytes(32), bytes(32))

    rig.rest.answer = wrong
    with pytest.raises(WrongServer, match="this is not the server that it joined"):
        await enrol(rig, lambda _: None)
    assert len(rig.rest.requests) == 1


async def test_enrolment_that_is_declined_is_not_tried_again(rig: Rig) -> None:
    rig.rest.answer = problem(409, "device-exists", "device 'A' is enrolled already")
    with pytest.raises(NoAccess):
        await enrol(rig, lambda _: None)
    assert [request.headers["authorization"] for request in rig.rest.requests if request.url.path != "/v1"] == [
        "Bearer join-token",
        f"Bearer {rig.client.identity.next_token}",
    ]


async def test_a_device_that_the_server_cannot_do_with_does_not_enrol(rig: Rig) -> None:
    rig.rest.answer = problem(400, "other-version", "update the device")
    with pytest.raises(NoAccess, match="other-version: update the device"):
        await enrol(rig, lambda _: None)
    assert [request.url.path for request in rig.rest.requests] == ["/v1"]


async def test_a_subscription_names_the_version_and_a_refusal_of_it_is_told_and_tried_again(rig: Rig) -> None:
    rig.sockets.reject = HTTPStatus.BAD_REQUEST
    rig.start()
    request = await asyncio.wait_for(rig.sockets.requests.get(), 5)
    assert request.headers["Arborcast-Version"] == "1"
    await asyncio.wait_for(rig.sockets.requests.get(), 5)
    assert rig.client.trouble == "it answers 400: Bad Request"


async def test_a_second_agent_waits_for_the_first_and_ends_if_it_lasts(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = ErrorMessage(reason="device-in-use", detail="another agent runs as device 'A'")
    rig.start()
    rig.listener.on_connected = lambda: rig.client.request(SUBSCRIBE)
    instances = set()
    for _ in range(2):
        connection = await rig.sockets.take()
        instances.add((await receive(connection))["instance"])
        await connection.send(encode_message(word))
        await connection.close()
    assert len(instances) == 1
    connection = await rig.sockets.take()
    await connection.send(encode_message(Unchanged(epoch=1)))
    await connection.send(encode_message(word))
    await connection.close()
    monkeypatch.setattr("agent.services.rival.WAIT_S", 0.0)
    connection = await rig.sockets.take()
    await connection.send(encode_message(word))
    failure = await rig.failure()
    assert isinstance(failure, NoAccess)
    assert failure.reason == "device-in-use"
    assert "does not accept device 'A' of group 'lab' any more: another agent runs as" in failure.detail


async def test_a_start_asks_whether_another_agent_runs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.rest.answer = lambda _: httpx.Response(200, json={"in_use": True})
    monkeypatch.setattr("agent.services.rival.WAIT_S", 0.0)
    with pytest.raises(NoAccess, match="another agent runs as device 'A' of group 'lab'"):
        await rig.client.await_alone()


async def test_the_date_of_the_subscription_tells_the_clock(rig: Rig) -> None:
    rig.start()
    await rig.sockets.take()
    assert await rig.hear() == "connected"
    assert rig.client.clock.skew_s is not None
    assert abs(rig.client.clock.skew_s) < 60


async def test_of_each_kind_of_report_the_newest_waits() -> None:
    outbox = Outbox()
    outbox.put(AdjacencyReport(peers=("B",)))
    outbox.put(AdjacencyReport(peers=("B", "C")))
    outbox.put(QosReport(links={"B": QosFigures(loss=0.1), "C": QosFigures(loss=0.2)}))
    outbox.put(QosReport(links={"B": QosFigures(loss=0.3)}))
    outbox.put(SUBSCRIBE)
    assert await outbox.get() == SUBSCRIBE
    assert await outbox.get() == AdjacencyReport(peers=("B", "C"))
    merged = await outbox.get()
    assert isinstance(merged, QosReport)
    assert {peer: link.loss for peer, link in merged.links.items()} == {"B": 0.3, "C": 0.2}


async def test_merged_reports_stay_within_their_limit() -> None:
    outbox = Outbox()
    outbox.put(QosReport(links={f"old{n}": QosFigures() for n in range(200)}))
    outbox.put(QosReport(links={f"new{n}": QosFigures() for n in range(200)}))
    merged = await outbox.get()
    assert isinstance(merged, QosReport)
    assert len(merged.links) == 256
    assert all(f"new{n}" in merged.links for n in range(200))


async def test_the_token_is_changed_beside_everything_else(rig: Rig) -> None:
    rig.client._rotation = TokenRotation(
        rig.client._rest, keep=lambda _: None, rng=NoWaits(), wall=lambda: 0.0, entropy=bytes, every_s=1e-3
    )
    asked = asyncio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/groups/lab/devices/A/token"
        asked.set()
        return httpx.Response(201, content=b"{}")

    rig.rest.answer = answer
    rig.start()
    await asyncio.wait_for(asked.wait(), 5)


async def test_a_server_with_another_certificate_is_an_error_in_the_log_and_waited_out(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = asyncio.Event()

    async def connect(*_: object, **__: object) -> None:
        tried.set()
        raise WrongCertificate(bytes(32), bytes(range(32)))

    monkeypatch.setattr(control_module, "connect", connect)
    rig.start()
    await asyncio.wait_for(tried.wait(), 5)
    await asyncio.sleep(0)
    (record, *_) = [record for record in caplog.records if "not attached" in record.getMessage()]
    assert record.levelname == "ERROR"
    assert bytes(range(32)).hex() in record.getMessage()


async def test_a_subscription_that_is_declined_for_a_token_changed_meanwhile_is_tried_again(rig: Rig) -> None:
    identity = rig.client.identity

    def decline_once() -> None:
        first = rig.client.identity is identity
        rig.sockets.reject = HTTPStatus.UNAUTHORIZED if first else None
        rig.client._rest.identity = identity.prepared("A~new").confirmed(made=0.0)

    rig.sockets.before = decline_once
    rig.start()
    assert await rig.hear() == "connected"
    shown = [(await rig.sockets.requests.get()).headers["Authorization"] for _ in range(2)]
    assert shown == ["Bearer device-token", "Bearer A~new"]
