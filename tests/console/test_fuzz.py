"""Requests of every form, of an analyst and of a tenant: no error of the server, and nothing of
others."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import parse_qsl, quote_from_bytes, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pdpapi.v1.administration_service_pb2 import (
    CreateGrantRequest,
    CreateRoleRequest,
    Grant,
    Role,
)
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest

import pdp.console
from examples.company import ANALYST
from pdp.console.forms import PROOF
from pdp.console.pages import PAGES
from tests.kit import soak
from tests.kit.console import AUDITOR, HOSTILE_DECISION, VIEWER, Console, Visitor
from tests.kit.server import token_of

OWN = "org_meadow"
SOURCES = "".join(
    file.read_text(encoding="utf-8") for file in Path(pdp.console.__file__).parent.rglob("*.py")
)
FIELDS = sorted(set(re.findall(r'\.get\("([a-z_]+)"', SOURCES)) | {"item-1", "item-x"})
PATHS = ["/sign-in", "/sign-out", "/static/x/console.css", "/nothing", *(p.path for p in PAGES)]
STRANGE = [
    *(b"", b"\x00", b"a\x00b", b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\n", b"a\nb", b"\r\n"),
    *(b"0", b"-1", b"1e400", b"nan", b"inf", b"9" * 400, b"2147483648", b"9007199254740993"),
    *("\uff11\uff12".encode(), "\u202e".encode(), "\U0001f600".encode(), b"~", b"%", b"_", b"'"),
    *(b"0001-01-01", b"9999-12-31T23:59:59", b"1970-01-01", b"2026-02-30", b"12-0", b"0-0", b"-"),
    *(b"9007199254740992-9007199254740992", b"1\n2\nx", b"1.0\nx", b"x" * 5_000, b"[" * 500),
    *(b"allow", b"deny", b"on", b"csv", b"file", b"1", b"{}", b'{"a": 1e999}', b"revoked"),
    *(b"grant", b"resource", b"membership", b"organization", b"org:member", b"invoice:view"),
    *(b"unused", b"ending", b"first-time", b"cross-tenant", b"who", b"user", b"disabled"),
]


@dataclass
class Target:
    """A console, two visitors, and texts that its pages are about."""

    console: Console
    analyst: Visitor
    tenant: Visitor
    known: list[bytes]
    """Ids and cursors of all kinds."""
    hidden: set[str]
    """Names and ids that the tenant must not get."""
    logged: int = 0
    """The length of the log of the server that was looked at."""

    def __repr__(self) -> str:
        return "the console"

    def sign_in(self) -> None:
        self.analyst.sign_in(token_of(ANALYST))
        self.tenant.sign_in(token_of(AUDITOR, organization_id=OWN))


@pytest.fixture(scope="module")
def target(console: Console) -> Target:
    analyst, tenant = console.client(), console.client()
    target = Target(console, analyst, tenant, [], console.names_of_others(OWN))
    target.sign_in()
    values = {HOSTILE_DECISION, *sorted(target.hidden)[:40], *console.company.invoices[OWN]}
    for visitor in (analyst, tenant):
        for path in ("/", "/decisions", "/people", "/changes", "/review?list=unused"):
            values |= set(linked(visitor.get(path).text))
    # Of a grant that no other test reads: some verdict may be valid.
    administration = console.stubs.administration
    administration.CreateRole(CreateRoleRequest(role=Role(name="FUZZED")), timeout=5)
    grant = Grant(id="fuzzed", role="FUZZED", user_id=VIEWER)
    administration.CreateGrant(CreateGrantRequest(grant=grant), timeout=5)
    form = {PROOF: analyst.proof("/reviews"), "name": "fuzzed", "role": "FUZZED"}
    values |= set(linked(f'href="{analyst.post("/campaigns", form).headers["location"]}"'))
    foreign = ListDecisionsRequest(organization_id="org_harbor", page_size=40)
    decisions = console.stubs.audit.ListDecisions(foreign, timeout=5).decisions
    target.hidden |= {decision.decision_id for decision in decisions}
    values |= {decision.decision_id for decision in decisions}
    people = analyst.get("/people").text
    assert any(name in people for name in target.hidden), "the control"
    target.known += sorted(value.encode("utf-8", "replace") for value in values)
    return target


def linked(page: str) -> Iterator[str]:
    """The values in the addresses of a page."""
    for link in map(unescape, re.findall(r'href="(/[^"#]*)"', page)):
        yield from (value for _, value in parse_qsl(urlsplit(link).query))


def encoded(fields: list[tuple[bytes, bytes]]) -> str:
    return "&".join(f"{quote_from_bytes(name)}={quote_from_bytes(value)}" for name, value in fields)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, list[tuple[bytes, bytes | int]]]:
    """Method, path and fields; a number is one of the values that the pages of the console have."""
    path = draw(st.sampled_from(PATHS))
    if draw(st.integers(0, 9)) == 9:
        path += draw(st.sampled_from(["/", "/x", "%00", "%ff", "%2e%2e/", ";a", "//", "%0d%0a"]))
    value = st.one_of(
        st.integers(0, 10**6), st.sampled_from(STRANGE), st.binary(max_size=30), st.text().map(utf8)
    )
    name = st.one_of(st.sampled_from(FIELDS).map(utf8), st.sampled_from(STRANGE))
    fields = draw(st.lists(st.tuples(name, value), max_size=6))
    return draw(st.sampled_from(["GET", "GET", "POST"])), path, fields


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def send(visitor: Visitor, method: str, path: str, query: str, form: str) -> httpx.Response:
    url = httpx.URL(visitor.origin).copy_with(raw_path=f"{path}?{query}".encode("ascii"))
    headers = {"origin": visitor.origin, "content-type": "application/x-www-form-urlencoded"}
    for _ in range(5):  # a busy machine may refuse a request, the same one not again and again
        body = form.encode("ascii") if method == "POST" else None
        answer = visitor.http.request(method, url, content=body, headers=headers)
        if answer.status_code != 503:
            break
    return answer


@pytest.mark.soak
@hypothesis_settings(
    max_examples=soak.count(3_000, sample=30),
    derandomize=not soak.SOAK,
    database=None,
    deadline=None,
    phases=(Phase.generate,) if not soak.SOAK else (Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
@given(request=requests())
def test_no_request_breaks_the_console_or_shows_a_tenant_what_is_not_theirs(
    target: Target, request: tuple[str, str, list[tuple[bytes, bytes | int]]]
) -> None:
    method, path, drawn = request
    known = target.known
    fields = [
        (name, known[value % len(known)] if isinstance(value, int) else value)
        for name, value in drawn
    ]
    if path == "/campaigns":  # no campaign is created: they are limited
        fields.append((b"role", b"NO_SUCH_ROLE"))
    query = encoded(fields)
    for visitor in (target.analyst, target.tenant):
        proof = visitor.proof("/people") if method == "POST" else ""
        form = encoded([*fields, (PROOF.encode(), proof.encode())])
        answer = send(visitor, method, path, query, form)
        statuses = (200, 303, 307, 400, 401, 403, 404, 405)
        assert answer.status_code in statuses, (answer.status_code, answer.text)
        if visitor is target.tenant and not answer.headers.get("etag"):  # no file of ours
            sent = b" ".join(value for _, value in fields).decode("utf-8", "replace")
            text = answer.text + str(answer.headers)
            leaked = {name for name in target.hidden if name in text and name not in sent}
            assert leaked == set()
        if answer.headers.get("location", "").startswith("/sign-in") or path == "/sign-in":
            target.sign_in()
    log = target.console.server.log()
    target.logged, log = len(log), log[target.logged :]
    assert not re.search(r'Traceback|"level": ?"(error|critical)"', log), log
