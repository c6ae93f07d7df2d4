"""One stream: repeat tests, opening, the tag rule, what is missing, and what is in dispute."""

import hashlib
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import common.blocks
from agent.core.events import FileVerified, MessageReceived
from agent.core.memory_store import MemoryStreamStore
from agent.core.sinks import FileSink, MessageSink, Outcome, Refuted
from agent.core.store import Role, StoreError
from agent.core.stream import CREDIT_PART, RING_PART, SEALED_AT_ONCE, Stream, split_word
from agent.core.window import MIN_WINDOW
from common.datagrams import CHUNK_HEADER, FLAG_END, FLAG_PROOF, FLAG_START, KNOWN_FLAGS, NUMBER_MASK, PacketType
from common.errors import DecodeError
from common.opening import Opening
from common.ranges import NO_LIMIT
from common.sealing import TAG_BYTES
from common.signing import PURPOSE_BLOCK, PURPOSE_MESSAGE, block_statement, message_statement
from tests.unit.agent.core.parts import AUTHOR, FILE, MESSAGE, SIGNER, make_stream, of_size

PIECE = bytes(1_000)
CLOSING = 4
"""The closing record of the usual file: it has three pieces, which are one block."""
DATA, REPEAT, PULLED = PacketType.DATA, PacketType.REPEAT, PacketType.PULLED


@pytest.fixture
def blocks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each block have two pieces."""
    monkeypatch.setattr(common.blocks, "BLOCK_BYTES", 2_000)


class Broken(MemoryStreamStore):
    """A store that fails on demand."""

    failing = False

    def write_run(self, start: int, pieces: Sequence[bytes], tags: Sequence[bytes]) -> None:
        if self.failing:
            raise StoreError("io", "the medium fails")
        super().write_run(start, pieces, tags)

    def read(self, number: int) -> bytes | None:
        if self.failing:
            raise StoreError("io", "the medium fails")
        return super().read(number)


def keep(stream: Stream, number: int, plain: bytes = PIECE, flags: int = 0) -> bytes:
    """Seal and keep a chunk as if it had come from its source."""
    return keep_run(stream, number, [plain], flags)[0]


def keep_run(stream: Stream, start: int, plains: Sequence[bytes], flags: int = 0) -> list[bytes]:
    """Seal and keep consecutive chunks as if they had come from their source."""
    chunks = stream.seal(start, flags, plains)
    stream.keep(start, flags, chunks, plains)
    return chunks


def sealed(stream: Stream, number: int) -> bytes | None:
    """Return one chunk as it travels, or None if it is lost."""
    found = stream.sealed(number, number + 1)
    assert len(found) <= 1
    return found[0] if found else None


def stream_bytes(opening: Opening) -> int:
    """Return the bytes of a stream's largest datagram."""
    return make_stream(opening).datagram_bytes


def chunks_of_five() -> list[bytes]:
    """Return the chunks of a file of 4,500 bytes in blocks of two pieces, as far as a stream looks at them."""
    pieces = [bytes([number]) * 1_000 for number in range(4)]
    return [*pieces[:2], b"proof 3", *pieces[2:], b"proof 6", bytes(500), b"proof 8"]


def pieces_of(numbers: Sequence[int]) -> list[bytes]:
    """Return made-up pieces, each another one."""
    return [b"piece %d" % number for number in numbers]


# --- opening ------------------------------------------------------------------------------------------------------


def test_what_the_source_sealed_opens_at_a_receiver() -> None:
    chunks = make_stream(role="source").seal(2, 0, [b"piece"])
    assert make_stream().open(2, 0, chunks) == [b"piece"]


def test_what_the_source_sealed_in_a_row_is_what_it_seals_one_by_one_and_opens_in_any_part() -> None:
    source, receiver = make_stream(MESSAGE, role="source"), make_stream(MESSAGE)
    plains = pieces_of(range(5, 15))
    chunks = source.seal(5, FLAG_START, plains)
    assert chunks == [source.seal(number, FLAG_START, [plain])[0] for number, plain in enumerate(plains, 5)]
    assert receiver.open(5, FLAG_START, chunks) == plains
    assert receiver.open(8, FLAG_START, chunks[3:6]) == plains[3:6]
    assert source.seal(5, 0, []) == receiver.open(5, 0, []) == []


