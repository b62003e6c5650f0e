"""The view of one organization: nothing of others, whatever is asked."""

import re
from collections import Counter
from collections.abc import Iterator
from html import unescape

import pytest
from pdpapi.v1.administration_service_pb2 import (
    CreateGrantRequest,
    CreateMembershipRequest,
    CreateUserRequest,
    Grant,
    Membership,
    UpdateGrantRequest,
    User,
)
from pdpapi.v1.audit_service_pb2 import ListChangesRequest, ListDecisionsRequest
from pdpapi.v1.core_pb2 import DECISION_DENY, Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest

from examples.company import ANALYST
from pdp.administration_records import AdministrationRecord, Source
from pdp.audit.anomalies import SPIKE_MIN
from pdp.console.pages import PAGES
from pdp.console.pages.changes import whole_revisions
from tests.kit.console import (
    AUDITOR,
    HOSTILE_DECISION,
    OUTSIDER,
    Console,
    Visitor,
    recorded,
    text_of,
)
from tests.kit.server import token_of
from tests.kit.waiting import eventually
from tests.kit.wire.recorded import check

OWN = "org_meadow"
BOTH = "user_in_both"
"""A member of org_meadow and of org_harbor."""


@pytest.fixture(scope="module")
def auditor(console: Console) -> Visitor:
    """Sees org_meadow. Somebody belongs to two organizations, and has asked in both; the last
    question was asked in their name."""
    administration = console.stubs.administration
    user = User(id=BOTH, name="In Both", email="both@meadow.example")
    user.attributes.update({"salary": "harbor-secret"})
    administration.CreateUser(CreateUserRequest(user=user), timeout=5)
    for organization in (OWN, "org_harbor"):
        membership = Membership(organization_id=organization, user_id=BOTH, role="org:member")
        administration.CreateMembership(CreateMembershipRequest(membership=membership), timeout=5)
    moved = Grant(id="moved", role="APPROVER", user_id=BOTH, organization_id="org_harbor")
    stays = Grant(id="harbor-stays", role="APPROVER", user_id=BOTH, organization_id="org_harbor")
    for grant in (moved, stays):
        administration.CreateGrant(CreateGrantRequest(grant=grant), timeout=5)
    moved.organization_id = OWN
    administration.UpdateGrant(
        UpdateGrantRequest(grant=moved, reason="moved from org_harbor"), timeout=5
    )
    impersonated = {"act": {"sub": ANALYST}}
    for active, owner, claims in (
        (OWN, OWN, {}),
        (OWN, "org_harbor", {}),
        ("org_harbor", "org_harbor", {}),
        (OWN, OWN, impersonated),
    ):
        request = CheckRequest(
            actor_token=token_of(BOTH, organization_id=active, claims=claims),
            permission="invoice:delete",
            resource=Resource(type="invoice", id=console.company.invoices[owner][0]),
        )
        assert check(console.stubs, request).decision == DECISION_DENY
    asked = ListDecisionsRequest(user_id=BOTH, page_size=10)
    eventually(
        lambda: len(console.stubs.audit.ListDecisions(asked, timeout=5).decisions) == 4,
        what="the decisions are in SQL",
    )
    return console.signed_in(AUDITOR, organization_id=OWN)


def ids_of_others(console: Console) -> tuple[list[str], list[str]]:
    """Decisions and changes of others."""
    audit = console.stubs.audit
    found = [
        decision.decision_id
        for organization in ("org_harbor", "org_summit", "")
        for decision in audit.ListDecisions(
            ListDecisionsRequest(organization_id=organization, page_size=12), timeout=5
        ).decisions
        if decision.actor.organization_id != OWN
    ]
    changes = [
        f"{change.revision}-{change.number}"
        for change in audit.ListChanges(ListChangesRequest(page_size=400), timeout=5).changes
        if OWN not in str(change)
    ]
    return found, changes[:12]


def crawl(visitor: Visitor, start: list[str], of_kind_max: int = 12) -> Iterator[tuple[str, str]]:
    """Follows the links of pages, to some of each kind: address and text."""
    pending, seen = list(start), set(start)
    kinds: Counter[str] = Counter()
    while pending:
        path = pending.pop(0)
        kind = path.partition("?")[0]
        kinds[kind] += 1
        if kinds[kind] > of_kind_max:
            continue
        answer = visitor.get(path)
        yield path, answer.text
        for link in map(unescape, re.findall(r'href="(/[^"#]*)"', answer.text)):
            if link not in seen and not link.startswith("/static"):
                seen.add(link)
                pending.append(link)


def test_no_page_names_what_belongs_to_others(console: Console, auditor: Visitor):
    hidden = console.names_of_others(OWN) | {"harbor-stays", "harbor-secret", "moved from"}
    start = ["/", "/?span=7d", "/decisions", "/people", "/changes", f"/user?id={BOTH}"]
    pages = dict(crawl(auditor, start))
    assert len(pages) > 30
    kinds = {path.partition("?")[0] for path in pages}
    assert {"/", "/decisions", "/decision", "/people", "/user", "/changes", "/change"} <= kinds
    named = {(path, name) for path, text in pages.items() for name in hidden if name in text}
    assert named == set()
    # Every link leads somewhere: a refusal would show a page that is not for tenants.
    assert [path for path, text in pages.items() if "You may not see" in text] == []
    # Positive control: what is theirs is there, and an analyst sees the rest.
    everything = "".join(pages.values())
    for name in (
        BOTH,
        "user_meadow_0",
        console.company.invoices[OWN][0],
        "WRONG_ORGANIZATION",
        "somebody acted in the name of the user",
        "moved",
    ):
        assert name in everything, name
    assert "salary" not in everything
    analyst = "".join(text for _, text in crawl(console.signed_in(), ["/decisions", "/people"], 2))
    assert len([name for name in hidden if name in analyst]) > 10


