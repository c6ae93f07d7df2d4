"""The source's side: files cut, sealed and proven once, messages signed and cut, and what the publisher is told."""

import hashlib
from collections.abc import Sequence

import pytest

import common.blocks
from agent.core.memory_store import BytesReader, MemoryStreamStore
from agent.core.source import MAX_PUBLISH_QUEUE_BYTES, FileSource, MessageSource
from agent.core.store import StoreError
from agent.core.stream import Stream, split_word
from common.datagrams import CHUNK_HEADER, FLAG_END, FLAG_PROOF, FLAG_START
from common.errors import RefusedError
from common.limits import MAX_MESSAGE_BYTES
from common.signing import (
    PURPOSE_BLOCK,
    PURPOSE_MESSAGE,
    SIGNATURE_BYTES,
    Signer,
    block_statement,
    message_statement,
)
from tests.unit.agent.core.parts import AUTHOR, FILE, MESSAGE, SIGNER, make_stream, of_size

DATA = bytes(range(250)) * 10


@pytest.fixture
def blocks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each block have two pieces."""
    monkeypatch.setattr(common.blocks, "BLOCK_BYTES", 2_000)


def proof_of(number: int, content: bytes) -> bytes:
    """Return the proof of that number as the source signs it."""
    digest = hashlib.sha256(content).digest()
    return digest + SIGNER.sign(PURPOSE_BLOCK, block_statement(FILE.stream, number, digest))


def source_of(stream: Stream) -> FileSource:
    """Return the source of a file stream."""
    assert stream.blocks is not None
    return FileSource(stream, stream.blocks, SIGNER)


def publisher() -> MessageSource:
    """Return the source of a message stream."""
    return MessageSource(make_stream(MESSAGE, role="source"), SIGNER)


def signed(first: int, last: int, payload: bytes) -> bytes:
    """Return a message's bytes with their signature."""
    return payload + SIGNER.sign(PURPOSE_MESSAGE, message_statement(MESSAGE.stream, first, last, payload))


class Gone(MemoryStreamStore):
    """A source's store whose file is no longer there, or whose disk is full."""

    full = False

    def read(self, number: int) -> bytes | None:
        return bytes(1_000) if self.full else None

    def write_run(self, start: int, pieces: Sequence[bytes], tags: Sequence[bytes]) -> None:
        raise StoreError("no-space", "0 bytes are left")


def file_stream(data: bytes = DATA) -> Stream:
    store = MemoryStreamStore(reader=BytesReader(data), piece_bytes=1_000, size_bytes=len(data))
    return make_stream(of_size(len(data)), role="source", store=store)


def cut_all(source: FileSource | MessageSource, most: int = 1) -> list[tuple[int, int, bytes]]:
    """Cut all there is; return number, flags and plain bytes of each chunk, as a receiver opens it."""
    receiver = make_stream(source.stream.opening)
    out = []
    while (cut := source.cut(most)) is not None:
        assert 0 < len(cut.chunks) <= most
        words = [split_word(CHUNK_HEADER.unpack_from(chunk)[1]) for chunk in cut.chunks]
        flags = words[0][0]
        assert words == [(flags, number) for number in range(cut.start, cut.start + len(words))]
        plains = receiver.open(cut.start, flags, cut.chunks)
        out += [(number, flags, plain) for number, plain in enumerate(plains, cut.start)]
    return out


def sealed_by(stream: Stream) -> FileSource:
    """Return a file's source, restarted over the store of an earlier run."""
    return source_of(make_stream(stream.opening, role="source", store=stream.store))


@pytest.mark.parametrize("most", [1, 2, 3, 64])
def test_a_file_is_cut_into_pieces_and_a_closing_record_with_its_hash_signed(most: int) -> None:
    stream = file_stream()
    source = source_of(stream)
    assert cut_all(source, most) == [
        (1, 0, DATA[:1_000]),
        (2, 0, DATA[1_000:2_000]),
        (3, 0, DATA[2_000:]),
        (4, FLAG_PROOF, proof_of(4, DATA)),
    ]
    assert source.done
    assert source.cut(most) is None
    assert stream.complete
    assert isinstance(stream.store, MemoryStreamStore)
    assert stream.store.held() == [(1, 2), (2, 3), (3, 4), (4, 5)]


