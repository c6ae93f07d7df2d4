import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.limits import LEASE_S, MAX_PEERS, UNMEASURED_DELAY_S, UNMEASURED_RATE_BPS
from common.messages import QosFigures
from server.core.planner import WeighedLink
from server.core.topology import Change, Topology, weigh, worse
from server.core.weight import worth_bps

FAST = QosFigures(bandwidth_bps=100e6, delay_s=0.01)


def pair() -> Topology:
    topology = Topology()
    topology.add("A", now=0.0)
    topology.add("B", now=0.0)
    return topology


def test_M1_a_link_counts_only_once_both_ends_report_it() -> None:
    topology = pair()
    assert topology.report_peers("A", ["B"], now=1.0) == Change()
    assert not topology.links()[0].counts
    assert topology.report_peers("B", ["A"], now=2.0) == Change(True)
    assert topology.counting() == {("A", "B"): WeighedLink(("A", "B"), UNMEASURED_RATE_BPS, UNMEASURED_DELAY_S, 2.0)}
    assert topology.links()[0].counts


def test_M1_a_link_that_one_end_no_longer_reports_is_lost() -> None:
    topology = pair()
    topology.report_peers("A", ["B"], now=0.0)
    topology.report_peers("B", ["A"], now=0.0)
    assert topology.report_peers("A", [], now=1.0) == Change(True, (("A", "B"),))
    assert topology.report_peers("B", [], now=1.0) == Change()
    assert topology.counting() == {}
    assert topology.links() == ()


def test_M2_the_worse_of_the_two_ends_counts_and_directions_are_kept_apart() -> None:
    topology = pair()
    topology.report_peers("A", ["B"], now=0.0)
    topology.report_peers("B", ["A"], now=0.0)
    forward = QosFigures(bandwidth_bps=50e6, delay_s=0.01, jitter_s=0.003, loss=0.0)
    backward = QosFigures(bandwidth_bps=90e6, delay_s=0.02, jitter_s=0.001, loss=0.1)
    topology.report_figures("A", {"B": forward}, now=0.0)
    topology.report_figures("B", {"A": backward}, now=0.0)
    (link,) = topology.links()
    assert (link.forward, link.backward) == (forward, backward)
    assert link.figures == QosFigures(bandwidth_bps=50e6, delay_s=0.02, jitter_s=0.003, loss=0.1)
    found = topology.counting()["A", "B"]
    assert found.rate_bps == pytest.approx(worth_bps(50e6, 0.1, 0.023))
    assert found.delay_s == pytest.approx(0.023)


def test_M2_what_only_one_end_knows_is_taken_from_it() -> None:
    assert worse(QosFigures(bandwidth_bps=5e6), QosFigures(delay_s=0.1)) == QosFigures(bandwidth_bps=5e6, delay_s=0.1)
    assert worse(QosFigures(), QosFigures()) == QosFigures()


@given(st.builds(QosFigures, bandwidth_bps=st.none() | st.floats(0, 1e9), delay_s=st.none() | st.floats(0, 1)))
def test_reconciling_is_the_same_from_either_end(figures: QosFigures) -> None:
    assert worse(figures, FAST) == worse(FAST, figures)
    assert worse(figures, figures) == figures


def test_the_same_figures_again_move_nothing() -> None:
    topology = pair()
    topology.report_peers("A", ["B"], now=0.0)
    topology.report_peers("B", ["A"], now=0.0)
    assert topology.report_figures("A", {"B": FAST}, now=1.0) == Change(True)
    assert topology.report_figures("A", {"B": FAST}, now=2.0) == Change()
    assert topology.report_peers("A", ["B"], now=3.0) == Change()
    assert topology.counting()["A", "B"].since == 0.0


def test_figures_may_come_before_the_adjacency() -> None:
    topology = pair()
    assert topology.report_figures("A", {"B": FAST}, now=0.0) == Change()
    topology.report_peers("A", ["B"], now=0.0)
    topology.report_peers("B", ["A"], now=0.0)
    assert topology.counting()["A", "B"].rate_bps == worth_bps(100e6, 0.0, 0.01)


def test_a_lease_that_runs_out_drops_the_links_and_any_report_brings_them_back() -> None:
    topology = pair()
    topology.report_peers("A", ["B"], now=0.0)
    topology.report_peers("B", ["A"], now=10.0)
    assert topology.next_expiry() == LEASE_S
    assert topology.expire(now=14.9) == Change()
    assert topology.expire(now=LEASE_S) == Change(True, (("A", "B"),))
    assert not topology.alive("A")
    assert topology.alive("B")
    assert topology.expire(now=16.0) == Change()
    assert topology.renew("A", now=20.0) == Change(True)
    assert topology.counting()["A", "B"].since == 20.0


def test_a_lease_renewed_in_time_keeps_the_links() -> None:
    topology = pair()
    topology.report_peers("A", ["B"], now=0.0)
    topology.report_peers("B", ["A"], now=0.0)
    topology.renew("A", now=10.0)
    topology.report_figures("B", {}, now=10.0)
    assert topology.expire(now=15.0) == Change()
    assert topology.next_expiry() == 25.0
    assert topology.expire(now=25.0) == Change(True, (("A", "B"),))
    assert topology.expire(now=25.0) == Change()
    assert topology.next_expiry() is None


