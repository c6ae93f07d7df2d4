"""One TCP flow between namespaces: ``receive ADDRESS PORT`` counts aloud, ``send ADDRESS PORT CONTROL`` never ends."""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Final

BLOCK_BYTES: Final = 1 << 16
SAY_S: Final = 0.25


def receive(address: str, port: int) -> None:
    """Take one connection; say every `SAY_S` how many bytes came and when, as a line of JSON."""
    with socket.create_server((address, port)) as listener:
        print(json.dumps({"listening": True}), flush=True)
        flow, _ = listener.accept()
    with flow:
        total, due = 0, time.monotonic()
        while True:
            ready, _, _ = select.select([flow], [], [], SAY_S)
            if ready:
                part = flow.recv(BLOCK_BYTES)
                if not part:
                    return
                total += len(part)
            now = time.monotonic()
            if now >= due:
                print(json.dumps({"at": now, "bytes": total}), flush=True)
                due = now + SAY_S


def send(address: str, port: int, control: str) -> None:
    """Send for ever under a congestion control of the kernel's."""
    with socket.socket() as flow:
        flow.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
        flow.connect((address, port))
        block = bytes(BLOCK_BYTES)
        while True:
            flow.sendall(block)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(sys.argv[2], int(sys.argv[3]))
    else:
        send(sys.argv[2], int(sys.argv[3]), sys.argv[4])
