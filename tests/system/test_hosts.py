"""Daemons as they run on hosts: by a file, under a service manager, backed up; and what goes wrong there, told."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.system.test_agent_process import ROOT, Site, make_file, sha256, until

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(120)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    try:
        made.start_server()
        yield made
    finally:
        made.end()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of ours to its end."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def check_sentence(ended: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    """Check that a program ended with one sentence: the last line of its log, and the only one that is no log."""
    lines = ended.stderr.splitlines()
    assert ended.returncode == code, ended.stderr
    assert lines[-1].startswith(("arborcast: ", "arborcast-server: ")), ended.stderr
    assert words in lines[-1]
    assert "Traceback" not in ended.stderr


def secrets_of(site: Site) -> list[str]:
    """Return every token and key that lies in some folder."""
    found = [path.read_text().strip() for path in (site.folder / "server").glob("*-token*")]
    for path in site.folder.glob("*/identity.json"):
        body = json.loads(path.read_text())
        found += [body["token"], body["private_key"]]
    assert len(found) >= 5
    return found


def test_a_restored_server_goes_on_where_the_backup_was_taken(site: Site) -> None:
    for device in ("A", "B"):
        site.start_agent(device)
    site.meet("A", "B")
    before = site.ask("A", "/graph")["epoch"]
    state, backup = site.folder / "server", site.folder / "backup.tar"
    made = run("server", "backup", "--state", str(state), str(backup))
    assert made.returncode == 0, made.stderr
    site.kill("server")
    shutil.rmtree(state)
    restored = run("server", "restore", "--state", str(state), str(backup))
    assert restored.returncode == 0, restored.stderr
    site.start_server()
    until(lambda: site.ask("A", "/status")["attached"] and site.ask("B", "/status")["attached"])
    # Tokens go on: a third device joins by the old join token, and the graph that follows is a later one.
    site.start_agent("C")
    site.meet("A", "B", "C")
    assert site.ask("A", "/graph")["epoch"] > before
    file = make_file(site.folder, 100_000)
    sent = site.command("A", "send", str(file), "--timeout", "30")
    assert sent.returncode == 0, sent.stderr
    assert sha256(site.received("C", "model.bin")) == sha256(file)


def test_a_host_is_set_up_by_a_file_and_no_log_holds_a_secret(site: Site) -> None:
    site.kill("server")
    server = site.folder / "server.toml"
    port = site.url.rpartition(":")[2]
    server.write_text(f'state = "{site.folder / "server"}"\nport = {port}\nverbose = true\nlog-format = "json"\n')
    site._start("server", "server", "run", "--config", str(server))
    token = (site.folder / "server" / "join-token-lab").read_text().strip()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(site.folder / "notify"))
        manager.settimeout(30)
        for device in ("A", "B"):
            file = site.folder / f"{device}.toml"
            file.write_text(
                f'server = "{site.url}"\ngroup = "lab"\ndevice = "{device}"\njoin-token = "{token}"\n'
                f'listen = "127.0.0.1:0"\nstate = "{site.folder / device}"\nlog-level = "debug"\nlog-format = "json"\n'
            )
            file.chmod(0o600)
            checked = run("agent", "config", "check", str(file))
            assert checked.stdout == f"{file}: 8 settings, all usable\n"
            # As a unit does: the manager's socket in the environment, and nothing else said.
            os.environ["NOTIFY_SOCKET"] = str(site.folder / "notify")
            try:
                site._start(device, "agent", "agent", "--config", str(file))
            finally:
                del os.environ["NOTIFY_SOCKET"]
            while not manager.recv(4096).startswith(b"READY=1\n"):
                pass
    site.meet("A", "B")
    sent = site.command("A", "send", str(make_file(site.folder, 100_000)), "--timeout", "30")
    assert sent.returncode == 0, sent.stderr
    logs = "".join(site.log(name) for name in ("server", "A", "B"))
    for line in site.log("A").splitlines():
        assert {"time", "level", "logger", "message"} <= set(json.loads(line))
    for secret in secrets_of(site):
        assert secret not in logs


def elsewhere(site: Site, folder: str) -> list[str]:
    """Return what starts another agent as device A."""
    flags = site.agent_flags("A")
    flags[flags.index("--state") + 1] = str(site.folder / folder)
    flags[flags.index("--ready-file") + 1] = str(site.folder / f"{folder}.ready")
    return flags


def test_what_is_wrong_with_a_host_is_one_sentence_and_harms_nobody(site: Site, tmp_path: Path) -> None:
    for device in ("A", "B"):
        site.start_agent(device)
    site.meet("A", "B")
    links = site.ask("B", "/changes")["links"]
    shutil.copytree(site.folder / "A", site.folder / "copy", ignore=shutil.ignore_patterns("*.sock"))
    copy = subprocess.Popen(
        [sys.executable, "-m", "agent", *elsewhere(site, "copy")], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    site.begun.append(copy)
    for ended, code, words in mistakes(site, tmp_path):
        check_sentence(ended, code, words)
    _, error = copy.communicate(timeout=60)
    ended = subprocess.CompletedProcess(copy.args, copy.returncode, "", error)
    check_sentence(ended, 1, "another agent runs as device 'A' of group 'lab'; stop one of them")
    assert site.ask("A", "/status")["attached"]
    assert site.ask("B", "/changes")["links"] == links


def mistakes(site: Site, folder: Path) -> Iterator[tuple[subprocess.CompletedProcess[str], int, str]]:
    """Make one mistake after the other; yield how it ended, and with which code and words it should have."""
    port = site.url.rpartition(":")[2]
    file = folder / "a-file"
    file.write_text("")
    typo = folder / "typo.toml"
    typo.write_text('group = "lab"\n\nlog-levle = "debug"\n')
    words = f"{typo}:3: no setting is called 'log-levle'; did you mean 'log-level'?"
    yield run("agent", "config", "check", str(typo)), 2, words
    yield run("agent", "agent", "--config", str(typo)), 2, words
    yield run("agent", "agent", ARBORCAST_CONFIG=str(typo)), 2, words
    yield run("agent", "agent", "--config", str(folder / "none")), 2, f"cannot read {folder / 'none'}: No such file"
    agent = ("agent", "agent", "--server", site.url, "--group", "lab", "--device", "C", "--join-token", "x")
    yield run(*agent, "--log-format", "xml"), 2, "log format 'xml' is neither text nor json"
    yield run(*agent, "--state", str(file / "x")), 2, f"cannot use the state folder {file / 'x'}: Not a directory"
    yield run(*agent, "--state", str(folder / "y")), 1, "the token is not valid here"
    yield run("agent", *elsewhere(site, "other")), 1, "the group has a device 'A' already"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        number = taken.getsockname()[1]
        flags = (*agent, "--state", str(folder / "x"), "--listen", f"127.0.0.1:{number}")
        yield run(*flags), 1, f"cannot listen on UDP 127.0.0.1 port {number}: Address already in use"
    server = ("server", "run", "--state")
    yield run(*server, str(folder / "s"), "--port", port), 2, f"cannot listen on 127.0.0.1 port {port}: "
    yield run(*server, str(file / "s")), 2, f"cannot make the state directory {file / 's'}: "
    yield run(*server, str(site.folder / "server"), "--port", "0"), 2, "another server uses "


class Yesterday(BaseHTTPRequestHandler):
    """Answers whatever is asked, by a clock that is a day behind."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() - 86_400)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_new_device_whose_clock_is_wrong_is_told_so_and_does_not_enrol(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Yesterday) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        flags = ("--server", f"http://127.0.0.1:{server.server_port}", "--group", "lab", "--device", "A")
        ended = run("agent", "agent", *flags, "--state", str(tmp_path / "A"), "--join-token", "x")
        server.shutdown()
        serving.join(30)
    check_sentence(ended, 1, "this device's clock is 1 d ahead of the server's, and more than 10 min ")
    assert json.loads((tmp_path / "A" / "identity.json").read_text())["token"] is None
