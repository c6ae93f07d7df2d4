import pytest

from common.errors import DecodeError, RefusedError, StaleEpoch
from common.limits import CLEAR_HOLD_S, COALESCE_S, EPOCH_CLAIM_AHEAD_S, EPOCHS_KEPT, LEASE_S, LINKS_STORE_S
from common.messages import (
    CandidatesReport,
    Channels,
    ChannelSpec,
    Enrolment,
    EpochUpdate,
    GraphUpdate,
    MtuUpdate,
    NeighboursUpdate,
    QosFigures,
    Roster,
    Subscribe,
    Unchanged,
)
from server.core import group as module
from server.core.group import CLAIM_EVERY_S, Group
from server.core.snapshot import GroupRecord, KeptGraph
from tests.unit.server.harness import SIX_TREE, WALL, Bench, entropy, key_of, six, types


def test_M1_M2_M3_reports_of_six_devices_give_the_tree_of_the_worked_example() -> None:
    bench = six()
    assert bench.edges() == SIX_TREE
    assert bench.group.graph().devices == ("A", "B", "C", "D", "E", "F")
    assert bench.group.device_count() == 6
    assert bench.group.link_count() == 6
    assert [link.key for link in bench.group.links()][:3] == [("A", "B"), ("A", "C"), ("B", "C")]


def test_M3_links_may_appear_in_any_order_and_the_tree_is_right_within_the_coalescing_time() -> None:
    bench = Bench()
    bench.enrol("A", "B", "C")
    bench.connect({("B", "C"): 50e6})
    bench.run(1.0)
    assert bench.edges() == (("B", "C"),)
    bench.connect({("B", "C"): 50e6, ("A", "B"): 100e6})
    bench.run(2.0)
    bench.connect({("B", "C"): 50e6, ("A", "B"): 100e6, ("A", "C"): 100e6})
    bench.run(2.0 + 2 * COALESCE_S)
    assert bench.edges() == (("A", "B"), ("A", "C"))


def test_M3_reports_are_coalesced_into_one_epoch() -> None:
    bench = Bench()
    first = bench.group.graph().epoch
    bench.enrol("A", "B", "C")
    bench.connect({("A", "B"): 1e6, ("B", "C"): 1e6})
    assert bench.group.graph().epoch == first
    assert bench.group.poll_timeout() == pytest.approx(COALESCE_S)
    bench.run(COALESCE_S)
    assert bench.group.graph().epoch > first
    assert bench.group.counts["epochs"] == 1


def test_M3_the_same_tree_is_no_new_epoch_and_nothing_leaves() -> None:
    bench = six()
    bench.group.subscribe(1, "A", Subscribe(scope="graph"), now=bench.now, wall=bench.wall)
    bench.pushes()
    epoch = bench.group.graph().epoch
    bench.rate("A", "B", 110e6)
    bench.run(1.0)
    assert bench.group.graph().epoch == epoch
    assert bench.pushes() == []
    assert bench.group.counts["plans"] == 2


def test_M3_a_lost_tree_link_is_replaced_without_waiting() -> None:
    bench = six()
    bench.group.subscribe(1, "B", Subscribe(scope="graph"), now=bench.now, wall=bench.wall)
    bench.pushes()
    bench.run(20.0 - LEASE_S / 2)
    bench.adjacency("C", "B", "D")
    assert bench.edges() == (("A", "B"), ("B", "C"), ("B", "E"), ("C", "D"), ("D", "F"))
    assert types(bench.pushes()) == [(1, "graph")]


def test_M3_a_lost_link_outside_the_tree_waits_for_company() -> None:
    bench = six()
    plans = bench.group.counts["plans"]
    bench.adjacency("C", "A", "D")
    assert bench.group.counts["plans"] == plans
    bench.run(1.0)
    assert bench.edges() == SIX_TREE


def test_M3_a_degraded_link_gives_way_after_the_hold_time() -> None:
    bench = six()
    bench.run(10.0)
    for device in "ABCDEF":
        bench.qos(device, {})
    bench.rate("A", "C", 10e6)
    start = bench.now
    bench.run(start + CLEAR_HOLD_S - 0.1)
    assert bench.edges() == SIX_TREE
    bench.run(start + CLEAR_HOLD_S + 2 * COALESCE_S)
    assert ("B", "C") in bench.edges()
    assert ("A", "C") not in bench.edges()