@pytest.mark.parametrize("place", [0, 4, 9])
def test_one_chunk_that_is_not_authentic_spoils_the_run_it_is_in(place: int) -> None:
    chunks, receiver = make_stream(MESSAGE).seal(5, 0, pieces_of(range(10))), make_stream(MESSAGE)
    changed = chunks.copy()
    changed[place] = changed[place][:-1] + bytes([changed[place][-1] ^ 1])
    with pytest.raises(DecodeError, match="does not authenticate"):
        receiver.open(5, 0, changed)
    changed = chunks.copy()
    changed[place] = chunks[place - 1]
    with pytest.raises(DecodeError, match="does not authenticate"):
        receiver.open(5, 0, changed)
    with pytest.raises(DecodeError, match="does not authenticate"):
        receiver.open(4, 0, chunks)


def test_every_changed_byte_of_a_chunk_is_noticed() -> None:
    (chunk,), receiver = make_stream(role="source").seal(2, 0, [b"piece"]), make_stream()
    for at in range(len(chunk)):
        forged = bytearray(chunk)
        forged[at] ^= 1
        with pytest.raises(DecodeError):
            receiver.open(2, 0, [bytes(forged)])
    with pytest.raises(DecodeError):
        receiver.open(3, 0, [chunk])


@given(st.integers(0, NUMBER_MASK), st.binary(min_size=28, max_size=80))
def test_random_bytes_do_not_open(number: int, data: bytes) -> None:
    for opening in (FILE, MESSAGE):
        with pytest.raises(DecodeError):
            make_stream(opening).open(number, 0, [data])


@pytest.mark.parametrize("number", [0, CLOSING + 1, NUMBER_MASK])
def test_a_number_outside_the_file_is_refused_even_if_it_is_authentic(number: int) -> None:
    chunks = make_stream(role="source").seal(number, 0, [b"piece"])
    with pytest.raises(DecodeError, match="outside the file"):
        make_stream().open(number, 0, chunks)


@pytest.mark.parametrize(("start", "count"), [(0, 2), (CLOSING - 1, 3), (1, CLOSING + 1)])
def test_a_run_that_reaches_outside_the_file_is_refused_even_if_it_is_authentic(start: int, count: int) -> None:
    chunks = make_stream(role="source").seal(start, 0, [b"piece"] * count)
    with pytest.raises(DecodeError, match="outside the file"):
        make_stream().open(start, 0, chunks)


def test_a_run_may_be_a_whole_block() -> None:
    chunks = make_stream(role="source").seal(1, 0, [b"piece"] * (CLOSING - 1))
    assert make_stream().open(1, 0, chunks) == [b"piece"] * (CLOSING - 1)


@pytest.mark.usefixtures("blocks_of_two")
@pytest.mark.parametrize(
    ("start", "count", "flags"),
    [
        (1, 1, 0),
        (1, 2, 0),
        (2, 1, 0),
        (3, 1, FLAG_PROOF),
        (4, 2, 0),
        (6, 1, FLAG_PROOF),
        (7, 1, 0),
        (8, 1, FLAG_PROOF),
    ],
)
def test_runs_of_pieces_and_proofs_one_by_one_are_opened(start: int, count: int, flags: int) -> None:
    opening = of_size(4_500)
    chunks = make_stream(opening).seal(start, flags, [b"plain"] * count)
    assert make_stream(opening).open(start, flags, chunks) == [b"plain"] * count


@pytest.mark.usefixtures("blocks_of_two")
@pytest.mark.parametrize(
    ("start", "count", "flags"),
    [
        (1, 1, FLAG_PROOF),
        (1, 3, 0),
        (2, 2, FLAG_PROOF),
        (3, 1, 0),
        (3, 1, FLAG_PROOF | FLAG_END),
        (3, 2, FLAG_PROOF),
        (3, 2, 0),
        (4, 1, FLAG_START),
        (5, 2, 0),
        (7, 2, 0),
        (7, 1, FLAG_PROOF),
        (8, 1, 0),
        (8, 1, KNOWN_FLAGS + 1),
        (4, 1, 0x80),
    ],
)
def test_a_chunk_that_says_it_is_something_else_is_refused_even_if_it_is_authentic(
    start: int, count: int, flags: int
) -> None:
    opening = of_size(4_500)
    chunks = make_stream(opening).seal(start, flags, [b"plain"] * count)
    with pytest.raises(DecodeError, match="do not fit the number"):
        make_stream(opening).open(start, flags, chunks)


