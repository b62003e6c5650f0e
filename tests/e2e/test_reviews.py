"""The security team's questions, asked from the command line of a real server."""

import csv
import io
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from google.protobuf.timestamp_pb2 import Timestamp
from pdpapi.v1 import review_service_pb2 as pb
from pdpapi.v1.administration_service_pb2 import (
    CreateGrantRequest,
    CreateRoleRequest,
    Grant,
    Role,
)
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit.school import ALGEBRA, ORGANIZATION, POLICY
from tests.kit.server import ServerProcess, Stubs, running_server, token_of
from tests.kit.sidecar import running_sidecar
from tests.kit.tokens import altered
from tests.kit.waiting import eventually
from tests.kit.wire.errors import reason_of_error, rpc_error
from tests.kit.wire.tls import digest

DAY = 86_400.0
CALLERS = [
    {"name": "backend", "api_key_sha256": digest("backend"), "may": ["decide"]},
    {"name": "auditor", "api_key_sha256": digest("auditor"), "may": ["audit"]},
    {"name": "edge", "api_key_sha256": digest("edge"), "may": ["decide", "audit"]},
    {"name": "maria", "api_key_sha256": digest("maria"), "may": ["audit", "administer"]},
]
SOON = f"{datetime.now(UTC) + timedelta(days=5):%Y-%m-%dT%H:%M:%SZ}"
MORE = f"""
  - {{id: g-soon, role: STUDENT, user: user_ivan, organization: org_school, expires_at: "{SOON}"}}
  - {{id: g-wide, role: STUDENT, user: user_sam}}
  - {{id: g-out, role: STUDENT, user: user_sam, organization: org_other}}
  - {{id: g-gone, role: STUDENT, user: user_gone, organization: org_school}}
  - {{id: g-one, role: STUDENT, user: user_ivan, resource: {{type: course, id: algebra}}}}
"""
SCHOOL = POLICY.replace(
    "\nusers:\n", f"{MORE.rstrip()}\n\nusers:\n  - {{id: user_gone, status: disabled}}\n"
)
Pair = tuple[ServerProcess, Stubs]


def key_of(caller: str) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer {caller}"),)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A school whose servers have logged allows for 100 days, and that has just worked a little."""
    directory = tmp_path_factory.mktemp("company")
    with running_server(directory, CALLERS=CALLERS, AUDIT_ALLOWS="true") as (server, stubs):
        (directory / "school.yaml").write_text(SCHOOL)
        applied = server.pdp("apply", "school.yaml", "--yes")
        assert applied.returncode == 0, applied.stderr
        log_since(directory, days=100)

        def check(user: str, permission: str, **more: object) -> int:
            token = token_of(user, organization_id=ORGANIZATION, **more)
            request = CheckRequest(actor_token=token, permission=permission, resource=ALGEBRA)
            return stubs.decision.Check(request, timeout=10, metadata=key_of("backend")).decision

        eventually(lambda: check("user_ada", "course:view") == 1)
        check("user_sam", "course:edit")
        check("user_sam", "course:view")
        check("user_ada", "course:edit", claims={"act": {"sub": "user_support"}})
        eventually(lambda: "user_support" in ask(server, "impersonators"), what="it is shipped")
        yield server, stubs


def log_since(directory: Path, days: int, *, allows: bool = True) -> None:
    """Lets an earlier process have logged until the server began."""
    with sqlite3.connect(directory / "pdp.db") as database:
        eventually(lambda: database.execute("SELECT id FROM audit_periods").fetchone())
        (began,) = database.execute("SELECT started_at FROM audit_periods").fetchone()
        row = ("old", "pdp", allows, time.time() - days * DAY, began, began, True)
        database.execute("INSERT INTO audit_periods VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    database.close()


def ask(server: ServerProcess, *arguments: str, caller: str = "auditor", status: int = 0) -> str:
    """What `pdp review` prints on standard output."""
    done = server.pdp("review", *arguments, "--api-key", caller)
    assert done.returncode == status, done.stderr
    return done.stdout


def rows(server: ServerProcess, *arguments: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(ask(server, *arguments, "-o", "csv"))))


@pytest.fixture(scope="module")
def server(company: Pair) -> ServerProcess:
    return company[0]


