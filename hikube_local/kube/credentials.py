"""The endpoint's certificates and its token: made here, for this user alone, renewed when they grow old."""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from pathlib import Path

from hikube_local import files, locks
from hikube_local.paths import Layout
from hikube_local.records import dataclass

YEARS_CA, DAYS_SERVER, DAYS_LEFT = 10, 365, 30


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files of the endpoint. The CA's key lies beside them, so that a renewed certificate is still of the same CA."""

    ca: Path
    certificate: Path
    key: Path
    token: str


def ensure(layout: Layout) -> Credentials:
    """What there is, made or made anew where it is missing or ends within a month."""
    with locks.locked(layout.make().locks / "serve-credentials"):  # `serve` and `kubeconfig` may be first together
        return _ensure(files.make_folder(layout.serve, 0o700))


def _ensure(folder: Path) -> Credentials:
    ca, certificate, key, token = (folder / n for n in ("ca.crt", "server.crt", "server.key", "token"))
    if not (_good(ca) and certificate.exists() and key.exists()) or _ends_soon(certificate):
        _make(folder, ca, certificate, key)
    if not token.exists():
        files.write(token, secrets.token_urlsafe(32), 0o600)
    return Credentials(ca, certificate, key, token.read_text().strip())


def _ends_soon(path: Path) -> bool:
    from cryptography import x509

    try:
        end = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except ValueError:
        return True
    return end - datetime.datetime.now(datetime.UTC) < datetime.timedelta(days=DAYS_LEFT)


def _good(ca: Path) -> bool:
    """Whether it is there, lasts, and says what its key is for: strict clients (Python 3.13) take no other."""
    from cryptography import x509

    if not ca.exists() or _ends_soon(ca):
        return False
    try:
        x509.load_pem_x509_certificate(ca.read_bytes()).extensions.get_extension_for_class(x509.KeyUsage)
    except (ValueError, x509.ExtensionNotFound):
        return False
    return True


def _make(folder: Path, ca: Path, certificate: Path, key: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    pem = serialization.Encoding.PEM
    kept = folder / "ca.key"
    names = {
        part: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"hikube-local {part}")]) for part in ("CA", "serve")
    }
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)

    def build(part: str, public: CertificateIssuerPublicKeyTypes, days: int) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(names[part]).issuer_name(names["CA"]).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now)
        return made.not_valid_after(now + datetime.timedelta(days=days))

    def private(made: ec.EllipticCurvePrivateKey) -> bytes:
        return made.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    # The key stays, so whoever knows an earlier certificate of it (a kubeconfig) goes on believing what it signs.
    found = serialization.load_pem_private_key(kept.read_bytes(), None) if kept.exists() and ca.exists() else None
    issuer = found if isinstance(found, ec.EllipticCurvePrivateKey) else ec.generate_private_key(ec.SECP256R1())
    if issuer is not found or not _good(ca):
        own = build("CA", issuer.public_key(), 365 * YEARS_CA)
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        signs = dict.fromkeys(
            (
                *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
                *("key_agreement", "encipher_only", "decipher_only"),
            ),
            False,
        )
        own = own.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **signs), critical=True)
        own = own.add_extension(x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()), critical=False)
        files.write(kept, private(issuer), 0o600)
        files.write(ca, own.sign(issuer, hashes.SHA256()).public_bytes(pem), 0o600)
    server = ec.generate_private_key(ec.SECP256R1())
    addresses = [x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1")]
    leaf = build("serve", server.public_key(), DAYS_SERVER)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), critical=False)
    leaf = leaf.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
    files.write(key, private(server), 0o600)
    files.write(certificate, leaf.sign(issuer, hashes.SHA256()).public_bytes(pem), 0o600)
