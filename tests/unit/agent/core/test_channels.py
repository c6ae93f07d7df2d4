"""The group's channels, as their rules come and go."""

import random

from agent.core.channels import ChannelTable
from agent.core.events import QueryNeighbours
from agent.core.manner import LINKS_WAIT_S
from agent.core.manners import SubscribeManner
from agent.core.overflow_manner import OverflowManner
from agent.core.query_manner import QueryManner
from agent.core.routing import GraphTable
from common.messages import ChannelSpec
from tests.unit.agent.core.parts import FILE, graph, make_stream

FILES = ChannelSpec(name="files", kind="file")
CHAT = ChannelSpec(name="chat", kind="message", routing="query")


def make_table() -> ChannelTable:
    return ChannelTable(GraphTable("B", 0.0), random.Random(1))


def test_each_channel_has_the_manner_of_its_rules() -> None:
    table = make_table()
    table.set_specs((FILES, CHAT), 0.0)
    assert isinstance(table.by_name["files"].manner, SubscribeManner)
    assert isinstance(table.by_name["chat"].manner, QueryManner)


def test_a_channel_whose_rules_stay_goes_on_as_it_was() -> None:
    table = make_table()
    table.set_specs((FILES,), 0.0)
    before = table.by_name["files"]
    table.set_specs((FILES.model_copy(), CHAT), 1.0)
    assert table.by_name["files"] is before


def test_new_rules_begin_a_new_manner_and_keep_the_sockets() -> None:
    table = make_table()
    table.set_specs((FILES,), 0.0)
    before = table.by_name["files"]
    before.asked["C"] = None
    table.add_socket(before, "C", 3, 7_403)
    table.set_specs((FILES.model_copy(update={"routing": "overflow"}),), 1.0)
    after = table.by_name["files"]
    assert isinstance(after.manner, OverflowManner)
    assert after.sockets == {"C": (3, 7_403)}
    assert after.asked == {"C": None}
    assert table.by_socket == {3: ("files", "C")}


def test_m11_one_channel_that_subscribes_is_enough_to_want_pushes() -> None:
    table = make_table()
    assert not table.subscribes()
    table.set_specs((CHAT,), 0.0)
    assert not table.subscribes()
    table.set_specs((CHAT, FILES), 0.0)
    assert table.subscribes()


def test_a_dropped_channel_still_serves_its_open_streams() -> None:
    table, stream = make_table(), make_stream(FILE)
    table.set_specs((FILES,), 0.0)
    channel = table.of(stream)
    table.set_specs((), 1.0)
    assert table.by_name == {}
    assert table.of(stream) is channel
    assert table.all() == [channel]
    table.set_specs((FILES,), 2.0)
    assert table.of(stream) is table.by_name["files"]


def test_every_manner_hears_of_links_and_of_the_epochs_that_peers_know() -> None:
    table = make_table()
    table.table.learn_graph(graph(5, ("A", "B")), 0.0)
    table.set_specs((CHAT, FILES.model_copy(update={"routing": "overflow"})), 0.0)
    manners = [channel.manner for channel in table.by_name.values()]
    for manner in manners:
        manner.poll_request(0.0)
    table.on_peer_epoch(9, 0.1)
    assert [manner.poll_request(0.1) for manner in manners] == [QueryNeighbours(9)] * 2
    table.on_links(1.0)
    assert manners[1].poll_timeout() == 1.0 + LINKS_WAIT_S
