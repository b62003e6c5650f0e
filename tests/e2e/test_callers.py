"""TLS, client certificates, API keys and capabilities, on a real server."""

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pdpapi.v1.administration_service_pb2 import ExportRequest
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest

from tests.kit.server import ServerProcess, stubs_on
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually
from tests.kit.wire.errors import error_info, rpc_error
from tests.kit.wire.tls import (
    CALLERS,
    KEY,
    OTHER_KEY,
    QUESTION,
    SPIFFE,
    Authority,
    bearer,
    tls_server,
)

CHECK = "/pdpapi.v1.PolicyDecisionService/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


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
                error = rpc_error(
                    lambda metadata=metadata: stubs.decision.Check(QUESTION, metadata=metadata)
                )
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert error_info(error).reason == "CALLER_UNAUTHENTICATED"
            error = rpc_error(
                lambda: stubs.administration.Export(ExportRequest(), metadata=bearer(KEY))
            )
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            assert error_info(error).metadata["capability"] == "administer"
            error = rpc_error(lambda: stubs.decision.Check(QUESTION, metadata=bearer(OTHER_KEY)))
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
            names = [service.name for service in next(known).list_services_response.service]
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