def test_who_may_edit_a_course_and_through_what(server: ServerProcess) -> None:
    arguments = ("allowed", "actors", "course:edit", "course:algebra", "-o", "csv")
    done = server.pdp(*arguments, "--api-key", "auditor")
    found = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["user"], row["role"], row["rule"]) for row in found] == [
        ("user_ada", "ADMIN", "ADMIN.allow.course:*"),
        ("user_ivan", "INSTRUCTOR", found[1]["rule"]),
    ]
    assert found[1]["condition"] == "resource.attributes.owner == actor.id"


def test_what_a_user_may_do_by_organization_and_resource(server: ServerProcess) -> None:
    found = {
        (row["organization"], row["resource"], row["permission"], row["role"])
        for row in rows(server, "user", "user_ivan")
    }
    assert found == {
        (ORGANIZATION, "", "course:create", "INSTRUCTOR"),
        (ORGANIZATION, "", "course:edit", "INSTRUCTOR"),
        (ORGANIZATION, "", "course:view", "INSTRUCTOR"),
        (ORGANIZATION, "", "lesson:view", "INSTRUCTOR"),
        (ORGANIZATION, "", "course:view", "STUDENT"),
        (ORGANIZATION, "", "lesson:view", "STUDENT"),
        (ORGANIZATION, "course:algebra", "course:create", "INSTRUCTOR"),
        (ORGANIZATION, "course:algebra", "course:edit", "INSTRUCTOR"),
        (ORGANIZATION, "course:algebra", "course:view", "INSTRUCTOR"),
        (ORGANIZATION, "course:algebra", "course:view", "STUDENT"),
    }
    done = server.pdp("review", "user", "user_gone", "--api-key", "auditor")
    assert (done.returncode, "ACTOR_DISABLED" in done.stderr) == (1, True)


def test_which_grants_nobody_used_for_90_days_and_how_much_of_that_is_known(
    server: ServerProcess,
) -> None:
    found = rows(server, "unused", "--days", "90")
    unused = {row["grant"] for row in found}
    assert {"g-out", "g-gone", "g-one"} < unused
    used = {row["subject"] for row in found if row["role"] == "ADMIN"}
    assert used == set(), "the grant of the only administrator was used"
    assert {row["days known"] for row in found} == {"90.0 of 90"}
    done = server.pdp("review", "unused", "--days", "150", "--api-key", "auditor")
    assert "is complete for" in done.stderr
    assert "before a server first stated what it logs" in done.stderr


def test_which_grants_end_soon_cross_tenants_or_belong_to_disabled_users(
    server: ServerProcess,
) -> None:
    def grants(*arguments: str) -> list[str]:
        return [row["grant"] for row in rows(server, *arguments)]

    assert grants("ending", "--days", "6") == ["g-soon"]
    assert grants("ending", "--days", "4") == []
    assert grants("cross-tenant") == ["g-gone", "g-out", "g-wide"]
    assert grants("disabled") == ["g-gone"]


def test_which_decisions_need_a_look(server: ServerProcess) -> None:
    (impersonated,) = rows(server, "impersonators")
    assert (impersonated["user"], impersonated["impersonator"]) == ("user_ada", "user_support")
    first = {(row["user"], row["permission"]) for row in rows(server, "first-time")}
    assert first == {
        ("user_ada", "course:view"),
        ("user_sam", "course:view"),
        ("user_ada", "course:edit"),
    }
    assert rows(server, "denied-then-granted") == []
    *found, coverage = map(json.loads, ask(server, "first-time", "-o", "json").splitlines())
    assert len(found) == 3
    assert "covered" in coverage["coverage"]


