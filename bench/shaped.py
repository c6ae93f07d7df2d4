"""A file over shaped links: how near the last device comes to what the slowest link of the tree allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench._beside import Beside, beside
from bench._common import (
    SCENARIOS,
    EmulatorOption,
    answer,
    command,
    machine,
    made_up,
    median,
    one_sentence,
    outwards,
    over_namespaces,
    path_rates,
    say,
    size_bytes,
    used_since,
)
from common.errors import ConfigError
from common.ids import link_key
from lab.loopback_run import LoopbackRun
from lab.netns import NetnsSystem, check_netns
from lab.progress import QuietWatcher
from lab.report import Report
from lab.scenario import Scenario, load_scenario
from lab.simulated_run import patience_s

ALL: Final = ("six-100", "six-mixed", "mesh", "six-lossy")
BESIDE_MEDIANS: Final = ("seconds", "ratio", "cpu_s")
MEDIANS: Final = (
    "seconds",
    "ratio",
    "forward_share",
    "backward_share",
    "off_tree_share",
    "duplicates",
    "repairs",
    "agents_cpu_s",
)


def shaped(
    scenario: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(ALL)}, or a file; all four by default.")
    ] = None,
    size: Annotated[str, typer.Option(help="How much to send.")] = "64M",
    runs: Annotated[int, typer.Option(min=1, help="Runs of each scenario.")] = 5,
    source: Annotated[str | None, typer.Option(help="Who sends; the first device by default.")] = None,
    timeout: Annotated[float | None, typer.Option(min=1.0, help="Seconds for one transfer.")] = None,
    others: Annotated[
        list[Beside] | None, typer.Option("--beside", help="Send it by these means as well. Default none.")
    ] = None,
    emulator: EmulatorOption = None,
) -> None:
    """Send a file over shaped links, several times, and print one JSON object."""
    with one_sentence():
        figures: dict[str, Any] = {
            "bench": "shaped",
            "size_bytes": size_bytes(size),
            "machine": machine(),
            "scenarios": {},
        }
        for name in scenario or ALL:
            played = load_scenario(SCENARIOS / f"{name}.toml" if name in ALL else Path(name))
            try:
                check_netns(played, emulator)
            except ConfigError as error:
                if scenario:
                    raise
                figures["scenarios"][played.name] = {"skipped": str(error)}
                say(f"{played.name}: skipped: {error}")
                continue
            order = _Order(played, figures["size_bytes"], source or played.devices[0], timeout, tuple(others or ()))
            figures["scenarios"][played.name] = order.repeat(runs, emulator)
    answer(figures)


@dataclass(frozen=True, slots=True)
class _Order:
    """One scenario."""

    scenario: Scenario
    size: int
    source: str
    within: float | None
    others: tuple[Beside, ...]

    def repeat(self, runs: int, emulator: Path | None) -> dict[str, Any]:
        """Measure some runs."""
        done = []
        for number in range(1, runs + 1):
            run = over_namespaces(self.scenario, self.measure, emulator=emulator)
            ratios = ", ".join(f"{name} {figures.get('ratio')}" for name, figures in run["beside"].items())
            say(
                f"{self.scenario.name} {number}/{runs}: {run['seconds']} s, ratio {run['ratio']}, ok {run['ok']}"
                + (f"; beside: {ratios}" if ratios else "")
            )
            done.append(run)
        return {
            "bottleneck_bps": done[0]["bottleneck_bps"],
            "edges": done[0]["edges"],
            "ok": all(run["ok"] for run in done),
            "median": {key: median(run[key] for run in done) for key in MEDIANS}
            | {
                name: {key: median(run["beside"][name].get(key) for run in done) for key in BESIDE_MEDIANS}
                for name in self.others
            },
            "runs": done,
        }

    async def measure(self, system: NetnsSystem, folder: Path) -> dict[str, Any]:
        """Send the file over a running system, by our agents first."""
        file = made_up(folder / "payload.bin", self.size)
        before = system.cpu_seconds()
        run = LoopbackRun(system, file=file, source=self.source, within=self.within, watcher=QuietWatcher())
        report = await run.run()
        figures = _figures(self.scenario, report, used_since(before, system.cpu_seconds()))
        within = self.within or patience_s(self.scenario, self.size)
        figures["beside"] = {
            name: await beside(name, system, report.edges, self.source, file, within=within) for name in self.others
        }
        for each in figures["beside"].values():
            if "seconds" in each and report.bottleneck_bps:
                each["ratio"] = round(each["seconds"] * report.bottleneck_bps / (8 * self.size), 4)
        return figures


def _figures(scenario: Scenario, report: Report, cpu_s: dict[str, float]) -> dict[str, Any]:
    rates = path_rates(scenario, report.edges, report.source)
    bits = 8 * report.file_bytes
    devices = {}
    for device, outcome in report.devices.items():
        rate = rates.get(device)
        ratio = None if outcome.seconds is None or rate is None else round(outcome.seconds * rate / bits, 4)
        devices[device] = {"seconds": outcome.seconds and round(outcome.seconds, 3), "ratio": ratio}
    times = [outcome.seconds for outcome in report.devices.values()]
    known = [seconds for seconds in times if seconds is not None]
    last = max(known) if len(known) == len(times) else None
    channels = _channels(report)
    ratio = None if last is None or report.bottleneck_bps is None else round(last * report.bottleneck_bps / bits, 4)
    return {
        "ok": report.ok,
        "trouble": report.trouble,
        "seconds": last and round(last, 3),
        "ratio": ratio,
        "bottleneck_bps": report.bottleneck_bps,
        "edges": ["-".join(edge) for edge in report.edges],
        "forward_share": max((channel["forward_share"] for channel in channels.values()), default=None),
        "backward_share": max((channel["backward_share"] for channel in channels.values()), default=None),
        "off_tree_share": _off_tree_share(report),
        "duplicates": sum(channel.duplicates for channel in report.channels.values()),
        "repairs": sum(channel.repairs for channel in report.channels.values()),
        "agents_cpu_s": round(sum(used for name, used in cpu_s.items() if name.startswith("agent ")), 3),
        "cpu_s": cpu_s,
        "devices": devices,
        "channels": channels,
    }


def _off_tree_share(report: Report) -> float:
    """Return the Ethernet bytes over the file's of the link outside the tree where they are most, both directions."""
    left = (outcome for link, outcome in report.channels.items() if link not in report.edges)
    return round(max((sum(outcome.ethernet_bytes or ()) for outcome in left), default=0) / report.file_bytes, 5)


def _channels(report: Report) -> dict[str, dict[str, Any]]:
    """Return each tree link's Ethernet bytes over the file's, away from the source and towards it."""
    channels = {}
    for near, far in outwards(report.edges, report.source):
        link = link_key(near, far)
        outcome = report.channels[link]
        forward, backward = outcome.ethernet_bytes or (0, 0)
        if link[0] != near:
            forward, backward = backward, forward
        channels[f"{near}>{far}"] = {
            "forward_bytes": forward,
            "backward_bytes": backward,
            "forward_share": round(forward / report.file_bytes, 5),
            "backward_share": round(backward / report.file_bytes, 5),
            "chunks": outcome.chunks,
            "duplicates": outcome.duplicates,
            "repairs": outcome.repairs,
        }
    return channels


if __name__ == "__main__":
    command(shaped)
