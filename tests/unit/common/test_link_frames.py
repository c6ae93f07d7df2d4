"""Frames of a link's life: what makes a port or a farewell none."""

import pytest

from common.link_frames import Bye, ChannelPort
from tests.unit.common.frame_bytes import refused


@pytest.mark.parametrize("body", [b"\0\0files", b"\x10\0", b"\x10\0a/b", b"\x10\0\xff", b"\x10\0" + b"x" * 65])
def test_a_port_of_nothing_or_of_no_channel_is_refused(body: bytes) -> None:
    refused(ChannelPort.TYPE, body)


def test_a_bye_says_nothing_more() -> None:
    refused(Bye.TYPE, b"\0")
