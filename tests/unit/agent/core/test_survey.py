"""Which link a device measures by trains, and when."""

import random

import pytest

from agent.core.survey import (
    AGAIN_FIRST_S,
    AGAIN_MOST_S,
    BELOW_DECLARED,
    CHANGED_S,
    FAILED_S,
    REMEMBERED_S,
    SERIES_AGAIN_S,
    SERIES_DATAGRAMS,
    Survey,
    _Path,
)
from agent.core.train import MOST_BYTES_S, REPORT_WITHIN_S
from common.datagrams import CONTROL_OVERHEAD_BYTES, PacketType
from common.messages import AdjacencyReport
from common.path_frames import Train, TrainReport
from tests.harness.mesh import Crossing, Mesh

PADDED = 1_200
SMALL = (Train.OVERHEAD_BYTES, Train.OVERHEAD_BYTES + 200)


def trains(mesh: Mesh, source: str = "A", target: str = "B") -> list[float]:
    """Return when padded datagrams of trains left."""
    return [
        crossing.at
        for crossing in mesh.crossings
        if (crossing.source, crossing.target) == (source, target)
        and crossing.kind == PacketType.CONTROL
        and len(crossing.datagram) == PADDED
    ]


def path(mesh: Mesh, peer: str = "B") -> _Path:
    return mesh.node("A").peers.survey._paths[peer]


def bandwidth(mesh: Mesh, peer: str = "B") -> float | None:
    return mesh.hop("A", peer).qos.bandwidth_bps


def searched(links: str = "A-B") -> Mesh:
    """Return a mesh in which A knows the bandwidth of all its links; nothing slows a train down there."""
    mesh = Mesh(links, rate_bps=None).linked()
    mesh.until(lambda: all(hop.qos.bandwidth_bps is not None for hop in mesh.node("A").peers.hops.values()))
    return mesh


def test_a_link_of_unknown_bandwidth_is_searched_soon_and_then_left_alone() -> None:
    mesh = searched()
    assert mesh.now < 110.0
    assert bandwidth(mesh) == pytest.approx(8 * MOST_BYTES_S, rel=0.1)
    before = len(trains(mesh))
    mesh.run(0.7 * AGAIN_FIRST_S)
    assert len(trains(mesh)) == before
    mesh.run(0.7 * AGAIN_FIRST_S)
    assert len(trains(mesh)) > before
    assert path(mesh).pause_s == AGAIN_MOST_S


def test_the_links_of_a_device_are_measured_one_after_the_other() -> None:
    mesh = Mesh("A-B A-C A-D", rate_bps=None).linked()
    mesh.run(20.0)
    last = ""
    turns = 0
    for crossing in mesh.crossings:
        if crossing.source == "A" and len(crossing.datagram) == PADDED:
            turns += crossing.target != last
            last = crossing.target
    searches = [path(mesh, peer) for peer in "BCD"]
    assert all(each.search is None for each in searches)
    assert 3 <= turns <= 3 * 8


def test_a_declared_link_is_not_searched_unless_less_was_measured() -> None:
    mesh = Mesh("A-B").linked()
    mesh.run(30.0)
    assert trains(mesh) == []
    mesh.hop("A", "B").qos.on_bandwidth(BELOW_DECLARED * 50e6, mesh.now)
    mesh.run(2 * AGAIN_FIRST_S)
    assert trains(mesh) == []
    mesh.hop("A", "B").qos.on_bandwidth(1e6, mesh.now)
    mesh.run(1.2 * AGAIN_FIRST_S)
    assert trains(mesh) != []
    assert mesh.node("A").peers.figures("B").bandwidth_bps == 50e6


def test_a_link_whose_delay_changed_is_measured_anew() -> None:
    mesh = searched()
    path(mesh).seen = (0.1, 0.0)
    before = len(trains(mesh))
    mesh.run(0.8 * CHANGED_S)
    assert len(trains(mesh)) == before
    mesh.run(0.5 * CHANGED_S)
    assert len(trains(mesh)) > before
    assert path(mesh).seen[0] == pytest.approx(0.001, abs=1e-4)


def test_a_link_whose_loss_changed_is_another_one() -> None:
    mesh = searched()
    path(mesh).note()
    assert not path(mesh).changed()
    mesh.hop("A", "B").qos.loss.share = 0.1
    assert path(mesh).changed()


def test_a_capped_link_is_sent_no_train_above_its_cap() -> None:
    mesh = Mesh("A-B", rate_bps=None)
    policy = mesh.node("A").peers._policy
    mesh.node("A").peers._policy = type(policy)(policy.only, {}, {}, max_rate_bps=4e6, max_rates={"B": 2e6})
    mesh.linked()
    mesh.until(lambda: bandwidth(mesh) is not None)
    assert bandwidth(mesh) == pytest.approx(2e6, rel=0.1)
    assert mesh.node("A").peers.figures("B").bandwidth_bps == bandwidth(mesh)
    times = trains(mesh)
    assert 8 * PADDED * len([at for at in times if at < times[0] + 0.1]) <= 2e6 * 0.1 + 16 * PADDED


