import asyncio
import gc
import json
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.app import Agent, Attachment, resolved, run_agent
from agent.core.events import ControlFailed, QueryGraph
from agent.services.control import ControlClient
from agent.services.driver import Driver
from agent.services.identity import Identity, StateFolder, peek_identity
from agent.services.last_state import LastState
from agent.settings import AgentSettings
from common.errors import ConfigError, RefusedError, TransportError
from common.messages import GraphBody, TreeBody, Unchanged
from server.services.certificates import ensure_certificate
from tests.unit.agent.fakes import FakeCore
from tests.unit.agent.serving import CHANNELS, roster

GRAPH = GraphBody(epoch=5, devices=("A", "B"), trees=(TreeBody(objective="throughput", edges=(("A", "B"),)),))
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.fixture
def settings(tmp_path: Path) -> AgentSettings:
    return AgentSettings(
        server=NOBODY,
        group="lab",
        device="A",
        state=tmp_path / "state",
        receive=tmp_path / "in",
        control_socket=tmp_path / "agent.sock",
        listen=("127.0.0.1", 0),
        ready_file=tmp_path / "ready",
    )


def enrol(settings: AgentSettings) -> None:
    """Leave what an earlier run would have left."""
    folder = StateFolder(settings.state)
    identity = folder.load_identity(settings.group, settings.device)
    folder.save_identity(identity.prepared("device-token").confirmed(made=0.0))
    last = LastState(settings.state)
    for message in (roster("A", "B"), CHANNELS):
        last.note(message)
    last.note_answer(GRAPH)
    last.save()
    folder.close()


async def ready(settings: AgentSettings, running: "asyncio.Task[None]") -> dict[str, Any]:
    assert settings.ready_file is not None
    async with asyncio.timeout(10):
        while not settings.ready_file.exists():
            assert not running.done(), running.result()
            await asyncio.sleep(0.005)
    body = json.loads(settings.ready_file.read_text())
    assert isinstance(body, dict)
    return body


@asynccontextmanager
async def running(settings: AgentSettings) -> AsyncIterator[dict[str, Any]]:
    """Run a real agent in this process, and stop it by a signal."""
    task = asyncio.create_task(run_agent(settings), name="agent")
    try:
        yield await ready(settings, task)
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 10)


async def test_an_agent_without_its_server_still_knows_the_group(settings: AgentSettings) -> None:
    enrol(settings)
    async with running(settings) as body:
        assert body["pid"] == os.getpid()
        assert body["control_socket"] == str(settings.control_socket)
        transport = httpx.AsyncHTTPTransport(uds=body["control_socket"])
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
            status = (await client.get("/status")).json()
            graph = (await client.get("/graph")).json()
        assert status["udp_address"] == f"127.0.0.1:{body['udp_port']}"
        assert (status["epoch"], status["attached"]) == (5, False)
        assert status["server"] == NOBODY
        assert status["server_trouble"]
        assert (status["clock_skew_s"], status["clock_wrong"]) == (None, None)
        assert graph["trees"][0]["neighbours"] == {"A": ["B"], "B": ["A"]}
    assert not settings.control_socket.exists()
    assert settings.ready_file is not None
    assert not settings.ready_file.exists()


async def test_an_agent_listens_on_all_interfaces_unless_told_where(settings: AgentSettings) -> None:
    enrol(settings)
    async with running(replace(settings, listen=None)) as body:
        transport = httpx.AsyncHTTPTransport(uds=body["control_socket"])
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
            status = (await client.get("/status")).json()
        assert status["udp_address"] in (f"[::]:{body['udp_port']}", f"0.0.0.0:{body['udp_port']}")


async def test_what_lives_long_is_kept_out_of_the_collector(settings: AgentSettings) -> None:
    enrol(settings)
    before = gc.get_freeze_count()
    async with running(settings):
        assert gc.get_freeze_count() > before
        assert gc.get_threshold()[0] == 50_000


async def test_a_stopped_agent_can_be_started_again(settings: AgentSettings) -> None:
    enrol(settings)
    for _ in range(2):
        async with running(settings):
            pass


async def test_a_device_that_never_enrolled_needs_a_join_token(settings: AgentSettings) -> None:
    with pytest.raises(ConfigError, match="it needs --join or --join-token-file"):
        await run_agent(settings)


async def test_a_port_in_use_is_named_and_nothing_is_left(settings: AgentSettings) -> None:
    enrol(settings)
    async with running(settings) as body:
        other = replace(
            settings,
            state=settings.state.with_name("other"),
            listen=("127.0.0.1", body["udp_port"]),
            join_token="t",
        )
        with pytest.raises(TransportError, match="cannot listen on UDP"):
            await run_agent(other)


async def test_two_agents_do_not_share_a_control_socket(settings: AgentSettings) -> None:
    enrol(settings)
    async with running(settings):
        other = replace(settings, state=settings.state.with_name("other"), join_token="t")
        with pytest.raises(ConfigError, match="another agent listens at"):
            await run_agent(other)
        assert settings.control_socket.exists()


async def test_a_server_that_declines_the_device_ends_the_agent(settings: AgentSettings) -> None:
    async def decline(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"reason": "bad-token", "detail": "the join token is not valid"}'
        head = f"HTTP/1.1 401 Unauthorized\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(decline, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    refused = replace(settings, server=f"http://127.0.0.1:{port}", join_token="wrong")
    with pytest.raises(RefusedError, match="the join token is not valid"):
        await asyncio.wait_for(run_agent(refused), 10)
    server.close()
    await server.wait_closed()
    assert not settings.control_socket.exists()