def test_a_member_that_leaves_takes_its_links_and_what_others_said_about_it() -> None:
    topology = pair()
    topology.report_peers("A", ["B"], now=0.0)
    topology.report_figures("B", {"A": FAST}, now=0.0)
    topology.report_peers("B", ["A"], now=0.0)
    assert topology.remove("A") == Change(True, (("A", "B"),))
    assert topology.claims("B") == ((), {})
    assert "A" not in topology
    assert len(topology) == 1
    assert topology.devices() == ("B",)
    assert topology.expire(now=100.0) == Change()  # its lease is still in the heap


def test_claims_survive_a_restart_as_old_links() -> None:
    topology = pair()
    topology.report_peers("A", ["B"], now=0.0)
    topology.report_peers("B", ["A"], now=0.0)
    topology.report_figures("A", {"B": FAST}, now=0.0)
    again = Topology()
    for device in ("A", "B"):
        again.restore(device, *topology.claims(device), now=100.0)
    assert again.claims("A") == topology.claims("A")
    assert again.counting()["A", "B"].rate_bps == worth_bps(100e6, 0.0, 0.01)
    assert again.counting()["A", "B"].since == float("-inf")
    assert again.next_expiry() == 100.0 + LEASE_S


def test_figures_of_links_that_are_gone_are_forgotten_once_there_are_too_many() -> None:
    topology = Topology()
    names = [f"d{number:03}" for number in range(2 * MAX_PEERS)]
    for name in ["A", *names]:
        topology.add(name, now=0.0)
    topology.report_peers("A", [names[0]], now=0.0)
    topology.report_figures("A", dict.fromkeys(names[:MAX_PEERS], FAST), now=0.0)
    assert len(topology.claims("A")[1]) == MAX_PEERS
    topology.report_figures("A", dict.fromkeys(names[MAX_PEERS:-1], FAST), now=0.0)
    assert sorted(topology.claims("A")[1]) == [names[0], *names[MAX_PEERS:-1]]


def test_loss_takes_from_the_rate_and_jitter_adds_to_the_delay() -> None:
    found = weigh(("A", "B"), QosFigures(bandwidth_bps=10e6, delay_s=0.01, jitter_s=0.005, loss=0.5), 3.0)
    assert found == WeighedLink(("A", "B"), worth_bps(10e6, 0.5, 0.015), 0.015, 3.0)


def test_the_smallest_size_of_the_links_that_count_is_kept_up_to_date() -> None:
    topology = Topology()
    for device in "ABC":
        topology.add(device, now=0.0)
    topology.report_figures("A", {"B": QosFigures(mtu_bytes=8_972), "C": QosFigures(mtu_bytes=1_252)}, now=0.0)
    topology.report_peers("A", ["B", "C"], now=0.0)
    assert topology.smallest_mtu() is None
    topology.report_peers("B", ["A"], now=0.0)
    assert topology.smallest_mtu() == 8_972
    topology.report_figures("B", {"A": QosFigures(mtu_bytes=1_472)}, now=0.0)
    assert topology.links()[0].figures.mtu_bytes == 1_472
    assert topology.smallest_mtu() == 1_472
    topology.report_peers("C", ["A"], now=0.0)
    assert topology.smallest_mtu() == 1_252
    topology.report_peers("C", [], now=0.0)
    assert topology.smallest_mtu() == 1_472
    topology.report_peers("B", [], now=0.0)
    assert topology.smallest_mtu() is None


def test_a_size_moves_nothing_that_the_planner_looks_at() -> None:
    topology = pair()
    topology.report_peers("A", ["B"], now=0.0)
    topology.report_peers("B", ["A"], now=0.0)
    assert topology.report_figures("A", {"B": QosFigures(mtu_bytes=1_472)}, now=1.0) == Change()


def test_the_smallest_mtu_stands_while_any_link_has_it() -> None:
    topology = pair()
    topology.add("C", now=0.0)
    topology.report_peers("A", ["B", "C"], now=0.0)
    for peer in "BC":
        topology.report_peers(peer, ["A"], now=0.0)
    topology.report_figures("A", dict.fromkeys("BC", QosFigures(mtu_bytes=1_252)), now=0.0)
    topology.report_peers("B", [], now=1.0)
    assert topology.smallest_mtu() == 1_252
    topology.report_peers("C", [], now=1.0)
    assert topology.smallest_mtu() is None


def test_only_links_between_devices_that_live_flap() -> None:
    topology = pair()
    for now in (0.0, 20.0, 40.0, 60.0):
        for device, peer in ("AB", "BA"):
            topology.report_peers(device, [peer], now=now)
        topology.expire(now=now + LEASE_S)
    assert topology.links()[0].held is None
    for now in (80.0, 81.0):
        for peers in ([], ["B"]):
            topology.report_peers("B", ["A"], now=now)
            topology.report_peers("A", peers, now=now)
    link = topology.links()[0]
    assert link.counts
    assert link.held is not None
    assert topology.counting()["A", "B"].held
    assert topology.next_expiry() == link.held.until
    assert topology.expire(now=link.held.until) == Change(True)
    assert not topology.counting()["A", "B"].held
    topology.remove("B")
    assert topology.flapping.held(("A", "B")) is None
