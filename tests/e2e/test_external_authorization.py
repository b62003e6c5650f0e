"""A real Envoy with the configuration that we ship, in front of a real service: who passes."""

import copy
import hashlib
import json
import posixpath
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from pdp_routes import PUBLIC, RouteRefused, Routes
from pdpapi.v1.administration_service_pb2 import ApplyRequest
from pdpapi.v1.audit_service_pb2 import DecisionRecord, ListDecisionsRequest
from pdpapi.v1.core_pb2 import DecisionReason

from pdp.wire.external_auth_pb2 import AttributeContext, CheckRequest, CheckResponse
from tests.kit.ports import free_port
from tests.kit.server import ServerProcess, stubs_on, token_of
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually
from tests.kit.wire.front_envoy import (
    Headers,
    echo_service,
    running_envoy,
    send,
    send_http2,
    send_upgrade,
)

SHIPPED = Path(__file__).parents[2] / "deploy" / "envoy" / "ext-authz.yaml"
KEY = "pdp_key-of-envoy"
ROUTES = {
    "GET /courses/{id}": {"permission": "course:view", "resource": "course/{id}"},
    "PUT /courses/{id}": {"permission": "course:edit", "resource": "course/{id}"},
    "/admin/**": {"permission": "admin:access"},
    "/files/**": {"permission": "file:read"},
    "GET /chat": {"permission": "chat:join"},
    "GET /healthz": "public",
    "GET /inside": {"permission": "host:inside"},
}
POLICY = json.dumps(
    {
        "version": 1,
        "permissions": sorted(
            {
                "host:inside",
                *(route["permission"] for route in ROUTES.values() if route != "public"),
            }
        ),
        "roles": {
            "STUDENT": {
                "allow": [
                    *("course:view", "file:read", "chat:join"),
                    {
                        "permission": "host:inside",
                        "when": "context.http.host == 'inside.test'"
                        " && context.http.path == '/inside' && context.http.method == 'GET'",
                    },
                ]
            }
        },
        "users": [{"id": "user_sam"}, {"id": "user_eve"}],
        "organizations": [{"id": "org_school"}, {"id": "org_college"}],
        "memberships": [
            {"organization": "org_school", "user": "user_sam", "role": "org:member"},
        ],
        "grants": [{"role": "STUDENT", "user": "user_sam"}],
        "resources": [{"type": "course", "id": "été", "organization": "org_school"}],
        "routes": ROUTES,
    }
)


@dataclass(frozen=True)
class Front:
    """Envoy before the service: ports of listeners, each configured otherwise."""

    shipped: int
    """As in the file that we ship."""
    bare: int
    """Without what the file says of paths and headers, and with joined headers."""
    asgi: int
    """As shipped; the PDP is inside of another Envoy."""
    careless: int
    """Bare, lets errors pass, and the PDP has no database."""
    strange: int
    """Shipped, without the PDP's key."""
    down: int
    slow: int
    pdp: ServerProcess
    asgi_pdp: ServerProcess
    no_database: ServerProcess

    def records(self, pdp: ServerProcess | None = None, **query: Any) -> list[DecisionRecord]:
        with (pdp or self.pdp).channel() as channel:
            audit = stubs_on(channel).audit
            request = ListDecisionsRequest(page_size=1000, **query)
            return list(audit.ListDecisions(request, metadata=bearer(KEY)).decisions)


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


def server(directory: Path, **settings: Any) -> ServerProcess:
    directory.mkdir()
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    may = ["decide", "administer", "audit"]
    callers = [{"name": "envoy", "api_key_sha256": digest, "may": may}]
    return ServerProcess(directory, {"CALLERS": callers, **settings})


