"""What a lab run ends with: who has the file, what crossed each channel, and what separate copies would have cost.

The lab calls the link between two peers by the method's word, *P2P channel*, short *channel*: "channel A-B".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from common.errors import NoRoute
from common.graph import AcyclicGraph
from common.ids import DeviceId, LinkKey, link_key
from lab.incidents import EventOutcome, events_table
from lab.units import show_rate, show_size

NEEDLESS_SHARE: Final = 0.02
"""Share of a tree channel's chunks that may cross again though they had arrived.

Whoever waits for an acknowledgement must at times send again what it cannot know to have arrived: the acknowledgement
was lost, late on a busy host, or its bearer was killed. That is a few chunks for each such moment. More is waste.
"""
NEEDLESS_FLOOR: Final = 32
"""Needless repairs that any file may have, however short: what one acknowledgement covers that a busy host held up."""

_YES: Final = Text("verified", style="green")


@dataclass(slots=True)
class DeviceOutcome:
    """How one device ended.

    Attributes:
        sha256_ok: Whether the lab read the file there and found its hash right.
        seconds: From the start of the sending until the device had verified it; None if it never did.
        note: Why not, in words.
    """

    sha256_ok: bool = False
    seconds: float | None = None
    note: str = ""


@dataclass(slots=True)
class ChannelOutcome:
    """What crossed one channel, both directions together.

    Attributes:
        chunks: Different chunks that crossed.
        bytes: UDP payload bytes of everything that carried a chunk, repairs too.
        duplicates: Crossings of a chunk that had crossed before and that were no repair.
        repairs: Chunks sent again because of loss, or pulled by a device that missed them.
        needless: Repairs of chunks that the other end held already, or that were on their way to it.
        unicast_bytes: What a copy of the file for each device, sent along the same paths, would have cost here.
        ethernet_bytes: Of all frames, by the end that sent them, in the order of the link's name (A-B: A's, then B's);
            None where nothing counted them.
    """

    chunks: int = 0
    bytes: int = 0
    duplicates: int = 0
    repairs: int = 0
    needless: int = 0
    unicast_bytes: int = 0
    ethernet_bytes: tuple[int, int] | None = None

    def as_json(self, link: LinkKey) -> dict[str, Any]:
        """Return the channel as it stands in the report's JSON."""
        figures: dict[str, Any] = {
            "chunks": self.chunks,
            "bytes": self.bytes,
            "duplicates": self.duplicates,
            "repairs": self.repairs,
            "needless": self.needless,
            "unicast_bytes": self.unicast_bytes,
        }
        if self.ethernet_bytes is not None:
            figures["ethernet_bytes"] = dict(zip(link, self.ethernet_bytes, strict=True))
        return figures


