"""Two links in one weather, a file and messages over both, and what they must not do to the devices.

Issue 3, "Bad weather": whatever a link does, everything completes, exactly once, without spinning and without growth.
"""

import random
from collections import Counter
from dataclasses import dataclass, field

from agent.core.events import MessageGap
from agent.core.hop import Hop
from common.limits import MAX_RANGES
from lab.happenings import Happening, Verb
from lab.scenario import LinkFigures, Scenario
from lab.simulator import Simulation

DEVICES = ("A", "B", "C")
LINKS = (("A", "B"), ("B", "C"))
RATE_BPS = 10e6
STEP_S = 0.05
MESSAGES = 40
QUIET_S = 30.0
"""A chunk whose acknowledgements get lost in bursts is given up after some probe timeouts, each twice the last one."""
FULL_BYTES = 1514

MOST_ALARMS_A_SECOND = 500
"""A pacer lets a train go every few milliseconds; one that spins wakes as often as the machine can."""
MOST_IDLE_ALARMS_A_SECOND = 60
SENT_MARGIN = 1.25
"""Times what the link takes in full datagrams, for repairs, for acknowledgements and for what its queue drops."""
SENT_SMALL_A_SECOND = 300
"""Beside those: acknowledgements, probes and small messages."""
MOST_FRAMES = 64
MOST_OWED_LISTS = 8
"""Epochs and kinds under which chunks may be owed to one peer at once."""
MOST_FLYING_BYTES = 1 << 20
"""Some bandwidth-delay products of the longest path: 300 ms of 10 Mbit/s are 375 kB."""
MOST_PACKETS = 2_048
"""Packets that one hop may remember: what is flying, and what was lost lately."""


@dataclass(frozen=True)
class Weather:
    """What the links do.

    Attributes:
        figures: of both links.
        happenings: what changes while the file is under way.
    """

    figures: LinkFigures
    happenings: tuple[Happening, ...] = ()


def calm(**figures: object) -> LinkFigures:
    """Return the figures of a link of 10 Mbit/s with 20 ms of round trip."""
    return LinkFigures(**{"rate_bps": RATE_BPS, "delay_s": 0.01, **figures})  # type: ignore[arg-type]


def changes(*steps: tuple[float, dict[str, float]]) -> tuple[Happening, ...]:
    """Return what gives both links new figures at some times."""
    return tuple(Happening(at, Verb.DEGRADE, link=link, figures=figures) for at, figures in steps for link in LINKS)


def black_out(link: tuple[str, str], begin: float, seconds: float) -> tuple[Happening, ...]:
    """Return a link's cut and its return."""
    return Happening(begin, Verb.CUT, link=link), Happening(begin + seconds, Verb.RESTORE, link=link)