@pytest.mark.parametrize("flags", [FLAG_PROOF, FLAG_PROOF | FLAG_START, KNOWN_FLAGS + 1, 0x80, 0xFF])
def test_flags_that_a_message_has_not_are_refused_even_if_they_are_authentic(flags: int) -> None:
    chunks = make_stream(MESSAGE, role="source").seal(2, flags, [b"piece"])
    with pytest.raises(DecodeError, match="a message has not"):
        make_stream(MESSAGE).open(2, flags, chunks)


def test_a_chunk_word_splits_into_flags_and_number() -> None:
    (chunk,) = make_stream(MESSAGE).seal(NUMBER_MASK, FLAG_START | FLAG_END, [b""])
    assert split_word(CHUNK_HEADER.unpack_from(chunk)[1]) == (FLAG_START | FLAG_END, NUMBER_MASK)


# --- repeat tests (M7) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("repeat", "fresh"), [("ranges", [1, 3, 2]), ("window", [1, 3, 2]), ("last", [1, 3])])
def test_m7_each_channel_chooses_its_repeat_test(repeat: str, fresh: list[int]) -> None:
    stream = make_stream(MESSAGE, repeat=repeat)
    taken = []
    for number in (1, 1, 3, 2, 3):
        if not stream.is_repeated(number, number + 1, DATA):
            keep(stream, number)
            taken.append(number)
    assert taken == fresh


def test_m7_a_window_repeats_what_lies_below_it_and_held_ranges_do_not() -> None:
    for repeat, repeated in (("window", True), ("ranges", False)):
        stream = make_stream(MESSAGE, repeat=repeat)
        keep(stream, MIN_WINDOW + 5)
        assert stream.is_repeated(5, 6, DATA) is repeated


@pytest.mark.parametrize("repeat", ["ranges", "window", "last"])
@pytest.mark.parametrize("kind", [REPEAT, PULLED])
def test_m7_a_repair_is_judged_by_what_is_held_whatever_the_test(repeat: str, kind: PacketType) -> None:
    stream = make_stream(MESSAGE, repeat=repeat)
    keep(stream, MIN_WINDOW + 5)
    assert not stream.is_repeated(5, 6, kind)
    keep(stream, 5)
    assert stream.is_repeated(5, 6, kind)


def test_what_passed_its_retention_is_repeated_and_so_is_number_zero() -> None:
    stream = make_stream(MESSAGE)
    assert stream.is_repeated(0, 1, DATA)
    stream.give_up_below(10)
    assert stream.is_repeated(9, 10, DATA)
    assert not stream.is_repeated(10, 11, DATA)
    assert stream.is_repeated(8, 12, DATA)
    assert not stream.is_repeated(10, 14, DATA)


@pytest.mark.parametrize("repeat", ["ranges", "window", "last"])
@pytest.mark.parametrize("kind", [DATA, REPEAT, PULLED])
@given(kept=st.lists(st.integers(1, 20), max_size=6), start=st.integers(0, 22), count=st.integers(1, 6))
def test_m7_a_run_is_repeated_if_any_chunk_of_it_is(
    repeat: str, kind: PacketType, kept: list[int], start: int, count: int
) -> None:
    stream = make_stream(MESSAGE, repeat=repeat)
    for number in kept:
        stream.mark(number, number + 1)
    each = [stream.is_repeated(number, number + 1, kind) for number in range(start, start + count)]
    assert stream.is_repeated(start, start + count, kind) == any(each)


# --- keeping ------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_held_and_due_to_be_told() -> None:
    stream = make_stream(MESSAGE)
    keep(stream, 4)
    assert list(stream.held) == [(4, 5)]
    assert stream.stop == 5
    assert stream.have_due
    assert list(stream.missing()) == [(1, 4)]
    keep(stream, 2)
    assert stream.stop == 5
    stream.give_up_below(3)
    assert list(stream.missing()) == [(3, 4)]
    stream.give_up_below(9)
    assert (stream.lowest, stream.stop) == (9, 9)
    stream.give_up_below(5)
    assert stream.lowest == 9
    assert not stream.missing()


