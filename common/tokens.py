"""Tokens: what proves a device, a joiner or the administrator.

A token is `subject~secret`. The subject says where to look (a device id, or "join"); the secret is 32 random bytes in
URL-safe base64. Only its SHA-256 is kept: the secret has full entropy, so nothing slower is needed.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable

from common.limits import MAX_TOKEN_CHARS

JOIN_SUBJECT = "join"
_SECRET_BYTES = 32


def make_token(subject: str, entropy: Callable[[int], bytes]) -> str:
    """Make a new token.

    Args:
        subject: whom it proves; a device id, or JOIN_SUBJECT.
        entropy: gives that many random bytes.
    """
    secret = base64.urlsafe_b64encode(entropy(_SECRET_BYTES)).rstrip(b"=").decode("ascii")
    return f"{subject}~{secret}"


def subject_of(token: str) -> str:
    """Return whom a token claims to prove; nothing is proved by it."""
    return token.rpartition("~")[0]


def hash_token(token: str) -> str:
    """Return what is kept of a token: its SHA-256 in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def matches(token: str, kept: str) -> bool:
    """Compare a token with what was kept of one, in constant time."""
    return len(token) <= MAX_TOKEN_CHARS and hmac.compare_digest(hash_token(token), kept)


def matches_any(token: str, kept: Iterable[str]) -> bool:
    """Compare a token with several kept ones, in a time that depends only on their number."""
    found = False
    hashed = hash_token(token)
    for entry in kept:
        found |= hmac.compare_digest(hashed, entry)
    return found and len(token) <= MAX_TOKEN_CHARS
