"""One link: its table of states, its handshake over a bad network, its probes and its end."""

import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.link import (
    HELLO_FIRST_S,
    HELLO_MOST_S,
    HELLO_SUSPECT_S,
    SUSPECT_FOR_S,
    TRANSITIONS,
    Link,
    LinkInput,
    LinkState,
)
from agent.core.rhythm import PROBE_IDLE_S, PROBE_IN_TREE_S
from common.datagrams import Hello
from common.errors import LocalProtocolError
from tests.unit.agent.core.parts import ADDRESS, hello_due, make_link, matches, shake_hands

OTHER_ADDRESS = ("10.9.9.9", 9)


@pytest.mark.parametrize(("state", "cause"), list(itertools.product(LinkState, LinkInput)))
def test_each_state_takes_the_inputs_of_its_table_and_no_others(state: LinkState, cause: LinkInput) -> None:
    link = make_link()
    link.state = state
    after = TRANSITIONS.get((state, cause))
    if after is None:
        with pytest.raises(LocalProtocolError, match=f"{cause.value} while {state.value}"):
            link._transition(cause)
        assert link.state is state
    else:
        link._transition(cause)
        assert link.state is after


def test_every_state_can_be_reached_and_left() -> None:
    assert {before for before, _ in TRANSITIONS} == set(TRANSITIONS.values()) == set(LinkState)


def opened(now: float = 0.0) -> tuple[Link, Link]:
    one, other = make_link("B", 1), make_link("A", 2)
    shake_hands(one, other, now)
    assert matches(one, other)
    return one, other


# --- handshakes ---------------------------------------------------------------------------------------------------


def test_three_hellos_open_a_session() -> None:
    one, other = make_link("B", 1, datagram_bytes=1_472), make_link("A", 2)
    hellos = shake_hands(one, other)
    assert [hello.confirmed for hello in hellos] == [False, False, True]
    assert matches(one, other)
    assert one.usable
    assert other.usable
    assert one.session is not None
    assert one.session.datagram_bytes == 1_200
    assert one.session.address == ADDRESS
    assert one.session.send_key != one.session.receive_key


def test_hellos_that_cross_open_one_session() -> None:
    one, other = make_link("B", 1), make_link("A", 2)
    first, second = hello_due(one), hello_due(other)
    answer_of_other, _ = other.handle_hello(first, ADDRESS, 0.0)
    answer_of_one, _ = one.handle_hello(second, ADDRESS, 0.0)
    assert answer_of_one is not None
    assert answer_of_other is not None
    confirmed_of_one, new = one.handle_hello(answer_of_other, ADDRESS, 0.0)
    assert new
    confirmed_of_other, new = other.handle_hello(answer_of_one, ADDRESS, 0.0)
    assert new
    assert confirmed_of_one is not None
    assert confirmed_of_other is not None
    assert one.handle_hello(confirmed_of_other, ADDRESS, 0.0) == (None, False)
    assert other.handle_hello(confirmed_of_one, ADDRESS, 0.0) == (None, False)
    assert matches(one, other)


def test_a_lost_confirmation_is_made_good_by_the_next_hello() -> None:
    one, other = make_link("B", 1), make_link("A", 2)
    answer, _ = other.handle_hello(hello_due(one), ADDRESS, 0.0)
    assert answer is not None
    one.handle_hello(answer, ADDRESS, 0.0)
    assert other.session is None
    confirmed, new = one.handle_hello(hello_due(other, 1.0), ADDRESS, 1.0)
    assert confirmed is not None
    assert confirmed.confirmed
    assert not new
    assert other.handle_hello(confirmed, ADDRESS, 1.0) == (None, True)
    assert matches(one, other)


def test_a_restarted_peer_replaces_the_session_only_once_it_has_echoed_ours() -> None:
    one, _ = opened()
    before = one.session
    restarted = make_link("A", 3)
    offer, new = one.handle_hello(hello_due(restarted), OTHER_ADDRESS, 5.0)
    assert offer is not None
    assert not new
    assert one.session is before
    confirmed, _ = restarted.handle_hello(offer, ADDRESS, 5.0)
    assert confirmed is not None
    assert one.handle_hello(confirmed, OTHER_ADDRESS, 5.0) == (None, True) or confirmed.confirmed
    assert matches(one, restarted)
    assert one.session is not None
    assert one.session.address == OTHER_ADDRESS
    assert one.usable


