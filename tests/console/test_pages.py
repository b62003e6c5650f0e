"""What the pages say, without a browser."""

import re
import time
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from examples.company import ANALYST
from pdp.console.pages import PAGES
from pdp.console.rendering import render
from tests.kit.console import (
    HOSTILE_DECISION,
    HOSTILE_RESOURCE,
    HOSTILE_USER,
    MARKUP,
    Console,
    Outline,
    Visitor,
    text_of,
)
from tests.kit.stall import Stopwatch

HOSTILE_PAGES = (
    ("/", {"span": "6h"}),
    ("/decisions", {}),
    ("/decisions", {"user": MARKUP, "type": MARKUP, "id": MARKUP, "caller": MARKUP}),
    ("/decisions", {"reason": MARKUP, "from": MARKUP}),
    ("/decisions", {"after": MARKUP}),
    ("/decision", {"id": HOSTILE_DECISION}),
    ("/decision", {"id": MARKUP}),
    ("/people", {}),
    ("/people", {"after": MARKUP}),
    ("/user", {"id": HOSTILE_USER}),
    ("/user", {"id": MARKUP}),
    (
        "/user",
        {
            "id": HOSTILE_USER,
            "organization": f"org_{MARKUP}",
            "type": HOSTILE_RESOURCE.type,
            "resource": HOSTILE_RESOURCE.id,
            "permission": "invoice:print",
        },
    ),
    ("/role", {"name": "HOSTILE"}),
    ("/role", {"name": MARKUP}),
    (
        "/resource",
        {
            "type": HOSTILE_RESOURCE.type,
            "id": HOSTILE_RESOURCE.id,
            "permission": "invoice:print",
        },
    ),
    ("/resource", {"type": MARKUP, "id": MARKUP, "permission": MARKUP}),
    ("/policy", {}),
    ("/policy", {"revision": MARKUP}),
    ("/reviews", {}),
    ("/review", {"list": MARKUP}),
    ("/review", {"list": "cross-tenant"}),
    ("/review", {"list": "user", "user": HOSTILE_USER}),
    ("/review", {"list": "who", "permission": MARKUP, "resource": f"x:{MARKUP}", "after": MARKUP}),
    ("/campaign", {"id": MARKUP, "after": MARKUP}),
    ("/campaign", {"id": MARKUP}),
    ("/campaign/report", {"id": MARKUP}),
    ("/changes", {}),
    ("/changes", {"kind": "rule", "key": "hostile"}),
    ("/changes", {"kind": MARKUP, "key": MARKUP, "second": MARKUP, "by": MARKUP, "from": MARKUP}),
    ("/changes", {"by": MARKUP, "source": MARKUP}),
    ("/change", {"id": MARKUP}),
    ("/change", {"id": "1-1"}),
    ("/diff", {"from": "0", "to": "1"}),
    ("/diff", {"from": MARKUP, "to": MARKUP}),
    ("/proof", {"id": HOSTILE_DECISION}),
    ("/proof", {"id": MARKUP}),
    ("/sign-in", {"next": MARKUP, "link": MARKUP}),
    (f"/{MARKUP}", {}),
    *(
        (path, dict.fromkeys(("id", "name", "user", "type", "after", "permission"), "\x00\x7f"))
        for path in ("/decisions", "/decision", "/people", "/user", "/role", "/resource")
    ),
    (
        "/resource",
        {"type": "\x00", "id": "\x00", "permission": "invoice:view", "after_user": "\x00"},
    ),
)


@pytest.fixture(scope="module")
def visitor(console: Console) -> Visitor:
    return console.signed_in()


@pytest.mark.parametrize(("path", "query"), HOSTILE_PAGES)
def test_hostile_texts_stay_text(visitor: Visitor, path: str, query: dict[str, str]):
    answer = visitor.get(path, params=query)
    assert answer.status_code in (200, 400, 404)
    page = answer.text
    outline = Outline(page)
    assert not {tag for tag, _ in outline.elements} & {"script", "iframe", "object", "style"}
    images = [attributes for tag, attributes in outline.elements if tag == "img"]
    assert all(attributes["src"].startswith("/static/") for attributes in images)
    for tag, attributes in outline.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), attributes
            assert not (attributes.get(name) or "").startswith("//")
    assert "{{" not in page.replace(unescape("{{ 7 * 7 }}"), ""), "no template is filled twice"
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    for header in answer.headers.values():
        assert "<" not in header


