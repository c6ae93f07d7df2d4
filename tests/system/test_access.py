"""Who gets in, and who is put out, with real processes: join strings over TLS, tokens, roles, eviction."""

import hashlib
import json
import os
import random
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.client import AgentClient
from agent.services.control_rest import RestClient
from agent.services.identity import StateFolder
from agent.services.rotation import TokenRotation
from common.errors import ArborcastError
from common.join_string import decode_untrusted, encode
from common.tokens import make_token

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0
SIZE = 48 * 1024 * 1024


def until(condition: Callable[[], Any]) -> Any:
    """Ask until the answer is true, and return it; bounded."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"did not come true in {WAIT_S:g} s: {condition}")


class Site:
    """A server with TLS, and agents that are told nothing but a join string."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "server"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.url = ""

    def start_server(self) -> None:
        ready = self.folder / "server.ready"
        ready.unlink(missing_ok=True)
        port = self.url.rpartition(":")[2] or "0"
        flags = ("--self-signed", "--group", "lab", "--ready-file", str(ready), "-v")
        self._start("server", "server", "run", "--port", port, "--state", str(self.state), *flags)
        until(ready.exists)
        self.url = json.loads(ready.read_text())["url"]

    def join_string(self, *flags: str) -> str:
        command = [sys.executable, "-m", "server", "join-string", "--state", str(self.state), "--group", "lab", *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=True)
        return done.stdout.strip()

    def agent_command(self, device: str, *flags: str) -> list[str]:
        own = ("--device", device, "--listen", "127.0.0.1:0", "--state", str(self.folder / device))
        ready = ("--ready-file", str(self.folder / f"{device}.ready"), "--log-level", "debug")
        return [sys.executable, "-m", "agent", "agent", *own, *ready, *flags]

    def start_agent(self, device: str, *flags: str, environment: dict[str, str] | None = None) -> None:
        ready = self.folder / f"{device}.ready"
        ready.unlink(missing_ok=True)
        process = self._run(device, self.agent_command(device, *flags), environment)
        until(lambda: ready.exists() or process.poll() is not None)
        assert process.poll() is None, self.log(device)

    def refused(self, device: str, *flags: str) -> tuple[int, str]:
        """Start an agent that is going to end at once; return its exit code and last word."""
        command = self.agent_command(device, *flags)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr.splitlines()[-1]

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(WAIT_S)

    def command(self, device: str, *arguments: str) -> "subprocess.Popen[str]":
        socket = ("--control-socket", str(self.folder / device / "agent.sock"))
        command = [sys.executable, "-m", "agent", *arguments, *socket]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ask(self, device: str, path: str) -> dict[str, Any]:
        with AgentClient(self.folder / device / "agent.sock") as client:
            found = client.get(path)
        assert isinstance(found, dict)
        return found

    def meet(self, *devices: str) -> None:
        def joined() -> bool:
            try:
                graphs = [self.ask(device, "/graph") for device in devices]
            except ArborcastError:
                return False
            return all(sorted(devices) in graph["trees"][0]["components"] for graph in graphs)

        until(joined)

    def links_to(self, peer: str, *devices: str) -> list[str]:
        """Return which devices have a link to a peer."""
        statuses = {device: self.ask(device, "/status")["links"] for device in devices}
        return [device for device, links in statuses.items() if peer in [link["peer"] for link in links]]

    def token(self, name: str) -> str:
        return (self.state / name).read_text().strip()

    def call(self, method: str, path: str, token: str, body: Any = None) -> httpx.Response:
        trusting = ssl.create_default_context(cafile=str(self.state / "tls-cert.pem"))
        with httpx.Client(verify=trusting, trust_env=False, timeout=10) as client:
            return client.request(method, self.url + path, headers={"Authorization": f"Bearer {token}"}, json=body)

    def identity(self, device: str) -> dict[str, Any]:
        found = json.loads((self.folder / device / "identity.json").read_text())
        assert isinstance(found, dict)
        return found

    def group_keys(self, device: str) -> list[str]:
        """Return the key epochs of the group keys that a device has on its disk."""
        messages = [json.loads(text) for text in json.loads((self.folder / device / "server.json").read_text())]
        return sorted(next(found for found in messages if found["type"] == "roster")["group_keys"])

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(WAIT_S)

    def _start(self, name: str, room: str, *arguments: str) -> None:
        self._run(name, [sys.executable, "-m", room, *arguments], None)

    def _run(self, name: str, command: list[str], environment: dict[str, str] | None) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("ab") as log:
            env = {**os.environ, **(environment or {})}
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=env)
        self.processes[name] = process
        return process


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    try:
        made.start_server()
        yield made
    finally:
        made.end()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_one_word_is_all_that_an_agent_is_told_and_only_the_first_time(site: Site) -> None:
    word = site.join_string("--uses", "2")
    (site.folder / "word").write_text(word + "\n")
    site.start_agent("A", "--join", f"@{site.folder / 'word'}")
    site.start_agent("B", environment={"ARBORCAST_JOIN": word})
    site.meet("A", "B")
    code, sentence = site.refused("C", "--join", word)
    assert (code, sentence.startswith("arborcast: the token is not valid here")) == (1, True)
    # The word is spent, and the server forgets it: who is in comes back with it and without it.
    for flags in ((), ("--join", word)):
        assert site.stop("A") == 0
        site.start_agent("A", *flags)
        until(lambda: site.ask("A", "/status")["attached"])
    # A restart of the server changes neither its certificate nor who may come in.
    assert site.stop("server") == 0
    site.start_server()
    until(lambda: site.ask("B", "/status")["attached"])


