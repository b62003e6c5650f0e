"""curl asks every unary method, by JSON or protobuf, and web pages ask none."""

import gzip
import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from pdpapi.v1.core_pb2 import Decision, Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest, CheckResponse

from tests.kit.school import ORGANIZATION
from tests.kit.server import ServerProcess, running_server, token_of
from tests.kit.wire.curl import Answer, body_of, curl, is_installed
from tests.kit.wire.tls import SPIFFE, Authority, tls_server

pytestmark = pytest.mark.skipif(
    not is_installed() and "CI" not in os.environ, reason="curl is not installed"
)

CHECK = "/pdpapi.v1.PolicyDecisionService/Check"
BATCH = "/pdpapi.v1.PolicyDecisionService/BatchCheck"
GRANT = "/pdpapi.v1.PolicyAdministrationService/CreateGrant"
KEY, OTHER_KEY = "pdp_key-of-the-courses", "pdp_key-of-the-auditors"
JSON = ("-H", "Content-Type: application/json")
PROTO = ("-H", "Content-Type: application/proto")
H2C = "--http2-prior-knowledge"


def url(server: ServerProcess, path: str = CHECK) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def question(user: str = "user_ivan", permission: str = "course:edit") -> dict[str, Any]:
    return {
        "actorToken": token_of(user, organization_id=ORGANIZATION),
        "permission": permission,
        "resource": {"type": "course", "id": "algebra"},
    }


def asked(server: ServerProcess, *arguments: str, **fields: Any) -> Answer:
    return curl(url(server), *JSON, *arguments, data=body_of({**question(), **fields}))


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["--http1.1", H2C])
def test_json_is_answered_by_json(server: ServerProcess, version: str) -> None:
    answer = curl(url(server), version, *JSON, data=body_of(question()))
    assert (answer.status, answer.version) == (200, "2" if version == H2C else "1.1")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["decision"] == "DECISION_ALLOW"
    assert answer.json["reason"] == "DECISION_REASON_ALLOWED_BY_RULE"
    assert answer.json["decisionId"]


@pytest.mark.parametrize("version", ["--http1.1", H2C])
def test_protobuf_is_answered_by_protobuf(server: ServerProcess, version: str) -> None:
    request = CheckRequest(
        actor_token=token_of("user_ivan", organization_id=ORGANIZATION),
        permission="course:edit",
        resource=Resource(type="course", id="algebra"),
    )
    answer = curl(url(server), version, *PROTO, data=request.SerializeToString())
    assert (answer.status, answer.headers["content-type"]) == (200, "application/proto")
    assert CheckResponse.FromString(answer.body).decision == Decision.DECISION_ALLOW


@pytest.mark.parametrize("version", ["--http1.1", H2C])
def test_a_denial_is_an_answer_and_no_error(server: ServerProcess, version: str) -> None:
    for fields in (question("user_sam"), {**question(), "actorToken": "x"}):
        answer = curl(url(server), version, *JSON, data=body_of(fields))
        assert (answer.status, answer.json["decision"]) == (200, "DECISION_DENY")


def test_every_unary_service_answers(server: ServerProcess) -> None:
    items = {"actorToken": question()["actorToken"], "items": [{"permission": "course:edit"}]}
    assert len(curl(url(server, BATCH), *JSON, data=body_of(items)).json["results"]) == 1
    for path in (
        "/pdpapi.v1.PolicyAdministrationService/ListRoles",
        "/pdpapi.v1.AuditService/ListDecisions",
        "/grpc.health.v1.Health/Check",
    ):
        assert curl(url(server, path), *JSON, data=b"{}").status == 200


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"[]",
        b"{",
        b'{"permission": 1}',
        b'{"unknown": 1}',
        b'{"permission": "a:b", "permission": "a:c"}',
        b'{"permission": NaN}',
        b'{"resource": ' + b'{"attributes": ' * 500 + b"1" + b"}" * 501,
        b"\xff",
    ],
)
def test_what_is_not_the_json_of_a_request_is_invalid(server: ServerProcess, data: bytes) -> None:
    answer = curl(url(server), *JSON, data=data)
    assert (answer.status, answer.json["code"]) == (400, "invalid_argument")
    assert answer.reason() == "REQUEST_INVALID"
    assert answer.headers["content-type"] == "application/json"


