"""Eight questions of a security team, each answered by a command and by a page, and compared with
brute force: with the evaluator over all facts, and with plain SQL over all records.

On a small company; with SOAK=1 also on one with 5,000 users and 2,000,000 decisions.
"""

import csv
import io
import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from html import unescape
from pathlib import Path

import pytest

from examples.company import Company, company, large_company
from examples.company_log import load_company, load_history
from pdp.database.engine import open_engine
from pdp.database.migrations import migrate
from pdp.document import Asked, World
from pdp.model import Actor, Effect, Question, Resource
from tests.kit import soak
from tests.kit.console import Console, Visitor, running_console
from tests.kit.waiting import eventually

DAY = 86_400
HOUR = 3_600
UNRECORDED = ("TOKEN_EXPIRED", "CONDITION_FALSE", "ATTRIBUTE_MISSING")
"""Reasons that depend on what a record does not keep."""

pytestmark = pytest.mark.soak


@dataclass
class Place:
    """A company, its server, and its facts for brute force."""

    console: Console
    made: Company
    database: Path

    @cached_property
    def world(self) -> World:
        return World(self.made.document)

    @cached_property
    def visitor(self) -> Visitor:
        return self.console.signed_in()

    def command(self, *arguments: str, status: int = 0) -> str:
        done = self.console.server.pdp(*arguments, seconds=600)
        assert done.returncode == status, done.stderr
        return done.stdout

    def table(self, *arguments: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.command(*arguments, "-o", "csv"))))

    def page(self, path: str, **query: str) -> str:
        answer = self.visitor.get(path, params=query)
        if answer.status_code == 303:  # the session has ended
            del self.visitor
            answer = self.visitor.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.text

    def sql(self, query: str, *values: object) -> list[tuple]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query, values).fetchall()

    def decide(
        self, user: str, organization: str | None, permission: str, invoice: str | None
    ) -> Effect:
        resource = None if invoice is None else Resource("invoice", invoice)
        asked = Asked(Actor(user, "sess", organization), Question(permission, resource))
        return self.world.situation(asked, time.time()).decide().effect

    def sessions(self) -> Iterator[tuple[str, str]]:
        """Each user without and with each active organization."""
        for user in self.made.document.users or ():
            yield user.id, ""
        for member in self.made.document.memberships or ():
            yield member.user_id, member.organization_id


@pytest.fixture(scope="module", params=["small", *(["large"] if soak.SOAK else [])])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp(request.param)
    is_large = request.param == "large"
    made = large_company() if is_large else company(3, 6, 6, teams=2)
    database = directory / "pdp.db"
    url = f"sqlite:///{database}"
    migrate(url)
    engine = open_engine(url)
    load_company(engine, made)
    decisions = 2_000_000 if is_large else 4_000
    load_history(engine, made, end=time.time(), days=100, decisions=decisions)
    engine.dispose()
    with running_console(directory, made=made, is_filled=True) as console:
        yield Place(console, made, database)