def test_a_lease_that_runs_out_drops_the_links_but_not_the_member() -> None:
    bench = six()
    bench.run(10.0)
    for device in "ABCDE":
        bench.qos(device, {})
    bench.run(14.0)
    assert bench.edges() == SIX_TREE
    assert bench.group.poll_timeout() == LEASE_S
    bench.run(LEASE_S)
    assert bench.edges() == SIX_TREE[:-1]
    assert not bench.group.alive("F")
    assert bench.group.graph().components()[-1] == ("F",)
    bench.qos("F", {})
    bench.run(LEASE_S + 1)
    assert bench.group.alive("F")
    assert bench.edges() == SIX_TREE


def test_a_self_report_is_refused_and_changes_nothing() -> None:
    bench = six()
    before = bench.group.links()
    with pytest.raises(RefusedError, match="self-adjacency"):
        bench.adjacency("A", "B", "A")
    with pytest.raises(RefusedError, match="self-adjacency"):
        bench.qos("A", {"A": QosFigures()})
    assert bench.group.links() == before


def test_links_to_strangers_are_refused_by_name_and_change_nothing() -> None:
    bench = six()
    before = bench.group.links()
    with pytest.raises(RefusedError, match=r"strangers: not members of the group: Y, Z$"):
        bench.adjacency("A", "B", "Y", "Z")
    with pytest.raises(RefusedError, match=r"and 3 more$"):
        bench.qos("A", {f"x{number}": QosFigures() for number in range(13)})
    assert bench.group.links() == before


def test_a_stranger_s_report_is_refused() -> None:
    bench = six()
    with pytest.raises(RefusedError, match="unknown-device"):
        bench.adjacency("Z", "A")
    with pytest.raises(RefusedError, match="unknown-device"):
        bench.group.subscribe(1, "Z", Subscribe(scope="graph"), now=0.0, wall=WALL)
    with pytest.raises(RefusedError, match="unknown-device"):
        bench.group.neighbours("Z")
    with pytest.raises(RefusedError, match="unknown-device"):
        bench.group.device("Z")


def test_M4_neighbours_can_be_asked_for_kept_epochs() -> None:
    bench = six()
    old = bench.group.graph()
    bench.adjacency("C", "B", "D")
    assert bench.group.neighbours("A").trees[0].neighbours == ("B",)
    assert bench.group.neighbours("A", old.epoch).trees[0].neighbours == ("B", "C")
    assert bench.group.graph(old.epoch) == old
    with pytest.raises(StaleEpoch):
        bench.group.neighbours("A", 5)


def test_M5_a_device_gets_the_state_the_roster_and_the_channels() -> None:
    bench = six()
    bench.group.subscribe(7, "A", Subscribe(scope="graph"), now=bench.now, wall=bench.wall)
    bench.group.subscribe(8, "B", Subscribe(scope="neighbours"), now=bench.now, wall=bench.wall)
    bench.group.subscribe(9, None, Subscribe(scope="graph"), now=bench.now, wall=bench.wall)
    assert types(bench.pushes()) == [
        (7, "graph"),
        (7, "roster"),
        (7, "channels"),
        (8, "neighbours"),
        (8, "roster"),
        (8, "channels"),
        (9, "graph"),
    ]
    assert bench.group.subscriber_count() == 3


def test_M5_a_subscriber_resumes_by_its_last_epoch() -> None:
    bench = six()
    seen = bench.group.graph().epoch
    bench.group.subscribe(1, "A", Subscribe(scope="graph", epoch=seen), now=bench.now, wall=bench.wall)
    assert bench.pushes()[0] == (1, Unchanged(epoch=seen))
    passed = []
    for number in range(3):
        passed.append(bench.group.graph().epoch)
        bench.run(bench.now + 1.0)
        bench.adjacency("C", *(("B", "D") if number % 2 == 0 else ("A", "B", "D")))
        bench.run(bench.now + 1.0)
    bench.pushes()
    bench.group.subscribe(2, "B", Subscribe(scope="graph", epoch=seen), now=bench.now, wall=bench.wall)
    (_, update) = bench.pushes()[0]
    assert isinstance(update, GraphUpdate)
    assert update.graph.to_graph() == bench.group.graph()
    assert [graph.epoch for graph in update.passed] == passed[1:]


