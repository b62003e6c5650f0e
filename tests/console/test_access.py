"""Who gets in: sessions, permissions, forms and hosts."""

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import grpc
import httpx
import pytest
from pdpapi.v1.administration_service_pb2 import (
    USER_STATUS_DISABLED,
    CreateGrantRequest,
    CreateUserRequest,
    DeleteGrantRequest,
    Grant,
    RevokeSessionRequest,
    UpdateUserRequest,
    User,
)
from pdpapi.v1.core_pb2 import DECISION_ALLOW, DECISION_DENY, DecisionReason
from pydantic import ValidationError

from examples.company import ANALYST
from pdp.console.parts import CALLER
from pdp.console.sign_in import SIGN_IN_CALLER
from pdp.settings import CallerSettings
from tests.kit.console import OUTSIDER, Console, Visitor, recorded
from tests.kit.server import ServerProcess, token_of
from tests.kit.tokens import signing_key
from tests.kit.waiting import eventually

PAGES = (
    *("/", "/decisions", "/people", "/user?id=user_harbor_1", "/policy", "/try"),
    *("/reviews", "/review?list=unused&as=csv", "/campaign/report?id=x", "/changes", "/proof?id=x"),
)


@pytest.mark.parametrize("path", PAGES)
def test_without_a_session_every_page_leads_to_the_sign_in(console: Console, path: str):
    answer = console.client().get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sign-in?next=%2F")
    assert "harbor" not in answer.text


def test_a_session_token_with_the_permission_begins_a_session(console: Console):
    visitor = console.client()
    answer = visitor.sign_in(token_of(ANALYST), next="/decisions?decision=deny")
    assert answer.headers["location"] == "/decisions?decision=deny"
    (cookie,) = [one for one in answer.headers.get_list("set-cookie") if "pdp-console" in one]
    assert {"httponly", "samesite=strict", "path=/"} <= {
        part.strip().lower() for part in cookie.split(";")
    }
    assert visitor.get("/decisions").status_code == 200


def test_the_use_of_the_console_is_logged_and_so_is_an_allow(console: Console):
    visitor = console.signed_in()
    assert visitor.get("/policy").status_code == 200
    record = recorded(
        console, "policy", user_id=ANALYST, caller="pdp:console", decision=DECISION_ALLOW
    )
    assert (record.permission, record.request) == ("console:view", "GET /policy")


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (lambda: "not a token", "TOKEN_MALFORMED"),
        (
            lambda: token_of(ANALYST, key=signing_key("other"), header={"kid": "ins_main"}),
            "TOKEN_SIGNATURE_INVALID",
        ),
        (lambda: token_of(ANALYST, claims={"exp": int(time.time()) - 60}), "TOKEN_EXPIRED"),
        (
            lambda: token_of(ANALYST, claims={"iss": "https://other.example.test"}),
            "TOKEN_ISSUER_MISMATCH",
        ),
        (lambda: token_of(ANALYST, claims={"sts": "pending"}), "SESSION_PENDING"),
    ],
)
def test_forged_expired_and_other_tokens_begin_no_session(console: Console, token, reason):
    visitor = console.client()
    answer = visitor.sign_in(token())
    assert answer.status_code == 401
    assert reason in answer.text
    assert visitor.get("/").status_code == 303
    assert recorded(console, caller="pdp:sign-in", decision=DECISION_DENY)


@pytest.mark.parametrize("user", [OUTSIDER, "user_support_1", "user_meadow_3"])
def test_a_user_without_the_permission_gets_a_403_that_is_logged(console: Console, user: str):
    """The first is an owner, whose role allows `*` in an organization."""
    visitor = console.client()
    answer = visitor.sign_in(token_of(user, organization_id=None))
    assert answer.status_code == 403
    assert "PERMISSION_NOT_GRANTED" in answer.text
    assert recorded(console, shown=answer.text, user_id=user, caller="pdp:sign-in")
    assert visitor.get("/").status_code == 303


def test_a_link_signs_in_once_and_only_its_user(console: Console):
    link = console.link()
    first, second = console.client(), console.client()
    assert ANALYST in first.get(link.removeprefix(console.origin)).text
    assert first.follow(link).status_code == 303
    assert first.get("/").status_code == 200
    assert ANALYST in first.get("/").text
    assert second.follow(link).status_code == 401
    assert "it was used" in second.get(link.removeprefix(console.origin)).text


def test_looking_at_a_link_does_not_use_it_up(console: Console):
    """Chat programs open links to show a preview."""
    link = console.link()
    for _ in range(3):
        assert console.client().get(link.removeprefix(console.origin)).status_code == 200
    assert console.client().follow(link).status_code == 303


def test_a_link_of_a_user_without_the_permission_is_refused_and_logged(console: Console):
    visitor = console.client()
    answer = visitor.follow(console.link(OUTSIDER))
    assert answer.status_code == 403
    assert recorded(console, shown=answer.text, user_id=OUTSIDER, caller="pdp:console")
    assert visitor.get("/").status_code == 303


