"""How a file's chunks are numbered: blocks of pieces, each followed by its proof.

::

    numbers   1 2 … k | k+1   | k+2 … 2k+1 | 2k+2  | …  | closing
              pieces  | proof | pieces     | proof | …  | proof of the last block, which may be shorter

A *proof* is the SHA-256 of the file up to there, signed by the source: with it a receiver knows that every piece before
it is the source's own. The last one, the closing record, holds the digest of the whole file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.signing import SIGNATURE_BYTES

DIGEST_BYTES: Final = 32
PROOF_BYTES: Final = DIGEST_BYTES + SIGNATURE_BYTES
BLOCK_BYTES: Final = 1024 * 1024
"""Bytes of a block: verifying a signature costs as much as ten chunks do, and a bad block is fetched again whole."""
MAX_BLOCKS: Final = 16_384
"""Blocks of one file: their proofs are kept in memory. A file of more than 16 GiB has larger blocks."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The numbers of one file.

    Attributes:
        pieces: how many pieces the file has.
        per_block: pieces of each block but the last.
    """

    pieces: int
    per_block: int

    @classmethod
    def of(cls, size_bytes: int, piece_bytes: int) -> Blocks:
        """Return the numbers of a file of that size, cut into pieces of that size."""
        pieces = -(-size_bytes // piece_bytes)
        return cls(pieces, max(1, BLOCK_BYTES // piece_bytes, -(-pieces // MAX_BLOCKS)))

    @property
    def closing(self) -> int:
        """The number of the last proof, and of the last chunk."""
        return self.pieces + max(1, -(-self.pieces // self.per_block))

    def is_proof(self, number: int) -> bool:
        """Tell whether a chunk is a proof."""
        return number % (self.per_block + 1) == 0 or number == self.closing

    def proof_from(self, number: int) -> int:
        """Return the number of the first proof at or after a number."""
        return min(self.closing, -(-number // (self.per_block + 1)) * (self.per_block + 1))

    def index_of(self, number: int) -> int:
        """Return which piece of the file has a number, from 0."""
        return number - 1 - (number - 1) // (self.per_block + 1)

    def pieces_of(self, count: int) -> int:
        """Return how many of so many chunks are pieces, on the whole."""
        return min(self.pieces, count - count // (self.per_block + 1))
