"""Which server, which group, which device: what the user says now, a join string, and what was settled before."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.services.identity import Identity, peek_identity
from common.errors import ConfigError, DecodeError
from common.ids import DeviceId, GroupId
from common.join_string import JoinString, decode_untrusted
from common.limits import MAX_ID_CHARS

MAX_SECRET_FILE_BYTES: Final = 4096
_NOT_IN_ID: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Said:
    """What the user says.

    Attributes:
        server: the server's URL.
        group: the group.
        device: this device's name.
        join: a join string, or ``@FILE`` that holds one.
        join_token: lets a new device in.
        join_token_file: holds that token.
        ca_file: the authorities for the server's certificate.
    """

    server: str | None = None
    group: str | None = None
    device: str | None = None
    join: str | None = field(default=None, repr=False)
    join_token: str | None = field(default=None, repr=False)
    join_token_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Home:
    """What is settled: where this device belongs.

    Attributes:
        server: the server's URL.
        group: the group.
        device: this device's name in it.
        join_token: lets it in if it is new; None if nothing does.
        fingerprint: SHA-256 of the server's certificate where that is what vouches for it.
    """

    server: str
    group: GroupId
    device: DeviceId
    join_token: str | None = field(repr=False)
    fingerprint: bytes | None


def settle(said: Said, state: Path) -> Home:
    """Settle where a device belongs.

    Args:
        said: what the user says; it counts before what was settled before, and must not contradict the join string.
        state: the agent's folder, which remembers what was settled.

    Raises:
        ConfigError: something is missing, cannot be read, or contradicts something else.
    """
    join = None if said.join is None else _read_join(said.join)
    kept = peek_identity(state)
    if join is not None:
        _check_agreement(said, join)
    server = said.server or (join.url if join else None) or (kept.server if kept else None)
    group = said.group or (join.group if join else None) or (kept.group if kept else None)
    if server is None:
        raise ConfigError("which server? Give --join with a join string, or --server, --group and a join token")
    if group is None:
        raise ConfigError("which group of the server? Give --group, or --join with a join string")
    return Home(
        server=server,
        group=group,
        device=said.device or (kept.device if kept else device_of(socket.gethostname())),
        join_token=_read_secret(said.join_token_file, "join token") if said.join_token_file else _token(said, join),
        fingerprint=_fingerprint(said, join, kept, server),
    )


def device_of(host: str) -> DeviceId:
    """Return a device's name made of its host's.

    Raises:
        ConfigError: nothing of it can stand in a name.
    """
    name = _NOT_IN_ID.sub("-", host).lstrip("._-")[:MAX_ID_CHARS]
    if not name:
        raise ConfigError(f"the host name {host[:80]!r} makes no device name; give one with --device")
    return name


def _check_agreement(said: Said, join: JoinString) -> None:
    for flag, here, there in (
        ("--server", said.server and said.server.rstrip("/"), join.url.rstrip("/")),
        ("--group", said.group, join.group),
    ):
        if here is not None and here != there:
            raise ConfigError(f"{flag} {here} contradicts the join string, which says {there}; leave {flag} out")
    if said.join_token is not None or said.join_token_file is not None:
        raise ConfigError(
            "the join string has a join token in it; leave --join-token, --join-token-file and ARBORCAST_JOIN_TOKEN out"
        )
    if said.ca_file is not None and join.fingerprint is not None:
        raise ConfigError("--ca-file contradicts the join string, which names the certificate itself; leave it out")


def _token(said: Said, join: JoinString | None) -> str | None:
    return said.join_token if join is None else join.token


def _fingerprint(said: Said, join: JoinString | None, kept: Identity | None, server: str) -> bytes | None:
    if join is not None:
        return join.fingerprint
    if said.ca_file is not None or kept is None or kept.server is None:
        return None
    return kept.fingerprint if kept.server.rstrip("/") == server.rstrip("/") else None


def _read_join(text: str) -> JoinString:
    word = _read_secret(Path(text[1:]), "join string") if text.startswith("@") else text.strip()
    try:
        return decode_untrusted(word)
    except DecodeError as error:
        raise ConfigError(str(error)) from error


def _read_secret(file: Path, what: str) -> str:
    """Read the one line that a file holds."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_SECRET_FILE_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the {what} in {file}: {error}") from error
    if not text or "\n" in text:
        raise ConfigError(f"{file} does not hold a {what}")
    return text
