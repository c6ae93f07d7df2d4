from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.limits import MAX_BODY_BYTES
from tests.unit.agent.serving import Served, served


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made:
        yield made


@pytest.mark.parametrize("path", ["/cursors", "/streams/file"])
async def test_a_body_is_read_no_further_than_is_allowed(agent: Served, path: str) -> None:
    response = await agent.client.post(path, content=b" " * (MAX_BODY_BYTES + 1))
    assert (response.status_code, response.json()["reason"]) == (413, "too-large")
    assert str(MAX_BODY_BYTES) in response.json()["detail"]


async def test_the_largest_acknowledgement_is_taken(agent: Served) -> None:
    numbers = {f"{number:032x}": 2**53 - 1 for number in range(4_096)}
    body = {"consumer": "log", "channel": "messages", "numbers": numbers}
    assert (await agent.client.post("/cursors", json=body)).status_code == 204
    assert len(agent.local.cursors.numbers("log", "messages")) == 4_096
