"""What the commands show, drawn for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

_STEP = 1024
_MAPPINGS = {
    "unknown": "unknown NAT",
    "none": "no NAT",
    "stable": "a NAT with one mapping for all destinations",
    "varies": "a NAT whose mapping varies by destination, symmetric",
}


def receipts_table(receipts: Mapping[str, Mapping[str, Any]], size_bytes: int) -> Table:
    """Return who has not got a file, and why."""
    table = Table(box=None, pad_edge=False)
    for column in ("device", "state", "has", "reason"):
        table.add_column(column)
    for device in sorted(receipts):
        receipt = receipts[device]
        if receipt["state"] != "verified":
            has = f"{show_bytes(receipt['held_bytes'])} of {show_bytes(size_bytes)}"
            table.add_row(device, receipt["state"], has, receipt["reason"])
    return table


def status_tables(report: Mapping[str, Any]) -> Iterator[str | Table]:
    """Yield a heading, what is amiss with the tree, and tables of links, streams, drops, requests, unless empty."""
    attached = "attached to its server" if report.get("attached") else "without its server"
    yield (
        f"device {report['device']} of group {report['group']}, {attached},"
        f" epoch {report['epoch']}, UDP {report.get('udp_address', '?')}{_offload(report.get('offload', {}))}"
    )
    if report.get("server_trouble"):
        yield f"the server at {report['server']}: {report['server_trouble']}"
    if report.get("clock_wrong"):
        yield str(report["clock_wrong"])
    if "mapping" in report:
        yield _whereabouts(report)
    degraded = report.get("degraded", {})
    if any(degraded.get(name) for name in ("active", "chunks_pulled", "messages_flooded")):
        yield _degraded(degraded)
    links = report.get("links", [])
    if links:
        yield _links(links)
    missing = report.get("missing", [])
    if missing:
        yield _missing(missing)
    streams = report.get("streams", [])
    if streams:
        yield _streams(streams)
    for title in ("drops", "requests"):
        counts = {name: count for name, count in report.get(title, {}).items() if count}
        if counts:
            yield _counts(title, counts)


def graph_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield each tree as an adjacency list."""
    yield f"epoch {report['epoch']}"
    for tree in report["trees"]:
        yield f"{tree['objective']}:"
        for device in sorted(tree["neighbours"]):
            yield f"  {device}: {' '.join(tree['neighbours'][device])}".rstrip()


def show_bytes(count: float) -> str:
    """Write a number of bytes: ``10.0 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _STEP:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _STEP
    return f"{count:.1f} TiB"


def _offload(report: Mapping[str, Any]) -> str:
    """Say how trains of datagrams pass the kernel."""
    if not report:
        return ""
    plain = report["plain_addresses"]
    exceptions = f", but plain to {', '.join(plain)}" if plain else ""
    return f" (trains received {report['receive']}, sent {report['send']}{exceptions})"


def _whereabouts(report: Mapping[str, Any]) -> str:
    """Say where this device is reached, where others see it, and what lies between."""
    told = " ".join(report.get("candidates", ())) or "no address"
    seen = " ".join(report.get("reflexive", ())) or "nowhere yet"
    return f"reached at {told}; seen at {seen} ({_MAPPINGS.get(report['mapping'], report['mapping'])})"


def _missing(missing: list[Mapping[str, Any]]) -> Table:
    table = Table(title="no link", title_justify="left", box=None, pad_edge=False)
    table.add_column("peer")
    table.add_column("reason")
    for each in missing:
        table.add_row(str(each.get("peer")), str(each.get("reason")))
    return table


def _degraded(report: Mapping[str, Any]) -> str:
    """Say which edges of the tree are lost, and what that cost."""
    counts = f"{report['chunks_pulled']} chunks pulled and {report['messages_flooded']} messages flooded"
    if not report["active"]:
        return f"not degraded now; before, {counts}"
    edges = ", ".join("-".join(edge) for edge in report["lost_edges"])
    return f"degraded for {report['for_s']:.0f} s: lost {edges}, and no newer graph has come; so far {counts}"


def _links(links: list[Mapping[str, Any]]) -> Table:
    table = Table(title="links", title_justify="left", box=None, pad_edge=False)
    table.add_column("peer")
    table.add_column("state")
    table.add_column("address")
    table.add_column("tree")
    for column in ("rtt", "jitter", "loss", "Mbit/s", "mtu", "sent", "received", "repeats", "duplicates"):
        table.add_column(column, justify="right")
    for link in links:
        table.add_row(
            str(link.get("peer")),
            str(link.get("state")),
            str(link.get("address", "")),
            "yes" if link.get("in_tree") else "",
            _scaled(link.get("rtt_s"), 1e3, "ms"),
            _scaled(link.get("jitter_s"), 1e3, "ms"),
            _scaled(link.get("loss"), 100, "%"),
            _scaled(link.get("bandwidth_bps"), 1e-6, ""),
            str(link.get("mtu_bytes") or ""),
            show_bytes(link.get("bytes_sent") or 0),
            show_bytes(link.get("bytes_received") or 0),
            str(link.get("repeats_sent") or 0),
            str(link.get("duplicates_received") or 0),
        )
    return table


def _streams(streams: list[Mapping[str, Any]]) -> Table:
    table = Table(title="streams", title_justify="left", box=None, pad_edge=False)
    for column in ("stream", "channel", "source", "role", "name", "refused"):
        table.add_column(column)
    for column in ("has", "of", "chunks"):
        table.add_column(column, justify="right")
    for stream in streams:
        size = stream.get("size_bytes")
        table.add_row(
            *(str(stream.get(name) or "") for name in ("stream", "channel", "source", "role", "name", "refused")),
            "" if size is None else show_bytes(stream.get("held_bytes") or 0),
            "" if size is None else show_bytes(size),
            f"{stream.get('held_chunks', 0)}/{stream.get('known_chunks', 0)}",
        )
    return table


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    for name in sorted(counts):
        table.add_row(name, str(counts[name]))
    return table


def _scaled(value: float | None, factor: float, unit: str) -> str:
    return "" if value is None else f"{value * factor:.1f}{' ' if unit else ''}{unit}"
