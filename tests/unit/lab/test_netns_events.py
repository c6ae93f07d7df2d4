from dataclasses import replace

import pytest

from common.ids import LinkKey
from lab.happenings import Happening, Verb
from lab.netns_events import NOBODY, LinkChanges, Orders
from lab.netns_plan import Owner, Plan
from lab.scenario import LinkFigures, Scenario

AB: LinkKey = ("A", "B")
PLAIN = LinkFigures(rate_bps=100e6, delay_s=0.0)
PAIR = Scenario(name="pair", devices=("A", "B"), links={AB: PLAIN})
CUT = Happening(1.0, Verb.CUT, link=AB)
RESTORE = Happening(2.0, Verb.RESTORE, link=AB)


def degrade(**figures: float) -> Happening:
    return Happening(1.0, Verb.DEGRADE, link=AB, figures=figures)


def changes(*happenings: Happening, emulated: tuple[LinkKey, ...] = ()) -> tuple[Plan, LinkChanges]:
    plan = Plan(replace(PAIR, happenings=happenings), Owner(1, 1), 1)
    return plan, LinkChanges(plan, emulated)


def test_a_cut_link_leads_to_nobody_from_both_ends_and_back_again_when_it_is_restored() -> None:
    plan, links = changes(CUT)
    a, b = plan.namespace("A"), plan.namespace("B")
    orders = links.orders(AB, CUT)
    assert orders.ip == {
        a: [f"neighbour replace {plan.address('B', 'A')} lladdr {NOBODY} nud permanent dev link0"],
        b: [f"neighbour replace {plan.address('A', 'B')} lladdr {NOBODY} nud permanent dev link0"],
    }
    assert (orders.tc, orders.emulator, links.cut) == ({}, [], {AB})
    orders = links.orders(AB, RESTORE)
    assert orders.ip == {
        a: [f"neighbour del {plan.address('B', 'A')} dev link0"],
        b: [f"neighbour del {plan.address('A', 'B')} dev link0"],
    }
    assert not links.cut
    assert links.orders(AB, RESTORE) == Orders(), "nothing is left to be restored"


def test_a_rate_is_changed_in_place_and_back() -> None:
    worse = degrade(rate_bps=10e6)
    plan, links = changes(worse)
    slow = "qdisc change dev link0 root tbf rate 10000000bit burst 4542 limit 20458"
    assert links.orders(AB, worse).tc == {plan.namespace("A"): [slow], plan.namespace("B"): [slow]}
    assert links.orders(AB, worse) == Orders(), "it is so already"
    (fast,) = links.orders(AB, RESTORE).tc[plan.namespace("B")]
    assert fast == "qdisc change dev link0 root tbf rate 100000000bit burst 25000 limit 225000"


def test_what_gets_worse_twice_keeps_both() -> None:
    worse, worst = degrade(delay_s=0.05), degrade(loss=0.1)
    plan, links = changes(worse, worst)
    links.orders(AB, worse)
    netem, tbf = links.orders(AB, worst).tc[plan.namespace("A")]
    assert netem.startswith("qdisc change dev link0 root handle 1: netem")
    assert "delay 50000us loss 10%" in netem
    assert tbf.startswith("qdisc change dev link0 parent 1:1 handle 10: tbf rate 100000000bit")


def test_a_link_that_will_lose_frames_is_made_with_netem_or_an_emulator_from_the_start() -> None:
    worse = degrade(loss=0.1)
    plan, _ = changes(worse)
    assert plan.weathered == (AB,)
    netem, _ = plan.shaping(())[plan.namespace("A")]
    assert netem == "qdisc add dev link0 root handle 1: netem limit 1000 delay 0us"
    assert not plan.shaping((AB,))


def test_a_link_whose_rate_changes_is_shaped_even_where_others_are_not() -> None:
    plan, _ = changes(degrade(rate_bps=10e6))
    assert replace(plan, shaped=False).shaping(())
    assert not replace(plan, scenario=PAIR, shaped=False).shaping(())


def test_an_emulator_is_told_every_figure_of_both_directions() -> None:
    worse = degrade(loss=0.1)
    _, links = changes(worse, emulated=(AB,))
    settings = "rate=100,queue=18,delay=0,jitter=0,loss=10,dup=0,reorder=0"
    assert links.orders(AB, worse).emulator == [f"ab {settings}", f"ba {settings}"]
    assert links.orders(AB, RESTORE).emulator[0].endswith("loss=0,dup=0,reorder=0")


@pytest.mark.parametrize("mtu", [1280, 9000])
def test_a_new_mtu_is_set_at_both_ends_and_its_frames_fit_the_bucket(mtu: int) -> None:
    worse = degrade(mtu_bytes=mtu, rate_bps=1e6)
    plan, links = changes(worse)
    orders = links.orders(AB, worse)
    assert orders.ip == {plan.namespace(device): [f"link set link0 mtu {mtu}"] for device in AB}
    assert f"burst {3 * (mtu + 14)}" in orders.tc[plan.namespace("A")][0]
    assert links.orders(AB, RESTORE).ip[plan.namespace("A")] == ["link set link0 mtu 1500"]


def test_a_cut_link_stays_cut_while_it_gets_worse() -> None:
    worse = degrade(rate_bps=10e6)
    plan, links = changes(CUT, worse)
    links.orders(AB, CUT)
    assert not links.orders(AB, worse).ip
    orders = links.orders(AB, RESTORE)
    assert list(orders.ip) == list(orders.tc) == [plan.namespace("A"), plan.namespace("B")]