def test_ids_and_filters_in_the_address_find_nothing_of_others(console: Console, auditor: Visitor):
    decisions, changes = ids_of_others(console)
    assert len(decisions) > 20
    assert len(changes) > 5
    unknown = text_of(auditor.get("/decision?id=x").text).replace("'x'", "ID")
    for id_ in (*decisions, HOSTILE_DECISION):
        answer = auditor.get("/decision", params={"id": id_})
        assert answer.status_code == 404
        assert text_of(answer.text).replace(f"'{id_}'", "ID") == unknown, "as if there were none"
    assert {auditor.get(f"/change?id={id_}").status_code for id_ in changes} == {404}
    for user in ("user_harbor_1", ANALYST, "user_nobody"):
        assert auditor.get("/user", params={"id": user}).status_code == 404
    foreign = console.company.invoices["org_harbor"][0]
    for query in (
        {"organization": "org_harbor"},
        {"user": "user_harbor_1"},
        {"type": "invoice", "id": foreign},
        {"user": "user_harbor_1", "organization": "org_harbor"},
        {"after": "~"},
        {"organization": "", "user": ANALYST},
    ):
        page = auditor.get("/decisions", params=query).text
        shown = set(re.findall(r'href="/user\?id=([^"]+)"', page))
        assert shown <= {AUDITOR, BOTH, *console.company.members[OWN]}, query
        assert ("/decision?id=" not in page) == ("id" in query or "user" in query), query
    assert 'href="/user?id=' not in auditor.get("/people?after=%7f").text
    for query in (
        {"kind": "organization", "key": "org_harbor"},
        {"kind": "user"},
        {"kind": "role"},
    ):
        assert "/change?id=" not in auditor.get("/changes", params=query).text, query
    # A counted denial of another organization changes no count.
    counted = text_of(auditor.get("/?span=24h").text)
    request = CheckRequest(
        actor_token=token_of("user_harbor_1", organization_id="org_harbor"),
        permission="invoice:delete",
        resource=Resource(type="invoice", id=foreign),
    )
    decision = check(console.stubs, request)
    eventually(
        lambda: bool(
            console.stubs.audit.ListDecisions(
                ListDecisionsRequest(user_id="user_harbor_1", page_size=1, reason=decision.reason),
                timeout=5,
            ).decisions
        ),
        what="the denial is in SQL",
    )
    assert text_of(auditor.get("/?span=24h").text) == counted


def test_unusually_many_denials_are_shown_to_their_organization_only(
    console: Console, auditor: Visitor
):
    for organization in (OWN, "org_harbor"):
        token = token_of(console.company.members[organization][-1], organization_id=organization)
        request = CheckRequest(actor_token=token, permission="console:view")
        for _ in range(SPIKE_MIN):
            assert check(console.stubs, request).decision == DECISION_DENY
    analyst = console.signed_in()
    eventually(
        lambda: {OWN, "org_harbor"} <= set(spikes(analyst.get("/").text)),
        what="the denials are counted",
    )
    assert spikes(auditor.get("/").text) == [OWN]


def spikes(page: str) -> list[str]:
    """The values that have unusually many denials."""
    return re.findall(r"<b>spike</b>, organization <a [^>]*>([^<]+)</a>", page)


def test_pages_of_the_whole_installation_are_refused_and_the_refusal_is_logged(
    console: Console, auditor: Visitor
):
    closed = [page for page in PAGES if not page.of_organization]
    assert len(closed) > 8
    for page in closed:
        if "GET" in page.methods:
            answer = auditor.get(page.path)
        else:
            answer = auditor.post(page.path, {"proof": auditor.proof("/people")})
        assert answer.status_code == 403, page.path
        assert text_of(answer.text).count("harbor") == 0
    assert recorded(console, "policy", user_id=AUDITOR, decision=DECISION_DENY)
    menu = re.findall(r'<li><a href="(/[a-z]*)"', auditor.get("/decisions").text)
    assert menu == ["/", "/decisions", "/people", "/changes"]


def test_only_a_named_user_in_their_active_organization_gets_the_view(console: Console):
    for user, organization in (
        (AUDITOR, None),  # acts nowhere
        (AUDITOR, "org_harbor"),  # is no member there
        ("user_meadow_1", OWN),  # has no such grant
        (OUTSIDER, "org_harbor"),  # an owner: `*` does not reach the console
    ):
        answer = console.client().sign_in(token_of(user, organization_id=organization))
        assert answer.status_code in (401, 403), user
    link = console.server.pdp("console", "login", "--user", AUDITOR, "--organization", OWN)
    visitor = console.client()
    assert visitor.follow(link.stdout.strip()).status_code == 303
    assert visitor.get("/").status_code == 200
    assert visitor.get("/policy").status_code == 403


@pytest.mark.parametrize(
    ("places", "kept", "after"),
    [
        ([(9, 1), (9, 0), (8, 7), (8, 6)], [(9, 1), (9, 0)], (9, 0)),
        ([(9, 0), (7, 3)], [(9, 0)], (8, 0)),
        ([(9, 5), (9, 4)], [(9, 5), (9, 4)], (9, 4)),
    ],
    ids=["a revision goes on", "revisions between them", "one revision alone"],
)
def test_a_part_of_the_changes_ends_at_no_record_of_others(places, kept, after):
    found = [
        AdministrationRecord("e", revision, number, 0.5, Source.API, "user", ("u",), None, {})
        for revision, number in places
    ]
    whole, place = whole_revisions(found)
    assert [(record.revision, record.number) for record in whole] == kept
    assert place == after
