"""Each NAT box in namespaces does what its name says, to small UDP scripts in the places of agents."""

import asyncio
import json
import sys
from collections.abc import Iterator

import pytest

from common.errors import ConfigError
from lab.nat import Kind
from lab.netns import NetnsSystem, check_netns
from lab.netns_host import furnish, furnish_public, make, make_public, remove
from lab.netns_internet import PublicNetwork
from lab.netns_plan import Plan
from lab.progress import QuietWatcher
from lab.scenario import Access, Scenario

INSIDE = 7400
PORTS = (5000, 5001)
KINDS = {kind.value: Access(kind.value) for kind in Kind if kind is not Kind.OPEN}
SCENARIO = Scenario(
    name="boxes",
    devices=("peer", "other", *KINDS),
    links={},
    internet={**KINDS, "peer": Access("open"), "other": Access("open")},
)

# Reads lines of JSON: [port, host, port, text] is sent from the first port. Says what arrives where, and from whom.
SCRIPT = """
import asyncio, json, sys
async def main():
    loop = asyncio.get_running_loop()
    sockets = {}
    class Ear(asyncio.DatagramProtocol):
        def __init__(self, port): self.port = port
        def datagram_received(self, data, source):
            print(json.dumps([self.port, data.decode(), list(source)]), flush=True)
    for port in map(int, sys.argv[1:]):
        sockets[port], _ = await loop.create_datagram_endpoint(lambda: Ear(port), local_addr=("0.0.0.0", port))
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps("ready"), flush=True)
    while line := await reader.readline():
        source, host, port, text = json.loads(line)
        sockets[source].sendto(text.encode(), (host, port))
asyncio.run(main())
"""


class Host:
    """A script that sends and tells what it receives."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def send(self, port: int, target: tuple[str, int], text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([port, *target, text]).encode() + b"\n")

    async def hear(self) -> tuple[int, str, tuple[str, int]]:
        """Return on which port what text came from whom."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 10)
        port, text, source = json.loads(line)
        return port, text, (source[0], source[1])

    async def ready(self) -> None:
        assert self._process.stdout is not None
        assert json.loads(await asyncio.wait_for(self._process.stdout.readline(), 20)) == "ready"

    async def end(self) -> None:
        self._process.kill()
        await self._process.communicate()


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    try:
        check_netns(SCENARIO, None)
    except ConfigError as error:
        pytest.skip(str(error))
    system = NetnsSystem(SCENARIO, tmp_path_factory.mktemp("boxes"), QuietWatcher())
    try:
        make(system.plan, ())
        make_public(system.public, ())
        furnish(system.plan, ())
        furnish_public(system.public, ())
        yield system.plan
    finally:
        remove((*system.plan.namespaces, *system.public.namespaces))


async def start(plan: Plan, device: str, *ports: int) -> Host:
    command = plan.inside(plan.namespace(device), [sys.executable, "-c", SCRIPT, *map(str, ports)])
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    host = Host(process)
    await host.ready()
    return host


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("kind", "comes_in"),
    [
        (Kind.ENDPOINT_INDEPENDENT, {"same", "other port", "other host"}),
        (Kind.ADDRESS_RESTRICTED, {"same", "other port"}),
        (Kind.PORT_RESTRICTED, {"same"}),
        (Kind.SYMMETRIC, {"same"}),
    ],
)
async def test_a_box_maps_and_filters_as_its_name_says(plan: Plan, kind: Kind, comes_in: set[str]) -> None:
    public = PublicNetwork(plan)
    peer_host, other_host = public.public_host("peer"), public.public_host("other")
    peer, other, inside = [
        await start(plan, "peer", *PORTS),
        await start(plan, "other", PORTS[0]),
        await start(plan, kind.value, INSIDE),
    ]
    try:
        # Unasked: nobody comes in, and what tried leaves no trace that would spoil the mapping.
        peer.send(PORTS[0], (public.public_host(kind.value), INSIDE), "unasked")
        await asyncio.sleep(0.2)
        inside.send(INSIDE, (peer_host, PORTS[0]), "out")
        _, _, mapped = await peer.hear()
        assert mapped[0] == public.public_host(kind.value)
        assert (mapped[1] == INSIDE) is (kind is not Kind.SYMMETRIC)
        other.send(PORTS[0], mapped, "other host")
        peer.send(PORTS[1], mapped, "other port")
        await asyncio.sleep(0.2)
        peer.send(PORTS[0], mapped, "same")
        heard = {(await inside.hear())[1] for _ in comes_in}
        assert heard == comes_in
        for target in ((peer_host, PORTS[1]), (other_host, PORTS[0])):
            inside.send(INSIDE, target, "out")
        seen = [(await peer.hear())[2], (await other.hear())[2]]
        assert (seen == [mapped, mapped]) is (kind is not Kind.SYMMETRIC)
        # The answers to these come in everywhere.
        other.send(PORTS[0], seen[1], "answer")
        assert (await inside.hear())[1:] == ("answer", (other_host, PORTS[0]))
    finally:
        for host in (peer, other, inside):
            await host.end()


@pytest.mark.timeout(60)
async def test_two_devices_behind_port_restricted_boxes_punch_a_hole(plan: Plan) -> None:
    public = PublicNetwork(plan)
    one, two = "port-restricted", "address-restricted"
    a, b = await start(plan, one, 7500), await start(plan, two, 7500)
    try:
        for _ in range(2):
            a.send(7500, (public.public_host(two), 7500), "from a")
            b.send(7500, (public.public_host(one), 7500), "from b")
            await asyncio.sleep(0.1)
        assert (await a.hear())[1:] == ("from b", (public.public_host(two), 7500))
        assert (await b.hear())[1:] == ("from a", (public.public_host(one), 7500))
    finally:
        await a.end()
        await b.end()