def test_a_link_counts_only_once_it_is_known_what_its_path_takes_and_anew_after_it_closed() -> None:
    one, _ = opened()
    usable = []
    for one.mtu_bytes in (None, 1_472):
        usable.append(one.usable)
    assert usable == [False, True]
    one.leave(1.0)
    assert one.mtu_bytes is None


def test_a_peer_that_mistook_our_session_for_its_own_is_answered() -> None:
    one, other = opened()
    assert one.session is not None
    assert other.session is not None
    astray = Hello(b"x" * 16, one.session.local, 1_200)
    answer, new = one.handle_hello(astray, ADDRESS, 1.0)
    assert answer is not None
    assert answer.echo == b"x" * 16
    assert not new


def test_a_hello_that_echoes_neither_our_session_nor_our_offer_gets_no_answer_while_one_stands() -> None:
    one, _ = opened()
    assert one.handle_hello(Hello(b"x" * 16, b"y" * 16, 1_200), ADDRESS, 1.0) == (None, False)


def test_without_a_session_such_a_hello_is_answered_with_our_offer() -> None:
    one = make_link("B", 1)
    answer, new = one.handle_hello(Hello(b"x" * 16, b"y" * 16, 1_200), ADDRESS, 1.0)
    assert answer == Hello(hello_due(one).session, b"x" * 16, 1_200)
    assert not new


@dataclass
class Wire:
    """A network between two links: a test says what is delivered when, and what never is."""

    ends: tuple[Link, Link]
    flying: list[tuple[int, Hello]] = field(default_factory=list)
    seen: list[tuple[int, Hello]] = field(default_factory=list)

    def say(self, at: int, now: float) -> None:
        """Let one end say hello, if it is time to."""
        for _, hello in self.ends[at].poll_hellos(now):
            self.put(1 - at, hello)

    def put(self, to: int, hello: Hello | None) -> None:
        if hello is not None:
            self.flying.append((to, hello))
            self.seen.append((to, hello))

    def deliver(self, index: int, now: float) -> None:
        to, hello = self.flying.pop(index)
        self.put(1 - to, self.ends[to].handle_hello(hello, ADDRESS, now)[0])

    def settle(self, now: float) -> None:
        """Deliver all that flies, in order."""
        while self.flying:
            assert len(self.flying) < 100
            self.deliver(0, now)

    def live(self, now: float, until: float, *, lossless: bool = True) -> float:
        """Let time pass: hellos and probes go when they are due, and arrive."""
        while now < until:
            for at, link in enumerate(self.ends):
                link.handle_timeout(now)
                if lossless:
                    self.say(at, now)
                if link.rhythm.poll_probe(now) is not None and lossless and matches(*self.ends):
                    self.ends[1 - at].on_heard(now)
            if lossless:
                self.settle(now)
            now += 0.05
        return now


steps = st.lists(
    st.sampled_from(["hello 0", "hello 1", "deliver", "lose", "again", "pass", "restart 0", "restart 1"]), max_size=40
)


@given(steps, st.randoms(use_true_random=False))
def test_links_over_a_network_that_loses_reorders_and_repeats_end_with_one_session(
    plan: list[str], rng: random.Random
) -> None:
    wire = Wire((make_link("B", 1), make_link("A", 2)))
    now = 0.0
    for turn, step in enumerate(plan):
        if step.startswith("hello"):
            wire.say(int(step[-1]), now)
        elif step.startswith("restart"):
            fresh = make_link("?", 10 + turn, now=now)
            wire.ends = (fresh, wire.ends[1]) if step[-1] == "0" else (wire.ends[0], fresh)
        elif step == "pass":
            now = wire.live(now, now + rng.choice([0.3, 6.0]), lossless=False)
        elif step == "again" and wire.seen:
            wire.flying.append(rng.choice(wire.seen))
        elif step == "deliver" and wire.flying:
            wire.deliver(rng.randrange(len(wire.flying)), now)
        elif step == "lose" and wire.flying:
            wire.flying.pop(rng.randrange(len(wire.flying)))
    wire.settle(now)
    wire.live(now, now + 20.0)
    assert matches(*wire.ends)
    assert [link.state for link in wire.ends] == [LinkState.OPEN, LinkState.OPEN]


