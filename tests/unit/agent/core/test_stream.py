"""One stream: repeat tests, opening, the tag rule, and what is missing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import stream as module
from agent.core.memory_store import MemoryStreamStore
from agent.core.store import StoreError
from agent.core.stream import Stream, split_word
from agent.core.window import MIN_WINDOW
from common.datagrams import CHUNK_HEADER, FLAG_CLOSING, FLAG_END, FLAG_START, KNOWN_FLAGS, NUMBER_MASK, PacketType
from common.errors import DecodeError
from common.opening import Opening
from tests.unit.agent.core.parts import FILE, MESSAGE, make_stream

PIECE = bytes(1_000)
DATA, REPEAT, PULLED = PacketType.DATA, PacketType.REPEAT, PacketType.PULLED


class Broken(MemoryStreamStore):
    """A store that fails on demand."""

    failing = False

    def write(self, number: int, data: bytes, tag: bytes) -> None:
        if self.failing:
            raise StoreError("io", "the medium fails")
        super().write(number, data, tag)

    def read(self, number: int) -> bytes | None:
        if self.failing:
            raise StoreError("io", "the medium fails")
        return super().read(number)


def keep(stream: Stream, number: int, plain: bytes = PIECE, flags: int = 0) -> bytes:
    """Seal and keep a chunk as if it had come from its source."""
    chunk = stream.seal(number, flags, plain)
    stream.keep(number, flags, chunk, plain)
    return chunk


# --- opening ------------------------------------------------------------------------------------------------------


def test_what_the_source_sealed_opens_at_a_receiver() -> None:
    chunk = make_stream(role="source").seal(2, 0, b"piece")
    assert make_stream().open(2, 0, chunk) == b"piece"


def test_every_changed_byte_of_a_chunk_is_noticed() -> None:
    chunk, receiver = make_stream(role="source").seal(2, 0, b"piece"), make_stream()
    for at in range(len(chunk)):
        forged = bytearray(chunk)
        forged[at] ^= 1
        with pytest.raises(DecodeError):
            receiver.open(2, 0, bytes(forged))
    with pytest.raises(DecodeError):
        receiver.open(3, 0, chunk)


@given(st.integers(0, NUMBER_MASK), st.binary(min_size=28, max_size=80))
def test_random_bytes_do_not_open(number: int, data: bytes) -> None:
    for opening in (FILE, MESSAGE):
        with pytest.raises(DecodeError):
            make_stream(opening).open(number, 0, data)


@pytest.mark.parametrize("number", [0, FILE.pieces + 2, NUMBER_MASK])
def test_a_number_outside_the_file_is_refused_even_if_it_is_authentic(number: int) -> None:
    chunk = make_stream(role="source").seal(number, 0, b"piece")
    with pytest.raises(DecodeError, match="outside the file"):
        make_stream().open(number, 0, chunk)


@pytest.mark.parametrize("flags", [KNOWN_FLAGS + 1, 0x80, 0xFF])
def test_flags_that_this_version_does_not_know_are_refused_even_if_they_are_authentic(flags: int) -> None:
    chunk = make_stream(role="source").seal(2, flags, b"piece")
    with pytest.raises(DecodeError, match="unknown chunk flags"):
        make_stream().open(2, flags, chunk)


def test_a_chunk_word_splits_into_flags_and_number() -> None:
    chunk = make_stream(MESSAGE).seal(NUMBER_MASK, FLAG_START | FLAG_END, b"")
    assert split_word(CHUNK_HEADER.unpack_from(chunk)[1]) == (FLAG_START | FLAG_END, NUMBER_MASK)


# --- repeat tests (M7) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("repeat", "fresh"), [("ranges", [1, 3, 2]), ("window", [1, 3, 2]), ("last", [1, 3])])
def test_m7_each_channel_chooses_its_repeat_test(repeat: str, fresh: list[int]) -> None:
    stream = make_stream(MESSAGE, repeat=repeat)
    taken = []
    for number in (1, 1, 3, 2, 3):
        if not stream.is_repeated(number, DATA):
            keep(stream, number)
            taken.append(number)
    assert taken == fresh


def test_m7_a_window_repeats_what_lies_below_it_and_held_ranges_do_not() -> None:
    for repeat, repeated in (("window", True), ("ranges", False)):
        stream = make_stream(MESSAGE, repeat=repeat)
        keep(stream, MIN_WINDOW + 5)
        assert stream.is_repeated(5, DATA) is repeated


@pytest.mark.parametrize("repeat", ["ranges", "window", "last"])
@pytest.mark.parametrize("kind", [REPEAT, PULLED])
def test_m7_a_repair_is_judged_by_what_is_held_whatever_the_test(repeat: str, kind: PacketType) -> None:
    stream = make_stream(MESSAGE, repeat=repeat)
    keep(stream, MIN_WINDOW + 5)
    assert not stream.is_repeated(5, kind)
    keep(stream, 5)
    assert stream.is_repeated(5, kind)


def test_what_passed_its_retention_is_repeated_and_so_is_number_zero() -> None:
    stream = make_stream(MESSAGE)
    assert stream.is_repeated(0, DATA)
    stream.give_up_below(10)
    assert stream.is_repeated(9, DATA)
    assert not stream.is_repeated(10, DATA)


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


def test_a_file_is_complete_with_its_closing_record_and_counts_whole_pieces_until_then() -> None:
    stream = make_stream()
    sizes = []
    for number, plain in ((4, bytes(32)), (1, PIECE), (2, PIECE), (3, bytes(500))):
        assert not stream.complete
        keep(stream, number, plain, FLAG_CLOSING if number == 4 else 0)
        sizes.append(stream.held_bytes)
    assert sizes == [0, 1_000, 2_000, 2_500]
    assert stream.complete
    assert not stream.missing()


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
    assert stream.sealed(1) == stream.seal(1, 0, PIECE)


def test_the_ring_is_bounded_also_for_a_chunk_remembered_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RING_BYTES", 100)
    stream = make_stream()
    for _ in range(5):
        stream.remember(1, bytes(60))
    stream.remember(2, bytes(40))
    assert stream.sealed(1) == bytes(60)
    stream.remember(3, bytes(1))
    assert stream.sealed(1) is None
    assert stream.sealed(2) == bytes(40)


# --- the tag rule -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opening", "number", "flags"),
    [(FILE, 1, 0), (FILE, 4, FLAG_CLOSING), (MESSAGE, 1, FLAG_START | FLAG_END), (MESSAGE, 2, 0)],
)
def test_a_chunk_sealed_again_from_the_store_is_the_chunk_that_came(opening: Opening, number: int, flags: int) -> None:
    stream = make_stream(opening)
    chunk = keep(stream, number, b"plain", flags)
    stream.forget_ring()
    assert stream.sealed(number) == chunk
    assert stream.sealed(number) is stream.sealed(number)


def test_a_chunk_whose_bytes_changed_is_never_sealed_again_and_counts_as_missing() -> None:
    store = MemoryStreamStore()
    stream = make_stream(store=store)
    keep(stream, 1)
    stream.forget_ring()
    store._chunks[1] = b"edited" + PIECE[6:]
    assert stream.sealed(1) is None
    assert 1 not in stream.held
    assert stream.sealed(1) is None


def test_a_chunk_that_cannot_be_read_back_counts_as_missing() -> None:
    store = Broken()
    stream = make_stream(store=store)
    for number in (1, 2):
        keep(stream, number)
    stream.forget_ring()
    store._tags.pop(2)
    assert stream.sealed(2) is None
    store.failing = True
    assert stream.sealed(1) is None
    assert not stream.held
    assert stream.sealed(3) is None


@given(st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=5), st.data())
def test_no_number_is_ever_sealed_twice_with_different_bytes(pieces: list[bytes], data: st.DataObject) -> None:
    store = MemoryStreamStore()
    stream = make_stream(MESSAGE, store=store)
    sealed = {number: keep(stream, number, piece) for number, piece in enumerate(pieces, 1)}
    for _ in range(5):
        number = data.draw(st.integers(1, len(pieces)))
        if data.draw(st.booleans()):
            store._chunks[number] = data.draw(st.binary(max_size=8))
        if data.draw(st.booleans()):
            stream.forget_ring()
        assert stream.sealed(number) in (sealed[number], None)


# --- an earlier run -----------------------------------------------------------------------------------------------


def test_stored_chunks_of_an_earlier_run_are_held_only_if_their_tag_is_right() -> None:
    store = MemoryStreamStore()
    earlier = make_stream(store=store)
    for number, plain in ((1, PIECE), (2, PIECE), (4, bytes(32))):
        keep(earlier, number, plain, FLAG_CLOSING if number == 4 else 0)
    store._chunks[2] = b"edited"
    store._chunks[3] = PIECE
    later = make_stream(store=store)
    assert [later.verify_stored(number) for number in range(1, 6)] == [True, False, False, True, False]
    assert list(later.held) == [(1, 2), (4, 5)]


def test_a_channel_with_its_own_sockets_is_told_by_its_streams() -> None:
    assert make_stream().socket_channel is None
    assert make_stream(sockets="per-channel").socket_channel == "files"
    assert make_stream(MESSAGE).urgent
