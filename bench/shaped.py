"""A file over shaped links: how near the last device comes to what the slowest link of the tree allows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

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

ALL: Final = ("six-100", "six-mixed", "mesh", "six-lossy")
MEDIANS: Final = ("seconds", "ratio", "forward_share", "backward_share", "duplicates", "repairs", "agents_cpu_s")


def shaped(
    scenario: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(ALL)}, or a file; all four by default.")
    ] = None,
    size: Annotated[str, typer.Option(help="How much to send.")] = "64M",
    runs: Annotated[int, typer.Option(min=1, help="Runs of each scenario.")] = 5,
    source: Annotated[str | None, typer.Option(help="Who sends; the first device by default.")] = None,
    timeout: Annotated[float | None, typer.Option(min=1.0, help="Seconds for one transfer.")] = None,
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
            figures["scenarios"][played.name] = _repeat(
                played, figures["size_bytes"], runs, source or played.devices[0], timeout, emulator
            )
    answer(figures)


def _repeat(
    scenario: Scenario, size: int, runs: int, source: str, within: float | None, emulator: Path | None
) -> dict[str, Any]:
    done = []
    for number in range(1, runs + 1):

        async def use(system: NetnsSystem, folder: Path) -> dict[str, Any]:
            file = made_up(folder / "payload.bin", size)
            before = system.cpu_seconds()
            run = LoopbackRun(system, file=file, source=source, within=within, watcher=QuietWatcher())
            report = await run.run()
            return _figures(scenario, report, used_since(before, system.cpu_seconds()))

        figures = over_namespaces(scenario, use, emulator=emulator)
        done.append(figures)
        say(f"{scenario.name} {number}/{runs}: {figures['seconds']} s, ratio {figures['ratio']}, ok {figures['ok']}")
    return {
        "bottleneck_bps": done[0]["bottleneck_bps"],
        "edges": done[0]["edges"],
        "ok": all(figures["ok"] for figures in done),
        "median": {key: median(figures[key] for figures in done) for key in MEDIANS},
        "runs": done,
    }


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
        "duplicates": sum(channel.duplicates for channel in report.channels.values()),
        "repairs": sum(channel.repairs for channel in report.channels.values()),
        "agents_cpu_s": round(sum(used for name, used in cpu_s.items() if name.startswith("agent ")), 3),
        "cpu_s": cpu_s,
        "devices": devices,
        "channels": channels,
    }


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