async def test_a_token_that_cannot_be_kept_ends_the_agent_in_a_sentence(
    settings: AgentSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def enrol(client: ControlClient, _: str, *, keep: Callable[[Identity], None], **_more: object) -> None:
        keep(client.identity.prepared("token"))

    monkeypatch.setattr(ControlClient, "enrol", enrol)
    folder = StateFolder(settings.state)
    folder.load_identity(settings.group, settings.device)
    folder.close()
    (settings.state / "identity.json.new").mkdir()
    with pytest.raises(TransportError, match=r"cannot write .*/identity.json: Is a directory"):
        await asyncio.wait_for(run_agent(replace(settings, join_token="t")), 10)
    assert not settings.control_socket.exists()


async def test_a_ready_file_that_cannot_be_written_does_not_end_the_agent(
    settings: AgentSettings, caplog: pytest.LogCaptureFixture
) -> None:
    enrol(settings)
    folder = StateFolder(settings.state)
    agent = Agent(replace(settings, ready_file=Path("/no/such/folder/ready")), folder)
    with caplog.at_level(logging.ERROR):
        agent._write_ready_file()
    assert "cannot write /no/such/folder/ready" in caplog.text
    agent._settings = replace(settings, ready_file=None)
    agent._write_ready_file()
    agent._endpoint.close()
    await agent._control.close()
    folder.close()


async def test_what_the_server_says_is_kept_and_fed(tmp_path: Path) -> None:
    core, last = FakeCore(), LastState(tmp_path)
    driver = Driver(core, on_event=lambda _: None, on_request=lambda _: None)
    attachment = Attachment(driver, last)
    failed = ControlFailed(QueryGraph(), "gone")
    for message in (roster("A"), GRAPH, failed):
        attachment.receive_control(message)
    attachment.control_connected()
    attachment.control_lost()
    attachment.save()
    assert core.told("control") == [roster("A"), GRAPH, failed]
    assert [kind for kind, _ in core.inputs][-2:] == ["connected", "lost"]
    again = LastState(tmp_path)
    again.load()
    assert (again.members(), again.epoch) == (("A",), 5)
    driver.stop()


async def test_a_mistake_of_the_core_about_one_message_does_not_end_the_agent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    core = FakeCore()
    core.failure = ValueError("a mistake of ours")
    driver = Driver(core, on_event=lambda _: None, on_request=lambda _: None)
    attachment = Attachment(driver, LastState(tmp_path))
    attachment.receive_control(Unchanged(epoch=1))
    assert "the core failed at Unchanged" in caplog.text
    attachment.save()
    driver.stop()


async def test_host_names_become_addresses(settings: AgentSettings) -> None:
    named = replace(settings, peers={"B": ("localhost", 7400)}, advertise=(("localhost", 1),))
    found = await resolved(named)
    assert found.peers["B"][0] in ("127.0.0.1", "::1")
    assert found.advertise[0][0] in ("127.0.0.1", "::1")
    assert found.listen == ("127.0.0.1", 0)
    assert (await resolved(replace(settings, listen=None))).listen is None
    with pytest.raises(ConfigError, match=r"host 'no.such.host.invalid' has no address"):
        await resolved(replace(settings, peers={"B": ("no.such.host.invalid", 1)}))


async def test_the_service_manager_hears_that_it_runs_lives_and_stops(
    settings: AgentSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "30000")
        enrol(settings)
        async with running(settings):
            said = await asyncio.to_thread(manager.recv, 4096)
            while b"READY" not in said:
                said = await asyncio.to_thread(manager.recv, 4096)
            assert said == b"READY=1\nSTATUS=without its server, 0 of 0 links open"
            assert await asyncio.to_thread(manager.recv, 4096) == b"WATCHDOG=1"
        while (said := manager.recv(4096)) == b"WATCHDOG=1":
            pass
        assert said == b"STOPPING=1\nSTATUS=stopping"


async def test_the_server_is_remembered_once_it_has_taken_this_device(
    settings: AgentSettings, caplog: pytest.LogCaptureFixture
) -> None:
    enrol(settings)
    folder = StateFolder(settings.state)
    agent = Agent(replace(settings, server="https://h:1", fingerprint=bytes(32)), folder)
    found = peek_identity(settings.state)
    assert found is not None
    assert found.server is None
    (settings.state / "identity.json.new").mkdir()
    agent._attachment.control_connected()
    assert "the server is not remembered: cannot write" in caplog.text
    (settings.state / "identity.json.new").rmdir()
    for _ in range(2):
        agent._attachment.control_connected()
        found = peek_identity(settings.state)
        assert found is not None
        assert (found.token, found.server, found.fingerprint) == ("device-token", "https://h:1", bytes(32))
    agent._attachment.save()
    agent._endpoint.close()
    await agent._control.close()
    folder.close()


async def test_a_server_with_another_certificate_ends_an_enrolment_in_a_sentence(
    settings: AgentSettings, tmp_path: Path
) -> None:
    certificate, key = ensure_certificate(tmp_path, names=(), wanted=(), wall=time.time())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    chosen = replace(settings, server=f"https://127.0.0.1:{port}", join_token="t", fingerprint=bytes(32))
    with pytest.raises(TransportError, match=f"trusts is {bytes(32).hex()}: this is not the server that it joined"):
        await asyncio.wait_for(run_agent(chosen), 10)
    server.close()
    await server.wait_closed()
    assert not settings.control_socket.exists()
