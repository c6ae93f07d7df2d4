"""What a device concludes from STUN servers' answers, and what it makes of those that are none."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.reflexive import EVERY_S, FORGET_S, LAST_WAIT_S, RECHECK_S, REPEATS, RTO_S, Reflexive
from common.addresses import Address
from common.limits import MAX_STUN_SERVERS
from common.stun import BindingRequest, decode_untrusted, encode_answer

ONE: Address = ("192.0.2.1", 8640)
TWO: Address = ("192.0.2.1", 8641)
SIX: Address = ("2001:db8::1", 8640)
SIX_TWO: Address = ("2001:db8::1", 8641)
SEEN: Address = ("198.51.100.7", 40_000)
OTHER: Address = ("198.51.100.7", 40_001)
OWN: Address = ("10.0.0.5", 7400)


class Bench:
    """A device, its clock, and what it asked."""

    def __init__(self, *servers: Address, own: tuple[Address, ...] = (OWN,)) -> None:
        self.now = 100.0
        self.drops: Counter[str] = Counter()
        self.reflexive = Reflexive(self.drops, random.Random(1).randbytes)
        self.reflexive.set_own(own, self.now)
        self.reflexive.set_servers(servers, self.now)
        self.asked: list[tuple[Address, bytes]] = []

    def run(self, seconds: float) -> list[tuple[float, Address]]:
        """Let time pass; return when which server was asked."""
        end, found = self.now + seconds, []
        while True:
            due = self.reflexive.poll_timeout()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.reflexive.handle_timeout(self.now)
            while (question := self.reflexive.poll()) is not None:
                self.asked.append(question)
                found.append((self.now, question[0]))
        self.now = end
        return found

    def last(self, server: Address) -> bytes:
        """Return the last request to a server."""
        return next(request for address, request in reversed(self.asked) if address == server)

    def answer(self, server: Address, seen: Address, *, source: Address | None = None) -> None:
        """Answer the last request to a server."""
        request = decode_untrusted(self.last(server))
        assert isinstance(request, BindingRequest)
        self.reflexive.receive(encode_answer(request, seen), source or server, self.now)

    def found(self) -> tuple[tuple[Address, ...], str]:
        return self.reflexive.addresses, self.reflexive.mapping


def test_nothing_is_known_before_anybody_was_asked() -> None:
    bench = Bench()
    assert bench.run(100.0) == []
    assert bench.found() == ((), "unknown")


def test_one_answer_shows_an_address_and_two_the_same_a_stable_mapping() -> None:
    bench = Bench(ONE, TWO)
    assert [server for _, server in bench.run(0.0)] == [ONE, TWO]
    bench.answer(ONE, SEEN)
    assert bench.found() == ((SEEN,), "unknown")
    bench.answer(TWO, SEEN)
    assert bench.found() == ((SEEN,), "stable")
    assert bench.reflexive.version == 2


def test_two_answers_that_differ_show_a_mapping_that_varies() -> None:
    bench = Bench(ONE, TWO)
    bench.run(0.0)
    bench.answer(ONE, SEEN)
    bench.answer(TWO, OTHER)
    assert bench.found() == ((SEEN, OTHER), "varies")


def test_who_is_seen_at_its_own_address_has_no_nat() -> None:
    bench = Bench(ONE, TWO, own=(("10.0.0.6", 7400), SEEN))
    bench.run(0.0)
    bench.answer(ONE, SEEN)
    assert bench.found() == ((SEEN,), "none")
    bench.answer(TWO, OTHER)
    assert bench.found() == ((SEEN, OTHER), "varies")


@pytest.mark.parametrize(
    ("four", "six", "mapping"),
    [
        ((SEEN, OTHER), (("2001:db8::5", 1),) * 2, "varies"),
        ((SEEN, SEEN), (("2001:db8::5", 1),) * 2, "stable"),
        ((SEEN,), (("2001:db8::5", 1),) * 2, "unknown"),
        ((), (("2001:db8::5", 1),) * 2, "none"),
        ((SEEN, SEEN), (("2001:db8::6", 1), ("2001:db8::6", 2)), "varies"),
    ],
)
def test_of_two_families_the_harder_nat_counts(
    four: tuple[Address, ...], six: tuple[Address, ...], mapping: str
) -> None:
    bench = Bench(SIX, SIX_TWO, ONE, TWO, own=(OWN, ("2001:db8::5", 1)))
    bench.run(0.0)
    for server, seen in [*zip((ONE, TWO), four, strict=False), *zip((SIX, SIX_TWO), six, strict=True)]:
        bench.answer(server, seen)
    addresses, found = bench.found()
    assert found == mapping
    assert addresses == tuple(dict.fromkeys((*four, *six)))


def test_a_question_is_repeated_with_doubling_pauses_and_one_transaction_then_given_up() -> None:
    bench = Bench(ONE)
    asked = bench.run(RTO_S * 63 + LAST_WAIT_S - 0.01)
    assert [round(at - 100.0, 3) for at, _ in asked] == [RTO_S * (2**count - 1) for count in range(REPEATS)]
    assert len({request for _, request in bench.asked}) == 1
    (again,) = bench.run(EVERY_S + 0.02)
    assert again[0] == pytest.approx(100.0 + RTO_S * 63 + LAST_WAIT_S + EVERY_S)
    assert len({request for _, request in bench.asked}) == 2


def test_a_server_that_answers_is_asked_again_in_time_for_the_nat_under_a_new_transaction() -> None:
    bench = Bench(ONE)
    bench.run(0.0)
    bench.answer(ONE, SEEN)
    for round_ in range(4):
        (again,) = bench.run(EVERY_S)
        assert again[0] == pytest.approx(100.0 + (round_ + 1) * EVERY_S)
        bench.answer(ONE, SEEN)
    assert len({request for _, request in bench.asked}) == 5
    assert bench.reflexive.version == 1


def test_a_nat_that_began_anew_is_noticed_and_not_taken_for_one_that_varies() -> None:
    bench = Bench(ONE, TWO)
    bench.run(0.0)
    bench.answer(ONE, SEEN)
    bench.run(10.0)
    bench.answer(TWO, SEEN)
    assert [server for _, server in bench.run(15.0)] == [ONE]
    bench.answer(ONE, OTHER)
    assert bench.found() == ((OTHER, SEEN), "stable")
    # The other is asked again at once, before its time.
    assert [server for _, server in bench.run(0.0)] == [TWO]
    bench.answer(TWO, OTHER)
    assert bench.found() == ((OTHER,), "stable")
    assert all(server == ONE for _, server in bench.run(RECHECK_S - 0.01))


def test_an_answer_that_was_contradicted_is_dropped_when_its_server_stays_silent() -> None:
    bench = Bench(ONE, TWO)
    bench.run(0.0)
    bench.answer(ONE, SEEN)
    bench.answer(TWO, SEEN)
    bench.run(EVERY_S)
    bench.answer(ONE, OTHER)
    assert bench.found() == ((OTHER, SEEN), "stable")
    for _ in range(3):
        bench.run(EVERY_S)
        bench.answer(ONE, OTHER)
    assert bench.found() == ((OTHER,), "unknown")


def test_a_nat_that_never_stops_changing_its_mind_is_asked_in_measure() -> None:
    bench = Bench(ONE, TWO)
    bench.run(0.0)
    count = 0
    for step in range(600):
        # Ten times a second for a minute whatever was asked is answered with a new address.
        for _, server in bench.run(0.1):
            bench.answer(server, ("198.51.100.7", 1_000 + step))
        count = len(bench.asked)
    assert count <= 2 * (60 / RECHECK_S + 2)


def test_after_a_change_of_its_own_addresses_a_device_asks_again() -> None:
    bench = Bench(ONE, TWO)
    bench.run(0.0)
    bench.answer(ONE, SEEN)
    bench.answer(TWO, SEEN)
    bench.run(10.0)
    bench.reflexive.set_own((OWN,), bench.now)
    assert bench.run(0.0) == []
    bench.reflexive.set_own((SEEN,), bench.now)
    assert bench.found() == ((SEEN,), "stable")
    assert [server for _, server in bench.run(0.0)] == [ONE, TWO]
    bench.answer(ONE, SEEN)
    assert bench.found() == ((SEEN,), "none")


def test_an_address_outlives_a_silent_server_for_a_while() -> None:
    bench = Bench(ONE)
    bench.run(0.0)
    bench.answer(ONE, SEEN)
    bench.run(FORGET_S - EVERY_S)
    assert bench.found() == ((SEEN,), "unknown")
    bench.run(200.0)
    assert bench.found() == ((), "unknown")


def test_servers_may_change_and_those_that_stay_keep_their_answers() -> None:
    bench = Bench(ONE, TWO)
    bench.run(0.0)
    bench.answer(ONE, SEEN)
    bench.answer(TWO, SEEN)
    bench.reflexive.set_servers((ONE, SIX), bench.now)
    assert bench.found() == ((SEEN,), "unknown")
    assert [server for _, server in bench.run(0.0)] == [SIX]
    bench.reflexive.set_servers((ONE, SIX), bench.now)
    bench.reflexive.set_servers((), bench.now)
    assert bench.found() == ((), "unknown")
    assert bench.reflexive.poll_timeout() is None
    bench.reflexive.set_servers([("192.0.2.9", port) for port in range(1, 100)], bench.now)
    assert len(bench.run(0.0)) == MAX_STUN_SERVERS


def test_an_answer_counts_from_the_server_that_was_asked_alone() -> None:
    bench = Bench(ONE, TWO)
    bench.run(0.0)
    bench.answer(ONE, SEEN, source=TWO)
    bench.answer(ONE, SEEN, source=("203.0.113.1", 8640))
    assert bench.drops == {"stun-wrong-source": 2}
    assert bench.found() == ((), "unknown")
    bench.answer(ONE, SEEN)
    assert bench.found() == ((SEEN,), "unknown")


def test_an_answer_to_nothing_that_was_asked_is_dropped() -> None:
    bench = Bench(ONE)
    bench.run(0.0)
    bench.answer(ONE, SEEN)
    # The same once more, and one under a made-up transaction.
    bench.answer(ONE, OTHER)
    bench.reflexive.receive(encode_answer(BindingRequest(bytes(16)), OTHER), ONE, bench.now)
    bench.reflexive.receive(encode_answer(BindingRequest(bytes.fromhex("2112a442")), OTHER), ONE, bench.now)
    assert bench.drops == {"stun-not-asked": 3}
    assert bench.found() == ((SEEN,), "unknown")


def test_a_request_is_not_answered_here() -> None:
    bench = Bench(ONE)
    bench.run(0.0)
    bench.reflexive.receive(bench.last(ONE), ONE, bench.now)
    assert bench.drops == {"stun-request": 1}
    assert bench.reflexive.poll() is None


def test_a_server_that_declines_is_left_alone_until_its_time() -> None:
    bench = Bench(ONE)
    bench.run(0.0)
    request = decode_untrusted(bench.last(ONE))
    assert isinstance(request, BindingRequest)
    declined = encode_answer(BindingRequest(request.transaction, unknown=(1,)), SEEN)
    bench.reflexive.receive(declined, ONE, bench.now)
    assert bench.drops == {"stun-declined": 1}
    assert bench.found() == ((), "unknown")
    assert bench.run(EVERY_S - 0.01) == []
    assert len(bench.run(0.02)) == 1


@pytest.mark.parametrize(
    "seen", [("198.51.100.7", 0), ("0.0.0.0", 5), ("255.255.255.255", 5), ("ff02::1", 5), ("::", 5)]
)
def test_an_address_that_nobody_can_have_is_not_believed(seen: Address) -> None:
    bench = Bench(ONE)
    bench.run(0.0)
    bench.answer(ONE, seen)
    assert bench.drops == {"stun-unusable-address": 1}
    assert bench.found() == ((), "unknown")


def test_an_ipv4_address_inside_an_ipv6_one_is_that() -> None:
    bench = Bench(ONE)
    bench.run(0.0)
    bench.answer(ONE, ("::ffff:198.51.100.7", 40_000))
    assert bench.found() == ((SEEN,), "unknown")


@given(st.binary(max_size=64), st.sampled_from([ONE, TWO, ("203.0.113.1", 1)]))
def test_garbage_is_counted_and_changes_nothing(garbage: bytes, source: Address) -> None:
    bench = Bench(ONE, TWO)
    bench.run(0.0)
    due = bench.reflexive.poll_timeout()
    for datagram in (garbage, b"\1\1" + garbage, bench.last(ONE)[:20] + garbage):
        if datagram != bench.last(ONE):
            bench.reflexive.receive(datagram, source, bench.now)
    assert bench.found() == ((), "unknown")
    assert bench.reflexive.version == 0
    assert bench.reflexive.poll_timeout() == due
    assert sum(bench.drops.values()) >= 2
