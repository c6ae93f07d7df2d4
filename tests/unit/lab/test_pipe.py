"""One pipe by itself; test_network.py has what links do with two of them."""

import random

import pytest

from lab.pipe import FRAME_BYTES, HEADERS_BYTES, Pipe
from lab.scenario import LinkFigures


def pipe(**figures: object) -> Pipe:
    return Pipe(LinkFigures(**figures), random.Random(1))  # type: ignore[arg-type]


def test_each_datagram_arrives_after_those_before_it_and_the_delay() -> None:
    made = pipe(rate_bps=1e6, delay_s=0.5)
    frame_s = (100 + FRAME_BYTES) * 8 / 1e6
    assert [at for at, _ in made.carry([bytes(100)] * 2, 2.0)] == pytest.approx([2.5 + frame_s, 2.5 + 2 * frame_s])
    assert [at for at, _ in made.carry([bytes(100)], 2.0)] == pytest.approx([2.5 + 3 * frame_s])


def test_what_does_not_fit_the_queue_or_the_mtu_is_counted_and_gone() -> None:
    made = pipe(rate_bps=1e6, queue_bytes=2 * (100 + FRAME_BYTES), mtu_bytes=1280)
    train = [bytes(1280 - HEADERS_BYTES + 1), *[bytes(100)] * 3]
    assert len(made.carry(train, 0.0)) == 2
    assert (made.sent, made.oversize, made.dropped) == (4, 1, 1)


def test_a_pipe_that_loses_everything_delivers_nothing() -> None:
    made = pipe(loss=1.0, queue_bytes=1_000_000)
    assert made.carry([bytes(10)] * 20, 0.0) == []
    assert made.lost == 20


def test_what_is_duplicated_arrives_twice() -> None:
    made = pipe(duplicate=1.0)
    assert [datagram for _, datagram in made.carry([b"x"], 0.0)] == [b"x", b"x"]