def test_a_word_that_was_cut_short_or_names_another_certificate_is_one_sentence(site: Site) -> None:
    word = site.join_string()
    code, sentence = site.refused("A", "--join", word[:-4])
    assert (code, sentence) == (2, "arborcast: the join string does not hold together: it was cut short or mistyped")
    join = decode_untrusted(word)
    assert join.fingerprint is not None
    code, sentence = site.refused("A", "--join", encode(replace(join, fingerprint=bytes(32))))
    assert code == 1
    assert join.fingerprint.hex() in sentence
    assert bytes(32).hex() in sentence
    # Nothing was said to it: the token is as good as before.
    site.start_agent("B", "--join", word)
    code, sentence = site.refused("A", "--join", encode(replace(join, fingerprint=None)))
    assert (code, "the server's certificate is not trusted: self-signed certificate" in sentence) == (1, True)


async def test_what_is_lost_on_the_way_costs_a_device_neither_its_name_nor_its_token(site: Site) -> None:
    join = decode_untrusted(site.join_string("--uses", "1"))
    folder = StateFolder(site.folder / "A")

    @asynccontextmanager
    async def client() -> AsyncIterator[RestClient]:
        """Start anew, as after a crash: with what is on the disk."""
        identity = folder.load_identity("lab", "A").at(join.url, join.fingerprint)
        rest = RestClient(join.url, identity, loopback=True, fingerprint=join.fingerprint)
        try:
            yield rest
        finally:
            await rest.close()

    folder.save_identity(folder.load_identity("lab", "A").prepared(make_token("A", secrets.token_bytes)))
    for _ in range(3):
        async with client() as rest:
            answer = await rest.enrol(join.token)
            assert (answer.device, answer.token) == ("A", None)
    folder.save_identity(folder.load_identity("lab", "A").confirmed(made=0.0))
    first = site.identity("A")["token"]
    for _ in range(2):
        async with client() as rest:
            if rest.identity.next_token is None:
                folder.save_identity(rest.identity.prepared(make_token("A", secrets.token_bytes)))
                rest.identity = folder.load_identity("lab", "A")
            await rest.rotate_token()
    async with client() as rest:
        rotation = TokenRotation(
            rest, keep=folder.save_identity, rng=random.Random(1), wall=time.time, entropy=secrets.token_bytes
        )
        await rotation.rotate()
    folder.close()
    second = site.identity("A")["token"]
    graph = "/v1/groups/lab/graph"
    assert [site.call("GET", graph, token).status_code for token in (first, second, first)] == [200, 200, 401]
    site.start_agent("A")
    until(lambda: site.ask("A", "/status")["attached"])


