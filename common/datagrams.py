"""The outermost bytes of a datagram: the hop header, the chunk header, and the hello.

::

    chunk   = hop header 12 | chunk header 12 | ciphertext | tag 16
    part    = hop header 12 | stream 4 | type 1 | index and count 1 | some of a chunk, from its chunk header on
    control = hop header 12 | ciphertext of frames | tag 16
    hello   = type and version 1 | sender's key id 8 | nonce 12 | ciphertext 35 | tag 16

The hop header may be rewritten by every relay and is not authenticated: what stands in it is a claim. The chunk
header is under the chunk's seal and travels unchanged from the source. ``docs/protocol.md`` draws both.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from common.errors import DecodeError
from common.limits import MAX_DATAGRAM_BYTES, MIN_DATAGRAM_BYTES
from common.sealing import KEY_ID_BYTES, NONCE_BYTES, SESSION_ID_BYTES, TAG_BYTES, Sealer

WIRE_VERSION: Final = 1

HOP_HEADER: Final = struct.Struct("!BBIIH")
"""Type and tree, session, hop number (low 32 bits), epoch (low 32 bits), age in ms."""
CHUNK_HEADER: Final = struct.Struct("!IQ")
"""Stream short form; flags in the top byte, number in the 56 bits below."""
BOTH_HEADERS: Final = struct.Struct("!BBIIHIQ")

FRAGMENT_HEADER: Final = struct.Struct("!IBB")
"""Stream short form; as what the chunk goes (a type); index in the upper half, count of fragments in the lower."""
FRAME_HEADER: Final = struct.Struct("!BH")
"""Type and length of a frame's body, in front of each frame of a control datagram."""

HOP_HEADER_BYTES: Final = HOP_HEADER.size
CHUNK_HEADER_BYTES: Final = CHUNK_HEADER.size
HEADERS_BYTES: Final = HOP_HEADER_BYTES + CHUNK_HEADER_BYTES
FRAGMENT_HEADERS_BYTES: Final = HOP_HEADER_BYTES + FRAGMENT_HEADER.size
CHUNK_OVERHEAD_BYTES: Final = HEADERS_BYTES + TAG_BYTES
CONTROL_OVERHEAD_BYTES: Final = HOP_HEADER_BYTES + TAG_BYTES
FRAME_HEADER_BYTES: Final = FRAME_HEADER.size
NEXT_IN_RUN: Final = (1 << 8 * (HEADERS_BYTES - 6)) + 1
"""By how much both headers, read as one number, grow from a chunk to the next: hop number and chunk number by one."""

NUMBER_MASK: Final = (1 << 56) - 1
FLAG_PROOF: Final = 0x01
"""This chunk is the proof of a file's block."""
FLAG_START: Final = 0x02
"""A message begins with this chunk."""
FLAG_END: Final = 0x04
"""A message ends with this chunk."""
KNOWN_FLAGS: Final = FLAG_PROOF | FLAG_START | FLAG_END


class PacketType(IntEnum):
    """The upper half of a datagram's first byte."""

    HELLO = 1
    CONTROL = 2
    DATA = 4
    """A chunk that crosses this link for the first time, on its way down the tree."""
    REPEAT = 5
    """A chunk sent again on this link, because it or its acknowledgement was lost."""
    PULLED = 6
    """A chunk that was asked for (WANT), and what a relay hands on of it."""
    FRAGMENT = 7
    """A part of a chunk that is larger than the path takes."""


CHUNK_TYPES: Final = frozenset({PacketType.DATA, PacketType.REPEAT, PacketType.PULLED})

_HELLO_BODY: Final = struct.Struct(f"!{SESSION_ID_BYTES}s{SESSION_ID_BYTES}sHB")
_HELLO_HEAD_BYTES: Final = 1 + KEY_ID_BYTES + NONCE_BYTES
HELLO_BYTES: Final = _HELLO_HEAD_BYTES + _HELLO_BODY.size + TAG_BYTES


@dataclass(frozen=True, slots=True)
class Crossing:
    """One chunk on one link, as an onlooker sees it.

    Attributes:
        kind: first crossing, repeat or pulled.
        tree: which tree of the epoch.
        epoch: the epoch's low 32 bits.
        stream: the stream's short form.
        number: the chunk's number in the stream.
        size_bytes: of the whole datagram.
    """

    kind: PacketType
    tree: int
    epoch: int
    stream: int
    number: int
    size_bytes: int


