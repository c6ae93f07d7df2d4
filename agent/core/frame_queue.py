"""Control frames that wait to be sent, and how they share datagrams."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from agent.core.content import FrameContent
from common.datagrams import CONTROL_OVERHEAD_BYTES
from common.frames import Frame, encode_frame
from common.limits import MAX_FRAMES_QUEUED
from common.link_frames import Ack
from common.path_frames import Train

CONTROL_BYTES: Final = 1_200
"""Control datagrams keep to the size that every path takes."""


class FrameQueue:
    """The control frames that wait on one hop.

    Attributes:
        reliable: encoded, what is sent again until it is acknowledged.
        unreliable: encoded, what is sent once.
        trains: encoded, those of trains: each is a datagram of its own.
        overflowed: whether a frame was dropped because too many waited.
    """

    def __init__(self) -> None:
        self.reliable: deque[bytes] = deque()
        self.unreliable: deque[bytes] = deque()
        self.trains: deque[bytes] = deque()
        self.overflowed = False

    def __bool__(self) -> bool:
        """Tell whether anything waits."""
        return bool(self.reliable or self.unreliable or self.trains)

    @property
    def sharing(self) -> bool:
        """Whether a datagram is going to leave that others may share."""
        return bool(self.reliable or self.unreliable)

    def put(self, frame: Frame, *, reliable: bool) -> None:
        """Let a frame wait; those of a train are never reliable."""
        queue = self.reliable if reliable else self.unreliable
        if isinstance(frame, Train):
            queue = self.trains
        if len(queue) >= MAX_FRAMES_QUEUED:
            self.overflowed = True
            return
        queue.append(encode_frame(frame))

    def put_again(self, content: FrameContent) -> None:
        """Let what a lost datagram carried wait again."""
        self.reliable.extend(content.frames)

    def take(self, ack: Ack | None) -> Iterator[tuple[bytes, FrameContent]]:
        """Yield all that waits as the plaintexts of datagrams, each with what is to be sent again of it.

        Args:
            ack: an acknowledgement that goes ahead of them, if one is due.
        """
        first = deque([] if ack is None else [encode_frame(ack)])
        room = CONTROL_BYTES - CONTROL_OVERHEAD_BYTES
        body = bytearray()
        content = FrameContent()
        for queue in (first, self.unreliable, self.reliable):
            while queue:
                frame = queue.popleft()
                if body and len(body) + len(frame) > room:
                    yield bytes(body), content
                    body, content = bytearray(), FrameContent()
                body += frame
                if queue is self.reliable:
                    content.frames.append(frame)
        if body:
            yield bytes(body), content
        while self.trains:
            yield self.trains.popleft(), FrameContent()
