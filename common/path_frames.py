"""Frames by which a session keeps to a path that works: a question to an address, and its answer.

Source:
    RFC 9000 sections 19.17 and 19.18.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Self

from common.errors import DecodeError

TOKEN_BYTES: Final = 8
"""Bytes of a challenge: nobody guesses them while an answer counts."""


@dataclass(frozen=True, slots=True)
class _Token:
    """What both frames carry.

    Attributes:
        token: bytes that nobody can guess; the answer repeats them.
    """

    token: bytes

    def body(self) -> bytes:
        """Return the frame's body."""
        return self.token

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Read the frame's body."""
        if len(body) != TOKEN_BYTES:
            raise DecodeError(f"a path's token has {TOKEN_BYTES} bytes, not {len(body)}")
        return cls(body)


@dataclass(frozen=True, slots=True)
class PathChallenge(_Token):
    """Whoever gets it answers to the address that it came from."""

    TYPE: ClassVar[int] = 16


@dataclass(frozen=True, slots=True)
class PathAnswer(_Token):
    """The answer to a challenge."""

    TYPE: ClassVar[int] = 17
