"""What the fields of messages may hold: names, keys, candidates, epochs, each with its check."""

import base64
import binascii
import ipaddress
import re
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field

from common import limits
from common.addresses import why_unreachable
from common.errors import DecodeError
from common.ids import ID_PATTERN

KEY_BYTES: Final = 32
MAX_HOST_CHARS: Final = 253
"""Characters of a host name (RFC 1035 section 2.3.4, without the length bytes)."""
_KEY_CHARS: Final = 44
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*\.?")


def encode_key(key: bytes) -> str:
    """Write a key of 32 bytes as messages carry it: standard base64."""
    return base64.b64encode(key).decode("ascii")


def decode_key(text: str) -> bytes:
    """Read a key of 32 bytes.

    Raises:
        DecodeError: it is not base64 of 32 bytes.
    """
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError("a key is not base64") from error
    if len(key) != KEY_BYTES or encode_key(key) != text:
        raise DecodeError(f"a key is not base64 of {KEY_BYTES} bytes")
    return key


def split_candidate(text: str) -> tuple[str, int]:
    """Split "host:port" or "[IPv6]:port".

    Raises:
        DecodeError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise DecodeError(f"{text[:80]!r} does not end in a port from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            return str(ipaddress.IPv6Address(host)), int(port)
        except ValueError as error:
            raise DecodeError(f"{text[:80]!r} does not hold an IPv6 address") from error
    if not _is_host_name(host):
        raise DecodeError(f"{text[:80]!r} does not start with a host name or an address")
    return host, int(port)


def is_host(text: str) -> bool:
    """Tell whether a text is a host name, or an address without brackets."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _is_host_name(text)
    return True


def _is_host_name(text: str) -> bool:
    return len(text) <= MAX_HOST_CHARS and _HOST.fullmatch(text) is not None


def _check_key(text: str) -> str:
    try:
        decode_key(text)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    return text


def _check_candidate(text: str) -> str:
    try:
        split_candidate(text)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    return text


def _check_told(text: str) -> str:
    """Refuse an address at which nobody can be reached."""
    host, _ = split_candidate(_check_candidate(text))
    why = why_unreachable(host)
    if why is not None:
        raise ValueError(f"{host} {why}")
    return text


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries of a list unless one stands twice.

    Raises:
        ValueError: one does.
    """
    if len(dict.fromkeys(names)) != len(names):
        raise ValueError("an entry stands twice")
    return names


Name: TypeAlias = Annotated[str, Field(strict=True, pattern=ID_PATTERN, examples=["A"])]
Key: TypeAlias = Annotated[
    str,
    Field(strict=True, min_length=_KEY_CHARS, max_length=_KEY_CHARS, description="32 bytes in standard base64"),
    AfterValidator(_check_key),
]
Candidate: TypeAlias = Annotated[
    str, Field(strict=True, max_length=264, examples=["192.0.2.7:7400"]), AfterValidator(_check_candidate)
]
ToldCandidate: TypeAlias = Annotated[
    str, Field(strict=True, max_length=264, examples=["192.0.2.7:7400"]), AfterValidator(_check_told)
]
TokenHash: TypeAlias = Annotated[
    str, Field(strict=True, pattern=r"^[0-9a-f]{64}$", description="the SHA-256 of a token, in hexadecimal")
]
Epoch: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=limits.MAX_EPOCH)]
Version: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=limits.MAX_EPOCH)]
KeyEpoch: TypeAlias = Annotated[int, Field(ge=0, le=limits.MAX_KEY_EPOCH)]
"""Not strict: as a key of an object it is text."""
Objective: TypeAlias = Literal["throughput", "latency"]
NatMapping: TypeAlias = Literal["unknown", "none", "stable", "varies"]
"""What lies between a device and the others: no NAT; one with the same mapping for all destinations, or one without."""
Routing: TypeAlias = Literal["query", "overflow", "subscribe", "embedded"]