def test_a_file_is_cut_in_runs_and_its_closing_record_by_itself() -> None:
    source = source_of(file_stream(bytes(9_500)))
    cuts = []
    while (cut := source.cut(4)) is not None:
        cuts.append((cut.start, len(cut.chunks), cut.fresh))
        assert source.stream.sealed(cut.start, cut.start + 4) == cut.chunks, "it is remembered"
    assert cuts == [(1, 4, True), (5, 4, True), (9, 2, True), (11, 1, True)]


@pytest.mark.usefixtures("blocks_of_two")
@pytest.mark.parametrize("most", [1, 2, 3, 64])
@pytest.mark.parametrize("size_bytes", [1_999, 2_000, 2_001, 4_000, 5_500])
def test_each_block_is_followed_by_the_proof_of_the_file_so_far(size_bytes: int, most: int) -> None:
    data = (DATA * 3)[:size_bytes]
    expected: list[tuple[int, int, bytes]] = []
    for block in range(0, size_bytes, 2_000):
        for at in range(block, min(block + 2_000, size_bytes), 1_000):
            expected.append((len(expected) + 1, 0, data[at : min(at + 1_000, size_bytes)]))
        expected.append((len(expected) + 1, FLAG_PROOF, proof_of(len(expected) + 1, data[: block + 2_000])))
    source = source_of(file_stream(data))
    assert cut_all(source, most) == expected
    assert source.done
    assert source.stream.complete
    assert source.stream.held_bytes == size_bytes


@pytest.mark.usefixtures("blocks_of_two")
def test_a_cut_ends_with_its_block_and_a_proof_is_cut_by_itself() -> None:
    source = source_of(file_stream(bytes(4_500)))
    cuts = []
    while (cut := source.cut(64)) is not None:
        cuts.append((cut.start, len(cut.chunks)))
    assert cuts == [(1, 2), (3, 1), (4, 2), (6, 1), (7, 1), (8, 1)]


@pytest.mark.usefixtures("blocks_of_two")
@pytest.mark.parametrize("cuts", range(7))
def test_a_restarted_source_proves_its_blocks_as_it_did_before(cuts: int) -> None:
    first = file_stream(bytes(4_500))
    source = source_of(first)
    before = [source.cut(64) for _ in range(cuts)]
    numbers = sum(len(cut.chunks) for cut in before if cut is not None)
    again = sealed_by(first)
    assert again.stream.verify_stored(1, numbers + 1) == numbers
    after = [again.cut(64) for _ in range(cuts)]
    assert [(cut.start, cut.chunks) for cut in after if cut is not None] == [
        (cut.start, cut.chunks) for cut in before if cut is not None
    ]
    assert not any(cut.fresh for cut in after if cut is not None)
    cut_all(again, 64)
    assert again.failed is None
    assert again.stream.complete
    assert isinstance(first.store, MemoryStreamStore)
    assert first.store.read(8) == proof_of(8, bytes(4_500))


def test_a_source_with_another_key_than_the_one_it_proved_with_sends_no_other_proof() -> None:
    first = file_stream()
    cut_all(source_of(first), 64)
    stream = make_stream(first.opening, role="source", store=first.store)
    assert stream.blocks is not None
    again = FileSource(stream, stream.blocks, Signer(bytes(32), "lab"))
    assert [number for number, _, _ in cut_all(again, 64)] == [1, 2, 3]
    assert again.failed is not None
    assert again.failed.reason == "changed"


def test_an_empty_file_is_a_closing_record_alone() -> None:
    assert cut_all(source_of(file_stream(b""))) == [(1, FLAG_PROOF, proof_of(1, b""))]


def test_a_restarted_source_seals_the_same_bytes_again_and_goes_on() -> None:
    first = file_stream()
    source = source_of(first)
    sealed = [source.cut(1), source.cut(1)]
    second = make_stream(first.opening, role="source", store=first.store)
    again = source_of(second)
    assert [again.cut(1), again.cut(1)] == sealed
    assert list(second.held) == [(1, 3)]
    assert len(cut_all(again)) == 2
    assert second.complete


