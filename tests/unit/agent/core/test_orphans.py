"""What waits for a stream's opening: asked for, within bounds, and for a moment only."""

from collections import Counter

import pytest

from agent.core import orphans as module
from agent.core.orphans import ASK_EVERY_S, HOLD_S, Orphans
from common.stream_frames import AskOpening, Have
from tests.unit.agent.core.parts import SentFrames

DROP = "chunk-of-unknown-stream"


@pytest.fixture
def drops() -> Counter[str]:
    return Counter()


def have(stream: int, stop: int = 1) -> Have:
    return Have(stream, 0, stop, ())


def test_the_first_chunk_asks_its_previous_hop_for_the_opening(drops: Counter[str]) -> None:
    orphans, hop = Orphans(drops), SentFrames("A")
    orphans.hold(hop, 7, b"one", None, 0.0)
    orphans.hold(hop, 7, b"two", "files", 0.0)
    assert hop.sent == [AskOpening(7)]
    assert orphans.take(7) == ([(hop, b"one", None), (hop, b"two", "files")], [])
    assert orphans.take(7) == ([], [])
    assert drops[DROP] == 0


def test_the_newest_news_of_each_peer_waits(drops: Counter[str]) -> None:
    orphans, a, c = Orphans(drops), SentFrames("A"), SentFrames("C")
    orphans.hold_news(a, have(7, 1), 0.0)
    orphans.hold_news(c, have(7, 2), 0.0)
    orphans.hold_news(a, have(7, 3), 0.0)
    assert orphans.take(7) == ([], [(a, have(7, 3)), (c, have(7, 2))])


def test_every_peer_that_sent_something_is_asked_again_once(drops: Counter[str]) -> None:
    orphans, a, c = Orphans(drops), SentFrames("A"), SentFrames("C")
    orphans.hold(a, 7, b"one", None, 0.0)
    orphans.hold(a, 7, b"two", None, 0.0)
    orphans.hold_news(a, have(7), 0.0)
    orphans.hold_news(c, have(7), 0.0)
    a.sent.clear()
    orphans.ask(ASK_EVERY_S / 2)
    assert a.sent == c.sent == []
    orphans.ask(ASK_EVERY_S)
    orphans.ask(ASK_EVERY_S)
    assert a.sent == c.sent == [AskOpening(7)]


def test_what_waited_too_long_is_dropped_and_counted(drops: Counter[str]) -> None:
    orphans, hop = Orphans(drops), SentFrames("A")
    orphans.hold(hop, 7, b"one", None, 0.0)
    orphans.hold(hop, 7, b"two", None, 1.0)
    orphans.hold(hop, 8, b"one", None, 1.0)
    orphans.ask(HOLD_S + 0.1)
    assert drops[DROP] == 2
    assert orphans.take(7) == ([], [])
    assert len(orphans.take(8)[0]) == 1


def test_what_a_peer_sent_goes_with_its_session(drops: Counter[str]) -> None:
    orphans, a, c = Orphans(drops), SentFrames("A"), SentFrames("C")
    orphans.hold(a, 7, b"one", None, 0.0)
    orphans.hold(c, 7, b"two", None, 0.0)
    orphans.hold_news(a, have(7), 0.0)
    orphans.hold(a, 8, b"three", None, 0.0)
    orphans.hold_news(c, have(9), 0.0)
    orphans.forget_peer("A")
    assert orphans.waiting() == [7, 9]
    assert orphans.take(7) == ([(c, b"two", None)], [])
    assert orphans.take(8) == ([], [])
    assert orphans.take(9) == ([], [(c, have(9))])


def test_no_more_chunks_are_held_than_the_bound_and_room_comes_back(
    drops: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_HELD_CHUNKS", 2)
    orphans, hop = Orphans(drops), SentFrames("A")
    for stream in (7, 8, 8):
        orphans.hold(hop, stream, b"chunk", None, 0.0)
    assert drops[DROP] == 1
    orphans.take(7)
    orphans.hold(hop, 9, b"chunk", None, 0.0)
    assert drops[DROP] == 1
    orphans.forget_peer("A")
    orphans.hold(hop, 9, b"chunk", None, 0.0)
    orphans.ask(HOLD_S + 0.1)
    orphans.hold(hop, 9, b"chunk", None, 3.0)
    orphans.hold(hop, 9, b"chunk", None, 3.0)
    assert drops[DROP] == 2
    assert len(orphans.take(9)[0]) == 2


def test_no_more_unknown_streams_are_remembered_than_the_bound(
    drops: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 1)
    orphans, hop = Orphans(drops), SentFrames("A")
    orphans.hold(hop, 7, b"chunk", None, 0.0)
    orphans.hold(hop, 8, b"chunk", None, 0.0)
    orphans.hold_news(hop, have(9), 0.0)
    assert drops[DROP] == 1
    assert hop.sent == [AskOpening(7)]
    assert orphans.take(9) == ([], [])
