"""Signatures: whose they are, and that each is good for the one thing that it was given for."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DecodeError
from common.sealing import public_key_of
from common.signing import (
    PURPOSE_BLOCK,
    PURPOSE_CANCEL,
    PURPOSE_GRAPH,
    PURPOSE_MESSAGE,
    PURPOSE_OPENING,
    PURPOSE_RECEIPT,
    SIGNATURE_BYTES,
    SIGNING_KEY_BYTES,
    Signer,
    Verifier,
    block_statement,
    message_statement,
)

SECRET = bytes(range(32))
SIGNER = Signer(SECRET, "lab")
AUTHOR = Verifier(SIGNER.public_key, "lab")
PURPOSES = (PURPOSE_OPENING, PURPOSE_BLOCK, PURPOSE_MESSAGE, PURPOSE_RECEIPT, PURPOSE_CANCEL, PURPOSE_GRAPH)
STREAM = bytes(range(16))
LAST_NUMBER = (1 << 56) - 1


def test_a_device_has_one_signing_key_in_each_group_and_it_is_not_the_one_it_speaks_with() -> None:
    assert Signer(SECRET, "lab").public_key == SIGNER.public_key
    assert len(SIGNER.public_key) == SIGNING_KEY_BYTES
    others = {Signer(SECRET, "other").public_key, Signer(bytes(32), "lab").public_key, public_key_of(SECRET)}
    assert len(others | {SIGNER.public_key}) == 4


def test_the_signing_key_is_derived_as_rfc_5869_says() -> None:
    extracted = hmac.digest(b"lab", SECRET, "sha256")
    seed = hmac.digest(extracted, b"arborcast signing 1\x01", "sha256")
    key = Ed25519PrivateKey.from_private_bytes(seed)
    assert key.public_key().public_bytes_raw() == SIGNER.public_key
    assert key.sign(b"arborcast 1\0block\0lab\0data") == SIGNER.sign(PURPOSE_BLOCK, b"data")


@given(st.binary(max_size=100), st.sampled_from(PURPOSES))
def test_what_a_device_signed_is_verified_and_signed_alike_each_time(data: bytes, purpose: bytes) -> None:
    signature = SIGNER.sign(purpose, data)
    assert len(signature) == SIGNATURE_BYTES
    assert signature == Signer(SECRET, "lab").sign(purpose, data)
    assert AUTHOR.is_signed(purpose, data, signature)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_signature_is_good_for_one_purpose_in_one_group_by_one_device(purpose: bytes) -> None:
    signature = SIGNER.sign(purpose, b"data")
    assert [other for other in PURPOSES if AUTHOR.is_signed(other, b"data", signature)] == [purpose]
    assert not Verifier(SIGNER.public_key, "other").is_signed(purpose, b"data", signature)
    assert not Verifier(Signer(bytes(32), "lab").public_key, "lab").is_signed(purpose, b"data", signature)
    # What is signed has no letter that could pass from the group's name to the data.
    assert not Verifier(SIGNER.public_key, "la").is_signed(purpose, b"b\0data", signature)


@given(st.binary(min_size=1, max_size=40), st.data())
def test_no_changed_byte_passes(data: bytes, draw: st.DataObject) -> None:
    signature = SIGNER.sign(PURPOSE_MESSAGE, data)
    at = draw.draw(st.integers(0, len(data) + SIGNATURE_BYTES - 1))
    whole = bytearray(data + signature)
    whole[at] ^= draw.draw(st.integers(1, 255))
    assert not AUTHOR.is_signed(PURPOSE_MESSAGE, bytes(whole[: len(data)]), bytes(whole[len(data) :]))


@pytest.mark.parametrize("length", [*range(SIGNATURE_BYTES), SIGNATURE_BYTES + 1, 2 * SIGNATURE_BYTES])
def test_a_signature_of_another_length_is_none(length: int) -> None:
    signature = SIGNER.sign(PURPOSE_BLOCK, b"data")
    assert not AUTHOR.is_signed(PURPOSE_BLOCK, b"data", (signature * 2)[:length])


@pytest.mark.parametrize("length", [0, SIGNING_KEY_BYTES - 1, SIGNING_KEY_BYTES + 1])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(DecodeError, match="unusable signing key"):
        Verifier(bytes(length), "lab")


@given(st.binary(min_size=SIGNING_KEY_BYTES, max_size=SIGNING_KEY_BYTES))
def test_a_key_that_is_no_point_signs_nothing_and_harms_nobody(key: bytes) -> None:
    assert not Verifier(key, "lab").is_signed(PURPOSE_BLOCK, b"data", SIGNER.sign(PURPOSE_BLOCK, b"data"))


def test_a_block_is_stated_with_its_stream_its_proofs_number_and_the_digest() -> None:
    digest = hashlib.sha256(b"file").digest()
    assert block_statement(STREAM, 259, digest) == STREAM + bytes([0, 0, 0, 0, 0, 0, 1, 3]) + digest
    assert block_statement(STREAM, LAST_NUMBER, digest)[16:24] == b"\0" + b"\xff" * 7


def test_a_message_is_stated_with_its_stream_its_numbers_and_its_hash() -> None:
    digest = hashlib.sha256(b"payload").digest()
    numbers = bytes([0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0])
    assert message_statement(STREAM, 2, 256, b"payload") == STREAM + numbers + digest


FACTS = st.tuples(
    st.sampled_from([STREAM, bytes(16)]),
    st.integers(0, LAST_NUMBER),
    st.integers(0, LAST_NUMBER),
    st.binary(max_size=3),
)


@given(FACTS, FACTS)
def test_two_messages_are_stated_alike_only_if_they_are_the_same(
    one: tuple[bytes, int, int, bytes], other: tuple[bytes, int, int, bytes]
) -> None:
    assert (message_statement(*one) == message_statement(*other)) == (one == other)