def test_a_restarted_source_cuts_what_an_earlier_run_had_cut_apart_from_what_is_fresh() -> None:
    first = file_stream(bytes(9_500))
    original = source_of(first).cut(6)
    assert original is not None
    again = sealed_by(first)
    # The stored chunks were verified before it cuts, as at a start.
    assert again.stream.verify_stored(1, 7) == 6
    cuts = []
    while (cut := again.cut(4)) is not None:
        cuts.append((cut.start, len(cut.chunks), cut.fresh))
        if not cut.fresh:
            assert cut.chunks == original.chunks[cut.start - 1 : cut.start - 1 + len(cut.chunks)]
    assert cuts == [(1, 4, False), (5, 2, False), (7, 4, True), (11, 1, True)]
    assert again.stream.complete


@pytest.mark.parametrize("kept", [(1, 2, 3), (2,), (4, 6), (1, 10), (10,)])
def test_a_restarted_source_seals_anew_what_has_no_tag_and_again_what_has_one(kept: tuple[int, ...]) -> None:
    data = bytes(range(250)) * 38
    first = file_stream(data)
    sealed = cut_all(source_of(first), 64)
    assert isinstance(first.store, MemoryStreamStore)
    tags = dict(first.store._tags)
    first.store._tags = {number: tag for number, tag in tags.items() if number in kept}
    again = sealed_by(first)
    assert cut_all(again, 64) == sealed
    assert again.failed is None
    assert first.store._tags == tags
    assert list(again.stream.held) == [(1, 12)]
    assert again.stream.sealed(1, 12) == first.sealed(1, 12)


def test_a_file_that_changed_behind_what_has_a_tag_is_sealed_as_it_is_now() -> None:
    first = file_stream()
    source_of(first).cut(1)
    assert isinstance(first.store, MemoryStreamStore)
    changed = DATA[:1_000] + bytes(1_500)
    first.store.reader = BytesReader(changed)
    assert cut_all(sealed_by(first), 64)[-1] == (4, FLAG_PROOF, proof_of(4, changed))


@pytest.mark.parametrize("most", [1, 3, 64])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_chunk_that_has_a_tag_is_never_sealed_with_other_bytes(most: int, place: int) -> None:
    first = file_stream()
    source_of(first).cut(64)
    assert isinstance(first.store, MemoryStreamStore)
    at = 1_000 * (place - 1)
    first.store.reader = BytesReader(DATA[:at] + b"\xff" + DATA[at + 1 :])
    source = sealed_by(first)
    assert len(cut_all(source, most)) < place
    assert source.failed is not None
    assert source.failed.reason == "changed"
    assert place not in source.stream.held
    assert source.stream.sealed(place, place + 1) == []


def test_a_file_that_changed_under_an_earlier_runs_seal_is_not_sent() -> None:
    first = file_stream()
    source_of(first).cut(1)
    assert isinstance(first.store, MemoryStreamStore)
    first.store.reader = BytesReader(bytes(2_500))
    second = make_stream(first.opening, role="source", store=first.store)
    source = source_of(second)
    assert source.cut(1) is None
    assert source.failed is not None
    assert source.failed.reason == "changed"
    assert source.cut(64) is None
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
        source = source_of(stream)
        assert len(cut_all(source)) == cuts
        assert source.failed is not None
        assert source.failed.reason == reason
        assert not source.done


def test_a_run_ends_before_what_is_no_longer_there_and_the_next_one_fails() -> None:
    class Shorter(MemoryStreamStore):
        def read_run(self, start: int, count: int) -> list[bytes]:
            return [bytes(1_000)] * len(range(start, min(start + count, 3)))

    source = source_of(make_stream(of_size(2_500), role="source", store=Shorter()))
    cut = source.cut(64)
    assert cut is not None
    assert (cut.start, len(cut.chunks)) == (1, 2)
    assert source.cut(64) is None
    assert source.failed is not None
    assert source.failed.reason == "io"
    assert list(source.stream.held) == [(1, 3)]


@pytest.mark.parametrize("most", [1, 2, 64])
def test_a_message_is_cut_into_numbered_chunks_from_start_to_end(most: int) -> None:
    source = publisher()
    assert source.cut(1) is None
    assert source.publish(b"a" * 2_001) == 3
    assert source.publish(b"") == 4
    data = signed(1, 3, b"a" * 2_001)
    assert cut_all(source, most) == [
        (1, FLAG_START, data[:1_000]),
        (2, 0, data[1_000:2_000]),
        (3, FLAG_END, data[2_000:]),
        (4, FLAG_START | FLAG_END, signed(4, 4, b"")),
    ]
    assert source.publish(b"next") == 5


