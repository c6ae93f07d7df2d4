"""STUN Binding: the RFC's own examples, round trips, every cut prefix, random bytes, and each limit one past."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DecodeError
from common.limits import MAX_STUN_BYTES, MAX_STUN_UNKNOWN
from common.stun import (
    COOKIE,
    HEADER_BYTES,
    TRANSACTION_BYTES,
    BindingError,
    BindingRequest,
    BindingSuccess,
    decode_untrusted,
    encode_answer,
    encode_request,
)

TRANSACTION = bytes(range(TRANSACTION_BYTES))
HEAD = COOKIE + TRANSACTION

# RFC 5769 sections 2.1 to 2.3.
RFC_REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff"
    "80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249"
    "c1b571a280280004e57a3bcf"
)
RFC_ANSWER = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RFC_ANSWER_V6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa"
    "a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)

addresses = st.tuples(st.ip_addresses().map(str), st.integers(1, 65_535))


def message(kind: int, *attributes: tuple[int, bytes], head: bytes = HEAD) -> bytes:
    """Write a message by hand."""
    body = b"".join(struct.pack("!HH", each, len(value)) + value + bytes(-len(value) % 4) for each, value in attributes)
    return struct.pack("!HH", kind, len(body)) + head + body


def test_the_rfcs_examples_are_understood() -> None:
    transaction = COOKIE + bytes.fromhex("b7e7a701bc34d686fa87dfae")
    # PRIORITY is of ICE's connectivity checks, which nobody makes here.
    assert decode_untrusted(RFC_REQUEST) == BindingRequest(transaction, (0x0024,), fingerprint=True)
    assert decode_untrusted(RFC_ANSWER) == BindingSuccess(transaction, ("192.0.2.1", 32_853))
    there = ("2001:db8:1234:5678:11:2233:4455:6677", 32_853)
    assert decode_untrusted(RFC_ANSWER_V6) == BindingSuccess(transaction, there)


def test_a_request_is_twenty_bytes() -> None:
    request = encode_request(TRANSACTION)
    assert request == bytes.fromhex("00010000 2112a442") + TRANSACTION
    assert decode_untrusted(request) == BindingRequest(HEAD)


@given(addresses, st.binary(min_size=TRANSACTION_BYTES, max_size=TRANSACTION_BYTES), st.booleans())
def test_an_answer_names_the_source_and_is_no_larger_than_three_requests(
    source: tuple[str, int], transaction: bytes, fingerprint: bool
) -> None:
    request = BindingRequest(COOKIE + transaction, (), fingerprint)
    answer = encode_answer(request, source)
    assert decode_untrusted(answer) == BindingSuccess(request.transaction, source)
    assert len(answer) <= 3 * (HEADER_BYTES + (8 if fingerprint else 0))
    # XOR is what keeps NATs from rewriting it.
    assert struct.pack("!H", source[1]) != answer[26:28]


@given(addresses)
def test_a_client_of_the_first_rfc_gets_the_address_in_the_open(source: tuple[str, int]) -> None:
    head = bytes(range(100, 116))
    request = decode_untrusted(message(1, head=head))
    assert isinstance(request, BindingRequest)
    answer = encode_answer(request, source)
    assert answer[20:22] == b"\0\1"
    assert answer[26:28] == struct.pack("!H", source[1])
    assert decode_untrusted(answer) == BindingSuccess(head, source)


def test_an_answer_has_a_fingerprint_if_the_request_had_one() -> None:
    request = decode_untrusted(RFC_REQUEST)
    assert isinstance(request, BindingRequest)
    plain = BindingRequest(request.transaction, (), fingerprint=True)
    answer = encode_answer(plain, ("192.0.2.1", 1))
    assert answer[-8:-4] == bytes.fromhex("80280004")
    assert isinstance(decode_untrusted(answer), BindingSuccess)


def test_what_must_be_understood_and_is_not_is_named_in_the_answer() -> None:
    asked = message(1, (0x0003, bytes(4)), (0x7FFF, b""), (0x0003, bytes(4)), (0xC000, b"whatever"))
    request = decode_untrusted(asked)
    assert request == BindingRequest(HEAD, (0x0003, 0x7FFF))
    answer = encode_answer(request, ("192.0.2.1", 1))
    assert decode_untrusted(answer) == BindingError(HEAD, 420, "Unknown Attribute")
    assert answer[-8:] == bytes.fromhex("000a0004 0003 7fff")
    assert len(answer) <= 3 * len(asked)


@given(st.lists(st.integers(0, 0x7FFF), min_size=1, max_size=310), st.booleans())
def test_an_answer_to_many_unknown_attributes_stays_small(kinds: list[int], fingerprint: bool) -> None:
    asked = message(1, *((kind, b"") for kind in kinds))
    request = decode_untrusted(asked)
    assert isinstance(request, BindingRequest)
    assert len(request.unknown) <= MAX_STUN_UNKNOWN
    asking = BindingRequest(request.transaction, request.unknown, fingerprint)
    assert len(encode_answer(asking, ("2001:db8::1", 1))) <= 3 * (len(asked) + (8 if fingerprint else 0))


def test_attributes_of_authentication_are_passed_over() -> None:
    asked = message(1, (0x0006, b"name"), (0x0008, bytes(20)), (0x001C, bytes(32)), (0x8022, b"software"))
    assert decode_untrusted(asked) == BindingRequest(HEAD)


def test_an_old_servers_answer_is_understood() -> None:
    old = message(0x0101, (0x0001, bytes.fromhex("00011234c0000201")), (0x8022, b"old"))
    assert decode_untrusted(old) == BindingSuccess(HEAD, ("192.0.2.1", 0x1234))


def test_of_two_addresses_the_masked_one_counts_and_of_two_masked_ones_the_first() -> None:
    first = encode_answer(BindingRequest(HEAD), ("192.0.2.7", 7))[HEADER_BYTES + 4 :]
    other = encode_answer(BindingRequest(HEAD), ("192.0.2.8", 8))[HEADER_BYTES + 4 :]
    answer = message(0x0101, (0x0001, bytes.fromhex("00011234c0000201")), (0x0020, first), (0x0020, other))
    assert decode_untrusted(answer) == BindingSuccess(HEAD, ("192.0.2.7", 7))


@pytest.mark.parametrize(("code", "value"), [(300, b"\0\0\3\0"), (500, b"\0\0\5\0oh no"), (699, b"\0\0\6\x63\xff")])
def test_an_error_is_a_code_and_a_reason(code: int, value: bytes) -> None:
    error = decode_untrusted(message(0x0111, (0x0009, value)))
    assert isinstance(error, BindingError)
    assert error.code == code
    assert error.reason == value[4:].decode(errors="replace")


def test_a_long_reason_is_cut() -> None:
    error = decode_untrusted(message(0x0111, (0x0009, b"\0\0\4\0" + b"x" * 500)))
    assert isinstance(error, BindingError)
    assert len(error.reason) == 128


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(message(0x0011), id="an indication"),
        pytest.param(message(0x0003), id="Allocate, another method"),
        pytest.param(message(0xC001), id="a channel of TURN"),
        pytest.param(message(0x0101), id="an answer without an address"),
        pytest.param(message(0x0101, (0x0020, bytes(7))), id="an address too short"),
        pytest.param(message(0x0101, (0x0020, bytes(3))), id="an address without its port"),
        pytest.param(message(0x0101, (0x0020, b"\0\3" + bytes(6))), id="a family that is not known"),
        pytest.param(message(0x0101, (0x0020, b"\0\2" + bytes(6))), id="four bytes of an IPv6 address"),
        pytest.param(message(0x0101, (0x0020, b"\0\1" + bytes(6)), (0x7777, b"")), id="must be understood"),
        pytest.param(message(0x0111), id="an error without its code"),
        pytest.param(message(0x0111, (0x0009, b"\0\0\2\0")), id="code 200"),
        pytest.param(message(0x0111, (0x0009, b"\0\0\7\0")), id="code 700"),
        pytest.param(message(0x0111, (0x0009, b"\0\0\4\x64")), id="code 500 as 4 and 100"),
        pytest.param(message(0x0001, (0x8028, bytes(4))), id="a wrong fingerprint"),
        pytest.param(RFC_ANSWER[:2] + b"\0\x40" + RFC_ANSWER[4:] + b"\x80\x22\0\0", id="behind the fingerprint"),
        pytest.param(message(0x0001) + bytes(4), id="more bytes than it says"),
        pytest.param(b"\0\1\0\2" + HEAD + bytes(2), id="a length that is no multiple of four"),
        pytest.param(message(0x0001, (0x8022, bytes(MAX_STUN_BYTES - HEADER_BYTES))), id="oversized"),
    ],
)
def test_what_does_not_hold_together_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_untrusted(data)


def test_the_largest_message_is_taken() -> None:
    largest = message(1, (0x8022, bytes(MAX_STUN_BYTES - HEADER_BYTES - 4)))
    assert len(largest) == MAX_STUN_BYTES
    assert decode_untrusted(largest) == BindingRequest(HEAD)


@pytest.mark.parametrize("whole", [RFC_REQUEST, RFC_ANSWER, RFC_ANSWER_V6, message(0x0111, (0x0009, b"\0\0\4\0no"))])
def test_every_cut_message_is_refused(whole: bytes) -> None:
    for length in range(len(whole)):
        with pytest.raises(DecodeError):
            decode_untrusted(whole[:length])
        # The same with a length that fits what is left.
        if length >= HEADER_BYTES:
            cut = whole[:2] + struct.pack("!H", length - HEADER_BYTES) + whole[4:length]
            try:
                decode_untrusted(cut)
            except DecodeError:
                continue
            # The attributes before a cut between two of them, without the fingerprint that is the last.
            assert length % 4 == 0


@given(st.binary(max_size=100))
def test_random_bytes_raise_nothing_but_a_decode_error(data: bytes) -> None:
    for kind in (0x0001, 0x0101, 0x0111):
        body = data[: len(data) // 4 * 4]
        for candidate in (data, struct.pack("!HH", kind, len(body)) + HEAD + body):
            try:
                decode_untrusted(candidate)
            except DecodeError:
                continue


def test_a_turned_bit_anywhere_in_a_message_with_a_fingerprint_is_seen() -> None:
    rng = random.Random(7)
    for at in range(HEADER_BYTES, len(RFC_ANSWER)):
        changed = bytearray(RFC_ANSWER)
        changed[at] ^= 1 << rng.randrange(8)
        # A turned bit in the fingerprint's own type makes it another attribute.
        if at not in (len(RFC_ANSWER) - 8, len(RFC_ANSWER) - 7):
            with pytest.raises(DecodeError):
                decode_untrusted(bytes(changed))
