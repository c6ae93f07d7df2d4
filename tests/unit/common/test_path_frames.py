"""Frames that tell what a path is: a challenge and its answer, a probe of a size, a train."""

import struct

import pytest

from common.datagrams import CONTROL_OVERHEAD_BYTES
from common.errors import DecodeError
from common.frames import decode_untrusted, encode_frame
from common.limits import MAX_TRAIN_DATAGRAMS
from common.path_frames import TOKEN_BYTES, MtuAnswer, MtuProbe, PathAnswer, PathChallenge, Train
from tests.unit.common.frame_bytes import refused


@pytest.mark.parametrize("kind", [PathChallenge, PathAnswer])
def test_a_frame_carries_its_token(kind: type[PathChallenge | PathAnswer]) -> None:
    frame = kind(bytes(range(TOKEN_BYTES)))
    assert decode_untrusted(encode_frame(frame)) == [frame]


@pytest.mark.parametrize("kind", [PathChallenge, PathAnswer])
@pytest.mark.parametrize("length", [0, TOKEN_BYTES - 1, TOKEN_BYTES + 1])
def test_a_token_of_another_length_is_refused(kind: type[PathChallenge | PathAnswer], length: int) -> None:
    with pytest.raises(DecodeError, match="8 bytes"):
        decode_untrusted(encode_frame(kind(bytes(length))))


def test_a_probe_says_its_size_by_being_of_it() -> None:
    assert len(encode_frame(MtuProbe(1_472))) == 1_472 - CONTROL_OVERHEAD_BYTES


@pytest.mark.parametrize("size", [1_199, 9_001])
def test_a_probe_of_a_size_that_is_never_sent_is_refused(size: int) -> None:
    refused(MtuProbe.TYPE, MtuProbe(size).body())
    refused(MtuAnswer.TYPE, MtuAnswer(size).body())


@pytest.mark.parametrize(("index", "count"), [(0, 0), (1, 1), (3, 2), (0, MAX_TRAIN_DATAGRAMS + 1)])
def test_a_train_s_datagram_has_its_place_in_a_train_of_bounded_length(index: int, count: int) -> None:
    refused(Train.TYPE, struct.pack("!HHH", 1, index, count))


def test_a_train_s_padding_fills_its_datagram() -> None:
    padding = 1_472 - Train.OVERHEAD_BYTES
    assert len(encode_frame(Train(1, 0, 2, padding))) + CONTROL_OVERHEAD_BYTES == 1_472
