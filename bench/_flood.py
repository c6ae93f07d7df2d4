"""A flood of garbage at one UDP address: ``python -m bench._flood HOST:PORT RATE MOST_S KIND [KEY_ID]``.

It says one line of JSON when it is ready, begins with a line on its standard input, ends with the next one, or after
so many seconds, and then says how much it sent. The garbage is made before, and goes out from several sockets in turn.
"""

from __future__ import annotations

import json
import os
import random
import select
import socket
import sys
import time
from enum import StrEnum
from typing import Final

from common.datagrams import CHUNK_OVERHEAD_BYTES, HELLO_BYTES, HOP_HEADER, WIRE_VERSION, PacketType
from common.limits import USUAL_DATAGRAM_BYTES
from common.sealing import KEY_ID_BYTES

SOCKETS: Final = 16
MADE: Final = 2_048
"""Datagrams that are made before, and sent again and again."""
STEP_S: Final = 0.001
_BUFFER_BYTES: Final = 1 << 20


class Kind(StrEnum):
    """What the garbage looks like."""

    RANDOM = "random"
    """Any bytes, of any length."""
    ALIKE = "alike"
    """Datagrams of every type, each with the length and the clear fields of a real one, sealed by nobody."""


def garbage(kind: Kind, rng: random.Random, key_id: bytes) -> list[bytes]:
    """Make the datagrams of a flood.

    Args:
        kind: What they look like.
        rng: For all that is by chance.
        key_id: Whose hellos are forged.
    """
    if kind is Kind.RANDOM:
        return [rng.randbytes(rng.randint(1, USUAL_DATAGRAM_BYTES)) for _ in range(MADE)]
    types = list(PacketType)
    return [_alike(types[place % len(types)], rng, key_id) for place in range(MADE)]


def _alike(kind: PacketType, rng: random.Random, key_id: bytes) -> bytes:
    if kind is PacketType.HELLO:
        head = bytes([kind << 4 | WIRE_VERSION]) + key_id
        return head + rng.randbytes(HELLO_BYTES - len(head))
    size = rng.randint(CHUNK_OVERHEAD_BYTES, 200) if kind is PacketType.CONTROL else USUAL_DATAGRAM_BYTES
    header = HOP_HEADER.pack(kind << 4, rng.randrange(256), rng.getrandbits(32), rng.getrandbits(32), 0)
    return header + rng.randbytes(size - len(header))


def main(host: str, port: int, rate: int, most_s: float, kind: Kind, key_id: bytes) -> None:
    """Flood an address until told to stop."""
    made = garbage(kind, random.Random(1), key_id)
    sockets = [socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)]
    sockets += [socket.socket(sockets[0].family, socket.SOCK_DGRAM) for _ in range(SOCKETS - 1)]
    for each in sockets:
        each.setblocking(False)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        each.connect((host, port))
    print(json.dumps({"ready": True}), flush=True)
    os.read(sys.stdin.fileno(), 100)
    began = time.monotonic()
    sent = refused = 0
    while not select.select([sys.stdin.fileno()], [], [], 0)[0]:
        now = time.monotonic() - began
        if now >= most_s:
            break
        for number in range(sent + refused, int(now * rate)):
            try:
                sockets[number % SOCKETS].send(made[number % MADE])
                sent += 1
            except OSError:
                refused += 1
        time.sleep(STEP_S)
    seconds = time.monotonic() - began
    print(
        json.dumps({"sent": sent, "refused": refused, "seconds": seconds, "per_s": round(sent / seconds)}), flush=True
    )
    for each in sockets:
        each.close()


if __name__ == "__main__":
    _host, _, _port = sys.argv[1].rpartition(":")
    _known = bytes.fromhex(sys.argv[5]) if len(sys.argv) > 5 else bytes(KEY_ID_BYTES)
    main(_host.strip("[]"), int(_port), int(sys.argv[2]), float(sys.argv[3]), Kind(sys.argv[4]), _known)
