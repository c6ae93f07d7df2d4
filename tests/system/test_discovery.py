"""A real server and a real agent: where the agent is, as the server's STUN responder sees it."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.test_agent_process import ROOT, Site, site, until

__all__ = ["site"]
pytestmark = [pytest.mark.loopback, pytest.mark.timeout(120)]


def binding(port: int, *, host: str = "127.0.0.1") -> tuple[bytes, tuple[str, int]]:
    """Ask by a request written by hand; return the answer and this client's own address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
        raw.bind((host, 0))
        raw.settimeout(10)
        raw.sendto(bytes.fromhex("0001 0000 2112a442") + b"transaction!", ("127.0.0.1", port))
        return raw.recv(2_000), raw.getsockname()


def test_twenty_bytes_of_any_client_get_the_right_answer(site: Site) -> None:
    port = json.loads((site.folder / "server.ready").read_text())["stun_port"]
    assert port == int(site.url.rpartition(":")[2])
    for asked in (port, port + 1):
        answer, (_, own) = binding(asked)
        assert answer[:20] == bytes.fromhex("0101 000c 2112a442") + b"transaction!"
        assert answer[20:26] == bytes.fromhex("0020 0008 0001")
        assert int.from_bytes(answer[26:28], "big") ^ 0x2112 == own
        assert int.from_bytes(answer[28:32], "big") ^ 0x2112A442 == 0x7F000001


def test_an_agent_learns_and_tells_the_address_that_the_servers_responder_saw(site: Site) -> None:
    site.start_agent("A")
    address = site.ask("A", "/status")["udp_address"]
    # Both of the server's ports saw the socket's own address: no NAT.
    until(lambda: site.ask("A", "/status")["mapping"] == "none")
    status = site.ask("A", "/status")
    assert (status["reflexive"], status["candidates"]) == ([address], [address])
    shown = site.command("A", "status").stdout
    assert f"reached at {address}; seen at {address} (no NAT)" in shown
    site.start_agent("B")
    site.meet("A", "B")
    assert site.ask("B", "/status")["missing"] == []


def test_an_agent_on_all_interfaces_links_and_tells_each_of_its_addresses(site: Site) -> None:
    for device in "AB":
        flags = site.agent_flags(device)
        at = flags.index("--listen")
        del flags[at : at + 2]
        ready = site.folder / f"{device}.ready"
        site._start(device, "agent", *flags)
        until(ready.exists)
    site.meet("A", "B")
    status = site.ask("A", "/status")
    port = status["udp_address"].rpartition(":")[2]
    assert f"127.0.0.1:{port}" in status["candidates"]
    assert len(status["candidates"]) == len(set(status["candidates"]))
    until(lambda: site.ask("A", "/status")["mapping"] == "none")


def test_a_member_that_may_not_be_reached_is_listed_with_the_reason(site: Site) -> None:
    site.start_agent("A", "--only-peer", "C", "--stun", "off")
    site.start_agent("B", "--deny", "127.0.0.0/8", "--stun", "off")
    until(lambda: site.ask("B", "/status")["missing"])
    assert site.ask("B", "/status")["candidates"] == []
    assert site.ask("B", "/status")["missing"] == [{"peer": "A", "reason": "its addresses are all denied"}]
    until(lambda: site.ask("A", "/status")["missing"])
    assert site.ask("A", "/status")["missing"] == [{"peer": "B", "reason": "not in --only-peer"}]
    assert site.ask("A", "/status")["mapping"] == "unknown"


def test_a_stun_server_without_an_address_is_no_reason_to_end(site: Site) -> None:
    site.start_agent("A", "--stun", "no.such.host.invalid:3478")
    until(lambda: "STUN server 'no.such.host.invalid' has no address" in site.log("A"))
    until(lambda: site.ask("A", "/status")["attached"])
    assert site.stop("A") == 0


def test_a_stun_port_that_is_taken_ends_the_server_in_a_sentence(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        arguments = ["run", "--state", str(tmp_path), "--port", "0", "--stun-port", port]
        ended = subprocess.run(
            [sys.executable, "-m", "server", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"arborcast-server: cannot listen for STUN on UDP 127.0.0.1 port {port}: ")
    assert ended.stderr.count("\n") == 1
