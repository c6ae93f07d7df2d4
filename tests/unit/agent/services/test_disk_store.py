import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import common.blocks
from agent.core.memory_store import BytesReader, MemoryStreamStore
from agent.core.store import Resumed, StoreError
from agent.services import disk_store
from agent.services.disk_store import DiskStores, Graves, show_bytes
from agent.services.disk_writer import most_queued_bytes
from agent.services.file_reader import FileReader
from agent.services.names import part_name
from tests.unit.agent.fakes import make_opening

SEALED = b"sealed opening"
OTHER = bytes(range(16, 32))
DATA = b"x" * 2_500
Make = Callable[..., DiskStores]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make the stores of one device, any number of times over the same folders."""
    made: list[DiskStores] = []

    def make_stores(*, wall: float = 1_500.0, quota_bytes: int | None = None, boot: str = "first") -> DiskStores:
        (tmp_path / "state").mkdir(exist_ok=True)
        made.append(DiskStores(tmp_path / "state", tmp_path / "in", wall=wall, quota_bytes=quota_bytes, boot=boot))
        return made[-1]

    yield make_stores
    for stores in made:
        stores.close()


def tag(number: int) -> bytes:
    return bytes([number]) * 16


def only(found: object) -> Resumed:
    resumed = list(found)  # type: ignore[call-overload]
    assert len(resumed) == 1
    assert isinstance(resumed[0], Resumed)
    return resumed[0]


def test_a_file_is_received_in_its_folder_and_nowhere_else(make: Make, tmp_path: Path) -> None:
    for number, name in enumerate(("../../evil", "/etc/passwd", "a/../../b", ".ssh")):
        opening = make_opening(stream=bytes([number]) * 16, name=name, size_bytes=5)
        store = make().receive(opening, SEALED)
        store.write_run(1, [b"bytes"], [tag(1)])
        store.finish(bytes(32))
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["b", "evil", "passwd", "ssh"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "state"]


def test_the_queue_for_the_disk_goes_by_the_memory_of_a_stream(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    stores = DiskStores(tmp_path / "state", tmp_path / "in", wall=1_500.0, stream_bytes=1 << 20)
    assert stores._writer._most_bytes == most_queued_bytes(1 << 20)
    stores.close()


def test_a_file_appears_only_when_it_is_whole(make: Make, tmp_path: Path) -> None:
    store = make().receive(make_opening(), SEALED)
    store.write_run(1, [DATA[:1_000]], [tag(1)])
    assert [path.suffix for path in (tmp_path / "in").iterdir()] == [".part"]
    assert all(path.name.startswith(".") for path in (tmp_path / "in").iterdir())


def test_a_crash_in_mid_transfer_is_resumed(make: Make) -> None:
    store = make().receive(make_opening(), SEALED)
    store.write_run(1, [DATA[:1_000]], [tag(1)])
    store.write_run(3, [DATA[2_000:]], [tag(3)])
    store.flush()
    resumed = only(make().resume())
    assert resumed.role == "receive"
    assert resumed.sealed_opening == SEALED
    assert list(resumed.store.held()) == [(1, 2), (3, 4)]
    assert resumed.store.read(1) == DATA[:1_000]


def test_a_crash_in_mid_transfer_is_resumed_block_by_block(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common.blocks, "BLOCK_BYTES", 2_000)
    data = bytes(range(250)) * 18
    opening = make_opening(size_bytes=len(data))
    store = make().receive(opening, SEALED)
    store.write_run(4, [data[2_000:3_000], data[3_000:4_000]], [tag(4), tag(5)])
    store.write_run(3, [b"proof 3"], [tag(3)])
    store.write_run(8, [b"proof 8"], [tag(8)])
    store.flush()
    resumed = only(make().resume()).store
    assert list(resumed.held()) == [(3, 6), (8, 9)]
    assert resumed.read_run(3, 3) == [b"proof 3", data[2_000:3_000], data[3_000:4_000]]
    resumed.write_run(1, [data[:1_000], data[1_000:2_000]], [tag(1), tag(2)])
    resumed.write_run(6, [b"proof 6"], [tag(6)])
    resumed.write_run(7, [data[4_000:]], [tag(7)])
    assert list(resumed.held()) == [(1, 9)]
    resumed.finish(bytes(32))
    assert (tmp_path / "in" / "model.bin").read_bytes() == data


def test_a_stop_costs_nothing(make: Make) -> None:
    stores = make()
    store = stores.receive(make_opening(), SEALED)
    store.write_run(1, [DATA[:1_000]], [tag(1)])
    stores.close()
    assert "disk-writer" not in [thread.name for thread in threading.enumerate()]
    assert list(only(make().resume()).store.held()) == [(1, 2)]
    store.write_run(3, [DATA[2_000:]], [tag(3)])
    with pytest.raises(StoreError, match="the agent stops"):
        store.flush()


def test_a_stop_with_a_full_disk_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "model.bin").write_bytes(DATA)
    stores = make()
    source = stores.source(make_opening(), SEALED, FileReader(tmp_path / "model.bin"))
    received = stores.receive(make_opening(stream=OTHER), SEALED)
    for store in (source, received):
        store.write_run(1, [DATA[:1_000]], [tag(1)])
    monkeypatch.setattr(os, "pwritev", full)
    stores.close()
    assert caplog.text.count("No space left on device") == 2


def test_a_finished_file_is_resumed_as_done(make: Make, tmp_path: Path) -> None:
    store = make().receive(make_opening(), SEALED)
    for number in (1, 2, 3):
        store.write_run(number, [DATA[(number - 1) * 1_000 : number * 1_000]], [tag(number)])
    store.finish(bytes(32))
    resumed = only(make().resume())
    assert resumed.role == "done"
    assert resumed.store.read(2) == DATA[1_000:2_000]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["model.bin"]


def test_a_finished_file_that_its_user_took_away_does_not_come_again(make: Make, tmp_path: Path) -> None:
    make().receive(make_opening(size_bytes=0), SEALED).finish(bytes(32))
    (tmp_path / "in" / "model.bin").unlink()
    stores = make()
    assert list(stores.resume()) == []
    assert list(stores.tombstones()) == [make_opening().hex]


def test_a_source_goes_on_with_its_file(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(DATA)
    store = make().source(make_opening(), SEALED, FileReader(file))
    store.write_run(1, [DATA[:1_000]], [tag(1)])
    store.flush()
    resumed = only(make().resume())
    assert resumed.role == "source"
    assert list(resumed.store.held()) == [(1, 2)]
    assert resumed.store.read(3) == DATA[2_000:]


@pytest.mark.parametrize("change", ["edit", "replace", "remove"])
def test_a_source_whose_file_changed_is_dropped(make: Make, tmp_path: Path, change: str) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(DATA)
    make().source(make_opening(), SEALED, FileReader(file))
    if change == "edit":
        os.utime(file, ns=(1, 1))
    elif change == "replace":
        shutil.copy2(file, tmp_path / "copy")
        (tmp_path / "copy").replace(file)
    else:
        file.unlink()
    stores = make()
    assert list(stores.resume()) == []
    assert list(stores.tombstones()) == [make_opening().hex]
    assert list((tmp_path / "state" / "streams").iterdir()) == []
    assert file.exists() == (change != "remove")


def test_a_source_whose_host_went_down_does_not_go_on_with_its_file(make: Make, tmp_path: Path) -> None:
    """The disk may have lost tags of chunks that were sent, and what they were made of."""
    file = tmp_path / "model.bin"
    file.write_bytes(DATA)
    store = make().source(make_opening(), SEALED, FileReader(file))
    store.write_run(1, [DATA[:1_000]], [tag(1)])
    store.flush()
    stores = make(boot="second")
    assert list(stores.resume()) == []
    assert list(stores.tombstones()) == [make_opening().hex]
    assert list((tmp_path / "state" / "streams").iterdir()) == []


def test_a_source_that_stopped_in_good_order_goes_on_after_the_host_went_down(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(DATA)
    stores = make()
    stores.source(make_opening(), SEALED, FileReader(file)).write_run(1, [DATA[:1_000]], [tag(1)])
    stores.close()
    resumed = only(make(boot="second").resume())
    assert list(resumed.store.held()) == [(1, 2)]
    # Once only: what it has cut since may be lost with the next run of the host.
    assert list(make(boot="third").resume()) == []


def test_where_no_run_of_the_host_has_a_name_a_source_goes_on(make: Make, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(DATA)
    make(boot="").source(make_opening(), SEALED, FileReader(tmp_path / "model.bin"))
    assert only(make(boot="").resume()).role == "source"


def test_a_source_that_cannot_be_made_safe_says_so(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "model.bin").write_bytes(DATA)
    stores = make()
    stores.source(make_opening(), SEALED, FileReader(tmp_path / "model.bin"))
    monkeypatch.setattr(os, "fsync", failing)
    stores.close()
    assert "Input/output error" in caplog.text


def test_a_source_from_memory_cannot_be_resumed(make: Make) -> None:
    store = make().source(make_opening(), SEALED, BytesReader(DATA))
    assert store.read(1) == DATA[:1_000]
    assert list(make().resume()) == []


def test_an_expired_stream_is_cleared_away(make: Make, tmp_path: Path) -> None:
    make().receive(make_opening(expires=1_600.0), SEALED)
    assert list(make(wall=1_600.0).resume()) == []
    assert list((tmp_path / "in").iterdir()) == []


def test_a_buried_stream_is_not_resumed(make: Make, tmp_path: Path) -> None:
    opening = make_opening()
    stores = make()
    store = stores.receive(opening, SEALED)
    store.finish(bytes(32))
    stores.bury(opening.hex, 2_000.0)
    again = make()
    assert again.tombstones() == {opening.hex: 2_000.0}
    assert list(again.resume()) == []
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["model.bin"]


def test_a_tombstone_lasts_until_it_expires(make: Make) -> None:
    stores = make()
    stores.bury("aa" * 16, 1_600.0)
    stores.bury("bb" * 16, 1_700.0)
    assert make(wall=1_650.0).tombstones() == {"bb" * 16: 1_700.0}
    assert make(wall=1_750.0).tombstones() == {}


def test_of_too_many_tombstones_the_oldest_go_from_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_store, "MAX_TOMBSTONES", 4)
    path = tmp_path / "tombstones"
    graves = Graves(path, 100.0)
    for number in range(4):
        graves.add(f"{number:02}", 1_000.0)
    assert list(graves.expiries) == ["00", "01", "02", "03"]
    for number in range(4, 30):
        graves.add(f"{number:02}", 1_000.0)
        assert len(path.read_text().splitlines()) <= 8
    assert list(graves.expiries) == list(Graves(path, 100.0).expiries) == ["26", "27", "28", "29"]
    monkeypatch.setattr(disk_store, "MAX_TOMBSTONES", 3)
    assert list(Graves(path, 100.0).expiries) == ["27", "28", "29"]


def test_spoilt_tombstones_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "tombstones"
    path.write_text("aa 5000\nnonsense\nbb nan\ncc inf\n\ndd 60")
    assert Graves(path, 100.0).expiries == {"aa": 5000.0}
    path.write_bytes(b"\xff\xfe\naa 5000\n")
    graves = Graves(path, 100.0)
    graves.add("bb", 6_000.0)
    assert Graves(path, 100.0).expiries == {"aa": 5000.0, "bb": 6000.0}
    path.unlink()
    path.mkdir()
    assert Graves(path, 100.0).expiries == {}


def test_a_tombstone_stays_apart_from_one_that_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "tombstones"
    graves = Graves(path, 100.0)
    graves.add("aa", 5_000.0)
    path.write_text("aa 5000.0\nbb 50")
    graves.add("cc", 6_000.0)
    assert Graves(path, 100.0).expiries == {"aa": 5_000.0, "cc": 6_000.0}


def test_tombstones_that_cannot_be_cleared_away_still_count(tmp_path: Path) -> None:
    (tmp_path / "tombstones").write_text("aa 5000\n")
    (tmp_path / "tombstones.new").mkdir()
    assert Graves(tmp_path / "tombstones", 100.0).expiries == {"aa": 5_000.0}


def test_a_tombstone_that_cannot_be_kept_counts_while_the_agent_runs(tmp_path: Path) -> None:
    graves = Graves(tmp_path / "none" / "tombstones", 100.0)
    graves.add("aa", 5_000.0)
    assert graves.expiries == {"aa": 5_000.0}


def test_spoilt_streams_are_cleared_away(make: Make, tmp_path: Path) -> None:
    make()
    for name in ("not-hex", "abcd", "ab" * 16):
        (tmp_path / "state" / "streams" / name).mkdir()
    assert list(make().resume()) == []
    assert list((tmp_path / "state" / "streams").iterdir()) == []


def test_a_part_that_was_removed_or_swapped_is_not_resumed(make: Make, tmp_path: Path) -> None:
    make().receive(make_opening(), SEALED)
    part = next((tmp_path / "in").iterdir())
    part.unlink()
    part.symlink_to(tmp_path / "victim")
    assert list(make().resume()) == []
    assert not (tmp_path / "victim").exists()


def test_a_part_of_another_receive_folder_is_not_resumed(make: Make, tmp_path: Path) -> None:
    make().receive(make_opening(), SEALED)
    moved = DiskStores(tmp_path / "state", tmp_path / "elsewhere", wall=1_500.0)
    assert list(moved.resume()) == []


def test_a_symlink_in_the_place_of_a_part_is_not_followed(make: Make, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "in").mkdir()
    part = tmp_path / "in" / part_name("model.bin", make_opening().hex)
    part.symlink_to(tmp_path / "victim")
    store = make().receive(make_opening(), SEALED)
    store.write_run(1, [DATA[:1_000]], [tag(1)])
    store.flush()
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_a_stream_received_anew_begins_anew(make: Make) -> None:
    store = make().receive(make_opening(), SEALED)
    store.write_run(1, [DATA[:1_000]], [tag(1)])
    store.flush()
    again = make().receive(make_opening(), SEALED)
    assert list(again.held()) == []
    assert again.tags_run(1, 1) == [None]


def test_the_quota_is_named_when_it_is_too_small(make: Make, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "older").write_bytes(bytes(7_000))
    stores = make(quota_bytes=10_000)
    stores.receive(make_opening(), SEALED)
    with pytest.raises(StoreError, match=r"2.4 KiB are more than the 500 bytes left of .* 9.8 KiB") as caught:
        stores.receive(make_opening(stream=OTHER), SEALED)
    assert caught.value.reason == "no-space"
    stores.receive(make_opening(stream=OTHER, size_bytes=500), SEALED)


def test_a_disk_that_is_too_small_refuses_before_it_is_full(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=4_000))
    stores = make()
    stores.receive(make_opening(), SEALED)
    with pytest.raises(StoreError, match=r"2.4 KiB are more than the 1.5 KiB free") as caught:
        stores.receive(make_opening(stream=OTHER), SEALED)
    assert caught.value.reason == "no-space"
    assert len(list((tmp_path / "in").iterdir())) == 1


def test_what_has_gone_is_not_counted_as_promised(make: Make, tmp_path: Path) -> None:
    stores = make()
    stores.receive(make_opening(), SEALED)
    next((tmp_path / "in").iterdir()).unlink()
    stores.receive(make_opening(stream=OTHER), SEALED)


def test_a_folder_that_cannot_be_written_refuses_the_stream(make: Make, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("a file in the folder's place")
    with pytest.raises(StoreError, match=r"making 'model.bin' in .* failed") as caught:
        make().receive(make_opening(), SEALED)
    assert caught.value.reason == "io"


def test_a_record_that_cannot_be_kept_leaves_no_part(make: Make, tmp_path: Path) -> None:
    stores = make()
    (tmp_path / "state" / "streams").rmdir()
    (tmp_path / "state" / "streams").touch()
    with pytest.raises(StoreError, match="keeping a record") as caught:
        stores.receive(make_opening(), SEALED)
    assert caught.value.reason == "io"
    assert list((tmp_path / "in").iterdir()) == []


def test_finished_streams_make_place_for_new_ones(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_store, "MAX_STREAMS", 2)
    stores = make()
    opened = [make_opening(stream=bytes([n]) * 16, size_bytes=0) for n in range(4)]
    stores.receive(opened[0], SEALED)
    stores.receive(opened[1], SEALED).finish(bytes(32))
    stores.receive(opened[2], SEALED)
    assert list(stores.tombstones()) == [opened[1].hex]
    with pytest.raises(StoreError, match="2 unfinished file streams") as caught:
        stores.receive(opened[3], SEALED)
    assert caught.value.reason == "too-many"
    assert "model.bin" in [path.name for path in (tmp_path / "in").iterdir()]


def test_messages_stay_in_memory(make: Make, tmp_path: Path) -> None:
    opening = make_opening(kind="message")
    stores = make()
    for store in (stores.receive(opening, SEALED), stores.source(opening, SEALED, None)):
        assert isinstance(store, MemoryStreamStore)
    assert list(make().resume()) == []
    stores.close()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1_023, "1023 bytes"), (1_536, "1.5 KiB"), (2**40, "1.0 TiB"), (2**50, "1024.0 TiB")],
)
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert show_bytes(count) == text