def test_bytes_that_are_not_protobuf_are_invalid(server: ServerProcess) -> None:
    answer = curl(url(server), *PROTO, data=b"\xff\xff")
    assert (answer.status, answer.reason()) == (400, "REQUEST_INVALID")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        CHECK + "x",
        CHECK + "?x=1",
        CHECK.lower(),
        "/" + CHECK,
        CHECK.replace("Check", "%43heck"),
        "/pdpapi.v1.ChangeService/Watch",
    ],
)
def test_what_is_no_unary_method_is_not_found(server: ServerProcess, path: str) -> None:
    answer = curl(url(server, path), "--path-as-is", *JSON, data=b"{}")
    assert (answer.status, answer.json["code"]) == (404, "unimplemented")


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_every_other_verb_is_refused(server: ServerProcess, verb: str) -> None:
    """A preflight of a web page among them: no header of CORS answers it."""
    preflight = ("-H", "Origin: http://evil.example", "-H", "Access-Control-Request-Method: POST")
    for more in ((), preflight):
        answer = curl(url(server), "-X", verb, *JSON, *more, data=body_of(question()))
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert not any(name.startswith("access-control-") for name in answer.headers)
    assert curl(url(server), "--head").status == 405


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain; application/json",
        "application/json; charset=utf-16",
        "application/json, text/plain",
        "application/jsonp",
        "application/connect+json",
        "application/grpc",
        "application/grpc-web+proto",
        "",
    ],
)
def test_every_other_content_type_is_refused(server: ServerProcess, content_type: str) -> None:
    """A form of a web page can send the first three without asking anybody. gRPC needs HTTP/2."""
    header = f"Content-Type: {content_type}" if content_type else "Content-Type:"
    answer = curl(url(server, GRANT), "--http1.1", "-H", header, data=b'{"grant": {}}')
    assert answer.status == 415
    assert "application/json" in answer.headers["accept-post"]


def test_a_timeout_is_honoured(server: ServerProcess) -> None:
    assert asked(server, "-H", "Connect-Timeout-Ms: 5000").status == 200
    late = asked(server, "-H", "Connect-Timeout-Ms: 0")
    assert (late.status, late.json["code"]) == (504, "deadline_exceeded")
    far = asked(server, "-H", "Connect-Timeout-Ms: 50", atLeastRevision="1000000000")
    assert far.status in {503, 504}
    for value in ("x", "-1", "1.5", "1" * 11, "1s"):
        assert asked(server, "-H", f"Connect-Timeout-Ms: {value}").status == 400


def test_gzip_is_read_within_the_bound_and_nothing_else_is(server: ServerProcess) -> None:
    data = body_of(question())
    encoding = ("-H", "Content-Encoding: gzip")
    assert curl(url(server), *JSON, *encoding, data=gzip.compress(data)).status == 200
    assert curl(url(server), *JSON, *encoding, data=data).status == 400
    bomb = gzip.compress(b" " * 50_000_000)
    answer = curl(url(server), *JSON, *encoding, data=bomb)
    assert (answer.status, answer.reason()) == (429, "LIMIT_EXCEEDED")
    for other in ("br", "deflate", "x"):
        answer = curl(url(server), *JSON, "-H", f"Content-Encoding: {other}", data=data)
        assert (answer.status, answer.json["code"]) == (501, "unimplemented")


@pytest.mark.parametrize("version", ["--http1.1", H2C])
@pytest.mark.parametrize("framing", [(), ("-H", "Transfer-Encoding: chunked")])
def test_a_body_beyond_its_bound_is_refused(
    server: ServerProcess, version: str, framing: tuple[str, ...]
) -> None:
    if version == H2C:
        framing = ()
    data = body_of({**question(), "permission": "a" * 300_000})
    answer = curl(url(server), version, *JSON, *framing, data=data)
    assert (answer.status, answer.json["code"]) == (429, "resource_exhausted")
    assert answer.reason() == "LIMIT_EXCEEDED"


