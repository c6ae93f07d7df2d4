"""Ranges on the wire, as a WANT carries them."""

import struct

from common.frames import decode_untrusted, encode_frame
from common.limits import MAX_RANGES
from common.stream_frames import Want
from tests.unit.common.frame_bytes import MOST_NUMBER, frame, refused


def with_ranges(*spans: tuple[int, int]) -> bytes:
    """Write a WANT whose ranges are given as start and length."""
    return struct.pack("!IB", 7, len(spans)) + b"".join(struct.pack("!QI", *span) for span in spans)


def test_as_many_ranges_as_the_limit_pass_and_one_more_does_not() -> None:
    at_limit = with_ranges(*[(2 * n, 1) for n in range(MAX_RANGES)])
    (want,) = decode_untrusted(frame(Want.TYPE, at_limit))
    assert isinstance(want, Want)
    assert len(want.ranges) == MAX_RANGES
    refused(Want.TYPE, with_ranges(*[(2 * n, 1) for n in range(MAX_RANGES + 1)]))


def test_an_empty_range_is_refused() -> None:
    refused(Want.TYPE, with_ranges((5, 0)))


def test_a_range_may_end_at_the_last_number_and_not_past_it() -> None:
    (want,) = decode_untrusted(frame(Want.TYPE, with_ranges((MOST_NUMBER - 3, 3))))
    assert want == Want(7, ((MOST_NUMBER - 3, MOST_NUMBER),))
    refused(Want.TYPE, with_ranges((MOST_NUMBER - 3, 4)))
    refused(Want.TYPE, with_ranges(((1 << 64) - 1, 1)))


def test_a_range_too_long_for_its_field_travels_as_its_first_part() -> None:
    (want,) = decode_untrusted(encode_frame(Want(7, ((0, 1 << 33),))))
    assert want == Want(7, ((0, 0xFFFFFFFF),))