@pytest.mark.parametrize("repeat", ["ranges", "window", "last"])
def test_a_run_that_is_kept_is_held_whole_each_chunk_with_its_tag_and_flags(repeat: str) -> None:
    store = MemoryStreamStore()
    stream = make_stream(MESSAGE, store=store, repeat=repeat)
    plains = pieces_of(range(4, 10))
    chunks = keep_run(stream, 4, plains, FLAG_START | FLAG_END)
    keep_run(stream, 1, plains[:2])
    assert list(stream.held) == [(1, 3), (4, 10)]
    assert stream.stop == 10
    assert stream.have_due
    assert store.read_run(4, 6) == plains
    assert store.tags_run(4, 6) == [chunk[-TAG_BYTES:] for chunk in chunks]
    assert stream.flags == dict.fromkeys(range(4, 10), FLAG_START | FLAG_END)
    assert all(stream.is_repeated(number, number + 1, DATA) for number in (1, 2, 4, 9))
    assert list(stream.missing()) == [(3, 4)]


def test_a_file_is_complete_with_its_closing_record_and_counts_whole_pieces_until_then() -> None:
    stream = make_stream()
    sizes = []
    for number, plain in ((4, bytes(32)), (1, PIECE), (2, PIECE), (3, bytes(500))):
        assert not stream.complete
        keep(stream, number, plain, FLAG_PROOF if number == 4 else 0)
        sizes.append(stream.held_bytes)
    assert sizes == [0, 1_000, 2_000, 2_500]
    assert stream.complete
    assert not stream.missing()


@pytest.mark.usefixtures("blocks_of_two")
def test_the_proofs_of_a_file_count_as_none_of_its_bytes() -> None:
    stream = make_stream(of_size(4_500))
    sizes = []
    for number, plain in zip(range(1, 9), chunks_of_five(), strict=True):
        assert not stream.complete
        keep(stream, number, plain, FLAG_PROOF if number in (3, 6, 8) else 0)
        sizes.append(stream.held_bytes)
    assert sizes == [1_000, 2_000, 2_000, 3_000, 4_000, 4_000, 4_500, 4_500]
    assert stream.complete


def test_a_message_stream_is_never_complete() -> None:
    stream = make_stream(MESSAGE)
    keep(stream, 1)
    assert not stream.complete
    assert stream.held_bytes == 0


def test_a_chunk_that_the_store_cannot_take_is_not_held_but_may_be_forwarded() -> None:
    store = Broken()
    stream = make_stream(store=store)
    store.failing = True
    with pytest.raises(StoreError):
        keep(stream, 1)
    assert not stream.held
    assert sealed(stream, 1) == stream.seal(1, 0, [PIECE])[0]


def test_of_a_run_that_the_store_cannot_take_nothing_is_held_but_all_may_be_forwarded() -> None:
    store = Broken()
    stream = make_stream(MESSAGE, store=store)
    store.failing = True
    with pytest.raises(StoreError):
        keep_run(stream, 3, pieces_of(range(5)), FLAG_START)
    assert not stream.held
    assert not stream.flags
    assert stream.stop == 1
    assert stream.sealed(3, 8) == stream.seal(3, FLAG_START, pieces_of(range(5)))


def test_the_ring_is_bounded_also_for_chunks_remembered_twice() -> None:
    places = 100
    stream = make_stream(MESSAGE, memory_bytes=RING_PART * places * stream_bytes(MESSAGE))
    chunks = stream.seal(1, 0, pieces_of(range(1, places + 3)))
    for _ in range(5):
        stream.remember(1, chunks[:2])
    stream.remember(3, chunks[2:places])
    assert stream.sealed(1, places + 9) == chunks[:places]
    stream.remember(places + 1, chunks[places:])
    assert stream.sealed(1, 3) == []
    assert stream.sealed(3, places + 9) == chunks[2:]


def test_what_is_sealed_again_for_those_far_behind_pushes_nothing_out_that_is_new() -> None:
    places = 100
    stream = make_stream(MESSAGE, memory_bytes=RING_PART * places * stream_bytes(MESSAGE))
    for number in range(1, 2 * places + 1):
        keep(stream, number)
    newest = stream.sealed(places + 1, 2 * places + 1)
    for number in range(1, places + 1):
        assert sealed(stream, number) == stream.seal(number, 0, [PIECE])[0]
    assert [id(chunk) for chunk in stream.sealed(places + 1, 2 * places + 1)] == [id(chunk) for chunk in newest]


