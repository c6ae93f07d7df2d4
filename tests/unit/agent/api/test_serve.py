import asyncio
import os
import stat
from pathlib import Path

import httpx
import pytest

from agent.api.serve import ApiServer, bind_control_socket
from common.errors import ConfigError
from tests.unit.agent.serving import Lines, served


def test_only_the_owner_can_connect_from_the_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    before = os.umask(0o022)
    try:
        bound = bind_control_socket(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert os.umask(0o022) == 0o022
        bound.close()
    finally:
        os.umask(before)


def test_what_a_dead_agent_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    bind_control_socket(path).close()
    assert path.is_socket()
    bind_control_socket(path).close()


def test_a_living_agent_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    bound = bind_control_socket(path)
    with pytest.raises(ConfigError, match="another agent listens at"):
        bind_control_socket(path)
    bound.close()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"cannot listen at .*: Address already in use"):
        bind_control_socket(path)
    assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot listen at"):
        bind_control_socket(tmp_path / "file" / "agent.sock")


async def test_the_api_answers_and_stops_although_an_answer_is_open(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    bound = bind_control_socket(path)
    async with served(tmp_path) as agent:
        server = ApiServer(agent.api)
        serving = asyncio.create_task(server.serve(sockets=[bound]), name="api")
        await asyncio.wait_for(server.up.wait(), 5)
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://agent") as client,
            client.stream("GET", "/messages") as following,
        ):
            lines = Lines(following)
            assert await lines.next() == {"event": "following"}
            assert (await client.get("/status")).status_code == 200
            agent.local.stop()
            server.should_exit = True
            assert await lines.next() == {"event": "end", "reason": "agent-stopping"}
            await asyncio.wait_for(serving, 10)
            assert [line async for line in lines.rest()] == []
    bound.close()
