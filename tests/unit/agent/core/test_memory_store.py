"""Streams in memory: the store's contract, its bound, and what outlives a node."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import common.blocks
from agent.core.memory_store import BytesReader, MemoryStores, MemoryStreamStore
from agent.core.store import StoreError
from tests.unit.agent.core.parts import FILE, MESSAGE, of_size

TAG = bytes(16)


def test_a_reader_gives_the_bytes_asked_for_and_no_fewer() -> None:
    reader = BytesReader(b"abcdef")
    assert reader.read(2, 3) == b"cde"
    with pytest.raises(StoreError, match="ends before byte 8") as caught:
        reader.read(4, 4)
    assert caught.value.reason == "io"


def test_a_chunk_is_read_back_with_its_tag() -> None:
    store = MemoryStreamStore()
    store.write_run(2, [b"two"], [TAG])
    assert (store.read(2), store.tags_run(2, 1)) == (b"two", [TAG])
    assert (store.read(1), store.tags_run(1, 1)) == (None, [None])
    assert store.held() == [(2, 3)]
    store.write_run(1, [b"one"], [TAG])
    store.discard()
    assert store.held() == []
    assert store.read(2) is None


def test_runs_are_read_up_to_the_first_chunk_that_is_not_kept() -> None:
    store = MemoryStreamStore()
    store.write_run(2, [b"two", b"three"], [b"tag 2", b"tag 3"])
    assert store.read_run(2, 5) == [b"two", b"three"]
    assert store.read_run(3, 1) == [b"three"]
    assert store.read_run(1, 5) == []
    assert store.tags_run(1, 4) == [None, b"tag 2", b"tag 3", None]
    store.hand_over()
    assert store.backlog_bytes == 0


def test_a_sources_file_is_read_from_where_it_is_and_only_its_closing_record_is_kept() -> None:
    store = MemoryStreamStore(reader=BytesReader(bytes(2_500)), piece_bytes=1_000, size_bytes=2_500)
    for number in (1, 3, 4):
        store.write_run(number, [b"kept"], [TAG])
    assert store.read(1) == bytes(1_000)
    assert store.read(3) == bytes(500)
    assert store.read(4) == b"kept"
    assert store.held() == [(1, 2), (3, 4), (4, 5)]


@pytest.fixture
def blocks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each block have two pieces."""
    monkeypatch.setattr(common.blocks, "BLOCK_BYTES", 2_000)


@pytest.mark.usefixtures("blocks_of_two")
def test_of_a_sources_file_of_several_blocks_the_proofs_are_kept_and_nothing_else() -> None:
    data = bytes(range(250)) * 18
    store = MemoryStreamStore(reader=BytesReader(data), piece_bytes=1_000, size_bytes=len(data))
    for start, count in ((1, 2), (4, 2), (7, 1)):
        store.write_run(start, [b"kept nowhere"] * count, [TAG] * count)
    for number in (3, 6, 8):
        store.write_run(number, [b"proof %d" % number], [TAG])
    assert store._chunks.keys() == {3, 6, 8}
    pieces = [data[at : at + 1_000] for at in range(0, 4_500, 1_000)]
    expected = [*pieces[:2], b"proof 3", *pieces[2:4], b"proof 6", pieces[4], b"proof 8"]
    assert store.read_run(1, 99) == expected
    assert store.tags_run(1, 9) == [TAG] * 8 + [None]
    assert store.read(0) is None
    assert store.read(9) is None
    assert store.content() == data


@pytest.mark.usefixtures("blocks_of_two")
@pytest.mark.parametrize(("size_bytes", "closing"), [(0, 1), (1_999, 3), (2_000, 3), (2_001, 5), (4_500, 8)])
def test_a_files_content_is_its_pieces_without_the_proofs_between_them(size_bytes: int, closing: int) -> None:
    data = (bytes(range(250)) * 18)[:size_bytes]
    store = MemoryStores().receive(of_size(size_bytes), b"sealed")
    pieces = [data[at : at + 1_000] for at in range(0, size_bytes, 1_000)]
    for number in range(1, closing + 1):
        proof = number % 3 == 0 or number == closing
        store.write_run(number, [b"proof" if proof else pieces.pop(0)], [TAG])
    assert not pieces
    assert store.content() == data


