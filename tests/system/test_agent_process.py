"""Agents as processes of their own, with a real server, on real sockets of the loopback interface."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.client import AgentClient
from common.errors import ArborcastError

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0
LARGE = 64 * 1024 * 1024


def until(condition: Callable[[], Any]) -> Any:
    """Ask until the answer is true, and return it; bounded."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"did not come true in {WAIT_S:g} s: {condition}")


class Site:
    """One server and some agents, each in its own process and folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.begun: list[subprocess.Popen[str]] = []
        self.url = ""

    def start_server(self) -> None:
        ready = self.folder / "server.ready"
        ready.unlink(missing_ok=True)
        port = self.url.rpartition(":")[2] or "0"
        arguments = ["run", "--port", port, "--state", str(self.folder / "server")]
        self._start("server", "server", *arguments, "--group", "lab", "--ready-file", str(ready))
        until(ready.exists)
        self.url = json.loads(ready.read_text())["url"]

    def agent_flags(self, device: str) -> list[str]:
        return [
            "agent",
            *("--server", self.url, "--group", "lab", "--device", device),
            *("--join-token-file", str(self.folder / "server" / "join-token-lab")),
            *("--listen", "127.0.0.1:0", "--state", str(self.folder / device)),
            *("--ready-file", str(self.folder / f"{device}.ready")),
        ]

    def start_agent(self, device: str, *flags: str) -> None:
        ready = self.folder / f"{device}.ready"
        ready.unlink(missing_ok=True)
        process = self._start(device, "agent", *self.agent_flags(device), *flags)
        until(lambda: ready.exists() or process.poll() is not None)
        assert process.poll() is None, self.log(device)

    def kill(self, name: str) -> None:
        """End a process as a crash does."""
        self.processes[name].kill()
        self.processes.pop(name).wait(WAIT_S)

    def stop(self, name: str) -> int:
        """End a process as a user does, and return its exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(WAIT_S)

    def ask(self, device: str, path: str) -> dict[str, Any]:
        with AgentClient(self.socket(device)) as client:
            found = client.get(path)
        assert isinstance(found, dict)
        return found

    def socket(self, device: str) -> Path:
        return self.folder / device / "agent.sock"

    def received(self, device: str, name: str) -> Path:
        return self.folder / device / "received" / name

    def stream(self, device: str, name: str) -> dict[str, Any]:
        """Return what a device says about the stream of a file; empty if it knows none."""
        streams = self.ask(device, "/streams")["streams"]
        return next((each for each in streams if each["name"] == name), {})

    def meet(self, *devices: str) -> None:
        """Wait until the graph joins these devices and no others."""

        def joined() -> bool:
            try:
                graphs = [self.ask(device, "/graph") for device in devices]
            except ArborcastError:
                return False
            return all(sorted(devices) in graph["trees"][0]["components"] for graph in graphs)

        until(joined)

    def command(self, device: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command_line(device, *arguments),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def begin(self, device: str, *arguments: str) -> "subprocess.Popen[str]":
        """Start a command that goes on meanwhile."""
        begun = subprocess.Popen(
            self.command_line(device, *arguments),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.begun.append(begun)
        return begun

    def end(self) -> None:
        """End everything that runs."""
        for begun in self.begun:
            begun.kill()
            begun.communicate()
        for process in self.processes.values():
            process.kill()
            process.wait(WAIT_S)

    def command_line(self, device: str, *arguments: str) -> list[str]:
        socket = str(self.socket(device))
        return [sys.executable, "-m", "agent", *arguments, "--control-socket", socket]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _start(self, name: str, room: str, *arguments: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", room, *arguments], cwd=ROOT, stdout=log, stderr=log)
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


@pytest.fixture
def pair(site: Site) -> Site:
    """A site with the agents A and B, joined."""
    for device in ("A", "B"):
        site.start_agent(device)
    site.meet("A", "B")
    return site


def make_file(folder: Path, size_bytes: int, name: str = "model.bin") -> Path:
    path = folder / name
    path.write_bytes(random.Random(size_bytes).randbytes(size_bytes))
    return path


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_file_goes_from_one_agent_to_another(pair: Site) -> None:
    file = make_file(pair.folder, 3_000_000)
    sent = pair.command("A", "send", str(file), "--json", "--timeout", "30")
    assert sent.returncode == 0, sent.stderr + pair.log("A") + pair.log("B")
    result = json.loads(sent.stdout)
    assert result["ok"]
    assert result["receipts"]["B"]["state"] == "verified"
    assert sha256(pair.received("B", "model.bin")) == sha256(file)
    assert pair.stream("B", "model.bin")["sha256"] == sha256(file)
    again = pair.command("A", "send", str(file), "--timeout", "30")
    assert again.returncode == 0, again.stderr
    assert sha256(pair.received("B", "model (2).bin")) == sha256(file)


def test_an_empty_file_arrives_too(pair: Site) -> None:
    file = make_file(pair.folder, 0, "empty")
    assert pair.command("A", "send", str(file), "--timeout", "30").returncode == 0
    assert pair.received("B", "empty").read_bytes() == b""


def test_a_receiver_killed_in_mid_transfer_resumes_from_disk(pair: Site) -> None:
    file = make_file(pair.folder, LARGE)
    sending = pair.begin("A", "send", str(file), "--json", "--timeout", "60")
    until(lambda: pair.stream("B", "model.bin").get("held_bytes", 0) > LARGE // 4)
    held = pair.stream("B", "model.bin")["held_bytes"]
    pair.kill("B")
    assert not pair.received("B", "model.bin").exists()
    pair.start_agent("B")
    out, _ = sending.communicate(timeout=90)
    assert sending.returncode == 0, pair.log("A") + pair.log("B")
    assert json.loads(out)["receipts"]["B"]["state"] == "verified"
    assert sha256(pair.received("B", "model.bin")) == sha256(file)
    received = pair.ask("B", "/status")["links"][0]["bytes_received"]
    assert received < 1.2 * (LARGE - held) + 1_000_000
    parts = [path.name for path in pair.received("B", ".").iterdir()]
    assert parts == ["model.bin"]


def test_a_source_killed_in_mid_transfer_goes_on_when_it_is_back(pair: Site) -> None:
    file = make_file(pair.folder, LARGE)
    sending = pair.begin("A", "send", str(file))
    until(lambda: pair.stream("B", "model.bin").get("held_bytes", 0) > LARGE // 4)
    pair.kill("A")
    _, error = sending.communicate(timeout=30)
    assert (sending.returncode, "the agent" in error) == (1, True)
    pair.start_agent("A")
    until(pair.received("B", "model.bin").exists)
    assert sha256(pair.received("B", "model.bin")) == sha256(file)


def test_an_agent_restarted_without_its_server_still_gets_files(pair: Site) -> None:
    kept = pair.folder / "B" / "server.json"
    until(lambda: kept.exists() and '\\"graph\\"' in kept.read_text())
    pair.kill("server")
    pair.kill("B")
    pair.start_agent("B")
    file = make_file(pair.folder, 1_000_000)
    sent = pair.command("A", "send", str(file), "--timeout", "30")
    assert sent.returncode == 0, sent.stderr + pair.log("A") + pair.log("B")
    assert sha256(pair.received("B", "model.bin")) == sha256(file)
    pair.start_server()
    until(lambda: pair.ask("B", "/status")["attached"])


def test_messages_come_once_and_in_order_through_a_crash_of_the_receiver(pair: Site) -> None:
    def tail(count: int) -> "subprocess.Popen[str]":
        return pair.begin("B", "tail", "--consumer", "log", "--raw", "--count", str(count))

    def publish(first: int, last: int) -> None:
        lines = "".join(f"message {number}\n" for number in range(first, last))
        command = pair.command_line("A", "publish", "--lines")
        subprocess.run(command, cwd=ROOT, input=lines, text=True, check=True, timeout=30)

    first = tail(20)
    publish(0, 20)
    got = first.communicate(timeout=30)[0].splitlines()
    pair.kill("B")
    publish(20, 30)
    pair.start_agent("B")
    second = tail(20)
    publish(30, 40)
    got += second.communicate(timeout=30)[0].splitlines()
    assert got == [f"message {number}" for number in range(40)]


def test_an_interrupted_file_is_taken_back_everywhere(pair: Site) -> None:
    file = make_file(pair.folder, LARGE)
    sending = pair.begin("A", "send", str(file))
    until(lambda: pair.stream("B", "model.bin").get("held_bytes", 0) > 0)
    sending.send_signal(signal.SIGINT)
    _, error = sending.communicate(timeout=30)
    assert sending.returncode == 130
    assert "model.bin is taken back" in error
    until(lambda: pair.stream("B", "model.bin")["state"] == "cancelled")
    until(lambda: list(pair.received("B", ".").iterdir()) == [])


def test_a_device_without_space_is_named_and_holds_nobody_up(site: Site) -> None:
    site.start_agent("A")
    site.start_agent("B", "--quota", "100K")
    site.start_agent("C")
    site.meet("A", "B", "C")
    file = make_file(site.folder, 1_000_000)
    sent = site.command("A", "send", str(file), "--timeout", "30")
    assert sent.returncode == 1, sent.stdout + site.log("A")
    assert "1 of 2 devices verified it" in sent.stderr
    assert "no-space" in sent.stderr
    assert "device's quota of 100.0 KiB" in site.stream("B", "model.bin")["reason"]
    assert sha256(site.received("C", "model.bin")) == sha256(file)
    assert not site.received("B", "model.bin").exists()


def test_what_cannot_be_sent_is_one_sentence(pair: Site) -> None:
    for arguments, code, words in (
        (("send", "/no/such/file"), 2, "cannot read /no/such/file: No such file"),
        (("send", str(ROOT / "README.md"), "--channel", "none"), 1, "none"),
        (("publish", "x", "--channel", "files"), 1, "files"),
        (("publish", "x" * 100_000, "--channel", "none"), 1, "none"),
        (("tail", "--channel", "none"), 1, "the group has no channel 'none'"),
        (("tail", "--channel", "files"), 1, "carries files"),
    ):
        ended = pair.command("A", *arguments)
        assert ended.returncode == code, arguments
        assert words in ended.stderr
        assert ended.stderr.startswith("arborcast: ")
        assert ended.stderr.count("\n") == 1
    assert pair.ask("A", "/streams")["streams"] == []


def test_a_command_without_an_agent_says_how_to_start_one(tmp_path: Path) -> None:
    ended = Site(tmp_path).command("A", "status")
    assert ended.returncode == 1
    assert ended.stderr.startswith("arborcast: no agent answers at ")


def test_an_agent_stops_when_told_and_keeps_its_membership(site: Site) -> None:
    site.start_agent("A")
    assert site.stop("A") == 0, site.log("A")
    assert not site.socket("A").exists()
    (site.folder / "server" / "join-token-lab").write_text("another-token")
    site.start_agent("A")
    assert site.stop("A") == 0
    assert "Traceback" not in site.log("A")


def refused(site: Site, flags: list[str]) -> tuple[int, str]:
    """Start an agent that is going to end at once; return its exit code and last word."""
    ended = subprocess.run(
        [sys.executable, "-m", "agent", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr.splitlines()[-1]


def test_two_devices_do_not_share_an_id(site: Site) -> None:
    site.start_agent("A")
    flags = [*site.agent_flags("A"), "--state", str(site.folder / "other")]
    code, sentence = refused(site, [*flags, "--ready-file", str(site.folder / "other.ready")])
    assert code == 1
    assert sentence.startswith("arborcast: ")
    assert "'A'" in sentence
    assert site.ask("A", "/status")["attached"]


def test_a_wrong_join_token_is_refused(site: Site) -> None:
    token = site.folder / "wrong-token"
    token.write_text("not-the-token")
    code, sentence = refused(site, [*site.agent_flags("A"), "--join-token-file", str(token)])
    assert code == 1
    assert sentence.startswith("arborcast: ")


def test_an_evicted_device_ends_with_a_clear_word(pair: Site) -> None:
    admin = (pair.folder / "server" / "admin-token").read_text().strip()
    headers = {"Authorization": f"Bearer {admin}"}
    response = httpx.delete(f"{pair.url}/v1/groups/lab/devices/B", headers=headers, timeout=10)
    assert response.is_success
    assert pair.processes["B"].wait(WAIT_S) == 1
    last = pair.log("B").splitlines()[-1]
    assert last.startswith("arborcast: the server at ")
    assert "does not accept device 'B' of group 'lab' any more" in last
    until(lambda: pair.ask("A", "/graph")["devices"] == ["A"])


def test_the_control_socket_is_the_owners_alone(site: Site) -> None:
    site.start_agent("A")
    assert site.socket("A").stat().st_mode & 0o777 == 0o600
    for name in ("identity.json", "server.json"):
        until((site.folder / "A" / name).exists)
        assert (site.folder / "A" / name).stat().st_mode & 0o777 == 0o600
    assert os.getuid() == (site.folder / "A").stat().st_uid
