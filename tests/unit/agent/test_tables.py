from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from agent.tables import graph_lines, receipts_table, show_bytes, status_tables

LINK = {
    "peer": "B",
    "state": "open",
    "address": "192.0.2.7:7400",
    "in_tree": True,
    "rtt_s": 0.0123,
    "jitter_s": None,
    "loss": 0.015,
    "bandwidth_bps": 100e6,
    "bytes_sent": 2048,
    "bytes_received": 10,
    "repeats_sent": 3,
    "duplicates_received": 0,
}
STREAM = {
    "stream": "ab" * 16,
    "channel": "files",
    "source": "A",
    "role": "receive",
    "name": "model.bin",
    "size_bytes": 4096,
    "held_bytes": 1024,
    "held_chunks": 1,
    "known_chunks": 5,
    "refused": None,
}


DEGRADED = {
    "active": True,
    "for_s": 12.3,
    "lost_edges": [["A", "B"], ["A", "C"]],
    "chunks_pulled": 70,
    "messages_flooded": 3,
}


def drawn(*parts: Any) -> str:
    console = Console(file=StringIO(), width=200, markup=False)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def status_line(**degraded: Any) -> str:
    report = {"device": "A", "group": "lab", "epoch": 7, "degraded": {**DEGRADED, **degraded}}
    return drawn(*status_tables(report)).partition("\n")[2].strip()


def test_the_status_shows_which_edges_are_lost_and_what_that_costs() -> None:
    line = (
        "degraded for 12 s: lost A-B, A-C, and no newer graph has come; so far 70 chunks pulled and 3 messages flooded"
    )
    assert status_line() == line


def test_the_status_shows_what_lost_edges_have_cost_and_nothing_where_none_ever_was() -> None:
    over: dict[str, Any] = {"active": False, "for_s": None, "lost_edges": []}
    assert status_line(**over) == "not degraded now; before, 70 chunks pulled and 3 messages flooded"
    assert status_line(**over, chunks_pulled=0, messages_flooded=0) == ""


def test_the_status_shows_links_streams_and_drops() -> None:
    report = {
        "device": "A",
        "group": "lab",
        "epoch": 7,
        "attached": True,
        "udp_address": "127.0.0.1:7400",
        "links": [LINK],
        "streams": [STREAM],
        "drops": {"garbage": 4, "none": 0},
        "requests": {"QueryNeighbours": 2},
    }
    text = drawn(*status_tables(report))
    for shown in ("device A of group lab", "attached to its server", "epoch 7", "127.0.0.1:7400"):
        assert shown in text
    for shown in ("192.0.2.7:7400", "yes", "12.3 ms", "1.5 %", "100.0", "2.0 KiB"):
        assert shown in text
    for shown in ("ab" * 16, "model.bin", "1.0 KiB", "4.0 KiB", "1/5"):
        assert shown in text
    assert "garbage" in text
    assert "none" not in text.split("drops")[1].split("requests")[0]
    assert "QueryNeighbours" in text


def test_why_the_server_is_missing_and_what_is_wrong_with_the_clock_is_shown() -> None:
    report = {
        "device": "A",
        "group": "lab",
        "epoch": 7,
        "attached": False,
        "server": "https://tree.example.org:8640",
        "server_trouble": "it answers 400: update the device",
        "clock_wrong": "this device's clock is 2 h ahead of the server's",
    }
    lines = list(status_tables(report))
    assert "without its server" in str(lines[0])
    assert lines[1:] == [
        "the server at https://tree.example.org:8640: it answers 400: update the device",
        "this device's clock is 2 h ahead of the server's",
    ]


def test_where_a_device_is_and_why_links_are_missing_is_shown() -> None:
    report = {
        "device": "A",
        "group": "lab",
        "epoch": 1,
        "links": [LINK],
        "mapping": "varies",
        "candidates": ["192.0.2.1:7400", "[2001:db8::1]:7400"],
        "reflexive": ["198.51.100.7:40000"],
        "missing": [{"peer": "C", "reason": "no answer from 3 addresses for 41 s"}],
    }
    text = drawn(*status_tables(report))
    assert (
        "reached at 192.0.2.1:7400 [2001:db8::1]:7400; seen at 198.51.100.7:40000 (a NAT whose mapping varies" in text
    )
    assert "no answer from 3 addresses for 41 s" in text.split("no link")[1]
    text = drawn(*status_tables({"device": "A", "group": "lab", "epoch": 1, "mapping": "unknown"}))
    assert "reached at no address; seen at nowhere yet (unknown NAT)" in text
    assert "no link" not in text


def test_an_agent_that_knows_nothing_has_no_tables() -> None:
    parts = list(status_tables({"device": "A", "group": "lab", "epoch": None}))
    assert len(parts) == 1
    assert "without its server" in drawn(*parts)


def test_a_message_stream_has_no_size() -> None:
    stream = {**STREAM, "size_bytes": None, "name": "", "held_chunks": 3, "known_chunks": 3}
    text = drawn(*status_tables({"device": "A", "group": "g", "epoch": 1, "streams": [stream]}))
    assert "3/3" in text
    assert "KiB" not in text


def test_who_lacks_a_file_stands_there_with_the_reason() -> None:
    receipts = {
        "C": {"state": "refused", "held_bytes": 0, "reason": "no-space"},
        "B": {"state": "receiving", "held_bytes": 512, "reason": ""},
        "D": {"state": "verified", "held_bytes": 1024, "reason": ""},
    }
    lines = drawn(receipts_table(receipts, 1024)).splitlines()
    assert [line.split()[0] for line in lines] == ["device", "B", "C"]
    assert "512 B of 1.0 KiB" in lines[1]
    assert "no-space" in lines[2]


def test_the_graph_is_an_adjacency_list() -> None:
    report = {
        "epoch": 7,
        "trees": [{"objective": "throughput", "neighbours": {"B": ["A", "C"], "A": ["B"], "D": []}}],
    }
    assert list(graph_lines(report)) == ["epoch 7", "throughput:", "  A: B", "  B: A C", "  D:"]


@pytest.mark.parametrize(("count", "text"), [(5, "5 B"), (1536, "1.5 KiB"), (2**41, "2.0 TiB")])
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert show_bytes(count) == text
