"""Counts per minute and hour: equal to a count of the records, however often those are shipped."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from sqlalchemy import Engine, delete, select

from pdp.audit import (
    KIND_GAP,
    KIND_RECORD,
    AnswerSource,
    DecisionRecord,
    Log,
    Place,
    Reports,
    SqlDestination,
    Statistics,
    encode,
)
from pdp.audit.counts import encode_count
from pdp.audit.rollups import DIMENSIONS, HOUR, MINUTE
from pdp.audit.segments import Frame, next_frame
from pdp.audit.tables import audit_records, audit_rollups
from pdp.database.engine import begin_read, begin_write
from pdp.database.migrations.versions import rev_0013_console
from pdp.model import Actor, Effect, Reason
from tests.kit.audit.logs import ORIGIN
from tests.kit.audit.records import decision_record

LOG = Log(ORIGIN, "0" * 32)
START = Place(1, 100, 0, bytes(32))
HOUR_START = 1_790_000_000 // HOUR * HOUR

Key = tuple[int, str, int, str]


def frames_of(*contents: tuple[bytes, bytes]) -> Iterator[Frame]:
    place = START
    for kind, payload in contents:
        frame = next_frame(place, kind, payload)
        place = frame.after
        yield frame


def random_record(random: Random) -> DecisionRecord:
    allowed = random.random() < 0.4
    organization = random.choice((None, "org_a", "org_b"))
    return decision_record(
        decided_at=HOUR_START + random.uniform(0, 2.5 * HOUR),
        effect=Effect.ALLOW if allowed else Effect.DENY,
        reason=Reason.ALLOWED_BY_RULE
        if allowed
        else random.choice((Reason.CONDITION_NOT_MET, Reason.DENIED_BY_RULE)),
        permission=random.choice(("course:edit", "course:view")),
        caller=random.choice(("a", "b", "c")),
        actor=random.choice((None, Actor("user_1", "sess_1", organization))),
        query=None,
    )


def stored(engine: Engine) -> Counter[Key]:
    table = audit_rollups.c
    with begin_read(engine) as connection:
        rows = connection.execute(
            select(table.step, table.dimension, table.start, table.value, table.decisions)
        )
        return Counter({tuple(row)[:4]: row.decisions for row in rows})


def counted(*records: tuple[DecisionRecord, float, int]) -> Counter[Key]:
    """By hand: records, each with a time and how many decisions were made then."""
    counts: Counter[Key] = Counter()
    for record, at, number in records:
        actor = record.actor
        values = {"effect": record.effect.name}
        if record.effect is Effect.DENY:
            values |= {
                "reason": record.reason.name,
                "permission": record.permission,
                "caller": record.caller,
                "organization": (actor.organization_id if actor else None) or "",
            }
        for step in (MINUTE, HOUR):
            for dimension, value in values.items():
                counts[step, dimension, int(at) // step * step, value] += number
    return counts


def test_the_counts_are_those_of_the_records(engine: Engine) -> None:
    random = Random(5)
    records = [random_record(random) for _ in range(300)]
    query = decision_record(query="PlanResources", reason=Reason.QUERY_ANSWERED)
    frames = list(frames_of(*((KIND_RECORD, encode(one)) for one in (*records, query))))
    destination = SqlDestination(engine)
    for first in range(0, len(frames), 70):
        destination.commit(LOG, frames[first : first + 70])
    expected = counted(*((record, record.decided_at, 1) for record in records))
    assert stored(engine) == expected
    # Frames are sent again after a lost answer, together with new ones, and from another log.
    destination.commit(LOG, frames[200:])
    destination.commit(Log("other", "1" * 32), [*frames[:3], *frames[:3]])
    assert stored(engine) == expected


def test_a_folded_denial_counts_when_it_occurred(engine: Engine) -> None:
    denial = decision_record(decided_at=float(HOUR_START))
    late = HOUR_START + HOUR + 90.0
    frames = list(
        frames_of(
            (KIND_RECORD, encode(denial)),
            (KIND_GAP, encode_count(denial.decision_id, 3, HOUR_START + 30.0)),
            (KIND_GAP, encode_count(denial.decision_id, 10, late)),
        )
    )
    destination = SqlDestination(engine)
    destination.commit(LOG, frames[:2])
    for _ in range(2):
        destination.commit(LOG, frames[2:])
    destination.commit(LOG, frames[:2])
    assert stored(engine) == counted(
        (denial, denial.decided_at, 1), (denial, HOUR_START + 30.0, 2), (denial, late, 7)
    )


def test_reports_count_once_for_each_reporter(engine: Engine) -> None:
    record = decision_record(source=AnswerSource.CACHED)
    reports = Reports(engine, clock=lambda: 4_000_000_000.0)
    contents = [(KIND_RECORD, encode(record))]
    for reporter in ("edge", "edge", "other"):
        assert reports.take(reporter, LOG, START, contents)[1] == []
    # Another record under an id that is used is refused, and counts nothing.
    lie = replace(record, caller="someone-else")
    assert reports.take("edge", LOG, START, [(KIND_RECORD, encode(lie))])[1]
    assert stored(engine) == counted((record, record.decided_at, 2))


def test_the_migration_counts_what_is_there(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(6)
    frames = frames_of(*((KIND_RECORD, encode(random_record(random))) for _ in range(200)))
    SqlDestination(engine).commit(LOG, list(frames))
    before = stored(engine)
    with begin_write(engine) as connection:
        connection.execute(delete(audit_rollups))

        class Operations:
            get_bind = staticmethod(lambda: connection)
            execute = staticmethod(connection.exec_driver_sql)

        monkeypatch.setattr(rev_0013_console, "op", Operations)
        rev_0013_console.count_what_is_there()
    assert stored(engine) == before


def test_activity_adds_up_minutes_and_hours(engine: Engine) -> None:
    random = Random(7)
    records = [random_record(random) for _ in range(400)]
    frames = frames_of(*((KIND_RECORD, encode(record)) for record in records))
    SqlDestination(engine).commit(LOG, list(frames))
    for start, step, steps in (
        (HOUR_START, 60, 60),
        (HOUR_START + 1800, 600, 6),
        (HOUR_START, HOUR, 3),
        (HOUR_START - HOUR, 4 * HOUR, 2),
        (HOUR_START + 5 * HOUR, 60, 5),
    ):
        activity = Statistics(engine).activity(start, step, steps)
        inside = [one for one in records if start <= one.decided_at < start + steps * step]
        denied = [one for one in inside if one.effect is Effect.DENY]
        for index in range(steps):
            at = start + index * step
            there = [one for one in inside if at <= one.decided_at < at + step]
            assert activity.denied[index] == sum(one.effect is Effect.DENY for one in there)
            assert activity.allowed[index] == sum(one.effect is Effect.ALLOW for one in there)
        assert dict(activity.reasons) == Counter(one.reason.name for one in denied)
        assert dict(activity.callers) == Counter(one.caller for one in denied)
        assert dict(activity.permissions) == Counter(one.permission for one in denied)
        assert dict(activity.organizations) == Counter(
            (one.actor.organization_id if one.actor else None) or "" for one in denied
        )
        counts = [count for _, count in activity.reasons]
        assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(("start", "step"), [(30, 60), (60, 90), (60, HOUR)])
def test_only_whole_minutes_and_hours_are_added_up(engine: Engine, start: int, step: int) -> None:
    with pytest.raises(ValueError, match="whole"):
        Statistics(engine).activity(start, step, 1)


def test_a_dimension_is_a_column_of_the_records() -> None:
    assert set(DIMENSIONS.values()) <= set(audit_records.c.keys())
