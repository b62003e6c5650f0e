"""The decision log: order, filters, pages, on both engines."""

from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine, text

from pdp.audit import (
    DecisionFilter,
    DecisionLog,
    DecisionRecord,
    Listed,
    Recorder,
    Shipper,
    SqlDestination,
    queries,
)
from pdp.audit.records import first_id_at
from pdp.audit.tables import STRAY
from pdp.database.engine import begin_read
from pdp.errors import NotFound
from pdp.model import Actor, Effect, Reason, ResourceRef
from tests.kit import soak
from tests.kit.audit.records import decision_record
from tests.kit.reviews.logs import store_records
from tests.kit.waiting import run


def put(directory: Path, engine: Engine, *records: DecisionRecord) -> DecisionLog:
    recorder = Recorder(directory, "one")
    recorder.start()
    run(recorder.record(records))
    recorder.stop()
    Shipper(directory, SqlDestination(engine)).ship()
    return DecisionLog(engine)


def test_decisions_come_newest_first_page_by_page(tmp_path: Path, engine: Engine) -> None:
    records = [decision_record() for _ in range(7)]
    log = put(tmp_path, engine, *records)
    after, seen = None, []
    while True:
        page = log.list(DecisionFilter(), after, 3)
        assert len(page.decisions) <= 3
        seen += page.decisions
        after = page.after
        if after is None:
            break
    assert seen == records[::-1]


DENIAL = decision_record()
OTHERS = {
    "user_id": decision_record(actor=Actor("User_1", "sess_1", "org_1")),
    "permission": decision_record(permission="course:read"),
    "resource_type": decision_record(resource=ResourceRef("courses", "1")),
    "resource_id": decision_record(resource=ResourceRef("course", "1 ")),
    "effect": decision_record(effect=Effect.ALLOW, reason=Reason.PERMISSION_NOT_GRANTED),
    "reason": decision_record(reason=Reason.DENIED_BY_RULE),
    "organization_id": decision_record(actor=Actor("user_1", "sess_1", "ORG_1")),
    "caller": decision_record(caller="Courses"),
    "not_before": decision_record(decided_at=DENIAL.decided_at - 0.001),
    "before": decision_record(decided_at=DENIAL.decided_at + 0.001),
}
WANTED = {
    "user_id": "user_1",
    "permission": "course:edit",
    "resource_type": "course",
    "resource_id": "1",
    "effect": Effect.DENY,
    "reason": Reason.PERMISSION_NOT_GRANTED,
    "organization_id": "org_1",
    "caller": "courses",
    "not_before": DENIAL.decided_at,
    "before": DENIAL.decided_at + 0.001,
}


def test_each_filter_excludes_records_that_differ_in_it_alone(
    tmp_path: Path, engine: Engine
) -> None:
    """OpenFGA CVE-2026-55170; twins by case or by a blank are others, on both engines."""
    log = put(tmp_path, engine, DENIAL, *OTHERS.values())
    for name, other in OTHERS.items():
        found = log.list(DecisionFilter(**{name: WANTED[name]}), None, 100).decisions
        assert DENIAL in found, name
        assert other not in found, name
    assert log.list(DecisionFilter(**WANTED), None, 100).decisions == [DENIAL]


def test_a_refused_token_without_actor_and_resource_is_found(
    tmp_path: Path, engine: Engine
) -> None:
    record = decision_record(
        actor=None,
        resource=None,
        resource_organization_id=None,
        token_id=None,
        reason=Reason.TOKEN_SIGNATURE_INVALID,
    )
    log = put(tmp_path, engine, record)
    where = DecisionFilter(reason=Reason.TOKEN_SIGNATURE_INVALID)
    assert log.list(where, None, 10).decisions == [record]
    assert log.get(record.decision_id) == [record]


@pytest.mark.parametrize("decision_id", ["", "x", "\0", "\ud800", "' OR 1=1 --", "%"])
def test_an_unknown_id_is_not_found(tmp_path: Path, engine: Engine, decision_id: str) -> None:
    log = put(tmp_path, engine, decision_record())
    with pytest.raises(NotFound):
        log.get(decision_id)


# --- searches by time -----------------------------------------------------------------------------

START = 1_790_000_000.0
SEARCHES = soak.count(5_000, sample=20)
RECORDS = soak.count(250, sample=80)


def random_record(random: Random, number: int) -> DecisionRecord:
    """Most ids are of the time of the decision, some of another time, some of none."""
    at = START + random.choice((0, 0, 0, -9e8, 5e12)) + random.uniform(0, 3_000)
    skew = random.choice((0, 0, 0, 0.2, -0.2, 60, -60, 70, -140, 1e5, -1e5, 1e9))
    id_ = f"{first_id_at(at + skew)}7000-8000-{number:012x}"
    if random.random() < 0.05:
        id_ = random.choice((f"x{number}", f"{number}", f"ZZ-{number}", f"\uffff{number}"))
    return decision_record(
        decision_id=id_,
        decided_at=at,
        effect=random.choice(list(Effect)),
        reason=random.choice((Reason.DENIED_BY_RULE, Reason.PERMISSION_NOT_GRANTED)),
        permission=random.choice(("course:edit", "course:view")),
        actor=Actor(random.choice(("a", "b")), "s", random.choice((None, "org"))),
        resource=ResourceRef("course", random.choice(("1", "2"))),
        caller=random.choice(("one", "two")),
    )