def test_a_campaign_is_reviewed_exported_and_signed(company: Pair, tmp_path: Path) -> None:
    server, stubs = company
    # Of a role of its own: other tests read the grants of the school.
    for create, request in (
        (stubs.administration.CreateRole, CreateRoleRequest(role=Role(name="GUEST"))),
        *(
            (
                stubs.administration.CreateGrant,
                CreateGrantRequest(
                    grant=Grant(id=id_, role="GUEST", user_id=user, organization_id=ORGANIZATION)
                ),
            )
            for id_, user in (
                *(("guest-stays", "user_ada"), ("guest-left", "user_ada")),
                ("guest-own", "maria"),
            )
        ),
    ):
        create(request, timeout=10, metadata=key_of("maria"))
    campaign = ask(
        server, "campaign", "create", "Q4 <b>=cmd", "--role", "GUEST", caller="auditor"
    ).strip()
    listed = rows(server, "campaign", "show", campaign)
    numbers = {row["grant"]: row["number"] for row in listed}
    assert set(numbers) == {"guest-stays", "guest-left", "guest-own"}
    own = ("campaign", "certify", campaign, numbers["guest-own"], "--reason", "mine")
    done = server.pdp("review", *own, "--api-key", "maria")
    assert (done.returncode, "the grant is to you" in done.stderr) == (2, True)
    request = pb.DecideCampaignItemRequest(
        campaign_id=campaign, number=int(numbers["guest-own"]), outcome=1, reason="mine"
    )
    refused = rpc_error(
        lambda: stubs.reviews.DecideCampaignItem(request, timeout=10, metadata=key_of("maria"))
    )
    assert refused.code() is grpc.StatusCode.PERMISSION_DENIED
    assert reason_of_error(refused) == "CALLER_NOT_ALLOWED"
    certified = ask(
        server, "campaign", "certify", campaign, numbers["guest-stays"], "--reason", "=still needed"
    )
    assert json.loads(certified)["verdict"]["reviewer"] == "auditor"
    arguments = ("campaign", "revoke", campaign, numbers["guest-left"], "--reason", "left")
    ask(server, *arguments, status=2)
    ask(server, *arguments, caller="maria")
    ask(server, *arguments, caller="maria", status=2)
    signer = Ed25519PrivateKey.generate()
    pem = signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    written = ask(
        server,
        *("campaign", "export", campaign),
        *("--signing-key", str(tmp_path / "key.pem"), "--directory", str(tmp_path)),
    ).splitlines()
    for name in written:
        content = Path(name).read_bytes()
        signer.public_key().verify(Path(f"{name}.sig").read_bytes(), content)
        assert b"maria" in content
    html, table = (Path(name).read_text() for name in written)
    assert "Q4 &lt;b&gt;" in html
    assert "<b>" not in html
    found = {row["grant"]: row for row in csv.DictReader(io.StringIO(table))}
    assert found["guest-stays"]["reason"] == "'=still needed"
    assert (found["guest-left"]["verdict"], found["guest-left"]["now"]) == ("revoked", "gone")
    assert {row["campaign"] for row in found.values()} == {campaign}


def test_reviews_take_the_capability_audit(company: Pair) -> None:
    reviews = company[1].reviews
    requests = {
        reviews.ListUserAccess: pb.ListUserAccessRequest(user_id="user_ada"),
        reviews.ListGrantFindings: pb.ListGrantFindingsRequest(kind=3),
        reviews.ListDecisionFindings: pb.ListDecisionFindingsRequest(kind=1),
        reviews.CreateCampaign: pb.CreateCampaignRequest(name="x"),
        reviews.ListCampaigns: pb.ListCampaignsRequest(),
        reviews.ListCampaignItems: pb.ListCampaignItemsRequest(campaign_id="x"),
        reviews.DecideCampaignItem: pb.DecideCampaignItemRequest(campaign_id="x"),
    }
    for method, request in requests.items():

        def call(method=method, request=request) -> object:
            return method(request, timeout=10, metadata=key_of("backend"))

        assert reason_of_error(rpc_error(call)) == "CALLER_NOT_ALLOWED", request


def test_a_page_token_is_good_for_its_own_list_alone(company: Pair) -> None:
    reviews = company[1].reviews

    def page(**fields: object) -> pb.ListGrantFindingsResponse:
        request = pb.ListGrantFindingsRequest(page_size=1, **fields)
        return reviews.ListGrantFindings(request, timeout=10, metadata=key_of("auditor"))

    first = page(kind=pb.GRANT_FINDING_KIND_CROSS_TENANT)
    token = first.next_page_token
    again = [page(kind=3, page_token=token).findings[0].grant.id for _ in range(2)]
    assert again[0] == again[1] != first.findings[0].grant.id
    for fields in (
        {"kind": 4, "page_token": token},
        {"kind": 1, "days": 90, "page_token": token},
        {"kind": 3, "page_token": altered(token)},
    ):
        assert reason_of_error(rpc_error(lambda fields=fields: page(**fields))) == "REQUEST_INVALID"


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": 0},
        {"kind": 9},
        {"kind": 1, "days": 0},
        {"kind": 2, "days": 3651},
        {"kind": 3, "page_size": 1001},
    ],
    ids=str,
)
def test_a_malformed_review_is_refused(company: Pair, fields: dict[str, int]) -> None:
    request = pb.ListGrantFindingsRequest(**fields)
    error = rpc_error(
        lambda: company[1].reviews.ListGrantFindings(
            request, timeout=10, metadata=key_of("auditor")
        )
    )
    assert reason_of_error(error) == "REQUEST_INVALID"


