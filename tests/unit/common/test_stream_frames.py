"""Frames about a stream: numbers, receipts and yes or no, each limit one past."""

import struct
from collections.abc import Callable

import pytest

from common.errors import DecodeError
from common.frames import decode_untrusted, encode_frame
from common.limits import MAX_REASON_BYTES, MAX_RECEIPTS_PER_FRAME
from common.stream_frames import RECEIPT_STATES, Have, Interrupted, ReceiptEntry, Receipts
from tests.unit.common.frame_bytes import MOST_NUMBER, refused


@pytest.mark.parametrize("have", [Have(1, MOST_NUMBER + 1, 0, ()), Have(1, 0, MOST_NUMBER + 1, ())])
def test_a_have_beyond_the_last_number_is_refused(have: Have) -> None:
    with pytest.raises(DecodeError, match="2\\^56"):
        decode_untrusted(encode_frame(have))


def test_a_word_that_is_neither_yes_nor_no_is_refused() -> None:
    refused(Interrupted.TYPE, struct.pack("!IB", 7, 2))


def receipts(count: int, *items: tuple[int, bytes, bytes]) -> bytes:
    """Write a receipts' body from states, devices and reasons."""
    body = struct.pack("!IB", 7, count)
    for state, device, reason in items:
        body += struct.pack("!BQBB", state, 1, len(device), len(reason)) + device + reason
    return body


REFUSED_RECEIPTS: dict[str, Callable[[], bytes]] = {
    "one receipt too many": lambda: receipts(
        MAX_RECEIPTS_PER_FRAME + 1, *[(0, b"B", b"")] * (MAX_RECEIPTS_PER_FRAME + 1)
    ),
    "an unknown state": lambda: receipts(1, (len(RECEIPT_STATES), b"B", b"")),
    "a reason one byte too long": lambda: receipts(1, (3, b"B", b"x" * (MAX_REASON_BYTES + 1))),
    "a device that is not an id": lambda: receipts(1, (0, b"../B", b"")),
    "no device": lambda: receipts(1, (0, b"", b"")),
    "a device that is not text": lambda: receipts(1, (0, b"\xff", b"")),
    "a reason that is not text": lambda: receipts(1, (3, b"B", b"\xff")),
    "fewer receipts than announced": lambda: receipts(2, (0, b"B", b"")),
    "more receipts than announced": lambda: receipts(0, (0, b"B", b"")),
    "a signature cut off": lambda: receipts(1, (2, b"B", b"reason" + bytes(64)))[:-1],
    "a text cut off": lambda: receipts(1, (0, b"B", b"reason"))[:-1],
}


@pytest.mark.parametrize("body", REFUSED_RECEIPTS.values(), ids=REFUSED_RECEIPTS)
def test_receipts_out_of_bounds_are_refused(body: Callable[[], bytes]) -> None:
    refused(Receipts.TYPE, body())


def test_as_many_receipts_as_the_limit_pass_with_the_longest_reason() -> None:
    sent = Receipts(
        7,
        tuple(
            ReceiptEntry(f"D{n}", "refused", n, "x" * MAX_REASON_BYTES, bytes(64))
            for n in range(MAX_RECEIPTS_PER_FRAME)
        ),
    )
    assert decode_untrusted(encode_frame(sent)) == [sent]
