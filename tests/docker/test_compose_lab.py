"""`docker compose up` for real: six devices that find each other, a file, and what happens to containers and networks.

The tests run in this order on one lab, and each leaves it as it found it, but for the last.
"""

import json
from collections.abc import Iterator

import pytest

from tests.docker.composed import (
    DEVICES,
    LINKS,
    ComposedLab,
    Failed,
    until,
    why_not,
)

REASON = why_not()
pytestmark = [pytest.mark.skipif(bool(REASON), reason=REASON), pytest.mark.timeout(900)]

MIB = 1 << 20
SIZE = 64 * MIB
MOST_CHUNKS = 1.05
"""Of chunks on a tree edge, against the file: their headers and tags, and what a busy host makes agents repeat."""
MOST_BESIDE = 0.5
"""Of everything else on a network, against the file: Ethernet's and IP's headers, acknowledgements, and the trains by
which agents measure links whose rate nobody told them; those of links as fast as a host's memory are long.
"""
MOST_CONTROL = 0.02
"""On a way to the server, against the file."""

LISTEN = """
import socket, sys, threading, time
tcp = socket.create_server(("0.0.0.0", 9999)); udp = socket.socket(type=socket.SOCK_DGRAM); udp.bind(("0.0.0.0", 9999))
def echo():
    while True:
        data, peer = udp.recvfrom(100); udp.sendto(data, peer)
threading.Thread(target=echo, daemon=True).start()
time.sleep(float(sys.argv[1]))
"""
PROBE = """
import json, socket, sys
reached = []
for host in sys.argv[1:]:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect((host, 9999)); kind == socket.SOCK_DGRAM and (probe.send(b"x"), probe.recv(100))
                reached.append([host, kind.name])
            except OSError:
                pass
print(json.dumps(reached))
"""
EVICT = """
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="/var/lib/arborcast/tls-cert.pem")
url = "https://127.0.0.1:8640/v1/groups/lab/devices/" + sys.argv[1]
request = urllib.request.Request(url, method="DELETE")
request.add_header("Authorization", "Bearer " + open("/var/lib/arborcast/admin-token").read().strip())
print(urllib.request.urlopen(request, context=context, timeout=10).status)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[ComposedLab]:
    """Bring the lab up once, and take it down whatever happened."""
    lab = ComposedLab(network="10.214")
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


def test_every_container_comes_to_be_healthy_and_has_no_rights(lab: ComposedLab) -> None:
    def healthy(service: str) -> bool | None:
        return (
            lab.docker("inspect", "--format", "{{.State.Health.Status}}", lab.container(service)) == "healthy" or None
        )

    for service in ("server", *DEVICES):
        until(lambda service=service: healthy(service), f"{service} is healthy")  # type: ignore[misc]
        status = lab.execute(service, "cat", "/proc/1/status")
        rights = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if len(line.split()) > 1}
        assert rights["CapEff"] == rights["CapPrm"] == "0" * 16
        assert (rights["Uid"], rights["NoNewPrivs"]) != ("0", "0")
        with pytest.raises(Failed, match="Read-only file system"):
            lab.execute(service, "touch", "/opt/here")


def test_devices_link_with_those_they_share_a_network_with_and_reach_no_others(lab: ComposedLab) -> None:
    for device in DEVICES:
        partners = {name for link in LINKS if device in link for name in link.upper()} - {device.upper()}

        def open_links(device: str = device, partners: set[str] = partners) -> bool | None:
            links = lab.status(device)["links"]
            return {link["peer"] for link in links if link["state"] == "open"} == partners or None

        until(open_links, f"{device} has links to {sorted(partners)} and no others")
        control = lab.addresses(device)[f"control-{device}"]
        assert all(not address.startswith(f"{control}:") for address in lab.status(device)["candidates"])
    lab.docker("exec", "--detach", lab.container("f"), "python3", "-c", LISTEN, "60")
    addresses = lab.addresses("f")
    from_d = until(
        lambda: json.loads(lab.python("d", PROBE, *addresses.values())) or None, "D reaches the listener of F"
    )
    assert from_d == [[addresses["df"], "SOCK_STREAM"], [addresses["df"], "SOCK_DGRAM"]]
    assert json.loads(lab.python("a", PROBE, *addresses.values())) == []


def test_a_file_crosses_each_edge_of_the_tree_once(lab: ComposedLab) -> None:
    wanted = lab.make_file("a", "big.bin", SIZE)
    before = {device: lab.counted(device) for device in DEVICES}
    told_before = {device: _told(lab, device) for device in DEVICES}
    epoch = lab.graph()["epoch"]
    told = lab.send("a", "big.bin", "--timeout", "600", within=650)
    assert told["ok"] is True
    assert {device: lab.received(device, "big.bin") for device in DEVICES[1:]} == dict.fromkeys(DEVICES[1:], wanted)
    after = {device: lab.counted(device) for device in DEVICES}
    stayed = lab.graph()["epoch"] == epoch
    edges = total = 0
    for link in LINKS:
        near, far = link
        kernel = sum(after[end][link][0] - before[end][link][0] for end in (near, far))
        agents = sum(_told(lab, end)[other] - told_before[end][other] for end, other in ((near, far), (far, near)))
        print(f"{link}: {kernel / SIZE:.4f} x file by the kernel, {agents / SIZE:.4f} of chunks by the agents")  # noqa: T201
        assert agents <= kernel <= agents + MOST_BESIDE * SIZE
        assert agents <= MOST_CHUNKS * SIZE, "no network carries it twice, whether or not the tree moved meanwhile"
        assert agents == 0 or agents >= SIZE or not stayed
        edges += agents > 0
        total += agents
    assert (len(DEVICES) - 1) * SIZE <= total <= (len(DEVICES) - 1) * MOST_CHUNKS * SIZE
    assert edges == len(DEVICES) - 1 or not stayed
    # Nothing of it went by way of the server: its networks carried control alone.
    for device in DEVICES:
        control = f"control-{device}"
        assert after[device][control][0] - before[device][control][0] < MOST_CONTROL * SIZE


def _told(lab: ComposedLab, device: str) -> dict[str, int]:
    """Return the bytes of chunks that an agent says it sent to each peer."""
    sent = dict.fromkeys(DEVICES, 0)
    return sent | {link["peer"].lower(): link["data_bytes_sent"] for link in lab.status(device)["links"]}


def test_curl_on_this_host_shows_the_graph(lab: ComposedLab) -> None:
    graph = lab.settled()
    links = {link.upper() for link in LINKS}
    for tree in graph["trees"]:
        assert len(tree["edges"]) == len(DEVICES) - 1
        assert {"".join(edge) for edge in tree["edges"]} <= links


def test_a_link_whose_network_is_taken_away_is_gone_round(lab: ComposedLab) -> None:
    wanted = lab.make_file("a", "round.bin", 16 * MIB)
    network, container = f"{lab.project}_ab", lab.container("b")
    address = lab.addresses("b")["ab"]
    lab.send("a", "round.bin", "--wait", "none")
    lab.docker("network", "disconnect", network, container)
    try:
        for device in DEVICES[1:]:
            got = until(lambda device=device: lab.received(device, "round.bin"), f"{device} has it")  # type: ignore[misc]
            assert got == wanted
        until(
            lambda: ["A", "B"] not in lab.graph()["trees"][0]["edges"] or None, "the graph has no edge where no link is"
        )
    finally:
        lab.docker("network", "connect", "--ip", address, network, container)
    until(
        lambda: any(link["peer"] == "A" and link["state"] == "open" for link in lab.status("b")["links"]) or None,
        "B has its link to A again",
    )


def test_a_relay_that_is_killed_is_gone_round_and_catches_up_when_it_is_back(lab: ComposedLab) -> None:
    # So long that it is under way when the relay dies, however fast the host.
    wanted = lab.make_file("a", "killed.bin", 160 * MIB)
    lab.send("a", "killed.bin", "--wait", "none")
    relay = lab.container("b")
    lab.docker("kill", relay)
    try:
        for device in ("c", "d", "f"):
            got = until(lambda device=device: lab.received(device, "killed.bin"), f"{device} has it", within=300)  # type: ignore[misc]
            assert got == wanted
        # E has no way but through B.
        assert lab.received("e", "killed.bin") is None
    finally:
        lab.docker("start", relay)
    for device in ("b", "e"):
        got = until(lambda device=device: lab.received(device, "killed.bin"), f"{device} has it", within=300)  # type: ignore[misc]
        assert got == wanted
    lab.settled()


def test_data_flows_while_the_server_is_away_and_epochs_grow_after_it(lab: ComposedLab) -> None:
    epoch = lab.settled()["epoch"]
    wanted = lab.make_file("a", "alone.bin", 16 * MIB)
    lab.compose("kill", "server")
    try:
        assert lab.send("a", "alone.bin", "--timeout", "300", within=350)["ok"] is True
        assert lab.received("f", "alone.bin") == wanted
    finally:
        lab.compose("start", "server")
    until(lambda: all(lab.status(device)["attached"] for device in DEVICES) or None, "all agents are attached again")
    assert lab.settled()["epoch"] >= epoch


def test_the_second_file_limits_what_leaves_a_device_on_each_network(lab: ComposedLab) -> None:
    shaped = ComposedLab(("docker-compose.yml", "docker-compose.shaped.yml"), network="10.214", port=lab.port)
    shaped.compose("up", "--no-recreate", "shape-b", within=300)
    said = shaped.compose("logs", "shape-b")
    for limit in ("in 10.214.11.0/24: 100mbit", "in 10.214.13.0/24: 20mbit", "in 10.214.14.0/24: 50mbit"):
        assert limit in said
    assert lab.execute("b", "cat", "/proc/1/status").count("CapEff:\t" + "0" * 16) == 1, "the agent has no such right"


def test_an_agent_that_is_stopped_leaves_in_time(lab: ComposedLab) -> None:
    lab.compose("stop", "e")
    assert lab.docker("inspect", "--format", "{{.State.ExitCode}}", lab.container("e")) == "0"
    lab.settled([device for device in DEVICES if device != "e"])
    lab.compose("start", "e")
    lab.settled()


def test_a_device_that_is_evicted_is_cut_off_and_the_others_go_on(lab: ComposedLab) -> None:
    assert lab.python("server", EVICT, "F").strip() == "204"
    rest = [device for device in DEVICES if device != "f"]
    assert lab.settled(rest)["devices"] == [device.upper() for device in rest]
    wanted = lab.make_file("a", "without.bin", MIB)
    assert lab.send("a", "without.bin", "--timeout", "300", within=350)["ok"] is True
    assert lab.received("e", "without.bin") == wanted
    assert all(link["peer"] != "F" or link["state"] != "open" for link in lab.status("d")["links"])
    sentence = "does not accept device 'F' of group 'lab' any more"
    said = until(lambda: _logged(lab, "f", sentence), "F says why it ends")
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_told_and_makes_the_start_fail(lab: ComposedLab) -> None:
    other = ComposedLab(network="10.215", port=lab.port)
    try:
        with pytest.raises(Failed, match=r"(?i)address already in use|port is already allocated"):
            other.compose("up", "--detach", "server", within=300)
    finally:
        other.down()


def test_nothing_is_left_of_it(lab: ComposedLab) -> None:
    lab.down()
    for kind in ("container", "network", "volume"):
        everything = ["--all"] if kind == "container" else []
        chosen = f"label=com.docker.compose.project={lab.project}"
        assert lab.docker(kind, "ls", "--quiet", *everything, "--filter", chosen) == ""


def _logged(lab: ComposedLab, service: str, sentence: str) -> str | None:
    """Return what a service said lately, once a sentence is in it."""
    said = lab.compose("logs", "--tail", "50", service)
    return said if sentence in said else None
