"""A hand-made TCP relay: ``receive ADDRESS PORT FILE CONTROL [HOST:PORT …]`` and ``send FILE CONTROL HOST:PORT …``.

A relay receives, hashes, writes and sends on: what a careful script does, without encryption or anything for the day
when something fails. Either says ``ready`` when it stands, and how it ended; the sender waits for a line on its input.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

BLOCK_BYTES: Final = 1 << 18


def receive(address: str, port: int, file: Path, control: str, onward: Sequence[str]) -> None:
    """Take one connection to its end, keep what comes, and pass it on."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((address, port)))
        flows = [stack.enter_context(flow) for flow in _flows(onward, control)]
        store = stack.enter_context(file.open("wb", buffering=0))
        _tell(ready=True)
        flow, _ = listener.accept()
        stack.enter_context(flow)
        digest, total = hashlib.sha256(), 0
        block = memoryview(bytearray(BLOCK_BYTES))
        while count := flow.recv_into(block):
            part = block[:count]
            digest.update(part)
            store.write(part)
            for each in flows:
                each.sendall(part)
            total += count
        _tell(at=time.monotonic(), bytes=total, sha256=digest.hexdigest())


def send(file: Path, control: str, onward: Sequence[str]) -> None:
    """Send a file when told to."""
    with contextlib.ExitStack() as stack:
        flows = [stack.enter_context(flow) for flow in _flows(onward, control)]
        _tell(ready=True)
        sys.stdin.readline()
        digest, total = hashlib.sha256(), 0
        block = memoryview(bytearray(BLOCK_BYTES))
        opened = stack.enter_context(file.open("rb", buffering=0))
        while count := opened.readinto(block):
            part = block[:count]
            digest.update(part)
            for each in flows:
                each.sendall(part)
            total += count
    _tell(at=time.monotonic(), bytes=total, sha256=digest.hexdigest())


def _flows(onward: Sequence[str], control: str) -> Iterator[socket.socket]:
    for target in onward:
        host, _, port = target.rpartition(":")
        flow = socket.socket()
        flow.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
        flow.connect((host, int(port)))
        yield flow


def _tell(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5], sys.argv[6:])
    else:
        send(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
    # Whoever started this still looks at its processor time.
    sys.stdin.read()
