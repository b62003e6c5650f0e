"""TLS, client certificates, API keys and capabilities, on a real server."""

import datetime
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pdpapi.v1.administration_service_pb2 import ExportRequest
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.e2e.test_check import error_info, refusal
from tests.kit.server import ServerProcess, stubs_on
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

CHECK = "/pdpapi.v1.PolicyDecisionService/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
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
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)


def tls_server(directory: Path, authority: Authority, *, mtls: bool) -> ServerProcess:
    import ipaddress

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


def test_api_keys_reach_what_their_caller_may_and_nothing_else(tmp_path: Path) -> None:
    server = tls_server(tmp_path, Authority("one"), mtls=False)
    server.start()
    try:
        with server.channel() as channel:
            stubs = stubs_on(channel)
            answer = stubs.decision.Check(QUESTION, metadata=bearer(KEY), timeout=10)
            assert answer.decision_id
            stubs.audit.ListDecisions(
                ListDecisionsRequest(), metadata=bearer(OTHER_KEY), timeout=10
            )
            for metadata in ((), bearer("wrong"), (("x-pdp-caller", "courses"),)):
                error = refusal(
                    lambda metadata=metadata: stubs.decision.Check(QUESTION, metadata=metadata)
                )
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert error_info(error).reason == "CALLER_UNAUTHENTICATED"
            error = refusal(
                lambda: stubs.administration.Export(ExportRequest(), metadata=bearer(KEY))
            )
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            assert error_info(error).metadata["capability"] == "administer"
            error = refusal(lambda: stubs.decision.Check(QUESTION, metadata=bearer(OTHER_KEY)))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert KEY not in server.log()
        asked = server.pdp(
            *("check", "course:view", "--token", "x", "--api-key", KEY, "--ca"),
            str(tmp_path / "ca.pem"),
        )
        assert "TOKEN_MALFORMED" in asked.stdout, asked.stderr
        listed = server.pdp(
            *("audit", "list", "--api-key", OTHER_KEY, "--ca", str(tmp_path / "ca.pem"), "--json")
        )
        assert '"caller": "courses"' in listed.stdout, listed.stderr
    finally:
        server.stop()


def test_a_stranger_holds_no_thread(tmp_path: Path) -> None:
    """Calls that never send their message, and reflection streams that are left open."""
    server = ServerProcess(tmp_path, {"CALLERS": CALLERS, "THREADS": "4"})
    server.start()
    try:
        with server.channel() as channel:
            stubs = stubs_on(channel)
            paths = [
                CHECK,
                "/grpc.health.v1.Health/Check",
                REFLECTION,
                "/grpc.health.v1.Health/Watch",
            ]
            # Kept, because gRPC cancels a call that nobody holds.
            held = [channel.stream_stream(path)(endless(), timeout=60) for path in paths * 10]
            for _ in range(20):
                watch = Stopwatch()
                stubs.decision.Check(QUESTION, metadata=bearer(KEY), timeout=60)
                assert watch.seconds < 2
            probe = health_pb2_grpc.HealthStub(channel)
            watch = Stopwatch()
            eventually(
                lambda: (
                    probe.Check(health_pb2.HealthCheckRequest(), timeout=60).status
                    == health_pb2.HealthCheckResponse.SERVING
                )
            )
            assert watch.seconds < 5
            known = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")]),
                metadata=bearer(KEY),
                timeout=60,
            )
            names = [one.name for one in next(known).list_services_response.service]
            assert "pdpapi.v1.PolicyDecisionService" in names
            assert len(held) == 40
    finally:
        server.stop()


def endless() -> Iterator[bytes]:
    """A message that never comes, until the call ends."""
    threading.Event().wait(30)
    yield b""


def test_a_client_certificate_names_its_caller(tmp_path: Path) -> None:
    authority = Authority("one")
    server = tls_server(tmp_path, authority, mtls=True)

    def ask(key: bytes | None, certificate: bytes | None) -> grpc.StatusCode:
        server.credentials = grpc.ssl_channel_credentials(authority.certificate, key, certificate)
        with server.channel() as channel:
            try:
                stubs_on(channel).decision.Check(QUESTION, timeout=10)
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

    server.start()
    try:
        good = authority.issue(x509.UniformResourceIdentifier(SPIFFE), client=True)
        assert ask(*good) is grpc.StatusCode.OK
        other = authority.issue(x509.UniformResourceIdentifier(SPIFFE + "/x"), client=True)
        assert ask(*other) is grpc.StatusCode.UNAUTHENTICATED
        for stranger in (
            (None, None),
            Authority("two").issue(x509.UniformResourceIdentifier(SPIFFE), client=True),
            authority.issue(x509.UniformResourceIdentifier(SPIFFE), client=False),
        ):
            assert ask(*stranger) is grpc.StatusCode.UNAVAILABLE, "the handshake was refused"
    finally:
        server.stop()


@pytest.mark.parametrize("settings", [{"LISTEN": "0.0.0.0:0"}, {"LISTEN": "[::]:0"}])
def test_beyond_loopback_nothing_starts_without_callers(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    server = ServerProcess(tmp_path, settings)
    done = server.pdp("serve")
    assert done.returncode == 2
    assert "--insecure" in done.stderr
