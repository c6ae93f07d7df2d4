import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DecodeError
from common.join_string import PREFIX, JoinString, decode_untrusted, encode
from common.limits import MAX_JOIN_STRING_CHARS, MAX_URL_CHARS

JOIN = JoinString("https://tree.example.org:8640", "lab", "join~" + "s" * 43, bytes(range(32)))


def raw(body: bytes) -> str:
    """Write a join string that holds together, whatever it holds."""
    return PREFIX + base64.urlsafe_b64encode(hashlib.sha256(body).digest()[:8] + body).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "join", [JOIN, JoinString("http://127.0.0.1:1", "a", "t"), JoinString("https://[::1]", "a", "t")]
)
def test_what_is_written_is_read_back(join: JoinString) -> None:
    text = encode(join)
    assert decode_untrusted(text) == join
    assert text.isascii()
    assert len(text.split()) == 1


def test_the_form_is_this_one() -> None:
    body = b'{"u":"http://h:1","g":"lab","t":"join~x"}'
    assert encode(JoinString("http://h:1", "lab", "join~x")) == raw(body)


def test_every_string_that_was_cut_short_is_told_from_a_whole_one() -> None:
    text = encode(JOIN)
    for length in range(len(text)):
        with pytest.raises(DecodeError):
            decode_untrusted(text[:length])
    with pytest.raises(DecodeError, match="it was cut short or mistyped"):
        decode_untrusted(text[:-3])


@given(at=st.integers(min_value=len(PREFIX)), letter=st.sampled_from("ABCxyz019-_ .=ä"))
def test_every_mistyped_letter_is_found(at: int, letter: str) -> None:
    text = encode(JOIN)
    at = len(PREFIX) + at % (len(text) - len(PREFIX) - 1)
    if text[at] != letter:
        with pytest.raises(DecodeError, match="cut short or mistyped"):
            decode_untrusted(text[:at] + letter + text[at + 1 :])


@given(text=st.text() | st.text().map(PREFIX.__add__) | st.binary().map(raw))
def test_anything_else_is_refused_and_nothing_else_is_raised(text: str) -> None:
    with pytest.raises(DecodeError):
        decode_untrusted(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it does not begin with 'arborcast1.'"),
        ("join~secret", "it does not begin with 'arborcast1.'"),
        ("arborcast2.abc", "of version 2, and this arborcast knows version 1"),
        (PREFIX, "cut short or mistyped"),
        (PREFIX + "x" * MAX_JOIN_STRING_CHARS, f"at most {MAX_JOIN_STRING_CHARS} are allowed"),
    ],
)
def test_a_string_that_is_none_is_said_to_be_so_without_repeating_it(text: str, words: str) -> None:
    with pytest.raises(DecodeError, match=words) as caught:
        decode_untrusted(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"u": "ftp://h"},
        {"u": "https://h:port"},
        {"u": "https://[::1"},
        {"u": "https://h h"},
        {"u": "https://" + "h" * 300},
        {"g": "no name"},
        {"t": ""},
        {"t": "two words"},
        {"t": "x" * 200},
        {"f": "short"},
        {"more": 1},
        {"u": None},
    ],
)
def test_a_part_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    body = {"u": "https://h:1", "g": "lab", "t": "join~x", **change}
    with pytest.raises(DecodeError, match="holds what it may not"):
        decode_untrusted(raw(json.dumps(body).encode()))


def test_what_nobody_could_read_is_not_written() -> None:
    with pytest.raises(DecodeError, match="this cannot be a join string: u"):
        encode(JoinString("https://" + "h" * 300, "lab", "t"))


def test_the_token_is_not_shown_where_a_join_string_is_printed() -> None:
    assert "sss" not in repr(JOIN)


def test_the_url_has_its_most_characters_and_no_more() -> None:
    longest = "https://" + "a" * (MAX_URL_CHARS - len("https://"))
    assert decode_untrusted(encode(JoinString(longest, "lab", "join~x"))).url == longest
    with pytest.raises(DecodeError):
        encode(JoinString(longest + "a", "lab", "join~x"))
