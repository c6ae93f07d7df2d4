"""One Zenoh router that receives a file, or sends one: ``receive CONFIG FILE SIZE`` and ``send CONFIG FILE SIZE``.

A receiver says ``ready`` once a ping has come, and then hashes and writes what comes; the digest comes last. The sender
pings until a line comes on its input. Nothing is encrypted.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

FILE_KEY: Final = "bench/file"
PING_KEY: Final = "bench/ping"
PIECE_BYTES: Final = 60 << 10
"""Fits one batch of Zenoh's, so that no hop waits for a second one."""
PING_S: Final = 0.05


def receive(session: Any, file: Path, size: int) -> None:
    """Keep what comes until the digest has."""
    pinged, ended = threading.Event(), threading.Event()
    digest, total, wanted = hashlib.sha256(), 0, b""
    store = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def take(sample: Any) -> None:
        nonlocal total, wanted
        part = sample.payload.to_bytes()
        if total < size:
            digest.update(part)
            os.write(store, part)
            total += len(part)
        else:
            wanted = part
            ended.set()

    kept = [
        session.declare_subscriber(PING_KEY, lambda _: pinged.set()),
        session.declare_subscriber(FILE_KEY, take),
    ]
    pinged.wait()
    _tell(ready=True)
    ended.wait()
    _tell(at=time.monotonic(), bytes=total, ok=wanted == digest.digest())
    # Whoever started this still looks at its processor time; what came is still to be passed on.
    sys.stdin.read()
    del kept


def send(zenoh: Any, session: Any, file: Path) -> None:
    """Ping until told to send, then send the file and its digest."""
    pings = session.declare_publisher(PING_KEY)
    pieces = session.declare_publisher(FILE_KEY, congestion_control=zenoh.CongestionControl.BLOCK)
    _tell(ready=True)
    while not select.select([sys.stdin], [], [], PING_S)[0]:
        pings.put(b"")
    sys.stdin.readline()
    digest, total = hashlib.sha256(), 0
    with file.open("rb", buffering=0) as opened:
        while piece := opened.read(PIECE_BYTES):
            digest.update(piece)
            pieces.put(piece)
            total += len(piece)
    pieces.put(digest.digest())
    _tell(at=time.monotonic(), bytes=total)
    sys.stdin.read()


def _tell(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    # By name, for it is no dependency: type checkers need not find it.
    library = importlib.import_module("zenoh")
    with library.open(library.Config.from_json5(sys.argv[2])) as opened:
        if sys.argv[1] == "receive":
            receive(opened, Path(sys.argv[3]), int(sys.argv[4]))
        else:
            send(library, opened, Path(sys.argv[3]))
