import pytest

from tests.unit.server.api_harness import ADMIN, Api, check_problem
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
