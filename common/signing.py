"""Signatures: which device a stream, a block of a file, a message or a cancel really comes from.

Whoever holds the group key can seal; only the device itself can sign. A device's signing key is derived from its one
private key, so that it has a single secret to keep.

Source: RFC 8032 (Ed25519), RFC 5869 (HKDF).
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import DecodeError

SIGNATURE_BYTES: Final = 64
SIGNING_KEY_BYTES: Final = 32

PURPOSE_OPENING: Final = b"opening"
PURPOSE_BLOCK: Final = b"block"
PURPOSE_MESSAGE: Final = b"message"
PURPOSE_RECEIPT: Final = b"receipt"
PURPOSE_CANCEL: Final = b"cancel"
PURPOSE_GRAPH: Final = b"graph"


class Signer:
    """Signs as one device of one group.

    Args:
        private_key: the device's X25519 private key, 32 bytes.
        group: the group's name, part of the key and of everything signed.
    """

    def __init__(self, private_key: bytes, group: str) -> None:
        seed = HKDF(
            algorithm=hashes.SHA256(), length=SIGNING_KEY_BYTES, salt=group.encode(), info=b"arborcast signing 1"
        ).derive(private_key)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._group = group
        self.public_key = self._key.public_key().public_bytes_raw()
        """What the others verify with, 32 bytes."""

    def sign(self, purpose: bytes, data: bytes) -> bytes:
        """Return the signature, 64 bytes, the same each time."""
        return self._key.sign(_signed(purpose, self._group, data))


class Verifier:
    """Verifies what one device of one group signed.

    Args:
        public_key: the device's signing key, 32 bytes.
        group: the group's name.

    Raises:
        DecodeError: it is no Ed25519 public key.
    """

    def __init__(self, public_key: bytes, group: str) -> None:
        try:
            self._key = Ed25519PublicKey.from_public_bytes(public_key)
        except ValueError as error:
            raise DecodeError(f"unusable signing key: {error}") from error
        self._group = group

    def is_signed(self, purpose: bytes, data: bytes, signature: bytes) -> bool:
        """Tell whether the device signed this for this purpose."""
        try:
            self._key.verify(signature, _signed(purpose, self._group, data))
        except InvalidSignature:
            return False
        return True


def block_statement(stream: bytes, number: int, digest: bytes) -> bytes:
    """Return what a source signs of a block: the file's SHA-256 up to the proof of that number."""
    return stream + number.to_bytes(8, "big") + digest


def message_statement(stream: bytes, first: int, last: int, payload: bytes) -> bytes:
    """Return what a source signs of a message that takes the chunks ``first`` to ``last``."""
    numbers = first.to_bytes(8, "big") + last.to_bytes(8, "big")
    return stream + numbers + hashlib.sha256(payload).digest()


def _signed(purpose: bytes, group: str, data: bytes) -> bytes:
    return b"arborcast 1\0" + purpose + b"\0" + group.encode() + b"\0" + data
