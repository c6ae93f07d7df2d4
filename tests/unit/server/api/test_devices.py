from typing import Any

import pytest

from common.limits import MAX_CANDIDATES, MAX_PEERS
from common.messages import ErrorMessage, Subscribe
from common.tokens import hash_token, make_token
from tests.unit.server.api_harness import ADMIN, READER, Api, check_problem
from tests.unit.server.harness import KEY, entropy, key_of

LAB = "/v1/groups/lab/devices"


async def test_a_device_enrols_with_a_join_token(api: Api) -> None:
    answer = await api.call("POST", LAB, {"device": "A", "public_key": KEY, "signing_key": KEY}, token=api.join_token)
    assert answer.status_code == 201
    body = answer.json()
    assert (body["device"], body["group"], body["lease_s"]) == ("A", "lab", 15.0)
    assert body["token"].startswith("A~")
    assert [entry["device"] for entry in body["roster"]["devices"]] == ["A"]
    assert list(body["roster"]["group_keys"]) == ["1"]
    assert [channel["name"] for channel in body["channels"]["channels"]] == ["files", "messages"]


async def test_two_devices_with_one_id_are_a_conflict_and_the_first_is_not_touched(api: Api) -> None:
    await api.enrol("A")
    body = {"device": "A", "public_key": KEY, "signing_key": KEY}
    for token in (api.join_token, "admin~for-tests-only"):
        check_problem(await api.call("POST", LAB, body, token=token), 409, "device-exists")
    assert (await api.call("GET", f"{LAB}/A", token=api.tokens["A"])).status_code == 200


async def test_a_device_enrols_again_with_its_own_token_only(api: Api) -> None:
    await api.enrol("A", "B")
    body = {"device": "A", "public_key": KEY, "signing_key": KEY}
    check_problem(await api.call("POST", LAB, body, token=api.tokens["B"]), 403, "foreign-token")
    answer = await api.call("POST", LAB, body, token=api.tokens["A"])
    assert answer.status_code == 201
    check_problem(await api.call("GET", LAB, token=api.tokens["A"]), 401, "bad-token")
    assert (await api.call("GET", LAB, token=answer.json()["token"])).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"device": "A"},
        {"device": "A", "public_key": "short", "signing_key": "short"},
        {"device": "A", "public_key": "!" * 44, "signing_key": "!" * 44},
        {"device": "a b", "public_key": KEY, "signing_key": KEY},
        {"device": "x" * 65, "public_key": KEY, "signing_key": KEY},
        {"device": None, "public_key": KEY, "signing_key": KEY},
        {"device": "A", "public_key": KEY, "signing_key": KEY, "admin": True},
        [],
        "A",
    ],
)
async def test_an_enrolment_with_a_mistake_is_refused(api: Api, body: Any) -> None:
    problem = check_problem(await api.call("POST", LAB, body, token=api.join_token), 422, "invalid")
    assert problem["errors"][0]["where"].startswith("body")


async def test_devices_are_listed_with_key_addresses_and_lease(api: Api) -> None:
    await api.enrol("A", "B")
    report = {"candidates": ["192.0.2.1:1"], "mapping": "stable"}
    answer = await api.call("PUT", f"{LAB}/A/candidates", report, token=api.tokens["A"])
    assert answer.status_code == 204
    devices = (await api.call("GET", LAB, token=api.tokens["B"])).json()["devices"]
    assert devices == [
        {
            "device": "A",
            "public_key": key_of("A"),
            "signing_key": key_of("A"),
            **report,
            "alive": True,
            "in_use": False,
        },
        {
            "device": "B",
            "public_key": key_of("B"),
            "signing_key": key_of("B"),
            "candidates": [],
            "mapping": "unknown",
            "alive": True,
            "in_use": False,
        },
    ]
    assert (await api.call("GET", f"{LAB}/A")).json() == devices[0]
    check_problem(await api.call("GET", f"{LAB}/Z"), 404, "unknown-device")


async def test_a_list_of_ten_thousand_addresses_is_refused_with_the_limit_and_changes_nothing(api: Api) -> None:
    await api.enrol("A")
    many = [f"192.0.2.1:{port}" for port in range(1, 10_001)]
    answer = await api.call("PUT", f"{LAB}/A/candidates", {"candidates": many}, token=api.tokens["A"])
    problem = check_problem(answer, 422, "invalid")
    assert f"at most {MAX_CANDIDATES} items" in str(problem["errors"])
    assert (await api.call("GET", f"{LAB}/A")).json()["candidates"] == []


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("224.0.0.1:1", "multicast"),
        ("[ff02::1]:1", "multicast"),
        ("0.0.0.0:1", "unspecified"),
        ("[::]:1", "unspecified"),
        ("255.255.255.255:1", "broadcast"),
        ("[fe80::1]:1", "link-local"),
        ("192.0.2.1:0", "port from 1"),
    ],
)
async def test_an_address_at_which_nobody_can_be_is_refused_with_the_reason(api: Api, address: str, why: str) -> None:
    await api.enrol("A")
    answer = await api.call("PUT", f"{LAB}/A/candidates", {"candidates": [address]}, token=api.tokens["A"])
    problem = check_problem(answer, 422, "invalid")
    assert why in str(problem["errors"])