def test_M5_scope_neighbours_gets_its_list_where_it_changed_and_the_epoch_elsewhere() -> None:
    bench = six()
    for number, device in enumerate("AF"):
        bench.group.subscribe(number, device, Subscribe(scope="neighbours"), now=bench.now, wall=bench.wall)
    bench.pushes()
    bench.adjacency("C", "B", "D")
    (_, changed), (_, same) = bench.pushes()
    assert isinstance(changed, NeighboursUpdate)
    assert changed.trees[0].neighbours == ("B",)
    assert same == EpochUpdate(epoch=bench.group.graph().epoch)


def test_M5_who_unsubscribes_hears_no_more() -> None:
    bench = six()
    bench.group.subscribe(1, "A", Subscribe(scope="graph"), now=bench.now, wall=bench.wall)
    bench.group.unsubscribe(1)
    bench.adjacency("C", "B", "D")
    assert bench.pushes() == []


@pytest.mark.parametrize("scope", ["neighbours", "roster"])
def test_only_a_device_has_neighbours_and_keys(scope: str) -> None:
    bench = six()
    with pytest.raises(RefusedError, match="no-device"):
        bench.group.subscribe(1, None, Subscribe.model_validate({"scope": scope}), now=bench.now, wall=bench.wall)
    assert bench.group.subscriber_count() == 0


def test_a_claimed_epoch_ahead_of_ours_raises_ours_above_it() -> None:
    bench = six()
    bench.group.subscribe(1, "A", Subscribe(scope="graph"), now=bench.now, wall=bench.wall)
    bench.pushes()
    before = bench.group.graph()
    claim = before.epoch + 3_600_000_000
    bench.group.subscribe(2, "B", Subscribe(scope="graph", epoch=claim), now=bench.now, wall=bench.wall)
    after = bench.group.graph()
    assert after.epoch == claim + 1
    assert (after.devices, after.trees) == (before.devices, before.trees)
    assert types(bench.pushes()) == [(1, "graph"), (2, "graph"), (2, "roster"), (2, "channels")]
    assert bench.group.counts["claims_taken"] == 1


def test_a_claim_beyond_a_day_is_refused_and_counted() -> None:
    bench = six()
    before = bench.group.graph()
    claim = int((bench.wall + EPOCH_CLAIM_AHEAD_S) * 1e6) + 1
    with pytest.raises(RefusedError, match=r"epoch-ahead.*86400 s"):
        bench.group.subscribe(1, "A", Subscribe(scope="graph", epoch=claim), now=bench.now, wall=bench.wall)
    assert bench.group.graph() is before
    assert bench.group.counts["claims_refused"] == 1
    assert bench.group.subscriber_count() == 0


def test_epochs_follow_the_clock_and_rise_though_it_steps_back() -> None:
    bench = six()
    epoch = bench.group.graph().epoch
    assert epoch == int((WALL + COALESCE_S) * 1e6)
    bench.offset -= 1_000_000.0
    bench.adjacency("C", "B", "D")
    assert bench.group.graph().epoch == epoch + 1


def test_a_new_member_is_in_the_graph_and_the_roster_after_the_coalescing_time() -> None:
    bench = six()
    bench.group.subscribe(1, "A", Subscribe(scope="roster"), now=bench.now, wall=bench.wall)
    bench.pushes()
    bench.enrol("G", "H")
    assert bench.pushes() == []
    bench.run(bench.now + COALESCE_S)
    assert bench.group.graph().components()[-2:] == (("G",), ("H",))
    (found,) = bench.pushes()
    assert isinstance(found[1], Roster)
    assert [entry.device for entry in found[1].devices][-2:] == ["G", "H"]


def test_new_addresses_are_pushed_and_the_same_ones_are_not() -> None:
    bench = six()
    bench.group.subscribe(1, "A", Subscribe(scope="roster"), now=bench.now, wall=bench.wall)
    bench.pushes()
    report = CandidatesReport(candidates=("192.0.2.1:1",), mapping="stable")
    for _ in range(2):
        bench.group.report("B", report, now=bench.now, wall=bench.wall)
        bench.run(bench.now + COALESCE_S)
    ((_, roster),) = bench.pushes()
    assert isinstance(roster, Roster)
    assert (roster.devices[1].candidates, roster.devices[1].mapping) == (("192.0.2.1:1",), "stable")
    assert bench.group.device("B").candidates == ("192.0.2.1:1",)


