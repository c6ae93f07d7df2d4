"""Bytes on their way to the disk: one thread writes what all streams of an agent receive, off the event loop.

Theory of operation. Each stream has a lane. It puts batches of runs in; the thread writes them one after the other, in
the order in which they came. A batch stays in its lane's ``pending`` until it is on the medium, so that it can be read
from memory meanwhile. When a write fails, nothing more of that lane is written and nothing is dropped: the stream
hears of it at its next call, and then all that is pending is tried again.

The queue is bounded. What receives slows down by ``queued_bytes``: a stream gives its neighbours no more credit than
its share less what all streams have queued. But credit once given is not taken back, so when the disk stops, the queue
may come to hold the shares of all the streams that were arriving. It has room for `STREAMS_AT_ONCE` of them; at that
hard bound whoever brings more gets an error at once, for this is the event loop. Only who finishes a file waits, for
the little that is ahead of it, and who drops one, for a moment.

All but the writing itself happens under one lock, which is never held during a system call on a file. ``pending`` is a
tuple that is replaced and never changed, so reading it needs no lock.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from agent.core.stream import CREDIT_PART
from agent.services.piece_run import PieceRun
from common.limits import STREAM_MEMORY_BYTES

log = logging.getLogger(__name__)

STREAMS_AT_ONCE: Final = 16
"""Streams whose whole credit the queue has room for."""
MOST_QUEUED_BYTES: Final = STREAMS_AT_ONCE * STREAM_MEMORY_BYTES // CREDIT_PART
"""The queue's hard bound where nobody chose another memory for a stream."""
WAIT_S: Final = 10.0
"""Seconds that one call waits for the disk."""
CANCEL_S: Final = 0.25
"""Seconds that dropping a stream waits for the write that is under way: some 256 KiB."""
_MOST_PIECES: Final = 1_024
"""Pieces of one system call: IOV_MAX of Linux."""

Write = Callable[[Sequence[PieceRun]], None]
"""Writes runs to a stream's files, on the writer's thread; raises OSError."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Runs of one stream that are written in one go.

    Attributes:
        lane: the stream's.
        runs: not changed any more.
        size_bytes: of their pieces.
    """

    lane: Lane
    runs: Sequence[PieceRun]
    size_bytes: int


class Lane:
    """One stream's way to the disk.

    Args:
        writer: the thread that it shares.
        write: writes this stream's runs.

    Attributes:
        pending: what is not on the medium yet, oldest first.
        failure: what the medium said to the oldest of it; the stream has not heard of it yet.
    """

    def __init__(self, writer: DiskWriter, write: Write) -> None:
        self._writer = writer
        self.write = write
        self.pending: tuple[Batch, ...] = ()
        self.failure: OSError | None = None

    @property
    def ahead_bytes(self) -> int:
        """Bytes that are written before nothing of this lane is pending; 0 if it failed."""
        return self._writer.bytes_up_to(self) if self.pending and self.failure is None else 0

    def check(self) -> None:
        """See whether more can be put in.

        Raises:
            OSError: an earlier batch failed (all that is pending is tried again now), or there is no room.
        """
        if self.failure is not None:
            self._writer.retry(self)
        self._writer.check_room()

    def put(self, runs: Sequence[PieceRun], size_bytes: int) -> None:
        """Have runs written after those before.

        Raises:
            OSError: the writer is closed.
        """
        self._writer.put(Batch(self, runs, size_bytes))

    def wait(self) -> None:
        """Wait until nothing is pending.

        Raises:
            OSError: the medium fails, or does not take it in time.
        """
        if self.pending:
            self._writer.wait(self)

    def cancel(self) -> None:
        """Drop what is pending; nothing is being written when this returns, unless the medium is slow."""
        if self.pending:
            self._writer.cancel(self)


