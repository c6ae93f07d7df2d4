"""Fetching again what was refuted: of whom, how much at a time, and what becomes of who does not answer."""

from agent.core.cursor import Cursor
from agent.core.dispute import FIRST_PAUSE_S, Dispute
from agent.core.disputes import MOST_AT_ONCE, Disputes
from agent.core.hop import Hop
from agent.core.stream import Stream
from common.frames import Frame
from common.ids import DeviceId
from common.limits import MAX_RANGES
from common.stream_frames import Want
from tests.unit.agent.core.parts import MESSAGE, SentFrames, make_stream

PATIENCE_S = 0.25


class Bench:
    """A stream with chunks in dispute, and peers that keep what they are sent."""

    def __init__(self, *peers: DeviceId, start: int = 4, stop: int = 7) -> None:
        self.hops = {peer: SentFrames(peer) for peer in peers}
        self.told: list[DeviceId] = []
        open_hops: dict[DeviceId, Hop] = dict(self.hops)
        self.open = open_hops
        self.disputes = Disputes(open_hops, self._tell)
        self.stream: Stream = make_stream(MESSAGE)
        self.stream.mark(1, stop + 2)
        self.stream.refute(start, stop)
        assert self.stream.dispute is not None
        self.dispute: Dispute = self.stream.dispute

    def _tell(self, hop: Hop, stream: Stream) -> None:
        assert stream is self.stream
        assert isinstance(hop, SentFrames)
        assert not hop.sent, "it is told what is held before it is asked"
        self.told.append(hop.peer)

    def pursue(self, now: float) -> dict[DeviceId, list[Frame]]:
        """Go on; return what was sent since, by peer."""
        self.disputes.pursue(self.stream, self.dispute, list(self.open.values()), PATIENCE_S, now)
        sent = {peer: hop.sent for peer, hop in self.hops.items() if hop.sent}
        for hop in self.hops.values():
            hop.sent = []
        return sent

    def reported(self, peer: DeviceId, *ranges: tuple[int, int]) -> None:
        cursor = self.hops[peer].cursors[self.stream.short] = Cursor(self.stream)
        for start, stop in ranges:
            cursor.reported.add_range(start, stop)

    def want(self, *ranges: tuple[int, int]) -> list[Frame]:
        return [Want(self.stream.short, ranges)]


def test_one_peer_is_told_what_is_held_and_asked_for_all_that_is_in_dispute() -> None:
    bench = Bench("B", "C")
    assert bench.pursue(10.0) == {"B": bench.want((4, 7))}
    assert bench.told == ["B"]
    assert bench.dispute.asked == "B"
    assert list(bench.dispute.outstanding) == [(4, 7)]
    assert bench.pursue(10.1) == {}, "it has time to answer"


def test_what_is_here_of_it_is_not_asked_for() -> None:
    bench = Bench("B", stop=9)
    bench.stream.mark(5, 7)
    assert bench.pursue(10.0) == {"B": bench.want((4, 5), (7, 9))}


def test_who_has_said_that_it_holds_it_is_asked_first_and_who_was_bringing_the_stream_last() -> None:
    bench = Bench("B", "C", "D", "E")
    bench.stream.supply.brought("B", 1)
    bench.reported("B", (1, 9))
    bench.reported("C", (1, 6))
    bench.reported("E", (1, 9))
    asked: list[DeviceId] = []
    for turn in range(4):
        asked += bench.pursue(10.0 + turn)
        bench.dispute.refuted()
    assert asked == ["E", "C", "D", "B"]


def test_where_there_is_no_other_the_one_that_brought_it_is_asked() -> None:
    bench = Bench("B")
    bench.stream.supply.brought("B", 1)
    assert list(bench.pursue(10.0)) == ["B"]


def test_a_peer_that_brings_nothing_is_left_for_the_next_one() -> None:
    bench = Bench("B", "C")
    bench.pursue(10.0)
    assert bench.pursue(10.0 + PATIENCE_S) == {"C": bench.want((4, 7))}
    assert not bench.dispute.admits("B", 4, 5)
    assert bench.told == ["B", "C"]


def test_a_peer_that_brings_some_has_time_for_the_rest() -> None:
    bench = Bench("B", "C")
    bench.pursue(10.0)
    bench.stream.mark(4, 5)
    assert bench.pursue(10.0 + PATIENCE_S) == {}
    assert list(bench.dispute.outstanding) == [(5, 7)]
    assert bench.pursue(10.2 + PATIENCE_S) == {}
    assert bench.pursue(10.0 + 2 * PATIENCE_S) == {"C": bench.want((5, 7))}


def test_a_peer_whose_link_is_gone_is_left_at_once() -> None:
    bench = Bench("B", "C")
    bench.pursue(10.0)
    del bench.open["B"]
    assert bench.pursue(10.0) == {"C": bench.want((4, 7))}


def test_what_is_here_again_is_asked_of_nobody_while_it_is_judged() -> None:
    bench = Bench("B", "C")
    bench.pursue(10.0)
    bench.stream.mark(4, 7)
    assert bench.pursue(99.0) == {}
    assert bench.dispute.asked == "B"
    bench.stream.refute(4, 7)
    assert bench.pursue(99.0) == {"C": bench.want((4, 7))}


def test_when_all_have_failed_nobody_is_asked_until_a_pause_is_over() -> None:
    bench = Bench("B", "C")
    for turn in (0, 1):
        assert bench.pursue(10.0 + turn * PATIENCE_S)
    assert bench.pursue(10.5) == {}
    assert bench.dispute.asked is None
    assert bench.pursue(10.5 + 0.9 * FIRST_PAUSE_S) == {}
    assert bench.pursue(10.5 + FIRST_PAUSE_S) == {"B": bench.want((4, 7))}


def test_a_device_without_links_waits_for_one() -> None:
    bench = Bench()
    assert bench.pursue(10.0) == {}
    assert bench.dispute.asked is None


def test_a_large_block_is_asked_for_in_parts_of_the_same_peer() -> None:
    last = MOST_AT_ONCE + 100
    bench = Bench("B", "C", start=1, stop=last)
    assert bench.pursue(10.0) == {"B": bench.want((1, MOST_AT_ONCE + 1))}
    bench.stream.mark(1, MOST_AT_ONCE)
    assert bench.pursue(10.1) == {}
    bench.stream.mark(MOST_AT_ONCE, MOST_AT_ONCE + 1)
    assert bench.pursue(10.2) == {"B": bench.want((MOST_AT_ONCE + 1, last))}
    assert bench.told == ["B", "B"]


def test_no_more_ranges_are_asked_for_than_a_frame_has_room_for() -> None:
    bench = Bench("B", start=1, stop=4 * MAX_RANGES + 1)
    for number in range(1, 4 * MAX_RANGES, 2):
        bench.stream.mark(number, number + 1)
    ((want,),) = bench.pursue(10.0).values()
    assert isinstance(want, Want)
    assert want.ranges == tuple((number, number + 1) for number in range(2, 2 * MAX_RANGES + 1, 2))
    assert list(bench.dispute.outstanding) == list(want.ranges)
    assert Want.read(want.body()) == want


def test_a_question_is_not_repeated_by_the_link_for_another_may_be_asked_by_then() -> None:
    asked: list[bool] = []

    class Noting(SentFrames):
        def send(self, frame: Frame, *, reliable: bool = True) -> None:
            asked.append(reliable)

    bench = Bench("B")
    bench.open["B"] = Noting("B")
    bench.pursue(10.0)
    assert asked == [False]