def test_a_flood_of_reviews_leaves_the_checks_of_others_alone(company: Pair) -> None:
    server, stubs = company
    since = Timestamp(seconds=int(time.time() - 30 * DAY))
    audits = {
        stubs.reviews.ListGrantFindings: pb.ListGrantFindingsRequest(kind=1, days=90),
        stubs.reviews.ListDecisionFindings: pb.ListDecisionFindingsRequest(
            kind=3, not_before=since
        ),
        stubs.reviews.ListUserAccess: pb.ListUserAccessRequest(user_id="user_ivan"),
    }
    answered: Counter[str] = Counter()
    stopping = threading.Event()

    def flood(number: int) -> None:
        method, request = list(audits.items())[number % len(audits)]
        while not stopping.is_set():
            try:
                method(request, timeout=30, metadata=key_of("auditor"))
                answered["reviews"] += 1
            except grpc.RpcError:  # refused for its share, or because too many wait
                answered["refused"] += 1
                stopping.wait(0.02)

    check = CheckRequest(
        actor_token=token_of("user_ada", organization_id=ORGANIZATION),
        permission="course:view",
        resource=ALGEBRA,
    )
    with ThreadPoolExecutor(12) as pool:
        floods = [pool.submit(flood, number) for number in range(12)]
        try:
            eventually(lambda: answered["reviews"] > 12, what="reviews are answered")
            for _ in range(80):
                answer = stubs.decision.Check(check, timeout=10, metadata=key_of("backend"))
                assert answer.decision == 1
        finally:
            stopping.set()
        for each in floods:
            each.result(60)
    assert server.http("/readyz")[0] == 200


def test_a_query_about_a_user_is_logged_with_the_user(company: Pair) -> None:
    ask(company[0], "user", "user_sam")

    def logged() -> bool:
        done = company[0].pdp(
            "audit", "list", "--resource", "user:user_sam", "--api-key", "auditor"
        )
        return "ListUserAccess" in done.stdout

    eventually(logged)


def test_nobody_without_a_name_reviews(tmp_path: Path) -> None:
    with running_server(tmp_path, POLICY) as (_, stubs):
        error = rpc_error(
            lambda: stubs.reviews.CreateCampaign(pb.CreateCampaignRequest(name="x"), timeout=10)
        )
        assert reason_of_error(error) == "CALLER_NOT_ALLOWED"


def test_a_sidecar_forwards_lists_for_callers_with_audit_and_no_campaigns(
    company: Pair, tmp_path: Path
) -> None:
    callers = [
        {"name": "tool", "api_key_sha256": digest("tool"), "may": ["audit"]},
        {"name": "app", "api_key_sha256": digest("app"), "may": ["decide"]},
    ]
    request = pb.ListGrantFindingsRequest(kind=pb.GRANT_FINDING_KIND_DISABLED_USER)
    (tmp_path / "named").mkdir()
    settings = {"DEADLINE_SECONDS": "10", "API_KEY": "edge"}
    with running_sidecar(tmp_path / "named", company[0].port, CALLERS=callers, **settings) as (
        _,
        stubs,
    ):
        found = stubs.reviews.ListGrantFindings(request, timeout=20, metadata=key_of("tool"))
        assert [finding.grant.id for finding in found.findings] == ["g-gone"]
        refused = rpc_error(
            lambda: stubs.reviews.ListGrantFindings(request, timeout=20, metadata=key_of("app"))
        )
        assert reason_of_error(refused) == "CALLER_NOT_ALLOWED"
        campaign = rpc_error(
            lambda: stubs.reviews.CreateCampaign(
                pb.CreateCampaignRequest(name="x"), timeout=20, metadata=key_of("tool")
            )
        )
        assert campaign.code() is grpc.StatusCode.UNIMPLEMENTED
    (tmp_path / "open").mkdir()
    with running_sidecar(tmp_path / "open", company[0].port, **settings) as (_, stubs):
        error = rpc_error(lambda: stubs.reviews.ListGrantFindings(request, timeout=20))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED
