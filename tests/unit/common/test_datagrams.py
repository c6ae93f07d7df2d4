"""The outermost bytes: what the clear headers say, hellos, and hop numbers cut to 32 bits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.datagrams import (
    BOTH_HEADERS,
    CHUNK_HEADER,
    CHUNK_OVERHEAD_BYTES,
    CHUNK_TYPES,
    HEADERS_BYTES,
    HELLO_BYTES,
    HOP_HEADER,
    KNOWN_FLAGS,
    NUMBER_MASK,
    WIRE_VERSION,
    Crossing,
    Hello,
    OtherWireVersion,
    PacketType,
    expand_number,
    hello_key_id,
    open_hello,
    peek_chunk,
)
from common.errors import DecodeError
from common.limits import MAX_DATAGRAM_BYTES, MIN_DATAGRAM_BYTES
from common.sealing import KEY_ID_BYTES, NONCE_BYTES, TAG_BYTES, Sealer

PAIR = Sealer(bytes(range(32)))
SENDER = b"sender-1"
NONCE = bytes(range(NONCE_BYTES))

sessions = st.binary(min_size=16, max_size=16)
hellos = st.builds(Hello, sessions, sessions, st.integers(MIN_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES), st.booleans())
u32 = st.integers(0, 0xFFFFFFFF)


def sealed_hello(hello: Hello | None = None) -> bytes:
    return (hello or Hello(b"a" * 16, b"b" * 16, 1_200)).encode(SENDER, PAIR, NONCE)


def test_both_headers_and_the_tag_fit_the_forty_bytes_of_the_design() -> None:
    assert HEADERS_BYTES == HOP_HEADER.size + CHUNK_HEADER.size == BOTH_HEADERS.size
    assert HEADERS_BYTES + TAG_BYTES == CHUNK_OVERHEAD_BYTES <= 40


@given(
    st.sampled_from(sorted(CHUNK_TYPES)),
    st.integers(0, 15),
    st.integers(0, 255),
    u32,
    u32,
    u32,
    st.integers(0, KNOWN_FLAGS),
    st.integers(0, NUMBER_MASK),
    st.integers(0, 40),
)
def test_an_onlooker_reads_a_chunks_clear_headers(
    kind: PacketType,
    tree: int,
    session: int,
    hop_number: int,
    epoch: int,
    stream: int,
    flags: int,
    number: int,
    plain_bytes: int,
) -> None:
    header = BOTH_HEADERS.pack(kind << 4 | tree, session, hop_number, epoch, 0, stream, flags << 56 | number)
    datagram = header + bytes(plain_bytes + TAG_BYTES)
    assert peek_chunk(datagram) == Crossing(kind, tree, epoch, stream, number, len(datagram))
    assert peek_chunk(datagram[: CHUNK_OVERHEAD_BYTES - 1]) is None


@pytest.mark.parametrize("kind", [kind for kind in range(16) if kind not in CHUNK_TYPES])
def test_what_is_no_chunk_is_not_read_as_one(kind: int) -> None:
    assert peek_chunk(bytes([kind << 4]) + bytes(CHUNK_OVERHEAD_BYTES)) is None


@given(hellos)
def test_a_hello_comes_out_as_it_went_in(hello: Hello) -> None:
    datagram = sealed_hello(hello)
    assert len(datagram) == HELLO_BYTES
    assert datagram[0] >> 4 == PacketType.HELLO
    assert hello_key_id(datagram) == SENDER
    assert open_hello(datagram, PAIR) == hello


def test_every_cut_hello_is_refused() -> None:
    datagram = sealed_hello()
    for length in range(HELLO_BYTES):
        with pytest.raises(DecodeError):
            hello_key_id(datagram[:length])
        with pytest.raises(DecodeError):
            open_hello(datagram[:length], PAIR)
    with pytest.raises(DecodeError):
        hello_key_id(datagram + b"\0")


@given(st.binary(max_size=2 * HELLO_BYTES) | st.binary(min_size=HELLO_BYTES, max_size=HELLO_BYTES))
def test_random_bytes_are_no_hello(data: bytes) -> None:
    with pytest.raises(DecodeError):
        open_hello(data, PAIR)
    if len(data) != HELLO_BYTES or data[0] & 15 != WIRE_VERSION:
        with pytest.raises(DecodeError):
            hello_key_id(data)


@pytest.mark.parametrize("version", [version for version in range(16) if version != WIRE_VERSION])
def test_a_hello_of_another_wire_version_is_refused_by_name(version: int) -> None:
    datagram = bytes([PacketType.HELLO << 4 | version]) + sealed_hello()[1:]
    for size in (9, HELLO_BYTES, HELLO_BYTES + 40):
        with pytest.raises(OtherWireVersion, match=f"wire version {version}") as caught:
            hello_key_id(datagram[:size].ljust(size))
        assert (caught.value.version, caught.value.key_id) == (version, datagram[1:9])
    with pytest.raises(DecodeError, match="not 8"):
        hello_key_id(datagram[:8])


def test_every_changed_byte_of_a_hello_is_noticed() -> None:
    datagram = sealed_hello()
    for at in range(HELLO_BYTES):
        forged = bytearray(datagram)
        forged[at] ^= 1
        with pytest.raises(DecodeError):
            open_hello(bytes(forged), PAIR)


def test_a_hello_of_another_pair_does_not_open() -> None:
    with pytest.raises(DecodeError):
        open_hello(sealed_hello(), Sealer(bytes(32)))


@pytest.mark.parametrize("size", [0, MIN_DATAGRAM_BYTES - 1, MAX_DATAGRAM_BYTES + 1, 0xFFFF])
def test_an_authentic_hello_with_an_absurd_datagram_size_is_refused(size: int) -> None:
    with pytest.raises(DecodeError, match=str(size)):
        open_hello(sealed_hello(Hello(b"a" * 16, b"b" * 16, size)), PAIR)


@pytest.mark.parametrize("size", [MIN_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES])
def test_the_smallest_and_the_largest_datagram_size_pass(size: int) -> None:
    assert open_hello(sealed_hello(Hello(b"a" * 16, b"b" * 16, size)), PAIR).datagram_bytes == size


def test_the_key_id_is_authenticated_with_the_hello() -> None:
    datagram = sealed_hello()
    with pytest.raises(DecodeError):
        open_hello(datagram[:1] + b"sender-2" + datagram[1 + KEY_ID_BYTES :], PAIR)


@pytest.mark.parametrize(
    ("low", "largest", "number"),
    [
        (5, 4, 5),
        (3, 0xFFFFFFFE, 0x100000003),
        (0xFFFFFFFE, 0x100000003, 0xFFFFFFFE),
        (0xFFFFFFFE, 3, 0xFFFFFFFE),
        (0, 0x1FFFFFFFF, 0x200000000),
    ],
)
def test_a_cut_number_is_found_again_across_each_turn_of_its_32_bits(low: int, largest: int, number: int) -> None:
    assert expand_number(low, largest) == number


@given(st.integers(0, 1 << 60), st.integers(-(1 << 31) + 1, (1 << 31) - 1))
def test_a_cut_number_near_the_largest_is_found_again(largest: int, offset: int) -> None:
    number = largest + 1 + offset
    if number >= 0:
        assert expand_number(number & 0xFFFFFFFF, largest) == number


@given(st.integers(0, 1 << 40), u32)
def test_a_cut_number_expands_to_the_nearest_of_all_numbers_with_these_bits(largest: int, low: int) -> None:
    expected = largest + 1
    candidates = [low + (turn << 32) for turn in range(max(0, (expected >> 32) - 2), (expected >> 32) + 3)]
    nearest = min(abs(candidate - expected) for candidate in candidates)
    assert abs(expand_number(low, largest) - expected) == nearest
