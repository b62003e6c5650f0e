"""Reports of callers: logged under their own name, once, and without affecting other records."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest, ListDecisionsResponse
from sqlalchemy import Engine, func, select

from pdp.audit import (
    KIND_GAP,
    KIND_RECORD,
    AdministrationLog,
    AnswerSource,
    DecisionFilter,
    DecisionLog,
    DecisionRecord,
    Log,
    Place,
    Recorder,
    Refusal,
    Reports,
    Shipper,
    SqlDestination,
    encode,
    new_decision_id,
)
from pdp.audit.erasure import ErasureReport, ErasureRequest, erase_rows
from pdp.audit.tables import audit_gaps
from pdp.database.engine import begin_read, begin_write, open_engine
from pdp.errors import AuditUnavailable, InvalidRequest, LimitExceeded
from pdp.facts import Store
from pdp.limits import MESSAGE_BYTES_MAX, REPORT_FRAMES_MAX
from pdp.model import Effect, Reason
from pdp.wire.callers import ANONYMOUS
from pdp.wire.convert.pages import Pages
from pdp.wire.services.audit import audit_methods
from pdp.wire.shares import Rate
from tests.kit.audit.logs import ORIGIN
from tests.kit.audit.records import decision_record
from tests.kit.waiting import eventually, run

LOG = Log(ORIGIN, "0" * 32)
START = Place(1, 100, 0, bytes(32))
ALL = DecisionFilter()
NOW = 4_000_000_000.0  # later than any clock of a machine that tests


def reported(**changes: object) -> DecisionRecord:
    return decision_record(**{"source": AnswerSource.CACHED, **changes})


def of(record: DecisionRecord, reporter: str) -> DecisionRecord:
    return replace(record, reported_by=reporter)


@pytest.fixture
def reports(engine: Engine) -> Reports:
    return Reports(engine, clock=lambda: NOW)


def take(
    reports: Reports, *records: DecisionRecord, reporter: str = "edge", log: Log = LOG
) -> tuple[Place, list[Refusal]]:
    contents = [(KIND_RECORD, encode(record)) for record in records]
    place, refusals = reports.take(reporter, log, START, contents)
    return place, list(refusals)


def test_a_report_is_logged_once_and_names_its_reporter(engine: Engine, reports: Reports) -> None:
    records = [reported(), reported(source=AnswerSource.STAYED_OPEN)]
    for _ in range(2):  # F7: the first answer was lost
        place, refusals = take(reports, *records)
        assert refusals == []
        assert place == reports.place("edge", LOG)
    log = DecisionLog(engine)
    assert log.list(ALL, None, 10).decisions == [of(record, "edge") for record in records[::-1]]
    assert (
        log.list(DecisionFilter(reported_by="edge"), None, 10).decisions
        == log.list(ALL, None, 10).decisions
    )
    assert log.list(DecisionFilter(reported_by="other"), None, 10).decisions == []
    assert log.get(records[0].decision_id) == [of(records[0], "edge")]


def test_no_report_takes_the_place_of_what_a_decision_point_recorded(
    tmp_path: Path, engine: Engine, reports: Reports
) -> None:
    """A caller knows the decision id before it is in SQL, and can report it first."""
    genuine = decision_record()
    lie = reported(
        decision_id=genuine.decision_id, effect=Effect.ALLOW, reason=Reason.ALLOWED_BY_RULE
    )
    assert take(reports, lie)[1] == []
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    run(recorder.record([genuine]))
    recorder.stop()
    Shipper(tmp_path, SqlDestination(engine)).ship()
    log = DecisionLog(engine)
    assert log.get(genuine.decision_id) == [genuine, of(lie, "edge")]
    # It does not hide it at the edge of a page either.
    first = log.list(ALL, None, 1).decisions
    assert first + log.list(ALL, log.key(first[0]), 1).decisions == [of(lie, "edge"), genuine]


def test_no_report_takes_the_place_of_what_another_caller_reports(
    engine: Engine, reports: Reports
) -> None:
    """The same origin, log and id under two names, and "other" is first."""
    true = reported()
    lie = replace(true, permission="course:view")
    assert take(reports, lie, reporter="other")[1] == []
    assert take(reports, true)[1] == []
    log = DecisionLog(engine)
    assert log.get(true.decision_id) == [of(true, "edge"), of(lie, "other")]
    assert reports.place("edge", LOG) != reports.place("other", LOG)


def test_a_reported_log_is_not_the_log_of_a_process_of_that_name(
    engine: Engine, reports: Reports
) -> None:
    take(reports, reported())
    assert SqlDestination(engine).place(LOG) is None
    assert reports.place("other", LOG) is None
    for origin in ("edge/one", "../one", "", "a" * 129, "one\n"):
        with pytest.raises(InvalidRequest, match="origin"):
            take(reports, reported(), log=Log(origin, LOG.log_id))


def test_of_two_records_under_one_id_the_first_counts(engine: Engine, reports: Reports) -> None:
    record, other = reported(), reported()
    take(reports, record)
    lie = replace(record, permission="course:view")
    twice = replace(other, permission="course:view")
    place, refusals = take(reports, lie, other, twice)
    assert [refusal.position for refusal in refusals] == [0, 2]
    # The place does not move: a sidecar that did not set the refused aside meets them again.
    assert reports.place("edge", LOG) != place
    assert DecisionLog(engine).list(ALL, None, 10).decisions == [
        of(other, "edge"),
        of(record, "edge"),
    ]


def test_a_report_that_is_sent_again_after_an_erasure_is_no_contradiction(
    engine: Engine, reports: Reports
) -> None:
    record = reported()
    take(reports, record)
    request = ErasureRequest("user_1", NOW)
    erase_rows(engine, lambda: Store(engine).write(), request, NOW, ErasureReport())
    assert take(reports, record)[1] == []
    assert take(reports, replace(record, permission="course:view"))[1] != []
    [stored] = DecisionLog(engine).list(ALL, None, 10).decisions
    assert (stored.actor, stored.reported_by) == (None, "edge")


RECORD = encode(reported())
HOSTILE = {
    "no record": b"{}",
    "no JSON": b"\xff",
    "UTF-16": RECORD.decode().encode("utf-16-le"),
    "UTF-8 beyond ASCII": RECORD.replace(b"course:edit", "cours\u00e9:edit".encode()),
    "a NUL": RECORD + b"\0",
    "half a surrogate pair": RECORD.replace(b"course:edit", rb"\ud800"),
    "half a pair where nobody looks": RECORD[:-1] + rb',"x":"\udfff"}',
    "depth": RECORD[:-1] + b',"x":' + b"[" * 7000 + b"]" * 7000 + b"}",
    "a little depth": RECORD[:-1] + b',"x":' + b"[" * 16 + b"]" * 16 + b"}",
    "length": encode(reported(permission="x" * 17_000)),
    "decided": encode(decision_record()),
    "decided, in words": RECORD.replace(b'"CACHED"', b'"DECIDED"'),
    "an unknown source": RECORD.replace(b'"CACHED"', b'"DREAMT"'),
    "an unknown reason": RECORD.replace(b"PERMISSION_NOT_GRANTED", b"BAD_LUCK"),
    "an allow for the reason of a denial": encode(reported(effect=Effect.ALLOW)),
    "an erased record": RECORD[:-1]
    + b',"erased":{"at":1.0,"digest":"'
    + b"00" * 32
    + b'","erasure":"x"}}',
    "a record erased at no time": RECORD[:-1] + b',"erased":{}}',
    "a query": encode(reported(query="ListAllowedResources")),
    "the reason of a query": encode(reported(reason=Reason.QUERY_ANSWERED)),
    "a revision that no message holds": encode(reported(revision=1 << 64)),
    "a revision below zero": encode(reported(revision=-1)),
    "a time that is no number": RECORD.replace(b'"decided_at":1', b'"decided_at":NaN,"x":1'),
    "a time that no calendar holds": encode(reported(decided_at=1e300)),
    "a time before 1970": encode(reported(decided_at=-1.0)),
    "the future": encode(reported(decided_at=NOW + 61)),
    "an id of the future": encode(
        reported(decision_id=f"{int((NOW + 61) * 1000):012x}"[:8] + "-ffff-7fff-bfff-ffffffffffff")
    ),
    "an id that is none": encode(reported(decision_id="")),
    "an id of another caller": encode(reported(decision_id=f"{new_decision_id()}/other")),
    "an id in capitals": encode(reported(decision_id=new_decision_id()[:-2].upper() + "FF")),
    "a name that another one hides": RECORD.replace(
        b'{"actor":', b'{"actor":{"user_id":"hidden"},"actor":'
    ),
    "a name behind an escape": RECORD.replace(b'"user_1"', rb'"user_\u0031"'),
    "an impersonator in another order": RECORD.replace(
        b'"user_id":"user_1"', b'"user_id":"user_1","impersonator_id":"user_2"'
    ),
    "an id with a line behind": encode(reported(decision_id=new_decision_id() + "\n")),
}
HOSTILE_GAPS = {
    "no gap": b"{}",
    "a count that SQL cannot hold": b'{"dropped":9223372036854775808,"noticed_at":1.0}',
    "a count below zero": b'{"dropped":-1,"noticed_at":1.0}',
    "a gap at no time": b'{"dropped":1,"noticed_at":NaN}',
}


def test_a_record_that_could_not_be_returned_is_refused_and_delays_nothing(
    engine: Engine, reports: Reports
) -> None:
    """One record that a reader cannot bear would hide all others from it."""
    good = [reported(decided_at=NOW + 59), reported(decided_at=0.0)]
    contents = [(KIND_RECORD, encode(good[0]))]
    contents += [(KIND_RECORD, payload) for payload in HOSTILE.values()]
    contents += [(KIND_GAP, payload) for payload in HOSTILE_GAPS.values()]
    contents += [(KIND_RECORD, encode(good[1])), (KIND_GAP, b'{"dropped":3,"noticed_at":1.5}')]
    place, refusals = reports.take("edge", LOG, START, contents)
    names = ["good", *HOSTILE, *HOSTILE_GAPS]
    assert [names[refusal.position] for refusal in refusals] == names[1:]
    assert place.position == len(contents)
    log = DecisionLog(engine)
    assert log.list(ALL, None, 100).decisions == [of(record, "edge") for record in good[::-1]]
    with begin_read(engine) as connection:
        gaps = connection.execute(select(audit_gaps.c.origin, audit_gaps.c.dropped)).all()
    assert [tuple(gap) for gap in gaps] == [(f"edge/{ORIGIN}", 3)]


def test_a_report_that_is_none_is_refused_whole(engine: Engine, reports: Reports) -> None:
    content = (KIND_RECORD, encode(reported()))
    for number in (-1, 1 << 63):
        for field in ("sequence", "byte_offset", "position"):
            with pytest.raises(InvalidRequest, match="start"):
                reports.take("edge", LOG, replace(START, **{field: number}), [content])
    with pytest.raises(InvalidRequest, match=r"start\.digest"):
        reports.take("edge", LOG, replace(START, digest=b""), [content])
    with pytest.raises(InvalidRequest, match="log_id"):
        reports.take("edge", Log(ORIGIN, "x" * 32), START, [content])
    with pytest.raises(LimitExceeded):
        reports.take("edge", LOG, START, [content] * (REPORT_FRAMES_MAX + 1))
    assert DecisionLog(engine).list(ALL, None, 10).decisions == []


@pytest.fixture
def waiting_engine(sqlite_url: str) -> Iterator[Engine]:
    engine = open_engine(sqlite_url)
    yield engine
    engine.dispose()


def test_reports_never_hold_up_more_than_a_few_threads_nor_one_caller_the_others(
    waiting_engine: Engine,
) -> None:
    """F3 for reports: decisions need the threads."""
    reports = Reports(waiting_engine, clock=lambda: NOW)
    outcomes: list[tuple[str, str]] = []

    def report(reporter: str) -> None:
        try:
            take(reports, reported(), reporter=reporter)
        except AuditUnavailable:
            outcomes.append((reporter, "refused"))
        else:
            outcomes.append((reporter, "taken"))

    def begun(reporter: str) -> list[threading.Thread]:
        threads = [threading.Thread(target=report, args=(reporter,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        return threads

    with begin_write(waiting_engine) as connection:
        connection.execute(select(func.count()).select_from(audit_gaps))
        threads = begun("greedy")
        eventually(lambda: len(outcomes) == 3)
        threads += begun("edge")
        eventually(lambda: len(outcomes) == 6)
        assert outcomes == [("greedy", "refused")] * 3 + [("edge", "refused")] * 3
        with pytest.raises(AuditUnavailable):
            reports.place("third", LOG)
    for thread in threads:
        thread.join(10)
    assert sorted(outcomes[6:]) == [("edge", "taken")] * 2 + [("greedy", "taken")] * 2
    assert reports.place("third", LOG) is None


def test_however_long_the_records_of_a_reporter_are_every_page_can_be_sent(
    engine: Engine, reports: Reports
) -> None:
    """Otherwise a reporter could hide the log, its own part and that of all others."""
    records = [reported(caller="x" * 15_000) for _ in range(300)]
    for begin in range(0, len(records), 100):
        take(reports, *records[begin : begin + 100])
    pages, share = Pages(lambda: b"secret"), Rate("reports_share", 1_000_000)
    [list_decisions, *_] = audit_methods(
        DecisionLog(engine),
        AdministrationLog(engine),
        reports,
        pages,
        reported=share,
        pool=ThreadPoolExecutor(1),
    )
    request = ListDecisionsRequest(page_size=1_000)
    seen: list[str] = []
    while True:
        page = run(list_decisions.answer(request, ANONYMOUS))
        assert isinstance(page, ListDecisionsResponse)
        assert page.ByteSize() < MESSAGE_BYTES_MAX
        seen += [record.decision_id for record in page.decisions]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert seen == sorted((record.decision_id for record in records), reverse=True)
