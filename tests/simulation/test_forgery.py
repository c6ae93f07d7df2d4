"""A member that forges: it holds the group key, relays, and passes on what the source never sent."""

from collections.abc import Callable
from typing import Any

import pytest

from agent.core.events import FileVerified, ForgeryFound, MessageReceived, StreamCancelled
from agent.core.stream import Stream
from common import blocks
from common.datagrams import CHUNK_HEADER, CHUNK_HEADER_BYTES, FLAG_PROOF, NUMBER_MASK
from common.sealing import NONCE_BYTES
from common.signing import SIGNATURE_BYTES
from common.stream_frames import Cancel
from tests.harness.mesh import PIECE_BYTES, Mesh, data

Forge = Callable[[int, int, bytes], bytes]
"""Makes other plain bytes of a chunk's number, flags and plain bytes."""


def flip(number: int, flags: int, plain: bytes) -> bytes:
    """Change one bit of every piece."""
    return plain if flags & FLAG_PROOF else bytes([plain[0] ^ 1]) + plain[1:]


def flip_proofs(number: int, flags: int, plain: bytes) -> bytes:
    """Change one bit of every proof's digest."""
    return bytes([plain[0] ^ 1]) + plain[1:] if flags & FLAG_PROOF else plain


def flip_signatures(number: int, flags: int, plain: bytes) -> bytes:
    """Change one bit of every proof's signature."""
    return plain[:-1] + bytes([plain[-1] ^ 1]) if flags & FLAG_PROOF else plain


def make_hostile(mesh: Mesh, name: str, forge: Forge) -> None:
    """Have a device pass on other bytes than it got, sealed under the stream's key as a member can."""
    streams = mesh.node(name).streams
    add = streams._add

    def add_hostile(*args: Any, **kwargs: Any) -> Any:
        entry = add(*args, **kwargs)
        corrupt(entry.stream, forge)
        return entry

    streams._add = add_hostile  # type: ignore[method-assign]


def corrupt(stream: Stream, forge: Forge) -> None:
    honest = stream.sealed

    def sealed(start: int, stop: int) -> list[bytes]:
        out = []
        for chunk in honest(start, stop):
            header = chunk[:CHUNK_HEADER_BYTES]
            _, word = CHUNK_HEADER.unpack(header)
            number, flags = word & NUMBER_MASK, word >> 56
            nonce = number.to_bytes(NONCE_BYTES, "big")
            plain = stream._sealer.open_raw(nonce, chunk[CHUNK_HEADER_BYTES:], header)
            out.append(header + stream._sealer.seal_raw(nonce, forge(number, flags, plain), header))
        return out

    stream.sealed = sealed  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 20 * PIECE_BYTES)


@pytest.mark.parametrize("forge", [flip, flip_proofs, flip_signatures])
def test_a_forged_file_is_taken_from_another_peer_block_by_block(forge: Forge) -> None:
    mesh = Mesh("A-M M-B B-C A-B", edges="A-M M-B B-C").linked()
    make_hostile(mesh, "M", forge)
    stream = mesh.send_file("A", data(70 * PIECE_BYTES + 5))
    mesh.until(lambda: {"B", "C"} <= set(mesh.verified(stream)), within=60.0)
    mesh.run(0.1)
    for name in "BC":
        assert mesh.content(name, stream) == data(70 * PIECE_BYTES + 5)
        assert mesh.stream(name, stream).dispute is None
    found = mesh.events("B", ForgeryFound)
    assert {event.first for event in found} <= {1, 21, 22, 42, 43, 63, 64, 75}
    assert found[0].bringer == "M"
    assert mesh.node("B").drops["chunks-refuted"] == sum(event.last - event.first + 1 for event in found)


@pytest.mark.parametrize("forge", [flip, flip_proofs, flip_signatures])
def test_behind_a_forger_alone_nothing_is_delivered(forge: Forge) -> None:
    mesh = Mesh("A-M M-B B-C", edges="A-M M-B B-C").linked()
    make_hostile(mesh, "M", forge)
    stream = mesh.send_file("A", data(70 * PIECE_BYTES))
    name, _ = mesh.publish("A", b"hello")
    mesh.run(20.0)
    assert mesh.verified(stream) == ["M"]
    assert len(mesh.events("B", ForgeryFound)) >= 3
    asked = len(mesh.events("B", ForgeryFound))
    mesh.run(20.0)
    assert len(mesh.events("B", ForgeryFound)) <= asked + 3, "the pauses grow"
    assert name in mesh.node("A").streams.by_short[int(name[:8], 16)].stream.opening.hex


@pytest.mark.parametrize("size", [1, PIECE_BYTES, 5 * PIECE_BYTES])
def test_forged_messages_are_delivered_as_their_source_wrote_them_or_not_at_all(size: int) -> None:
    mesh = Mesh("A-M M-B B-C A-B", edges="A-M M-B B-C").linked()
    make_hostile(mesh, "M", flip)
    sent = [data(size, seed=number) for number in range(4)]
    for payload in sent:
        mesh.publish("A", payload)
        mesh.run(0.05)
    mesh.until(lambda: mesh.payloads("B") == mesh.payloads("C") == sent, within=60.0)
    assert mesh.events("B", ForgeryFound)

    alone = Mesh("A-M M-B", edges="A-M M-B").linked()
    make_hostile(alone, "M", flip)
    alone.publish("A", data(size))
    alone.run(10.0)
    assert alone.payloads("M") == [data(size)]
    assert alone.payloads("B") == []


def test_two_forgers_and_one_honest_way() -> None:
    mesh = Mesh("A-M A-N M-B N-B A-C C-B", edges="A-M A-N A-C M-B").linked()
    for name in "MN":
        make_hostile(mesh, name, flip)
    stream = mesh.send_file("A", data(50 * PIECE_BYTES))
    mesh.until(lambda: "B" in mesh.verified(stream), within=60.0)
    assert mesh.content("B", stream) == data(50 * PIECE_BYTES)


def test_only_its_source_takes_a_stream_back() -> None:
    mesh = Mesh("A-M M-B", edges="A-M M-B").linked()
    stream = mesh.send_file("A", data(400 * PIECE_BYTES))
    mesh.until(lambda: len(mesh.node("B").streams.by_short) == 1)
    short = int(stream[:8], 16)
    about = bytes.fromhex(stream) + b"why"
    for signature in (bytes(SIGNATURE_BYTES), mesh.node("M").config.signer.sign(b"cancel", about)):
        mesh.say("M", "B", Cancel(short, mesh.group_keys.seal(b"cancel", signature + b"why", bytes(12))))
    assert mesh.drops("B") == {"cancel-refused": 2}
    mesh.until(lambda: mesh.verified(stream) == ["B", "M"])
    assert mesh.events("B", StreamCancelled) == []
    assert len(mesh.events("B", FileVerified)) == 1
    assert mesh.events("B", MessageReceived) == []
