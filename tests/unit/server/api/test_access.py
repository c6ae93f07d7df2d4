import pytest

from common.messages import GraphUpdate, Subscribe
from server.core.failures import FailureLimit
from tests.unit.server.api_harness import ADMIN, READER, Api, Socket, check_problem, serving
from tests.unit.server.harness import KEY


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "admin~for-tests-only"])
async def test_a_request_without_a_token_is_told_what_to_send(api: Api, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = await api.client.get("/v1/groups/lab/graph", headers=headers)
    problem = check_problem(answer, 401, "no-token")
    assert "Authorization: Bearer TOKEN" in problem["detail"]
    assert answer.headers["www-authenticate"] == 'Bearer realm="arborcast"'


@pytest.mark.parametrize("token", ["x", "A~x", "join~x", "admin~x", "y" * 5_000])
async def test_a_token_that_proves_nothing_is_refused(api: Api, token: str) -> None:
    await api.enrol("A")
    check_problem(await api.call("GET", "/v1/groups/lab/graph", token=token), 401, "bad-token")
    check_problem(
        await api.call(
            "POST", "/v1/groups/lab/devices", {"device": "B", "public_key": KEY, "signing_key": KEY}, token=token
        ),
        401,
        "bad-token",
    )


async def test_names_of_groups_are_not_for_strangers(api: Api) -> None:
    known = await api.call("GET", "/v1/groups/lab/graph", token="x")
    unknown = await api.call("GET", "/v1/groups/nowhere/graph", token="x")
    assert known.json() == unknown.json()
    enrolment = {"device": "A", "public_key": KEY, "signing_key": KEY}
    check_problem(
        await api.call("POST", "/v1/groups/nowhere/devices", enrolment, token=api.join_token), 401, "bad-token"
    )
    check_problem(await api.call("GET", "/v1/groups/nowhere/graph"), 404, "unknown-group")
    check_problem(await api.call("POST", "/v1/groups/nowhere/devices", enrolment), 404, "unknown-group")


async def test_a_device_may_not_report_for_another(api: Api) -> None:
    await api.enrol("A", "B")
    for path, body in [
        ("adjacency", {"peers": ["B"]}),
        ("qos", {"links": {}}),
        ("candidates", {"candidates": []}),
    ]:
        answer = await api.call("PUT", f"/v1/groups/lab/devices/A/{path}", body, token=api.tokens["B"])
        check_problem(answer, 403, "foreign-token")
    check_problem(
        await api.call("GET", "/v1/groups/lab/devices/A/neighbours", token=api.tokens["B"]), 403, "foreign-token"
    )
    check_problem(await api.call("DELETE", "/v1/groups/lab/devices/A", token=api.tokens["B"]), 403, "foreign-token")
    assert api.coordinator.group("lab").links() == ()


async def test_a_token_of_another_group_is_worth_nothing_here(api: Api) -> None:
    await api.call("POST", "/v1/groups", {"group": "other"})
    await api.enrol("A")
    check_problem(await api.call("GET", "/v1/groups/other/graph", token=api.tokens["A"]), 401, "bad-token")


async def test_a_join_token_opens_nothing_but_enrolment(api: Api) -> None:
    check_problem(await api.call("GET", "/v1/groups/lab/graph", token=api.join_token), 401, "bad-token")
    check_problem(await api.call("GET", "/v1/groups", token=api.join_token), 403, "admin-only")


@pytest.mark.parametrize("token", ["x", "A~x", "join~x", "y" * 5_000])
async def test_a_token_that_proves_nothing_is_refused_where_the_administrator_s_is_wanted(api: Api, token: str) -> None:
    await api.enrol("A")
    check_problem(await api.call("GET", "/v1/groups", token=token), 401, "bad-token")
    for group in ("lab", "nowhere"):
        answer = await api.call("POST", f"/v1/groups/{group}/join-tokens", token=token)
        check_problem(answer, 401, "bad-token")
    answer = await api.call("POST", "/v1/groups/nowhere/join-tokens", token=api.tokens["A"])
    check_problem(answer, 401, "bad-token")
    check_problem(await api.call("POST", "/v1/groups/lab/join-tokens", token=api.tokens["A"]), 403, "admin-only")


async def test_the_administrator_may_do_what_a_device_may(api: Api) -> None:
    await api.enrol("A", "B")
    answer = await api.call("PUT", "/v1/groups/lab/devices/A/adjacency", {"peers": ["B"]}, token=ADMIN)
    assert answer.status_code == 204
    answer = await api.call("GET", "/v1/groups/lab/devices/A/neighbours", token=ADMIN)
    assert answer.status_code == 200


async def test_the_scheme_is_compared_without_case(api: Api) -> None:
    answer = await api.client.get("/v1/groups", headers={"Authorization": f"bearer {ADMIN}"})
    assert answer.status_code == 200


async def test_a_reader_looks_at_a_group_and_at_nothing_secret(api: Api) -> None:
    await api.six()
    for path in ("graph", "links", "devices", "devices/A", "channels"):
        answer = await api.call("GET", f"/v1/groups/lab/{path}", token=READER)
        assert answer.status_code == 200, path
        assert "group_keys" not in answer.text
        assert "~" not in answer.text
    check_problem(await api.call("GET", "/v1/groups/nowhere/graph", token=READER), 404, "unknown-group")
    for method, path, body in (
        ("GET", "/v1/groups", None),
        ("POST", "/v1/groups", {"group": "x"}),
        ("GET", "/v1/groups/lab/join-tokens", None),
        ("POST", "/v1/groups/lab/join-tokens", None),
        ("DELETE", "/v1/groups/lab/join-tokens", None),
        ("PUT", "/v1/groups/lab/channels/x", {"name": "x", "kind": "file"}),
        ("DELETE", "/v1/groups/lab/channels/files", None),
    ):
        check_problem(await api.call(method, path, body, token=READER), 403, "admin-only")
    requests: list[tuple[str, str, object]] = [
        ("POST", "", {"device": "G", "public_key": KEY, "signing_key": KEY}),
        ("DELETE", "/A", None),
        ("PUT", "/A/adjacency", {"peers": []}),
        ("PUT", "/A/qos", {"links": {}}),
        ("PUT", "/A/candidates", {"candidates": []}),
        ("GET", "/A/neighbours", None),
    ]
    for method, path, sent in requests:
        check_problem(await api.call(method, f"/v1/groups/lab/devices{path}", sent, token=READER), 403, "read-only")


async def test_a_server_without_a_reader_takes_nobody_for_one(api: Api) -> None:
    from dataclasses import replace

    api.app.state.backend = replace(api.app.state.backend, read_token_hash=None)
    check_problem(await api.call("GET", "/v1/groups/lab/graph", token=READER), 401, "bad-token")


async def test_a_reader_follows_the_graph_and_cannot_raise_its_epoch(api: Api) -> None:
    await api.six()
    epoch = api.coordinator.group("lab").graph().epoch
    socket = api.socket(READER)
    await socket.accepted()
    socket.send(Subscribe(scope="graph", epoch=epoch + 1_000_000))
    message = await socket.receive()
    assert isinstance(message, GraphUpdate)
    assert message.graph.epoch == epoch == api.coordinator.group("lab").graph().epoch
    socket.send(Subscribe(scope="graph", epoch=epoch))
    assert (await socket.receive()).type == "unchanged"
    socket.send(Subscribe(scope="neighbours"))
    assert (await socket.receive()).model_dump()["reason"] == "no-device"
    socket.send('{"type": "adjacency", "peers": []}')
    message = await socket.receive()
    assert "this is the reader's token" in message.model_dump()["detail"]
    # Members and keys are for devices.
    await api.call("DELETE", "/v1/groups/lab/devices/F")
    assert (await socket.receive()).type == "graph"
    await socket.close()


async def test_an_address_that_shows_many_bad_tokens_is_put_off_and_nobody_with_a_good_one(api: Api) -> None:
    path = "/v1/groups/lab/graph"
    async with serving(FailureLimit(at_once=3, every_s=1_000.0)) as strict:
        for number in range(3):
            check_problem(await strict.call("GET", path, token=f"guess{number}"), 401, "bad-token")
        body = {"device": "A", "public_key": KEY, "signing_key": KEY}
        for method, where in (
            ("GET", path),
            ("GET", "/metrics"),
            ("GET", "/v1/groups"),
            ("POST", "/v1/groups/lab/devices"),
        ):
            answer = await strict.call(method, where, body if method == "POST" else None, token="guess")
            problem = check_problem(answer, 429, "too-many-failures")
            assert 0 < int(answer.headers["retry-after"]) <= 1_000
            assert "guess" not in problem["detail"]
        socket = strict.socket("guess")
        event = await socket.event()
        assert (event["type"], event["status"]) == ("websocket.http.response.start", 429)
        assert b"retry-after" in dict(event["headers"])
        assert (await socket.event())["type"] == "websocket.http.response.body"
        await socket._task
        await strict.enrol("A")
        assert (await strict.call("GET", path, token=strict.tokens["A"])).status_code == 200
        text = (await strict.call("GET", "/metrics")).text
        assert 'arborcast_refusals_total{reason="too-many-failures"} 5.0' in text
        # Who sends no token at all guesses at nothing.
        check_problem(await strict.call("GET", path, token=None), 401, "no-token")


async def test_a_client_without_an_address_is_counted_as_one(api: Api) -> None:
    class Nameless(Socket):
        async def _serve(self, app: object, scope: dict[str, object]) -> None:
            await super()._serve(app, {**scope, "client": None})  # type: ignore[arg-type]

    socket = Nameless(api.app, "/v1/groups/lab/subscribe", "x")
    assert (await socket.event())["status"] == 401
    await socket.event()
    await socket._task