@pytest.mark.parametrize("more_bytes", range(-SIGNATURE_BYTES, SIGNATURE_BYTES + 1, 8))
def test_the_signature_comes_last_and_may_lie_in_two_chunks(more_bytes: int) -> None:
    source, payload = publisher(), b"x" * (1_000 + more_bytes)
    source.publish(b"before")
    last = source.publish(payload)
    assert last == (2 if more_bytes == -SIGNATURE_BYTES else 3)
    assert source.publish(b"after") == last + 1
    chunks = [chunk for chunk in cut_all(source) if 2 <= chunk[0] <= last]
    assert [flags for _, flags, _ in chunks] == ([FLAG_START | FLAG_END] if last == 2 else [FLAG_START, FLAG_END])
    data = b"".join(plain for _, _, plain in chunks)
    assert data[:-SIGNATURE_BYTES] == payload
    statement = message_statement(MESSAGE.stream, 2, last, payload)
    assert AUTHOR.is_signed(PURPOSE_MESSAGE, statement, data[-SIGNATURE_BYTES:])


def test_a_message_is_signed_for_the_numbers_it_gets_though_others_wait_before_it() -> None:
    source = publisher()
    numbers = [source.publish(bytes(size)) for size in (0, 1_500, 936, 937, 3)]
    assert numbers == [1, 3, 4, 6, 7]
    source.cut(1)
    assert source.publish(b"later") == 8
    chunks = {number: plain for number, _, plain in cut_all(source, 64)}
    for first, last, payload in ((2, 3, bytes(1_500)), (4, 4, bytes(936)), (5, 6, bytes(937)), (8, 8, b"later")):
        assert b"".join(chunks[number] for number in range(first, last + 1)) == signed(first, last, payload)


def test_chunks_that_begin_and_end_messages_alike_are_cut_together() -> None:
    source = publisher()
    for payload in (b"one", b"two", bytes(3_500), b"three", b"four", b"five"):
        source.publish(payload)
    cuts = []
    while (cut := source.cut(2)) is not None:
        cuts.append((cut.start, len(cut.chunks), cut.fresh))
    assert cuts == [(1, 2, True), (3, 1, True), (4, 2, True), (6, 1, True), (7, 2, True), (9, 1, True)]
    stream = source.stream
    assert list(stream.held) == [(1, 10)]
    whole, begin, end = FLAG_START | FLAG_END, FLAG_START, FLAG_END
    assert stream.flags == {1: whole, 2: whole, 3: begin, 6: end, 7: whole, 8: whole, 9: whole}


def test_a_message_past_the_limit_is_refused_with_the_limit() -> None:
    source = publisher()
    source.publish(bytes(MAX_MESSAGE_BYTES))
    with pytest.raises(RefusedError, match=str(MAX_MESSAGE_BYTES)) as caught:
        source.publish(bytes(MAX_MESSAGE_BYTES + 1))
    assert caught.value.reason == "too-large"


def test_a_publisher_waits_while_too_much_waits_to_be_cut() -> None:
    source = publisher()
    largest = bytes(MAX_MESSAGE_BYTES - SIGNATURE_BYTES)
    for _ in range(MAX_PUBLISH_QUEUE_BYTES // MAX_MESSAGE_BYTES):
        source.publish(largest)
    with pytest.raises(RefusedError, match=str(MAX_PUBLISH_QUEUE_BYTES)) as caught:
        source.publish(b"x")
    assert caught.value.reason == "busy"
    source.cut(1)
    source.publish(b"x")
    while source.cut(64) is not None:
        pass
    for _ in range(MAX_PUBLISH_QUEUE_BYTES // MAX_MESSAGE_BYTES):
        source.publish(largest)


def test_messages_without_a_byte_take_room_in_the_queue_too() -> None:
    source = publisher()
    for _ in range(MAX_PUBLISH_QUEUE_BYTES // MAX_MESSAGE_BYTES):
        source.publish(bytes(MAX_MESSAGE_BYTES - SIGNATURE_BYTES))
    source.publish(b"")
    with pytest.raises(RefusedError) as caught:
        source.publish(b"")
    assert caught.value.reason == "busy"