def test_no_train_goes_while_a_stream_flows_and_one_under_way_is_given_up() -> None:
    mesh = Mesh("A-B", rate_bps=None).linked()
    mesh.until(lambda: len(trains(mesh)) > 2)
    assert mesh.node("A").peers.survey._train is not None
    mesh.publish("A", b"a message")
    mesh.run(0.002)
    assert mesh.node("A").peers.survey._train is None
    before = len(trains(mesh))
    for _ in range(20):
        mesh.publish("A", b"a message")
        mesh.run(0.5)
    assert len(trains(mesh)) == before
    assert "trainreport-refused" not in mesh.drops("A")
    mesh.run(20.0)
    assert bandwidth(mesh) is not None


def test_while_a_stream_flows_elsewhere_only_what_is_unknown_is_measured() -> None:
    mesh = searched("A-B A-C")
    path(mesh, "C").seen = (0.1, 0.0)
    mesh.hop("A", "C").qos.loss.doubt = True
    before = len(trains(mesh, "A", "C"))
    mesh.plan("A-B")
    for _ in range(60):
        mesh.publish("A", b"a message")
        mesh.run(0.5)
    assert len(trains(mesh, "A", "C")) == before
    mesh.run(10.0)
    assert len(trains(mesh, "A", "C")) > before


def test_a_lost_probe_is_followed_by_a_series_that_tells_the_loss() -> None:
    mesh = Mesh("A-B").linked()
    rng = random.Random(1)
    mesh.drop = lambda crossing: crossing.source == "A" and rng.random() < 0.05
    mesh.run(60.0)
    small = [each for each in mesh.crossings if each.source == "A" and SMALL[0] <= len(each.datagram) < SMALL[1]]
    assert len(small) >= 4 * SERIES_DATAGRAMS
    assert mesh.hop("A", "B").qos.loss.share == pytest.approx(0.05, abs=0.02)
    assert mesh.hop("B", "A").qos.loss.share == 0.0


def test_a_series_takes_no_more_than_a_tenth_of_a_slow_link() -> None:
    mesh = searched()
    qos = mesh.hop("A", "B").qos
    qos.on_bandwidth(100e3, mesh.now)
    qos.loss.on_probes(1, 1, mesh.now)
    path(mesh).note()
    began = mesh.now
    mesh.until(lambda: path(mesh).in_series)
    first = len(mesh.crossings)
    mesh.run(10.0)
    sent = [each for each in mesh.crossings[first:] if each.source == "A"]
    assert 8 * sum(len(each.datagram) for each in sent) <= 0.15 * 100e3 * (mesh.now - began)


def test_a_series_keeps_below_a_cap() -> None:
    mesh = searched()
    mesh.node("A").peers.survey._cap_bps = lambda _: 50e3
    mesh.hop("A", "B").qos.loss.on_probes(1, 1, mesh.now)
    path(mesh).note()
    mesh.until(lambda: path(mesh).in_series)
    first, began = len(mesh.crossings), mesh.now
    mesh.run(10.0)
    sent = [each for each in mesh.crossings[first:] if each.source == "A"]
    assert 8 * sum(len(each.datagram) for each in sent) <= 1.3 * 50e3 * (mesh.now - began)


def test_a_series_whose_report_stays_away_is_tried_again_later() -> None:
    mesh = Mesh("A-B").linked()
    mesh.drop = lambda crossing: crossing.source == "B" and is_report(crossing)
    qos = mesh.hop("A", "B").qos
    qos.loss.on_probes(1, 1, mesh.now)
    mesh.run(1.5)
    mesh.until(lambda: path(mesh).in_series)
    mesh.until(lambda: not path(mesh).in_series)
    mesh.drop = lambda _: False
    mesh.until(lambda: not qos.loss.doubt, within=2 * SERIES_AGAIN_S)


def test_a_search_whose_reports_stay_away_is_tried_again_later() -> None:
    mesh = Mesh("A-B", rate_bps=None).linked()
    mesh.drop = lambda crossing: crossing.source == "A" and len(crossing.datagram) == PADDED
    mesh.run(4 * (REPORT_WITHIN_S + 1.0) + 2.0)
    assert path(mesh).search is None
    assert bandwidth(mesh) is None
    mesh.drop = lambda _: False
    mesh.run(1.5 * FAILED_S)
    assert bandwidth(mesh) is not None


