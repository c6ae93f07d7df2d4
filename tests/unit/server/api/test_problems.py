import pytest

from common.limits import MAX_BODY_BYTES
from server.services.coordinator import Coordinator
from tests.unit.server.api_harness import Api, check_problem

JSON = {"Content-Type": "application/json"}


async def test_an_address_that_leads_nowhere_is_a_problem(api: Api) -> None:
    check_problem(await api.call("GET", "/v1/nothing"), 404, "not-found")


async def test_a_method_that_will_not_do_is_told_which_would(api: Api) -> None:
    answer = await api.call("PATCH", "/v1/groups")
    check_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, POST"
    answer = await api.call("POST", "/v1/groups/lab/devices/A/qos")
    assert (answer.status_code, answer.headers["allow"]) == (405, "PUT")


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"[" * 5_000, b"nonsense"])
async def test_a_body_that_is_no_json_is_malformed(api: Api, body: bytes) -> None:
    await api.enrol("A")
    answer = await api.call("PUT", "/v1/groups/lab/devices/A/adjacency", content=body, headers=JSON)
    assert answer.status_code in (400, 422)
    check_problem(answer, answer.status_code, "malformed" if answer.status_code == 400 else "invalid")


async def test_a_body_of_another_type_is_refused(api: Api) -> None:
    answer = await api.call("POST", "/v1/groups", content=b"group=x", headers={"Content-Type": "text/plain"})
    check_problem(answer, 422, "invalid")


async def test_an_oversized_body_is_413_with_the_limit_in_it(api: Api) -> None:
    answer = await api.call("POST", "/v1/groups", content=b" " * (MAX_BODY_BYTES + 1), headers=JSON)
    problem = check_problem(answer, 413, "too-large")
    assert str(MAX_BODY_BYTES) in problem["detail"]
    metrics = await api.call("GET", "/metrics")
    assert 'arborcast_refusals_total{reason="too-large"} 1.0' in metrics.text


async def test_what_was_sent_is_not_echoed(api: Api) -> None:
    answer = await api.call("POST", "/v1/groups", {"group": "<script>alert(1)</script>"})
    check_problem(answer, 422, "invalid")
    assert "script" not in answer.text


async def test_a_fault_of_ours_is_a_problem_without_a_traceback(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Coordinator) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Coordinator, "groups", broken)
    answer = await api.call("GET", "/v1/groups")
    check_problem(answer, 500, "fault")
    assert "secret" not in answer.text
