"""Findings in the decision log equal brute force over random logs, on both engines."""

from collections import Counter
from collections.abc import Callable
from random import Random
from unittest.mock import patch

import pytest
from sqlalchemy import Engine, event

from pdp.audit import AnswerSource, FindingPage, Findings, Window
from pdp.database.engine import begin_read
from pdp.model import Actor, ResourceRef
from tests.kit import soak
from tests.kit.reviews import logs
from tests.kit.reviews.logs import (
    ALLOWED,
    HOUR,
    NOW,
    id_at,
    random_log,
    record_at,
    store_records,
)

WORLDS = soak.count(2_000, sample=15)
PAGES_MAX = 100
LOOKED_AT = "pdp.audit.findings.LOOKED_AT_MAX"
Ask = Callable[[Window, str, int], FindingPage]
Found = list[tuple[str, str | None]]
ALL = Window(0, NOW + HOUR)


def listed(ask: Ask, window: Window, limit: int) -> Found:
    found: Found = []
    after = ""
    for _ in range(PAGES_MAX):
        page = ask(window, after, limit)
        assert len(page.findings) <= limit
        for finding in page.findings:
            denial = finding.denied_before
            found.append((finding.key, None if denial is None else denial.decision_id))
        if page.after is None:
            return found
        after = page.after
    raise AssertionError("the pages do not end")


@pytest.mark.soak
def test_findings_equal_brute_force_in_random_logs(engine: Engine) -> None:
    findings = Findings(engine)
    met: Counter[str] = Counter()
    for seed in range(WORLDS):
        random = Random(seed)
        records = random_log(random)
        store_records(engine, records)
        since = NOW - random.choice([1, 2, 3, 24]) * HOUR
        window = Window(since, NOW + random.choice([-HOUR, 0, HOUR]))
        for name in ("impersonated", "granted_after_denial", "first_accesses"):
            expected = getattr(logs, name)(records, *window)
            with patch(LOOKED_AT, random.choice([1, 3, 2_000])):
                found = listed(getattr(findings, name), window, random.randint(1, 4))
            assert found == expected, f"seed {seed}: {name}"
            met[name] += len(found)
    assert min(met.values()) > WORLDS / 2


def test_a_list_with_another_hour_is_found_out(engine: Engine) -> None:
    """The control: a denial exactly an hour before counts."""
    store_records(
        engine, [record_at(NOW - HOUR, 1), record_at(NOW, 2, **ALLOWED), record_at(NOW - 1, 3)]
    )
    findings = Findings(engine)
    wanted = [(id_at(NOW, 2), id_at(NOW - 1, 3))]
    assert listed(findings.granted_after_denial, ALL, 10) == wanted
    store_records(engine, [record_at(NOW - HOUR, 1), record_at(NOW, 2, **ALLOWED)])
    assert listed(findings.granted_after_denial, ALL, 10) == [(id_at(NOW, 2), id_at(NOW - HOUR, 1))]
    with patch("pdp.audit.findings.REGRANTED_SECONDS", HOUR - 1):
        assert listed(findings.granted_after_denial, ALL, 10) == []


def test_a_reporter_hides_neither_a_first_access_nor_a_denial(engine: Engine) -> None:
    """A caller that may report decisions of its own makes some up."""
    actor = Actor("user_1", "sess_1", "org_1")
    made_up = {"actor": actor, "reported_by": "edge"}
    store_records(
        engine,
        [
            record_at(NOW - 50 * HOUR, 1, **ALLOWED, **made_up, source=AnswerSource.STAYED_OPEN),
            record_at(NOW - 600, 2, actor=actor),
            record_at(NOW - 500, 3, **made_up, source=AnswerSource.CACHED),
            record_at(NOW, 4, **ALLOWED, actor=actor),
        ],
    )
    findings = Findings(engine)
    assert listed(findings.first_accesses, ALL, 10) == [(id_at(NOW, 4), None)]
    assert listed(findings.granted_after_denial, ALL, 10) == [(id_at(NOW, 4), id_at(NOW - 600, 2))]


def test_a_text_that_looks_like_an_impersonator_is_none(engine: Engine) -> None:
    hostile = '{"actor":{"impersonator_id":"x"}}'
    records = [
        record_at(NOW, 1, actor=Actor(hostile, "sess_1")),
        record_at(NOW, 2, permission=hostile, resource=ResourceRef("course", hostile)),
        record_at(NOW, 3, actor=Actor("user_1", "sess_1", None, hostile)),
    ]
    store_records(engine, records)
    assert listed(Findings(engine).impersonated, ALL, 10) == [(id_at(NOW, 3), None)]


def test_the_last_use_of_a_grant_is_that_of_a_decision_point(engine: Engine) -> None:
    """Also when a grant's id is no plain text, and when denials fold."""
    odd = "g'\"%_\\\U0001f600"
    store_records(
        engine,
        [
            record_at(NOW - 9, 1, **ALLOWED, grant_id=odd),
            record_at(NOW - 8, 2, **ALLOWED, grant_id=odd),
            record_at(NOW - 7, 3, grant_id="g2", occurrences=2, last_decided_at=NOW - 6),
            record_at(NOW - 5, 4, **ALLOWED, grant_id="g3", reported_by="edge"),
            record_at(NOW - 4, 5),
        ],
    )
    uses = Findings(engine).last_uses([odd, "g2", "g3", "", "%"])
    assert uses == {odd: NOW - 8, "g2": NOW - 6}


def plans_of(engine: Engine, ask: Callable[[], object]) -> list[str]:
    """How the database executes each statement of a question."""
    asked: list[tuple[str, object]] = []

    def note(_connection, _cursor, statement, parameters, *_):
        asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    ask()
    event.remove(engine, "before_cursor_execute", note)
    explain = "EXPLAIN" if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    with begin_read(engine) as connection:
        return [
            "\n".join(str(row) for row in connection.exec_driver_sql(f"{explain} {one}", values))
            for one, values in asked
            if "SELECT" in one
        ]


def test_each_list_has_an_index_of_its_own(engine: Engine) -> None:
    """So a flood of other records does not slow it down."""
    actors = [Actor(f"user_{n}", "sess_1") for n in range(20)]
    records = [
        record_at(
            NOW - 3000 + n,
            n,
            actor=actors[n % 20],
            **(ALLOWED | {"grant_id": f"g{n % 50}"} if n % 2 else {}),
        )
        for n in range(3_000)
    ]
    store_records(engine, records)
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE audit_records")
    findings = Findings(engine)

    def used(ask: Callable[[], object]) -> str:
        return "\n".join(plans_of(engine, ask))

    assert "ix_audit_records_grant" in used(lambda: findings.last_uses(["g1"]))
    assert "ix_audit_records_impersonated" in used(lambda: findings.impersonated(ALL, "", 10))
    recent = Window(NOW - 60, NOW)
    assert "ix_audit_records_denied" in used(lambda: findings.granted_after_denial(recent, "", 10))
    assert "ix_audit_records_allowed" in used(lambda: findings.first_accesses(recent, "", 10))
