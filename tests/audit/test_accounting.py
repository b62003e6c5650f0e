"""Records and gaps account for every decision and change of a cluster, exactly, under faults."""

import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from sqlalchemy import Engine, event

from pdp.administration_records import AdministrationRecord, Author, Source
from pdp.administrator import Administrator
from pdp.audit import (
    AnswerSource,
    Cursor,
    DecisionFilter,
    DecisionLog,
    DecisionRecord,
    Destination,
    Frame,
    Gap,
    Log,
    Place,
    Recorder,
    Refusal,
    Reports,
    Shipper,
    SqlDestination,
    append_records,
)
from pdp.audit.accounting import account
from pdp.audit.transparency.trees import stored_trees
from pdp.audit.transparency.verification import verify_tree
from pdp.database.engine import open_engine
from pdp.errors import AuditUnavailable, DatabaseUnavailable, PdpError
from pdp.facts import Store
from pdp.model import Effect, Permission, Reason
from tests.kit import soak
from tests.kit.audit.logs import write_log
from tests.kit.audit.records import decision_record
from tests.kit.audit.straced import Runner
from tests.kit.audit.trees import new_signer, sign_trees
from tests.kit.sqlite import on_sqlite
from tests.kit.waiting import eventually, run

ALLOWS_MAX = soak.count(6_000, sample=1_000)
NOW = 4_000_000_000.0
AUTHOR = Author(Source.API, "caller")


class Flaky:
    """A destination whose commits fail before or after they have happened."""

    def __init__(self, destination: Destination, dice: random.Random) -> None:
        self._destination = destination
        self._dice = dice
        self.failing = True

    def place(self, log: Log) -> Place | None:
        self._fail()
        return self._destination.place(log)

    def commit(self, log: Log, frames: Sequence[Frame]) -> Sequence[Refusal]:
        self._fail()
        refusals = self._destination.commit(log, frames)
        self._fail()  # the answer is lost
        return refusals

    def _fail(self) -> None:
        if self.failing and self._dice.random() < 0.3:
            raise DatabaseUnavailable("the database does not answer")


class AsCaller:
    """The reports of a sidecar."""

    def __init__(self, reports: Reports, caller: str) -> None:
        self._reports = reports
        self._caller = caller

    def place(self, log: Log) -> Place | None:
        return self._reports.place(self._caller, log)

    def commit(self, log: Log, frames: Sequence[Frame]) -> Sequence[Refusal]:
        contents = [(frame.kind, frame.payload) for frame in frames]
        return self._reports.take(self._caller, log, frames[0].before, contents)[1]


class Member:
    """A process of the cluster: it decides, and its log reaches SQL sooner or later."""

    def __init__(
        self, directory: Path, destination: Destination, dice: random.Random, source: AnswerSource
    ) -> None:
        self.directory = directory
        self.decisions = 0
        self._dice = dice
        self._source = source
        self._flaky = Flaky(destination, dice)
        self._start()

    def decide(self) -> None:
        """Answers some requests: a batch, equal denials, or allows that are recorded if there is
        room."""
        match self._dice.randrange(4):
            case 0:
                self._record([self._denial() for _ in range(self._dice.randint(1, 20))])
            case 1:
                for _ in range(3):
                    self._record([self._denial(token_id="equal")])
            case 2:
                batch = [self._allow() for _ in range(self._dice.randint(1, ALLOWS_MAX))]
                run(self._recorder.try_write(batch))
                self.decisions += len(batch)
            case 3:
                self._fail_writes()

    def ship(self) -> None:
        try:
            self._shipper.ship()
        except PdpError:
            return

    def restart(self) -> None:
        self._recorder.stop()
        self._start()

    def end(self) -> None:
        """Ends, and ships the rest once the destination is back."""
        self._recorder.stop()
        self._flaky.failing = False
        self._shipper.ship()
        assert not list(self.directory.glob("*/*.kept"))

    def _start(self) -> None:
        self._recorder = Recorder(self.directory, "member", segment_bytes=50_000)
        self._recorder.start()
        self._shipper = Shipper(self.directory, self._flaky, self._recorder)

    def _record(self, records: list[DecisionRecord]) -> None:
        try:
            run(self._recorder.record(records))
        except AuditUnavailable:
            return  # no decision was given
        self.decisions += len(records)

    def _fail_writes(self) -> None:
        """The disk fails: what was tried meanwhile is no decision, or is counted as dropped."""
        with patch("pdp.audit.writer.write_all", side_effect=OSError(5, "the disk fails")):
            self._record([self._denial(), self._denial(token_id="equal")])
            run(self._recorder.try_write([self._allow()]))
            self.decisions += 1
            eventually(lambda: self._recorder.counts().waiting == 0)

    def _denial(self, **changes: object) -> DecisionRecord:
        return decision_record(source=self._source, decided_at=1_790_000_000.0, **changes)

    def _allow(self) -> DecisionRecord:
        return self._denial(effect=Effect.ALLOW, reason=Reason.ALLOWED_BY_RULE)


