"""An interface that is removed while data flows over it: the data goes round."""

import asyncio
from pathlib import Path

import pytest

from common.errors import ConfigError
from lab.loopback_run import LoopbackRun
from lab.netns import NetnsSystem, check_netns
from lab.netns_host import run
from lab.progress import QuietWatcher
from lab.scenario import LinkFigures, Scenario

FILE_BYTES = 8_000_000
TRIANGLE = Scenario(
    "triangle",
    ("A", "B", "C"),
    {
        ("A", "B"): LinkFigures(30e6, delay_s=0.0),
        ("A", "C"): LinkFigures(20e6, delay_s=0.0),
        ("B", "C"): LinkFigures(15e6, delay_s=0.0),
    },
    datagram_bytes=1_472,
)


@pytest.mark.timeout(120)
def test_a_file_arrives_although_the_interface_that_it_flows_over_is_removed(tmp_path: Path) -> None:
    try:
        check_netns(TRIANGLE, None)
    except ConfigError as error:
        pytest.skip(str(error))
    payload = tmp_path / "payload.bin"
    payload.write_bytes(bytes(range(256)) * (FILE_BYTES // 256))

    async def transfer() -> None:
        system = NetnsSystem(TRIANGLE, tmp_path / "lab", QuietWatcher())
        try:
            await system.start()
            await system.span()
            sending = LoopbackRun(system, file=payload, source="A", within=60.0, watcher=QuietWatcher())
            removed = asyncio.create_task(remove_in_mid_stream(system))
            report = await sending.run()
            await removed
            status = await system.status("A")
        finally:
            await system.stop()
        assert [outcome.note for outcome in report.devices.values()] == ["", ""]
        assert all(outcome.sha256_ok for outcome in report.devices.values())
        assert status is not None
        assert [link["state"] for link in status["links"] if link["peer"] == "B"] != ["open"]

    asyncio.run(transfer())


async def remove_in_mid_stream(system: NetnsSystem) -> None:
    """Remove the link between A and B, with both its interfaces, once B has some of the file."""
    while True:
        status = await system.status("B")
        if status is not None and any(link["chunks_received"] > 300 for link in status["links"]):
            break
        await asyncio.sleep(0.05)
    run(["ip", "-n", system.plan.namespace("A"), "link", "delete", system.plan.interface(("A", "B"))])