def test_an_eviction_in_mid_transfer_puts_out_one_and_holds_up_nobody(site: Site) -> None:
    word = site.join_string()
    for device in ("A", "B", "C"):
        # 12 s for the file at the least: there is time to evict somebody.
        site.start_agent(device, "--join", word, "--max-rate", "64M")
    site.meet("A", "B", "C")
    file = site.folder / "model.bin"
    file.write_bytes(random.Random(1).randbytes(SIZE))
    sending = site.command("A", "send", str(file), "--json", "--timeout", "90")
    try:

        def held(device: str) -> int:
            streams = site.ask(device, "/streams")["streams"]
            return int(next((each["held_bytes"] for each in streams if each["name"] == "model.bin"), 0))

        until(lambda: held("C") > SIZE // 20)
        old = site.identity("C")["token"]
        # It cannot take note of anything: whatever it does not get is not for want of asking.
        site.processes["C"].send_signal(signal.SIGSTOP)
        assert site.call("DELETE", "/v1/groups/lab/devices/C", site.token("admin-token")).status_code == 204
        until(lambda: not site.links_to("C", "A", "B"))
        assert held("B") < SIZE
        answer = site.call("GET", "/v1/groups/lab/graph", old)
        assert (answer.status_code, answer.json()["reason"]) == (401, "bad-token")
        # It wakes in the old world, says what it still had to say, and is told.
        site.processes["C"].send_signal(signal.SIGCONT)
        assert site.processes.pop("C").wait(WAIT_S) == 1
        assert "does not accept device 'C' of group 'lab' any more" in site.log("C").splitlines()[-1]
        out, error = sending.communicate(timeout=120)
    finally:
        sending.kill()
        sending.communicate()
    # The command says of everybody who was a member at its start what became of it.
    assert sending.returncode == 1, error + site.log("A") + site.log("B")
    receipts = json.loads(out)["receipts"]
    assert receipts["B"]["state"] == "verified"
    assert receipts["C"]["reason"] == "no member of the group any more"
    assert sha256(site.folder / "B" / "received" / "model.bin") == sha256(file)
    assert not (site.folder / "C" / "received" / "model.bin").exists()
    assert [site.group_keys(device) for device in ("A", "B", "C")] == [["1", "2"], ["1", "2"], ["1"]]
    # What the stayers say from here on is sealed under a key that it never had.
    published = site.command("A", "publish", "after")
    assert published.communicate(timeout=WAIT_S)[1] == ""
    until(lambda: [each for each in site.ask("B", "/streams")["streams"] if each["channel"] == "messages"])


def test_no_token_is_in_a_log_however_much_is_logged(site: Site) -> None:
    word = site.join_string("--note", "for the log")
    site.start_agent("A", "--join", word)
    site.start_agent("B", "--join", word)
    site.meet("A", "B")
    known = {
        "join": decode_untrusted(word).token,
        "word": word,
        "admin": site.token("admin-token"),
        "reader": site.token("read-token"),
        "join file": site.token("join-token-lab"),
        "device A": site.identity("A")["token"],
        "device B": site.identity("B")["token"],
        "key": site.identity("A")["private_key"],
    }
    for path in ("/v1/groups/lab/graph", "/metrics", "/v1/groups/lab/devices", "/v1/groups/lab/links"):
        assert site.call("GET", path, known["reader"]).status_code == 200
    assert site.call("POST", "/v1/groups/lab/devices/A/token", known["device A"], {}).status_code == 201
    for guess in ("guess-1", "A~guess-2", "join~guess-3"):
        assert site.call("GET", "/v1/groups/lab/graph", guess).status_code == 401
        assert site.call("DELETE", f"/v1/groups/{guess.strip('~')}", guess).status_code in (401, 404, 405)
        assert site.refused("D", "--join", encode(replace(decode_untrusted(word), token=guess)))[0] == 1
    assert site.call("DELETE", "/v1/groups/lab/devices/B", known["admin"]).status_code == 204
    assert site.processes.pop("B").wait(WAIT_S) == 1
    for name in ("A", "server"):
        assert site.stop(name) == 0
    logs = "".join(site.log(name) for name in ("server", "A", "B"))
    assert len(logs) > 1_000
    for name, secret in known.items():
        assert secret not in logs, name
        assert secret.rpartition("~")[2] not in logs, name
    assert "~guess" not in logs
    stored = b"".join(path.read_bytes() for path in site.state.glob("state.sqlite3*"))
    for name, secret in known.items():
        assert secret.rpartition("~")[2].encode() not in stored, name