@given(
    st.lists(st.tuples(st.sampled_from([0, 1]), st.booleans()), max_size=4),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 100)), max_size=30),
)
def test_no_hello_that_was_recorded_replaces_a_session(
    restarts: list[tuple[int, bool]], replays: list[tuple[int, int]]
) -> None:
    wire = Wire((make_link("B", 1), make_link("A", 2)))
    now = wire.live(0.0, 0.5)
    for turn, (end, cross) in enumerate(restarts):
        fresh = make_link("?", 10 + turn, now=now)
        wire.ends = (fresh, wire.ends[1]) if end == 0 else (wire.ends[0], fresh)
        if cross:
            wire.say(end, now)
        now = wire.live(now, now + 0.5)
    assert matches(*wire.ends)
    before = [link.session for link in wire.ends]
    recorded = list(wire.seen)
    for to, index in replays:
        wire.flying.append((to, recorded[index % len(recorded)][1]))
        wire.settle(now)
    assert [link.session for link in wire.ends] == before


# --- hellos -------------------------------------------------------------------------------------------------------


def test_pauses_between_hellos_double_up_to_their_most() -> None:
    link = make_link()
    now, pauses = 0.0, []
    for _ in range(8):
        hello_due(link, now)
        assert link.poll_hellos(now) == []
        at = link.poll_timeout()
        assert at is not None
        pauses.append(at - now)
        now = at
    for turn, pause in enumerate(pauses):
        nominal = min(HELLO_FIRST_S * 2**turn, HELLO_MOST_S)
        assert 0.8 * nominal <= pause <= 1.2 * nominal + 1e-9


def test_new_addresses_are_tried_at_once_and_known_ones_are_not_news() -> None:
    link = make_link()
    for at in (0.0, 1.0, 3.0, 5.0):
        hello_due(link, at)
    link.set_addresses((ADDRESS,), 5.1)
    assert link.poll_hellos(5.1) == []
    link.set_addresses((OTHER_ADDRESS, ADDRESS), 5.1)
    hello_due(link, 5.1)
    hello_due(link, 5.1 + 1.2 * HELLO_FIRST_S)


def test_a_peer_that_tells_ever_new_addresses_does_not_choose_how_much_goes_there() -> None:
    link = make_link()
    sent = 0
    for turn in range(1_200):  # for a minute, every 50 ms
        link.set_addresses(tuple((f"192.0.2.{turn % 2 + 1}", port) for port in range(1, 17)), turn / 20)
        sent += len(link.poll_hellos(turn / 20))
    assert sent <= 16 * 60 * 1.3


def test_a_link_without_an_address_waits_for_one() -> None:
    link = make_link()
    link.set_addresses((), 0.0)
    assert link.poll_timeout() is None


def test_no_hello_goes_out_while_a_session_stands() -> None:
    one, _ = opened()
    assert one.poll_hellos(100.0) == []


# --- silence ------------------------------------------------------------------------------------------------------


def silent(link: Link) -> float:
    """Let a link become suspect; return when it did."""
    link.rhythm.poll_probe(0.0)
    while True:
        at = link.poll_timeout()
        assert at is not None
        link.rhythm.poll_probe(at)
        if link.handle_timeout(at):
            assert not link.usable
            return at


def test_a_link_is_looked_at_when_a_probe_is_due_and_when_its_silence_has_lasted_too_long() -> None:
    one, _ = opened()
    assert one.poll_timeout() == 0.0
    one.rhythm.poll_probe(0.0)
    assert one.poll_timeout() == PROBE_IDLE_S
    assert silent(one) == one.rhythm.silent_at()


