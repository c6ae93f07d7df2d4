"""A stream's opening: what a device must know before it can take the stream's chunks.

The opening names the stream, its channel, source and kind, and carries the random key under which the source seals
the chunks. Its source signs it. It travels sealed under the group key, ahead of the first chunk on every hop, and is
kept beside the stream on disk in that sealed form.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from typing import Final, Literal, cast

from common.blocks import Blocks
from common.errors import DecodeError
from common.ids import ChannelId, DeviceId, GroupId, is_id
from common.limits import (
    MAX_DATAGRAM_BYTES,
    MAX_FILE_BYTES,
    MAX_NAME_BYTES,
    MIN_DATAGRAM_BYTES,
)
from common.signing import PURPOSE_OPENING, SIGNATURE_BYTES, SIGNING_KEY_BYTES, Signer, Verifier

STREAM_ID_BYTES: Final = 16
STREAM_KEY_BYTES: Final = 32
_LATEST_S: Final = float(2**53)
"""Unix seconds past which a time is a mistake: whole seconds are exact up to it."""

StreamKind = Literal["file", "message"]
_KINDS: Final = ("file", "message")


@dataclass(frozen=True, slots=True)
class Opening:
    """One stream's fixed facts, set by its source and never changed.

    Attributes:
        stream: 16 random bytes.
        channel: the channel it belongs to.
        source: the device that numbers and seals its chunks.
        kind: ``file`` (known size, a closing record with the hash) or ``message`` (open-ended).
        key: 32 random bytes; every chunk of the stream is sealed under it with its number as nonce.
        piece_bytes: plain bytes of a full chunk.
        name: file name as the source calls it; empty for messages.
        size_bytes: file size; None for messages.
        created: unix seconds at the source.
        expires: unix seconds after which the opening is refused and its tombstone may go.
        signer: the source's signing key, 32 bytes.
        signature: the source's, over all of the above; 64 bytes.
    """

    stream: bytes
    channel: ChannelId
    source: DeviceId
    kind: StreamKind
    key: bytes
    piece_bytes: int
    name: str
    size_bytes: int | None
    created: float
    expires: float
    signer: bytes = bytes(SIGNING_KEY_BYTES)
    signature: bytes = bytes(SIGNATURE_BYTES)

    @property
    def short(self) -> int:
        """The stream's short form on the wire: the first four bytes of its id."""
        return int.from_bytes(self.stream[:4], "big")

    @property
    def hex(self) -> str:
        """The stream's id as people and the agent's API write it."""
        return self.stream.hex()

    @property
    def blocks(self) -> Blocks | None:
        """How a file's chunks are numbered; None for messages."""
        return None if self.size_bytes is None else Blocks.of(self.size_bytes, self.piece_bytes)

    @property
    def closing_number(self) -> int | None:
        """The number of a file's closing record, its last chunk; None for an open-ended stream."""
        return None if self.size_bytes is None else Blocks.of(self.size_bytes, self.piece_bytes).closing

    def signed(self, signer: Signer) -> Opening:
        """Return the same opening as its source signs it."""
        opening = replace(self, signer=signer.public_key)
        return replace(opening, signature=signer.sign(PURPOSE_OPENING, opening._body()))

    def encode(self) -> bytes:
        """Return the opening's plain form, to be sealed under the group key: the signature comes last."""
        return self._body() + self.signature

    def _body(self) -> bytes:
        body = {
            "stream": self.stream.hex(),
            "channel": self.channel,
            "source": self.source,
            "kind": self.kind,
            "key": base64.b64encode(self.key).decode(),
            "piece": self.piece_bytes,
            "name": self.name,
            "size": self.size_bytes,
            "created": self.created,
            "expires": self.expires,
            "signer": base64.b64encode(self.signer).decode(),
        }
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def decode_untrusted(cls, data: bytes, group: GroupId) -> Opening:
        """Read an opening, and check that it is signed by the key it names; whose that is, the roster tells.

        Raises:
            DecodeError: it is not an opening, a field passes its limit, or the signature is not its signer's.
        """
        signature = data[-SIGNATURE_BYTES:]
        try:
            body = json.loads(data[:-SIGNATURE_BYTES])
            opening = cls(
                stream=bytes.fromhex(body["stream"]),
                channel=body["channel"],
                source=body["source"],
                kind=body["kind"],
                key=base64.b64decode(body["key"], validate=True),
                piece_bytes=body["piece"],
                name=body["name"],
                size_bytes=body["size"],
                created=body["created"],
                expires=body["expires"],
                signer=base64.b64decode(body["signer"], validate=True),
                signature=signature,
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DecodeError(f"not a stream opening: {error}") from error
        problem = opening._problem()
        if problem is not None:
            raise DecodeError(f"stream opening: {problem}")
        # What is signed is the one form that `encode` gives, so that whoever hands it on hands on the same.
        if not Verifier(opening.signer, group).is_signed(PURPOSE_OPENING, opening._body(), signature):
            raise DecodeError("stream opening: its signature is not its signer's")
        return opening

    def _problem(self) -> str | None:
        return self._problem_of_names() or self._problem_of_sizes() or self._problem_of_times()

    def _problem_of_names(self) -> str | None:
        if len(self.stream) != STREAM_ID_BYTES or len(self.key) != STREAM_KEY_BYTES:
            return "id or key of the wrong length"
        if len(self.signer) != SIGNING_KEY_BYTES or len(self.signature) != SIGNATURE_BYTES:
            return "signing key or signature of the wrong length"
        for name in (self.channel, self.source):
            if not isinstance(name, str) or not is_id(name):
                return "channel or source is not an id"
        if self.kind not in _KINDS:
            return f"kind {self.kind!r} is neither file nor message"
        if not isinstance(self.name, str) or "\0" in self.name:
            return "name is not text"
        try:
            encoded = self.name.encode()
        except UnicodeEncodeError:
            return "name is not text"
        if len(encoded) > MAX_NAME_BYTES or (self.kind == "file") != bool(encoded):
            return f"a file's name has 1 to {MAX_NAME_BYTES} bytes, a message stream's none"
        return None

    def _problem_of_sizes(self) -> str | None:
        if type(self.piece_bytes) is not int or not (MIN_DATAGRAM_BYTES // 2 <= self.piece_bytes <= MAX_DATAGRAM_BYTES):
            return "piece size out of range"
        size = cast(object, self.size_bytes)
        if self.kind == "message":
            return None if size is None else "a message stream has no size"
        if type(size) is not int or not 0 <= size <= MAX_FILE_BYTES:
            return f"a file's size is 0 to {MAX_FILE_BYTES} bytes"
        return None

    def _problem_of_times(self) -> str | None:
        for moment in (self.created, self.expires):
            if type(moment) not in (int, float) or not -_LATEST_S < moment < _LATEST_S:
                return "times are finite unix seconds"
        return None if self.created < self.expires else "it expires before it begins"
