"""Frames that wait, what they share a datagram with, and when there are too many."""

import pytest

from agent.core.content import FrameContent
from agent.core.frame_queue import CONTROL_BYTES, FrameQueue
from common.datagrams import CONTROL_OVERHEAD_BYTES
from common.frames import Frame, decode_untrusted, encode_frame
from common.limits import MAX_FRAMES_QUEUED
from common.link_frames import Ack, Bye
from common.path_frames import Train
from common.stream_frames import Stop, StreamOpening


def test_an_acknowledgement_goes_first_and_what_is_reliable_last() -> None:
    queue = FrameQueue()
    queue.put(Stop(1), reliable=True)
    queue.put(Bye(), reliable=False)
    ack = Ack(7, 0, ((7, 8),))
    ((body, content),) = queue.take(ack)
    assert decode_untrusted(body) == [ack, Bye(), Stop(1)]
    assert content == FrameContent([encode_frame(Stop(1))])
    assert not queue
    assert list(queue.take(None)) == []


def test_frames_share_a_datagram_as_far_as_it_goes_and_each_knows_its_own() -> None:
    queue, room = FrameQueue(), CONTROL_BYTES - CONTROL_OVERHEAD_BYTES
    sent: list[Frame] = [StreamOpening(bytes(500)), StreamOpening(bytes(500)), StreamOpening(bytes(2_000)), Stop(1)]
    for frame in sent:
        queue.put(frame, reliable=True)
    bodies = list(queue.take(None))
    assert [decode_untrusted(body) for body, _ in bodies] == [sent[:2], sent[2:3], sent[3:]]
    assert [b"".join(content.frames) for _, content in bodies] == [body for body, _ in bodies]
    assert len(bodies[0][0]) <= room


def test_the_frames_of_a_train_have_datagrams_of_their_own_after_all_others() -> None:
    queue = FrameQueue()
    queue.put(Train(1, 0, 2, 30), reliable=True)
    assert (bool(queue), queue.sharing) == (True, False)
    queue.put(Train(1, 1, 2, 30), reliable=False)
    queue.put(Stop(1), reliable=True)
    assert (bool(queue), queue.sharing) == (True, True)
    found = [(decode_untrusted(body), content.frames) for body, content in queue.take(None)]
    assert found == [
        ([Stop(1)], [encode_frame(Stop(1))]),
        ([Train(1, 0, 2, 30)], []),
        ([Train(1, 1, 2, 30)], []),
    ]


def test_what_was_lost_waits_again() -> None:
    queue = FrameQueue()
    queue.put(Stop(1), reliable=True)
    ((body, content),) = queue.take(None)
    queue.put(Stop(2), reliable=True)
    queue.put_again(content)
    ((again, _),) = queue.take(None)
    assert decode_untrusted(body) == [Stop(1)]
    assert decode_untrusted(again) == [Stop(2), Stop(1)]


@pytest.mark.parametrize("reliable", [True, False])
def test_more_frames_than_a_queue_takes_are_dropped_and_that_is_noted(reliable: bool) -> None:
    queue = FrameQueue()
    overflowed = []
    for number in range(MAX_FRAMES_QUEUED + 1):
        queue.put(Stop(number), reliable=reliable)
        overflowed.append(queue.overflowed)
    assert overflowed == [False] * MAX_FRAMES_QUEUED + [True]
    assert len(queue.reliable) + len(queue.unreliable) == MAX_FRAMES_QUEUED