def test_an_evicted_device_is_out_at_once() -> None:
    bench = six()
    for number, device in enumerate("CA"):
        bench.group.subscribe(number, device, Subscribe(scope="graph"), now=bench.now, wall=bench.wall)
    bench.pushes()
    old = bench.group.roster()
    bench.group.evict("C", now=bench.now, wall=bench.wall)
    assert bench.group.authenticate(bench.tokens["C"]) is None
    assert [(number, word.reason) for number, word in bench.closed()] == [(0, "evicted")]
    roster, graph = (message for _, message in bench.pushes())
    assert isinstance(roster, Roster)
    assert (roster.key_epoch, list(roster.group_keys)) == (old.key_epoch + 1, [1, 2])
    assert "C" not in [entry.device for entry in roster.devices]
    assert isinstance(graph, GraphUpdate)
    assert graph.graph.devices == ("A", "B", "D", "E", "F")
    assert bench.edges() == (("A", "B"), ("B", "E"), ("D", "F"))
    with pytest.raises(RefusedError, match="strangers"):
        bench.adjacency("A", "B", "C")
    with pytest.raises(RefusedError, match="unknown-device"):
        bench.group.evict("C", now=bench.now, wall=bench.wall)


def test_an_evicted_id_may_enrol_again() -> None:
    bench = six()
    bench.group.evict("C", now=bench.now, wall=bench.wall)
    bench.enrol("C")
    assert bench.group.authenticate(bench.tokens["C"]) == "C"


def test_a_member_that_proves_itself_enrols_again_and_keeps_its_links() -> None:
    bench = six()
    before = bench.group.links()
    with pytest.raises(RefusedError, match="device-exists"):
        bench.enrol("A")
    answer = bench.group.enrol(
        Enrolment(device="A", public_key=key_of("A"), signing_key=key_of("A")),
        now=bench.now,
        wall=bench.wall,
        replaces=True,
    )
    assert bench.group.authenticate(bench.tokens["A"]) is None
    assert bench.group.authenticate(answer.token or "") == "A"
    assert (answer.group, answer.lease_s) == ("lab", LEASE_S)
    assert answer.roster == bench.group.roster()
    assert bench.group.links() == before


def test_each_objective_in_use_has_its_tree_with_throughput_first() -> None:
    bench = six()
    bench.group.subscribe(1, "A", Subscribe(scope="graph"), now=bench.now, wall=bench.wall)
    bench.pushes()
    chat = ChannelSpec(name="chat", kind="message", objective="latency")
    bench.group.put_channel(chat, now=bench.now, wall=bench.wall)
    graph = bench.group.graph()
    assert [tree.objective for tree in graph.trees] == ["throughput", "latency"]
    assert len(graph.trees[1].edges) == 5
    channels, update = (message for _, message in bench.pushes())
    assert isinstance(channels, Channels)
    assert isinstance(update, GraphUpdate)
    bench.group.put_channel(chat, now=bench.now, wall=bench.wall)
    assert bench.pushes() == []
    bench.group.delete_channel("chat", now=bench.now, wall=bench.wall)
    assert [tree.objective for tree in bench.group.graph().trees] == ["throughput"]
    with pytest.raises(RefusedError, match="unknown-channel"):
        bench.group.delete_channel("chat", now=bench.now, wall=bench.wall)


def test_a_group_may_start_with_channels_of_its_own() -> None:
    bench = Bench(channels=(ChannelSpec(name="chat", kind="message", objective="latency"),))
    assert [tree.objective for tree in bench.group.graph().trees] == ["throughput", "latency"]
    assert [channel.name for channel in bench.group.channels().channels] == ["chat"]


def test_join_tokens_are_stored_before_anybody_learns_them() -> None:
    bench = Bench()
    bench.group.poll_record()
    token = bench.group.entrance.add_join_token(now=0.0, wall=WALL)
    record = bench.group.poll_record()
    assert record is not None
    assert len(record.members.join_tokens) == 1
    assert bench.group.entrance.admits(token, wall=WALL)
    bench.group.entrance.void_join_token(None, now=0.0, wall=WALL)
    assert not bench.group.entrance.admits(token, wall=WALL)
    assert bench.group.poll_record() is not None


