"""A server process that is killed comes back with the same groups, devices, keys and links, and with rising epochs."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from common.fields import encode_key
from common.messages import (
    GraphUpdate,
    Roster,
    ServerMessage,
    Subscribe,
    Unchanged,
    decode_server_message,
    encode_message,
)

pytestmark = pytest.mark.loopback


def key_of(device: str) -> str:
    return encode_key(hashlib.sha256(device.encode()).digest())


LINKS = {("A", "B"): 100e6, ("A", "C"): 100e6, ("B", "C"): 50e6}
START_S = 30.0


class Server:
    """A real server process on loopback."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self._ready = directory / "ready"
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client()
        self.url = ""

    def start(self) -> None:
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "server", "run", "--port", "0", "--group", "lab"]
        files = ["--state", str(self.state), "--ready-file", str(self._ready)]
        self._process = subprocess.Popen([*command, *files], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while not self._ready.exists():
            assert self._process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        self.url = json.loads(self._ready.read_text())["url"]

    def end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        os.kill(self._process.pid, number)
        code = self._process.wait(START_S)
        self._process = None
        return code

    def close(self) -> None:
        self.end(signal.SIGKILL)
        self._client.close()

    def token(self, name: str) -> str:
        return (self.state / name).read_text().strip()

    def call(self, method: str, path: str, token: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        answer = self._client.request(method, f"{self.url}/v1/groups/lab{path}", headers=headers, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    @contextmanager
    def subscribe(self, token: str, message: Subscribe) -> Iterator[ClientConnection]:
        url = self.url.replace("http", "ws", 1) + "/v1/groups/lab/subscribe"
        with connect(url, additional_headers={"Authorization": f"Bearer {token}"}) as socket:
            socket.send(encode_message(message))
            yield socket


def receive(socket: ClientConnection) -> ServerMessage:
    return decode_server_message(socket.recv(START_S))


def report(server: Server, tokens: dict[str, str], links: dict[tuple[str, str], float]) -> None:
    for device, token in tokens.items():
        rates = {b if device == a else a: rate for (a, b), rate in links.items() if device in (a, b)}
        server.call("PUT", f"/devices/{device}/adjacency", token, {"peers": list(rates)})
        figures = {peer: {"bandwidth_bps": rate} for peer, rate in rates.items()}
        server.call("PUT", f"/devices/{device}/qos", token, {"links": figures})


def wait_for_edges(socket: ClientConnection, edges: list[tuple[str, str]]) -> GraphUpdate:
    while True:
        message = receive(socket)
        if isinstance(message, GraphUpdate) and list(message.graph.trees[0].edges) == edges:
            return message


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    found.start()
    yield found
    found.close()


def test_a_killed_server_comes_back_with_the_same_state_and_rising_epochs(server: Server) -> None:
    join = server.token("join-token-lab")
    tokens = {}
    for device in "ABC":
        tokens[device] = server.call(
            "POST", "/devices", join, {"device": device, "public_key": key_of(device), "signing_key": key_of(device)}
        )["token"]
    with server.subscribe(tokens["A"], Subscribe(scope="graph")) as socket:
        report(server, tokens, LINKS)
        before = wait_for_edges(socket, [("A", "B"), ("A", "C")])
    devices = server.call("GET", "/devices", tokens["A"])
    channels = server.call("GET", "/channels", tokens["A"])

    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    server.start()

    assert server.call("GET", "/devices", tokens["B"]) == devices
    assert server.call("GET", "/channels", tokens["B"]) == channels
    assert server.token("join-token-lab") == join
    graph = server.call("GET", "/graph", tokens["B"])
    assert graph["epoch"] == before.graph.epoch
    assert graph["trees"][0]["edges"] == [["A", "B"], ["A", "C"]]
    with server.subscribe(tokens["A"], Subscribe(scope="graph", epoch=before.graph.epoch)) as socket:
        assert receive(socket) == Unchanged(epoch=before.graph.epoch)
        roster = receive(socket)
        assert isinstance(roster, Roster)
        assert list(roster.group_keys) == [1]
        server.call("PUT", "/devices/C/adjacency", tokens["C"], {"peers": ["B"]})
        after = wait_for_edges(socket, [("A", "B"), ("B", "C")])
    assert after.graph.epoch > before.graph.epoch
    assert server.end(signal.SIGTERM) == 0


def test_a_server_that_lost_its_state_goes_above_the_epochs_that_devices_have_seen(server: Server) -> None:
    epoch = server.call("GET", "/graph", server.token("admin-token"))["epoch"]
    server.end(signal.SIGKILL)
    for path in server.state.iterdir():
        path.unlink()
    server.start()
    admin = server.token("admin-token")
    assert server.call("GET", "/graph", admin)["epoch"] > epoch
    claim = int((time.time() + 3_600) * 1e6)
    with server.subscribe(admin, Subscribe(scope="graph", epoch=claim)) as socket:
        message = receive(socket)
    assert isinstance(message, GraphUpdate)
    assert message.graph.epoch == claim + 1


def test_nothing_that_was_answered_is_lost_by_a_kill_in_the_middle_of_enrolments(server: Server) -> None:
    join = server.token("join-token-lab")
    tokens = {}
    for number in range(20):
        device = f"d{number}"
        tokens[device] = server.call(
            "POST", "/devices", join, {"device": device, "public_key": key_of(device), "signing_key": key_of(device)}
        )["token"]
    server.end(signal.SIGKILL)
    server.start()
    for device, token in tokens.items():
        assert server.call("GET", f"/devices/{device}", token)["device"] == device
