from tests.unit.server.api_harness import READER, Api, check_problem


async def test_a_server_that_lives_and_can_store_says_so(api: Api) -> None:
    for path in ("/healthz", "/readyz"):
        answer = await api.call("GET", path, token=None)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_a_server_that_cannot_store_is_alive_but_not_ready(api: Api) -> None:
    api.store.failing = True
    await api.call("POST", "/v1/groups/lab/join-tokens")
    check_problem(await api.call("GET", "/readyz", token=None), 503, "store-failed")
    assert (await api.call("GET", "/healthz", token=None)).status_code == 200


async def test_the_counters_are_shown_in_prometheus_text_form(api: Api) -> None:
    await api.six()
    await api.call("GET", "/v1/groups/lab/graph", token="x")
    answer = await api.call("GET", "/metrics", token=READER)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in (
        "arborcast_groups 1.0",
        "arborcast_devices 6.0",
        "arborcast_links 6.0",
        'arborcast_events_total{event="reports_qos"} 6.0',
        'arborcast_refusals_total{reason="bad-token"} 1.0',
    ):
        assert line in lines
    assert "lab" not in answer.text


async def test_the_counters_are_for_whoever_may_look_at_the_whole_server(api: Api) -> None:
    await api.enrol("A")
    assert (await api.call("GET", "/metrics")).status_code == 200
    check_problem(await api.call("GET", "/metrics", token=None), 401, "no-token")
    check_problem(await api.call("GET", "/metrics", token="x"), 401, "bad-token")
    for token in (api.tokens["A"], api.join_token):
        check_problem(await api.call("GET", "/metrics", token=token), 403, "admin-only")
