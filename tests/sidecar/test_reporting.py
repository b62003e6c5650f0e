"""From a sidecar's segments into the decision log upstream: each record once, none lost."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from pdpapi.v1.audit_service_pb2 import (
    ReportDecisionsRequest,
    ReportDecisionsResponse,
)
from pdpapi.v1.decision_service_pb2 import CheckRequest
from sqlalchemy import Engine

from pdp.audit import (
    AdministrationLog,
    AnswerSource,
    DecisionFilter,
    DecisionLog,
    Recorder,
    Reports,
    Shipper,
)
from pdp.audit.segments import list_segments, segment_path
from pdp.clock import wall_clock
from pdp.database.engine import open_engine
from pdp.errors import AuditUnavailable, PdpError, Unavailable
from pdp.limits import REPORT_BYTES_MAX
from pdp.sidecar.reporting import Report, UpstreamDestination
from pdp.wire import Rate, audit_methods
from pdp.wire.callers import Caller
from tests.kit import prefork
from tests.kit.audit.logs import ORIGIN, write_log
from tests.kit.audit.records import decision_record
from tests.kit.server import running_server
from tests.kit.waiting import eventually, run
from tests.kit.wire.errors import error_info, rpc_error

CACHED = {"source": AnswerSource.CACHED}
SEGMENT_BYTES = 2000
"""The size of a few records."""


@pytest.fixture
def upstream(sqlite_url: str) -> Iterator[Engine]:
    engine = open_engine(sqlite_url)
    yield engine
    engine.dispose()


def report_to(engine: Engine, name: str = "edge") -> Report:
    """ReportDecisions as the server answers it, without the network between."""
    reports = Reports(engine, clock=lambda: wall_clock() + 1e9)  # whatever the clock here
    reported = Rate("reports_share", 1_000_000)
    pool = ThreadPoolExecutor(1)
    methods = audit_methods(
        DecisionLog(engine),
        AdministrationLog(engine),
        reports,
        None,  # type: ignore[arg-type]
        reported=reported,
        pool=pool,
    )
    (method,) = (method for method in methods if method.name == "ReportDecisions")

    def report(request: ReportDecisionsRequest) -> ReportDecisionsResponse:
        received = ReportDecisionsRequest.FromString(request.SerializeToString())
        answer = run(method.answer(received, Caller(name, frozenset(("report",)))))
        return ReportDecisionsResponse.FromString(answer.SerializeToString())

    return report


def ids_in(engine: Engine, reporter: str = "edge") -> list[str]:
    found = DecisionLog(engine).list(DecisionFilter(reported_by=reporter), None, 10_000).decisions
    return [record.decision_id for record in found[::-1]]


def test_what_a_sidecar_records_is_upstream_in_a_moment(tmp_path: Path, upstream: Engine) -> None:
    recorder = Recorder(tmp_path, ORIGIN)
    recorder.start()
    shipper = Shipper(tmp_path, UpstreamDestination(report_to(upstream)), recorder)
    shipper.start()
    records = [decision_record(**CACHED) for _ in range(20)]
    for record in records:
        run(recorder.record([record]))
    eventually(lambda: ids_in(upstream) == [record.decision_id for record in records])
    recorder.stop()
    shipper.stop()


class Killed(Exception):
    """The process ends here. Nothing of ours catches it."""


@pytest.mark.parametrize("committed", [False, True], ids=["before it", "behind it"])
def test_a_sidecar_that_dies_at_any_report_loses_nothing_and_doubles_nothing(
    tmp_path: Path, upstream: Engine, committed: bool
) -> None:
    """F7: SIGKILL around each call. What is there to go on with is the directory."""
    report = report_to(upstream)
    calls, dies_at = 0, 0

    def mortal(request: ReportDecisionsRequest) -> ReportDecisionsResponse:
        nonlocal calls
        calls += 1
        if calls < dies_at:
            return report(request)
        if committed:
            report(request)
        raise Killed

    ids = write_log(tmp_path, *[4] * 8, segment_bytes=SEGMENT_BYTES, **CACHED)
    lives = 0
    while list_segments(tmp_path / ORIGIN):
        lives += 1
        calls, dies_at = 0, lives
        try:
            Shipper(tmp_path, UpstreamDestination(mortal)).ship()
        except Killed:
            assert ids_in(upstream) == ids[: len(ids_in(upstream))]
    assert lives > 3
    assert ids_in(upstream) == ids


def test_an_acknowledgement_that_was_lost_doubles_nothing(tmp_path: Path, upstream: Engine) -> None:
    """F4 for reports: two of three answers are lost, one of them with its call."""
    report = report_to(upstream)
    calls = 0

    def lossy(request: ReportDecisionsRequest) -> ReportDecisionsResponse:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise Unavailable("connection refused")
        response = report(request)
        if calls % 3 == 1:
            raise Unavailable("connection reset")
        return response

    recorder = Recorder(tmp_path, ORIGIN, segment_bytes=SEGMENT_BYTES)
    recorder.start()
    shipper = Shipper(tmp_path, UpstreamDestination(lossy), recorder)
    ids = []
    for _ in range(30):
        records = [decision_record(**CACHED) for _ in range(3)]
        run(recorder.record(records))
        ids += [record.decision_id for record in records]
        _ships(shipper)
    recorder.stop()
    eventually(lambda: _ships(shipper))
    assert calls > 60
    assert ids_in(upstream) == ids
    assert len(list_segments(tmp_path / ORIGIN)) == 1


def _ships(shipper: Shipper) -> bool:
    try:
        shipper.ship()
    except Unavailable:
        return False
    return True


def test_while_upstream_is_away_the_log_waits_on_disk(tmp_path: Path, upstream: Engine) -> None:
    """Whatever upstream says that is no answer; with it comes all."""
    away: PdpError | None = Unavailable("nobody there")
    report = report_to(upstream)

    def sometimes(request: ReportDecisionsRequest) -> ReportDecisionsResponse:
        if away is not None:
            raise away
        return report(request)

    recorder = Recorder(tmp_path, ORIGIN, segment_bytes=SEGMENT_BYTES)
    recorder.start()
    shipper = Shipper(tmp_path, UpstreamDestination(sometimes), recorder)
    shipper.start()
    ids = []
    for _ in range(30):
        record = decision_record(**CACHED)
        run(recorder.record([record]))
        ids.append(record.decision_id)
    eventually(lambda: shipper.counts().failing)
    assert len(list_segments(tmp_path / ORIGIN)) > 5
    away = None
    eventually(lambda: ids_in(upstream) == ids)
    eventually(lambda: len(list_segments(tmp_path / ORIGIN)) == 1)
    recorder.stop()
    shipper.stop()


def test_sidecars_of_one_name_on_several_machines_do_not_meet(
    tmp_path: Path, upstream: Engine
) -> None:
    """F43: one key for all of them, one origin, and logs of their own."""
    ids = []
    for machine in ("a", "b", "c"):
        ids += write_log(tmp_path / machine, 5, **CACHED)
        for _ in range(2):
            Shipper(tmp_path / machine, UpstreamDestination(report_to(upstream))).ship()
        assert list_segments(tmp_path / machine / ORIGIN) == []
    assert ids_in(upstream) == ids


def test_what_upstream_refuses_is_kept_for_people_and_holds_up_nothing(
    tmp_path: Path, upstream: Engine
) -> None:
    good = write_log(tmp_path, 2, **CACHED)
    write_log(tmp_path, 1)  # decided: no sidecar can have decided it
    good += write_log(tmp_path, 2, **CACHED)
    bad = segment_path(tmp_path / ORIGIN, 2)
    content = bad.read_bytes()
    for _ in range(2):  # also after a restart
        shipper = Shipper(tmp_path, UpstreamDestination(report_to(upstream)))
        for _ in range(2):
            shipper.ship()
        assert bad.with_suffix(".kept").is_file()
        assert ids_in(upstream) == good
        assert [path for _, path in list_segments(tmp_path / ORIGIN)] == [bad]
        assert bad.read_bytes() == content
        assert "decided" in bad.with_suffix(".kept").read_text()
    bad.unlink()
    bad.with_suffix(".kept").unlink()
    Shipper(tmp_path, UpstreamDestination(report_to(upstream))).ship()
    assert ids_in(upstream) == good


def test_a_sidecar_killed_while_something_is_refused_still_keeps_it(
    tmp_path: Path, upstream: Engine
) -> None:
    """F7: behind the answer, and before the note is written."""
    write_log(tmp_path, 1)
    report = report_to(upstream)

    def mortal(request: ReportDecisionsRequest) -> ReportDecisionsResponse:
        if report(request).refusals:
            raise Killed
        return report(request)

    with pytest.raises(Killed):
        Shipper(tmp_path, UpstreamDestination(mortal)).ship()
    assert not segment_path(tmp_path / ORIGIN, 1).with_suffix(".kept").exists()
    Shipper(tmp_path, UpstreamDestination(report)).ship()
    assert segment_path(tmp_path / ORIGIN, 1).with_suffix(".kept").exists()


def test_around_a_flipped_bit_everything_is_reported(tmp_path: Path, upstream: Engine) -> None:
    """As into SQL. The chain goes on behind the record that does not hold."""
    ids = write_log(tmp_path, 10, **CACHED)
    ids += write_log(tmp_path, 1, **CACHED)
    path = segment_path(tmp_path / ORIGIN, 1)
    path.write_bytes(path.read_bytes().replace(ids[4].encode(), b"f" + ids[4][1:].encode()))
    Shipper(tmp_path, UpstreamDestination(report_to(upstream))).ship()
    assert ids_in(upstream) == ids[:4] + ids[5:]
    assert path.exists()


def test_a_log_that_does_not_arrive_as_it_is_stays(tmp_path: Path, upstream: Engine) -> None:
    """Something between that alters records, or an upstream that loses them."""
    write_log(tmp_path, 3, **CACHED)
    report = report_to(upstream)

    def alters(request: ReportDecisionsRequest) -> ReportDecisionsResponse:
        for frame in request.frames:
            frame.payload = frame.payload.replace(b"user_1", b"user_2")
        return report(request)

    def loses(request: ReportDecisionsRequest) -> ReportDecisionsResponse:
        del request.frames[-1:]
        return report(request)

    for between in (alters, loses):
        with pytest.raises(AuditUnavailable):
            Shipper(tmp_path, UpstreamDestination(between)).ship()
        assert list_segments(tmp_path / ORIGIN)


# --- over a real server ---------------------------------------------------------------------------

KEY, AUDITOR_KEY, BACKEND_KEY = "key-of-the-edge", "key-of-the-auditors", "key-of-the-courses"


def caller(name: str, key: str, *may: str) -> dict[str, object]:
    return {"name": name, "api_key_sha256": hashlib.sha256(key.encode()).hexdigest(), "may": may}


CALLERS = [
    caller("edge", KEY, "decide", "report"),
    caller("auditors", AUDITOR_KEY, "audit"),
    caller("courses", BACKEND_KEY, "decide", "administer", "audit"),
]


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


def test_a_sidecar_reports_to_a_server_and_auditors_see_it(tmp_path: Path) -> None:
    with running_server(tmp_path, CALLERS=CALLERS) as (server, stubs):

        def report(request: ReportDecisionsRequest, key: str = KEY) -> ReportDecisionsResponse:
            response: ReportDecisionsResponse = stubs.audit.ReportDecisions(
                request, metadata=bearer(key), timeout=10
            )
            return response

        stubs.decision.Check(CheckRequest(permission="a:b"), metadata=bearer(KEY), timeout=10)
        # A record of a time to come does not hide from who follows what is decided until then.
        with following(listed_by=server.environment) as next_line:
            soon = f"{int((time.time() + 50) * 1000):012x}"
            ahead = f"{soon[:8]}-{soon[8:]}-7000-8000-000000000000"
            write_log(tmp_path / "edge", 1, **CACHED, decision_id=ahead, decided_at=time.time())
            Shipper(tmp_path / "edge", UpstreamDestination(report)).ship()
            assert list_segments(tmp_path / "edge" / ORIGIN) == []
            assert next_line()["reported_by"] == "edge"
            later = stubs.decision.Check(
                CheckRequest(permission="a:c"), metadata=bearer(KEY), timeout=10
            )
            assert next_line()["decision_id"] == later.decision_id

        table = server.pdp(
            "audit", "list", "--api-key", AUDITOR_KEY, "--reported-by", "edge"
        ).stdout
        assert "CACHED" in table
        assert "edge" in table

        # Only who may report does, and not more than fits.
        for key in (AUDITOR_KEY, BACKEND_KEY):
            error = rpc_error(lambda key=key: report(ReportDecisionsRequest(), key))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
            assert error_info(error).metadata["capability"] == "report"
        error = rpc_error(lambda: report(ReportDecisionsRequest(origin="x" * REPORT_BYTES_MAX)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        error = rpc_error(lambda: report(ReportDecisionsRequest(origin="a/b")))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@contextmanager
def following(listed_by: dict[str, str]) -> Iterator[Callable[[], dict[str, str]]]:
    """The lines of `pdp audit list --follow` about later records."""
    command = ("audit", "list", "--follow", "--json", "--api-key", AUDITOR_KEY)
    with prefork.output_of(command, cwd=Path.cwd(), env=listed_by) as lines:
        json.loads(lines.readline())
        yield lambda: json.loads(lines.readline())