# --- the tag rule -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opening", "number", "flags"),
    [(FILE, 1, 0), (FILE, 4, FLAG_PROOF), (MESSAGE, 1, FLAG_START | FLAG_END), (MESSAGE, 2, 0)],
)
def test_a_chunk_sealed_again_from_the_store_is_the_chunk_that_came(opening: Opening, number: int, flags: int) -> None:
    stream = make_stream(opening)
    chunk = keep(stream, number, b"plain", flags)
    stream.forget_ring()
    assert sealed(stream, number) == chunk
    assert sealed(stream, number) is sealed(stream, number), "it is remembered"


@pytest.mark.usefixtures("blocks_of_two")
def test_chunks_of_several_blocks_are_sealed_again_each_as_what_it_is() -> None:
    store = MemoryStreamStore()
    stream = make_stream(of_size(4_500), store=store)
    flags = [FLAG_PROOF if number in (3, 6, 8) else 0 for number in range(1, 9)]
    chunks = [keep(stream, number, plain, flags[number - 1]) for number, plain in enumerate(chunks_of_five(), 1)]
    assert [stream.flags_of(number) for number in range(1, 9)] == flags
    stream.forget_ring()
    assert stream.sealed(1, 9) == chunks
    # Nothing is known of the flags after a restart but what the numbers tell.
    later = make_stream(of_size(4_500), store=store)
    for start, count in ((1, 2), (3, 1), (4, 5)):
        assert later.verify_stored(start, start + count) == count
        assert later.sealed(start, start + count) == chunks[start - 1 : start - 1 + count]
    assert not later.flags
    assert later.complete


def test_a_chunk_whose_bytes_changed_is_never_sealed_again_and_counts_as_missing() -> None:
    store = MemoryStreamStore()
    stream = make_stream(store=store)
    keep(stream, 1)
    stream.forget_ring()
    store._chunks[1] = b"edited" + PIECE[6:]
    assert sealed(stream, 1) is None
    assert 1 not in stream.held
    assert sealed(stream, 1) is None


def test_a_chunk_that_cannot_be_read_back_counts_as_missing() -> None:
    store = Broken()
    stream = make_stream(store=store)
    for number in (1, 2):
        keep(stream, number)
    stream.forget_ring()
    store._tags.pop(2)
    assert sealed(stream, 2) is None
    store.failing = True
    assert sealed(stream, 1) is None
    assert not stream.held
    assert sealed(stream, 3) is None


def test_chunks_are_sealed_again_a_train_at_a_time_and_only_those_that_are_held() -> None:
    stream = make_stream(MESSAGE)
    numbers = range(1, 2 * SEALED_AT_ONCE + 1)
    chunks = keep_run(stream, 1, pieces_of(numbers))
    stream.forget_ring()
    assert stream.sealed(1, 1_000) == chunks[:SEALED_AT_ONCE]
    # What is in the ring now comes from there, the rest is sealed again in its turn.
    assert stream.sealed(SEALED_AT_ONCE, 1_000) == chunks[SEALED_AT_ONCE - 1 : SEALED_AT_ONCE]
    assert stream.sealed(SEALED_AT_ONCE + 1, SEALED_AT_ONCE + 6) == chunks[SEALED_AT_ONCE : SEALED_AT_ONCE + 5]
    stream.forget_ring()
    stream.held.discard(10)
    assert stream.sealed(7, 1_000) == chunks[6:9]
    assert stream.sealed(10, 1_000) == []
    assert stream.sealed(11, 1_000) == chunks[10 : 10 + SEALED_AT_ONCE]


@pytest.mark.parametrize("lost", ["gone", "edited", "tag"])
def test_a_run_sealed_again_ends_before_a_chunk_that_is_not_what_it_was(lost: str) -> None:
    store = MemoryStreamStore()
    stream = make_stream(MESSAGE, store=store)
    chunks = keep_run(stream, 1, pieces_of(range(1, 9)))
    stream.forget_ring()
    if lost == "tag":
        store._tags.pop(4)
    elif lost == "edited":
        store._chunks[4] = b"edited"
    else:
        store._chunks.pop(4)
    assert stream.sealed(1, 9) == chunks[:3]
    assert list(stream.held) == [(1, 9)], "nobody has asked for it yet"
    assert stream.sealed(4, 9) == []
    assert list(stream.held) == [(1, 4), (5, 9)]
    assert stream.sealed(5, 9) == chunks[4:]