def test_headers_beyond_their_bound_are_refused(server: ServerProcess) -> None:
    answer = asked(server, "-H", f"X-Large: {'x' * 20_000}")
    assert (answer.status, answer.reason()) == (429, "LIMIT_EXCEEDED")


# --- callers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    callers = [
        {"name": "courses", "api_key_sha256": hashlib.sha256(KEY.encode()).hexdigest()},
        {
            "name": "auditors",
            "api_key_sha256": hashlib.sha256(OTHER_KEY.encode()).hexdigest(),
            "may": ["audit"],
        },
    ]
    with running_server(tmp_path_factory.mktemp("callers"), CALLERS=callers) as (server, _):
        yield server


def test_callers_prove_themselves_by_their_key(with_callers: ServerProcess) -> None:
    server = with_callers
    key = ("-H", f"Authorization: Bearer {KEY}")
    assert asked(server, *key).status == 200
    for wrong in ((), ("-H", "Authorization: Bearer x"), ("-H", f"Authorization: {KEY}")):
        answer = asked(server, *wrong)
        assert (answer.status, answer.json["code"]) == (401, "unauthenticated")
        assert answer.reason() == "CALLER_UNAUTHENTICATED"
    other = asked(server, "-H", f"Authorization: Bearer {OTHER_KEY}")
    assert (other.status, other.json["code"]) == (403, "permission_denied")
    assert KEY not in server.log()


def test_callers_may_use_any_name_of_the_host_and_web_pages_still_none(
    with_callers: ServerProcess,
) -> None:
    key = ("-H", f"Authorization: Bearer {KEY}")
    assert asked(with_callers, *key, "-H", "Host: pdp.internal").status == 200
    assert asked(with_callers, *key, "-H", "Origin: http://pdp.internal").status == 403


# --- web pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["--http1.1", H2C])
@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:50051", "LocalHost", "localhost.", "LOCALHOST.:1"),
        *("127.0.0.1", "127.0.0.2:1", "[::1]", "[::1]:50051"),
    ],
)
def test_without_callers_the_loopback_names_are_answered(
    server: ServerProcess, version: str, host: str
) -> None:
    assert asked(server, version, "-H", f"Host: {host}").status == 200


@pytest.mark.parametrize("version", ["--http1.1", H2C])
@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:50051", "127.0.0.1.evil.example", "localhost.evil.example"),
        *(
            "10.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "[::]",
            "[fe80::1]",
            "localhost..",
            "a.localhost",
        ),
        *("2130706433", "127.1", "0x7f.0.0.1"),
    ],
)
def test_without_callers_no_other_name_is(server: ServerProcess, version: str, host: str) -> None:
    """DNS rebinding: a name of the attacker's that leads to this machine."""
    answer = asked(server, version, "-H", f"Host: {host}")
    assert (answer.status, answer.json["code"]) == (403, "permission_denied")


@pytest.mark.parametrize("version", ["--http1.1", H2C])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:50051"])
def test_a_request_of_a_web_page_is_refused(
    server: ServerProcess, version: str, origin: str
) -> None:
    """Also of a page that this machine serves: none has any business here."""
    answer = asked(server, version, "-H", f"Origin: {origin}" if origin else "Origin;")
    assert (answer.status, answer.json["code"]) == (403, "permission_denied")
    assert not any(name.startswith("access-control-") for name in answer.headers)


# --- what is not quite HTTP -----------------------------------------------------------------------


def exchanged(server: ServerProcess, *lines: str, body: bytes = b"") -> bytes:
    """The whole answer to these bytes, until the server closes the connection."""
    head = "\r\n".join([f"POST {CHECK} HTTP/1.1", "Content-Type: application/json", *lines, "", ""])
    return sent(server, head.encode() + body)


def sent(server: ServerProcess, data: bytes) -> bytes:
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as peer:
        peer.sendall(data)
        with suppress(ConnectionError):
            while chunk := peer.recv(65536):
                received += chunk
    return received


