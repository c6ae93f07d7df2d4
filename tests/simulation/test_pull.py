"""What the tree did not bring is pulled: once, from one neighbour, and at the link's pace."""

import random
from dataclasses import replace

import pytest

from agent.core import exchange
from lab.happenings import Happening, Verb
from lab.progress import QuietWatcher
from lab.scenario import LinkFigures, Scenario
from lab.simulated_run import run_simulation
from lab.simulator import Simulation

MIB = 1 << 20
RESTORED = ("A", "C")


def test_a_link_that_comes_back_does_not_bring_what_came_another_way() -> None:
    links = {
        ("A", "B"): LinkFigures(25e6, 0.005),
        RESTORED: LinkFigures(25e6, 0.005),
        ("B", "C"): LinkFigures(10e6, 0.005),
    }
    happenings = (
        Happening(0.3, Verb.CUT, link=RESTORED),
        Happening(0.5, Verb.KILL),
        Happening(2.0, Verb.START),
        Happening(3.5, Verb.RESTORE, link=RESTORED),
    )
    scenario = Scenario("restored", ("A", "B", "C"), links, happenings=happenings)
    payload = random.Random(1).randbytes(4 * MIB)
    report = run_simulation(
        scenario, data=payload, name="payload", source="A", seed=1, within=None, watcher=QuietWatcher()
    )
    assert report.channels["B", "C"].repairs > 0, "what C missed was pulled from B meanwhile"
    assert report.wasteful == []
    assert report.ok


def test_a_late_joiner_pulls_at_the_links_pace_with_little_owed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ASKED_BYTES", MIB // 2)
    rate_bps, size_bytes = 10e6, 4 * MIB
    line = Scenario("late", ("A", "B", "C"), dict.fromkeys((("A", "B"), ("B", "C")), LinkFigures(rate_bps, 0.005)))
    with Simulation(replace(line, links={**line.links, ("A", "B"): LinkFigures(100e6)})) as simulation:
        simulation.settle()
        simulation.kill("C")
        simulation.run_for(1.0)
        stream = simulation.send_file("A", "files", "payload.bin", random.Random(1).randbytes(size_bytes))
        simulation.run_until(lambda: simulation.verified(stream) == ["B"], what="the file at B")
        simulation.run_for(2.0)
        began = simulation.now
        simulation.start("C")
        owed: list[int] = []

        def finished() -> bool:
            hop = simulation.node("B").peers.hops.get("C")
            cursor = None if hop is None else hop.cursors.get(int(stream[:8], 16))
            if cursor is not None:
                owed.append(cursor.owed_count())
            return simulation.verified(stream) == ["B", "C"]

        simulation.run_until(finished, what="the file at C")
        assert simulation.now - began <= 8 * size_bytes / (0.8 * rate_bps), "handshake and first HAVE included"
        assert max(owed) * simulation.node("B").streams.by_short[int(stream[:8], 16)].stream.opening.piece_bytes <= MIB
        crossings = simulation.network.crossings("B", "C", stream)
        assert crossings.needless <= 2
