"""TLS with a server that is known by its certificate's fingerprint, and by nothing else.

Theory of operation. No authority vouches for a certificate that a server made for itself, and the name under which an
agent reaches it may be any. So neither is asked; what counts is that the server shows exactly the certificate whose
SHA-256 the join string carries, and, by the handshake itself, that it has its key. The check is part of the handshake,
whoever does it (asyncio, httpx): before it has passed no byte of a request, and so no token, leaves.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from pathlib import Path
from typing import Any

from common.errors import ConfigError


class WrongCertificate(ssl.SSLCertVerificationError):
    """The server shows another certificate than the one expected."""

    def __init__(self, expected: bytes, found: bytes) -> None:
        """Name both fingerprints."""
        super().__init__(
            1,
            f"the server's certificate has the fingerprint {found.hex()}, and the one that this device trusts is"
            f" {expected.hex()}: this is not the server that it joined, or that has a new certificate; nothing was sent"
            " to it (a new join string makes this device trust a new certificate)",
        )


class PinnedContext(ssl.SSLContext):
    """TLS settings that take one certificate; see `pin`.

    Attributes:
        fingerprint: SHA-256 of its DER form.
    """

    fingerprint: bytes


class _PinnedObject(ssl.SSLObject):
    """TLS over buffers (asyncio, anyio), with the check at the end of its handshake."""

    def do_handshake(self) -> None:
        """Shake hands, and refuse any certificate but one."""
        super().do_handshake()
        _check(self)


class _PinnedSocket(ssl.SSLSocket):
    """TLS over a socket, with the check at the end of its handshake."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands, and refuse any certificate but one."""
        super().do_handshake(block)
        _check(self)


def pin(fingerprint: bytes) -> ssl.SSLContext:
    """Return the TLS settings for the server with one certificate.

    Args:
        fingerprint: SHA-256 of its DER form, 32 bytes.
    """
    context = PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Not unchecked: `_check` looks at the certificate itself.
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.fingerprint = fingerprint
    context.sslobject_class = _PinnedObject
    context.sslsocket_class = _PinnedSocket
    return context


def make_tls(ca_file: Path | None, fingerprint: bytes | None = None) -> ssl.SSLContext:
    """Return the TLS settings for connections to the server.

    Args:
        ca_file: PEM file of the authorities; None takes the system's.
        fingerprint: of the one certificate that is taken, whoever vouches for it; None where authorities do.

    Raises:
        ConfigError: the file cannot be used.
    """
    if fingerprint is not None:
        return pin(fingerprint)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot use the authorities in {ca_file}: {error}") from error


def untrusted(error: BaseException | None) -> str | None:
    """Say in a sentence which certificate an error came from; None if it came from something else."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    if error is None or isinstance(error, WrongCertificate):
        return None if error is None else str(error)
    why = error.verify_message or str(error)
    return f"the server's certificate is not trusted: {why}; a join string makes this device trust it, or see --ca-file"


def _check(tls: Any) -> None:
    context: PinnedContext = tls.context
    found = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").digest()
    if not hmac.compare_digest(found, context.fingerprint):
        raise WrongCertificate(context.fingerprint, found)