def test_link_figures_are_stored_within_a_second_and_a_new_epoch_stores_them_at_once() -> None:
    bench = six()
    bench.run(LINKS_STORE_S + 0.1)
    bench.group.poll_record()
    start = bench.now
    bench.rate("A", "B", 111e6)
    assert bench.group.poll_record() is None
    bench.run(start + LINKS_STORE_S)
    record = bench.group.poll_record()
    assert record is not None
    assert record.links.devices["A"].figures["B"].bandwidth_bps == 111e6
    bench.rate("A", "B", 112e6)
    bench.adjacency("C", "B", "D")
    again = bench.group.poll_record()
    assert again is not None
    assert again.links.devices["A"].figures["B"].bandwidth_bps == 112e6
    assert again.members is record.members
    assert again.graphs is not record.graphs


def test_what_waits_is_stored_when_the_server_stops() -> None:
    bench = six()
    bench.group.poll_record()
    bench.rate("A", "B", 111e6)
    bench.group.store_now(now=bench.now, wall=bench.wall)
    record = bench.group.poll_record()
    assert record is not None
    assert record.links.devices["A"].figures["B"].bandwidth_bps == 111e6


def restart(bench: Bench) -> Bench:
    bench.group.store_now(now=bench.now, wall=bench.wall)
    record = bench.group.poll_record()
    assert record is not None
    return Bench(stored=GroupRecord.model_validate_json(record.model_dump_json()))


def test_a_restart_keeps_members_keys_links_and_the_graph() -> None:
    bench = six()
    again = restart(bench)
    assert again.group.graph() == bench.group.graph()
    assert again.group.roster() == bench.group.roster()
    assert again.group.links() == bench.group.links()
    assert again.group.authenticate(bench.tokens["A"]) == "A"
    again.offset += 10.0
    again.run(1.0)
    assert again.group.graph() == bench.group.graph()


def test_after_a_restart_leases_run_from_the_start_and_epochs_go_on_rising() -> None:
    bench = six()
    again = restart(bench)
    again.offset -= 500.0  # the clock stepped back while the server was away
    again.run(LEASE_S - 0.1)
    assert again.edges() == SIX_TREE
    again.run(LEASE_S)
    assert again.edges() == ()
    assert again.group.graph().epoch == bench.group.graph().epoch + 1


def test_a_server_that_lost_its_state_has_higher_epochs_by_its_clock() -> None:
    bench = six()
    fresh = Group("lab", now=0.0, wall=WALL + 60.0, entropy=entropy(1))
    assert fresh.graph().epoch > bench.group.graph().epoch


def test_links_that_name_a_device_that_is_gone_are_dropped_at_the_start() -> None:
    bench = six()
    bench.group.store_now(now=bench.now, wall=bench.wall)
    old = bench.group.poll_record()
    bench.group.evict("C", now=bench.now, wall=bench.wall)
    new = bench.group.poll_record()
    assert old is not None
    assert new is not None
    mixed = GroupRecord(name="lab", members=new.members, graphs=old.graphs, links=old.links)
    again = Bench(stored=mixed)
    again.run(1.0)
    assert again.group.graph().devices == ("A", "B", "D", "E", "F")
    assert again.edges() == (("A", "B"), ("B", "E"), ("D", "F"))


def test_a_member_enrolled_after_the_links_were_stored_starts_without_any() -> None:
    bench = six()
    bench.group.store_now(now=bench.now, wall=bench.wall)
    old = bench.group.poll_record()
    bench.enrol("G")
    new = bench.group.poll_record()
    assert old is not None
    assert new is not None
    again = Bench(stored=GroupRecord(name="lab", members=new.members, graphs=old.graphs, links=old.links))
    again.run(1.0)
    assert again.group.graph().components()[-1] == ("G",)


def test_a_stored_graph_with_a_cycle_is_a_decode_error() -> None:
    bench = six()
    record = bench.group.poll_record()
    assert record is not None
    body = record.graphs.kept[-1].graph
    tree = body.trees[0].model_copy(update={"edges": (*SIX_TREE[:2], ("B", "C"), *SIX_TREE[2:])})
    kept = KeptGraph(graph=body.model_copy(update={"trees": (tree,)}), superseded_wall=None)
    graphs = record.graphs.model_copy(update={"kept": (kept,)})
    with pytest.raises(DecodeError, match="cycle"):
        Bench(stored=record.model_copy(update={"graphs": graphs}))


