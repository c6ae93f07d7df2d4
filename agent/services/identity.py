"""Who this agent is: its name, its key and its token, kept in its state folder."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import re
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from common.errors import ConfigError
from common.ids import DeviceId, GroupId, is_id
from common.limits import MAX_TOKEN_CHARS
from common.signing import Signer

KEY_BYTES: Final = 32
_FILE: Final = "identity.json"
_TOKEN: Final = re.compile(r"[!-~]+")
"""What a request's header carries."""
_LATEST_S: Final = float(2**53)
"""Unix seconds past which a time is a mistake: whole seconds are exact up to it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes this device the member that it is.

    Attributes:
        group: the group that it belongs to.
        device: its name there.
        private_key: X25519, 32 bytes.
        token: proves the device to the server; None before it enrolled.
        next_token: the token to come: made here, and not known to be the server's yet.
        previous_token: the one before, for a server that was restored from a backup and knows no newer one.
        token_made: when the token was taken into use, unix seconds; None where that was not kept.
        server: where it enrolled; None where that was not kept.
        fingerprint: SHA-256 of that server's certificate, where that is what vouches for it.
    """

    group: GroupId
    device: DeviceId
    private_key: bytes = field(repr=False)
    token: str | None = field(default=None, repr=False)
    next_token: str | None = field(default=None, repr=False)
    token_made: float | None = None
    server: str | None = None
    fingerprint: bytes | None = None
    previous_token: str | None = field(default=None, repr=False)

    @property
    def public_key(self) -> bytes:
        """The key that peers know this device by, 32 bytes."""
        return X25519PrivateKey.from_private_bytes(self.private_key).public_key().public_bytes_raw()

    @property
    def signing_key(self) -> bytes:
        """The key that peers verify this device's signatures with, 32 bytes."""
        return Signer(self.private_key, self.group).public_key

    def prepared(self, token: str) -> Self:
        """Return the same identity with a token to come."""
        return replace(self, next_token=token)

    def confirmed(self, *, made: float) -> Self:
        """Return the same identity with the token to come in the place of the one before.

        Args:
            made: unix seconds.
        """
        return replace(self, token=self.next_token, next_token=None, token_made=made, previous_token=self.token)

    def fallen_back(self) -> Self:
        """Return the same identity with the token before."""
        return replace(self, token=self.previous_token, previous_token=None)

    def at(self, server: str, fingerprint: bytes | None) -> Self:
        """Return the same identity at a server."""
        return replace(self, server=server, fingerprint=fingerprint)


class StateFolder:
    """An agent's own folder, held by one agent at a time.

    Args:
        path: made with mode 0700 if it is not there.

    Raises:
        ConfigError: it cannot be made or written, or another agent holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot use the state folder {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ConfigError(f"another agent is using the state folder {path}") from error

    def close(self) -> None:
        """Let another agent have the folder."""
        os.close(self._lock)

    def load_identity(self, group: GroupId, device: DeviceId) -> Identity:
        """Return the identity kept here, or a new one with a fresh key, kept from now on.

        Raises:
            ConfigError: the one kept here is another device's, or cannot be read.
        """
        found = peek_identity(self.path)
        if found is None:
            made = Identity(group, device, secrets.token_bytes(KEY_BYTES))
            self.save_identity(made)
            return made
        if (found.group, found.device) != (group, device):
            raise ConfigError(
                f"the state folder {self.path} belongs to device {found.device!r} of group"
                f" {found.group!r}, not to {device!r} of {group!r}; name another with --state"
            )
        return found

    def save_identity(self, identity: Identity) -> None:
        """Keep an identity, readable by its owner alone.

        Raises:
            ConfigError: it cannot be written.
        """
        body = {
            "group": identity.group,
            "device": identity.device,
            "private_key": base64.b64encode(identity.private_key).decode(),
            "token": identity.token,
            "next_token": identity.next_token,
            "previous_token": identity.previous_token,
            "token_made": identity.token_made,
            "server": identity.server,
            "fingerprint": None if identity.fingerprint is None else identity.fingerprint.hex(),
        }
        path = self.path / _FILE
        try:
            write_atomically(path, json.dumps(body, indent=1).encode(), sync=True)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error


def peek_identity(folder: Path) -> Identity | None:
    """Return the identity kept in a folder that need not be held; None if there is none.

    Raises:
        ConfigError: it cannot be read.
    """
    path = folder / _FILE
    try:
        return _decode(path.read_bytes(), path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def write_atomically(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Replace a file's content so that a crash leaves the old or the new one, mode 0600.

    Args:
        path: the file.
        data: its new content.
        sync: whether it has to outlive a power cut.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)
    temporary.replace(path)
    if sync:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder outlive a power cut, too."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, or leave the file as it is; a line that a crash tore before stays apart.

    Args:
        path: the file; made if it is not there.
        line: without its end.

    Raises:
        OSError: it cannot be written.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        length = os.fstat(handle).st_size
        torn = length > 0 and os.pread(handle, 1, length - 1) != b"\n"
        view = memoryview((b"\n" if torn else b"") + line.encode() + b"\n")
        try:
            while view:
                view = view[os.write(handle, view) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, length)
            raise
    finally:
        os.close(handle)


def _decode(data: bytes, path: Path) -> Identity:
    try:
        body = json.loads(data)
        key = base64.b64decode(body["private_key"], validate=True)
        fingerprint = body.get("fingerprint")
        found = Identity(
            body["group"],
            body["device"],
            key,
            body["token"],
            body.get("next_token"),
            body.get("token_made"),
            body.get("server"),
            None if fingerprint is None else bytes.fromhex(fingerprint),
            body.get("previous_token"),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise ConfigError(f"{path} is not an agent's identity: {error}") from error
    if not _is_usable(found):
        raise ConfigError(f"{path} is not an agent's identity")
    return found


def _is_usable(found: Identity) -> bool:
    """Whether every part of an identity is of its kind: whatever JSON can hold may stand in the file."""
    names, made = (found.group, found.device), found.token_made
    return (
        len(found.private_key) == KEY_BYTES
        and all(isinstance(name, str) and is_id(name) for name in names)
        and all(token is None or _is_token(token) for token in (found.token, found.next_token, found.previous_token))
        and isinstance(found.server, str | None)
        and (made is None or (isinstance(made, int | float) and 0.0 <= made < _LATEST_S))
        and len(found.fingerprint or bytes(KEY_BYTES)) == KEY_BYTES
    )


def _is_token(token: object) -> bool:
    return isinstance(token, str) and len(token) <= MAX_TOKEN_CHARS and _TOKEN.fullmatch(token) is not None