async def test_an_evicted_device_s_token_is_stale_at_once(api: Api) -> None:
    await api.enrol("A", "B")
    assert (await api.call("DELETE", f"{LAB}/A")).status_code == 204
    answer = await api.call("PUT", f"{LAB}/A/adjacency", {"peers": ["B"]}, token=api.tokens["A"])
    check_problem(answer, 401, "bad-token")
    check_problem(await api.call("DELETE", f"{LAB}/A"), 404, "unknown-device")
    assert (await api.call("DELETE", f"{LAB}/B", token=api.tokens["B"])).status_code == 204


async def test_M1_adjacency_to_itself_and_to_strangers_is_refused_by_name(api: Api) -> None:
    await api.enrol("A", "B")
    path, token = f"{LAB}/A/adjacency", api.tokens["A"]
    check_problem(await api.call("PUT", path, {"peers": ["A"]}, token=token), 422, "self-adjacency")
    problem = check_problem(await api.call("PUT", path, {"peers": ["B", "Y", "Z"]}, token=token), 422, "strangers")
    assert problem["detail"] == "not members of the group: Y, Z"
    assert api.coordinator.group("lab").links() == ()
    check_problem(await api.call("PUT", f"{LAB}/Z/adjacency", {"peers": []}), 404, "unknown-device")


@pytest.mark.parametrize(
    "body",
    [
        {"peers": "B"},
        {"peers": ["B", "B"]},
        {"peers": [["B"]]},
        {"peers": [f"d{number}" for number in range(MAX_PEERS + 1)]},
        {"peers": ["B"], "more": 1},
        {"type": "qos", "peers": []},
        {},
    ],
)
async def test_M1_a_wrong_adjacency_is_refused(api: Api, body: Any) -> None:
    await api.enrol("A", "B")
    check_problem(await api.call("PUT", f"{LAB}/A/adjacency", body, token=api.tokens["A"]), 422, "invalid")
    assert api.coordinator.group("lab").links() == ()


@pytest.mark.parametrize("field", ["bandwidth_bps", "delay_s", "jitter_s", "loss"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "-0.1", "1e300", '"1"', "true", "{}"])
async def test_M2_a_figure_that_is_no_figure_is_refused(api: Api, field: str, value: str) -> None:
    await api.enrol("A", "B")
    answer = await api.call(
        "PUT",
        f"{LAB}/A/qos",
        token=api.tokens["A"],
        content=f'{{"links": {{"B": {{"{field}": {value}}}}}}}',
        headers={"Content-Type": "application/json"},
    )
    problem = check_problem(answer, 422, "invalid")
    assert problem["errors"][0]["where"] == f"body.links.B.{field}"


async def test_M2_figures_show_up_in_the_links(api: Api) -> None:
    await api.six()
    links = (await api.call("GET", "/v1/groups/lab/links", token=api.tokens["F"])).json()["links"]
    found = next(link for link in links if link["between"] == ["B", "C"])
    assert found["figures"]["bandwidth_bps"] == 50e6
    assert found["counts"]
    assert found["trees"] == []
    assert next(link for link in links if link["between"] == ["A", "B"])["trees"] == ["throughput"]


