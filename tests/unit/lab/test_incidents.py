import io

import pytest
from rich.console import Console

from common.ids import LinkKey
from lab.happenings import Happening, Verb
from lab.incidents import EventOutcome, Incidents, events_table
from lab.scenario import LinkFigures, Scenario
from lab.traces import GraphNote, LinkNote, Trace

# A ring A-B-C-D-A with E behind B; the tree lacks C-D.
EDGES: tuple[LinkKey, ...] = (("A", "B"), ("A", "D"), ("B", "C"), ("B", "E"))
RING = Scenario(
    name="ring",
    devices=("A", "B", "C", "D", "E"),
    links={edge: LinkFigures() for edge in (*EDGES, ("C", "D"))},
)
BEGAN = 100.0
CUT = Happening(1.0, Verb.CUT, link=("A", "B"))


def traces(**made: Trace) -> dict[str, Trace]:
    return {device: made.get(device, Trace()) for device in RING.devices}


def arriving(*times: float) -> Trace:
    trace = Trace()
    for at in times:
        trace.arrived(at)
    return trace


def outcomes(
    *happenings: Happening, traces: dict[str, Trace], done: dict[str, float] | None = None, source: str = "A"
) -> list[EventOutcome]:
    incidents = Incidents(RING, source)
    for happening in happenings:
        incidents.happens(happening, BEGAN + happening.at, EDGES)
    return incidents.outcomes(traces, done or {}, began=BEGAN)


def test_a_cut_is_noticed_by_the_first_end_and_over_when_the_last_device_has_something_new() -> None:
    noticed = traces(
        A=Trace(links=[LinkNote(100.5, "B", "open"), LinkNote(101.4, "B", "suspect")]),
        B=arriving(100.9, 101.1, 101.9),
        C=arriving(100.9, 101.2, 101.7),
        E=arriving(100.9, 102.0),
    )
    noticed["B"].links = [LinkNote(101.3, "A", "suspect"), LinkNote(101.3, "C", "suspect")]
    (outcome,) = outcomes(CUT, traces=noticed)
    assert (outcome.event, outcome.cut_off) == ("cut A-B", ("B", "C", "E"))
    assert outcome.detected_s == pytest.approx(0.3)
    assert outcome.recovered_s == pytest.approx(1.0)


def test_a_graph_without_the_edge_notices_a_cut_too() -> None:
    noticed = traces(B=arriving(100.9, 101.9), C=arriving(100.9, 101.9), E=arriving(100.9, 101.9))
    noticed["A"].graphs = [GraphNote(101.1, frozenset("BD")), GraphNote(101.2, frozenset("D"))]
    (outcome,) = outcomes(CUT, traces=noticed)
    assert outcome.detected_s == pytest.approx(0.2)


def test_what_is_never_noticed_or_reaches_not_everybody_has_no_time() -> None:
    (outcome,) = outcomes(CUT, traces=traces())
    assert (outcome.detected_s, outcome.recovered_s) == (None, None)
    noticed = traces(A=Trace(links=[LinkNote(101.4, "B", "closed")]), B=arriving(101.0, 102.0))
    (outcome,) = outcomes(CUT, traces=noticed)
    assert outcome.detected_s == pytest.approx(0.4)
    assert outcome.recovered_s is None


def test_who_had_it_all_before_is_not_waited_for() -> None:
    noticed = traces(A=Trace(links=[LinkNote(101.4, "B", "closed")]), C=arriving(101.0, 101.6))
    (outcome,) = outcomes(CUT, traces=noticed, done={"B": 100.5, "C": 101.6, "E": 101.1})
    assert outcome.cut_off == ("C", "E"), "B had it when the link was cut, E before anybody noticed"
    assert outcome.recovered_s == pytest.approx(0.6)
    (outcome,) = outcomes(CUT, traces=noticed, done=dict.fromkeys("BCE", 100.5))
    assert (outcome.cut_off, outcome.recovered_s) == ((), None)


