import errno
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent.services import disk_writer
from agent.services.disk_writer import DiskWriter, most_queued_bytes, write_at
from agent.services.piece_run import PieceRun
from common.limits import MIN_STREAM_MEMORY_BYTES, STREAM_MEMORY_BYTES
from tests.unit.agent.core.parts import make_stream, of_size

LONG_S = 30.0
"""Seconds that nothing here takes unless it hangs."""


class Medium:
    """Notes what is written; waits before each write while it is held, and fails on demand."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.failures: list[Exception] = []
        self.begun = threading.Semaphore(0)
        self._free = threading.Event()
        self._free.set()

    def write(self, runs: Sequence[PieceRun]) -> None:
        self.begun.release()
        assert self._free.wait(LONG_S)
        if self.failures:
            raise self.failures.pop(0)
        self.written += [run.start for run in runs]

    def hold(self) -> None:
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def await_write(self) -> None:
        """Wait until a write has begun."""
        assert self.begun.acquire(timeout=LONG_S)


def thread_runs() -> bool:
    return any(thread.name == "disk-writer" for thread in threading.enumerate())


@pytest.fixture
def medium() -> Medium:
    return Medium()


@pytest.fixture
def writer(medium: Medium) -> Iterator[DiskWriter]:
    made = DiskWriter(most_bytes=100, wait_s=LONG_S, cancel_s=LONG_S)
    yield made
    medium.release()
    made.close()
    assert not thread_runs()


def test_no_thread_runs_before_there_is_something_to_write(medium: Medium) -> None:
    writer = DiskWriter()
    lane = writer.lane(medium.write)
    lane.check()
    lane.wait()
    lane.cancel()
    assert not thread_runs()
    writer.close()


def test_batches_are_written_in_their_order(writer: DiskWriter, medium: Medium) -> None:
    one, other = writer.lane(medium.write), writer.lane(medium.write)
    for number in range(1, 100):
        (one, other)[number % 2].put([PieceRun(number)], 10)
    one.wait()
    other.wait()
    assert medium.written == list(range(1, 100))
    assert writer.queued_bytes == 0


def test_a_batch_is_pending_until_it_is_written(writer: DiskWriter, medium: Medium) -> None:
    lane = writer.lane(medium.write)
    medium.hold()
    lane.put([PieceRun(1)], 60)
    medium.await_write()
    lane.put([PieceRun(2)], 30)
    assert [batch.runs[0].start for batch in lane.pending] == [1, 2]
    assert writer.queued_bytes == 90
    lane.check()
    medium.release()
    lane.wait()
    assert (lane.pending, writer.queued_bytes) == ((), 0)


def test_a_full_queue_is_an_error_at_once_until_there_is_room(writer: DiskWriter, medium: Medium) -> None:
    lane, other = writer.lane(medium.write), writer.lane(medium.write)
    medium.hold()
    lane.put([PieceRun(1)], 100)
    # The writer of this test waits for as long as it may: nothing here does.
    for each in (lane, other):
        with pytest.raises(OSError, match="100 bytes wait for the disk, and at most 100 may") as caught:
            each.check()
        assert caught.value.errno == errno.ENOBUFS
    medium.release()
    lane.wait()
    for each in (lane, other):
        each.check()


@pytest.mark.parametrize("stream_bytes", [MIN_STREAM_MEMORY_BYTES, STREAM_MEMORY_BYTES, 1 << 30])
def test_the_queue_has_room_for_the_credit_of_many_streams(stream_bytes: int) -> None:
    stream = make_stream(of_size(1 << 34), memory_bytes=stream_bytes)
    credit_bytes = (stream.grant() - 1) * stream.opening.piece_bytes
    assert 8 * credit_bytes < most_queued_bytes(stream_bytes) <= 4 * stream_bytes


def test_what_is_ahead_reaches_to_the_last_batch_of_a_lane(writer: DiskWriter, medium: Medium) -> None:
    lane, other, third = (writer.lane(medium.write) for _ in range(3))
    assert lane.ahead_bytes == 0
    medium.hold()
    other.put([PieceRun(1)], 1)
    medium.await_write()
    lane.put([PieceRun(1)], 10)
    other.put([PieceRun(2)], 2)
    assert (lane.ahead_bytes, other.ahead_bytes, third.ahead_bytes) == (11, 13, 0)
    lane.put([PieceRun(2)], 10)
    other.put([PieceRun(3)], 4)
    assert (lane.ahead_bytes, other.ahead_bytes) == (23, 27)
    medium.failures = [OSError(errno.ENOSPC, "full")]
    medium.release()
    lane.wait()
    assert (lane.ahead_bytes, other.ahead_bytes) == (0, 0), "what failed is not waited for"


def test_a_wait_ends_in_time_although_others_are_written(medium: Medium) -> None:
    writer = DiskWriter(wait_s=0.01)
    lane, other = writer.lane(medium.write), writer.lane(medium.write)
    medium.hold()
    other.put([PieceRun(1)], 10)
    medium.await_write()
    lane.put([PieceRun(1)], 10)
    stop = threading.Event()

    def notify() -> None:
        while not stop.is_set():
            with writer._changed:
                writer._changed.notify_all()

    # Something happens all the time, but nothing that is waited for.
    busy = threading.Thread(target=notify)
    busy.start()
    try:
        with pytest.raises(TimeoutError):
            lane.wait()
    finally:
        stop.set()
        busy.join(LONG_S)
        medium.release()
        writer.close()


def test_a_medium_that_hangs_is_an_error_in_time(medium: Medium, caplog: pytest.LogCaptureFixture) -> None:
    writer = DiskWriter(wait_s=0.01, cancel_s=0.002)
    lane = writer.lane(medium.write)
    medium.hold()
    lane.put([PieceRun(1)], 100)
    with pytest.raises(TimeoutError, match=r"100 bytes wait for the disk, which did not take them in 0.01 s"):
        lane.wait()
    medium.await_write()
    lane.cancel()
    assert "has not answered for 0.002 s" in caplog.text
    writer.close()
    assert "has not taken 100 bytes" in caplog.text
    medium.release()
    assert writer._thread
    writer._thread.join(LONG_S)
    assert (lane.pending, writer.queued_bytes) == ((), 0)


def test_a_failure_is_told_once_and_what_is_pending_is_tried_again(writer: DiskWriter, medium: Medium) -> None:
    lane, other = writer.lane(medium.write), writer.lane(medium.write)
    medium.failures = [OSError(errno.ENOSPC, "full")]
    medium.hold()
    lane.put([PieceRun(1)], 10)
    lane.put([PieceRun(2)], 10)
    other.put([PieceRun(7)], 10)
    medium.release()
    other.wait()
    assert medium.written == [7]
    assert (len(lane.pending), writer.queued_bytes) == (2, 0)
    lane.put([PieceRun(3)], 10)
    assert writer.queued_bytes == 0
    with pytest.raises(OSError, match="full"):
        lane.check()
    lane.check()
    lane.wait()
    assert medium.written == [7, 1, 2, 3]


def test_whoever_waits_hears_of_a_failure(writer: DiskWriter, medium: Medium) -> None:
    lane = writer.lane(medium.write)
    medium.failures = [OSError(errno.EIO, "worn out")]
    lane.put([PieceRun(1)], 10)
    with pytest.raises(OSError, match="worn out"):
        lane.wait()
    lane.wait()
    assert medium.written == [1]


def test_an_error_that_should_not_be_does_not_end_the_thread(
    writer: DiskWriter, medium: Medium, caplog: pytest.LogCaptureFixture
) -> None:
    lane = writer.lane(medium.write)
    medium.failures = [ValueError("no such thing")]
    lane.put([PieceRun(1)], 10)
    with pytest.raises(OSError, match="no such thing") as caught:
        lane.wait()
    assert caught.value.errno == errno.EIO
    assert "Traceback" in caplog.text
    lane.wait()
    assert medium.written == [1]


def test_what_is_cancelled_is_not_written(writer: DiskWriter, medium: Medium) -> None:
    lane, other = writer.lane(medium.write), writer.lane(medium.write)
    medium.hold()
    other.put([PieceRun(7)], 10)
    medium.await_write()
    lane.put([PieceRun(1)], 10)
    other.put([PieceRun(8)], 10)
    lane.cancel()
    assert (lane.pending, writer.queued_bytes) == ((), 20)
    medium.release()
    other.wait()
    assert medium.written == [7, 8]


def test_cancelling_waits_for_what_is_being_written(writer: DiskWriter, medium: Medium) -> None:
    lane = writer.lane(medium.write)
    medium.failures = [OSError(errno.EIO, "worn out")]
    medium.hold()
    lane.put([PieceRun(1)], 10)
    medium.await_write()
    cancelling = threading.Thread(target=lane.cancel)
    cancelling.start()
    cancelling.join(0.01)
    assert cancelling.is_alive()
    medium.release()
    cancelling.join(LONG_S)
    assert not cancelling.is_alive()
    # Its failure concerns nobody any more.
    assert (lane.pending, lane.failure) == ((), None)


def test_closing_writes_what_is_queued_and_takes_no_more(writer: DiskWriter, medium: Medium) -> None:
    lane = writer.lane(medium.write)
    medium.hold()
    for number in (1, 2, 3):
        lane.put([PieceRun(number)], 10)
    medium.release()
    writer.close()
    writer.close()
    assert medium.written == [1, 2, 3]
    with pytest.raises(OSError, match="the agent stops"):
        lane.put([PieceRun(4)], 10)


def test_nothing_is_tried_again_after_closing(
    writer: DiskWriter, medium: Medium, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    lane = writer.lane(medium.write)
    medium.failures = [OSError(errno.ENOSPC, "full"), OSError(errno.ENOSPC, "full")]
    lane.put([PieceRun(1)], 10)
    writer.close()
    assert "writing 10 received bytes failed: [Errno 28] full" in caplog.text
    with pytest.raises(OSError, match="full"):
        lane.check()
    assert writer.queued_bytes == 0


@pytest.mark.parametrize("most_pieces", [1, 2, 1_024])
@pytest.mark.parametrize("taken", [1, 3, 100])
def test_all_pieces_are_written_whatever_a_call_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_pieces: int, taken: int
) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda handle, data, at: real(handle, [b"".join(data)[:taken]], at))
    monkeypatch.setattr(disk_writer, "_MOST_PIECES", most_pieces)
    with (tmp_path / "file").open("wb") as file:
        write_at(file.fileno(), [b"alpha", b"", b"beta", b"gamma"], 2)
    assert (tmp_path / "file").read_bytes() == b"\0\0alphabetagamma"


def test_a_medium_that_takes_nothing_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwritev", lambda *_: 0)
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="No space") as caught:
        write_at(file.fileno(), [b"alpha"], 0)
    assert caught.value.errno == errno.ENOSPC
