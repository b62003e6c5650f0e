"""Reviews, changes and proofs: equal to the services, and only reviewers write."""

import csv
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pdpapi.v1 import review_service_pb2 as pb
from pdpapi.v1.administration_service_pb2 import (
    CreateGrantRequest,
    CreateUserRequest,
    Grant,
    ListGrantsRequest,
    User,
)
from pdpapi.v1.audit_service_pb2 import ListChangesRequest

from examples.company import ANALYST
from pdp.audit.transparency import file_signer
from pdp.console.pages.review_lists import LISTINGS
from tests.kit.console import HOSTILE_DECISION, VIEWER, Console, Visitor, text_of
from tests.kit.waiting import eventually

VERIFY = Path(__file__).parents[2] / "tools" / "verify_log.py"
SECTION = '<a href="{}" aria-current="true">'


@pytest.fixture(scope="module")
def visitor(console: Console) -> Visitor:
    return console.signed_in()


def rows_of(visitor: Visitor, **query: str) -> list[dict[str, str]]:
    answer = visitor.get("/review", params={**query, "as": "csv"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_the_nine_lists_are_those_of_the_service(console: Console, visitor: Visitor):
    invoice = console.company.invoices["org_meadow"][0]
    asked = {
        "who": {"permission": "invoice:edit", "resource": f"invoice:{invoice}"},
        "user": {"user": "user_meadow_2"},
    }
    index = visitor.get("/reviews").text
    assert set(re.findall(r"/review\?list=([a-z-]+)", index)) == set(LISTINGS)
    for name in LISTINGS:
        page = visitor.get("/review", params={"list": name, **asked.get(name, {})})
        assert page.status_code == 200
        assert "Download all as CSV" in page.text, name
        assert ("the log is complete" in page.text) == (
            name in ("unused", "impersonators", "denied-then-granted", "first-time")
        )
    unused = text_of(visitor.get("/review", params={"list": "unused"}).text)
    assert "This cannot be answered for 90 days" in unused
    assert "a grant that is listed here may have been used" in unused
    request = pb.ListGrantFindingsRequest(kind=pb.GRANT_FINDING_KIND_CROSS_TENANT, page_size=500)
    findings = console.stubs.reviews.ListGrantFindings(request, timeout=10).findings
    # In a file the ids are escaped: that of the hostile grant is not equal.
    listed = {row["grant"] for row in rows_of(visitor, list="cross-tenant")}
    assert {finding.grant.id for finding in findings if finding.grant.id.isidentifier()} <= listed
    (disabled,) = {row["subject"] for row in rows_of(visitor, list="disabled")}
    assert disabled == "user user_left"
    who = rows_of(visitor, list="who", **asked["who"])
    assert {"user_meadow_0", "user_meadow_2"} <= {row["user"] for row in who}
    user = rows_of(visitor, list="user", user="user_meadow_2")
    assert ("org_meadow", "invoice:edit", "ACCOUNTANT") in {
        (row["organization"], row["permission"], row["role"]) for row in user
    }
    assert all("log complete for days" in row for row in rows_of(visitor, list="first-time"))


@pytest.mark.parametrize(
    "query",
    [
        {"list": "nothing"},
        {"list": "unused", "days": "0"},
        {"list": "unused", "days": "1e3"},
        {"list": "unused", "after": "x\ny"},
        {"list": "ending", "after": "nan\n1.0\nx"},
        {"list": "disabled", "after": "a\nb"},
        {"list": "first-time", "after": "1.0"},
        {"list": "first-time", "after": "1e308\nx"},
        {"list": "who", "permission": "invoice:view", "resource": "invoice"},
        {"list": "who", "permission": "invoice:view", "resource": "invoice:\x00"},
        {"list": "user", "user": "\x1b"},
    ],
)
def test_an_unknown_list_or_page_of_a_list_is_refused(visitor: Visitor, query: dict[str, str]):
    assert visitor.get("/review", params=query).status_code == 400


def grants_of(console: Console, role: str) -> set[str]:
    request = ListGrantsRequest(page_size=500)
    grants = console.stubs.administration.ListGrants(request, timeout=10).grants
    return {grant.id for grant in grants if grant.role == role}


def assert_only_reviewers_decide(
    console: Console, visitor: Visitor, campaign: str, verdict: dict[str, str]
) -> None:
    # Neither without a reason, nor without a grant, nor from elsewhere, nor by others.
    for refused, text in (
        ({"reason": " "}, "must not be empty"),
        ({"item-9": "on"}, "there is no campaign_item"),
        ({}, "choose at least one grant"),
    ):
        asked = {**verdict, **({"item-1": "on"} if "reason" in refused else {}), **refused}
        assert text in text_of(visitor.post("/campaign/verdicts", asked).text), refused
    assert visitor.post("/campaign/verdicts", {**verdict, "outcome": "x"}).status_code == 400
    chosen = {**verdict, "item-1": "on"}
    assert (
        visitor.post("/campaign/verdicts", chosen, origin="http://evil.example").status_code == 403
    )
    assert visitor.post("/campaign/verdicts", {**chosen, "proof": "0" * 64}).status_code == 403
    assert visitor.get("/campaign/verdicts").status_code == 404
    viewer = console.signed_in(VIEWER)
    assert viewer.get(campaign).status_code == 200
    own = {"proof": viewer.proof("/reviews")}
    assert viewer.post("/campaign/verdicts", {**chosen, **own}).status_code == 403
    assert viewer.post("/campaigns", {"name": "x", **own}).status_code == 403
    assert viewer.get(f"/campaign/report?id={verdict['id']}").status_code == 403
    acting = console.signed_in(claims={"act": {"sub": "user_operator"}})
    answer = acting.post("/campaign/verdicts", {**chosen, "proof": acting.proof("/reviews")})
    assert (answer.status_code, "in the name of" in answer.text) == (403, True)


def test_a_reviewer_decides_about_a_campaign_and_its_report_is_signed(
    console: Console, visitor: Visitor
):
    administration = console.stubs.administration
    users = [f"user_reviewed_{number}" for number in range(3)]  # nobody else's
    for user in users:
        administration.CreateUser(CreateUserRequest(user=User(id=user)), timeout=5)
    for number, user in enumerate((*users, ANALYST)):
        grant = Grant(
            id=f"reviewed-{number}", role="APPROVER", user_id=user, organization_id="org_new"
        )
        administration.CreateGrant(CreateGrantRequest(grant=grant), timeout=5)
    proof = visitor.proof("/reviews")
    fields = {"proof": proof, "name": "=Q4 <b>", "role": "APPROVER", "organization": "org_new"}
    assert visitor.post("/campaigns", {**fields, "name": " "}).status_code == 400
    created = visitor.post("/campaigns", fields)
    assert created.status_code == 303, created.text
    campaign, id_ = created.headers["location"], created.headers["location"].partition("id=")[2]
    page = visitor.get(campaign).text
    assert "0 of 4 grants decided" in page
    assert "=Q4 &lt;b&gt;" in page
    verdict = {"proof": proof, "id": id_, "outcome": "revoked", "reason": "left\r\nin May"}
    chosen = {**verdict, "item-1": "on"}
    assert_only_reviewers_decide(console, visitor, campaign, verdict)
    assert 'name="item-3"' in page
    assert 'name="item-4"' not in page, "it is to the reviewer"
    own = visitor.post("/campaign/verdicts", {**verdict, "item-4": "on"})
    assert "grant 4: the grant is to you" in text_of(own.text)
    assert "0 of 4 grants decided" in visitor.get(campaign).text
    assert "reviewed-0" in grants_of(console, "APPROVER")

    assert visitor.post("/campaign/verdicts", chosen).status_code == 303
    again = visitor.post("/campaign/verdicts", chosen)
    assert "exists" in text_of(again.text)
    kept = {**verdict, "outcome": "certified", "reason": "=still here", "item-2": "on"}
    assert visitor.post("/campaign/verdicts", kept).status_code == 303
    page = text_of(visitor.get(campaign).text)
    assert "2 of 4 grants decided" in page
    assert f"revoked by console:{ANALYST}" in page
    assert grants_of(console, "APPROVER") & {"reviewed-0", "reviewed-1"} == {"reviewed-1"}
    request = ListChangesRequest(kind="grant", key=["reviewed-0"], page_size=1)
    (change,) = console.stubs.audit.ListChanges(request, timeout=5).changes
    assert (change.caller, change.HasField("after")) == (f"console:{ANALYST}", False)

    report = visitor.get(f"/campaign/report?id={id_}")
    assert report.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(report.content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    key = load_pem_private_key((console.server.directory / "key.pem").read_bytes(), None)
    for end in ("html", "csv"):
        content = files[f"review-{id_}.{end}"]
        key.public_key().verify(files[f"review-{id_}.{end}.sig"], content)  # type: ignore
    assert b"'=still here" in files[f"review-{id_}.csv"]
    assert b"<b>" not in files[f"review-{id_}.html"]


def test_a_change_links_to_its_policy_and_its_author(console: Console, visitor: Visitor):
    before = int(re.search(r"revision (\d+)", visitor.get("/policy").text)[1])  # type: ignore[index]
    (console.server.directory / "part.yaml").write_text(
        console.company.text.replace("Approve an invoice for payment", "Approve <i>an invoice</i>")
    )
    done = console.server.pdp("apply", "part.yaml", "--reason", "OPS-12: <script>")
    assert done.returncode == 0, done.stderr
    query = {"kind": "permission", "key": "invoice:approve", "source": "COMMAND"}
    page = visitor.get("/changes", params=query).text
    link = re.search(r'href="(/change\?id=(\d+)-\d+)"', page)
    assert link is not None
    assert "OPS-12: &lt;script&gt;" in page
    change = visitor.get(link[1]).text
    assert "Approve an invoice for payment" in change
    assert "Approve &lt;i&gt;" in change
    revision = int(link[2])
    earlier = visitor.get("/policy", params={"revision": str(before)}).text
    assert "Approve an invoice for payment" in earlier
    assert "user_harbor" not in earlier
    diff = visitor.get("/diff", params={"from": str(before), "to": str(revision)}).text
    assert "update permission invoice:approve" in diff
    assert f"revision {revision}</a>" in diff
    assert "OPS-12: &lt;script&gt;" in diff
    assert "are equal" in visitor.get("/diff", params={"from": "1", "to": "1"}).text
    for path in ("/change?id=1", "/diff?from=1", "/policy?revision=99999", "/policy?revision=x"):
        assert visitor.get(path).status_code == 400, path
    assert visitor.get("/change?id=999999-0").status_code == 404
    done = console.server.pdp("apply", "company.yaml")
    assert done.returncode == 0, done.stderr


def test_a_proof_of_inclusion_is_verified_without_this_project(
    console: Console, visitor: Visitor, tmp_path: Path
):
    def own_decisions() -> list[str]:
        decisions = visitor.get("/decisions", params={"caller": "pdp:console"}).text
        return re.findall(r'href="/decision\?id=([^"]+)"', decisions)

    eventually(own_decisions, what="a visit is in SQL")
    decision = own_decisions()[-1]
    changes = visitor.get("/changes", params={"kind": "rule"}).text
    change = visitor.get(re.findall(r'href="(/change\?id=[^"]+)"', changes)[-1]).text
    assert SECTION.format("/changes") in change, "the menu marks its section"
    [proof_of_change] = re.findall(r'href="(/proof\?id=[^"]+)"', change)
    key = str(file_signer("test.example", console.server.directory / "key.pem").key)
    for path, section, expected in (
        (f"/proof?id={decision}", "/decisions", decision),
        (proof_of_change, "/changes", '"kind":"rule"'),
    ):
        eventually(
            lambda path=path: "tlog" in visitor.get(path).text,
            seconds=30,
            what="a checkpoint covers the record",
        )
        page = visitor.get(path).text
        assert "test.example/" in page
        assert SECTION.format(section) in page
        proof = visitor.get(f"{path}&as=file")
        assert "attachment" in proof.headers["content-disposition"]
        (tmp_path / "record.tlog-proof").write_bytes(proof.content)
        command = [sys.executable, VERIFY, "record", "--key", key, tmp_path / "record.tlog-proof"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert expected in done.stdout
    assert "test.example/" in visitor.get(f"/proof?id={HOSTILE_DECISION}").text
    for nothing in ("nothing", "999999/0", "1/999999999", "9999999999999999999999/0"):
        assert visitor.get("/proof", params={"id": nothing}).status_code == 404, nothing
