"""Targets that read what lay on a disk: damaged or not, an agent or a server starts, or says in one error why not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from agent.services.disk_store import DiskStores, Graves
from agent.services.handles import Handles
from agent.services.identity import StateFolder
from agent.services.inbox import Cursors
from agent.services.last_state import LastState
from agent.services.record_file import RecordFile
from agent.services.tag_file import TAG_BYTES, TagFile
from common.errors import ConfigError, RefusedError
from common.messages import CandidatesReport
from server.core.snapshot import GroupRecord
from server.services.coordinator import Clock, Coordinator
from server.services.store.memory import MemoryStore
from tests.fuzz.choices import Choices
from tests.fuzz.decoders import KEY, KEYS, OPENING, SERVER, _loaded, json_seeds, json_text
from tests.unit.server.harness import WALL, six

_MANY: Final = 1 << 16
_PIECE: Final = bytes(1_160)
_META: Final[dict[str, Any]] = {
    "opening": KEYS.seal(b"opening", OPENING.encode(), bytes(12)).hex(),
    "role": "receive",
    "expires": OPENING.expires,
    "name": "a.bin",
    "path": "PART",
    "size_bytes": 3_000,
    "piece_bytes": 1_160,
    "modified_ns": 0,
    "inode": 0,
    "done": False,
    "sha256": "",
    "final": "",
}
_IDENTITY: Final = {"group": "lab", "device": "A", "private_key": base64.b64encode(KEY).decode(), "token": "A~secret"}


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder; what is logged about damage is not of interest here."""
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory(prefix="arborcast-fuzz-") as name:
            yield Path(name)
    finally:
        logging.disable(logging.NOTSET)


def fuzz_stream_folder(data: bytes) -> None:
    """A kept file stream: resumed, or cleared away; nothing beside it is touched."""
    choices = Choices(data)
    tags, records = choices.raw(choices.below(64)), choices.raw(choices.below(64))
    text = json_text(choices.rest(), (_META, {**_META, "role": "source"}, {**_META, "final": "PART.bin"}))
    with _folder() as home:
        state, receive = home / "state", home / "received"
        folder = state / "streams" / OPENING.hex
        folder.mkdir(parents=True)
        receive.mkdir()
        part = receive / f".a.bin.{OPENING.hex}.part"
        part.write_bytes(_PIECE * 2)
        bystander = home / "bystander"
        bystander.write_bytes(b"kept")
        text = text.replace(b"PART", str(part).encode()).replace(b"../../etc/passwd", str(bystander).encode())
        (folder / "meta.json").write_bytes(text)
        (folder / "tags").write_bytes(tags)
        (folder / "records").write_bytes(records)
        stores = DiskStores(state, receive, wall=OPENING.created)
        try:
            for found in stores.resume():
                _read_back(found.store)
                assert found.sealed_opening
                assert found.role in ("receive", "source", "done")
        finally:
            stores.close()
        assert bystander.read_bytes() == b"kept"


def _read_back(store: Any) -> None:
    for start, stop in store.held():
        assert 0 <= start < stop
        for number in range(start, min(stop, start + 4)):
            store.read(number)
            store.tags_run(number, 1)


def fuzz_tags_and_records(data: bytes) -> None:
    """The two files of a stream: what can be read of them is whole."""
    with _folder() as home:
        handles = Handles()
        for name in ("tags", "records"):
            (home / name).write_bytes(data)
        tags = TagFile(home / "tags", handles)
        numbers = list(tags.numbers())
        assert all(0 < number < tags.stop for number in numbers)
        assert tags.read(1, tags.stop + 3)[-4:] == [None] * 4
        assert [number for number, tag in enumerate(tags.read(1, tags.stop), 1) if tag is not None] == numbers
        assert tags.stop == len(data) // TAG_BYTES + 1
        records = RecordFile(home / "records", handles)
        whole = dict(records.records)
        assert sum(len(kept) for _, kept in whole.values()) <= len(data)
        records.write(7, b"closing", bytes(TAG_BYTES))
        assert RecordFile(home / "records", handles).records == {**whole, 7: (bytes(TAG_BYTES), b"closing")}
        handles.close()


def fuzz_last_state(data: bytes) -> None:
    """The server's last answers: read, or counted as nothing."""
    text = json_text(data, ([json.dumps(message) for message in _loaded(SERVER)], _loaded(SERVER)))
    with _folder() as home:
        (home / "server.json").write_bytes(text)
        last = LastState(home)
        last.load()
        for message in last.messages():
            last.note(message)
        assert last.epoch >= 0
        last.save()
        again = LastState(home)
        again.load()
        assert again.messages() == last.messages()


