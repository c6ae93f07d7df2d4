"""What happened during a run, when it was noticed, and when data flowed again: cuts, killed devices, degraded links.

Detected: at the first link of whoever was hit that leaves the state ``open``, or at the first graph without the edge,
whichever was earlier; of a link that only got worse, at the first graph without it. Recovered: when, after that,
something new has reached every device that was cut off from the source and can still be reached otherwise.
What arrives over the old tree until the damage is noticed is not counted, and after that nothing can arrive but over
another: the first of the devices behind a dead edge has no other way to anything new.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from common.ids import DeviceId, LinkKey, link_key
from lab.happenings import Happening, Verb
from lab.scenario import Scenario
from lab.traces import Trace

_HARM: Final = (Verb.CUT, Verb.KILL, Verb.DEGRADE)


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """One thing that happened, and what came of it.

    Attributes:
        at: Seconds after the sending began.
        event: What happened, as the scenario says it.
        cut_off: The devices that were cut off from the source by it and could still be reached another way.
        detected_s: Seconds until it was noticed; None if it was not, or does no harm.
        recovered_s: Seconds until data reached all of `cut_off` again; None if it did not, or nobody was cut off.
    """

    at: float
    event: str
    cut_off: tuple[DeviceId, ...] = ()
    detected_s: float | None = None
    recovered_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in the report's JSON."""
        return {
            "at": round(self.at, 3),
            "event": self.event,
            "cut_off": list(self.cut_off),
            "detected_s": None if self.detected_s is None else round(self.detected_s, 4),
            "recovered_s": None if self.recovered_s is None else round(self.recovered_s, 4),
        }


def events_table(outcomes: Sequence[EventOutcome]) -> Table:
    """Return what happened as a table for people."""
    table = Table(title="events", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("at", justify="right")
    table.add_column("event", no_wrap=True)
    table.add_column("cut off")
    table.add_column("detected", justify="right", no_wrap=True)
    table.add_column("recovered", justify="right", no_wrap=True)
    for outcome in outcomes:
        table.add_row(
            f"{outcome.at:.2f} s",
            outcome.event,
            ", ".join(outcome.cut_off) or "–",
            *("–" if span is None else f"{1e3 * span:.0f} ms" for span in (outcome.detected_s, outcome.recovered_s)),
        )
    return table


@dataclass(frozen=True, slots=True)
class _Incident:
    happening: Happening
    at: float
    edges: frozenset[LinkKey]
    cut_off: tuple[DeviceId, ...]


class Incidents:
    """Keeps what happened, and works out afterwards what came of it."""

    def __init__(self, scenario: Scenario, source: DeviceId) -> None:
        """Begin with everything alive and whole.

        Args:
            scenario: Devices and links.
            source: Whose stream has to get through.
        """
        self._scenario = scenario
        self._source = source
        self._cut: set[LinkKey] = set()
        self._dead: set[DeviceId] = set()
        self._incidents: list[_Incident] = []

    def happens(self, happening: Happening, at: float, edges: Collection[LinkKey]) -> None:
        """Take down that something happens.

        Args:
            happening: What.
            at: When, on the traces' clock.
            edges: The stream's tree just before.
        """
        link, device = happening.link, happening.device
        if link is not None and happening.verb is not Verb.DEGRADE:
            (self._cut.add if happening.verb is Verb.CUT else self._cut.discard)(link)
        elif device is not None:
            (self._dead.add if happening.verb is Verb.KILL else self._dead.discard)(device)
        hit = [edge for edge in edges if edge == link or device in edge]
        cut_off: tuple[DeviceId, ...] = ()
        if happening.verb in _HARM and hit:
            reachable = self._reach([pair for pair in self._scenario.pairs if pair not in self._cut])
            spared = self._reach([edge for edge in edges if edge not in hit])
            before = _reach(self._source, edges)
            cut_off = tuple(sorted((before & reachable) - spared))
        self._incidents.append(_Incident(happening, at, frozenset(edges), cut_off))

    def outcomes(
        self, traces: Mapping[DeviceId, Trace], done: Mapping[DeviceId, float], *, began: float
    ) -> list[EventOutcome]:
        """Work out what came of everything, in the order in which it happened.

        Args:
            traces: What each device noticed.
            done: When each device had the whole stream, if it ever had.
            began: When the sending did.
        """
        return [self._outcome(number, traces, done, began) for number in range(len(self._incidents))]

    def _outcome(
        self, number: int, traces: Mapping[DeviceId, Trace], done: Mapping[DeviceId, float], began: float
    ) -> EventOutcome:
        incident = self._incidents[number]
        happening, at = incident.happening, incident.at
        waiting = tuple(device for device in incident.cut_off if done.get(device, at) >= at)
        found = self._detections(incident, traces) if happening.verb in _HARM else []
        detected = min((when for when in found if at <= when < self._undone(number)), default=None)
        recovered: float | None = None
        if detected is not None and waiting:
            # Who had it all before anybody noticed was not cut off from anything.
            times = [
                detected if done.get(device, detected + 1.0) <= detected else traces[device].first_arrival(detected)
                for device in waiting
            ]
            known = [when for when in times if when is not None]
            recovered = max(known) if len(known) == len(times) else None
        return EventOutcome(
            at=at - began,
            event=str(happening),
            cut_off=waiting,
            detected_s=None if detected is None else detected - at,
            recovered_s=None if recovered is None else recovered - at,
        )

    def _undone(self, number: int) -> float:
        """Return when the same link or device was hit, restored or started the next time."""
        target = self._incidents[number].happening
        return next(
            (
                later.at
                for later in self._incidents[number + 1 :]
                if (later.happening.link, later.happening.device) == (target.link, target.device)
            ),
            float("inf"),
        )

    def _detections(self, incident: _Incident, traces: Mapping[DeviceId, Trace]) -> list[float]:
        """Return the times at which somebody noticed something that may be due to an incident."""
        happening = incident.happening
        times: list[float] = []
        for device, peer in self._watchers(happening):
            trace = traces.get(device, Trace())
            if happening.verb is not Verb.DEGRADE:
                times += [note.at for note in trace.links if note.peer == peer and note.state != "open"]
            if link_key(device, peer) in incident.edges:
                times += [note.at for note in trace.graphs if peer not in note.neighbours]
        return [when for when in times if when >= incident.at]

    def _watchers(self, happening: Happening) -> list[tuple[DeviceId, DeviceId]]:
        """Return who may notice, each with the peer that it would miss."""
        if happening.link is not None:
            a, b = happening.link
            return [(a, b), (b, a)]
        if happening.device is None:
            return []
        return [(peer, happening.device) for peer in self._scenario.peers(happening.device)]

    def _reach(self, pairs: Collection[LinkKey]) -> set[DeviceId]:
        """Return the living devices that the source can reach over some links; none if it is dead itself."""
        if self._source in self._dead:
            return set()
        return _reach(self._source, [pair for pair in pairs if not self._dead & set(pair)])


def _reach(source: DeviceId, pairs: Collection[LinkKey]) -> set[DeviceId]:
    reached = [source]
    for near in reached:
        for pair in pairs:
            if near in pair:
                far = pair[1] if pair[0] == near else pair[0]
                if far not in reached:
                    reached.append(far)
    return set(reached)