def test_only_the_last_epochs_are_stored() -> None:
    bench = six()
    for number in range(20):
        bench.run(bench.now + 1.0)
        bench.adjacency("E", *(() if number % 2 == 0 else ("B",)))
    bench.run(bench.now + 1.0)
    record = bench.group.poll_record()
    assert record is not None
    assert len(record.graphs.kept) == EPOCHS_KEPT


def test_the_timeout_may_be_called_early_and_does_nothing() -> None:
    bench = six()
    counts = dict(bench.group.counts)
    bench.group.handle_timeout(now=bench.now, wall=bench.wall)
    assert bench.group.counts == counts


def test_without_members_there_is_nothing_to_wait_for() -> None:
    assert Bench().group.poll_timeout() is None


def test_a_device_raises_the_epoch_at_most_once_a_second() -> None:
    bench = six()

    def claim(device: str) -> None:
        message = Subscribe(scope="graph", epoch=bench.group.graph().epoch + 1_000)
        bench.group.subscribe(1, device, message, now=bench.now, wall=bench.wall)

    claim("A")
    before = bench.group.graph()
    with pytest.raises(RefusedError, match="epoch-ahead"):
        claim("A")
    assert bench.group.graph() is before
    claim("B")
    bench.run(bench.now + CLAIM_EVERY_S)
    claim("A")
    assert bench.group.counts["claims_taken"] == 3
    assert bench.group.counts["claims_refused"] == 1


def sizes(bench: Bench) -> list[tuple[int, int]]:
    """Return which subscriber is told now what datagrams all links take."""
    return [(number, push.mtu_bytes) for number, push in bench.pushes() if isinstance(push, MtuUpdate)]


def subscribed(bench: Bench, *scopes: str) -> None:
    """Let A, B, ... subscribe with these scopes."""
    for number, scope in enumerate(scopes):
        message = Subscribe.model_validate({"scope": scope})
        bench.group.subscribe(number, "ABC"[number], message, now=bench.now, wall=bench.wall)


def test_what_all_links_take_is_told_to_every_device_once_for_a_burst_of_reports() -> None:
    bench = six()
    subscribed(bench, "graph", "neighbours", "roster")
    bench.group.subscribe(9, None, Subscribe(scope="graph"), now=bench.now, wall=bench.wall)
    assert sizes(bench) == []
    bench.qos("A", {"B": QosFigures(mtu_bytes=8_972), "C": QosFigures(mtu_bytes=1_472)})
    bench.qos("C", {"A": QosFigures(mtu_bytes=1_392)})
    assert sizes(bench) == []
    bench.run(bench.now + 1.0)
    assert sizes(bench) == [(0, 1_392), (1, 1_392), (2, 1_392)]
    bench.qos("B", {"A": QosFigures(mtu_bytes=1_472)})
    bench.run(bench.now + 1.0)
    assert sizes(bench) == []


def test_a_new_subscriber_is_told_what_all_links_take_and_so_it_is_after_a_restart() -> None:
    bench = six()
    bench.qos("A", {"B": QosFigures(mtu_bytes=1_472)})
    bench.run(bench.now + 2.0)
    subscribed(bench, "graph")
    assert sizes(bench) == [(0, 1_472)]
    again = restart(bench)
    subscribed(again, "roster")
    assert sizes(again) == [(0, 1_472)]


def test_a_size_that_came_back_within_the_burst_is_not_told() -> None:
    bench = six()
    bench.qos("A", {"B": QosFigures(mtu_bytes=1_472)})
    bench.run(bench.now + 1.0)
    subscribed(bench, "graph")
    bench.pushes()
    bench.qos("A", {"B": QosFigures(mtu_bytes=1_252)})
    bench.qos("A", {"B": QosFigures(mtu_bytes=1_472)})
    bench.run(bench.now + 1.0)
    assert sizes(bench) == []


def test_the_size_is_told_ahead_of_the_graph_that_it_belongs_to() -> None:
    bench = six()
    subscribed(bench, "graph")
    bench.pushes()
    bench.qos("A", {"B": QosFigures(mtu_bytes=1_472)})
    bench.adjacency("C", "B", "D")
    assert types(bench.pushes()) == [(0, "mtu"), (0, "graph")]


def lose_and_restore(bench: Bench, *, pause: float = 1.0) -> None:
    """Let the link A-C go and come back, while everybody lives."""
    bench.adjacency("C", "B", "D")
    bench.run(bench.now + pause)
    bench.adjacency("C", "A", "B", "D")
    bench.run(bench.now + pause)