@pytest.mark.usefixtures("blocks_of_two")
def test_a_files_content_ends_where_a_piece_is_missing() -> None:
    store = MemoryStores().receive(of_size(4_500), b"sealed")
    for number in (1, 2, 5, 7):
        store.write_run(number, [bytes([number]) * 1_000], [TAG])
    assert store.content() == b"\1" * 1_000 + b"\2" * 1_000


def test_what_passes_the_limit_pushes_the_oldest_out() -> None:
    store = MemoryStreamStore(limit_bytes=10)
    for number in range(1, 5):
        store.write_run(number, [bytes(4)], [TAG])
    assert store.held() == [(3, 4), (4, 5)]
    store.write_run(9, [bytes(11)], [TAG])
    assert store.held() == []


def test_what_had_to_go_is_told() -> None:
    told: list[int] = []
    store = MemoryStreamStore(limit_bytes=10, on_forgotten=told.append)
    for number in range(1, 6):
        store.write_run(number, [bytes(4)], [TAG])
    store.drop_below(5)
    assert told == [1, 2, 3, 4]


def test_chunks_below_a_number_are_dropped() -> None:
    store = MemoryStreamStore()
    for number in range(1, 5):
        store.write_run(number, [b"x"], [TAG])
    store.drop_below(3)
    assert store.held() == [(3, 4), (4, 5)]
    store.drop_below(99)
    store.drop_below(99)
    assert store.held() == []


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 12)), max_size=40))
def test_the_bound_holds_also_for_chunks_written_twice(writes: list[tuple[int, int]]) -> None:
    store = MemoryStreamStore(limit_bytes=20)
    for number, size_bytes in writes:
        store.write_run(number, [bytes(size_bytes)], [TAG])
        assert store.read(number) in (bytes(size_bytes), None)
        assert sum(len(store.read(held) or b"") for held, _ in store.held()) <= 20


def test_the_digest_is_kept() -> None:
    store = MemoryStreamStore()
    store.finish(b"digest")
    assert store.digest == b"digest"


def test_a_file_larger_than_what_is_left_is_refused_with_the_limit() -> None:
    stores = MemoryStores(capacity_bytes=4_000)
    stores.receive(FILE, b"sealed")
    with pytest.raises(StoreError, match="2500 bytes are more than the 1500") as caught:
        stores.receive(FILE, b"sealed")
    assert caught.value.reason == "no-space"
    stores.receive(MESSAGE, b"sealed")


def test_files_are_resumed_in_their_role_and_message_streams_are_not() -> None:
    stores = MemoryStores(message_bytes=10)
    received = stores.receive(FILE, b"sealed")
    assert stores.receive(MESSAGE, b"other").limit_bytes == 10
    assert [(found.sealed_opening, found.role) for found in stores.resume()] == [(b"sealed", "receive")]
    received.finish(b"digest")
    assert [found.role for found in stores.resume()] == ["done"]
    source = stores.source(FILE, b"sealed", BytesReader(bytes(2_500)))
    assert source.read(3) == bytes(500)
    assert received.limit_bytes is None
    assert [(found.store, found.role) for found in stores.resume()] == [(source, "source")]


def test_a_buried_stream_is_remembered_and_not_resumed() -> None:
    stores = MemoryStores()
    stores.receive(FILE, b"sealed")
    stores.bury(FILE.hex, 2_000.0)
    stores.bury("ff", 1.0)
    assert stores.resume() == []
    assert stores.tombstones() == {FILE.hex: 2_000.0, "ff": 1.0}
