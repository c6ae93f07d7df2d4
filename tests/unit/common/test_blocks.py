"""How a file's chunks are numbered: pieces, and a proof behind each block of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.blocks import BLOCK_BYTES, DIGEST_BYTES, MAX_BLOCKS, PROOF_BYTES, Blocks
from common.datagrams import CHUNK_OVERHEAD_BYTES, NUMBER_MASK
from common.limits import MAX_DATAGRAM_BYTES, MAX_FILE_BYTES, MIN_DATAGRAM_BYTES
from common.signing import SIGNATURE_BYTES


def layout(pieces: int, per_block: int) -> list[int | None]:
    """Write a file's numbers out, from 1: which piece each is, None for a proof."""
    numbers: list[int | None] = []
    for piece in range(pieces):
        numbers.append(piece)
        if (piece + 1) % per_block == 0 or piece == pieces - 1:
            numbers.append(None)
    return numbers or [None]


def test_a_proof_is_a_digest_and_a_signature() -> None:
    assert PROOF_BYTES == DIGEST_BYTES + SIGNATURE_BYTES
    assert PROOF_BYTES < MIN_DATAGRAM_BYTES - CHUNK_OVERHEAD_BYTES, "it fits the smallest datagram"


@pytest.mark.parametrize(
    ("pieces", "proofs"),
    [(0, [1]), (1, [2]), (2, [3]), (3, [4]), (4, [4, 6]), (6, [4, 8]), (7, [4, 8, 10])],
)
def test_each_block_of_three_pieces_and_the_shorter_last_one_has_a_proof(pieces: int, proofs: list[int]) -> None:
    blocks = Blocks(pieces, 3)
    assert [number for number in range(1, blocks.closing + 1) if blocks.is_proof(number)] == proofs
    assert blocks.closing == proofs[-1]


@given(st.integers(0, 40), st.integers(1, 12))
def test_numbers_are_what_they_are_when_they_are_written_out(pieces: int, per_block: int) -> None:
    blocks, numbers = Blocks(pieces, per_block), layout(pieces, per_block)
    assert blocks.closing == len(numbers)
    for number, piece in enumerate(numbers, 1):
        proof = next(later for later in range(number, len(numbers) + 1) if numbers[later - 1] is None)
        assert blocks.is_proof(number) == (piece is None)
        assert blocks.proof_from(number) == proof
        assert blocks.pieces_of(number) == sum(each is not None for each in numbers[:number])
        if piece is not None:
            assert blocks.index_of(number) == piece
    assert blocks.pieces_of(0) == 0


def test_what_lies_past_the_end_has_no_proof_of_its_own() -> None:
    blocks = Blocks(3, 2)
    assert blocks.closing == 5
    assert [blocks.proof_from(number) for number in (4, 5, 6, 99)] == [5, 5, 5, 5]


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 6))
def test_the_pieces_of_what_is_held_are_never_more_than_the_file_has(held: list[bool], per_block: int) -> None:
    blocks = Blocks(len(held), per_block)
    assert 0 <= blocks.pieces_of(min(sum(held), blocks.closing)) <= blocks.pieces


def test_a_file_of_no_bytes_has_its_closing_record_alone() -> None:
    blocks = Blocks.of(0, 1_000)
    assert (blocks.pieces, blocks.closing) == (0, 1)
    assert blocks.is_proof(1)
    assert blocks.proof_from(1) == 1


@pytest.mark.parametrize("piece_bytes", [600, 1_160, 8_932])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_byte_more_than_so_many_blocks_is_one_block_more(piece_bytes: int, count: int) -> None:
    per_block = BLOCK_BYTES // piece_bytes
    size_bytes = count * per_block * piece_bytes
    exact, more, less = (Blocks.of(size_bytes + change, piece_bytes) for change in (0, 1, -1))
    assert exact.per_block == more.per_block == less.per_block == per_block
    assert exact == less
    assert (exact.closing, exact.closing - exact.pieces) == (count * (per_block + 1), count)
    assert (more.closing, more.closing - more.pieces) == (exact.closing + 2, count + 1)
    assert more.proof_from(1) == per_block + 1
    assert more.is_proof(exact.closing)


def test_a_block_is_no_larger_than_it_may_be_and_has_a_piece_at_least() -> None:
    assert Blocks.of(0, BLOCK_BYTES + 1).per_block == 1
    assert Blocks.of(10 * BLOCK_BYTES, BLOCK_BYTES + 1).per_block == 1
    assert Blocks.of(10 * BLOCK_BYTES, BLOCK_BYTES).per_block == 1
    assert Blocks.of(10 * BLOCK_BYTES, BLOCK_BYTES // 2).per_block == 2


@given(
    st.integers(0, MAX_FILE_BYTES) | st.integers(0, 32 * 1024**3),
    st.integers(MIN_DATAGRAM_BYTES // 2, MAX_DATAGRAM_BYTES),
)
def test_a_file_of_any_size_has_so_many_blocks_at_most(size_bytes: int, piece_bytes: int) -> None:
    blocks = Blocks.of(size_bytes, piece_bytes)
    assert (blocks.pieces - 1) * piece_bytes < max(1, size_bytes) <= max(1, blocks.pieces) * piece_bytes
    assert 1 <= blocks.closing - blocks.pieces <= MAX_BLOCKS
    assert blocks.closing < NUMBER_MASK
    assert blocks.per_block >= BLOCK_BYTES // piece_bytes


def test_a_very_large_file_has_larger_blocks() -> None:
    usual = BLOCK_BYTES // 8_000
    small, large = Blocks.of(15 * 1024**3, 8_000), Blocks.of(MAX_FILE_BYTES, 8_000)
    assert small.per_block == usual
    assert large.per_block > 1_000 * usual
    assert large.closing - large.pieces <= MAX_BLOCKS
    assert large.is_proof(large.per_block + 1)
    assert large.index_of(large.closing - 1) == large.pieces - 1
