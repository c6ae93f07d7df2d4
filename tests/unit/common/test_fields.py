"""Keys and candidates as messages carry them, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DecodeError
from common.fields import decode_key, distinct, encode_key, is_host, split_candidate

KEY = encode_key(bytes(range(32)))


@given(st.binary(min_size=32, max_size=32))
def test_keys_round_trip(key: bytes) -> None:
    assert decode_key(encode_key(key)) == key


@pytest.mark.parametrize(
    "text", ["", "A", "!" * 44, "ä" * 44, encode_key(bytes(31)), encode_key(bytes(33)), KEY[:-2] + "9="]
)
def test_what_is_not_base64_of_32_bytes_is_no_key(text: str) -> None:
    with pytest.raises(DecodeError, match="base64"):
        decode_key(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:7400", ("192.0.2.1", 7400)),
        ("[2001:db8::1]:1", ("2001:db8::1", 1)),
        ("edge-1.example.:65535", ("edge-1.example.", 65535)),
    ],
)
def test_a_candidate_splits_into_host_and_port(text: str, expected: tuple[str, int]) -> None:
    assert split_candidate(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:\uff11",
        "a:1x",
        "a b:1",
        "-a:1",
        "a..b:1",
        "[::g]:1",
        "[]:1",
        "::1:1",
    ],
)
def test_what_is_no_address_is_no_candidate(text: str) -> None:
    with pytest.raises(DecodeError):
        split_candidate(text)


def test_a_host_name_has_an_end() -> None:
    with pytest.raises(DecodeError):
        split_candidate(".".join(["a" * 60] * 5) + ":1")


def test_a_list_keeps_its_order_and_holds_nothing_twice() -> None:
    assert distinct(("B", "A")) == ("B", "A")
    with pytest.raises(ValueError, match="twice"):
        distinct(("B", "A", "B"))


def test_a_host_is_a_name_or_an_address() -> None:
    assert all(map(is_host, ("localhost", "tree.example.org", "192.0.2.1", "2001:db8::1", "a" * 63)))
    assert not any(map(is_host, ("", "two words", "-a", "a..b", "[::1]", "a:1", "a" * 64, ".".join(["a" * 60] * 5))))
