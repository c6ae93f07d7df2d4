"""The garbage of the flood looks like what it is meant to look like."""

import random

import pytest

from bench._flood import MADE, Kind, garbage
from common.datagrams import HELLO_BYTES, PacketType, hello_key_id
from common.limits import USUAL_DATAGRAM_BYTES

KEY_ID = bytes(range(8))


def test_what_is_alike_has_every_type_and_the_hellos_name_the_key() -> None:
    made = garbage(Kind.ALIKE, random.Random(1), KEY_ID)
    assert len(made) == MADE
    assert {each[0] >> 4 for each in made} == set(PacketType)
    hellos = [each for each in made if each[0] >> 4 == PacketType.HELLO]
    assert {len(each) for each in hellos} == {HELLO_BYTES}
    assert {hello_key_id(each) for each in hellos} == {KEY_ID}


@pytest.mark.parametrize("kind", list(Kind))
def test_no_garbage_is_larger_than_an_ethernet_frame_or_empty(kind: Kind) -> None:
    sizes = [len(each) for each in garbage(kind, random.Random(1), KEY_ID)]
    assert 0 < min(sizes) <= max(sizes) <= USUAL_DATAGRAM_BYTES
