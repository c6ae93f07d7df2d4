"""Which chunks some packets of a train carried."""

import pytest

from agent.core.content import ChunkContent
from agent.core.cursor import Cursor
from agent.core.sent import SentRange, SentTrain
from common.datagrams import PacketType
from tests.unit.agent.core.parts import make_stream


def train(count: int) -> SentTrain:
    return SentTrain(100, count, 0.0, 1_000, None, 0, 0.0, 0.0, False)


def test_packets_of_a_train_carried_the_chunks_at_their_places() -> None:
    content = ChunkContent(Cursor(make_stream()), 40, 7, 3, PacketType.REPEAT)
    assert content.numbers(SentRange(train(8), 102, 105)) == (42, 45)


@pytest.mark.parametrize("start", [100, 103])
def test_every_fragment_of_a_chunk_carried_that_one_chunk(start: int) -> None:
    content = ChunkContent(Cursor(make_stream()), 40, 7, 3, PacketType.REPEAT, fragments=4)
    assert content.numbers(SentRange(train(4), start, start + 1)) == (40, 41)