def test_a_killed_device_cuts_off_those_behind_it_that_have_another_way() -> None:
    kill = Happening(1.0, Verb.KILL, device="B")
    noticed = traces(C=arriving(101.0, 101.8))
    noticed["E"].links = [LinkNote(101.1, "B", "suspect")]
    (outcome,) = outcomes(kill, traces=noticed)
    assert outcome.cut_off == ("C",), "E has no other link"
    assert outcome.detected_s == pytest.approx(0.1)
    assert outcome.recovered_s == pytest.approx(0.8)


def test_a_link_outside_the_tree_cuts_nobody_off() -> None:
    noticed = traces(D=Trace(links=[LinkNote(101.5, "C", "suspect")]))
    (outcome,) = outcomes(Happening(1.0, Verb.CUT, link=("C", "D")), traces=noticed)
    assert (outcome.cut_off, outcome.recovered_s) == ((), None)
    assert outcome.detected_s == pytest.approx(0.5)


def test_a_degraded_link_is_noticed_when_the_tree_leaves_it() -> None:
    worse = Happening(1.0, Verb.DEGRADE, link=("A", "B"), figures={"rate_bps": 1e6})
    noticed = traces(**{device: arriving(101.0, 103.5, 103.6) for device in "BCE"})
    noticed["A"].links = [LinkNote(101.2, "B", "suspect")]
    noticed["A"].graphs = [GraphNote(103.0, frozenset("D"))]
    (outcome,) = outcomes(worse, traces=noticed)
    assert outcome.detected_s == pytest.approx(2.0)
    assert outcome.recovered_s == pytest.approx(2.5)


def test_what_is_noticed_after_the_end_of_the_harm_is_due_to_something_else() -> None:
    noticed = traces(A=Trace(links=[LinkNote(105.0, "B", "suspect")]))
    restore = Happening(2.0, Verb.RESTORE, link=("A", "B"))
    assert [outcome.detected_s for outcome in outcomes(CUT, restore, traces=noticed)] == [None, None]


def test_links_cut_and_devices_dead_already_are_no_way_round() -> None:
    away = Happening(0.5, Verb.CUT, link=("C", "D"))
    assert outcomes(away, CUT, traces=traces())[1].cut_off == ()
    back = Happening(0.7, Verb.RESTORE, link=("C", "D"))
    assert outcomes(away, back, CUT, traces=traces())[2].cut_off == ("B", "C", "E")
    dead = Happening(0.5, Verb.KILL, device="D")
    assert outcomes(dead, CUT, traces=traces())[1].cut_off == ()
    started = Happening(0.7, Verb.START, device="D")
    assert outcomes(dead, started, CUT, traces=traces())[2].cut_off == ("B", "C", "E")
    gone = Happening(0.5, Verb.KILL, device="A")
    assert [outcome.cut_off for outcome in outcomes(gone, CUT, traces=traces())] == [(), ()]


def test_the_server_and_what_does_no_harm_have_no_times() -> None:
    noticed = traces(A=Trace(links=[LinkNote(101.5, "B", "suspect")]))
    harmless = [Happening(1.0, Verb.KILL), Happening(1.1, Verb.START), Happening(1.2, Verb.START, device="B")]
    for outcome in outcomes(*harmless, traces=noticed):
        assert (outcome.cut_off, outcome.detected_s, outcome.recovered_s) == ((), None, None)


def test_events_are_shown_in_a_table_and_written_as_json() -> None:
    outcome = EventOutcome(1.0004, "cut A-B", ("B", "C"), 0.23456, None)
    assert outcome.as_json() == {
        "at": 1.0,
        "event": "cut A-B",
        "cut_off": ["B", "C"],
        "detected_s": 0.2346,
        "recovered_s": None,
    }
    console = Console(file=io.StringIO(), width=120)
    console.print(events_table([outcome, EventOutcome(2.0, "kill server")]))
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["1.00", "s", "cut", "A-B", "B,", "C", "235", "ms", "–"] in lines
    assert ["2.00", "s", "kill", "server", "–", "–", "–"] in lines
