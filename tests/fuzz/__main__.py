"""`make fuzz`: every target for so many seconds, guided by coverage, from its corpus; what breaks a promise is kept.

Each target runs in a process of its own, for libFuzzer ends the process that it ran in. What a run found new is put
into the corpus with --keep: as few inputs as reach what all of them reach.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from coverage import Coverage

ROOT: Final = Path(__file__).parents[2]
FINDINGS: Final = ROOT / "fuzz-out"
ROOMS: Final = ["common", "agent.core", "agent.api", "agent.services", "server.core", "server.api", "server.services"]
MAX_CORPUS_BYTES: Final = 40_000
"""Of one target: the repository is no store of inputs, and the replay takes seconds."""
ONE_INPUT_S: Final = 120
"""Seconds after which an input counts as one that hangs, on a machine that has other things to do."""
GRACE_S: Final = 300.0
_RUNS: Final = re.compile(rb"stat::number_of_executed_units: (\d+)|Done (\d+) runs")
_COVERED: Final = re.compile(rb"cov: (\d+)")


def main() -> int:
    """Fuzz what the command line names; return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=…", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of them by default")
    parser.add_argument("--seconds", type=int, default=30, help="for each target (30)")
    parser.add_argument("--keep", action="store_true", help="put what reaches more into the corpus")
    parser.add_argument("--seed", type=int, default=0, help="replays a run in which nothing depends on time; 0: any")
    if sys.argv[1:2] == ["--inside"]:
        return _inside(sys.argv[2], sys.argv[3:])
    if sys.argv[1:2] == ["--reduce"]:
        return _reduce(sys.argv[2], sys.argv[3:])
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("make fuzz needs atheris (Linux): .venv/bin/pip install 'atheris>=3', which is the extra `fuzz`")
        return 2
    from tests.fuzz.targets import BY_NAME

    unknown = [name for name in options.targets if name not in BY_NAME]
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    found = 0
    print(f" {'target':18} {'seconds':>7} {'executions':>11} {'edges':>6} {'corpus':>6} {'findings':>8}")
    for name in options.targets or BY_NAME:
        found += _fuzz(name, options.seconds, options.seed, keep=options.keep)
    return 1 if found else 0


def _inside(name: str, flags: list[str]) -> int:
    """Be one target's process: libFuzzer takes it from here."""
    # By name, as the checks run without it.
    atheris = importlib.import_module("atheris")
    warnings.simplefilter("error")
    with atheris.instrument_imports(include=ROOMS):
        from tests.fuzz.targets import BY_NAME
    atheris.Setup([sys.argv[0], *flags], BY_NAME[name].run)
    atheris.Fuzz()
    return 0


def _fuzz(name: str, seconds: int, seed: int, *, keep: bool) -> int:
    """Run one target and print its line; return how many inputs broke a promise."""
    from tests.fuzz.targets import BY_NAME, CORPUS

    target, kept = BY_NAME[name], CORPUS / name
    findings = FINDINGS / name
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    with tempfile.TemporaryDirectory(prefix="arborcast-fuzz-") as folder:
        grown, begin = Path(folder) / "grown", Path(folder) / "begin"
        grown.mkdir()
        begin.mkdir()
        for number, data in enumerate(target.seeds()):
            (begin / f"seed-{number}").write_bytes(data)
        if kept.is_dir():
            for path in kept.iterdir():
                shutil.copy(path, begin / path.name)
        flags = [
            f"-max_total_time={seconds}",
            f"-max_len={target.most_bytes}",
            f"-timeout={ONE_INPUT_S}",
            f"-artifact_prefix={findings}/",
            f"-seed={seed}",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            str(grown),
            str(begin),
        ]
        log = _run(name, flags, seconds + GRACE_S)
        (FINDINGS / f"{name}.log").write_bytes(log)
        # It also keeps inputs that are slow, which on a busy machine any may be.
        new = {path for path in findings.iterdir() if not path.name.startswith("slow-unit-")} - before
        if keep and not new:
            _run(name, [str(grown), str(begin)], 600.0, how="--reduce")
        runs = max((int(a or b) for a, b in _RUNS.findall(log)), default=0)
        edges = max(map(int, _COVERED.findall(log)), default=0)
        corpus = sum(1 for _ in kept.iterdir()) if kept.is_dir() else 0
    print(f" {name:18} {seconds:7} {runs:11,} {edges:6} {corpus:6} {len(new):8}", flush=True)
    for path in sorted(new):
        print(f"   {path.relative_to(ROOT)}; {_last_error(log)}")
    if not runs:
        print(f"   it did not run: {_last_error(log)}")
    return len(new) or int(not runs)


def _run(name: str, rest: list[str], within_s: float, how: str = "--inside") -> bytes:
    command = [sys.executable, "-m", "tests.fuzz", how, name, *rest]
    # Small files by the thousand, each of which some target syncs to its medium.
    environment = {**os.environ, "TMPDIR": "/dev/shm"} if Path("/dev/shm").is_dir() else None  # noqa: S108
    ended: Any = None
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"") + b"\n= did not end in time\n"
    return bytes(ended.stdout)


def _reduce(name: str, folders: list[str]) -> int:
    """Be the process that chooses a target's corpus: the smallest inputs that reach all that is reached, within bounds.

    libFuzzer's own merge starts the fuzzer's program anew, which here is a module.
    """
    from tests.fuzz.targets import BY_NAME, CORPUS

    run, kept = BY_NAME[name].run, CORPUS / name
    inputs = {path.read_bytes() for folder in folders for path in Path(folder).iterdir()}
    reached: set[tuple[str, tuple[int, int]]] = set()
    chosen: list[bytes] = []
    room = MAX_CORPUS_BYTES
    # What the first call alone reaches, such as caches that fill, is no input's merit.
    run(b"")
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        arcs = _arcs_of(run, data)
        if arcs - reached and room >= len(data):
            reached |= arcs
            chosen.append(data)
            room -= len(data)
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for data in chosen:
        (kept / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    return 0


def _arcs_of(run: Callable[[bytes], None], data: bytes) -> set[tuple[str, tuple[int, int]]]:
    watch = Coverage(data_file=None, branch=True, source=[str(ROOT / room) for room in ("agent", "common", "server")])
    watch.start()
    try:
        run(data)
    finally:
        watch.stop()
    found = watch.get_data()
    return {(file, arc) for file in found.measured_files() for arc in found.arcs(file) or ()}


def _last_error(log: bytes) -> str:
    """Return the exception's line of a crash."""
    lines = [
        line for line in log.decode(errors="replace").splitlines() if re.match(r"\S*(Error|Exception|Warning)\b", line)
    ]
    return lines[-1][:160] if lines else "see the log beside it"


if __name__ == "__main__":
    sys.exit(main())
