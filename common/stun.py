"""STUN Binding: how a device asks which address its datagrams come from, and how that is answered.

Only this one method of STUN is spoken, over UDP, without authentication. Requests by RFC 3489 (no magic cookie) are
understood too: their answer names the address in the open, as such clients expect it.

Source: RFC 8489 sections 5, 6, 11 and 14; RFC 5389 section 12 for RFC 3489's clients.
"""

import ipaddress
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from common.errors import DecodeError
from common.limits import MAX_STUN_BYTES, MAX_STUN_UNKNOWN

COOKIE: Final = bytes.fromhex("2112a442")
TRANSACTION_BYTES: Final = 12
"""Random bytes that a client puts behind the cookie."""
HEADER_BYTES: Final = 20

_HEADER: Final = struct.Struct("!HH16s")
_ATTRIBUTE: Final = struct.Struct("!HH")

_BINDING_REQUEST: Final = 0x0001
_BINDING_SUCCESS: Final = 0x0101
_BINDING_ERROR: Final = 0x0111

_MAPPED_ADDRESS: Final = 0x0001
_ERROR_CODE: Final = 0x0009
_UNKNOWN_ATTRIBUTES: Final = 0x000A
_XOR_MAPPED_ADDRESS: Final = 0x0020
_FINGERPRINT: Final = 0x8028
_KNOWN: Final = frozenset({0x0001, 0x0006, 0x0008, 0x0009, 0x000A, 0x0014, 0x0015, 0x001C, 0x001D, 0x001E, 0x0020})
"""The comprehension-required attributes that RFC 8489 section 18.3 defines: those of authentication are passed over."""
_OPTIONAL_FROM: Final = 0x8000
"""From here on an attribute that is not known may be passed over."""

