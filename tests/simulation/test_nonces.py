"""No key ever seals two inputs under one nonce: not across losses, new sessions, restarts, resumes and new group keys.

AES-GCM with one nonce and two inputs gives its authentication key away, so this is what everything else stands on; the
argument is in docs/security.md.
"""

import random
from collections.abc import Callable

import pytest

from agent.core.memory_store import BytesReader
from common.datagrams import PacketType
from common.fields import encode_key
from tests.harness.mesh import GROUP_KEY, Crossing, Mesh, data
from tests.harness.seals import SealWatch, same_bytes

SIZE = 400_000


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> SealWatch:
    return SealWatch(monkeypatch)


def lossy(seed: int, share: float = 0.1) -> Callable[[Crossing], bool]:
    rng = random.Random(seed)
    return lambda crossing: rng.random() < share


class ChangingReader(BytesReader):
    """A file that somebody writes to while it is sent, from some byte on."""

    def change(self, at: int) -> None:
        """Change every byte from ``at`` on."""
        self._data = self._data[:at] + bytes(byte ^ 0xFF for byte in self._data[at:])


def held(mesh: Mesh, name: str, stream: str) -> int:
    entry = mesh.node(name).streams.by_short.get(int(stream[:8], 16))
    return 0 if entry is None else len(entry.stream.held)


def test_repairs_and_pulls_send_the_bytes_that_were_sealed_at_first(watch: SealWatch) -> None:
    mesh = Mesh("A-B B-C B-D").linked()
    mesh.drop = lossy(1)
    stream = mesh.send_file("A", data(SIZE))
    for number in range(20):
        mesh.publish("A", bytes([number]) * 900)
        mesh.run(0.02)
    mesh.until(lambda: mesh.verified(stream) == ["B", "C", "D"], within=60.0)
    assert mesh.chunks("A", "B", PacketType.REPEAT)
    assert same_bytes(mesh.crossings) > 300
    watch.check(mesh.crossings)
    assert watch.seals > 500


@pytest.mark.parametrize("dies", ["A", "B", "AB"])
def test_a_restart_in_the_middle_of_a_file_reuses_no_nonce(watch: SealWatch, dies: str) -> None:
    """The source seals again what it had sealed, the relay what it had stored; both get the same bytes or send none."""
    mesh = Mesh("A-B B-C").linked()
    stream = mesh.send_file("A", data(SIZE))
    mesh.until(lambda: held(mesh, "B", stream) > 100)
    keys = watch.keys
    for name in dies:
        mesh.kill(name)
    mesh.run(1.0)
    for name in dies:
        mesh.start(name)
    mesh.until(lambda: "C" in mesh.verified(stream), within=60.0)
    assert watch.keys > keys  # sessions of their own
    assert same_bytes(mesh.crossings) > 300
    watch.check(mesh.crossings)


def test_a_file_that_changed_before_its_source_restarts_is_never_sealed_and_sent_with_other_bytes(
    watch: SealWatch,
) -> None:
    mesh = Mesh("A-B B-C").linked()
    reader = ChangingReader(data(SIZE))
    stream = mesh.send_from("A", SIZE, reader)
    mesh.until(lambda: held(mesh, "B", stream) > 100)
    mesh.kill("A")
    reader.change(0)
    mesh.run(1.0)
    mesh.start("A")
    mesh.run(20.0)
    assert mesh.verified(stream) == []
    same_bytes(mesh.crossings)
    watch.check(mesh.crossings)


def test_a_file_that_changes_while_it_is_sent_is_never_sealed_twice_with_other_bytes(watch: SealWatch) -> None:
    mesh = Mesh("A-B B-C").linked()
    mesh.drop = lossy(2)
    reader = ChangingReader(data(SIZE))
    stream = mesh.send_from("A", SIZE, reader)
    mesh.until(lambda: held(mesh, "B", stream) > 100)
    reader.change(50_000)
    mesh.node("A").streams.by_short[int(stream[:8], 16)].stream.forget_ring()
    mesh.run(20.0)
    same_bytes(mesh.crossings)
    watch.check(mesh.crossings)


def test_a_stored_chunk_that_was_tampered_with_on_a_relays_disk_is_not_sent(watch: SealWatch) -> None:
    mesh = Mesh("A-B B-C", absent="C").linked()
    stream = mesh.send_file("A", data(SIZE))
    mesh.until(lambda: "B" in mesh.verified(stream))
    chunks = mesh.devices["B"].stores.streams[stream]._chunks
    for number in (3, 7, 50):
        chunks[number] = bytes(len(chunks[number]))
    mesh.kill("B")
    mesh.kill("A")
    mesh.start("B")
    mesh.start("C")
    mesh.run(10.0)
    assert not {3, 7, 50} & set(mesh.chunks("B", "C"))
    same_bytes(mesh.crossings)
    watch.check(mesh.crossings)


def test_every_message_stream_after_a_restart_has_a_key_of_its_own(watch: SealWatch) -> None:
    mesh = Mesh("A-B").linked()
    streams = []
    for _ in range(4):
        stream, number = mesh.publish("A", b"the same words every time")
        assert number == 1
        streams.append(stream)
        mesh.run(0.3)
        mesh.kill("A")
        mesh.run(0.3)
        mesh.start("A")
        mesh.linked()
    assert len(set(streams)) == 4
    assert mesh.payloads("B") == [b"the same words every time"] * 4
    watch.check(mesh.crossings)


def test_sessions_that_begin_anew_all_the_time_have_keys_of_their_own(watch: SealWatch) -> None:
    mesh = Mesh("A-B").linked()
    for turn in range(12):
        name = "AB"[turn % 2]
        mesh.kill(name)
        mesh.run(0.2)
        mesh.start(name)
        mesh.linked()
        mesh.publish("A", b"x" * 10)
        mesh.run(0.2)
    watch.check(mesh.crossings)
    assert watch.keys > 24  # two for each session, beside those of streams, group and pair


def test_a_new_group_key_seals_openings_anew_under_nonces_of_their_own(watch: SealWatch) -> None:
    mesh = Mesh("A-B B-C B-D", absent="D").linked()
    stream = mesh.send_file("A", data(SIZE))
    mesh.publish("A", b"before")
    mesh.until(lambda: mesh.verified(stream) == ["B", "C"])
    keys = {**mesh.roster.group_keys}
    for epoch in (2, 3, 4):
        keys[epoch] = encode_key(bytes([epoch]) * len(GROUP_KEY))
        mesh.roster = mesh.roster.model_copy(update={"version": epoch, "key_epoch": epoch, "group_keys": dict(keys)})
        for name in ("A", "B", "C"):
            mesh.control(name, mesh.roster)
        mesh.publish("A", b"after")
        mesh.run(0.5)
    mesh.start("D")
    mesh.until(lambda: "D" in mesh.verified(stream))
    watch.check(mesh.crossings)


def test_the_watch_sees_a_nonce_that_is_used_twice(watch: SealWatch) -> None:
    mesh = Mesh("A-B").linked()
    first = mesh.sealed("A", "B", b"one")
    mesh.hop("A", "B")._number -= 1
    second = mesh.sealed("A", "B", b"two")
    watch.check([*mesh.crossings, Crossing(0.0, "A", "B", 0, first)])
    with pytest.raises(AssertionError, match="one key and nonce sealed 2 inputs"):
        watch.check([Crossing(0.0, "A", "B", 0, datagram) for datagram in (first, second)])
