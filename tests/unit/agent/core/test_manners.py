"""Which manner a channel has, and what tells the four apart."""

import pytest

from agent.core.acks import PACKETS_PER_ACK
from agent.core.embedded_manner import EmbeddedManner
from agent.core.manner import Manner
from agent.core.manners import SubscribeManner
from agent.core.overflow_manner import OverflowManner
from agent.core.query_manner import QueryManner
from tests.unit.agent.core.manner_parts import make_manner, requests


@pytest.mark.parametrize(
    ("routing", "kind", "subscribes"),
    [
        ("query", QueryManner, False),
        ("overflow", OverflowManner, False),
        ("subscribe", SubscribeManner, True),
        ("embedded", EmbeddedManner, False),
    ],
)
def test_a_channels_rules_name_its_manner_and_one_alone_subscribes(
    routing: str, kind: type[Manner], subscribes: bool
) -> None:
    manner = make_manner(routing)
    assert type(manner) is kind
    assert manner.subscribes is subscribes


@pytest.mark.parametrize(
    ("routing", "alone"), [("query", False), ("subscribe", False), ("embedded", False), ("overflow", True)]
)
def test_a_source_cuts_in_trains_unless_each_chunk_may_be_the_one_that_overflows_a_buffer(
    routing: str, alone: bool
) -> None:
    run = make_manner(routing).cut_run
    assert run == 1 if alone else run >= PACKETS_PER_ACK


@pytest.mark.parametrize("routing", ["query", "overflow", "subscribe", "embedded"])
def test_news_that_do_not_concern_a_manner_change_nothing(routing: str) -> None:
    manner = make_manner(routing)
    requests(manner, 0.0)
    manner.on_stream_end(0.1)
    manner.on_graph(0.1, changed=False)
    manner.on_peer_epoch(0, 0.1)
    manner.on_peer_epoch(5, 0.1)
    assert requests(manner, 0.1) == []
    assert not manner.holds_anything()
    assert manner.release(0.1) == []


def test_a_manner_that_is_told_by_pushes_asks_nothing_of_its_own() -> None:
    manner = make_manner("subscribe")
    manner.on_source(0.0)
    manner.on_resume(0.0)
    manner.on_links(0.0)
    manner.on_peer_epoch(9, 0.0)
    manner.on_failed(0.0)
    assert requests(manner, 1_000.0) == []