def test_hostile_texts_are_shown(visitor: Visitor):
    """Positive control of the test above: the pages do show them."""
    shown = text_of(visitor.get("/user", params={"id": HOSTILE_USER}).text)
    assert "<script>alert('x')</script>" in shown
    assert "=HYPERLINK" in shown
    decision = text_of(visitor.get("/decision", params={"id": HOSTILE_DECISION}).text)
    assert r"\x1b[31mred\u202e<b>" in decision


def test_every_page_is_in_these_tests():
    reads = {page.path for page in PAGES if page.methods == ("GET",)}
    assert reads <= {path for path, _ in HOSTILE_PAGES}


def test_every_page_asks_for_a_permission_of_the_console():
    assert all(page.permission.startswith("console:") for page in PAGES)
    assert len({page.name for page in PAGES}) == len(PAGES)


def test_a_search_has_its_filters_in_the_address(console: Console, visitor: Visitor):
    page = visitor.get("/decisions", params={"decision": "deny", "reason": "DENIED_BY_RULE"}).text
    rows = re.findall(r'title="[^"]*">([A-Z_]+)</abbr>', page)
    assert rows
    assert set(rows) == {"DENIED_BY_RULE"}
    assert "<option selected>DENIED_BY_RULE</option>" in page


def test_pages_of_a_search_hold_each_decision_once(visitor: Visitor):
    query = {"user": "user_harbor_1"}
    seen: list[str] = []
    path, parameters = "/decisions", query
    for _ in range(20):
        page = visitor.get(path, params=parameters).text
        seen += re.findall(r'href="/decision\?id=([^"]+)"><time', page)
        older = re.search(r'href="([^"]+)">Older', page)
        if older is None:
            break
        path, parameters = unescape(older[1]), None
    assert len(seen) == len(set(seen)) > 10
    assert seen == sorted(seen, reverse=True)


def test_the_reason_of_a_denial_is_explained(console: Console, visitor: Visitor):
    found = visitor.get("/decisions", params={"reason": "WRONG_ORGANIZATION"}).text
    first = re.search(r'href="(/decision\?id=[^"]+)"', found)
    assert first is not None
    page = text_of(visitor.get(first[1]).text)
    assert "WRONG_ORGANIZATION : The resource belongs to another organization." in page
    assert "Asked again now" in page
    assert "tenant:" in page


def test_a_decision_begins_with_its_rule_and_what_would_allow_it(visitor: Visitor):
    query = {"reason": "CONDITION_NOT_MET", "permission": "invoice:delete"}
    found = visitor.get("/decisions", params=query).text
    link = re.search(r'href="(/decision\?id=[^"]+)"><abbr', found)
    assert link is not None, "the reason leads to the decision"
    page = text_of(visitor.get(link[1]).text)
    parts = (
        *("Only the owner deletes a draft", "if resource.attributes.owner == actor.id"),
        *("Any of these would allow it", "As it was recorded", "Can this record be proved?"),
    )
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


def test_a_decision_older_than_its_revision_has_a_warning(visitor: Visitor):
    """The company was stored after its history, and before the console was asked."""
    hour_ago = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M}"
    for search, warned in (({"to": hour_ago}, True), ({"caller": "pdp:console"}, False)):
        found = visitor.get("/decisions", params=search).text
        link = re.search(r'href="(/decision\?id=[^"]+)"', found)
        assert link is not None
        assert ("The times contradict" in visitor.get(link[1]).text) == warned, search


def test_a_user_page_answers_as_check_does(console: Console, visitor: Visitor):
    from pdpapi.v1.core_pb2 import DECISION_ALLOW, Resource
    from pdpapi.v1.decision_service_pb2 import CheckRequest

    from tests.kit.server import token_of
    from tests.kit.wire.recorded import check

    user, invoice = "user_meadow_2", console.company.invoices["org_meadow"][0]
    query = {"id": user, "organization": "org_meadow", "type": "invoice", "resource": invoice}
    page = text_of(visitor.get("/user", params=query).text)
    for permission in ("invoice:view", "invoice:edit", "invoice:delete"):
        request = CheckRequest(
            actor_token=token_of(user, organization_id="org_meadow"),
            permission=permission,
            resource=Resource(type="invoice", id=invoice),
        )
        allowed = check(console.stubs, request).decision == DECISION_ALLOW
        assert f"{'✓ allow' if allowed else '✕ deny'} {permission}" in page


