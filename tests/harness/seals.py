"""A watch over every seal: which bytes were sealed under which key and nonce, and which of them ever left a device."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common import sealing
from common.datagrams import HOP_HEADER_BYTES, peek_chunk

GROUP_PURPOSES = (b"opening\0", b"graph\0", b"cancel\0")


class SealWatch:
    """Stands in for AES-GCM wherever the project seals.

    Args:
        monkeypatch: puts it there for one test.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._inputs: dict[tuple[bytes, bytes], dict[tuple[bytes, bytes], bytes]] = defaultdict(dict)
        self.seals = 0
        watch = self

        class Watched:
            def __init__(self, key: bytes) -> None:
                self._key, self._aead = key, AESGCM(key)
                self.decrypt = self._aead.decrypt

            def encrypt(self, nonce: bytes, data: bytes, header: bytes) -> bytes:
                sealed = self._aead.encrypt(nonce, data, header)
                watch.seals += 1
                watch._inputs[self._key, nonce][header, data] = sealed
                return sealed

        monkeypatch.setattr(sealing, "AESGCM", Watched)

    @property
    def keys(self) -> int:
        """How many keys sealed something."""
        return len({key for key, _ in self._inputs})

    def check(self, crossings: Iterable[Any]) -> None:
        """See that no key and nonce sealed two inputs of which more than one left a device.

        A group's seals travel inside others, so no two of them may exist at all.

        Args:
            crossings: everything that was sent.
        """
        twice = {place: inputs for place, inputs in self._inputs.items() if len(inputs) > 1}
        for inputs in twice.values():
            assert not any(header.startswith(GROUP_PURPOSES) for header, _ in inputs), "a group's nonce was used twice"
        outputs = {sealed for inputs in twice.values() for sealed in inputs.values()}
        sent = {found for crossing in crossings for found in outputs if crossing.datagram.endswith(found)}
        for inputs in twice.values():
            left = [header for (header, _), sealed in inputs.items() if sealed in sent]
            assert len(left) < 2, f"one key and nonce sealed {len(left)} inputs that were sent: {left}"


def same_bytes(crossings: Iterable[Any]) -> int:
    """See that a chunk is the same bytes whenever and wherever it crosses a link; return how many chunks there were."""
    seen: dict[tuple[int, int], bytes] = {}
    for crossing in crossings:
        chunk = peek_chunk(crossing.datagram)
        if chunk is not None:
            sealed = crossing.datagram[HOP_HEADER_BYTES:]
            assert seen.setdefault((chunk.stream, chunk.number), sealed) == sealed, (chunk.stream, chunk.number)
    return len(seen)
