"""Keys and seals: what opens what, and that nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DecodeError
from common.sealing import (
    GROUP_SEAL_OVERHEAD,
    KEY_ID_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    GroupKeys,
    Sealer,
    hello_key,
    key_epoch_of,
    key_id,
    nonce_of,
    pair_secret,
    public_key_of,
    session_key,
)

ALICE = bytes(range(1, 33))
BOB = bytes(range(2, 34))
KEY = bytes(32)
NEW_KEY = bytes([1]) * 32
NONCE = bytes(range(NONCE_BYTES))


def test_both_sides_derive_one_secret() -> None:
    assert pair_secret(ALICE, public_key_of(BOB)) == pair_secret(BOB, public_key_of(ALICE))
    assert pair_secret(ALICE, public_key_of(BOB)) != pair_secret(ALICE, public_key_of(ALICE))


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytes(32), bytes([1]) + bytes(31)])
def test_a_public_key_that_is_no_usable_point_is_refused(key: bytes) -> None:
    with pytest.raises(DecodeError, match="unusable public key"):
        pair_secret(ALICE, key)


def test_a_key_id_names_a_public_key_in_eight_bytes() -> None:
    first, second = key_id(public_key_of(ALICE)), key_id(public_key_of(BOB))
    assert len(first) == KEY_ID_BYTES
    assert first != second
    assert first == key_id(public_key_of(ALICE))


def test_each_group_direction_and_session_has_a_key_of_its_own() -> None:
    secret = pair_secret(ALICE, public_key_of(BOB))
    one, other, third = b"1" * 16, b"2" * 16, b"3" * 16
    keys = [
        hello_key(secret, "lab"),
        hello_key(secret, "home"),
        session_key(secret, "lab", one, other),
        session_key(secret, "lab", other, one),
        session_key(secret, "lab", one, third),
        session_key(secret, "home", one, other),
    ]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}


@given(st.integers(0, 2**56 - 1), st.binary(max_size=40), st.binary(max_size=40))
def test_what_is_sealed_opens_under_its_number_and_header_alone(number: int, header: bytes, data: bytes) -> None:
    sealer = Sealer(KEY)
    sealed = sealer.seal(number, header, data)
    assert len(sealed) == len(data) + TAG_BYTES
    assert sealer.open(number, header, sealed) == data
    for forged in ((number + 1, header, sealed), (number, header + b"x", sealed), (number, header, sealed[:-1])):
        with pytest.raises(DecodeError):
            sealer.open(*forged)
    with pytest.raises(DecodeError):
        Sealer(NEW_KEY).open(number, header, sealed)


@given(st.binary(max_size=64))
def test_random_bytes_do_not_open(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Sealer(KEY).open(1, b"", data)


def test_a_nonce_is_the_number_in_twelve_bytes() -> None:
    assert nonce_of(0x0102) == bytes(10) + b"\x01\x02"


@given(st.binary(max_size=100), st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES))
def test_a_members_record_opens_for_members(data: bytes, nonce: bytes) -> None:
    keys = GroupKeys("lab", {3: KEY, 7: NEW_KEY})
    sealed = keys.seal(b"opening", data, nonce)
    assert key_epoch_of(sealed) == keys.newest == 7
    assert len(sealed) == len(data) + GROUP_SEAL_OVERHEAD
    assert GroupKeys("lab", {7: NEW_KEY, 8: KEY}).open(b"opening", sealed) == data


def test_every_cut_record_is_refused() -> None:
    keys = GroupKeys("lab", {1: KEY})
    sealed = keys.seal(b"opening", b"data", NONCE)
    for length in range(len(sealed)):
        with pytest.raises(DecodeError):
            keys.open(b"opening", sealed[:length])


def test_every_changed_byte_of_a_record_is_noticed() -> None:
    keys = GroupKeys("lab", {1: KEY})
    sealed = keys.seal(b"opening", b"data", NONCE)
    for at in range(len(sealed)):
        forged = bytearray(sealed)
        forged[at] ^= 1
        with pytest.raises(DecodeError):
            keys.open(b"opening", bytes(forged))


@given(st.binary(max_size=100))
def test_random_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises(DecodeError):
        GroupKeys("lab", {0: KEY}).open(b"opening", data)


def test_a_record_of_another_group_does_not_open() -> None:
    sealed = GroupKeys("lab", {1: KEY}).seal(b"opening", b"data", NONCE)
    with pytest.raises(DecodeError, match="does not authenticate"):
        GroupKeys("home", {1: KEY}).open(b"opening", sealed)


def test_a_record_for_another_purpose_does_not_open() -> None:
    keys = GroupKeys("lab", {1: KEY})
    with pytest.raises(DecodeError, match="does not authenticate"):
        keys.open(b"cancel", keys.seal(b"opening", b"data", NONCE))


def test_a_record_under_an_unknown_key_epoch_is_refused_by_name() -> None:
    sealed = GroupKeys("lab", {5: KEY}).seal(b"opening", b"data", NONCE)
    with pytest.raises(DecodeError, match="epoch 5 is not known"):
        GroupKeys("lab", {4: KEY, 6: KEY}).open(b"opening", sealed)


def test_a_record_moved_to_another_key_epoch_does_not_open() -> None:
    keys = GroupKeys("lab", {4: KEY, 5: KEY})
    sealed = keys.seal(b"opening", b"data", NONCE)
    with pytest.raises(DecodeError, match="does not authenticate"):
        keys.open(b"opening", (4).to_bytes(4, "big") + sealed[4:])
