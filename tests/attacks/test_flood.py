"""Floods of garbage while a file is on its way: it arrives, links stay, and the agent stays small.

How much slower it gets is measured by ``make bench-attack``, not here.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bench._flood import Kind
from bench._programs import Place, Programs
from tests.harness.attacked import Attacked, make_file, running

pytestmark = [pytest.mark.loopback, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

SIZE = 4_000_000
PER_S = 50_000
LEAST_SENT = 2_000
"""A host that is quick has the file across in a fifth of a second."""
MOST_S = 90.0
MOST_GROWTH_BYTES = 150 * 1024 * 1024
"""Of the relay: beside its buffers, what it keeps of a file that it receives and passes on."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Attacked]:
    """A, B and C, of whom A and C reach each other through B alone."""
    async with running(Attacked(tmp_path_factory.mktemp("lab"), "A B C", apart=["A-C"])) as system:
        yield system


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_file_crosses_a_relay_that_is_flooded(chain: Attacked, tmp_path: Path, kind: Kind) -> None:
    file = make_file(tmp_path, SIZE, f"{kind}.bin")
    target = (await chain.link("A", "B"))["address"]
    before = await chain.look("B")
    memory = resident(chain)
    async with Programs(Place(chain, 0)) as programs:
        flood = await programs.start("flood", "bench._flood", target, str(PER_S), str(MOST_S), kind)
        await flood.line()
        flood.go()
        await chain.send("A", file)
        await chain.arrives("C", file, within=MOST_S)
        await chain.arrives("B", file)
        flood.go()
        sent = (await flood.line())["sent"]
    after = await chain.look("B")
    assert sent > LEAST_SENT, "the flood went on while the file crossed"
    counted = sum(after["drops"].values()) - sum(before["drops"].values())
    # The kernel drops what the socket's buffer has no room for.
    assert 0 < counted <= sent
    assert [(link["peer"], link["state"], link["address"]) for link in after["links"]] == [
        (link["peer"], link["state"], link["address"]) for link in before["links"]
    ]
    assert resident(chain) - memory < MOST_GROWTH_BYTES


def resident(system: Attacked) -> int:
    """Return the bytes of memory that B's agent holds."""
    pages = int(Path(f"/proc/{system.pids()['agent B']}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
