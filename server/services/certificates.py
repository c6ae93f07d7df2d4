"""The certificate that the server makes for itself where nobody gives it one, and the fingerprint that names one.

It is made once: whoever joined by its fingerprint would refuse another. So a name that it lacks is told, never added.
"""

import datetime
import ipaddress
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import ConfigError
from server.services.secret_files import write_secret

CERTIFICATE_FILE: Final = "tls-cert.pem"
KEY_FILE: Final = "tls-key.pem"
ALWAYS_NAMED: Final = ("localhost", "127.0.0.1", "::1")
VALID_DAYS: Final = 7_300
"""Days: agents know the certificate by its fingerprint, and a new one would cut all of them off."""
CLOCK_DAYS: Final = 1
"""Days by which a client's clock may be behind."""


def ensure_certificate(state: Path, *, names: Iterable[str], wanted: Iterable[str], wall: float) -> tuple[Path, Path]:
    """Give the server's own certificate and its key; make them if there is none.

    Args:
        state: the server's directory.
        names: host names and addresses that a new one shall hold beside `ALWAYS_NAMED`.
        wanted: those that it has to hold, also if it is there already.
        wall: unix seconds.

    Returns:
        The paths of certificate and key, both in PEM; the key is its owner's alone.

    Raises:
        ConfigError: they cannot be read or written, or the certificate lacks a name that is wanted.
    """
    certificate, key = state / CERTIFICATE_FILE, state / KEY_FILE
    if not certificate.exists():
        all_names = dict.fromkeys((*ALWAYS_NAMED, *names, *wanted))
        made, secret = _make(tuple(all_names), wall)
        # The key first: a certificate that is there has its key.
        write_secret(key, secret, "the key of the certificate")
        write_secret(certificate, made, "the certificate")
    lacking = [name for name in wanted if not _holds(_load(certificate), name)]
    if lacking:
        raise ConfigError(
            f"the certificate {certificate} does not hold the name {lacking[0]!r} of --tls-name. Leave that out, or"
            f" remove {certificate} and {key} to have another made; its fingerprint will be another, too, so every"
            " agent will need a new join string"
        )
    return certificate, key


def fingerprint_to_pin(certificate: Path) -> bytes | None:
    """Return the SHA-256 of the DER form of a certificate that only its fingerprint can vouch for; None of another.

    Args:
        certificate: a PEM file; of a chain the first certificate counts.

    Raises:
        ConfigError: the file cannot be read.
    """
    found = _load(certificate)
    return found.fingerprint(hashes.SHA256()) if found.issuer == found.subject else None


def check_pair(certificate: Path, key: Path) -> None:
    """Try certificate and key before anything else does: a server that starts with them would end in a traceback.

    Raises:
        ConfigError: they cannot be used.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        raise ConfigError(f"cannot use the certificate {certificate} with the key {key}: {error}") from error


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"cannot read the certificate {path}: {error}") from error


def _holds(certificate: x509.Certificate, name: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return _general_name(name) in names


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.lower())


def _make(names: tuple[str, ...], wall: float) -> tuple[str, str]:
    """Make a certificate and its key, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "arborcast server")])
    begin = datetime.datetime.fromtimestamp(wall, datetime.UTC) - datetime.timedelta(days=CLOCK_DAYS)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"), secret.decode("ascii")
