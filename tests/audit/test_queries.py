"""The decision log: order, filters, pages, on both engines."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from pdp.audit import DecisionFilter, DecisionLog, Recorder, Shipper, SqlDestination
from pdp.errors import NotFound
from pdp.model import Actor, DecisionRecord, Effect, Reason, ResourceRef
from tests.kit.audit.records import decision_record
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
    while page := log.list(DecisionFilter(), after, 3):
        assert len(page) <= 3
        seen += page
        after = page[-1].decision_id
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
        found = log.list(DecisionFilter(**{name: WANTED[name]}), None, 100)
        assert DENIAL in found, name
        assert other not in found, name
    assert log.list(DecisionFilter(**WANTED), None, 100) == [DENIAL]


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
    assert log.list(where, None, 10) == [record]
    assert log.get(record.decision_id) == [record]


@pytest.mark.parametrize("decision_id", ["", "x", "\0", "\ud800", "' OR 1=1 --", "%"])
def test_an_unknown_id_is_not_found(tmp_path: Path, engine: Engine, decision_id: str) -> None:
    log = put(tmp_path, engine, decision_record())
    with pytest.raises(NotFound):
        log.get(decision_id)