class DiskWriter:
    """The thread that writes, and its queue. It starts with the first batch and ends when it is closed.

    Args:
        most_bytes: the hard bound of the queue; see `most_queued_bytes`.
        wait_s: seconds that one call waits for the disk.
        cancel_s: seconds that dropping a stream waits for the write that is under way.

    Attributes:
        queued_bytes: what waits or is being written, of all streams; what failed does not count.
    """

    def __init__(
        self, *, most_bytes: int = MOST_QUEUED_BYTES, wait_s: float = WAIT_S, cancel_s: float = CANCEL_S
    ) -> None:
        self.queued_bytes = 0
        self._most_bytes = most_bytes
        self._wait_s = wait_s
        self._cancel_s = cancel_s
        self._changed = threading.Condition()
        self._queue: deque[Batch] = deque()
        self._writing: Batch | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def lane(self, write: Write) -> Lane:
        """Make a stream's lane."""
        return Lane(self, write)

    def put(self, batch: Batch) -> None:
        """Queue a batch.

        Raises:
            OSError: the writer is closed.
        """
        lane = batch.lane
        with self._changed:
            if self._closed:
                raise OSError(errno.ESHUTDOWN, "the agent stops")
            lane.pending += (batch,)
            if lane.failure is None:
                self._enqueue(batch)

    def retry(self, lane: Lane) -> None:
        """Queue again what is pending after a failure.

        Raises:
            OSError: that failure.
        """
        with self._changed:
            failure, lane.failure = lane.failure, None
            if failure is None:
                return
            if not self._closed:
                for batch in lane.pending:
                    self._enqueue(batch)
        raise failure

    def check_room(self) -> None:
        """See whether the queue is below its bound.

        Raises:
            OSError: it is not.
        """
        if self.queued_bytes >= self._most_bytes:
            detail = f"{self.queued_bytes} bytes wait for the disk, and at most {self._most_bytes} may"
            raise OSError(errno.ENOBUFS, detail)

    def bytes_up_to(self, lane: Lane) -> int:
        """Return the bytes that are written until the last batch of a lane is, whoever they belong to."""
        with self._changed:
            passed = found = 0
            for batch in filter(None, (self._writing, *self._queue)):
                passed += batch.size_bytes
                if batch.lane is lane:
                    found = passed
            return found

    def wait(self, lane: Lane) -> None:
        """Wait until nothing of a lane is pending.

        Raises:
            OSError: the medium fails, or does not take it in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not lane.pending or lane.failure is not None, self._wait_s):
                detail = f"{self.queued_bytes} bytes wait for the disk, which did not take them in {self._wait_s:g} s"
                raise TimeoutError(errno.ETIMEDOUT, detail)
        self.retry(lane)

    def cancel(self, lane: Lane) -> None:
        """Drop a lane's batches, and wait shortly for the one that is being written."""
        with self._changed:
            self._drop(lane)
            lane.pending, lane.failure = (), None
            if not self._changed.wait_for(lambda: not self._is_writing(lane), self._cancel_s):
                log.warning("= the disk has not answered for %g s", self._cancel_s)

    def close(self) -> None:
        """Write what is queued, for a limited time, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            return
        thread.join(self._wait_s)
        if thread.is_alive():
            log.warning("= the disk has not taken %d bytes in %g s; they are lost", self.queued_bytes, self._wait_s)

    def _enqueue(self, batch: Batch) -> None:
        self._queue.append(batch)
        self.queued_bytes += batch.size_bytes
        if self._thread is None:
            # A daemon: a medium that hangs does not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="disk-writer", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _drop(self, lane: Lane) -> None:
        """Take a lane's batches out of the queue."""
        self.queued_bytes -= sum(batch.size_bytes for batch in self._queue if batch.lane is lane)
        self._queue = deque(batch for batch in self._queue if batch.lane is not lane)
        self._changed.notify_all()

    def _is_writing(self, lane: Lane) -> bool:
        return self._writing is not None and self._writing.lane is lane

    def _run(self) -> None:
        """Write batch after batch; this is the thread."""
        while (batch := self._next()) is not None:
            failure: OSError | None = None
            try:
                batch.lane.write(batch.runs)
            except OSError as error:
                log.warning("= writing %d received bytes failed: %s", batch.size_bytes, error)
                failure = error
            except Exception as error:
                log.exception("= writing %d received bytes failed", batch.size_bytes)
                failure = OSError(errno.EIO, str(error))
            self._settle(batch, failure)

    def _next(self) -> Batch | None:
        """Wait for the next batch; None when the writer was closed and all is written."""
        with self._changed:
            # The one wait without a limit: closing ends it.
            self._changed.wait_for(lambda: self._queue or self._closed)
            self._writing = self._queue.popleft() if self._queue else None
            return self._writing

    def _settle(self, batch: Batch, failure: OSError | None) -> None:
        """Note how a batch fared."""
        lane = batch.lane
        with self._changed:
            self._writing = None
            self.queued_bytes -= batch.size_bytes
            if batch in lane.pending:  # it was not dropped meanwhile
                if failure is None:
                    lane.pending = tuple(each for each in lane.pending if each is not batch)
                else:
                    lane.failure = failure
                    self._drop(lane)
            self._changed.notify_all()


def most_queued_bytes(stream_bytes: int) -> int:
    """Return the queue's hard bound where one stream may take so many bytes of the device's memory."""
    return STREAMS_AT_ONCE * stream_bytes // CREDIT_PART


def write_at(handle: int, pieces: Sequence[bytes], offset: int) -> None:
    """Write pieces one behind the other, whatever it takes.

    Raises:
        OSError: the medium fails, or takes no more.
    """
    for first in range(0, len(pieces), _MOST_PIECES):
        some = pieces[first : first + _MOST_PIECES]
        size = sum(map(len, some))
        written = os.pwritev(handle, some, offset)
        while written < size:
            more = os.pwritev(handle, [b"".join(some)[written:]], offset + written)
            if more == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written += more
        offset += size