def test_what_a_store_cannot_read_now_condemns_no_more_than_the_chunk_that_was_asked_for() -> None:
    store = Broken()
    stream = make_stream(MESSAGE, store=store)
    chunks = keep_run(stream, 1, pieces_of(range(1, 9)))
    stream.forget_ring()
    store.failing = True
    assert stream.sealed(1, 9) == []
    assert list(stream.held) == [(2, 9)]
    store.failing = False
    assert stream.sealed(2, 9) == chunks[1:]


@given(st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=5), st.data())
def test_no_number_is_ever_sealed_twice_with_different_bytes(pieces: list[bytes], data: st.DataObject) -> None:
    store = MemoryStreamStore()
    stream = make_stream(MESSAGE, store=store)
    original = keep_run(stream, 1, pieces)
    for _ in range(5):
        number = data.draw(st.integers(1, len(pieces)))
        if data.draw(st.booleans()):
            store._chunks[number] = data.draw(st.binary(max_size=8))
        if data.draw(st.booleans()):
            stream.forget_ring()
        stop = data.draw(st.integers(number + 1, len(pieces) + 2))
        found = stream.sealed(number, stop)
        assert found == original[number - 1 : number - 1 + len(found)]
        assert len(found) <= stop - number


def test_an_arrival_is_noted_with_the_silence_before_it() -> None:
    stream = make_stream()
    stream.on_arrival(3.0)
    stream.on_arrival(3.1)
    assert stream.progress_at == stream.active_at == 3.1
    assert stream.silences.kept() == ((0.0, 3.0), (3.0, 3.1))


# --- credit -------------------------------------------------------------------------------------------------------


class Writing(MemoryStreamStore):
    """A store that has so many bytes to write yet."""

    waiting = 0

    @property
    def backlog_bytes(self) -> int:
        return self.waiting


def test_neighbours_may_send_as_many_chunks_as_there_is_memory_for_whichever_they_are() -> None:
    stream = make_stream(MESSAGE, memory_bytes=CREDIT_PART * 10_000)
    assert not stream.credit_grew(), "nobody was told anything yet"
    assert stream.grant() == 11
    keep_run(stream, 3, pieces_of(range(2)))
    assert stream.grant() == 13
    stream.give_up_below(3)
    assert stream.grant() == 15


def test_credit_once_given_is_never_taken_back() -> None:
    store = Writing()
    stream = make_stream(MESSAGE, store=store, memory_bytes=CREDIT_PART * 10_000)
    store.waiting = 4_001
    assert stream.grant() == 6
    store.waiting = 0
    assert stream.grant() == 11
    store.waiting = 99_000
    assert stream.grant() == 11


def test_neighbours_hear_of_more_credit_before_they_have_used_up_what_they_were_told() -> None:
    store = Writing()
    stream = make_stream(MESSAGE, store=store, memory_bytes=CREDIT_PART * 10_000)
    assert stream.grant() == 11
    keep_run(stream, 1, pieces_of(range(5)))
    assert not stream.credit_grew(), "half of it is left"
    keep(stream, 6)
    assert stream.credit_grew()
    store.waiting = 10_000
    assert not stream.credit_grew(), "there is no more to be told"
    store.waiting = 5_000
    assert stream.grant() == 12
    assert stream.credit_grew() is False


@pytest.mark.parametrize("role", ["source", "done", "receive"])
def test_what_is_not_received_or_not_kept_takes_no_memory(role: Role) -> None:
    stream = make_stream(role=role, memory_bytes=CREDIT_PART * 10_000)
    if role == "receive":
        assert stream.grant() == 11
        stream.refused = "no-space"
    assert stream.grant() == NO_LIMIT
    keep_run(stream, 1, [PIECE] * 3)
    assert not stream.credit_grew()


# --- an earlier run -----------------------------------------------------------------------------------------------


