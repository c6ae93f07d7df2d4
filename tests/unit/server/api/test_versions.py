from common.messages import Subscribe
from tests.unit.server.api_harness import Api, check_problem

HEADER = "Arborcast-Version"


async def test_anybody_may_ask_for_the_versions(api: Api) -> None:
    answer = await api.call("GET", "/v1", token=None)
    assert answer.status_code == 200
    assert {name: answer.json()[name] for name in ("api", "oldest_api")} == {"api": 1, "oldest_api": 1}


async def test_every_answer_names_the_server_s_version(api: Api) -> None:
    for path, status in (("/healthz", 200), ("/v1/groups/lab/graph", 200), ("/nowhere", 404)):
        answer = await api.call("GET", path)
        assert (answer.status_code, answer.headers[HEADER]) == (status, "1")


async def test_a_device_of_another_version_is_told_so_whatever_it_asks(api: Api) -> None:
    for path in ("/v1", "/v1/groups/lab/graph", "/healthz"):
        answer = await api.call("GET", path, headers={HEADER: "2"})
        problem = check_problem(answer, 400, "other-version")
        assert "update the server" in problem["detail"]
        assert answer.headers[HEADER] == "1"
        check_problem(await api.call("GET", path, headers={HEADER: "two"}), 400, "malformed")
    assert (await api.call("GET", "/v1/groups/lab/graph", headers={HEADER: "1"})).status_code == 200
    assert 'reason="other-version"} 3.0' in (await api.call("GET", "/metrics")).text


async def test_a_subscription_of_another_version_is_denied(api: Api) -> None:
    await api.enrol("A")
    socket = api.socket(api.tokens["A"], headers={HEADER: "2"})
    start = await socket.event()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 400)
    assert (HEADER.lower().encode(), b"1") in start["headers"]
    assert b"update the server" in (await socket.event())["body"]


async def test_a_subscription_of_this_version_is_told_the_server_s(api: Api) -> None:
    await api.enrol("A")
    socket = api.socket(api.tokens["A"], headers={HEADER: "1"})
    accepted = await socket.event()
    assert accepted["type"] == "websocket.accept"
    assert (HEADER.lower().encode(), b"1") in accepted["headers"]
    socket.send(Subscribe(scope="graph"))
    assert (await socket.receive()).type == "graph"
    await socket.close()