def test_a_question_about_a_user_creates_nobody(console: Console, visitor: Visitor):
    query = {"id": "user_nobody", "type": "invoice", "resource": "x"}
    assert visitor.get("/user", params=query).status_code == 404
    assert console.server.pdp("console", "login", "--user", "user_nobody").returncode == 2


def test_the_resource_page_lists_who_may(console: Console, visitor: Visitor):
    invoice = console.company.invoices["org_meadow"][0]
    query = {"type": "invoice", "id": invoice, "permission": "invoice:edit"}
    page = text_of(visitor.get("/resource", params=query).text)
    assert "user_meadow_0" in page, "the owner"
    assert "user_meadow_2" in page, "an accountant"
    assert "user_harbor" not in page
    assert 'resource.attributes.state == "draft"' in page


def test_the_resource_page_tells_those_who_can_from_those_whose_condition_is_false(
    console: Console, visitor: Visitor
):
    invoices = {
        resource.id: resource.attributes
        for resource in console.company.document.resources or ()
        if resource.id in console.company.invoices["org_meadow"]
    }
    for invoice, attributes in invoices.items():
        query = {"type": "invoice", "id": invoice, "permission": "invoice:delete"}
        page = visitor.get("/resource", params=query).text
        groups = dict(re.findall(r"<h3>([^<]+)</h3>(.*?)</table>", page, re.DOTALL))
        shown = {
            title.split(",")[0]: set(re.findall(r'href="/user\?id=(\w+)"', table))
            for title, table in groups.items()
        }
        accountants = {"user_meadow_2", "user_meadow_3"}
        able = {"user_meadow_0"} | (accountants & {attributes["owner"]})
        assert shown["Can now"] == able
        assert shown.get("Cannot", set()) == accountants - able
        link = re.search(r'href="(/user\?id=user_meadow_2&[^"]+)#may"', page)
        assert link is not None
        answer = re.search(
            r'class="answer"><span class="effect (\w+)"', visitor.get(unescape(link[1])).text
        )
        assert answer is not None
        assert (answer[1] == "allow") == ("user_meadow_2" in able)
    query |= {"permission": "invoice:approve"}
    page = text_of(visitor.get("/resource", params=query).text)
    assert "Depends on the request" in page, "on a second factor"


def test_the_role_page_has_rules_and_holders(visitor: Visitor):
    page = text_of(visitor.get("/role", params={"name": "APPROVER"}).text)
    assert "Inherits EMPLOYEE" in page
    assert "user_harbor_1" in page
    assert "Nobody approves an invoice of their own" in page


def test_the_policy_page_is_the_export_without_people(visitor: Visitor):
    page = text_of(visitor.get("/policy").text)
    assert "SECURITY_ANALYST" in page
    assert "user_harbor" not in page
    # The first by a command; tests before this one may have changed it as callers.
    assert re.search(
        r"Last changed [\d :-]+ UTC by (command pdp, run by the|a caller|caller )", page
    )


def test_changes_of_a_revision_share_a_row_and_one_field_finds_an_entity(visitor: Visitor):
    page = text_of(visitor.get("/changes").text)
    assert re.search(r"create \d+ of the kind resource", page)
    page = text_of(visitor.get("/changes", params={"kind": "policy"}).text)
    assert re.search(r"create \d+ of the kind rule", page)
    assert "of the kind resource " not in page
    for key in ("invoice:meadow-2026001", "invoice/meadow-2026001"):
        page = text_of(visitor.get("/changes", params={"kind": "resource", "key": key}).text)
        assert "create resource invoice/meadow-2026001" in page


# --- the playground -------------------------------------------------------------------------------

POLICY = """\
version: 1
permissions: [course:edit]
roles: {R: {allow: [course:edit]}}
users: [{id: user_a}]
grants: [{role: R, user: user_a}]
"""


