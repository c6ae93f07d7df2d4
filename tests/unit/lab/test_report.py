import io
import json

from rich.console import Console

from common.graph import AcyclicGraph, Tree
from lab.incidents import EventOutcome
from lab.report import NEEDLESS_FLOOR, NEEDLESS_SHARE, ChannelOutcome, DeviceOutcome, Report, unicast_copies

EDGES = (("A", "B"), ("A", "C"), ("B", "E"), ("C", "D"), ("D", "F"))
SIX = AcyclicGraph(7, ("A", "B", "C", "D", "E", "F"), (Tree("throughput", EDGES),))


def report() -> Report:
    made = Report("six", "sim", "A", 1_000_000, bottleneck_bps=100e6)
    made.devices = {device: DeviceOutcome(True, 0.1) for device in "BCDEF"}
    made.channels = {edge: ChannelOutcome(chunks=100, bytes=10_000) for edge in EDGES}
    made.channels["B", "C"] = ChannelOutcome()
    made.add_unicast(SIX, 0)
    return made


def text_of(made: Report) -> str:
    console = Console(file=io.StringIO(), width=160)
    made.show(console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_copy_for_each_device_would_cross_a_c_three_times() -> None:
    assert unicast_copies(SIX, "A", 0) == {
        ("A", "B"): 2,
        ("A", "C"): 3,
        ("B", "E"): 1,
        ("C", "D"): 2,
        ("D", "F"): 1,
    }
    assert unicast_copies(SIX, "F", 0)[("D", "F")] == 5


def test_a_source_outside_the_graph_costs_nothing() -> None:
    assert unicast_copies(SIX, "Z", 0) == {}


def test_the_json_has_the_agreed_form() -> None:
    made = json.loads(json.dumps(report().as_json()))
    assert list(made) == [
        "scenario",
        "backend",
        "source",
        "file_bytes",
        "graph",
        "devices",
        "channels",
        "events",
        "ok",
    ]
    assert made["graph"] == {"epoch": 7, "edges": [list(edge) for edge in EDGES]}
    assert made["devices"]["B"] == {"sha256_ok": True, "seconds": 0.1}
    assert made["channels"]["A-C"] == {
        "chunks": 100,
        "bytes": 10_000,
        "duplicates": 0,
        "repairs": 0,
        "needless": 0,
        "unicast_bytes": 30_000,
    }
    assert made["channels"]["B-C"]["unicast_bytes"] == 0
    assert made["ok"] is True


def test_a_device_without_the_file_makes_the_run_a_failure() -> None:
    made = report()
    made.devices["F"] = DeviceOutcome(note="still receiving")
    assert not made.ok
    assert made.as_json()["devices"]["F"] == {"sha256_ok": False, "seconds": None}
    assert "not verified at F" in text_of(made)
    assert "still receiving" in text_of(made)


def test_a_chunk_that_crossed_twice_makes_the_run_a_failure_and_a_repair_does_not() -> None:
    repaired = report()
    repaired.channels["A", "B"].repairs = 3
    assert repaired.ok
    doubled = report()
    doubled.channels["A", "B"].duplicates = 1
    assert not doubled.ok
    assert "a chunk crossed twice on A-B" in text_of(doubled)


def test_needless_repairs_beyond_a_share_of_a_tree_channel_make_the_run_a_failure() -> None:
    made = report()
    for channel in made.channels.values():
        channel.chunks *= 100
    excused = round(10_000 * NEEDLESS_SHARE)
    made.channels["A", "B"].needless = excused
    assert made.ok
    assert f"needless repairs: A-B {excused}" in text_of(made)
    wasteful = report()
    wasteful.channels["A", "B"].chunks = 10_000
    wasteful.channels["A", "B"].needless = excused + 1
    assert not wasteful.ok
    assert wasteful.as_json()["channels"]["A-B"]["needless"] == excused + 1
    assert "FAILED: needless repairs on A-B" in text_of(wasteful)


def test_a_channel_outside_the_tree_is_measured_like_one_in_it() -> None:
    made = report()
    made.channels["B", "C"].needless = NEEDLESS_FLOOR
    assert made.ok
    made.channels["B", "C"].needless = 100
    assert made.wasteful == [("B", "C")]


def test_trouble_makes_the_run_a_failure_and_is_shown() -> None:
    made = report()
    made.trouble.append("agent C ended by SIGSEGV")
    assert not made.ok
    assert "agent C ended by SIGSEGV" in text_of(made)


def test_the_table_shows_devices_channels_and_what_unicast_would_cost() -> None:
    shown = text_of(report())
    assert "verified" in shown
    assert "30.0 kB" in shown
    assert "67%" in shown
    assert "1.250 x size / 100Mbit/s" in shown
    assert "ok: every device verified the hash" in shown


def test_counted_ethernet_bytes_stand_in_the_json_and_in_a_table_of_their_own() -> None:
    made = report()
    assert "Ethernet" not in text_of(made)
    made.channels["A", "B"].ethernet_bytes = (1_058_000, 3_000)
    assert made.as_json()["channels"]["A-B"]["ethernet_bytes"] == {"A": 1_058_000, "B": 3_000}
    shown = text_of(made)
    assert "Ethernet frames of each channel" in shown
    assert "1.0580" in shown
    assert "0.0030" in shown


def test_a_run_that_never_got_a_graph_can_be_shown() -> None:
    made = Report("six", "sim", "A", 5, trouble=["no graph"])
    assert made.as_json()["graph"] == {"epoch": None, "edges": []}
    assert "FAILED" in text_of(made)


def test_what_happened_stands_in_the_table_and_in_the_json() -> None:
    made = report()
    assert "events" not in text_of(made)
    made.events = [EventOutcome(1.0, "cut A-B", ("B", "E"), 0.25, 0.5)]
    assert "cut A-B" in text_of(made)
    assert made.as_json()["events"] == [made.events[0].as_json()]


def test_the_bytes_of_access_links_stand_in_a_table_of_their_own() -> None:
    made = report()
    assert "access link" not in text_of(made)
    assert "accesses" not in made.as_json()
    made.accesses = {"B": (1_058_000, 3_000)}
    assert "access link" in text_of(made)
    assert made.as_json()["accesses"] == {"B": {"sent_bytes": 1_058_000, "received_bytes": 3_000}}