def test_a_new_session_begins_with_the_bandwidth_of_the_last_one_and_looks_at_it_again_soon() -> None:
    mesh = searched()
    found = bandwidth(mesh)
    for _ in range(2):
        mesh.kill("B")
        mesh.start("B")
        hop = mesh.hop("A", "B")
        mesh.until(lambda hop=hop: mesh.node("A").peers.hops.get("B") not in (hop, None))  # type: ignore[misc]
        assert bandwidth(mesh) == found
    before = len(trains(mesh))
    mesh.run(2 * CHANGED_S)
    assert len(trains(mesh)) > before
    mesh.cut.add(("A", "B"))
    mesh.run(20.0)
    mesh.cut.clear()
    mesh.linked()
    assert bandwidth(mesh) is not None


def test_a_bandwidth_of_long_ago_is_not_remembered() -> None:
    mesh = searched()
    mesh.cut.add(("A", "B"))
    mesh.run(1.1 * REMEMBERED_S)
    mesh.cut.clear()
    mesh.linked()
    assert bandwidth(mesh) is None


def test_a_new_session_forgets_the_train_of_the_old_one_and_measures_anew() -> None:
    mesh = Mesh("A-B", rate_bps=None).linked()
    mesh.until(lambda: len(trains(mesh)) > 2)
    mesh.kill("B")
    mesh.start("B")
    mesh.until(lambda: bandwidth(mesh) is not None, within=30.0)


def test_a_link_that_is_gone_is_not_measured_any_more() -> None:
    mesh = searched()
    mesh.cut.add(("A", "B"))
    mesh.run(20.0)
    assert mesh.node("A").peers.survey._paths == {}
    assert mesh.node("A").peers.survey.poll_timeout() is None


def test_a_link_that_is_suspect_is_not_measured() -> None:
    mesh = Mesh("A-B", rate_bps=None).linked()
    mesh.cut.add(("A", "B"))
    mesh.run(2.0)
    assert mesh.node("A").peers.usable() == ()
    before = len(trains(mesh))
    mesh.run(1.0)
    assert len(trains(mesh)) == before


def test_a_report_of_no_train_is_counted_and_one_of_a_late_train_is_not() -> None:
    mesh = searched()
    number, found = path(mesh).number, bandwidth(mesh)
    mesh.say("B", "A", TrainReport(number, 1, 1, 1), TrainReport((number - 1) & 0xFFFF, 1, 1, 1))
    assert "trainreport-refused" not in mesh.drops("A")
    mesh.say("B", "A", TrainReport((number + 1) & 0xFFFF, 1, 1, 1))
    assert mesh.drops("A")["trainreport-refused"] == 1
    assert bandwidth(mesh) == found


def test_a_peer_that_claims_100_gbit_s_is_counted_and_ignored() -> None:
    mesh = Mesh("A-B", rate_bps=None).linked()
    mesh.drop = lambda crossing: crossing.source == "B" and is_report(crossing)
    survey = mesh.node("A").peers.survey
    mesh.until(lambda: survey._train is not None and survey._train._sent == survey._train._count)
    count = survey._train._count if survey._train is not None else 0
    mesh.say("B", "A", TrainReport(path(mesh).number, count, count // 2 * PADDED, 1))
    assert mesh.drops("A")["trainreport-refused"] == 1
    assert bandwidth(mesh) is None


def is_report(crossing: Crossing) -> bool:
    return CONTROL_OVERHEAD_BYTES + 15 <= len(crossing.datagram) < CONTROL_OVERHEAD_BYTES + 37


def test_a_train_of_a_peer_that_is_gone_meanwhile_gets_no_report() -> None:
    mesh = Mesh("A-B").linked()
    mesh.say("B", "A", Train(1, 0, 2))
    survey: Survey = mesh.node("A").peers.survey
    at = survey.poll_timeout()
    assert at is not None
    del mesh.node("A").peers.hops["B"]
    survey.handle_timeout(at + 1.0)
    assert survey.poll_timeout() is None


def test_two_peers_trains_are_each_reported_in_time() -> None:
    mesh = Mesh("A-B A-C").linked()
    mesh.say("B", "A", Train(1, 0, 2))
    mesh.say("C", "A", Train(1, 1, 2))
    mesh.run(0.1)
    pending = [mesh.node("A").peers.survey._report_at is not None]
    mesh.run(1.0)
    pending.append(mesh.node("A").peers.survey._report_at is not None)
    assert pending == [True, False]
    assert len([c for c in mesh.crossings if c.source == "A" and is_report(c)]) >= 2


def test_what_comes_after_a_report_makes_no_other() -> None:
    mesh = Mesh("A-B").linked()
    mesh.say("B", "A", Train(1, 1, 3))
    mesh.say("B", "A", Train(1, 2, 3))
    mesh.run(0.1)
    mesh.say("B", "A", Train(1, 0, 3))
    assert mesh.node("A").peers.survey._report_at is None


def test_a_new_figure_is_part_of_the_next_report() -> None:
    mesh = searched()
    assert mesh.node("A").peers.figures("B").bandwidth_bps == bandwidth(mesh)
    assert mesh.requests("A", AdjacencyReport)
