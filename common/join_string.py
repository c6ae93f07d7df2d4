"""The join string: everything that a new device has to be told, as one word.

``arborcast1.`` and, in URL-safe base64 without padding, 8 bytes of checksum and a JSON object: the server's URL, the
group, a join token and, where only its fingerprint can vouch for the server's certificate, that. The checksum (the
beginning of the JSON's SHA-256) tells a string that was cut short or mistyped; it proves nothing about who wrote it.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from common.errors import DecodeError
from common.fields import Key, Name, decode_key, encode_key
from common.ids import GroupId
from common.limits import MAX_JOIN_STRING_CHARS, MAX_TOKEN_CHARS, MAX_URL_CHARS
from common.messages import Message, describe

PREFIX: Final = "arborcast1."
_CHECKSUM_BYTES: Final = 8
_ANY_VERSION: Final = re.compile(r"arborcast([0-9]{1,4})\.")


@dataclass(frozen=True, slots=True)
class JoinString:
    """What a join string says.

    Attributes:
        url: the server, ``http(s)://host:port``.
        group: the group to join.
        token: lets the device in.
        fingerprint: SHA-256 of the DER form of the server's certificate, 32 bytes; None where an authority vouches for
            it, and without TLS.
    """

    url: str
    group: GroupId
    token: str = field(repr=False)
    fingerprint: bytes | None = None


class _Body(Message):
    """The JSON object, its names short."""

    u: str = Field(max_length=MAX_URL_CHARS, pattern=r"^https?://[!-~]+$")
    g: Name
    t: str = Field(min_length=1, max_length=MAX_TOKEN_CHARS, pattern=r"^[!-~]+$")
    f: Key | None = None


def encode(join: JoinString) -> str:
    """Write a join string.

    Raises:
        DecodeError: nobody could read it: a part of it is longer than it may be, or is none.
    """
    fingerprint = None if join.fingerprint is None else encode_key(join.fingerprint)
    try:
        body = _Body(u=join.url, g=join.group, t=join.token, f=fingerprint)
    except ValidationError as error:
        raise DecodeError(f"this cannot be a join string: {describe(error)}") from error
    text = body.model_dump_json(exclude_none=True).encode()
    return PREFIX + base64.urlsafe_b64encode(_checksum(text) + text).rstrip(b"=").decode("ascii")


def decode_untrusted(text: str) -> JoinString:
    """Read a join string.

    Raises:
        DecodeError: it is none, or one of another version, or was cut short or mistyped; the text is not repeated, as
            there is a secret in it.
    """
    if len(text) > MAX_JOIN_STRING_CHARS:
        raise DecodeError(f"a join string of {len(text)} characters; at most {MAX_JOIN_STRING_CHARS} are allowed")
    if not text.startswith(PREFIX):
        version = _ANY_VERSION.match(text)
        if version is not None:
            raise DecodeError(f"this join string is of version {version[1]}, and this arborcast knows version 1")
        raise DecodeError(f"this is no join string: it does not begin with {PREFIX!r}")
    raw = _from_base64(text.removeprefix(PREFIX))
    found = raw[_CHECKSUM_BYTES:]
    if not found or raw[:_CHECKSUM_BYTES] != _checksum(found):
        raise DecodeError("the join string does not hold together: it was cut short or mistyped")
    try:
        body = _Body.model_validate_json(found)
        # The pattern does not say what a port may be.
        _ = urlsplit(body.u).port
    except ValidationError as error:
        raise DecodeError(f"the join string holds what it may not: {describe(error)}") from error
    except ValueError as error:
        raise DecodeError("the join string holds what it may not: u: not a URL") from error
    return JoinString(body.u, body.g, body.t, None if body.f is None else decode_key(body.f))


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()[:_CHECKSUM_BYTES]


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError("the join string does not hold together: it was cut short or mistyped") from error