def iso(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def ids_in(page: str) -> list[str]:
    return [unescape(id_) for id_ in re.findall(r'href="/decision\?id=([^"]+)"><time', page)]


def test_who_can_edit_invoice_42(place: Place) -> None:
    invoice = next(
        resource
        for resource in place.made.document.resources or ()
        if resource.organization_id == "org_meadow" and resource.attributes["state"] == "draft"
    )
    expected = {
        session
        for session in place.sessions()
        if place.decide(session[0], session[1] or None, "invoice:edit", invoice.id) is Effect.ALLOW
    }
    assert 1 < len(expected) < 50
    rows = place.table("allowed", "actors", "invoice:edit", f"invoice:{invoice.id}")
    assert {(row["user"], row["organization"]) for row in rows} == expected
    page = place.page("/resource", type="invoice", id=invoice.id, permission="invoice:edit")
    shown = set(re.findall(r'href="/user\?id=(user_[a-z0-9_]+)"', page))
    assert shown == {user for user, _ in expected}


def test_what_can_a_user_do(place: Place) -> None:
    user, organization = "user_meadow_1", "org_meadow"
    expected = {
        (active, permission.name)
        for active in ("", organization)
        for permission in place.made.document.permissions or ()
        if place.decide(user, active or None, permission.name, None) is Effect.ALLOW
    }
    assert (organization, "report:view") in expected
    rows = place.table("review", "user", user)
    assert expected == {
        (row["organization"], row["permission"])
        for row in rows
        if not row["resource"] and row["effect"] == "allow" and not row["condition"]
    }
    invoice = place.made.invoices[organization][0]
    page = place.page("/user", id=user, organization=organization, type="invoice", resource=invoice)
    text = " ".join(re.sub(r"<[^>]*>", " ", page).split())
    for permission in ("invoice:view", "invoice:edit", "invoice:approve", "invoice:delete"):
        allowed = place.decide(user, organization, permission, invoice) is Effect.ALLOW
        assert f"{'✓ allow' if allowed else '✕ deny'} {permission}" in text


def test_why_was_a_user_denied_at_a_time(place: Place) -> None:
    id_, at, user, reason = place.sql(
        "SELECT decision_id, decided_at, user_id, reason FROM audit_records "
        "WHERE effect = 'DENY' AND reason NOT IN (?, ?, ?) AND decided_at < ? "
        "ORDER BY decision_id DESC LIMIT 1",
        *UNRECORDED,
        time.time() - 7 * DAY,
    )[0]
    minute = at // 60 * 60
    times = {"since": iso(minute), "until": iso(minute + 60)}
    arguments = [part for name, value in times.items() for part in (f"--{name}", value)]
    listed = place.command("audit", "list", "--user", user, *arguments, "--json").splitlines()
    (found,) = [record for record in map(json.loads, listed) if record["decision_id"] == id_]
    assert found["reason"] == f"DECISION_REASON_{reason}"
    assert reason in place.command("explain", "--decision", id_, status=1)
    query = {"user": user, "from": times["since"], "to": times["until"]}
    assert id_ in ids_in(place.page("/decisions", **query))
    page = place.page("/decision", id=id_)
    assert reason in page
    assert "Asked again now" in page


def test_which_grants_did_nobody_use_for_90_days(place: Place) -> None:
    used = {
        grant
        for (grant,) in place.sql(
            "SELECT DISTINCT grant_id FROM audit_records WHERE decided_at >= ?",
            time.time() - 90 * DAY,
        )
    }
    expected = {grant.id for grant in place.made.document.grants or ()} - used
    assert expected
    assert used
    # The server serves since a moment ago; the history says that it is complete until then.
    found = place.table("review", "unused", "--days", "90")
    assert {row["grant"] for row in found} - {"security"} == expected - {"security"}
    assert {float(row["days known"].split()[0]) for row in found} <= {89.9, 90.0}
    page = place.page("/review", list="unused", days="90")
    assert all(row["grant"] in page for row in found[:20])


def test_a_chart_of_denials_per_hour(place: Place) -> None:
    times = place.sql("SELECT decided_at FROM audit_records WHERE effect = 'DENY'")
    denials = Counter(iso(at // HOUR * HOUR)[:16] for (at,) in times)
    rows = {
        row["from"].rstrip("Z"): int(row["denied"])
        for row in place.table("audit", "chart", "--hours", "240")
    }
    assert rows == {hour: denials[hour] for hour in rows}
    assert (len(rows), sum(rows.values()) > 20) == (240, True)
    page = place.page("/", span="24h")
    cells = re.findall(r'datetime="([^"]+)">[^<]*</time></td><td class="number">(\d+)</td>', page)
    shown = {at[:16]: int(denied) for at, denied in cells}
    assert len(shown) == 24
    assert shown == {hour: denials[hour] for hour in shown}


def test_yesterdays_denials_for_the_siem(place: Place) -> None:
    # Of the newest whole day with denials: a small company has none on some Sundays.
    ((newest,),) = place.sql(
        "SELECT max(decided_at) FROM audit_records WHERE effect = 'DENY' AND decided_at < ?",
        time.time() // DAY * DAY,
    )
    since = newest // DAY * DAY
    expected = [
        id_
        for (id_,) in place.sql(
            "SELECT decision_id FROM audit_records WHERE effect = 'DENY' "
            "AND decided_at >= ? AND decided_at < ? ORDER BY decision_id DESC",
            since,
            since + DAY,
        )
    ]
    assert expected
    times = ("--since", iso(since), "--until", iso(since + DAY))
    lines = place.command(
        "audit", "export", "--format", "json", "--decision", "deny", *times
    ).splitlines()
    assert len(lines) == len(expected)
    assert all(id_ in line for id_, line in zip(expected, lines, strict=True))
    query = {"decision": "deny", "from": iso(since), "to": iso(since + DAY)}
    assert ids_in(place.page("/decisions", **query)) == expected[:50]


def test_is_the_log_as_it_was_written(place: Place) -> None:
    stored = place.sql("SELECT count(*) FROM audit_records")[0][0]
    said = place.command("audit", "verify")
    count = re.search(r"(\d+) records and 0 gaps", said)
    assert count is not None
    assert int(count[1]) >= stored, "the console goes on logging"
    ((id_, record),) = place.sql(
        "SELECT decision_id, record FROM audit_records WHERE effect = 'DENY' LIMIT 1"
    )
    ((own,),) = place.sql("SELECT max(decision_id) FROM audit_records")
    eventually(lambda: "The checkpoint" in place.page("/proof", id=own), what="it is covered")
    try:
        write(place.database, id_, record.replace("DENY", "ALLOW"))
        done = place.console.server.pdp("audit", "verify", seconds=600)
        assert done.returncode == 1
        assert f"decision {id_}" in done.stderr
    finally:
        write(place.database, id_, record)


def write(database: Path, id_: str, record: str) -> None:
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        connection.execute(
            "UPDATE audit_records SET record = ? WHERE decision_id = ?", (record, id_)
        )


def test_who_changed_the_policy(place: Place) -> None:
    policy = place.console.server.directory / "changed.yaml"
    policy.write_text(
        place.command("export", "--sections", "permissions,roles").replace(
            "Answers the cases of all customers", "Answers all cases"
        )
    )
    place.command("apply", str(policy), "--yes", "--reason", "ticket 42")
    (line,) = place.command(
        "audit", "changes", "--kind", "role", "--entity", "SUPPORT", "--limit", "1", "--json"
    ).splitlines()
    change = json.loads(line)
    assert change["reason"] == "ticket 42"
    assert change["before"]["description"] == "Answers the cases of all customers"
    assert change["after"]["description"] == "Answers all cases"
    assert "ticket 42" in place.page("/changes", kind="role", key="SUPPORT")


def test_brute_force_notices_a_forgotten_grant(place: Place) -> None:
    """The control."""
    whole, place.world = place.world, World(replace(place.made.document, grants=()))
    try:
        with pytest.raises(AssertionError):
            test_who_can_edit_invoice_42(place)
    finally:
        place.world = whole
