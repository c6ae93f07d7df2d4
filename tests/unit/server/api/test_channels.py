from typing import Any

import pytest

from tests.unit.server.api_harness import Api, check_problem

PATH = "/v1/groups/lab/channels"
CHAT = {"name": "chat", "kind": "message", "routing": "overflow", "objective": "latency", "delay_sensitive": True}


async def test_channels_are_added_changed_listed_and_removed(api: Api) -> None:
    await api.enrol("A")
    answer = await api.call("PUT", f"{PATH}/chat", CHAT)
    assert answer.status_code == 200
    assert answer.json()["buffer_bytes"] == 262_144
    assert (await api.call("PUT", f"{PATH}/chat", {**CHAT, "distribute": False})).status_code == 200
    channels = (await api.call("GET", PATH, token=api.tokens["A"])).json()["channels"]
    assert [(channel["name"], channel["distribute"]) for channel in channels] == [
        ("chat", False),
        ("files", True),
        ("messages", True),
    ]
    assert (await api.call("DELETE", f"{PATH}/chat")).status_code == 204
    check_problem(await api.call("DELETE", f"{PATH}/chat"), 404, "unknown-channel")


async def test_only_the_administrator_changes_channels(api: Api) -> None:
    await api.enrol("A")
    check_problem(await api.call("PUT", f"{PATH}/chat", CHAT, token=api.tokens["A"]), 403, "admin-only")
    check_problem(await api.call("DELETE", f"{PATH}/files", token=api.tokens["A"]), 403, "admin-only")


async def test_the_address_and_the_body_name_the_same_channel(api: Api) -> None:
    check_problem(await api.call("PUT", f"{PATH}/other", CHAT), 422, "name-mismatch")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "live"},
        {"routing": "magic"},
        {"buffer_bytes": -1},
        {"buffer_bytes": 2**40},
        {"query_interval_s": 0},
        {"retention_s": "10"},
        {"distribute": "yes"},
        {"surprise": 1},
    ],
)
async def test_a_channel_with_a_mistake_is_refused(api: Api, change: dict[str, Any]) -> None:
    check_problem(await api.call("PUT", f"{PATH}/chat", {**CHAT, **change}), 422, "invalid")
    assert len(api.coordinator.group("lab").channels().channels) == 2
