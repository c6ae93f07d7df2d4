"""A challenge and its answer on the wire."""

import pytest

from common.errors import DecodeError
from common.frames import decode_untrusted, encode_frame
from common.path_frames import TOKEN_BYTES, PathAnswer, PathChallenge


@pytest.mark.parametrize("kind", [PathChallenge, PathAnswer])
def test_a_frame_carries_its_token(kind: type[PathChallenge | PathAnswer]) -> None:
    frame = kind(bytes(range(TOKEN_BYTES)))
    assert decode_untrusted(encode_frame(frame)) == [frame]


@pytest.mark.parametrize("kind", [PathChallenge, PathAnswer])
@pytest.mark.parametrize("length", [0, TOKEN_BYTES - 1, TOKEN_BYTES + 1])
def test_a_token_of_another_length_is_refused(kind: type[PathChallenge | PathAnswer], length: int) -> None:
    with pytest.raises(DecodeError, match="8 bytes"):
        decode_untrusted(encode_frame(kind(bytes(length))))
