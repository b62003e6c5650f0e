"""Decision logs in SQL with chosen times, and what each list of findings has to hold.

The oracles compare records in memory, each with each.
"""

from collections.abc import Sequence
from random import Random

from sqlalchemy import Engine, delete

from pdp.audit import AnswerSource, DecisionRecord
from pdp.audit.destinations import insert_new
from pdp.audit.records import encode
from pdp.audit.rows import record_row, row_key
from pdp.audit.segments import KIND_RECORD, NO_DIGEST, Log, Place, next_frame
from pdp.audit.tables import audit_records
from pdp.database.engine import begin_write
from pdp.model import Actor, Effect, Reason, ResourceRef
from tests.kit.audit.records import decision_record

NOW = 1_790_000_000.0
HOUR = 3_600.0
ALLOWED = {"effect": Effect.ALLOW, "reason": Reason.ALLOWED_BY_RULE}


def id_at(seconds: float, number: int = 0) -> str:
    """A UUIDv7 of a time."""
    digits = f"{int(seconds * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7{number % 4096:03x}-8000-{number:012x}"


def record_at(seconds: float, number: int = 0, **changes: object) -> DecisionRecord:
    """A denial, decided at a time, with the fields that `changes` names."""
    return decision_record(
        **{"decision_id": id_at(seconds, number), "decided_at": seconds, **changes}
    )


def store_records(
    engine: Engine, records: Sequence[DecisionRecord], log: Log | None = None
) -> None:
    """Stores these records and, unless a log is named, no other."""
    place = Place(1, 0, 0, NO_DIGEST)
    rows = []
    for record in records:
        frame = next_frame(place, KIND_RECORD, encode(record))
        place = frame.after
        row = record_row(frame, log or Log("one", "0" * 32), record.reported_by)
        rows.append(
            row | {"occurrences": record.occurrences, "last_decided_at": record.last_decided_at}
        )
    with begin_write(engine) as connection:
        if log is None:
            connection.execute(delete(audit_records))
        insert_new(connection, audit_records, rows)


def random_log(random: Random) -> list[DecisionRecord]:
    """Few users and questions, so that denials and allows meet, within some hours."""
    return [_random_record(random, number) for number in range(random.randint(1, 60))]


def _random_record(random: Random, number: int) -> DecisionRecord:
    # Whole steps of 20 minutes: some are exactly an hour apart.
    decided_at = NOW - random.randint(0, 12) * 1200.0
    actor = Actor(
        random.choice(["user_1", "é\U0001f600"]),
        "sess_1",
        random.choice([None, "org_1"]),
        random.choice([None, None, None, "user_support", '"impersonator_id":']),
    )
    changes: dict[str, object] = {
        "actor": actor,
        "permission": random.choice(["course:view", "course:edit"]),
        "resource": random.choice([None, ResourceRef("course", "1"), ResourceRef("course", "é")]),
        "reported_by": random.choice([None, None, None, "edge"]),
    }
    drawn = random.random()
    if drawn < 0.5:
        changes |= ALLOWED | {"grant_id": "g1", "rule_id": "r1"}
        if changes["reported_by"]:
            changes["source"] = AnswerSource.STAYED_OPEN
    elif drawn < 0.6:
        changes |= {
            "effect": Effect.ALLOW,
            "reason": Reason.QUERY_ANSWERED,
            "query": "PlanResources",
        }
    elif drawn < 0.7:
        changes |= {"occurrences": 3, "last_decided_at": decided_at + 600}
    elif drawn < 0.8:
        changes |= {"actor": None, "reason": Reason.TOKEN_MALFORMED}
    return record_at(decided_at, number, **changes)


# --- the oracles ----------------------------------------------------------------------------------


def key_of(record: DecisionRecord) -> str:
    return row_key(record.decision_id, record.reported_by)


def impersonated(
    records: Sequence[DecisionRecord], since: float, until: float
) -> list[tuple[str, str | None]]:
    return sorted(
        (key_of(one), None)
        for one in records
        if since <= one.decided_at < until
        and one.actor is not None
        and one.actor.impersonator_id is not None
    )


def granted_after_denial(
    records: Sequence[DecisionRecord], since: float, until: float
) -> list[tuple[str, str | None]]:
    found = []
    for allow in _allows(records, since, until):
        denials = [
            one
            for one in records
            if one.effect is Effect.DENY
            and one.reported_by is None
            and one.actor is not None
            and one.actor.user_id == _user(allow)
            and (one.permission, one.resource) == (allow.permission, allow.resource)
            and one.decided_at < allow.decided_at
            and (one.last_decided_at or one.decided_at) >= allow.decided_at - HOUR
        ]
        if denials:
            found.append((key_of(allow), max(one.decision_id for one in denials)))
    return found


def first_accesses(
    records: Sequence[DecisionRecord], since: float, until: float
) -> list[tuple[str, str | None]]:
    everything = _allows(records, float("-inf"), float("inf"))
    first: dict[tuple[str, str], str] = {}
    for allow in everything:
        first.setdefault((_user(allow), allow.permission), allow.decision_id)
    return [
        (key_of(allow), None)
        for allow in _allows(records, since, until)
        if first[_user(allow), allow.permission] == allow.decision_id
    ]


def _allows(records: Sequence[DecisionRecord], since: float, until: float) -> list[DecisionRecord]:
    found = [
        one
        for one in records
        if one.reason is Reason.ALLOWED_BY_RULE
        and one.reported_by is None
        and since <= one.decided_at < until
    ]
    return sorted(found, key=lambda one: one.decision_id)


def _user(record: DecisionRecord) -> str:
    assert record.actor is not None
    return record.actor.user_id