def managers(listener: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The connection manager of a listener, and its filter ext_authz."""
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager, manager["http_filters"][0]["typed_config"]


def port_of(thing: dict[str, Any]) -> dict[str, Any]:
    address: dict[str, Any] = thing["address"]["socket_address"]
    return address


def configuration(ports: dict[str, int], pdps: dict[str, int], service: int) -> dict[str, Any]:
    shipped = yaml.safe_load(SHIPPED.read_text())
    resources = shipped["static_resources"]
    [listener], [pdp, upstream] = resources["listeners"], resources["clusters"]
    resources["listeners"], resources["clusters"] = [], [upstream]
    endpoints = upstream["load_assignment"]["endpoints"][0]["lb_endpoints"]
    port_of(endpoints[0]["endpoint"])["port_value"] = service
    for name, port in pdps.items():
        cluster = copy.deepcopy(pdp)
        cluster["name"] = cluster["load_assignment"]["cluster_name"] = name
        endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        port_of(endpoints[0]["endpoint"])["port_value"] = port
        resources["clusters"].append(cluster)
    for name, port in ports.items():
        one = copy.deepcopy(listener)
        one["name"] = name
        port_of(one)["port_value"] = port
        manager, ext_authz = managers(one)
        cluster = {"shipped": "pdp", "bare": "pdp", "strange": "pdp"}.get(name, name)
        ext_authz["grpc_service"]["envoy_grpc"]["cluster_name"] = cluster
        if name != "slow":
            ext_authz["grpc_service"]["timeout"] = "10s"  # a busy machine is slow
        if name in {"bare", "careless"}:
            for key in (
                *("normalize_path", "merge_slashes", "path_with_escaped_slashes_action"),
                "common_http_protocol_options",
            ):
                del manager[key]
            del ext_authz["encode_raw_headers"]
        if name == "careless":
            ext_authz["failure_mode_allow"] = True
        if name == "strange":
            del ext_authz["grpc_service"]["initial_metadata"]
        resources["listeners"].append(one)
    return dict(shipped)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    directory = tmp_path_factory.mktemp("front")
    pdp, asgi = server(directory / "pdp"), server(directory / "asgi")
    nowhere = "postgresql://pdp@127.0.0.1:1/pdp"
    no_database = server(directory / "none", DATABASE_URL=nowhere)
    names = ("shipped", "bare", "asgi", "careless", "strange", "down", "slow")
    ports = {name: free_port() for name in names}
    with ExitStack() as stack:
        for started in (pdp, asgi, no_database):
            started.start(ready=False)
            stack.callback(started.stop)
        pdp.wait_until_ready()
        asgi.wait_until_ready()
        for started in (pdp, asgi):
            with started.channel() as channel:
                administration = stubs_on(channel).administration
                administration.Apply(ApplyRequest(document=POLICY), metadata=bearer(KEY))
        eventually(lambda: no_database.http("/healthz")[0] == 200, seconds=20)
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        pdps = {
            "pdp": pdp.port,
            "asgi": asgi.port,
            "careless": no_database.port,
            "down": free_port(),
            "slow": silent.getsockname()[1],
        }
        service = stack.enter_context(echo_service())
        config = configuration(ports, pdps, service)
        stack.enter_context(running_envoy(directory, config, list(ports.values()), PDP_API_KEY=KEY))
        front = Front(**ports, pdp=pdp, asgi_pdp=asgi, no_database=no_database)
        for port in (front.shipped, front.asgi):
            eventually(lambda port=port: send(port, "/healthz").status == 200)
        yield front


@pytest.fixture(params=["shipped", "bare", "asgi"])
def port(front: Front, request: pytest.FixtureRequest) -> int:
    """The port of a listener that lets allowed requests pass."""
    found: int = getattr(front, request.param)
    return found


def signed_in(user: str = "user_sam", **claims: Any) -> Headers:
    token = token_of(user, **{"organization_id": "org_school", **claims})
    return (("Authorization", f"Bearer {token}"),)


def reasons(records: Sequence[DecisionRecord]) -> list[str]:
    names = (DecisionReason.Name(record.reason) for record in records)
    return [name.removeprefix("DECISION_REASON_") for name in names]


def put_on_record(front: Front, request: str, pdp: ServerProcess | None = None) -> DecisionRecord:
    """The one record of a request, once it is there."""
    found: list[DecisionRecord] = []

    def is_there() -> bool:
        found[:] = [record for record in front.records(pdp) if record.request == request]
        return bool(found)

    eventually(is_there, what=request)
    [record] = found
    return record


# --- who it is ------------------------------------------------------------------------------------


def test_an_allowed_request_carries_its_actor(port: int) -> None:
    seen = send(port, "/courses/1?x=y", signed_in()).seen
    assert seen.target == "/courses/1?x=y"
    assert seen.values("x-pdp-user-id") == ["user_sam"]
    assert seen.values("x-pdp-session-id") == ["sess_1"]
    assert seen.values("x-pdp-organization-id") == ["org_school"]
    assert seen.values("x-pdp-impersonator-id") == []
    assert len(seen.values("x-pdp-decision-id")) == 1
    alone = send(port, "/courses/1", signed_in(organization_id=None)).seen
    assert alone.values("x-pdp-organization-id") == []
    acting = signed_in(claims={"act": {"sub": "user_eve"}})
    assert send(port, "/courses/1", acting).seen.values("x-pdp-impersonator-id") == ["user_eve"]


def test_a_request_without_a_valid_token_gets_401(port: int) -> None:
    answer = send(port, "/courses/1")
    assert (answer.status, answer.passed) == (401, False)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() == {"error", "decision_id"}
    assert answer.json()["error"] == "unauthenticated"
    assert send(port, "/nothing").status == send(port, "/a//b").status == 401


def test_a_denied_actor_gets_403(port: int) -> None:
    for target in ("/admin/users", "/nothing", "/courses/1/", "/Courses/1", "/admin"):
        answer = send(port, target, signed_in())
        assert (answer.status, answer.json()["error"], answer.passed) == (403, "forbidden", False)
    assert send(port, "/courses/1", signed_in("user_eve", organization_id=None)).status == 403
    head = send(port, "/admin/users", signed_in(), method="HEAD")
    assert (head.status, head.body) == (403, b"")


def test_the_token_comes_in_the_header_or_the_cookie(port: int) -> None:
    [(_, bearer_token)] = signed_in()
    token = bearer_token.removeprefix("Bearer ")
    cookie = ("Cookie", f"a=1; __session={token}; b=2")
    for headers, status in (
        ([("authorization", f"bEARER {token}")], 200),
        ([cookie], 200),
        ([("Cookie", "a=1"), cookie, ("Cookie", "c=3")], 200),
        ([("Authorization", "Basic dTpw"), cookie], 200),
        ([("Authorization", "Bearer x"), cookie], 401),
        ([("Authorization", f"Bearer {token}")] * 2, 401),
        ([("Authorization", f"Bearer {token}"), ("Authorization", "Basic dTpw"), cookie], 401),
        ([("Authorization", "Basic dTpw"), ("Authorization", f"Bearer {token}"), cookie], 401),
        ([cookie, cookie], 401),
        ([("Cookie", f"__session={token}; __session=x")], 401),
        ([("X-Forwarded-Authorization", f"Bearer {token}"), ("Proxy-Authorization", token)], 401),
    ):
        assert send(port, "/courses/1", headers).status == status, headers


OURS = ("user-id", "session-id", "organization-id", "impersonator-id", "decision-id", "role", "")
SPELLINGS: Sequence[Callable[[str], str]] = (
    str,
    str.upper,
    lambda name: name.replace("-", "_"),
    lambda name: name.replace("-", "_", 1),
    lambda name: name.replace("-", "."),
    lambda name: name.title().replace("-", "!"),
)
OVERRIDES = ("X-HTTP-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-URL")


@pytest.mark.parametrize("target", ["/healthz", "/courses/1"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_headers_of_the_actor_never_come_from_the_client(
    port: int, target: str, spelling: Callable[[str], str]
) -> None:
    """Identity headers of a gateway that a client could send, in one spelling or another."""
    names = [spelling(name) for name in (*(f"x-pdp-{name}" for name in OURS), *OVERRIDES)]
    forged = [(name, "user_eve") for name in names]
    answer = send(port, target, [*signed_in(), *forged, *forged])
    if not answer.passed:
        # As shipped, Envoy takes no underscore in a name.
        assert answer.status == 400
        assert any("_" in name for name in names)
        return
    seen = [name for name, _ in answer.seen.headers]
    folded = [re.sub(r"[^a-z0-9]", "-", name.lower()) for name in seen]
    assert not set(folded) & {name.lower() for name in OVERRIDES}
    expected = [f"x-pdp-{one}-id" for one in ("decision", "organization", "session", "user")]
    ours = sorted(name for name, fold in zip(seen, folded, strict=True) if fold.startswith("x-pdp"))
    assert ours == ([] if target == "/healthz" else expected)
    assert "user_eve" not in str(answer.seen)


def test_what_proxies_say_of_a_request_counts_for_nothing(port: int) -> None:
    headers = [
        *signed_in(),
        *(("X-Forwarded-Uri", "/healthz"), ("X-Envoy-Original-Path", "/healthz")),
        *(("X-Original-URI", "/healthz"), ("X-Forwarded-Prefix", "/healthz/..")),
        *(("X-Forwarded-Method", "GET"), ("X-Forwarded-Host", "inside.test")),
        *(("X-Forwarded-For", "127.0.0.1"), ("X-Envoy-Internal", "true")),
        ("X-Forwarded-Client-Cert", "URI=spiffe://example.test/admin"),
        ("X-Envoy-Auth-Partial-Body", "true"),
    ]
    for target in ("/admin/users", "/nothing", "/inside"):
        assert send(port, target, headers).status == 403


def test_conditions_read_the_request(port: int) -> None:
    assert send(port, "/inside?x", signed_in(), host="inside.test").status == 200
    assert send(port, "/inside", signed_in(), host="outside.test").status == 403
    assert send(port, "/inside", signed_in(), host="inside.test", method="HEAD").status == 403


# --- paths ----------------------------------------------------------------------------------------

PASSING = ["/files/x", "/files/", "/files", "/files/.../x", "/files/?/../admin", "/healthz?/admin"]
TRICKS = [
    *("//admin/x", "/./admin/x", "/files//../admin/x", "/files/../admin/x", "/admin/../files/x"),
    *("/files/%2e%2e/admin/x", "/files/.%2E/admin", "/files/..%2fadmin", "/%2fadmin", "/%2Fadmin"),
    *("/files/..%5cadmin", "/files/..\\admin", "/files\\..\\admin", "/\\admin", "/%5cadmin/x"),
    *("/files/..;/admin/x", "/files;/../admin", "/admin;x=1/y", "/files/x;x=1", "/healthz;/admin"),
    *(
        "/ADMIN/x",
        "/Admin/x",
        "/%61dmin/x",
        "/%41DMIN",
        "/admin/",
        "/admin",
        "/Files/x",
        "/HEALTHZ",
    ),
    *("/files/%252e%252e/admin", "/files/%25%32%65%25%32%65/admin", "/files/%c0%ae%c0%ae/admin"),
    *(
        "/files/%00",
        "/files/%0a",
        "/files/%0d%0ax",
        "/files/%7f",
        "/files/%",
        "/files/%zz",
        "/files/%2",
    ),
    *(
        "/files/%3f/../../admin",
        "/files/%23",
        "/files/#/../../admin",
        "/files/x#",
        "/healthz#/admin",
    ),
    *(
        "/healthz/",
        "/healthz/../admin/x",
        "/healthz%2f..%2fadmin",
        "/healthz/..%2fadmin",
        "/healthz//",
    ),
    *("/courses/..", "/courses/.", "/courses/%2e%2e", "/courses/a%2f..%2f..%2fadmin", "/courses/"),
    *("/courses/1/", "/courses//1", "/courses/1/../../admin/x", "/Courses/1", "/courses/\xe9"),
    *("http://service.test/admin/x", "http://x/files/../admin", "/http://service.test/admin", "*"),
    *(
        "admin/x",
        "files/../admin/x",
        "?/admin",
        "/?/../admin",
        "/files/%e2%81%84..",
        "/files/..%00/x",
    ),
    *("/files/ /admin", "/files/%20", "/admin%20/x", "/%20admin/x", "/files/%09", "/files/\x01"),
]
MAP = Routes(
    {
        route: needs if isinstance(needs, str) else needs["permission"]
        for route, needs in ROUTES.items()
    }
)
OF_SAM = {"course:view", "file:read", "chat:join"}


def lax(target: str) -> str:
    """The path as the most careless service reads it."""
    path = target
    for _ in range(3):
        path = unquote(path.partition("?")[0].partition("#")[0], "latin-1")
    path = re.sub(r";[^/]*", "", path.replace("\\", "/").replace("\0", ""))
    return posixpath.normpath("/" + path.replace(" ", "").lower().lstrip("/"))


@pytest.mark.parametrize("target", [*PASSING, *TRICKS])
def test_what_the_service_sees_is_what_was_allowed(port: int, target: str) -> None:
    """Whatever becomes of a path on the way: the service sees only what this user may, also
    if it reads paths with less care. With Envoy's normalisation and without."""
    answer = send(port, target, signed_in())
    if target in PASSING:
        assert answer.seen.target == target
    if not answer.passed:
        assert answer.status in {301, 307, 400, 403, 404}, answer
        return
    try:
        needs = MAP.match("GET", answer.seen.target)
    except RouteRefused as refused:
        pytest.fail(f"passed, but is refused: {answer.seen.target} ({refused})")
    assert needs is PUBLIC or needs.permission in OF_SAM
    assert not lax(answer.seen.target).startswith("/admin")


def test_without_envoys_normalisation_all_that_has_two_readings_is_refused(front: Front) -> None:
    tricks = [target for target in TRICKS if not target.startswith("http:")]
    passed = [target for target in tricks if send(front.bare, target, signed_in()).passed]
    assert passed == ["/files/%e2%81%84.."]  # U+2044: only looks like a slash


@pytest.mark.parametrize("target", [b"/files/\xff", b"/files/!", b"/files/x", b"/files/\xc3\xa9"])
def test_what_is_not_ascii_is_allowed_only_as_it_is_seen(front: Front, target: bytes) -> None:
    """In `path` Envoy replaces what is not UTF-8: `!` may stand for that."""
    status, seen = send_http2(front.bare, target, signed_in())
    assert (status, seen) == ((200, "/files/x") if target == b"/files/x" else (403, None))
    status, seen = send_http2(front.shipped, target, signed_in())
    assert seen in {None, "/files/x", "/files/!", "/files/%C3%A9"}
    assert (status == 200) is (seen is not None)


@pytest.mark.parametrize(
    ("method", "target", "passes"),
    [
        ("HEAD", "/courses/1", True),
        ("HEAD", "/healthz", True),
        ("POST", "/healthz", False),
        ("PUT", "/courses/1", False),
        ("get", "/courses/1", False),
        ("PURGE", "/courses/1", False),
        ("OPTIONS", "/courses/1", False),
        ("TRACE", "/courses/1", False),
        ("CONNECT", "service.test:80", False),
        ("PURGE", "/files/x", True),
    ],
)
def test_a_route_is_for_its_method(port: int, method: str, target: str, passes: bool) -> None:
    answer = send(port, target, signed_in(), method=method)
    assert answer.passed is passes, answer
    if passes:
        assert answer.seen.method == method


def test_a_websocket_opens_for_an_allowed_actor(port: int) -> None:
    answer, echo = send_upgrade(port, "/chat", signed_in(), b"hello")
    assert (answer.status, echo) == (101, b"hello")
    assert answer.seen.values("x-pdp-user-id") == ["user_sam"]
    assert send_upgrade(port, "/chat", (), b"hello")[0].status == 401
    assert send_upgrade(port, "/admin/chat", signed_in(), b"hello")[0].status == 403
    named = (*signed_in(), ("Connection", "X-Pdp-User-Id"), ("x-pdp-user-id", "user_eve"))
    seen = send_upgrade(port, "/chat", named, b"hello")[0].seen
    assert seen.values("x-pdp-user-id") == ["user_sam"]
    # Or a proxy behind Envoy would remove it.
    assert "pdp" not in "".join(seen.values("connection")).lower()


# --- no answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", ["down", "slow", "strange", "careless"])
def test_without_an_answer_nothing_passes(front: Front, listener: str) -> None:
    """Unreachable; silent; asked without a key; without its database, behind an Envoy that lets
    requests pass on errors."""
    watch = Stopwatch()
    for target, headers in (("/courses/1", signed_in()), ("/healthz", ()), ("/courses/1", ())):
        answer = send(getattr(front, listener), target, headers)
        assert (answer.status, answer.passed) == (503, False)
        if listener == "careless":
            assert answer.json() == {"error": "unavailable"}
            assert answer.headers["retry-after"] == "1"
            # A watcher of the PDP sees the failure, although Envoy got a denial.
            counted = 'pdp_rpc_seconds_count{code="UNAVAILABLE",method="Authorization/Check"}'
            assert counted in front.no_database.http("/metrics")[1]
    assert watch.seconds < 5


# --- on record ------------------------------------------------------------------------------------


def test_a_denial_is_in_the_audit_log(front: Front) -> None:
    for port, pdp in ((front.shipped, front.pdp), (front.asgi, front.asgi_pdp)):
        answer = send(port, "/admin/on-record?secret", signed_in(), method="DELETE")
        record = put_on_record(front, "DELETE /admin/on-record", pdp)
        assert record.decision_id == answer.json()["decision_id"]
        assert (record.permission, record.caller) == ("admin:access", "envoy")
        assert record.actor.user_id == "user_sam"
        unknown = send(port, "/unknown%0d%0aGET", signed_in())
        record = put_on_record(front, "GET /unknown%0d%0aGET", pdp)
        assert record.decision_id == unknown.json()["decision_id"]
        assert reasons([record]) == ["PATH_AMBIGUOUS"]
        assert record.permission == "http:request"
        send(port, "/courses/%C3%A9t%C3%A9", signed_in(), method="PUT")
        record = put_on_record(front, "PUT /courses/%C3%A9t%C3%A9", pdp)
        assert (record.resource.type, record.resource.id) == ("course", "été")
        assert "secret" not in str(front.records(pdp))


def test_a_client_that_leaves_at_any_moment_leaves_nothing_behind(front: Front) -> None:
    """An authorization that ends before its answer was taken."""
    moments = [moment / 4000 for moment in range(24)]
    for port, pdp in ((front.shipped, front.pdp), (front.asgi, front.asgi_pdp)):
        for number, moment in enumerate(moments):
            leave(port, f"/admin/left-{number}", moment)
            leave(port, f"/nothing/left-{number}", moment)
        assert send(port, "/courses/1", signed_in()).passed
        send(port, "/admin/after", signed_in())
        put_on_record(front, "GET /admin/after", pdp)
        left = [record.request for record in front.records(pdp) if "/left-" in record.request]
        assert 0 < len(set(left)) == len(left) <= 2 * len(moments)
        assert '"bug"' not in pdp.log()
        assert "Task exception" not in pdp.log()
        assert "Traceback" not in pdp.log()


def leave(port: int, target: str, after_seconds: float) -> None:
    """Sends a request and closes the connection by a reset, whatever has come by then."""
    [(name, value)] = signed_in()
    head = f"GET {target} HTTP/1.1\r\nhost: x\r\n{name}: {value}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode())
        time.sleep(after_seconds)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_an_answered_denial_is_in_the_log_although_the_pdp_is_killed(tmp_path: Path) -> None:
    pdp = server(tmp_path / "pdp")
    pdp.start()
    http = AttributeContext.HttpRequest(method=b"GET", path=b"/killed", host=b"x")
    request = CheckRequest(attributes=AttributeContext(request=AttributeContext.Request(http=http)))
    with pdp.channel() as channel:
        check = channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            CheckRequest.SerializeToString,
            CheckResponse.FromString,
        )
        response = check(request, metadata=bearer(KEY), timeout=5)
        pdp.kill()
    assert response.denied_response.status.code == 401
    pdp.start()
    try:
        with pdp.channel() as channel:
            audit = stubs_on(channel).audit

            def notified() -> bool:
                listed = audit.ListDecisions(ListDecisionsRequest(), metadata=bearer(KEY))
                return [decision.request for decision in listed.decisions] == ["GET /killed"]

            eventually(notified)
    finally:
        pdp.stop()