@dataclass(slots=True)
class Report:
    """One lab run.

    Attributes:
        scenario: The scenario's name.
        backend: ``sim``, ``loopback`` or ``netns``.
        source: Who sent.
        file_bytes: The file's size.
        epoch: Of the graph at the end; None if there was none.
        edges: The tree that carried the file, at the end.
        devices: All devices but the source.
        channels: All channels of the scenario.
        accesses: The Ethernet bytes that each device on the internet sent and was sent over its access link.
        bottleneck_bps: The slowest rate in the tree; None where the rates are only declared.
        events: What happened meanwhile, and what came of it.
        trouble: What went wrong besides, in sentences; each makes the run a failure.
    """

    scenario: str
    backend: str
    source: DeviceId
    file_bytes: int
    epoch: int | None = None
    edges: tuple[LinkKey, ...] = ()
    devices: dict[DeviceId, DeviceOutcome] = field(default_factory=dict)
    channels: dict[LinkKey, ChannelOutcome] = field(default_factory=dict)
    accesses: dict[DeviceId, tuple[int, int]] = field(default_factory=dict)
    bottleneck_bps: float | None = None
    events: list[EventOutcome] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every device verified the hash and no channel carried a chunk twice, as a repair or not."""
        return (
            not self.trouble
            and all(outcome.sha256_ok for outcome in self.devices.values())
            and not any(channel.duplicates for channel in self.channels.values())
            and not self.wasteful
        )

    @property
    def wasteful(self) -> list[LinkKey]:
        """The channels with more needless repairs than can be excused.

        The measure is what a tree channel carries, on channels outside the tree at the end too: they may have been in
        it before, or carry nothing but repairs.
        """
        most = max((channel.chunks for channel in self.channels.values()), default=0)
        excused = max(NEEDLESS_FLOOR, NEEDLESS_SHARE * most)
        return [link for link, channel in self.channels.items() if channel.needless > excused]

    def as_json(self) -> dict[str, Any]:
        """Return the report as it is written to ``--json``."""
        accesses = {
            device: {"sent_bytes": sent, "received_bytes": received}
            for device, (sent, received) in self.accesses.items()
        }
        return {
            "scenario": self.scenario,
            "backend": self.backend,
            "source": self.source,
            "file_bytes": self.file_bytes,
            "graph": {"epoch": self.epoch, "edges": [list(edge) for edge in self.edges]},
            "devices": {
                device: {
                    "sha256_ok": outcome.sha256_ok,
                    "seconds": None if outcome.seconds is None else round(outcome.seconds, 3),
                }
                for device, outcome in self.devices.items()
            },
            "channels": {"-".join(link): channel.as_json(link) for link, channel in self.channels.items()},
            **({"accesses": accesses} if accesses else {}),
            "events": [event.as_json() for event in self.events],
            "ok": self.ok,
        }

    def add_unicast(self, graph: AcyclicGraph, tree: int) -> None:
        """Work out what separate copies would have cost on each channel.

        Args:
            graph: The graph at the end.
            tree: The index of the tree that carried the file.
        """
        self.epoch = graph.epoch
        self.edges = graph.trees[tree].edges
        chunks = sum(channel.chunks + channel.repairs for channel in self.channels.values())
        if not chunks:
            return
        one_chunk = sum(channel.bytes for channel in self.channels.values()) / chunks
        one_copy = one_chunk * max(channel.chunks for channel in self.channels.values())
        for link, copies in unicast_copies(graph, self.source, tree).items():
            if link in self.channels:
                self.channels[link].unicast_bytes = round(copies * one_copy)

    def show(self, console: Console) -> None:
        """Print the report for people."""
        tables = [self._device_table(), self._channel_table()]
        if any(channel.ethernet_bytes is not None for channel in self.channels.values()):
            tables.append(self._ethernet_table())
        if self.accesses:
            tables.append(self._access_table())
        if self.events:
            tables.append(events_table(self.events))
        console.print(Group(*tables, self._verdict()))

    def _device_table(self) -> RenderableType:
        table = Table(
            title=f"{self.source} sent {show_size(self.file_bytes)} over {self.backend}",
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("device")
        table.add_column("seconds", justify="right")
        table.add_column("SHA-256")
        for device, outcome in self.devices.items():
            seconds = "–" if outcome.seconds is None else f"{outcome.seconds:.2f}"
            state = _YES if outcome.sha256_ok else Text(outcome.note or "not verified", style="red")
            table.add_row(device, seconds, state)
        return table

    def _channel_table(self) -> RenderableType:
        table = Table(
            title=f"P2P channels (graph epoch {self.epoch})", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
        )
        table.add_column("channel", no_wrap=True)
        table.add_column("tree", no_wrap=True)
        for heading in ("chunks", "bytes", "duplicates", "repairs", "unicast", "saved"):
            table.add_column(heading, justify="right", no_wrap=True)
        for link, channel in self.channels.items():
            table.add_row("-".join(link), "yes" if link in self.edges else "no", *_figures(channel))
        total = ChannelOutcome()
        for channel in self.channels.values():
            total.chunks += channel.chunks
            total.bytes += channel.bytes
            total.duplicates += channel.duplicates
            total.repairs += channel.repairs
            total.unicast_bytes += channel.unicast_bytes
        table.add_section()
        table.add_row("all", "", *_figures(total))
        return table

    def _ethernet_table(self) -> RenderableType:
        table = Table(title="Ethernet frames of each channel", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("channel", no_wrap=True)
        for heading in ("→", "x file", "←", "x file"):
            table.add_column(heading, justify="right", no_wrap=True)
        for link, channel in self.channels.items():
            cells = []
            for sent_bytes in channel.ethernet_bytes or ():
                cells += [show_size(sent_bytes), f"{sent_bytes / max(1, self.file_bytes):.4f}"]
            table.add_row("-".join(link), *cells)
        return table

    def _access_table(self) -> RenderableType:
        title = "Ethernet frames of each access link"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("device", no_wrap=True)
        for heading in ("sent", "x file", "received", "x file"):
            table.add_column(heading, justify="right", no_wrap=True)
        for device, both in self.accesses.items():
            cells = [(show_size(count), f"{count / max(1, self.file_bytes):.4f}") for count in both]
            table.add_row(device, *cells[0], *cells[1])
        return table

    def _verdict(self) -> Text:
        done = [outcome.seconds for outcome in self.devices.values() if outcome.seconds is not None]
        verdict = Text()
        if done:
            verdict.append(f"last device after {max(done):.2f} s")
            if self.bottleneck_bps and self.file_bytes:
                ratio = max(done) * self.bottleneck_bps / (8 * self.file_bytes)
                verdict.append(f", {ratio:.3f} x size / {show_rate(self.bottleneck_bps)}bit/s")
            verdict.append("\n")
        needless = [
            f"{'-'.join(link)} {channel.needless:,}" for link, channel in self.channels.items() if channel.needless
        ]
        if needless:
            verdict.append(f"needless repairs: {', '.join(needless)}\n")
        for sentence in self.trouble:
            verdict.append(f"{sentence}\n", style="red")
        if self.ok:
            verdict.append("ok: every device verified the hash, and no channel carried a chunk twice", style="green")
        else:
            verdict.append("FAILED: ", style="bold red")
            verdict.append("; ".join(self._failures()) or "see above")
        return verdict

    def _failures(self) -> list[str]:
        failures = []
        missing = [device for device, outcome in self.devices.items() if not outcome.sha256_ok]
        if missing:
            failures.append(f"not verified at {', '.join(missing)}")
        doubled = ["-".join(link) for link, channel in self.channels.items() if channel.duplicates]
        if doubled:
            failures.append(f"a chunk crossed twice on {', '.join(doubled)}")
        if self.wasteful:
            failures.append(f"needless repairs on {', '.join('-'.join(link) for link in self.wasteful)}")
        return failures


def unicast_copies(graph: AcyclicGraph, source: DeviceId, tree: int) -> Mapping[LinkKey, int]:
    """Count how often a file would cross each edge if every device got its own copy along the tree's paths.

    Args:
        graph: The graph.
        source: Who sends.
        tree: Which tree.

    Returns:
        By edge the number of devices behind it, seen from the source.
    """
    try:
        children = graph.oriented(source, tree)
    except NoRoute:
        return {}
    behind: dict[DeviceId, int] = {}
    copies: dict[LinkKey, int] = {}
    for device in reversed(children):  # `oriented` lists parents first.
        for child in children[device]:
            copies[link_key(device, child)] = behind[child]
        behind[device] = 1 + sum(behind[child] for child in children[device])
    return copies


def _figures(channel: ChannelOutcome) -> tuple[str, ...]:
    percent = round(100 - 100 * channel.bytes / channel.unicast_bytes) if channel.unicast_bytes else None
    return (
        f"{channel.chunks:,}",
        show_size(channel.bytes),
        f"{channel.duplicates:,}",
        f"{channel.repairs:,}",
        show_size(channel.unicast_bytes) if channel.unicast_bytes else "–",
        "" if percent is None else f"{percent}%",
    )