HOST = "Host: 127.0.0.1"


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Host: evil.example", HOST),
        (HOST, "Content-Length: 2", "Content-Length: 3"),
        (HOST, "Content-Length: -2"),
        (HOST, "Content-Length: 2", "Transfer-Encoding: chunked"),
        (HOST, "Transfer-Encoding: x"),
        (HOST, "Content-Length : 2"),
        (HOST, " folded"),
    ],
)
def test_a_request_with_two_readings_is_refused_and_ends_the_connection(
    server: ServerProcess, lines: tuple[str, ...]
) -> None:
    assert exchanged(server, *lines, body=b"{}").startswith(b"HTTP/1.1 400 ")


def test_a_request_names_the_host_in_every_version(server: ServerProcess) -> None:
    for version in ("1.0", "1.1"):
        head = f"POST {CHECK} HTTP/{version}\r\nContent-Type: application/json\r\n"
        data = f"{head}Content-Length: 2\r\n\r\n{{}}".encode()
        assert sent(server, data).startswith(b"HTTP/1.1 400 ")


def test_the_target_does_not_name_another_host(server: ServerProcess) -> None:
    target = f"POST http://evil.example{CHECK} HTTP/1.1\r\nContent-Type: application/json\r\n"
    for host in ("127.0.0.1", "evil.example"):
        data = f"{target}Host: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        assert sent(server, data).split()[1] in {b"400", b"403"}


def test_a_length_that_lies_is_not_believed(server: ServerProcess) -> None:
    data = body_of(question())
    with ThreadPoolExecutor(2) as pool:  # the server waits some seconds for the rest of each
        longer, shorter = pool.map(
            lambda length: exchanged(server, HOST, f"Content-Length: {length}", body=data),
            (len(data) + 10, len(data) - 1),
        )
    assert b" 200 " not in longer.split(b"\r\n")[0], "a body that never ends is not answered"
    first, *others = shorter.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"400 ")
    assert all(other.startswith(b"400 ") for other in others), "the rest is no request"


def test_a_client_that_waits_before_the_body_gets_100_continue(server: ServerProcess) -> None:
    for version in ("--http1.1", H2C):
        assert asked(server, version, "-H", "Expect: 100-continue").status == 200


def test_nothing_of_this_is_a_bug(server: ServerProcess) -> None:
    log = server.log()
    assert "Traceback" not in log
    assert '"bug"' not in log


def test_a_unix_socket_is_asked_likewise(tmp_path: Path) -> None:
    listen = tmp_path / "pdp.sock"
    server = ServerProcess(tmp_path, {"LISTEN": f"unix:{listen}"})
    server.start()
    try:
        assert listen.stat().st_mode & 0o777 == 0o660
        path = ("--unix-socket", str(listen))
        health = "/grpc.health.v1.Health/Check"
        assert curl(f"http://localhost{health}", *JSON, *path, data=b"{}").status == 200
        assert curl(f"http://evil.example{health}", *JSON, *path, data=b"{}").status == 403
    finally:
        server.stop()


def test_a_client_certificate_names_the_caller_here_too(tmp_path: Path) -> None:
    authority = Authority("one")
    server = tls_server(tmp_path, authority, mtls=True)
    key, certificate = authority.issue(x509.UniformResourceIdentifier(SPIFFE), client=True)
    (tmp_path / "client.key").write_bytes(key)
    (tmp_path / "client.pem").write_bytes(certificate)
    ca = ("--cacert", str(tmp_path / "ca.pem"))
    proof = ("--cert", str(tmp_path / "client.pem"), "--key", str(tmp_path / "client.key"))
    server.start()
    try:
        for version in ("--http1.1", "--http2"):
            answer = curl(
                f"https://127.0.0.1:{server.port}{CHECK}",
                *(version, *ca, *proof, *JSON),
                data=body_of(question()),
            )
            assert (answer.status, answer.version) == (200, version.removeprefix("--http"))
            with pytest.raises(subprocess.CalledProcessError):
                curl(f"https://127.0.0.1:{server.port}{CHECK}", version, *ca, *JSON, data=b"{}")
    finally:
        server.stop()
