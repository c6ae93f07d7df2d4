"""What two agents that are told nothing measure of the link between them, idle and loaded, against what it is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench._common import (
    EmulatorOption,
    answer,
    command,
    machine,
    one_sentence,
    over_namespaces,
    say,
    send_file,
    sparse,
)
from common.errors import ConfigError, ConnectError
from lab.netns import NetnsSystem, check_netns
from lab.scenario import LinkFigures, Scenario

SENDER: Final = "A"
RECEIVER: Final = "B"
FILE_BYTES: Final = 64 << 30
LOOK_S: Final = 1.0

RATE_SHARE: Final = 0.2
DELAY_SHARE: Final = 0.1
DELAY_LEAST_S: Final = 0.001
LOSS_SHARE: Final = 0.01

RUNGS: Final = {
    "5M": LinkFigures(5e6, delay_s=0.0),
    "10M": LinkFigures(10e6, delay_s=0.0),
    "20M": LinkFigures(20e6, delay_s=0.0),
    "50M": LinkFigures(50e6, delay_s=0.0),
    "100M": LinkFigures(100e6, delay_s=0.0),
    "200M": LinkFigures(200e6, delay_s=0.0),
    "5M-1ms": LinkFigures(5e6, delay_s=0.001),
    "20M-10ms-1%": LinkFigures(20e6, delay_s=0.01, loss=0.01),
    "50M-20ms-1%": LinkFigures(50e6, delay_s=0.02, loss=0.01),
    "10M-20ms-5%": LinkFigures(10e6, delay_s=0.02, loss=0.05),
    "100M-50ms": LinkFigures(100e6, delay_s=0.05),
    "20M-100ms": LinkFigures(20e6, delay_s=0.1),
}
COLUMNS: Final = ("bandwidth", "delay", "loss")


def accuracy(
    idle: Annotated[float, typer.Option(min=5.0, help="Seconds to measure while nothing flows.")] = 60.0,
    loaded: Annotated[float, typer.Option(min=5.0, help="Seconds to measure while a file flows.")] = 15.0,
    rung: Annotated[list[str] | None, typer.Option(help="A rung by its name, several times; all by default.")] = None,
    emulator: EmulatorOption = None,
) -> None:
    """Let two agents measure one link after the other, print a table and one JSON object."""
    with one_sentence():
        chosen = rung or list(RUNGS)
        unknown = [name for name in chosen if name not in RUNGS]
        if unknown:
            raise ConfigError(f"--rung: expected one of {', '.join(RUNGS)}, found {unknown[0]}")
        figures: dict[str, Any] = {"bench": "accuracy", "idle_s": idle, "loaded_s": loaded, "machine": machine()}
        rungs = figures["rungs"] = {name: _climb(name, idle, loaded, emulator) for name in chosen}
    measured = [each for each in rungs.values() if "skipped" not in each]
    figures["ok"] = bool(measured) and all(each[mode]["ok"] for each in measured for mode in ("idle", "loaded"))
    answer(figures)


def _climb(name: str, idle: float, loaded: float, emulator: Path | None) -> dict[str, Any]:
    link = RUNGS[name]
    scenario = Scenario(
        name="rung", devices=(SENDER, RECEIVER), links={(SENDER, RECEIVER): link}, datagram_bytes=1472, declared=False
    )
    try:
        check_netns(scenario, emulator)
    except ConfigError as error:
        say(f"{name:>12}: skipped, {error}")
        return {"skipped": str(error)}
    found = over_namespaces(scenario, _Order(link, idle, loaded).measure, emulator=emulator)
    for mode in ("idle", "loaded"):
        shown = found[mode]
        errors = "  ".join(f"{what} {shown[f'{what}_error']!s:>8}" for what in COLUMNS)
        say(f"{name:>12} {mode:>6}: {errors}  {'ok' if shown['ok'] else 'NOT WITHIN BOUNDS'}")
    return found


@dataclass(frozen=True, slots=True)
class _Order:
    """One rung."""

    link: LinkFigures
    idle: float
    loaded: float

    async def measure(self, system: NetnsSystem, folder: Path) -> dict[str, Any]:
        """Look at what the sender's agent says, first at rest and then while a file flows."""
        began, within_s = time.monotonic(), None
        shown = await self._look(system)
        while (passed := time.monotonic() - began) < self.idle:
            await asyncio.sleep(LOOK_S)
            shown = await self._look(system)
            near = shown["bandwidth_error"] is not None and abs(shown["bandwidth_error"]) <= RATE_SHARE
            within_s = (within_s or round(passed + LOOK_S, 1)) if near else None
        share = 8 * shown.pop("bytes_sent") / (self.idle * self.link.rate_bps)
        resting = shown | {"bandwidth_within_s": within_s, "link_share": round(share, 5)}
        stream = await send_file(system, SENDER, sparse(folder / "load.bin", FILE_BYTES))
        await asyncio.sleep(self.loaded)
        flowing = await self._look(system)
        flowing.pop("bytes_sent")
        await system.client(SENDER).delete(f"/streams/{stream}")
        return {
            "link": {"rate_bps": self.link.rate_bps, "delay_s": self.link.delay_s, "loss": self.link.loss},
            "idle": resting,
            "loaded": flowing,
        }

    async def _look(self, system: NetnsSystem) -> dict[str, Any]:
        status = await system.status(SENDER)
        if status is None:
            raise ConnectError(f"agent {SENDER} does not answer")
        (link,) = status["links"]
        rate, delay, loss = link["bandwidth_bps"], link["delay_s"], link["loss"]
        rate_error = None if rate is None else round(rate / self.link.rate_bps - 1, 4)
        delay_error = None if delay is None else round(delay - self.link.delay_s, 6)
        loss_error = None if loss is None else round(loss - self.link.loss, 5)
        ok = None not in (rate_error, delay_error, loss_error) and (
            abs(rate_error or 0.0) <= RATE_SHARE
            and abs(delay_error or 0.0) <= max(DELAY_SHARE * self.link.delay_s, DELAY_LEAST_S)
            and abs(loss_error or 0.0) <= LOSS_SHARE
        )
        return {
            "ok": ok,
            "bandwidth_bps": rate and round(rate),
            "delay_s": delay and round(delay, 6),
            "jitter_s": round(link["jitter_s"] or 0.0, 6),
            "loss": loss and round(loss, 5),
            "bandwidth_error": rate_error,
            "delay_error": delay_error,
            "loss_error": loss_error,
            "bytes_sent": link["bytes_sent"],
        }


if __name__ == "__main__":
    command(accuracy)
