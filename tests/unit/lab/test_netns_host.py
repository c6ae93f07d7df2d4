import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from common.errors import ConfigError
from lab import netns_host
from lab.netns_host import (
    HostRefused,
    access_bytes,
    check_host,
    ethernet_bytes,
    furnish,
    furnish_public,
    has_netem,
    has_nft,
    make,
    make_public,
    remove,
    run,
    sweep,
)
from lab.netns_internet import PublicNetwork
from lab.netns_plan import Owner, Plan
from lab.scenario import Access, LinkFigures, Scenario

PAIR = Scenario(name="pair", devices=("A", "B"), links={("A", "B"): LinkFigures(rate_bps=10e6, delay_s=0.0)})
PLAN = Plan(PAIR, Owner(1, 2), 3)


class Host:
    """Stands in for ``ip`` and ``tc``."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.lines: list[str] = []
        self.answers: dict[str, str] = {}
        self.refuses: str | None = None

    def run(self, command: Sequence[str], text: str = "") -> str:
        self.commands.append(list(command))
        self.lines += text.splitlines()
        said = " ".join(command)
        if self.refuses is not None and self.refuses in said:
            raise HostRefused(f"{said}: no")
        return next((answer for part, answer in self.answers.items() if part in said), "")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    found = Host()
    monkeypatch.setattr(netns_host, "run", found.run)
    monkeypatch.setattr(netns_host, "NAMESPACES", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/sbin/{tool}")
    monkeypatch.setattr(sys, "platform", "linux")
    return found


def test_a_host_that_can_do_it_is_not_refused(host: Host) -> None:
    check_host()
    assert host.commands[0][:3] == ["ip", "netns", "add"]


def test_who_is_not_root_is_told_so_in_one_sentence(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match=r"takes Linux, root and iproute2; this is not root$"):
        check_host()
    assert host.commands == []


def test_a_host_without_iproute2_is_told_what_is_missing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(ConfigError, match=r"this is without ip and tc$"):
        check_host()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="this is not Linux"):
        check_host()
    assert host.commands == []


def test_a_root_that_may_not_make_namespaces_is_told_what_the_host_said(host: Host) -> None:
    host.refuses = "netns add"
    with pytest.raises(ConfigError, match=r"this host refuses it: ip netns add .*: no"):
        check_host()


def test_netem_is_tried_on_a_namespace_of_its_own(host: Host) -> None:
    assert has_netem()
    host.refuses = "netem"
    assert not has_netem()


def test_a_process_is_known_by_its_start(tmp_path: Path) -> None:
    own = netns_host.this_owner()
    assert own.pid == os.getpid()
    assert (netns_host.started_at(os.getpid()) or 0) == own.started
    assert netns_host.started_at(2**22 + 1) is None


def test_only_what_dead_runs_left_is_swept_away(host: Host, tmp_path: Path) -> None:
    own = netns_host.this_owner()
    names = [
        f"arborcast-{own.pid}.{own.started}.1-A",
        f"arborcast-{own.pid}.{own.started + 1}.1-A",
        f"arborcast-{2**22 + 1}.5.1-server",
        "arborcast-of-somebody-else",
        "other",
    ]
    for name in names:
        (tmp_path / name).touch()
    assert sweep() == sorted(names[1:3])
    deleted = [command[-1] for command in host.commands if command[:3] == ["ip", "netns", "delete"]]
    assert deleted == sorted(names[1:3])


def test_a_namespace_is_removed_with_its_processes(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []

    def kill(pid: int, how: int) -> None:
        killed.append(pid)
        if pid == 7:
            raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    host.answers = {"netns pids": "7\n8\n"}
    (tmp_path / "there").touch()
    remove(["gone", "there"])
    assert killed == [7, 8]
    assert host.commands[-1] == ["ip", "netns", "delete", "there"]
    host.refuses = "netns"
    remove(["there"])


def test_everything_is_made_in_few_commands(host: Host) -> None:
    make(PLAN, ())
    furnish(PLAN, ())
    assert host.commands[0] == ["ip", "-batch", "-"]
    assert ["tc", "-n", PLAN.namespace("A"), "-batch", "-"] in host.commands
    assert len(host.commands) == 1 + 4 + 2
    assert host.lines[0] == f"netns add {PLAN.server}"


def test_a_shaper_counts_the_headers_that_an_interface_does_not_see(host: Host) -> None:
    links = [{"ifname": "link0", "stats64": {"tx": {"bytes": 1000}}}, {"ifname": "lo", "stats64": {"tx": {"bytes": 5}}}]
    queues = [
        {"kind": "tbf", "dev": "link0", "root": True, "bytes": 1100},
        {"kind": "noqueue", "dev": "lo", "root": True, "bytes": 0},
    ]
    host.answers = {f"ip -n {PLAN.namespace('A')}": json.dumps(links), "ip -n": json.dumps(links[:1])}
    host.answers[f"tc -n {PLAN.namespace('A')}"] = json.dumps(queues)
    host.answers["tc -n"] = json.dumps(queues[1:])
    assert ethernet_bytes(PLAN) == {("A", "B"): (1100, 1000)}


def test_a_command_that_fails_is_told_with_what_it_said() -> None:
    assert run([sys.executable, "-c", "print(input())"], "hello\n") == "hello\n"
    with pytest.raises(HostRefused, match="exit code 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(HostRefused, match="not this"):
        run([sys.executable, "-c", "raise SystemExit('not this')"])
    with pytest.raises(HostRefused, match="no-such-program"):
        run(["./no-such-program"])


ONLINE = Scenario(
    name="online", devices=("A", "B"), links={}, internet={"A": Access("open"), "B": Access("port-restricted")}
)
PUBLIC = PublicNetwork(Plan(ONLINE, Owner(1, 2), 3))


def test_a_public_network_is_made_shaped_and_ruled_in_its_namespaces(host: Host) -> None:
    make_public(PUBLIC, ())
    furnish_public(PUBLIC, ())
    said = [" ".join(command) for command in host.commands]
    box = PUBLIC.near_end("B")
    assert said[0] == "ip -batch -"
    assert f"tc -n {box} -batch -" in said
    assert said[-2] == f"ip netns exec {box} nft -f -"
    assert "echo 1 > /proc/sys/net/ipv4/ip_forward" in said[-1]
    assert f"netns add {box}" in host.lines


def test_nftables_are_tried_on_a_namespace_of_its_own(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_nft()
    host.refuses = "nft"
    assert not has_nft()
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    assert not has_nft()


def test_the_bytes_of_access_links_are_counted_at_both_ends(host: Host) -> None:
    def interface(name: str, sent: int) -> dict[str, object]:
        return {"ifname": name, "stats64": {"tx": {"bytes": sent}}}

    middle = json.dumps([interface("port0", 30), interface("port1", 40)])
    host.answers = {f"-n {PUBLIC.middle} -s -j link": middle, "-s -j link": json.dumps([interface("wan", 50)])}
    host.answers["qdisc"] = "[]"
    assert access_bytes(PUBLIC) == {"A": (50, 30), "B": (50, 40)}
    assert access_bytes(PublicNetwork(PLAN)) == {}
