"""Equal denials: one record, an exact count, and nothing lost."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from pdp.audit import (
    KIND_GAP,
    KIND_RECORD,
    AnswerSource,
    DecisionFilter,
    DecisionLog,
    DecisionRecord,
    Log,
    Place,
    Recorder,
    Reports,
    Shipper,
    SqlDestination,
    encode,
    new_decision_id,
    verify_segments,
)
from pdp.audit.counts import count_of, encode_count
from pdp.audit.folding import FOLD_SECONDS, FOLDS_MAX, Folds
from pdp.audit.segments import next_frame, segment_path
from pdp.audit.tables import audit_counts, audit_gaps
from pdp.database.engine import begin_read
from pdp.errors import AuditUnavailable
from pdp.model import Actor, Effect, Reason, ResourceRef
from tests.kit.audit.logs import ORIGIN, frames_of, ids_of, occurrences_of
from tests.kit.audit.records import decision_record
from tests.kit.waiting import run

EQUAL = decision_record(resource_organization_id=None)
NOW = 4_000_000_000.0


def again(record: DecisionRecord = EQUAL, **changes: object) -> DecisionRecord:
    """The same denial a moment later: another id, another time."""
    fresh = {"decision_id": new_decision_id(), "decided_at": record.decided_at + 1}
    return replace(record, **{**fresh, **changes})


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    # How long a denial may wait for a busy disk is not what these tests are for.
    monkeypatch.setattr("pdp.audit.recorder.WAIT_SECONDS_MAX", 30.0)
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    yield recorder
    recorder.stop()


def test_equal_denials_are_answered_with_the_id_of_the_record_that_counts_them(
    tmp_path: Path, recorder: Recorder
) -> None:
    first = again()
    assert run(recorder.record([first])) == [first.decision_id]
    for occurrences in range(2, 6):
        assert run(recorder.record([again(first)])) == [first.decision_id]
        # On disk before the answer.
        assert occurrences_of(tmp_path / ORIGIN) == {first.decision_id: occurrences}
    assert recorder.counts().folded == 4
    assert recorder.counts().recorded == 1


OTHER = {
    "reason": Reason.PERMISSION_UNKNOWN,
    "permission": "course:view",
    "caller": "other",
    "revision": 8,
    "token_fingerprint": "f" * 16,
    "actor": Actor("user_1", "sess_1"),
    "token_id": "jti_other",
    "resource": ResourceRef("course", "2"),
    "resource_organization_id": "org_1",
    "rule_id": "rule",
    "grant_id": "grant",
    "source": AnswerSource.CACHED,
    "request": "GET /",
    "query": "ListAllowedResources",
    "inputs": '{"context":{}}',
}


def test_denials_that_differ_in_a_field_besides_id_and_time_are_not_folded(
    tmp_path: Path, recorder: Recorder
) -> None:
    told_by_no_digest = {"decision_id", "decided_at", "effect"}
    from_sql = {"reported_by", "occurrences", "last_decided_at", "erased_at"}
    assert OTHER.keys() | told_by_no_digest | from_sql == set(DecisionRecord.__dataclass_fields__)
    run(recorder.record([again()]))
    for field, value in OTHER.items():
        other = again(**{field: value})
        assert run(recorder.record([other])) == [other.decision_id], field
        assert run(recorder.record([again(other)])) == [other.decision_id], field
    assert set(occurrences_of(tmp_path / ORIGIN).values()) == {1, 2}


def test_allows_are_never_folded(tmp_path: Path, recorder: Recorder) -> None:
    allow = {"effect": Effect.ALLOW, "reason": Reason.ALLOWED_BY_RULE}
    records = [again(**allow) for _ in range(3)]
    assert run(recorder.record(records)) == [record.decision_id for record in records]
    run(recorder.try_write([again(**allow) for _ in range(3)]))
    recorder.stop()
    assert len(ids_of(tmp_path / ORIGIN)) == 6


def test_the_pages_of_one_query_share_a_record(tmp_path: Path, recorder: Recorder) -> None:
    query = {
        "effect": Effect.ALLOW,
        "reason": Reason.QUERY_ANSWERED,
        "query": "ListAllowedResources",
    }
    pages = [again(**query) for _ in range(3)]
    for page in pages:
        assert run(recorder.record([page])) == [pages[0].decision_id]
    assert occurrences_of(tmp_path / ORIGIN) == {pages[0].decision_id: 3}


def test_a_record_takes_denials_for_some_seconds_and_only_so_many_records_do() -> None:
    folds = Folds("log")
    folds.begin(b"a", "1", 0.0, now=100.0)
    assert folds.find(b"a", 100.0 + FOLD_SECONDS - 0.1) is not None
    assert folds.find(b"a", 100.0 + FOLD_SECONDS) is None
    for number in range(3 * FOLDS_MAX):
        folds.begin(b"%d" % number, "2", 0.0, now=101.0)
    found = [folds.find(b"%d" % number, 101.0) for number in range(3 * FOLDS_MAX)]
    assert FOLDS_MAX / 2 <= sum(fold is not None for fold in found) <= FOLDS_MAX
    assert found[-1] is not None


def test_a_flood_of_equal_denials_costs_little_disk(tmp_path: Path, recorder: Recorder) -> None:
    """10,000 equal denials, one at a time and many at once."""
    first = again()
    run(recorder.record([first]))
    one = segment_path(tmp_path / ORIGIN, 1).stat().st_size
    for _ in range(10):
        assert set(run(recorder.record([again(first) for _ in range(1000)]))) == {first.decision_id}
    path = segment_path(tmp_path / ORIGIN, 1)
    assert path.stat().st_size - one < 10 * 200
    assert occurrences_of(tmp_path / ORIGIN) == {first.decision_id: 10_001}


def test_each_of_many_threads_is_counted(tmp_path: Path, recorder: Recorder) -> None:
    answered: list[str] = []

    def work() -> None:
        for number in range(40):
            answered.extend(run(recorder.record([again(permission=f"course:{number % 3}")])))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert occurrences_of(tmp_path / ORIGIN) == Counter(answered)
    assert len(set(answered)) == 3
    report = verify_segments(tmp_path)
    assert report.whole
    assert (report.records, report.dropped) == (3, 0)


def test_after_a_failed_write_no_count_continues_from_an_unwritten_record(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = again()
    run(recorder.record([first]))
    run(recorder.record([again(first)]))
    with monkeypatch.context() as patched:

        def fails(*_: object) -> None:
            raise OSError(5, "Input/output error")

        patched.setattr("pdp.audit.writer.os.fdatasync", fails)
        with pytest.raises(AuditUnavailable):
            run(recorder.record([again(first)]))
    following = again(first)
    assert run(recorder.record([following])) == [following.decision_id]
    assert occurrences_of(tmp_path / ORIGIN) == {first.decision_id: 2, following.decision_id: 1}


def test_a_folded_denial_is_found_in_sql_by_its_id_with_its_count(
    tmp_path: Path, engine: Engine, recorder: Recorder
) -> None:
    first = again()
    run(recorder.record([first]))
    shipper = Shipper(tmp_path, SqlDestination(engine), recorder)
    log = DecisionLog(engine)
    for occurrences in (2, 3):
        run(recorder.record([again(first, decided_at=first.decided_at + occurrences)]))
        shipper.ship()
        [found] = log.get(first.decision_id)
        assert (found.occurrences, found.last_decided_at) == (
            occurrences,
            first.decided_at + occurrences,
        )
    assert log.list(DecisionFilter(), None, 10).decisions == [found]
    # Shipped again, it is there once, and its count does not go back.
    Shipper(tmp_path, SqlDestination(engine), recorder).ship()
    assert log.get(first.decision_id) == [found]
    with begin_read(engine) as connection:
        assert connection.execute(select(audit_gaps)).all() == []


def test_sql_says_which_frames_of_a_log_were_counts(
    tmp_path: Path, engine: Engine, recorder: Recorder
) -> None:
    """Verification in SQL must not mistake them for deleted records."""
    for _ in range(3):
        for number in range(3):
            run(recorder.record([again(permission=f"course:{number}")]))
    run(recorder.record([decision_record()]))
    frames = frames_of(tmp_path / ORIGIN)
    Shipper(tmp_path, SqlDestination(engine), recorder).ship()
    with begin_read(engine) as connection:
        [counts] = connection.execute(select(audit_counts)).all()
    assert (counts.origin, counts.segment, counts.position, counts.frames) == (ORIGIN, 1, 3, 6)
    assert bytes(counts.digest) == frames[8].after.digest == frames[9].previous


def test_a_program_that_knows_no_counts_reads_them_as_gaps_of_nothing() -> None:
    payload = encode_count(new_decision_id(), 7, 1.5)
    gap = json.loads(payload)
    assert (gap["dropped"], gap["noticed_at"]) == (0, 1.5)
    assert list(gap) == sorted(gap)


@pytest.fixture
def reports(engine: Engine) -> Reports:
    return Reports(engine, clock=lambda: NOW)


LOG = Log(ORIGIN, "0" * 32)
START = Place(1, 100, 0, bytes(32))


def test_a_reporter_raises_counts_of_its_own_records_only(
    engine: Engine, tmp_path: Path, reports: Reports, recorder: Recorder
) -> None:
    genuine = again()
    run(recorder.record([genuine]))
    Shipper(tmp_path, SqlDestination(engine), recorder).ship()
    own = again(source=AnswerSource.CACHED)
    contents = [
        (KIND_RECORD, encode(own)),
        (KIND_GAP, encode_count(own.decision_id, 5, 2.0)),
        (KIND_GAP, encode_count(own.decision_id, 6, 3.0)),
        (KIND_GAP, encode_count(genuine.decision_id, 9, 2.0)),
    ]
    place, refusals = reports.take("edge", LOG, START, contents)
    assert [refusal.position for refusal in refusals] == [3]
    log = DecisionLog(engine)
    assert [record.occurrences for record in log.get(own.decision_id)] == [6]
    assert [record.occurrences for record in log.get(genuine.decision_id)] == [1]
    # The caller's own chain includes its counts.
    expected = START
    for kind, payload in contents:
        expected = next_frame(expected, kind, payload).after
    assert place == expected


HOSTILE = {
    "no id": b'{"count":2,"dropped":0,"noticed_at":1.0}',
    "an id that is none": encode_count("x", 2, 1.0),
    "an id that is no text": b'{"count":2,"decision_id":7,"dropped":0,"noticed_at":1.0}',
    "a count of nothing": encode_count(new_decision_id(), 0, 1.0),
    "a count below zero": encode_count(new_decision_id(), -1, 1.0),
    "a count that SQL cannot hold": encode_count(new_decision_id(), 1 << 63, 1.0),
    "a count in words": b'{"count":"2","decision_id":"x","dropped":0,"noticed_at":1.0}',
    "a count that also drops": encode_count(new_decision_id(), 2, 1.0).replace(
        b'"dropped":0', b'"dropped":9'
    ),
    "the future": encode_count(new_decision_id(), 2, NOW + 61),
    "no time": encode_count(new_decision_id(), 2, float("nan")),
}


def test_counts_that_cannot_be_are_refused_and_hold_up_nothing(
    engine: Engine, reports: Reports
) -> None:
    own = again(source=AnswerSource.CACHED)
    contents = [(KIND_GAP, payload) for payload in HOSTILE.values()]
    contents += [(KIND_RECORD, encode(own))]
    _, refusals = reports.take("edge", LOG, START, contents)
    assert [refusal.position for refusal in refusals] == list(range(len(HOSTILE)))
    assert len(DecisionLog(engine).get(own.decision_id)) == 1


def test_a_count_is_read_as_it_was_written() -> None:
    decision_id = new_decision_id()
    assert count_of(encode_count(decision_id, 3, 1.25)) == (decision_id, 3, 1.25)
    assert count_of(b'{"dropped":3,"noticed_at":1.0}') is None