def test_a_link_for_an_unknown_user_is_not_made(console: Console):
    done = console.server.pdp("console", "login", "--user", "user_nobody")
    assert (done.returncode, "there is no user 'user_nobody'" in done.stderr) == (2, True)


def test_a_secret_is_good_for_one_thing(console: Console):
    """A link is no session, a session no link, and neither is a value that was made up."""
    link = console.link().partition("link=")[2]
    for secret in (link, "x" * 43, "", "' OR 1=1 --", "\x00"):
        visitor = console.client()
        visitor.http.cookies.set("pdp-console", httpx.QueryParams({"a": secret})["a"] or "-")
        with_cookie = visitor.get("/") if secret != "\x00" else console.client().get("/")
        assert with_cookie.status_code == 303
    session = console.signed_in().http.cookies["pdp-console"]
    assert console.client().follow(f"{console.origin}/sign-in?link={session}").status_code == 401


def test_signing_out_ends_the_session_also_for_a_copy_of_the_cookie(console: Console):
    visitor = console.signed_in()
    copy = console.client()
    copy.http.cookies.set("pdp-console", visitor.http.cookies["pdp-console"])
    assert copy.get("/").status_code == 200
    assert visitor.post("/sign-out", {"proof": visitor.proof("/")}).status_code == 303
    assert visitor.get("/").status_code == 303
    assert copy.get("/").status_code == 303


def test_signing_in_replaces_the_secret_that_the_browser_had(console: Console):
    """Session fixation: somebody else may have set that secret."""
    visitor = console.client()
    visitor.get("/sign-in")
    before = visitor.http.cookies["pdp-console"]
    visitor.sign_in(token_of(ANALYST))
    assert visitor.http.cookies["pdp-console"] != before


def test_a_revoked_session_and_a_disabled_user_are_out_at_the_next_request(console: Console):
    visitor = console.client()
    assert visitor.sign_in(token_of(ANALYST, session_id="sess_gone")).status_code == 303
    assert visitor.get("/").status_code == 200
    console.stubs.administration.RevokeSession(
        RevokeSessionRequest(session_id="sess_gone", user_id=ANALYST), timeout=5
    )
    eventually(lambda: visitor.get("/").status_code == 303, what="the session has ended")
    answer = visitor.get("/decisions")
    assert answer.headers["location"] == "/sign-in?next=%2Fdecisions"


def test_a_permission_that_is_taken_away_is_missing_at_the_next_request(console: Console):
    administration = console.stubs.administration
    # Nobody else's: other tests share this server.
    leaver = "user_leaver"
    administration.CreateUser(CreateUserRequest(user=User(id=leaver)), timeout=5)
    created = administration.CreateGrant(
        CreateGrantRequest(grant=Grant(role="SECURITY_ANALYST", user_id=leaver)), timeout=5
    )
    visitor = console.client()
    eventually(lambda: visitor.sign_in(token_of(leaver)).status_code == 303, what="they may")
    assert visitor.get("/").status_code == 200
    administration.DeleteGrant(DeleteGrantRequest(id=created.grant.id), timeout=5)
    eventually(lambda: visitor.get("/").status_code == 403, what="they may not")
    record = recorded(console, "now", user_id=leaver, decision=DECISION_DENY)
    assert DecisionReason.Name(record.reason).endswith("PERMISSION_NOT_GRANTED")
    user = User(id=leaver, status=USER_STATUS_DISABLED)
    administration.UpdateUser(UpdateUserRequest(user=user), timeout=5)
    eventually(lambda: "ACTOR_DISABLED" in visitor.get("/").text, what="they are disabled")


# --- forms ----------------------------------------------------------------------------------------


def test_a_form_without_its_proof_or_from_another_origin_is_refused(console: Console):
    visitor, other = console.signed_in(), console.signed_in()
    proof = visitor.proof("/try")
    fields = {"policy": "version: 1", "user": "u", "permission": "a:b"}
    assert visitor.post("/try", {**fields, "proof": proof}).status_code == 200
    refused = [
        visitor.post("/try", fields),
        visitor.post("/try", {**fields, "proof": ""}),
        visitor.post("/try", {**fields, "proof": other.proof("/try")}),
        visitor.post("/try", {**fields, "proof": proof}, origin="http://evil.example"),
        visitor.post("/try", {**fields, "proof": proof}, origin="null"),
        visitor.post("/try", {**fields, "proof": proof}, origin=console.origin + ".evil.example"),
        visitor.http.post("/try", data={**fields, "proof": proof}),
        visitor.http.post(
            "/try", data={**fields, "proof": proof}, headers={"sec-fetch-site": "same-site"}
        ),
        visitor.post("/sign-out", {"a": "b"}),
    ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)
    assert visitor.get("/").status_code == 200, "it did not sign out"


