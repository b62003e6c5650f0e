"""Servers with TLS, the certificates for them, and callers with API keys."""

import datetime
import hashlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit.server import ServerProcess

KEY, OTHER_KEY = "pdp_key-of-the-courses", "pdp_key-of-the-auditors"
SPIFFE = "spiffe://example.test/mesh"
QUESTION = CheckRequest(actor_token="x", permission="course:view")


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


CALLERS = [
    {"name": "courses", "api_key_sha256": digest(KEY)},
    {"name": "auditors", "api_key_sha256": digest(OTHER_KEY), "may": ["audit"]},
]


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


@dataclass
class Authority:
    """A certificate authority of one test."""

    name: str

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        self.certificate = self._sign(self.subject, self.key.public_key(), authority=True)

    def issue(self, *names: x509.GeneralName, client: bool = False) -> tuple[bytes, bytes]:
        """(private key, certificate), both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")])
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        certificate = self._sign(subject, key.public_key(), names=names, usage=usage)
        return (
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            certificate,
        )

    def _sign(
        self,
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        *,
        names: tuple[x509.GeneralName, ...] = (),
        usage: x509.ObjectIdentifier | None = None,
        authority: bool = False,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            # RFC 5280, which Python 3.13 is strict about.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if authority:
            signs = dict.fromkeys(("key_cert_sign", "crl_sign"), True)
            others = ("digital_signature", "content_commitment", "key_encipherment")
            others += ("data_encipherment", "key_agreement", "encipher_only", "decipher_only")
            usage_of_key = x509.KeyUsage(**signs, **dict.fromkeys(others, False))
            builder = builder.add_extension(usage_of_key, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)


def tls_server(directory: Path, authority: Authority, *, mtls: bool) -> ServerProcess:
    key, certificate = authority.issue(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    (directory / "server.key").write_bytes(key)
    (directory / "server.pem").write_bytes(certificate)
    (directory / "ca.pem").write_bytes(authority.certificate)
    tls = {
        "certificate_file": str(directory / "server.pem"),
        "private_key_file": str(directory / "server.key"),
    }
    callers: list[dict[str, object]] = [*CALLERS]
    if mtls:
        tls["client_ca_file"] = str(directory / "ca.pem")
        callers.append({"name": "mesh", "spiffe_id": SPIFFE})
    return ServerProcess(
        directory,
        {"TLS": tls, "CALLERS": callers},
        credentials=grpc.ssl_channel_credentials(authority.certificate),
    )
