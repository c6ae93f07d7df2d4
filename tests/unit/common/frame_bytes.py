"""What the tests of the frames share: a frame's bytes from its type and body, and the refusal of such."""

import struct

import pytest

from common.errors import DecodeError
from common.frames import decode_untrusted

MOST_NUMBER = 1 << 56
"""One past the highest chunk number."""


def frame(kind: int, body: bytes) -> bytes:
    return struct.pack("!BH", kind, len(body)) + body


def refused(kind: int, body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_untrusted(frame(kind, body))