def test_a_suspect_link_is_probed_often_and_opens_at_the_first_sign_of_life() -> None:
    one, _ = opened()
    assert not one.on_heard(0.5)
    at = silent(one)
    assert one.rhythm.poll_probe(at) == PROBE_IN_TREE_S
    assert one.on_heard(at + 0.1)
    assert one.usable


def test_a_device_that_was_held_up_looks_again_before_it_suspects_a_link() -> None:
    one, _ = opened()
    late = one.rhythm.silent_at() + 0.2
    assert not one.handle_timeout(late)
    again = one.rhythm.silent_at()
    assert again > late
    assert one.handle_timeout(again)
    assert one.state is LinkState.SUSPECT


def test_a_suspect_link_says_hello_after_a_moment_and_keeps_its_session() -> None:
    one, _ = opened()
    at = silent(one)
    assert one.poll_hellos(at) == []
    assert [address for address, _ in one.poll_hellos(at + HELLO_SUSPECT_S)] == [ADDRESS]
    assert one.session is not None
    one.on_heard(at + 1.0)
    assert one.poll_hellos(at + 100.0) == []


def test_a_hello_of_a_suspect_link_finds_a_peer_that_has_moved() -> None:
    one, other = opened()
    at = silent(one) + HELLO_SUSPECT_S
    answer, _ = other.handle_hello(hello_due(one, at), ADDRESS, at)
    assert answer is not None
    offer, new = one.handle_hello(answer, OTHER_ADDRESS, at)
    assert offer is not None
    assert not new, "it has not been seen yet that what goes to this address arrives"
    confirmed, _ = other.handle_hello(offer, ADDRESS, at)
    assert confirmed is not None
    assert one.handle_hello(confirmed, OTHER_ADDRESS, at) == (None, True)
    assert one.session is not None
    assert one.session.address == OTHER_ADDRESS
    assert one.usable
    assert matches(one, other)


@pytest.mark.parametrize("standing", [False, True])
def test_no_session_stands_at_an_address_that_has_not_read_what_was_sent_there(standing: bool) -> None:
    one = opened()[0] if standing else make_link("B", 1)
    before = one.session
    # The peer asks from where it is, and answers under another host's address.
    offer, _ = one.handle_hello(Hello(b"x" * 16, bytes(16), 1_200), ADDRESS, 1.0)
    assert offer is not None
    forged = Hello(b"x" * 16, offer.session, 1_200, confirmed=True)
    answer, new = one.handle_hello(forged, OTHER_ADDRESS, 1.0)
    assert not new
    assert one.session is before
    assert answer is not None
    assert answer.session != offer.session
    assert one.handle_hello(forged, ADDRESS, 1.0)[1]


def test_a_suspect_link_that_stays_silent_drops_its_session_and_says_hello_again() -> None:
    one, _ = opened()
    end = silent(one) + SUSPECT_FOR_S
    assert not one.handle_timeout(end - 0.01)
    one.rhythm.poll_probe(end - 0.01)
    hello_due(one, end - 0.01)
    assert one.poll_timeout() == end
    assert one.handle_timeout(end)
    assert one.session is None
    assert one.state is LinkState.PROBING
    assert one.poll_timeout() == end
    assert one.rhythm.poll_probe(end + 1.0) is None
    hello_due(one, end)


def test_a_suspect_link_without_an_address_waits_for_its_end() -> None:
    one, _ = opened()
    at = silent(one)
    one.set_addresses((), at)
    one.rhythm.stop()
    assert one.poll_timeout() == at + SUSPECT_FOR_S


def test_a_session_renewed_opens_a_suspect_link() -> None:
    one, _ = opened()
    at = silent(one)
    shake_hands(make_link("A", 3, now=at), one, at)
    assert one.usable


def test_a_peer_that_leaves_closes_the_link_at_once_and_is_greeted_again() -> None:
    one, _ = opened()
    one.leave(2.0)
    assert one.session is None
    assert not one.usable
    hello_due(one, 2.0)
    one.leave(2.0)
    assert one.state is LinkState.PROBING