def test_stored_chunks_of_an_earlier_run_are_held_only_if_their_tag_is_right() -> None:
    store = MemoryStreamStore()
    earlier = make_stream(store=store)
    for number, plain in ((1, PIECE), (2, PIECE), (4, bytes(32))):
        keep(earlier, number, plain, FLAG_PROOF if number == 4 else 0)
    store._chunks[2] = b"edited"
    store._chunks[3] = PIECE
    later = make_stream(store=store)
    assert [later.verify_stored(number, number + 1) for number in range(1, 6)] == [1, 0, 0, 1, 0]
    assert list(later.held) == [(1, 2), (4, 5)]


def test_stored_chunks_of_an_earlier_run_are_held_up_to_the_first_that_is_not_what_it_was() -> None:
    store = MemoryStreamStore()
    keep_run(make_stream(MESSAGE, store=store), 1, pieces_of(range(1, 9)))
    store._chunks[6] = b"edited"
    later = make_stream(MESSAGE, store=store)
    assert later.verify_stored(2, 9) == 4
    assert list(later.held) == [(2, 6)]
    assert later.verify_stored(6, 9) == 0
    assert later.verify_stored(7, 9) == 2
    assert list(later.held) == [(2, 6), (7, 9)]


def test_a_store_that_fails_while_an_earlier_run_is_checked_is_told_to_the_caller() -> None:
    store = Broken()
    keep_run(make_stream(MESSAGE, store=store), 1, pieces_of(range(1, 9)))
    store.failing = True
    later = make_stream(MESSAGE, store=store)
    with pytest.raises(StoreError):
        later.verify_stored(1, 9)
    assert not later.held


def test_a_channel_with_its_own_sockets_is_told_by_its_streams() -> None:
    assert make_stream().socket_channel is None
    assert make_stream(sockets="per-channel").socket_channel == "files"
    assert make_stream(MESSAGE).urgent


# --- chunks in dispute --------------------------------------------------------------------------------------------


class Judging:
    """A sink that has verified so much."""

    verified_below = 1

    def on_run(self, start: int, flags: int, plains: Sequence[bytes]) -> Iterator[Outcome]:
        return iter(())

    def advance(self) -> Iterator[Outcome]:
        return iter(())

    def skip_below(self, number: int) -> Iterator[Outcome]:
        return iter(())


def in_dispute(stream: Stream) -> bool:
    """Tell whether something is in dispute still, once what has proved true is taken note of."""
    stream.close_dispute()
    return stream.dispute is not None


def test_what_is_refuted_is_held_no_more_nor_passed_on_and_is_in_dispute() -> None:
    stream = make_stream(MESSAGE)
    keep_run(stream, 1, pieces_of(range(1, 9)), FLAG_START)
    stream.have_due = False
    stream.refute(3, 6)
    assert list(stream.held) == [(1, 3), (6, 9)]
    assert list(stream.missing()) == [(3, 6)]
    assert stream.flags.keys() == {1, 2, 6, 7, 8}
    assert stream.sealed(3, 6) == []
    assert stream.have_due
    assert stream.dispute is not None
    assert (stream.dispute.start, stream.dispute.stop) == (3, 6)
    assert stream.dispute.asked is None
    # What comes in their place is kept under the flags it has.
    right = keep_run(stream, 3, [b"right"] * 3)
    assert stream.flags.keys() == {1, 2, 6, 7, 8}
    assert stream.sealed(3, 6) == right


def test_what_is_refuted_is_not_read_back_from_what_was_sealed_again() -> None:
    stream = make_stream(MESSAGE)
    keep_run(stream, 1, pieces_of(range(1, 9)))
    stream.forget_ring()
    assert len(stream.sealed(1, 9)) == 8
    stream.refute(3, 6)
    assert stream.sealed(3, 6) == []


def test_what_is_refuted_again_stays_in_the_same_dispute_and_other_chunks_are_another() -> None:
    stream = make_stream(MESSAGE)
    stream.refute(3, 6)
    first = stream.dispute
    assert first is not None
    assert first.turn_to(["B"], 0.0) == "B"
    stream.refute(3, 6)
    assert stream.dispute is first
    assert first.asked is None
    assert first.turn_to(["B", "C"], 0.0) == "C", "it is known who has been tried"
    stream.refute(6, 8)
    assert stream.dispute is not first
    assert stream.dispute is not None
    assert (stream.dispute.start, stream.dispute.stop) == (6, 8)


