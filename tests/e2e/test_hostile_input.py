"""Nothing that a stranger sends makes the process die, hang, answer wrongly or speak too much."""

import socket
import struct

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit.school import ALGEBRA, ORGANIZATION, ask, reason_of
from tests.kit.server import ServerProcess, Stubs, token_of
from tests.kit.stall import Stopwatch
from tests.kit.wire.errors import rpc_error
from tests.kit.wire.varints import varint

CHECK = "/pdpapi.v1.PolicyDecisionService/Check"


def send(stubs: Stubs, raw: bytes, path: str = CHECK) -> bytes:
    call = stubs.channel.unary_unary(path, request_serializer=None, response_deserializer=None)
    answer: bytes = call(raw, timeout=10)
    return answer


@pytest.fixture(autouse=True)
def _still_answers(stubs: Stubs, server: ServerProcess) -> object:
    yield
    assert reason_of(ask(stubs, "user_ivan", "course:edit")) == "ALLOWED_BY_RULE"
    assert server.process is not None
    assert server.process.poll() is None
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    "path",
    [
        "/pdpapi.v1.PolicyDecisionService/check",
        "/pdpapi.v1.policydecisionservice/Check",
        "/pdpapi.v1.PolicyDecisionService/Check/",
        "//pdpapi.v1.PolicyDecisionService/Check",
        "/pdpapi.v1.PolicyDecisionService%2fCheck",
        "/pdpapi.v1.PolicyDecisionService/Nothing",
        "/pdpapi.v1.PolicyAdministrationService/../PolicyDecisionService/Check",
    ],
)
def test_a_path_that_is_not_a_method_exactly_is_unimplemented(stubs: Stubs, path: str) -> None:
    """gRPC-Go CVE-2026-33186: paths that deny rules did not see."""
    error = rpc_error(lambda: send(stubs, b"", path))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def nested_groups(levels: int) -> bytes:
    return b"\x53" * levels + b"\x54" * levels


def nested_values(levels: int) -> bytes:
    """CheckRequest.context: lists within lists, built by hand from the inside out."""
    value = b"\x20\x01"
    for _ in range(levels):
        value = b"\x32" + varint(len(inner := b"\x0a" + varint(len(value)) + value)) + inner
    entry = b"\x0a\x01a\x12" + varint(len(value)) + value
    fields = b"\x0a" + varint(len(entry)) + entry
    return b"\x22" + varint(len(fields)) + fields


@pytest.mark.parametrize(
    "raw",
    [
        nested_groups(10_000),
        nested_values(60),
        nested_values(1_000),
        nested_values(10_000),
        b"\xff" * 100,
        b"\x12\x02\xff\xfe",  # permission: not UTF-8
        b"\x0a\x04\xed\xa0\x80a",  # actor_token: a lone surrogate
    ],
    ids=["groups", "60 lists", "1000 lists", "10000 lists", "garbage", "not UTF-8", "surrogate"],
)
def test_bytes_that_are_no_question_are_an_invalid_argument(stubs: Stubs, raw: bytes) -> None:
    """CVE-2025-4565 and CVE-2026-0994 (recursion), Envoy CVE-2023-27488 (not UTF-8)."""
    watch = Stopwatch()
    error = rpc_error(lambda: send(stubs, raw))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert watch.seconds < 2


def test_a_context_too_deep_or_too_wide_is_refused_by_name(stubs: Stubs) -> None:
    """CVE-2022-1941: many small keys."""
    error = rpc_error(lambda: send(stubs, b"\x12\x03a:b" + nested_values(20)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    wide = Struct()
    wide.update({f"k{i}": True for i in range(2_000)})
    error = rpc_error(lambda: stubs.decision.Check(CheckRequest(permission="a:b", context=wide)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_check_larger_than_its_bound_is_refused(stubs: Stubs) -> None:
    """CVE-2024-11407 was in the handling of large messages; ours are bounded and copied."""
    error = rpc_error(lambda: send(stubs, b"\x0a" + varint(300_000) + b"x" * 300_000))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    error = rpc_error(lambda: send(stubs, b"x" * (4 * 1024 * 1024 + 1)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_token_longer_than_its_bound_is_a_denial(stubs: Stubs) -> None:
    response = stubs.decision.Check(
        CheckRequest(actor_token="a" * (8 * 1024 + 1), permission="course:view")
    )
    assert reason_of(response) == "TOKEN_MALFORMED"


def test_metadata_larger_than_its_bound_is_refused(stubs: Stubs) -> None:
    error = rpc_error(
        lambda: stubs.decision.Check(
            CheckRequest(permission="a:b"), metadata=(("x-large", "y" * 64_000),)
        )
    )
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "identifier",
    ["a:b", "a/b#c@d|e", "%", "_", "\\", "'; DROP TABLE users; --", "ünïcödé", "\u200b", "a" * 256],
)
def test_odd_identifiers_are_names_like_any_other(stubs: Stubs, identifier: str) -> None:
    """OpenFGA CVE-2026-48096: separators within identifiers."""
    attributes = Struct()
    attributes.update({"owner": "user_ivan"})
    from pdpapi.v1.core_pb2 import Resource

    odd = Resource(
        type="course", id=identifier, organization_id=ORGANIZATION, attributes=attributes
    )
    assert reason_of(ask(stubs, "user_ivan", "course:edit", odd)) == "ALLOWED_BY_RULE"


def test_a_peer_that_speaks_no_http2_disturbs_nobody(server: ServerProcess, stubs: Stubs) -> None:
    for opening in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 4096, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as peer:
            peer.sendall(opening)
            peer.sendall(struct.pack(">IBI", 0xFFFFFF00, 9, 1))


def test_no_secret_reaches_a_log_a_metric_or_an_error(server: ServerProcess, stubs: Stubs) -> None:
    """gRPC-Go GHSA-xr7q: tokens in logs by way of metadata; at debug level, errors included."""
    canary = "canary0123456789"
    secrets = [
        token_of("user_sam", organization_id=ORGANIZATION, claims={"secret": canary}),
        token_of("user_sam", claims={"exp": 1}),
        f"{canary}.{canary}.{canary}",
        canary,
    ]
    said = ""
    for token in secrets:
        for permission in ("course:view", "course:edit", "", "x" * 300):
            request = CheckRequest(actor_token=token, permission=permission, resource=ALGEBRA)
            try:
                said += str(
                    stubs.decision.Check(
                        request, metadata=(("authorization", f"Bearer {canary}"),), timeout=10
                    )
                )
            except grpc.RpcError as error:
                said += str(error)
    said += server.log() + server.http("/metrics")[1]
    said += server.pdp("audit", "list", "--json", "--limit", "1000").stdout
    for segment in (server.directory / "audit").rglob("*"):
        if segment.is_file():
            said += segment.read_bytes().decode(errors="replace")
    for token in secrets:
        assert token not in said
        assert token.rpartition(".")[2] not in said
    assert canary not in said