def random_filter(random: Random) -> DecisionFilter:
    fields: dict[str, object] = {
        "user_id": random.choice(("a", "b", "c")),
        "permission": "course:edit",
        "resource_type": "course",
        "resource_id": "1",
        "effect": Effect.DENY,
        "reason": Reason.DENIED_BY_RULE,
        "organization_id": random.choice(("org", "")),
        "caller": "one",
        "reported_by": "edge",
    }
    chosen = random.sample(list(fields), random.choice((0, 0, 1, 1, 2, 3)))
    at = START + random.choice((0, 0, 0, -9e8, 5e12)) + random.uniform(-200, 3_200)
    times = {"not_before": at, "before": at + random.choice((0.5, 60, 900, 1e9, 6e12))}
    for name in random.sample(list(times), random.choice((0, 1, 2, 2))):
        chosen.append(name)
    return DecisionFilter(**{name: (fields | times)[name] for name in chosen})


def matches(where: DecisionFilter, record: DecisionRecord) -> bool:
    actor, resource = record.actor, record.resource
    assert actor is not None
    assert resource is not None
    pairs = (
        (where.user_id, actor.user_id),
        (where.permission, record.permission),
        (where.resource_type, resource.type),
        (where.resource_id, resource.id),
        (where.effect, record.effect),
        (where.reason, record.reason),
        (where.organization_id, actor.organization_id),
        (where.caller, record.caller),
        (where.reported_by, record.reported_by),
    )
    return (
        all(wanted in (None, value) for wanted, value in pairs)
        and (where.not_before is None or record.decided_at >= where.not_before)
        and (where.before is None or record.decided_at < where.before)
    )


def all_pages(log: DecisionLog, where: DecisionFilter, limit: int) -> list[DecisionRecord]:
    found: list[DecisionRecord] = []
    after: str | None = None
    for _ in range(10_000):
        page: Listed = log.list(where, after, limit)
        assert len(page.decisions) <= limit
        found += page.decisions
        if page.after is None:
            return found
        assert after is None or page.after < after
        after = page.after
    raise AssertionError("the pages do not end")


@pytest.mark.soak
def test_pages_of_any_search_hold_each_match_once_whatever_the_ids(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(3)
    records = [random_record(random, number) for number in range(RECORDS)]
    store_records(engine, records)
    log = DecisionLog(engine)
    met = strays = 0
    for number in range(SEARCHES):
        monkeypatch.setattr(queries, "STEP_ROWS", random.choice((1, 3, 20, 1_000)))
        monkeypatch.setattr(queries, "STEPS_MAX", random.choice((1, 2, 5)))
        where = random_filter(random)
        wanted = [record for record in records if matches(where, record)]
        wanted.sort(key=lambda record: record.decision_id, reverse=True)
        assert all_pages(log, where, random.choice((1, 4, 100))) == wanted, f"search {number}"
        met += bool(wanted)
        strays += any(abs(id_time(record) - record.decided_at) > 1e4 for record in wanted)
    assert met > SEARCHES / 4
    assert strays > SEARCHES / 10


def id_time(record: DecisionRecord) -> float:
    try:
        return int(record.decision_id[:13].replace("-", ""), 16) / 1000
    except ValueError:
        return 0.0


def test_without_the_strays_a_search_would_miss_records(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setattr(queries, "_strays", lambda *_: {})
    with pytest.raises(AssertionError, match="search"):
        test_pages_of_any_search_hold_each_match_once_whatever_the_ids(engine, monkeypatch)


def test_a_page_looks_at_a_bounded_number_of_records(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood hides nothing, and nothing makes a search read all of it."""
    rare = decision_record(caller="rare", permission="a:b")
    store_records(engine, [rare, *(decision_record(permission="a:b") for _ in range(50))])
    monkeypatch.setattr(queries, "STEP_ROWS", 10)
    monkeypatch.setattr(queries, "STEPS_MAX", 2)
    log = DecisionLog(engine)
    # No filter that has an index is rare.
    where = DecisionFilter(permission="a:b", resource_type="course", not_before=1.0)
    page = log.list(DecisionFilter(permission="a:b", resource_id="2"), None, 5)
    assert page.decisions == []
    assert page.after is not None
    assert all_pages(log, where, 5)[-1] == rare
    # The index of the rare caller leads to it at once.
    found = log.list(DecisionFilter(permission="a:b", caller="rare"), None, 5)
    assert (list(found.decisions), found.after) == ([rare], None)


def test_strays_are_found_by_their_index(engine: Engine) -> None:
    """A query uses a partial index only if it repeats its condition exactly."""
    condition = STRAY[engine.dialect.name]
    query = f"SELECT 1 FROM audit_records WHERE {condition} AND decided_at >= 5"
    with begin_read(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            plan = connection.execute(text(f"EXPLAIN {query}")).all()
        else:
            plan = connection.execute(text(f"EXPLAIN QUERY PLAN {query}")).all()
    assert "ix_audit_records_stray" in str(plan)
