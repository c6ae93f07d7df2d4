"""The source's side: files cut and sealed once, messages cut at once, and what the publisher is told."""

import hashlib

import pytest

from agent.core.memory_store import BytesReader, MemoryStreamStore
from agent.core.source import MAX_PUBLISH_QUEUE_BYTES, FileSource, MessageSource
from agent.core.store import StoreError
from agent.core.stream import Stream, split_word
from common.datagrams import CHUNK_HEADER, FLAG_CLOSING, FLAG_END, FLAG_START
from common.errors import RefusedError
from common.limits import MAX_MESSAGE_BYTES
from tests.unit.agent.core.parts import MESSAGE, make_stream, of_size

DATA = bytes(range(250)) * 10


class Gone(MemoryStreamStore):
    """A source's store whose file is no longer there, or whose disk is full."""

    full = False

    def read(self, number: int) -> bytes | None:
        return bytes(1_000) if self.full else None

    def write(self, number: int, data: bytes, tag: bytes) -> None:
        raise StoreError("no-space", "0 bytes are left")


def file_stream(data: bytes = DATA) -> Stream:
    store = MemoryStreamStore(reader=BytesReader(data), piece_bytes=1_000, size_bytes=len(data))
    return make_stream(of_size(len(data)), role="source", store=store)


def cut_all(source: FileSource | MessageSource) -> list[tuple[int, int, bytes]]:
    """Cut all there is; return number, flags and plain bytes of each chunk, as a receiver opens it."""
    receiver = make_stream(source.stream.opening)
    out = []
    while (cut := source.cut()) is not None:
        number, chunk = cut
        flags, written = split_word(CHUNK_HEADER.unpack_from(chunk)[1])
        assert written == number
        out.append((number, flags, receiver.open(number, flags, chunk)))
    return out


def test_a_file_is_cut_into_pieces_and_a_closing_record_with_its_hash() -> None:
    stream = file_stream()
    source = FileSource(stream)
    digest = hashlib.sha256(DATA).digest()
    assert cut_all(source) == [
        (1, 0, DATA[:1_000]),
        (2, 0, DATA[1_000:2_000]),
        (3, 0, DATA[2_000:]),
        (4, FLAG_CLOSING, digest),
    ]
    assert source.done
    assert source.cut() is None
    assert stream.complete


def test_an_empty_file_is_a_closing_record_alone() -> None:
    assert cut_all(FileSource(file_stream(b""))) == [(1, FLAG_CLOSING, hashlib.sha256(b"").digest())]


def test_a_restarted_source_seals_the_same_bytes_again_and_goes_on() -> None:
    first = file_stream()
    source = FileSource(first)
    sealed = [source.cut(), source.cut()]
    second = make_stream(first.opening, role="source", store=first.store)
    again = FileSource(second)
    assert [again.cut(), again.cut()] == sealed
    assert list(second.held) == [(1, 3)]
    assert len(cut_all(again)) == 2
    assert second.complete


def test_a_file_that_changed_under_an_earlier_runs_seal_is_not_sent() -> None:
    first = file_stream()
    FileSource(first).cut()
    assert isinstance(first.store, MemoryStreamStore)
    first.store.reader = BytesReader(bytes(2_500))
    second = make_stream(first.opening, role="source", store=first.store)
    source = FileSource(second)
    assert source.cut() is None
    assert source.failed is not None
    assert source.failed.reason == "changed"
    assert source.cut() is None
    assert not second.held


def test_a_file_that_ends_early_or_is_gone_or_cannot_be_noted_fails() -> None:
    short = file_stream()
    assert isinstance(short.store, MemoryStreamStore)
    short.store.reader = BytesReader(DATA[:1_500])
    full = Gone()
    full.full = True
    for stream, cuts, reason in (
        (short, 1, "io"),
        (make_stream(of_size(2_500), role="source", store=Gone()), 0, "io"),
        (make_stream(of_size(2_500), role="source", store=full), 0, "no-space"),
    ):
        source = FileSource(stream)
        assert len(cut_all(source)) == cuts
        assert source.failed is not None
        assert source.failed.reason == reason
        assert not source.done


def test_a_message_is_cut_into_numbered_chunks_from_start_to_end() -> None:
    source = MessageSource(make_stream(MESSAGE, role="source"))
    assert source.cut() is None
    assert source.publish(b"a" * 2_001) == 3
    assert source.publish(b"") == 4
    assert cut_all(source) == [
        (1, FLAG_START, b"a" * 1_000),
        (2, 0, b"a" * 1_000),
        (3, FLAG_END, b"a"),
        (4, FLAG_START | FLAG_END, b""),
    ]
    assert source.publish(b"next") == 5


def test_a_message_past_the_limit_is_refused_with_the_limit() -> None:
    source = MessageSource(make_stream(MESSAGE, role="source"))
    source.publish(bytes(MAX_MESSAGE_BYTES))
    with pytest.raises(RefusedError, match=str(MAX_MESSAGE_BYTES)) as caught:
        source.publish(bytes(MAX_MESSAGE_BYTES + 1))
    assert caught.value.reason == "too-large"


def test_a_publisher_waits_while_too_much_waits_to_be_cut() -> None:
    source = MessageSource(make_stream(MESSAGE, role="source"))
    for _ in range(MAX_PUBLISH_QUEUE_BYTES // MAX_MESSAGE_BYTES):
        source.publish(bytes(MAX_MESSAGE_BYTES))
    with pytest.raises(RefusedError, match=str(MAX_PUBLISH_QUEUE_BYTES)) as caught:
        source.publish(b"x")
    assert caught.value.reason == "busy"
    source.cut()
    source.publish(b"x")