def peek_chunk(datagram: bytes) -> Crossing | None:
    """Return what the clear headers say if the datagram is a chunk, else None."""
    if len(datagram) < CHUNK_OVERHEAD_BYTES:
        return None
    first, _, _, epoch, _, stream, word = BOTH_HEADERS.unpack_from(datagram)
    if first >> 4 not in CHUNK_TYPES:
        return None
    return Crossing(PacketType(first >> 4), first & 15, epoch, stream, word & NUMBER_MASK, len(datagram))


@dataclass(frozen=True, slots=True)
class Hello:
    """The handshake: my fresh session id, and the one I last heard from you.

    Attributes:
        session: 16 random bytes of the sender.
        echo: the receiver's session id as the sender heard it; zeros if it heard none.
        datagram_bytes: the largest datagram that the sender takes.
        confirmed: the sender has the session open; no answer is needed.
    """

    session: bytes
    echo: bytes
    datagram_bytes: int
    confirmed: bool = False

    def encode(self, sender_key_id: bytes, sealer: Sealer, nonce: bytes) -> bytes:
        """Return the hello's datagram, sealed under the pair key with a random 12-byte nonce."""
        head = bytes([PacketType.HELLO << 4 | WIRE_VERSION]) + sender_key_id
        body = _HELLO_BODY.pack(self.session, self.echo, self.datagram_bytes, self.confirmed)
        return head + nonce + sealer.seal_raw(nonce, body, head)


class OtherWireVersion(DecodeError):
    """A hello of another wire version: in all of them its first byte and the key id stand where they do here.

    Attributes:
        version: what the sender speaks, 0 to 15; nothing proves it.
        key_id: of the key that it claims.
    """

    def __init__(self, version: int, key_id: bytes) -> None:
        """Keep what the hello says."""
        super().__init__(f"wire version {version}; this agent speaks {WIRE_VERSION}")
        self.version = version
        self.key_id = key_id


def hello_key_id(datagram: bytes) -> bytes:
    """Return the key id that a hello claims to come from.

    Raises:
        OtherWireVersion: it is of another wire version.
        DecodeError: it has not a hello's length.
    """
    if len(datagram) > KEY_ID_BYTES and datagram[0] & 15 != WIRE_VERSION:
        raise OtherWireVersion(datagram[0] & 15, datagram[1 : 1 + KEY_ID_BYTES])
    if len(datagram) != HELLO_BYTES:
        raise DecodeError(f"a hello has {HELLO_BYTES} bytes, not {len(datagram)}")
    return datagram[1 : 1 + KEY_ID_BYTES]


def open_hello(datagram: bytes, sealer: Sealer) -> Hello:
    """Read a hello whose key id was looked up.

    Raises:
        DecodeError: it is not sealed under this pair's key, or claims an absurd datagram size.
    """
    head = datagram[: 1 + KEY_ID_BYTES]
    nonce = int.from_bytes(datagram[1 + KEY_ID_BYTES : _HELLO_HEAD_BYTES], "big")
    body = sealer.open(nonce, head, datagram[_HELLO_HEAD_BYTES:])
    session, echo, datagram_bytes, confirmed = _HELLO_BODY.unpack(body)
    if not MIN_DATAGRAM_BYTES <= datagram_bytes <= MAX_DATAGRAM_BYTES:
        raise DecodeError(f"datagram size {datagram_bytes} out of range")
    return Hello(session, echo, datagram_bytes, bool(confirmed))


def expand_number(low: int, largest: int) -> int:
    """Return the 64-bit hop number nearest to ``largest`` whose low 32 bits are ``low``.

    Source: RFC 9000 appendix A.3, for 32-bit truncation.
    """
    expected = largest + 1
    candidate = (expected & ~0xFFFFFFFF) | low
    if candidate + (1 << 31) <= expected:
        return candidate + (1 << 32)
    if candidate > expected + (1 << 31) and candidate >= 1 << 32:
        return candidate - (1 << 32)
    return candidate