def fuzz_identity(data: bytes) -> None:
    """The agent's identity: read, or one error."""
    text = json_text(data, (_IDENTITY,))
    with _folder() as home:
        (home / "identity.json").write_bytes(text)
        folder = StateFolder(home)
        try:
            with contextlib.suppress(ConfigError):
                found = folder.load_identity("lab", "A")
                assert len(found.public_key) == len(found.private_key) == len(KEY)
                folder.save_identity(found)
        finally:
            folder.close()


def fuzz_lines(data: bytes) -> None:
    """Cursors and tombstones, a line each: a line that is no good is passed over."""
    with _folder() as home:
        (home / "cursors").write_bytes(data)
        (home / "tombstones").write_bytes(data)
        cursors = Cursors(home)
        assert cursors.acknowledge("c", "messages", {"0" * 32: 3})
        assert Cursors(home).numbers("c", "messages")["0" * 32] >= 3
        graves = Graves(home / "tombstones", WALL)
        assert all(at > WALL and math.isfinite(at) for at in graves.expiries.values())
        graves.add("f" * 32, WALL + 1)
        assert "f" * 32 in Graves(home / "tombstones", WALL).expiries


def line_seeds() -> list[bytes]:
    """Return good lines and bad ones."""
    cursors = b'["c@messages", {"' + b"0" * 32 + b'": 7}]\n["c@messages", []]\n[7]\n'
    graves = b"0" * 32 + b" 1900000000.5\n" + b"1" * 32 + b" inf\n" + b"2" * 32 + b" x\n"
    return [cursors, graves, cursors[:-3], b"\xff\n" + graves]


def fuzz_stored_group(data: bytes) -> None:
    """What a server stored of a group: taken up, or one error; the group goes on working."""
    choices = Choices(data)
    which = choices.below(3)
    parts: dict[str, Any] = {part: _STORED[part] for part in ("members", "graphs", "links")}
    part = tuple(parts)[which]
    texts = {name: json.dumps(value).encode() for name, value in parts.items()}
    texts[part] = json_text(choices.rest(), (parts[part],))
    logging.disable(logging.CRITICAL)
    try:
        asyncio.run(_take_up(texts))
    finally:
        logging.disable(logging.NOTSET)


async def _take_up(texts: dict[str, bytes]) -> None:
    store = MemoryStore(monotonic=lambda: 0.0)
    for part, text in texts.items():
        await store.put_if_revision(f"groups/lab/{part}", text, 0)
    coordinator = Coordinator(store, clock=Clock(monotonic=lambda: 0.0, wall=lambda: WALL))
    try:
        with contextlib.suppress(ConfigError):
            await coordinator.start()
            group = coordinator.group("lab")
            for device in group.graph().devices[:2]:
                with contextlib.suppress(RefusedError):
                    group.neighbours(device)
            for entry in group.roster().devices[:2]:
                group.report(entry.device, CandidatesReport(candidates=()), now=0.0, wall=WALL)
            group.handle_timeout(now=100.0, wall=WALL + 100.0)
    finally:
        await coordinator.stop()


def _stored() -> dict[str, Any]:
    bench = six()
    bench.group.store_now(now=bench.now, wall=bench.wall)
    record = bench.group.poll_record()
    assert isinstance(record, GroupRecord)
    return dict(json.loads(record.model_dump_json()))


_STORED: Final = _stored()


def stored_seeds() -> list[bytes]:
    """Return each part as it is, and edited."""
    parts = enumerate(("members", "graphs", "links"))
    return [bytes([place]) + seed for place, part in parts for seed in json_seeds(_STORED[part])]


def folder_seeds() -> list[bytes]:
    """Return a stream's folder with tags and a record."""
    tags, record = (
        b"\x30" + bytes(range(1, 49)),
        b"\x20" + bytes([3, *[0] * 7, 4, 0, 0, 0]) + bytes(range(16)) + b"data",
    )
    return [tags + record + seed for seed in json_seeds(_META, {**_META, "role": "source"})] + [
        bytes(2) + seed for seed in json_seeds(_META)
    ]


def state_seeds() -> list[bytes]:
    """Return the server's answers as they are kept."""
    return json_seeds([json.dumps(message) for message in _loaded(SERVER)])


def identity_seeds() -> list[bytes]:
    """Return an identity."""
    return json_seeds(_IDENTITY)