def tried(visitor: Visitor, **fields: str) -> str:
    given = {"policy": POLICY, "user": "user_a", "permission": "course:edit", **fields}
    answer = visitor.post("/try", {"proof": visitor.proof("/try"), **given})
    assert answer.status_code == 200
    return answer.text


def test_the_playground_answers_and_stores_nothing(console: Console, visitor: Visitor):
    before = console.server.pdp("export").stdout
    assert "ALLOWED_BY_RULE" in tried(visitor)
    assert "ACTOR_UNKNOWN" in tried(visitor, user="user_b")
    assert console.server.pdp("export").stdout == before


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"policy": "roles: [", "user": "u"}, "line "),
        ({"policy": POLICY + "x: 1\n"}, "x"),
        ({"policy": "#" * 40_000}, "policy_bytes_max is 32768"),
        ({"user": ""}, "user: must not be empty"),
        ({"type": "course", "id": "1", "attributes": "[1]"}, "attributes: is not a JSON object"),
        ({"context": '{"a": 1, "a": 2}'}, "context: is not a JSON object"),
        ({"second_factor_minutes": "1e9"}, "second_factor_minutes"),
    ],
)
def test_what_is_wrong_with_a_question_is_named(visitor: Visitor, fields, problem):
    page = tried(visitor, **fields)
    assert problem in text_of(page)
    assert 'role="alert"' in page


@pytest.mark.parametrize("text", [MARKUP, f"</textarea>{MARKUP}", "\x1b[31m\u202e", "\r\n\r\n"])
def test_what_was_sent_comes_back_as_text(visitor: Visitor, text: str):
    page = tried(visitor, policy=text, user=text, permission=text, type=text, context=text)
    assert not {tag for tag, _ in Outline(page).elements} & {"script", "iframe", "object"}
    assert not re.search("[\x1b\u202e]", page)


def test_an_expensive_policy_keeps_nobody_waiting(visitor: Visitor):
    """Many roles, each with a condition of its own that costs almost all that a question may. With
    the search for what would allow it took ten seconds of a core, and some took minutes."""
    nested = "context.l.all(a, context.l.all(b, a == b || a <= b)) && context.x =="
    roles = "".join(
        f"  R{number}: {{allow: [{{permission: 'c:e', when: '{nested} {number}.0'}}]}}\n"
        for number in range(150)
    )
    grants = "".join(f"  - {{role: R{number}, user: user_a}}\n" for number in range(150))
    head = "version: 1\npermissions: ['c:e']\nusers: [{id: user_a}]\n"
    policy = f"{head}roles:\n{roles}grants:\n{grants}"
    for items in (14, 40):
        context = '{"l": [' + ",".join(["1"] * items) + "]}"
        watch = Stopwatch()
        page = tried(visitor, policy=policy, permission="c:e", context=context)
        assert watch.seconds < 10
        assert "ATTRIBUTE_MISSING" in page, "it is a valid policy"


# --- small things ---------------------------------------------------------------------------------


def test_a_time_that_is_none_is_named(visitor: Visitor):
    page = visitor.get("/decisions", params={"from": "yesterday"})
    assert page.status_code == 200
    assert "is not a time" in page.text


def test_live_pages_reload_and_others_do_not(visitor: Visitor):
    assert visitor.get("/?live=1").headers["refresh"] == "15"
    assert "refresh" not in visitor.get("/").headers
    assert "refresh" not in visitor.get("/decisions?live=1&after=x").headers
    assert 'href="/?span=1h&amp;live=1"' in visitor.get("/").text


def test_files_are_cached_and_change_their_address(visitor: Visitor):
    (path,) = set(re.findall(r'href="(/static/[^"]+\.css)"', visitor.get("/").text))
    answer = visitor.get(path)
    assert answer.headers["content-type"].startswith("text/css")
    assert "immutable" in answer.headers["cache-control"]
    assert visitor.get("/static/../templates/base.html").status_code == 404


def test_a_template_without_a_value_is_an_error():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render("message.html", {"menu": (), "user_id": None, "page": None, "proof": ""})


def test_the_history_of_the_company_is_in_the_chart(visitor: Visitor):
    page = visitor.get("/", params={"span": "6h"}).text
    assert page.count('<rect class="denied"') > 5
    assert f"user={ANALYST}" not in page
    assert time.strftime("%Y-%m-%d", time.gmtime()) in page