def test_signing_in_needs_the_proof_too(console: Console):
    """Else another site could sign a browser in as somebody else."""
    visitor = console.client()
    visitor.http.cookies.set("__session", token_of(ANALYST), domain="127.0.0.1")
    proof = visitor.proof()
    assert visitor.post("/sign-in", {"a": "b"}).status_code == 403
    assert visitor.post("/sign-in", {"proof": proof}, origin="http://x.example").status_code == 403
    stranger = console.client()
    stranger.http.cookies.set("__session", token_of(ANALYST), domain="127.0.0.1")
    assert stranger.post("/sign-in", {"proof": proof}).status_code == 403, "has no cookie of it"


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/%0d%0aset-cookie:a=b",
        "\t//evil.example",
        "/a\r\nb: c",
        "/" * 2000,
        "/.//evil.example",
    ],
)
def test_after_signing_in_the_browser_stays_here(console: Console, target: str):
    location = console.client().sign_in(token_of(ANALYST), next=target).headers["location"]
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))
    assert "evil.example" not in location or location == "/.//evil.example"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"a=" + b"x" * 300_000, "application/x-www-form-urlencoded", 400),
        (
            b"&".join(b"f%d=1" % number for number in range(100)),
            "application/x-www-form-urlencoded",
            400,
        ),
        (b'{"proof": 1}', "application/json", 400),
        (b"--b\r\n", "multipart/form-data; boundary=b", 400),
        (b"\xff\xfe", "application/x-www-form-urlencoded", 400),
        (b"", "application/x-www-form-urlencoded", 403),
    ],
)
def test_what_is_no_small_form_is_refused(console: Console, body: bytes, kind: str, status: int):
    visitor = console.signed_in()
    answer = visitor.http.post(
        "/try", content=body, headers={"content-type": kind, "origin": console.origin}
    )
    assert answer.status_code == status


# --- hosts and ports ------------------------------------------------------------------------------


def raw(port: int, host: str | None, path: str = "/sign-in") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


def test_another_host_has_no_console(console: Console):
    """DNS rebinding: a page of another name that leads here."""
    port = console.port()
    assert raw(port, f"127.0.0.1:{port}")[0] == 200
    for host in (
        "evil.example",
        f"localhost:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port}.evil.example",
    ):
        assert raw(port, host)[0] in (400, 421)
    assert raw(port, None)[0] in (400, 421)


def test_the_console_is_on_its_own_port_alone(console: Console):
    for path in ("/sign-in", "/decisions", "/", "/static/x/console.css"):
        for port in (console.server.port, console.server.http_port):
            status, text = raw(port, f"127.0.0.1:{port}", path)
            assert status in (404, 405, 415, 501), (port, path, status)
            assert "PDP console" not in text
    session = f"pdp-console={console.signed_in().http.cookies['pdp-console']}"
    with console.server.channel() as channel:
        for path in ("/decisions", "/", "/sign-in"):
            call = channel.unary_unary(path)
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=10, metadata=(("cookie", session),))
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    for path in ("/metrics", "/readyz", "/healthz", "/webhooks/clerk"):
        assert console.client().get(path).status_code == 404
    rpc = console.client().http.post(
        "/pdpapi.v1.PolicyDecisionService/Check", json={}, headers={"connect-protocol-version": "1"}
    )
    assert rpc.status_code == 404


def test_without_the_setting_there_is_no_console(tmp_path):
    done = ServerProcess(tmp_path).pdp("console", "login", "--user", ANALYST)
    assert done.returncode == 2
    assert "there is no console: set console.listen" in done.stderr


def test_every_answer_has_the_headers_of_a_page_that_nobody_frames(console: Console):
    paths = ("/", "/sign-in", "/nothing", "/decision?id=x", "/user?id=x")
    for visitor, path in product((console.client(), console.signed_in()), paths):
        headers = visitor.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script" not in policy
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"


def test_a_visitor_is_not_shared(console: Console):
    """Positive control of the tests above: cookies are the only thing that signs in."""
    assert Visitor(console.origin).get("/").status_code == 303


def test_of_two_uses_of_a_link_at_once_one_signs_in(console: Console):
    link = console.link()
    visitors = [console.client() for _ in range(6)]
    path = link.removeprefix(console.origin)
    forms = [{"proof": one.proof(path), "link": path.partition("link=")[2]} for one in visitors]
    with ThreadPoolExecutor(len(visitors)) as pool:
        answers = list(pool.map(lambda one, form: one.post("/sign-in", form), visitors, forms))
    assert sorted(answer.status_code for answer in answers) == [303, *[401] * 5]
    assert sum(one.get("/").status_code == 200 for one in visitors) == 1


def test_no_backend_can_have_the_name_of_the_console():
    for name in (CALLER, SIGN_IN_CALLER):
        with pytest.raises(ValidationError):
            CallerSettings(name=name, api_key_sha256="0" * 64)
