"""What a relay in Python costs at the least, on trains of datagrams that the kernel joins and cuts.

``receive ADDRESS PORT SIZE`` takes and forgets. ``relay ADDRESS PORT SIZE FILE HOST:PORT …`` passes trains on; where
FILE is not ``-`` it also opens each chunk, hashes and writes it. ``send HOST:PORT SIZE DATAGRAM`` sends one sealed
train over and over, as fast as the relay takes it, once a line has come on its input. No pace, no repair, no number of
a hop: the relay only says every `CREDIT_TRAINS` how much it took, and whoever receives counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agent.services.offload import MOST_SEGMENTS, MOST_TRAIN_BYTES, UDP_GRO, UDP_SEGMENT

HEAD_BYTES: Final = 24
"""Hop header and chunk header; the latter half is what the seal covers besides."""
TAG_BYTES: Final = 16
KEY: Final = bytes(32)
BUFFER_BYTES: Final = 4 << 20
WINDOW_BYTES: Final = 1 << 20
CREDIT_TRAINS: Final = 4
SILENCE_S: Final = 2.0

_SEGMENT: Final = struct.Struct("=H")
_JOINED: Final = struct.Struct("=i")
_TOTAL: Final = struct.Struct("!Q")
_ROOM: Final = socket.CMSG_SPACE(_JOINED.size)


def receive(address: str, port: int, size: int) -> None:
    """Take datagrams until all have come, or nothing comes any more."""
    raw, block, total = _socket(address, port), bytearray(1 << 16), 0
    _tell(ready=True)
    with contextlib.suppress(TimeoutError):
        while total < size:
            total += raw.recv_into(block)
            raw.settimeout(SILENCE_S)
    _tell(bytes=total)


def relay(address: str, port: int, size: int, file: str, onward: Sequence[str]) -> None:
    """Pass trains on until all have come."""
    raw, targets = _socket(address, port), [_target(each) for each in onward]
    keep = None if file == "-" else _keeper(Path(file))
    block = memoryview(bytearray(1 << 16))
    total, trains = 0, 0
    _tell(ready=True)
    while total < size:
        count, ancillary, _, source = raw.recvmsg_into([block], _ROOM)
        raw.settimeout(SILENCE_S)
        segment = _JOINED.unpack_from(ancillary[0][2])[0] if ancillary else count
        if keep is not None:
            keep(block[:count], segment)
        control = [(socket.SOL_UDP, UDP_SEGMENT, _SEGMENT.pack(segment))]
        for target in targets:
            raw.sendmsg([block[:count]], control, 0, target)
        total += count
        trains += 1
        if not trains % CREDIT_TRAINS:
            raw.sendto(_TOTAL.pack(total), source)
    _tell(at=time.monotonic(), bytes=total)


def send(target: str, size: int, datagram: int) -> None:
    """Send one sealed train over and over, never more than `WINDOW_BYTES` ahead of the relay."""
    raw, onward = _socket("", 0), _target(target)
    train = sealed_train(datagram)
    control = [(socket.SOL_UDP, UDP_SEGMENT, _SEGMENT.pack(datagram))]
    _tell(ready=True)
    sys.stdin.readline()
    began, sent, taken = time.monotonic(), 0, 0
    raw.settimeout(SILENCE_S)
    while sent < size:
        sent += raw.sendmsg([train], control, 0, onward)
        while sent - taken > WINDOW_BYTES:
            taken = _TOTAL.unpack(raw.recv(_TOTAL.size))[0]
    _tell(began=began, bytes=sent)


def sealed_train(datagram: int) -> bytes:
    """Return as many sealed chunks as one call takes, each with its number in its header."""
    aead, chunks = AESGCM(KEY), []
    for number in range(min(MOST_SEGMENTS, MOST_TRAIN_BYTES // datagram)):
        head = bytes(16) + number.to_bytes(8, "big")
        chunks.append(head + aead.encrypt(head[12:], os.urandom(datagram - HEAD_BYTES - TAG_BYTES), head[12:]))
    return b"".join(chunks)


def _keeper(file: Path) -> Callable[[memoryview, int], None]:
    """Return what opens, hashes and writes a train: the cheapest way that Python and its libraries have."""
    store = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    digest, open_into = hashlib.sha256(), AESGCM(KEY).decrypt_into
    plain = memoryview(bytearray(1 << 16))

    def keep(train: memoryview, segment: int) -> None:
        end = 0
        for at in range(0, len(train), segment):
            head = train[at + 12 : at + HEAD_BYTES]
            sealed = train[at + HEAD_BYTES : at + segment]
            end += open_into(head, sealed, head, plain[end : end + len(sealed) - TAG_BYTES])
        digest.update(plain[:end])
        os.write(store, plain[:end])

    return keep


def _socket(address: str, port: int) -> socket.socket:
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    raw.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    raw.bind((address, port))
    return raw


def _target(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _tell(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "receive":
        receive(rest[0], int(rest[1]), int(rest[2]))
    elif what == "relay":
        relay(rest[0], int(rest[1]), int(rest[2]), rest[3], rest[4:])
    else:
        send(rest[0], int(rest[1]), int(rest[2]))
    # Whoever started this still looks at its processor time.
    sys.stdin.read()