_FAMILIES: Final = {1: 4, 2: 16}
"""Bytes of an address, by the family's number."""
_FINGERPRINT_XOR: Final = 0x5354_554E
_UNKNOWN_ATTRIBUTE: Final = 420
_MAX_REASON_CHARS: Final = 128
"""Characters of an error's reason, by RFC 8489 section 14.8."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class BindingRequest:
    """Somebody asks where its datagram came from.

    Attributes:
        transaction: what the answer has to repeat, 16 bytes: cookie and 12 random ones, or an old client's 16.
        unknown: comprehension-required attributes that are not known here; each once.
        fingerprint: whether it carried a fingerprint, and so expects one.
    """

    transaction: bytes
    unknown: tuple[int, ...] = ()
    fingerprint: bool = False


@dataclass(frozen=True, slots=True)
class BindingSuccess:
    """The answer: where the request came from.

    Attributes:
        transaction: the request's.
        mapped: host and port as the server saw them.
    """

    transaction: bytes
    mapped: Address


@dataclass(frozen=True, slots=True)
class BindingError:
    """The server declined.

    Attributes:
        transaction: the request's.
        code: 300 to 699.
        reason: the server's words, at most 128 characters.
    """

    transaction: bytes
    code: int
    reason: str


StunMessage = BindingRequest | BindingSuccess | BindingError


def encode_request(transaction: bytes) -> bytes:
    """Write a Binding request.

    Args:
        transaction: 12 bytes that nobody can guess.
    """
    return _HEADER.pack(_BINDING_REQUEST, 0, COOKIE + transaction)


def encode_answer(request: BindingRequest, source: Address) -> bytes:
    """Write the answer to a request: where it came from, or error 420 where it asks for what is not known here.

    Args:
        request: the request.
        source: the numeric host and the port that it came from.
    """
    kind = _BINDING_SUCCESS
    if request.unknown:
        kind = _BINDING_ERROR
        body = _attribute(_ERROR_CODE, bytes((0, 0, *divmod(_UNKNOWN_ATTRIBUTE, 100))) + b"Unknown Attribute")
        body += _attribute(_UNKNOWN_ATTRIBUTES, struct.pack(f"!{len(request.unknown)}H", *request.unknown))
    elif request.transaction.startswith(COOKIE):
        body = _attribute(_XOR_MAPPED_ADDRESS, _write_address(source, request.transaction))
    else:
        body = _attribute(_MAPPED_ADDRESS, _write_address(source, bytes(len(request.transaction))))
    return _message(kind, request.transaction, body, fingerprint=request.fingerprint)


def decode_untrusted(data: bytes) -> StunMessage:
    """Read a Binding request or an answer to one.

    Raises:
        DecodeError: it is neither, is cut off, breaks a limit, or its fingerprint is wrong.
    """
    if len(data) < HEADER_BYTES:
        raise DecodeError(f"{len(data)} bytes are no STUN message")
    if len(data) > MAX_STUN_BYTES:
        raise DecodeError(f"a STUN message of {len(data)} bytes; at most {MAX_STUN_BYTES} are taken")
    kind, length, transaction = _HEADER.unpack_from(data)
    if length != len(data) - HEADER_BYTES or length % 4:
        raise DecodeError("a STUN message has another length than it says")
    attributes = _attributes(data)
    unknown = _unknown(kind for kind, _ in attributes)
    if kind == _BINDING_REQUEST:
        return BindingRequest(transaction, unknown, any(kind == _FINGERPRINT for kind, _ in attributes))
    if kind not in (_BINDING_SUCCESS, _BINDING_ERROR):
        raise DecodeError("a STUN message is no Binding request, and no answer to one")
    # The first of each counts.
    found = dict(reversed(attributes))
    if kind == _BINDING_ERROR:
        return _error(transaction, found)
    if unknown:
        raise DecodeError("a STUN answer says something that must be understood and is not")
    if _XOR_MAPPED_ADDRESS in found:
        return BindingSuccess(transaction, _read_address(found[_XOR_MAPPED_ADDRESS], transaction))
    if _MAPPED_ADDRESS in found:
        return BindingSuccess(transaction, _read_address(found[_MAPPED_ADDRESS], bytes(len(transaction))))
    raise DecodeError("a STUN answer names no address")


def _message(kind: int, transaction: bytes, body: bytes, *, fingerprint: bool) -> bytes:
    """Put header, attributes and, where it is wanted, the fingerprint together."""
    if not fingerprint:
        return _HEADER.pack(kind, len(body), transaction) + body
    head = _HEADER.pack(kind, len(body) + 8, transaction) + body
    return head + _attribute(_FINGERPRINT, _fingerprint(head))


def _fingerprint(message: bytes) -> bytes:
    """Return the fingerprint of a message whose length counts it already (RFC 8489 section 14.7)."""
    return struct.pack("!I", zlib.crc32(message) ^ _FINGERPRINT_XOR)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    """Read the attributes, and check the fingerprint if there is one.

    Raises:
        DecodeError: one is cut off, or the fingerprint is wrong or not the last.
    """
    found: list[tuple[int, bytes]] = []
    at = HEADER_BYTES
    while at < len(data):
        # The length is a multiple of 4, so there is room for a head.
        kind, length = _ATTRIBUTE.unpack_from(data, at)
        value = data[at + _ATTRIBUTE.size : at + _ATTRIBUTE.size + length]
        after = at + _ATTRIBUTE.size + length + (-length % 4)
        if after > len(data):
            raise DecodeError("a STUN attribute is cut off")
        if kind == _FINGERPRINT and (after != len(data) or value != _fingerprint(data[:at])):
            raise DecodeError("a STUN fingerprint is wrong, or is not the last attribute")
        found.append((kind, value))
        at = after
    return found


def _unknown(kinds: Iterable[int]) -> tuple[int, ...]:
    """Return the attributes that have to be understood and are not, each once, bounded."""
    found = dict.fromkeys(kind for kind in kinds if kind < _OPTIONAL_FROM and kind not in _KNOWN)
    return tuple(found)[:MAX_STUN_UNKNOWN]


def _error(transaction: bytes, found: dict[int, bytes]) -> BindingError:
    value = found.get(_ERROR_CODE, b"")
    if len(value) < 4 or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
        raise DecodeError("a STUN error has no code from 300 to 699")
    reason = value[4:].decode(errors="replace")[:_MAX_REASON_CHARS]
    return BindingError(transaction, 100 * (value[2] & 7) + value[3], reason)


def _write_address(address: Address, mask: bytes) -> bytes:
    """Write an address, each byte of port and host XORed with the mask from its beginning."""
    host, port = ipaddress.ip_address(address[0]).packed, struct.pack("!H", address[1])
    return bytes((0, 1 if len(host) == 4 else 2)) + _xor(port, mask) + _xor(host, mask)


def _read_address(value: bytes, mask: bytes) -> Address:
    """Read what `_write_address` wrote.

    Raises:
        DecodeError: the family is unknown, or the length is not that of the family.
    """
    if len(value) < 4 or len(value) != 4 + _FAMILIES.get(value[1], -1):
        raise DecodeError("a STUN address is of no known family, or of another length than that has")
    (port,) = struct.unpack("!H", _xor(value[2:4], mask))
    return str(ipaddress.ip_address(_xor(value[4:], mask))), port


def _xor(data: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ other for byte, other in zip(data, mask, strict=False))
