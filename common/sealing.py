"""Keys and seals: who can read what, and under which nonce.

Three kinds of key, none of which ever seals two different inputs under one nonce:

* the *pair key* of two devices (X25519, static-static) seals hellos, each under a random nonce;
* a *session key* per direction, from the pair key and both fresh session ids, seals hop control, its nonce the
  sender's hop number, which only grows and starts anew with each session;
* a *stream key*, random per stream, seals chunks, its nonce the chunk's number.

Openings, embedded graphs and cancels are sealed under the group key with a random nonce.

Source: RFC 7748 (X25519), RFC 5869 (HKDF), RFC 5116 (AES-GCM).
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import DecodeError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
SESSION_ID_BYTES: Final = 16
KEY_ID_BYTES: Final = 8
GROUP_SEAL_OVERHEAD: Final = 4 + NONCE_BYTES + TAG_BYTES


def public_key_of(private_key: bytes) -> bytes:
    """Return the 32-byte X25519 public key that belongs to a 32-byte private key."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def key_id(public_key: bytes) -> bytes:
    """Return the 8 bytes that name a public key in a hello."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_BYTES]


def pair_secret(private_key: bytes, peer_public_key: bytes) -> bytes:
    """Return the static secret of two devices, the same on both sides.

    Raises:
        DecodeError: the peer's key is not a usable X25519 public key.
    """
    try:
        peer = X25519PublicKey.from_public_bytes(peer_public_key)
        return X25519PrivateKey.from_private_bytes(private_key).exchange(peer)
    except ValueError as error:
        raise DecodeError(f"unusable public key: {error}") from error


def hello_key(secret: bytes, group: str) -> bytes:
    """Return the pair key that seals hellos between two devices of a group."""
    return _derive(secret, group.encode(), b"arborcast hello 1")


def session_key(secret: bytes, group: str, sender_session: bytes, receiver_session: bytes) -> bytes:
    """Return the key of one direction of a session.

    Args:
        secret: the pair's static secret.
        group: the group's name.
        sender_session: the 16 random bytes that the sending side contributed.
        receiver_session: the 16 random bytes that the receiving side contributed.
    """
    return _derive(secret, group.encode(), b"arborcast hop 1" + sender_session + receiver_session)


def nonce_of(number: int) -> bytes:
    """Return the 12-byte nonce for a chunk or hop number."""
    return number.to_bytes(NONCE_BYTES, "big")


class Sealer:
    """AES-256-GCM under one key; the caller answers for the nonce."""

    __slots__ = ("_aead", "open_raw", "seal_raw")

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self.seal_raw = self._aead.encrypt
        """``seal_raw(nonce, data, header) -> ciphertext + tag``."""
        self.open_raw = self._aead.decrypt
        """``open_raw(nonce, sealed, header) -> data``; raises ``cryptography``'s InvalidTag."""

    def seal(self, number: int, header: bytes, data: bytes) -> bytes:
        """Seal ``data`` under ``number``, with ``header`` authenticated but in the clear."""
        return self.seal_raw(nonce_of(number), data, header)

    def open(self, number: int, header: bytes, sealed: bytes) -> bytes:
        """Open what ``seal`` made.

        Raises:
            DecodeError: it was not sealed under this key, number and header.
        """
        try:
            return self.open_raw(nonce_of(number), sealed, header)
        except InvalidTag as error:
            raise DecodeError("does not authenticate") from error


class GroupKeys:
    """The group's keys by key epoch; the newest seals, all of them open.

    Args:
        group: the group's name, part of every seal.
        keys: 32-byte keys by key epoch; at least one.
    """

    def __init__(self, group: str, keys: dict[int, bytes]) -> None:
        self._group = group.encode()
        self._sealers = {epoch: Sealer(key) for epoch, key in keys.items()}
        self.newest = max(keys)

    def seal(self, purpose: bytes, data: bytes, nonce: bytes) -> bytes:
        """Seal a record for every member: key epoch (4 bytes), nonce (12, random), ciphertext and tag."""
        epoch = self.newest.to_bytes(4, "big")
        header = purpose + b"\0" + self._group + epoch
        return epoch + nonce + self._sealers[self.newest].seal_raw(nonce, data, header)

    def open(self, purpose: bytes, sealed: bytes) -> bytes:
        """Open a member's record.

        Raises:
            DecodeError: it is too short, under a key that is not known here, or not authentic.
        """
        if len(sealed) < GROUP_SEAL_OVERHEAD:
            raise DecodeError("sealed record too short")
        sealer = self._sealers.get(key_epoch_of(sealed))
        if sealer is None:
            raise DecodeError(f"group key epoch {key_epoch_of(sealed)} is not known here")
        nonce = sealed[4 : 4 + NONCE_BYTES]
        header = purpose + b"\0" + self._group + sealed[:4]
        try:
            return sealer.open_raw(nonce, sealed[4 + NONCE_BYTES :], header)
        except InvalidTag as error:
            raise DecodeError("does not authenticate under the group key") from error


def key_epoch_of(sealed: bytes) -> int:
    """Return the key epoch under which a group record is sealed."""
    return int.from_bytes(sealed[:4], "big")


def _derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(secret)