class Changer:
    """A replica that changes the policy, and appends the records of all replicas; some of its
    commits fail."""

    def __init__(self, url: str, number: int, dice: random.Random) -> None:
        self._own = open_engine(url)
        self._administrator = Administrator(Store(self._own), lambda _: None)
        self._name = f"course:r{number}"
        self._dice = dice
        self._count = 0
        self.answered: list[int] = []
        """Revisions that were answered."""
        event.listen(self._own, "commit", self._fail)

    def change(self) -> None:
        """Creates a permission, and perhaps appends what any replica has recorded."""
        self._count += 1
        permission = Permission(f"{self._name}-{self._count}")
        with suppress(PdpError, Fault):
            self.answered.append(self._administrator.create(permission, AUTHOR)[1])
        if self._dice.random() < 0.5:
            with suppress(PdpError, Fault):
                append_records(self._own)

    def end(self) -> None:
        self._own.dispose()

    def _fail(self, _: object) -> None:
        if self._dice.random() < 0.3:
            raise Fault


class Fault(Exception):
    """A commit that fails."""


@pytest.mark.soak
def test_every_decision_and_change_of_a_cluster_under_faults_is_accounted_for(
    tmp_path: Path, engine: Engine, database_url: str
) -> None:
    dice = random.Random(15)
    faults = random.Random(32)
    changers = [Changer(database_url, number, faults) for number in range(3)]
    reports = Reports(engine, clock=lambda: NOW)
    members = [
        Member(tmp_path / f"replica-{n}", SqlDestination(engine), dice, AnswerSource.DECIDED)
        for n in range(3)
    ]
    members += [
        Member(tmp_path / name, AsCaller(reports, name), dice, AnswerSource.CACHED)
        for name in ("edge", "inner")
    ]
    for _ in range(soak.count(200, sample=15)):
        member = dice.choice(members)
        member.decide()
        faults.choice(changers).change()
        if dice.random() < 0.5:
            member.ship()
        if dice.random() < 0.05:
            member.restart()
    for part in (*members, *changers):
        part.end()
    append_records(engine)
    decisions = sum(member.decisions for member in members)
    accounts = list(account(engine))
    assert len(accounts) >= len(members)
    assert sum(found.decisions for found in accounts) == decisions
    assert sum(found.dropped for found in accounts) > 0
    assert sum(found.recorded - found.records for found in accounts) > 0
    # What readers of the log see adds up to the same.
    followed = follow_all(DecisionLog(engine))
    records = [record for record in followed if isinstance(record, DecisionRecord)]
    gaps = [record.dropped for record in followed if isinstance(record, Gap)]
    changes = [record for record in followed if isinstance(record, AdministrationRecord)]
    assert sum(record.occurrences for record in records) + sum(gaps) == decisions
    answered = sorted(revision for changer in changers for revision in changer.answered)
    assert sorted(record.revision for record in changes) == answered
    with Store(engine).read() as reader:
        assert len(changes) == len(reader.list(Permission, None, 1_000)) > 10


def follow_all(log: DecisionLog) -> list[object]:
    """All that a reader gets that follows the log, page by page."""
    found: list[object] = []
    cursor, more = Cursor(), True
    while more:
        page = log.follow(DecisionFilter(), cursor, 70, with_changes_and_gaps=True)
        found += [record for record, _ in page.records]
        cursor, more = page.cursor, page.more
    return found


@on_sqlite  # the sums of either are tested above
def test_trees_account_for_the_same_decisions_as_sql(tmp_path: Path, engine: Engine) -> None:
    signer = new_signer(tmp_path / "keys")
    recorder = Recorder(tmp_path / "audit", "member")
    recorder.start()
    run(recorder.record([decision_record() for _ in range(300)]))
    for _ in range(5):
        run(recorder.record([decision_record(token_id="equal")]))
    for _ in range(4):
        run(recorder.try_write([decision_record(effect=Effect.ALLOW) for _ in range(3_000)]))
    recorder.stop()
    sign_trees(tmp_path / "audit" / "member", [signer])
    Shipper(tmp_path / "audit", SqlDestination(engine)).ship()
    [tree] = stored_trees(tmp_path / "audit" / "member")
    [found] = account(engine)
    assert found.decisions == verify_tree(tree, []).decisions == 300 + 5 + 12_000


@on_sqlite
def test_after_a_kill_the_log_accounts_for_every_answer_and_one_more_at_most(
    tmp_path: Path, engine: Engine, runner: Runner
) -> None:
    answered = 0
    for occurrence in range(2, 12, 3):
        directory = tmp_path / str(occurrence)
        done = runner.run(
            directory, "trace=none", f"inject=fdatasync:signal=SIGKILL:when={occurrence}", records=9
        )
        answered += len(done.acked)
        write_log(directory)  # recovers
        Shipper(directory, SqlDestination(engine)).ship()
    decisions = sum(found.decisions for found in account(engine))
    assert answered <= decisions <= answered + 4
