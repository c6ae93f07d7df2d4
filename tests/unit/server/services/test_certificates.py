import datetime
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.errors import ConfigError
from server.services.certificates import check_pair, ensure_certificate, fingerprint_to_pin
from tests.unit.server.harness import WALL


def make(state: Path, *wanted: str, names: tuple[str, ...] = ()) -> tuple[Path, Path]:
    return ensure_certificate(state, names=names, wanted=wanted, wall=WALL)


def issued(folder: Path) -> Path:
    """Write a certificate that another one has signed, and that holds no names."""
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.datetime.fromtimestamp(WALL, datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "tls-cert.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_is_made_once_with_all_names_and_a_key_of_its_owner_alone(tmp_path: Path) -> None:
    certificate, key = make(tmp_path, "tree.example.org", "192.0.2.7", names=("edge", "localhost"))
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "edge", "tree.example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == [
        "127.0.0.1",
        "::1",
        "192.0.2.7",
    ]
    assert isinstance(found.public_key(), ec.EllipticCurvePublicKey)
    begin = datetime.datetime.fromtimestamp(WALL, datetime.UTC) - datetime.timedelta(days=1)
    assert (found.not_valid_before_utc, found.not_valid_after_utc - begin) == (begin, datetime.timedelta(days=7_300))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = certificate.read_bytes(), key.read_bytes()
    assert make(tmp_path, "TREE.example.org", names=("another",)) == (certificate, key)
    assert (certificate.read_bytes(), key.read_bytes()) == before
    check_pair(certificate, key)


def test_a_name_that_the_certificate_lacks_is_told_with_what_to_do(tmp_path: Path) -> None:
    certificate, key = make(tmp_path)
    before = certificate.read_bytes()
    with pytest.raises(ConfigError, match=r"'new\.example' of --tls-name.* remove .*tls-key\.pem.* new join string"):
        make(tmp_path, "localhost", "new.example")
    assert certificate.read_bytes() == before
    assert key.exists()
    issued(tmp_path)
    with pytest.raises(ConfigError, match="does not hold the name '::1'"):
        make(tmp_path, "::1")


def test_only_a_certificate_without_an_authority_is_known_by_its_fingerprint(tmp_path: Path) -> None:
    certificate, _ = make(tmp_path)
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert fingerprint_to_pin(certificate) == found.fingerprint(hashes.SHA256())
    (tmp_path / "other").mkdir()
    assert fingerprint_to_pin(issued(tmp_path / "other")) is None


def test_what_is_no_certificate_or_no_pair_is_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    certificate, _ = make(tmp_path / "a")
    _, key = make(tmp_path / "b")
    with pytest.raises(ConfigError, match="cannot use the certificate"):
        check_pair(certificate, key)
    certificate.write_text("none")
    for path in (certificate, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="cannot read the certificate"):
            fingerprint_to_pin(path)


def test_a_client_that_is_given_the_certificate_takes_it_for_its_names_strictly(tmp_path: Path) -> None:
    # Of the year 2023, as this machine's clock is to lie between the certificate's first day and its last.
    certificate, key = ensure_certificate(tmp_path, names=(), wanted=(), wall=1_700_000_000.0)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    asking = ssl.create_default_context(cafile=certificate)
    # What Python 3.13 sets by itself.
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)

    def serve() -> None:
        with serving.wrap_socket(theirs, server_side=True) as tls:
            tls.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with asking.wrap_socket(ours, server_hostname="127.0.0.1") as tls:
            assert tls.version() == "TLSv1.3"
            tls.send(b"x")
    finally:
        thread.join(10)