async def test_M4_a_query_is_answered_with_the_epoch_as_etag_and_304_when_unchanged(api: Api) -> None:
    await api.six()
    path, token = f"{LAB}/A/neighbours", api.tokens["A"]
    answer = await api.call("GET", path, token=token)
    assert answer.status_code == 200
    epoch = answer.json()["epoch"]
    assert answer.json() == {"epoch": epoch, "trees": [{"objective": "throughput", "neighbours": ["B", "C"]}]}
    assert answer.headers["etag"] == f'"{epoch}"'
    again = await api.call("GET", path, token=token, headers={"If-None-Match": f'"{epoch}"'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == f'"{epoch}"'
    other = await api.call("GET", path, token=token, headers={"If-None-Match": '"1"'})
    assert other.status_code == 200


async def test_M4_a_query_may_name_an_epoch_that_is_kept(api: Api) -> None:
    await api.six()
    old = api.coordinator.group("lab").graph().epoch
    answer = await api.call("PUT", f"{LAB}/C/adjacency", {"peers": ["B", "D"]}, token=api.tokens["C"])
    assert answer.status_code == 204
    path, token = f"{LAB}/A/neighbours", api.tokens["A"]
    now = (await api.call("GET", path, token=token)).json()
    assert now["trees"][0]["neighbours"] == ["B"]
    assert now["epoch"] > old
    before = await api.call("GET", path, token=token, params={"epoch": old})
    assert before.json()["trees"][0]["neighbours"] == ["B", "C"]
    check_problem(await api.call("GET", path, token=token, params={"epoch": 5}), 410, "epoch-gone")
    check_problem(await api.call("GET", path, token=token, params={"epoch": now["epoch"] + 1}), 404, "unknown-epoch")
    check_problem(await api.call("GET", path, token=token, params={"epoch": -1}), 422, "invalid")
    check_problem(await api.call("GET", path, token=token, params={"epoch": 2**53}), 422, "invalid")
    check_problem(await api.call("GET", f"{LAB}/Z/neighbours"), 404, "unknown-device")


async def test_an_enrolment_that_cannot_be_stored_leaves_the_id_free(api: Api) -> None:
    body = {"device": "A", "public_key": KEY, "signing_key": KEY}
    api.store.failing = True
    check_problem(await api.call("POST", LAB, body, token=api.join_token), 503, "store-failed")
    check_problem(await api.call("POST", LAB, body, token=api.join_token), 503, "store-failed")
    api.store.failing = False
    await api.coordinator.settled("lab")
    assert (await api.call("POST", LAB, body, token=api.join_token)).status_code == 201


async def test_a_renewed_enrolment_that_cannot_be_stored_evicts_nobody(api: Api) -> None:
    await api.enrol("A")
    api.store.failing = True
    body = {"device": "A", "public_key": KEY, "signing_key": KEY}
    check_problem(await api.call("POST", LAB, body, token=api.tokens["A"]), 503, "store-failed")
    assert api.coordinator.group("lab").device("A").device == "A"


async def test_a_device_that_lost_the_answer_to_its_enrolment_enrols_again_by_the_token_that_it_made(api: Api) -> None:
    own = make_token("A", entropy(7))
    body = {"device": "A", "public_key": KEY, "signing_key": KEY, "token_hash": hash_token(own)}
    join = (await api.call("POST", "/v1/groups/lab/join-tokens", {"uses": 1})).json()["join_token"]
    lost = await api.call("POST", LAB, body, token=join)
    assert (lost.status_code, lost.json()["token"]) == (201, None)
    # The join token is spent; the device's own proves that it is the one that got in by it.
    check_problem(await api.call("POST", LAB, body, token=join), 401, "bad-token")
    again = await api.call("POST", LAB, body, token=own)
    assert again.status_code == 201
    assert list(again.json()["roster"]["group_keys"]) == ["1"]
    assert (await api.call("GET", f"{LAB}/A", token=own)).status_code == 200
    # Whoever knows the public parts alone is not that device.
    check_problem(await api.call("POST", LAB, body, token=api.join_token), 409, "device-exists")


async def test_a_device_with_its_own_token_stays_a_member_though_the_store_failed(api: Api) -> None:
    own = make_token("A", entropy(7))
    body = {"device": "A", "public_key": KEY, "signing_key": KEY, "token_hash": hash_token(own)}
    api.store.failing = True
    check_problem(await api.call("POST", LAB, body, token=api.join_token), 503, "store-failed")
    api.store.failing = False
    await api.coordinator.settled("lab")
    assert (await api.call("POST", LAB, body, token=own)).status_code == 201


async def test_a_device_s_token_is_changed_and_the_old_one_ends_with_the_first_use_of_the_new(api: Api) -> None:
    await api.enrol("A")
    old, own = api.tokens["A"], make_token("A", entropy(7))
    answer = await api.call("POST", f"{LAB}/A/token", {}, token=old)
    assert (answer.status_code, answer.json()["device"]) == (201, "A")
    made = answer.json()["token"]
    # The answer might have been lost: the device asks again, with one that it made itself.
    answer = await api.call("POST", f"{LAB}/A/token", {"token_hash": hash_token(own)}, token=old)
    assert (answer.status_code, answer.json()["token"]) == (201, None)
    check_problem(await api.call("GET", LAB, token=made), 401, "bad-token")
    assert (await api.call("GET", LAB, token=old)).status_code == 200
    assert (await api.call("GET", LAB, token=own)).status_code == 200
    check_problem(await api.call("GET", LAB, token=old), 401, "bad-token")
    assert (await api.call("GET", LAB, token=own)).status_code == 200


async def test_nobody_but_the_device_itself_changes_its_token(api: Api) -> None:
    await api.enrol("A", "B")
    for token, reason in ((api.tokens["B"], "foreign-token"), (ADMIN, "foreign-token"), (READER, "read-only")):
        check_problem(await api.call("POST", f"{LAB}/A/token", {}, token=token), 403, reason)
    answer = await api.call("POST", f"{LAB}/A/token", {"token_hash": "short"}, token=api.tokens["A"])
    check_problem(answer, 422, "invalid")


async def test_a_device_with_an_agent_is_shown_in_use(api: Api) -> None:
    await api.enrol("A")
    socket = api.socket(api.tokens["A"])
    await socket.accepted()
    socket.send(Subscribe(scope="graph", instance="first"))
    await socket.receive_types(3)
    assert (await api.call("GET", f"{LAB}/A", token=api.tokens["A"])).json()["in_use"] is True
    second = api.socket(api.tokens["A"])
    await second.accepted()
    second.send(Subscribe(scope="graph", instance="second"))
    word = await second.receive()
    assert isinstance(word, ErrorMessage)
    assert word.reason == "device-in-use"
    assert (await second.closed())[1] == "device-in-use"
    await socket.close()
    assert (await api.call("GET", f"{LAB}/A", token=api.tokens["A"])).json()["in_use"] is False