def test_a_dispute_ends_when_its_chunks_have_proved_to_be_the_sources_own() -> None:
    sink = Judging()
    stream = make_stream(MESSAGE, sink=sink)
    assert not in_dispute(stream)
    stream.refute(3, 6)
    for below in (1, 3):
        sink.verified_below = below
        assert in_dispute(stream)
    sink.verified_below = 4
    assert not in_dispute(stream)


def test_a_dispute_ends_when_nobody_takes_the_chunks_in_any_more() -> None:
    stream = make_stream()
    stream.refute(1, 4)
    assert not in_dispute(stream)


@pytest.mark.usefixtures("blocks_of_two")
def test_a_file_with_a_forged_piece_is_whole_when_the_right_one_came() -> None:
    store = MemoryStreamStore()
    stream = make_stream(opening := of_size(4_000), store=store)
    blocks = opening.blocks
    assert blocks is not None
    stream.sink = sink = FileSink(opening, blocks, AUTHOR, stream.held, store)
    data = b"".join(bytes([number]) * 1_000 for number in range(4))
    pieces = [data[at : at + 1_000] for at in range(0, 4_000, 1_000)]
    said: list[Outcome] = []

    def take(start: int, plains: list[bytes], flags: int = 0) -> None:
        keep_run(stream, start, plains, flags)
        for outcome in sink.on_run(start, flags, plains):
            said.append(outcome)
            if isinstance(outcome, Refuted):
                stream.refute(outcome.start, outcome.stop)

    def prove(number: int, size_bytes: int) -> None:
        digest = hashlib.sha256(data[:size_bytes]).digest()
        proof = digest + SIGNER.sign(PURPOSE_BLOCK, block_statement(opening.stream, number, digest))
        take(number, [proof], FLAG_PROOF)

    take(4, pieces[2:])
    prove(6, 4_000)
    take(1, [pieces[0], b"forged"])
    prove(3, 2_000)
    assert said == [Refuted(1, 3)]
    assert in_dispute(stream)
    assert list(stream.held) == [(3, 7)]
    take(1, pieces[:1])
    assert in_dispute(stream)
    take(2, pieces[1:2])
    assert [type(outcome) for outcome in said] == [Refuted, FileVerified]
    assert not in_dispute(stream)
    assert stream.complete


def message_bench() -> tuple[Stream, MessageSink]:
    stream = make_stream(MESSAGE)
    stream.sink = sink = MessageSink(MESSAGE, AUTHOR, stream.held, stream.store, stream.flags)
    return stream, sink


def take_message(stream: Stream, sink: MessageSink, start: int, flags: int, plains: list[bytes]) -> list[Outcome]:
    said = []
    keep_run(stream, start, plains, flags)
    assert list(sink.on_run(start, flags, plains)) == []
    for outcome in sink.advance():
        said.append(outcome)
        if isinstance(outcome, Refuted):
            stream.refute(outcome.start, outcome.stop)
    return said


def test_a_forgery_that_is_longer_than_the_one_before_it_is_in_dispute_whole() -> None:
    stream, sink = message_bench()
    assert take_message(stream, sink, 1, FLAG_END, [b"forged"]) == [Refuted(1, 2)]
    take_message(stream, sink, 1, FLAG_START, [b"forged"])
    take_message(stream, sink, 2, 0, [b"forged"])
    assert take_message(stream, sink, 3, FLAG_END, [b"forged"]) == [Refuted(1, 4)]
    assert stream.dispute is not None
    assert not stream.dispute.admits("B", 3, 4)


def test_a_dispute_ends_with_the_message_that_was_forged_though_the_forgery_was_longer() -> None:
    stream, sink = message_bench()
    take_message(stream, sink, 1, FLAG_START, [b"forged"])
    take_message(stream, sink, 2, 0, [b"forged"])
    assert take_message(stream, sink, 3, FLAG_END, [b"forged"]) == [Refuted(1, 4)]
    payload = b"right"
    data = payload + SIGNER.sign(PURPOSE_MESSAGE, message_statement(MESSAGE.stream, 1, 1, payload))
    (received,) = take_message(stream, sink, 1, FLAG_START | FLAG_END, [data])
    assert isinstance(received, MessageReceived)
    assert not in_dispute(stream)
