"""What the tests of the manners are put together from: a manner of a channel, chunks, and what comes of them."""

import random
from typing import Any

from agent.core.events import ControlRequest
from agent.core.manner import Decision, Forwarding, Manner
from agent.core.manners import manner_of
from agent.core.routing import GraphTable
from agent.core.stream import Stream
from common.datagrams import PacketType
from common.messages import ChannelSpec
from tests.unit.agent.core.parts import graph, make_stream

STREAM = make_stream()


def make_manner(routing: str, table: GraphTable | None = None, **rules: Any) -> Manner:
    spec = ChannelSpec.model_validate({"name": "files", "kind": "file", "routing": routing, **rules})
    return manner_of(spec, known(5) if table is None else table, random.Random(1), 0.0)


def known(*epochs: int) -> GraphTable:
    table = GraphTable("B", 0.0)
    for epoch in epochs:
        table.learn_graph(graph(epoch, ("A", "B"), ("B", "C")), 0.0)
    return table


def chunk(
    number: int, epoch: int | None = None, *, count: int = 1, size: int = 1_040, stream: Stream = STREAM
) -> Forwarding:
    """Return chunks of one size to be distributed, one if not said otherwise."""
    previous = None if epoch is None else "A"
    return Forwarding(stream, number, number + count, count * size, epoch, 0, previous, PacketType.DATA)


def requests(manner: Manner, now: float) -> list[ControlRequest]:
    out = []
    while (request := manner.poll_request(now)) is not None:
        out.append(request)
    return out


def gone(decisions: list[Decision]) -> list[tuple[int, int]]:
    """Return the number and the whole epoch of each chunk that goes on."""
    return [(number, found.epoch) for item, found in decisions for number in range(item.start, item.stop)]
