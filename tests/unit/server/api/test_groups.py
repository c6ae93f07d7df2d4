import pytest

from common.limits import MAX_JOIN_TOKENS
from tests.unit.server.api_harness import Api, check_problem
from tests.unit.server.harness import KEY, key_of


async def test_a_group_is_made_with_a_join_token_and_listed(api: Api) -> None:
    body = {"group": "other", "channels": [{"name": "chat", "kind": "message", "objective": "latency"}]}
    answer = await api.call("POST", "/v1/groups", body)
    assert answer.status_code == 201
    assert answer.json()["group"] == "other"
    assert answer.json()["join_token"].startswith("join~")
    groups = (await api.call("GET", "/v1/groups")).json()["groups"]
    assert [(group["group"], group["devices"], group["links"], group["subscribers"]) for group in groups] == [
        ("lab", 0, 0, 0),
        ("other", 0, 0, 0),
    ]


async def test_a_group_that_exists_is_a_conflict(api: Api) -> None:
    check_problem(await api.call("POST", "/v1/groups", {"group": "lab"}), 409, "group-exists")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"group": "no spaces"},
        {"group": 7},
        {"group": "x", "more": 1},
        {"group": "x", "channels": [{"name": "a", "kind": "file"}, {"name": "a", "kind": "message"}]},
        {"group": "x", "channels": [{"name": "a", "kind": "live"}]},
    ],
)
async def test_a_group_with_a_mistake_is_refused(api: Api, body: dict[str, object]) -> None:
    check_problem(await api.call("POST", "/v1/groups", body), 422, "invalid")
    assert len(api.coordinator.groups()) == 1


async def test_join_tokens_are_made_used_and_voided(api: Api) -> None:
    token = (await api.call("POST", "/v1/groups/lab/join-tokens")).json()["join_token"]
    body = {"device": "A", "public_key": KEY, "signing_key": KEY}
    assert (await api.call("POST", "/v1/groups/lab/devices", body, token=token)).status_code == 201
    assert (await api.call("DELETE", "/v1/groups/lab/join-tokens")).status_code == 204
    body = {"device": "B", "public_key": KEY, "signing_key": KEY}
    for stale in (token, api.join_token):
        check_problem(await api.call("POST", "/v1/groups/lab/devices", body, token=stale), 401, "bad-token")
    check_problem(await api.call("POST", "/v1/groups/nowhere/join-tokens"), 404, "unknown-group")


async def test_join_tokens_have_a_limit(api: Api) -> None:
    for _ in range(MAX_JOIN_TOKENS - 1):
        assert (await api.call("POST", "/v1/groups/lab/join-tokens")).status_code == 201
    check_problem(await api.call("POST", "/v1/groups/lab/join-tokens"), 409, "too-many-join-tokens")


async def test_a_group_that_cannot_be_stored_is_a_503(api: Api) -> None:
    api.store.failing = True
    answer = await api.call("POST", "/v1/groups", {"group": "other"})
    check_problem(answer, 503, "store-failed")
    assert answer.headers["retry-after"] == "1"


async def test_a_join_token_is_made_on_terms_listed_without_itself_and_made_void_by_its_id(api: Api) -> None:
    path = "/v1/groups/lab/join-tokens"
    terms = {"expires_s": 60.0, "uses": 1, "note": "for one host"}
    made = (await api.call("POST", path, terms)).json()
    answer = await api.call("GET", path)
    first, listed = answer.json()["join_tokens"]
    assert made["join_token"] not in answer.text
    assert (listed["id"], listed["uses_left"], listed["note"]) == (made["id"], 1, "for one host")
    assert listed["expires"] == pytest.approx(listed["created"] + 60.0)
    assert (first["expires"], first["uses_left"], first["note"]) == (None, None, "")
    body = {"device": "A", "public_key": KEY, "signing_key": KEY}
    assert (await api.call("POST", "/v1/groups/lab/devices", body, token=made["join_token"])).status_code == 201
    body = {"device": "B", "public_key": key_of("B"), "signing_key": key_of("B")}
    check_problem(await api.call("POST", "/v1/groups/lab/devices", body, token=made["join_token"]), 401, "bad-token")
    assert [found["id"] for found in (await api.call("GET", path)).json()["join_tokens"]] == [first["id"]]
    assert (await api.call("DELETE", f"{path}/{first['id']}")).status_code == 204
    check_problem(await api.call("DELETE", f"{path}/{first['id']}"), 404, "unknown-join-token")
    check_problem(await api.call("DELETE", f"{path}/first"), 422, "invalid")
    check_problem(await api.call("POST", "/v1/groups/lab/devices", body, token=api.join_token), 401, "bad-token")
    assert (await api.call("GET", path)).json() == {"join_tokens": []}


@pytest.mark.parametrize(
    "terms",
    [
        {"expires_s": 0},
        {"expires_s": 1e12},
        {"uses": 0},
        {"uses": 1.5},
        {"uses": 10**7},
        {"note": "x" * 201},
        {"note": None},
        {"token": "join~mine"},
    ],
)
async def test_terms_with_a_mistake_are_refused(api: Api, terms: dict[str, object]) -> None:
    check_problem(await api.call("POST", "/v1/groups/lab/join-tokens", terms), 422, "invalid")


async def test_an_enrolment_that_cannot_be_stored_gives_its_use_of_the_join_token_back(
    api: Api,
) -> None:
    token = (await api.call("POST", "/v1/groups/lab/join-tokens", {"uses": 1})).json()["join_token"]
    body = {"device": "A", "public_key": KEY, "signing_key": KEY}
    api.store.failing = True
    check_problem(await api.call("POST", "/v1/groups/lab/devices", body, token=token), 503, "store-failed")
    api.store.failing = False
    await api.coordinator.settled("lab")
    assert (await api.call("POST", "/v1/groups/lab/devices", body, token=token)).status_code == 201
