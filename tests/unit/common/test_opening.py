"""Stream openings: round trips, and wrong types and sizes in every field."""

import base64
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.blocks import Blocks
from common.errors import DecodeError
from common.limits import MAX_DATAGRAM_BYTES, MAX_FILE_BYTES, MAX_NAME_BYTES, MIN_DATAGRAM_BYTES
from common.opening import Opening
from common.signing import PURPOSE_OPENING, SIGNATURE_BYTES, Signer

SIGNER = Signer(bytes(32), "lab")
FILE = Opening(bytes(range(16)), "files", "A", "file", bytes(32), 1_000, "model.bin", 2_500, 1_000.0, 2_000.0).signed(
    SIGNER
)
MESSAGE = Opening(bytes(range(16)), "messages", "A", "message", bytes(32), 1_000, "", None, 1_000.0, 2_000.0).signed(
    SIGNER
)

ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
file_names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)
times = st.floats(0, 2**40)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from([10**400, -(10**400), 2**53, "file", "message", "00" * 16, "AA" * 21 + "A=", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def fields_of(opening: Opening) -> dict[str, Any]:
    return dict(json.loads(opening.encode()[:-SIGNATURE_BYTES]))


def signed(body: object) -> bytes:
    """Write what claims to be an opening, signed by the test's signer."""
    try:
        data = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        data = json.dumps(body).encode()
    return data + SIGNER.sign(PURPOSE_OPENING, data)


def body_of(opening: Opening, **changes: Any) -> bytes:
    """Write an opening with some fields changed to anything that JSON takes, and signed."""
    return signed(fields_of(opening) | changes)


def read(data: bytes) -> Opening:
    return Opening.decode_untrusted(data, "lab")


def refused(opening: Opening, **changes: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        read(body_of(opening, **changes))
    return str(caught.value)


@given(
    st.builds(
        Opening,
        stream=st.binary(min_size=16, max_size=16),
        channel=ids,
        source=ids,
        kind=st.just("file"),
        key=st.binary(min_size=32, max_size=32),
        piece_bytes=st.integers(MIN_DATAGRAM_BYTES // 2, MAX_DATAGRAM_BYTES),
        name=file_names,
        size_bytes=st.integers(0, MAX_FILE_BYTES),
        created=times,
        expires=times.map(lambda time: 2.0**41 + time),
    )
)
def test_a_files_opening_comes_out_as_it_went_in(opening: Opening) -> None:
    opening = opening.signed(SIGNER)
    assert read(opening.encode()) == opening


@given(st.binary(min_size=16, max_size=16), ids, ids, times)
def test_a_message_streams_opening_comes_out_as_it_went_in(
    stream: bytes, channel: str, source: str, created: float
) -> None:
    opening = Opening(stream, channel, source, "message", bytes(32), 1_160, "", None, created, created + 1.0)
    opening = opening.signed(SIGNER)
    assert read(opening.encode()) == opening


def test_an_opening_tells_its_short_form_and_its_pieces() -> None:
    assert FILE.short == 0x00010203
    assert FILE.hex == bytes(range(16)).hex()
    assert (FILE.blocks, FILE.closing_number) == (Blocks(3, 1_048), 4)
    assert (MESSAGE.blocks, MESSAGE.closing_number) == (None, None)


@pytest.mark.parametrize(("size", "pieces"), [(0, 0), (1, 1), (1_000, 1), (1_001, 2)])
def test_an_empty_file_has_a_closing_record_alone(size: int, pieces: int) -> None:
    opening = read(body_of(FILE, size=size))
    assert opening.closing_number == pieces + 1


def test_every_cut_prefix_is_refused() -> None:
    data = FILE.encode()
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            read(data[:length])


@given(st.binary(max_size=200))
def test_random_bytes_are_no_opening(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read(data)


@given(json_values)
def test_no_other_json_is_an_opening(value: object) -> None:
    with pytest.raises(DecodeError):
        read(signed(value))


def test_json_without_end_is_refused() -> None:
    with pytest.raises(DecodeError):
        read(b"[" * 100_000)
    with pytest.raises(DecodeError):
        read(b"9" * 10_000)


@given(st.sampled_from([FILE, MESSAGE]), st.sampled_from(sorted(fields_of(FILE))), json_values)
def test_any_value_in_any_field_is_taken_whole_or_refused(opening: Opening, field: str, value: object) -> None:
    try:
        taken = read(body_of(opening, **{field: value}))
    except DecodeError:
        return
    assert read(taken.encode()) == taken
    assert len(taken.name.encode()) <= MAX_NAME_BYTES


@pytest.mark.parametrize("field", sorted(fields_of(FILE)))
def test_an_opening_without_a_field_is_refused(field: str) -> None:
    body = fields_of(FILE)
    del body[field]
    with pytest.raises(DecodeError, match=field):
        read(signed(body))


@pytest.mark.parametrize("stream", ["", "00" * 15, "00" * 17, "zz" * 16, 5, None, ["00"], {}])
def test_an_id_of_another_form_is_refused(stream: object) -> None:
    refused(FILE, stream=stream)


@pytest.mark.parametrize("key", ["", "AAAA", "*" * 44, "é", 5, None, ["A"], {}])
def test_a_key_of_another_form_is_refused(key: object) -> None:
    refused(FILE, key=key)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, 5, None, ["files"], "../files", "\ud800"])
@pytest.mark.parametrize("field", ["channel", "source"])
def test_a_channel_or_a_source_that_is_no_id_is_refused(field: str, name: object) -> None:
    assert "not an id" in refused(FILE, **{field: name})


@pytest.mark.parametrize("kind", ["", "live", "File", 5, None, ["file"], {"file": 1}, True])
def test_a_kind_that_is_neither_is_refused(kind: object) -> None:
    assert "neither file nor message" in refused(FILE, kind=kind)


@pytest.mark.parametrize("name", [5, None, ["a"], {}, "a\0b", "\ud800", True])
def test_a_name_that_is_no_text_is_refused(name: object) -> None:
    assert "name is not text" in refused(FILE, name=name)


def test_a_name_may_have_255_bytes_and_no_more() -> None:
    assert read(body_of(FILE, name="é" * 127 + "x")).name == "é" * 127 + "x"
    refused(FILE, name="é" * 128)
    refused(FILE, name="")
    refused(MESSAGE, name="x")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", ".", "..", "a\\b", "\n"])
def test_a_name_like_a_path_passes_here_and_is_left_to_the_store(name: str) -> None:
    assert read(body_of(FILE, name=name)).name == name


@pytest.mark.parametrize("piece", [MIN_DATAGRAM_BYTES // 2 - 1, MAX_DATAGRAM_BYTES + 1, 0, -1, 1e3, "1000", None, True])
def test_a_piece_size_out_of_range_is_refused(piece: object) -> None:
    assert "piece size" in refused(FILE, piece=piece)


@pytest.mark.parametrize("size", [-1, MAX_FILE_BYTES + 1, 10**400, 5.0, "5", None, True, [5]])
def test_a_files_size_out_of_range_is_refused(size: object) -> None:
    assert "a file's size" in refused(FILE, size=size)


@pytest.mark.parametrize("size", [0, 5, "5", True])
def test_a_message_stream_with_a_size_is_refused(size: object) -> None:
    assert "has no size" in refused(MESSAGE, size=size)


@pytest.mark.parametrize(
    "moment", ["5", None, True, [5], {}, float("nan"), float("inf"), -float("inf"), 10**400, 2**60]
)
@pytest.mark.parametrize("field", ["created", "expires"])
def test_a_time_that_is_none_is_refused(field: str, moment: object) -> None:
    assert "unix seconds" in refused(FILE, **{field: moment})


@pytest.mark.parametrize("expires", [1_000.0, 999.9, -5])
def test_an_opening_that_expires_before_it_begins_is_refused(expires: float) -> None:
    assert "before it begins" in refused(FILE, expires=expires)


def test_what_its_signer_did_not_sign_is_refused() -> None:
    data = FILE.encode()
    for at in (0, 40, len(data) - 1):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(DecodeError):
            read(changed)
    with pytest.raises(DecodeError, match="signature"):
        Opening.decode_untrusted(data, "another group")
    with pytest.raises(DecodeError, match="signature"):
        read(dataclasses.replace(FILE, name="other.bin").encode())
    with pytest.raises(DecodeError, match="signature"):
        read(dataclasses.replace(FILE, signer=Signer(bytes([1]) * 32, "lab").public_key).encode())


@pytest.mark.parametrize("signer", ["", "AAAA", "*" * 44, 5, None])
def test_a_signing_key_of_another_form_is_refused(signer: object) -> None:
    refused(FILE, signer=signer)


def test_a_signing_key_that_is_none_is_refused() -> None:
    assert "signature" in refused(FILE, signer=base64.b64encode(b"\xff" * 32).decode())