@dataclass
class Watch:
    """Watches a simulation a step at a time.

    Attributes:
        simulation: the simulation.
        peaks: the largest value of everything that must stay bounded.
        busiest: the most alarms of a device, and datagrams of one direction, in a second.
    """

    simulation: Simulation
    peaks: Counter[str] = field(default_factory=Counter)
    busiest: Counter[str] = field(default_factory=Counter)
    _history: list[dict[str, int]] = field(default_factory=list)

    def step(self) -> None:
        """Let a moment pass, and look."""
        self.simulation.run_for(STEP_S)
        network, steps = self.simulation.network, round(1.0 / STEP_S)
        counts = {f"alarms of {device}": self.simulation.alarms(device) for device in DEVICES}
        for a, b in LINKS:
            counts[f"sent {a} to {b}"], counts[f"sent {b} to {a}"] = network.sent(a, b), network.sent(b, a)
        self._history = [*self._history[-steps:], counts]
        for name, count in counts.items():
            self.busiest[name] = max(self.busiest[name], count - self._history[0][name])
        for device in DEVICES:
            node = self.simulation.node(device)
            self._note("orphans", node.forwarder.orphans._held)
            for hop in node.peers.hops.values():
                self._note_hop(hop)

    def check(self, rate_bps: float) -> None:
        """Hold the busiest second and the peaks to their bounds."""
        most_sent = SENT_MARGIN * rate_bps / 8 / FULL_BYTES + SENT_SMALL_A_SECOND
        for name, count in self.busiest.items():
            assert count <= (MOST_ALARMS_A_SECOND if "alarms" in name else most_sent), (name, count)
        bounds = {
            "orphans": 64,
            "frames": MOST_FRAMES,
            "owed lists": MOST_OWED_LISTS,
            "flying bytes": MOST_FLYING_BYTES,
            "packets": MOST_PACKETS,
            "ranges to acknowledge": MAX_RANGES,
        }
        for name, most in self.peaks.items():
            assert most <= bounds[name], (name, most)

    def check_rest(self) -> None:
        """Let everything come to rest, and see that it does, with nothing left to do."""
        self.simulation.run_until(lambda: not self._left(), within=QUIET_S, what=f"rest with {self._left()} left")
        self.simulation.run_for(1.0)
        before = {device: self.simulation.alarms(device) for device in DEVICES}
        self.simulation.run_for(1.0)
        assert not self._left()
        for device in DEVICES:
            assert self.simulation.alarms(device) - before[device] <= MOST_IDLE_ALARMS_A_SECOND

    def _left(self) -> dict[str, int]:
        """Return what somebody still has to do."""
        left: Counter[str] = Counter()
        for device in DEVICES:
            node = self.simulation.node(device)
            left[f"orphans at {device}"] += node.forwarder.orphans._held
            for hop in node.peers.hops.values():
                left[f"frames from {device}"] += len(hop.frames.reliable)
                for cursor in hop.cursors.values():
                    left[f"owed and flying from {device}"] += cursor.owed_count() + len(cursor.flying)
        return +left

    def _note(self, what: str, value: int) -> None:
        self.peaks[what] = max(self.peaks[what], value)

    def _note_hop(self, hop: Hop) -> None:
        self._note("frames", len(hop.frames.reliable) + len(hop.frames.unreliable))
        self._note("flying bytes", hop.recovery.in_flight_bytes)
        self._note("packets", len(hop.recovery._packets))
        self._note("ranges to acknowledge", hop._acks._received.spans())
        for cursor in hop.cursors.values():
            self._note("owed lists", len(cursor.owed))


def endure(weather: Weather, *, seed: int, size_bytes: int = 500_000, within: float = 60.0) -> float:
    """Send a file and messages through a weather, and check all that must hold.

    Args:
        weather: what the links do.
        seed: all chance follows from it.
        size_bytes: of the file.
        within: simulated seconds in which all must be there.

    Returns:
        Simulated seconds until the file was verified everywhere.
    """
    scenario = Scenario(
        "weather", DEVICES, dict.fromkeys(LINKS, weather.figures), seed=seed, happenings=weather.happenings
    )
    payload = random.Random(seed).randbytes(size_bytes)
    spoken = [f"{number} ".encode() * (1 + 60 * (number % 5 == 0)) for number in range(MESSAGES)]
    rates = [weather.figures.rate_bps, *(each.figures.get("rate_bps", 0.0) for each in weather.happenings)]
    with Simulation(scenario) as simulation:
        simulation.settle()
        simulation.begin_happenings()
        began = simulation.now
        file = simulation.send_file("A", "files", "payload.bin", payload)
        watch = Watch(simulation)
        for message in spoken:
            simulation.publish("A", "messages", message)
            watch.step()
        while simulation.verified(file) != ["B", "C"] or any(len(simulation.messages(d)) < MESSAGES for d in "BC"):
            assert simulation.now - began < within, "not all is there in time"
            watch.step()
        took = simulation.now - began
        for device in "BC":
            assert simulation.content(device, file) == payload
            assert simulation.messages(device) == spoken, "once and in order"
            assert simulation.events(device, MessageGap) == []
        assert sum(simulation.network.crossings(*link).duplicates for link in LINKS) == 0
        watch.check_rest()
        watch.check(max(rates))
    return took