def live_on(bench: Bench, seconds: float) -> None:
    """Let everybody report for some time that nothing is new."""
    until = bench.now + seconds
    while bench.now < until:
        for device in "ABCDEF":
            bench.qos(device, {})
        bench.run(min(bench.now + 5.0, until))


def test_a_link_that_was_lost_twice_is_held_down_and_used_again_when_that_is_over() -> None:
    bench = six()
    live_on(bench, 20.0)
    lose_and_restore(bench)
    assert bench.group.links()[1].held is None
    live_on(bench, 20.0)
    assert bench.edges() == SIX_TREE
    lose_and_restore(bench)
    link = bench.group.links()[1]
    assert (link.key, link.counts) == (("A", "C"), True)
    assert link.held is not None
    assert bench.group.counts["links_held_down"] == 1
    live_on(bench, 6.0)
    assert ("B", "C") in bench.edges()
    assert bench.group.poll_timeout() is not None
    live_on(bench, 30.0)
    assert bench.group.links()[1].held is None
    assert bench.edges() == SIX_TREE
    assert "leases_expired" not in bench.group.counts


def test_a_link_that_is_held_down_is_used_where_there_is_no_other_way() -> None:
    bench = six()
    live_on(bench, 20.0)
    for _ in range(4):
        bench.adjacency("F")
        bench.run(bench.now + 1.0)
        bench.adjacency("F", "D")
        bench.run(bench.now + 1.0)
    assert bench.group.links()[-1].held is not None
    assert bench.edges() == SIX_TREE


def test_a_device_that_leaves_and_returns_makes_no_link_flap() -> None:
    bench = six()
    bench.group.subscribe(1, "C", Subscribe(scope="roster"), now=bench.now, wall=bench.wall)
    live_on(bench, 20.0)
    for number in (2, 3, 4):
        bench.adjacency("A", "B")
        bench.adjacency("B", "A", "E")
        bench.adjacency("D", "F")
        bench.run(bench.now + 1.0)
        bench.group.subscribe(number, "C", Subscribe(scope="roster"), now=bench.now, wall=bench.wall)
        bench.adjacency("A", "B", "C")
        bench.adjacency("B", "A", "C", "E")
        bench.adjacency("D", "C", "F")
        live_on(bench, 5.0)
    assert "links_held_down" not in bench.group.counts
    assert bench.edges() == SIX_TREE
    bench.group.subscribe(4, "C", Subscribe(scope="graph"), now=bench.now, wall=bench.wall)


def test_a_second_run_of_a_device_s_agent_is_refused_while_the_first_one_lives() -> None:
    bench = Bench()
    bench.enrol("A")

    def subscribe(number: int, instance: str | None) -> None:
        message = Subscribe(scope="graph", instance=instance)
        bench.group.subscribe(number, "A", message, now=bench.now, wall=bench.wall)

    assert not bench.group.is_in_use("A")
    subscribe(1, "first")
    assert bench.group.is_in_use("A")
    with pytest.raises(RefusedError, match="device-in-use: another agent runs as device 'A'; stop one of them"):
        subscribe(2, "second")
    assert bench.closed() == []
    # The first may come again before its old connection is given up, and older agents do not name their run.
    subscribe(3, "first")
    subscribe(4, None)
    bench.run(LEASE_S - 1)
    bench.adjacency("A")
    bench.run(LEASE_S + 1)
    with pytest.raises(RefusedError, match="device-in-use"):
        subscribe(5, "second")
    bench.run(2 * LEASE_S)
    assert not bench.group.is_in_use("A")
    subscribe(6, "second")


def test_there_is_a_limit_to_those_who_only_look_and_it_holds_up_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_VIEWERS_PER_GROUP", 2)
    bench = Bench()
    bench.enrol("A")

    def subscribe(number: int, device: str | None) -> None:
        bench.group.subscribe(number, device, Subscribe(scope="graph"), now=bench.now, wall=bench.wall)

    for number, device in ((1, None), (2, "A"), (3, None), (1, None), (4, "A")):
        subscribe(number, device)
    with pytest.raises(RefusedError, match="too-many-viewers"):
        subscribe(5, None)
    bench.group.unsubscribe(1)
    subscribe(5, None)
    assert bench.group.subscriber_count() == 4
