import asyncio
import base64
import gc
import hashlib
import json
import signal
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from common.errors import ConfigError
from server.app import serve
from server.settings import Settings


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@asynccontextmanager
async def running(settings: Settings, number: signal.Signals = signal.SIGTERM) -> AsyncIterator[httpx.AsyncClient]:
    """Run the server on a free port, and end it by a signal."""
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(settings, url.set_result))
    await asyncio.wait((serving, url), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    token = (settings.admin_token_file or settings.state / "admin-token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with httpx.AsyncClient(base_url=await url, headers=headers) as client:
            yield client
    finally:
        signal.raise_signal(number)
        await serving


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_server_makes_its_state_serves_and_stops_at_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    state, ready = tmp_path / "deep" / "state", tmp_path / "ready"
    settings = Settings(state, port=0, groups=("lab",), ready_file=ready)
    async with running(settings, number) as client:
        groups = (await client.get("/v1/groups")).json()["groups"]
        assert [group["group"] for group in groups] == ["lab"]
        url = str(client.base_url)
        assert json.loads(ready.read_text()) == {"url": url, "stun_port": client.base_url.port}
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for name in ("admin-token", "read-token", "join-token-lab", "state.sqlite3"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600


async def test_a_second_start_finds_the_same_state_and_tokens(tmp_path: Path) -> None:
    settings = Settings(tmp_path, port=0, groups=("lab",))
    async with running(settings) as client:
        epoch = (await client.get("/v1/groups/lab/graph")).json()["epoch"]
    tokens = [(tmp_path / name).read_text() for name in ("admin-token", "read-token", "join-token-lab")]
    async with running(settings) as client:
        assert (await client.get("/v1/groups/lab/graph")).json()["epoch"] == epoch
        headers = {"Authorization": f"Bearer {tokens[1].strip()}"}
        assert (await client.get("/v1/groups/lab/graph", headers=headers)).json()["epoch"] == epoch
    assert [(tmp_path / name).read_text() for name in ("admin-token", "read-token", "join-token-lab")] == tokens
    (tmp_path / "join-token-lab").unlink()
    async with running(settings) as client:
        token = (tmp_path / "join-token-lab").read_text().strip()
        body = {"device": "A", "public_key": "A" * 43 + "=", "signing_key": "A" * 43 + "="}
        answer = await client.post("/v1/groups/lab/devices", json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 201


async def test_the_administrator_s_token_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("my-own-admin-token\n")
    async with running(Settings(tmp_path / "state", port=0, admin_token_file=path)) as client:
        assert (await client.get("/v1/groups")).status_code == 200
    assert not (tmp_path / "state" / "admin-token").exists()


async def test_a_server_that_others_reach_makes_its_certificate_once(tmp_path: Path) -> None:
    fingerprints = []
    for settings in (Settings(tmp_path, host="0.0.0.0", port=0), Settings(tmp_path, port=0, self_signed=True)):
        async with running(settings) as client:
            assert client.base_url.scheme == "https"
            found = json.loads((tmp_path / "server.json").read_text())
            trusting = ssl.create_default_context(cafile=found["certificate"])
            async with httpx.AsyncClient(verify=trusting, base_url=found["local_url"]) as https:
                assert (await https.get("/healthz")).status_code == 200
            async with httpx.AsyncClient() as plain:
                with pytest.raises(httpx.TransportError):
                    await plain.get(f"http://127.0.0.1:{client.base_url.port}/healthz")
            certificate = ssl.PEM_cert_to_DER_cert((tmp_path / "tls-cert.pem").read_text())
            assert base64.b64decode(found["fingerprint"]) == hashlib.sha256(certificate).digest()
            fingerprints.append(found["fingerprint"])
    assert fingerprints[0] == fingerprints[1]
    assert stat.S_IMODE((tmp_path / "tls-key.pem").stat().st_mode) == 0o600


async def test_where_plain_http_is_spoken_there_is_no_certificate(tmp_path: Path) -> None:
    async with running(Settings(tmp_path, port=0, stun=False)) as client:
        url = str(client.base_url).rstrip("/")
        found = json.loads((tmp_path / "server.json").read_text())
        assert found == {"local_url": url, "url": url, "certificate": None, "fingerprint": None}
    assert not (tmp_path / "tls-cert.pem").exists()


async def test_nothing_older_than_tls_1_2_is_spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    configs: list[uvicorn.Config] = []
    load = uvicorn.Config.load

    def keep(config: uvicorn.Config) -> None:
        load(config)
        configs.append(config)

    monkeypatch.setattr(uvicorn.Config, "load", keep)
    async with running(Settings(tmp_path, port=0, self_signed=True)):
        context = configs[0].ssl
        assert context is not None
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_the_server_listens_on_ipv6_too(tmp_path: Path) -> None:
    async with running(Settings(tmp_path, host="::1", port=0)) as client:
        assert str(client.base_url).startswith("http://[::1]:")
        assert (await client.get("/healthz")).status_code == 200


async def fails(settings: Settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await serve(settings, lambda url: None)


async def test_a_port_in_use_is_found_out_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        await fails(Settings(tmp_path, port=port), f"cannot listen on 127.0.0.1 port {port}")


def udp(port: int = 0) -> socket.socket:
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw.bind(("127.0.0.1", port))
    raw.settimeout(10)
    return raw


def binding(raw: socket.socket, port: int) -> bytes:
    """Ask by hand where this socket is, and return the XORed address of the answer."""
    raw.sendto(bytes.fromhex("00010000 2112a442") + bytes(12), ("127.0.0.1", port))
    answer = raw.recv(2_000)
    assert answer[:20] == bytes.fromhex("0101000c 2112a442") + bytes(12)
    assert answer[20:26] == bytes.fromhex("00200008 0001")
    return answer[26:]


async def test_any_client_learns_its_address_at_the_port_of_the_server_and_the_next(tmp_path: Path) -> None:
    async with running(Settings(tmp_path, port=0)) as client:
        port = client.base_url.port
        assert port is not None
        with udp() as raw:
            own = raw.getsockname()[1]
            expected = (own ^ 0x2112).to_bytes(2, "big") + (0x7F000001 ^ 0x2112A442).to_bytes(4, "big")
            for each in (port, port + 1):
                assert await asyncio.to_thread(binding, raw, each) == expected
        text = (await client.get("/metrics")).text
        assert "arborcast_stun_answers_total 2.0" in text.splitlines()


async def test_stun_may_have_its_own_port_or_be_left_out(tmp_path: Path) -> None:
    with udp() as raw:
        own = raw.getsockname()[1]
    ready = tmp_path / "ready"
    async with running(Settings(tmp_path, port=0, stun_port=own, ready_file=ready)):
        assert json.loads(ready.read_text())["stun_port"] == own
    async with running(Settings(tmp_path, port=0, stun=False, ready_file=ready)) as client:
        assert json.loads(ready.read_text())["stun_port"] is None
        assert "stun" not in (await client.get("/metrics")).text
        with udp(client.base_url.port or 0):
            pass


async def test_a_stun_port_in_use_is_found_out_at_once(tmp_path: Path) -> None:
    with udp() as taken:
        port = taken.getsockname()[1]
        await fails(
            Settings(tmp_path, port=0, stun_port=port),
            f"cannot listen for STUN on UDP 127.0.0.1 port {port}: Address already in use; give another --stun-port",
        )


async def test_of_any_free_port_one_is_taken_whose_udp_port_is_free_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server import app

    listeners: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as first, udp(first.getsockname()[1]):
        listeners.append(first)
        listen = app._listen
        monkeypatch.setattr(app, "_listen", lambda settings: listeners.pop() if listeners else listen(settings))
        async with running(Settings(tmp_path, port=0)) as client:
            assert (await client.get("/healthz")).status_code == 200
    assert listeners == []


async def test_a_host_that_is_none_is_refused(tmp_path: Path) -> None:
    await fails(Settings(tmp_path, host="host.invalid", port=0, insecure_http=True), "cannot listen on host.invalid")


async def test_a_state_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    await fails(Settings(tmp_path / "file" / "state", port=0), "cannot make the state directory")


async def test_a_ready_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    await fails(Settings(tmp_path, port=0, ready_file=tmp_path / "missing" / "ready"), "cannot write")


async def test_two_servers_do_not_share_a_state(tmp_path: Path) -> None:
    async with running(Settings(tmp_path, port=0)):
        await fails(Settings(tmp_path, port=0), "another server uses")


async def test_a_store_that_fails_at_the_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.errors import TransportError
    from server.services.store.sqlite import SqliteStore

    async def broken(self: SqliteStore, prefix: str) -> tuple[str, ...]:
        raise TransportError("disk full")

    monkeypatch.setattr(SqliteStore, "keys", broken)
    await fails(Settings(tmp_path, port=0), "cannot start: disk full")


async def test_the_service_manager_hears_that_it_listens_lives_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "30000")
        async with running(Settings(tmp_path / "state", port=0)) as client:
            url = str(client.base_url).removesuffix("/")
            said = [await asyncio.to_thread(manager.recv, 4096) for _ in range(3)]
            assert said == [f"READY=1\nSTATUS=listening on {url}".encode(), b"WATCHDOG=1", b"WATCHDOG=1"]
        while (last := manager.recv(4096)) == b"WATCHDOG=1":
            pass
        assert last == b"STOPPING=1\nSTATUS=stopping"
