"""Administration records in the log: each once, in order, and none altered unseen."""

import threading

import pytest
from sqlalchemy import Engine, event, text

from pdp.administration_records import Author, Source
from pdp.administrator import Administrator
from pdp.audit import AdministrationLog, ChangeFilter, DecisionLog, append_records, verify_sql
from pdp.audit import administration_log as module
from pdp.audit.decision_filters import DecisionFilter
from pdp.database.engine import begin_read, begin_write, open_engine
from pdp.errors import DatabaseUnavailable
from pdp.facts import Store, renew_epoch
from pdp.model import Permission, Role
from tests.kit import soak
from tests.kit.sqlite import on_sqlite
from tests.kit.waiting import eventually

AUTHOR = Author(Source.API, "caller")


@pytest.fixture
def administrator(engine: Engine) -> Administrator:
    return Administrator(Store(engine), lambda _: None)


def create(administrator: Administrator, first: int, end: int) -> None:
    for number in range(first, end):
        administrator.create(Permission(f"course:p{number}"), AUTHOR)


def problems(engine: Engine) -> tuple[list[str], int]:
    found: list[str] = []
    report = verify_sql(engine, found.append, {})
    return [problem.partition(": ")[2] for problem in found], report.changes


def placed(engine: Engine) -> list[tuple[str, int, int, int]]:
    query = (
        "SELECT log_id, position, revision, number FROM administration_places ORDER BY revision, "
        "number"
    )
    with begin_read(engine) as connection:
        return [tuple(row) for row in connection.execute(text(query))]  # type: ignore[misc]


def execute(engine: Engine, statement: str) -> None:
    with begin_write(engine) as connection:
        connection.execute(text(statement))


def test_records_are_appended_once_in_the_order_of_revisions(
    engine: Engine, administrator: Administrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APPEND_ROWS", 4)
    create(administrator, 0, 10)
    assert [append_records(engine) for _ in range(4)] == [4, 4, 2, 0]
    create(administrator, 10, 11)
    assert append_records(engine) == 1
    assert [row[1:] for row in placed(engine)] == [(n, n + 1, 0) for n in range(11)]
    assert problems(engine) == ([], 11)


def test_processes_that_append_at_the_same_time_append_each_record_once(
    engine: Engine, database_url: str, administrator: Administrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APPEND_ROWS", 3)
    failures: list[Exception] = []
    done = threading.Event()

    def append() -> None:
        own = open_engine(database_url)
        try:
            while not done.is_set() or append_records(own):
                append_records(own)
        except DatabaseUnavailable:
            pass  # a busy SQLite file: the others go on
        except Exception as error:  # noqa: BLE001  # whatever it is, the test shows it
            failures.append(error)
        finally:
            own.dispose()

    threads = [threading.Thread(target=append) for _ in range(3)]
    for thread in threads:
        thread.start()
    create(administrator, 0, 25)
    done.set()
    for thread in threads:
        thread.join()
    while append_records(engine):
        pass
    assert failures == []
    assert [row[1] for row in placed(engine)] == list(range(25))
    assert problems(engine) == ([], 25)


def test_a_failed_append_appends_nothing_and_the_next_one_everything(
    engine: Engine, administrator: Administrator
) -> None:
    create(administrator, 0, 3)

    def fail(*_: object) -> None:
        raise RuntimeError("the process is ill")

    event.listen(engine, "commit", fail)
    with pytest.raises(RuntimeError):
        append_records(engine)
    event.remove(engine, "commit", fail)
    assert placed(engine) == []
    assert append_records(engine) == 3
    assert problems(engine) == ([], 3)


def test_a_metric_shows_the_records_that_wait_to_be_appended(
    engine: Engine, administrator: Administrator
) -> None:
    create(administrator, 0, 3)
    log = AdministrationLog(engine)
    _, waiting = log.gauges()["pdp_audit_waiting_changes"]

    def fail(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT INTO administration_places"):
            raise DatabaseUnavailable("the database is read-only")

    event.listen(engine, "before_cursor_execute", fail)
    log.start()
    try:
        eventually(lambda: waiting() == 3)
        event.remove(engine, "before_cursor_execute", fail)
        eventually(lambda: waiting() == 0 and len(placed(engine)) == 3)
    finally:
        log.stop()


def test_each_epoch_has_a_log_of_its_own(engine: Engine, administrator: Administrator) -> None:
    create(administrator, 0, 2)
    renew_epoch(engine)
    create(administrator, 2, 4)
    append_records(engine)
    (first, *_), (second, *_), *others = placed(engine)
    assert first == second
    assert {row[0] for row in others}.isdisjoint({first})
    assert [row[1] for row in placed(engine)] == [0, 1, 0, 1]
    assert problems(engine) == ([], 4)


def test_the_task_of_a_process_appends_what_another_one_wrote(
    engine: Engine, administrator: Administrator
) -> None:
    create(administrator, 0, 2)
    log = AdministrationLog(engine)
    log.start()
    try:
        eventually(lambda: len(placed(engine)) == 2)
        create(administrator, 2, 3)
        eventually(lambda: len(placed(engine)) == 3)
    finally:
        log.stop()


RECORDS, PLACES = "administration_records", "administration_places"
FORGED = "revision + 10, number, log_id, position + 9, digest"


@pytest.mark.soak
@on_sqlite
def test_a_backlog_does_not_keep_other_writers_from_the_database(
    engine: Engine, administrator: Administrator
) -> None:
    """SQLite has one writer at a time: transactions one after another starve others."""
    count = soak.count(20_000, sample=5_000)
    with Store(engine).write() as transaction:
        transaction.apply_many(Permission(f"course:q{number}") for number in range(count))
    log = AdministrationLog(engine)
    log.start()
    try:
        create(administrator, 0, 20)
    finally:
        log.stop()


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (
            f"UPDATE {RECORDS} SET record = replace(record, 'caller', 'x') WHERE revision = 2",
            "change 0 of revision 2",
        ),
        (f"UPDATE {RECORDS} SET name = 'x' WHERE revision = 2", "not as its record says: name"),
        (f"DELETE FROM {RECORDS} WHERE revision = 2", "edited, swapped or inserted"),
        (f"DELETE FROM {PLACES} WHERE revision = 2", "1 row before"),
        (f"DELETE FROM {PLACES} WHERE revision = 4", "the last 1 row of it are missing"),
        ("DELETE FROM audit_shipping", "is none that was shipped"),
        (
            f"INSERT INTO {PLACES} SELECT {FORGED} FROM {PLACES} WHERE revision = 4",
            "missing: deleted, or never shipped",
        ),
    ],
)
def test_what_was_altered_in_sql_is_found(
    engine: Engine, administrator: Administrator, statement: str, found: str
) -> None:
    create(administrator, 0, 4)
    append_records(engine)
    assert problems(engine) == ([], 4)
    execute(engine, statement)
    reported, _ = problems(engine)
    assert any(found in problem for problem in reported), reported


def test_readers_that_follow_decisions_pass_the_changes(
    engine: Engine, administrator: Administrator
) -> None:
    create(administrator, 0, 3)
    append_records(engine)
    decisions = DecisionLog(engine)
    end = decisions.end()
    assert end.position == 3
    create(administrator, 3, 5)
    append_records(engine)
    followed = decisions.follow(DecisionFilter(), end, 10)
    assert followed.records == []
    assert followed.cursor.position == 5
    assert not followed.more


def test_hostile_names_find_nothing_and_break_nothing(
    engine: Engine, administrator: Administrator
) -> None:
    administrator.create(Role("R1"), AUTHOR)
    log = AdministrationLog(engine)
    for hostile in ("a\0b", "\ud800", "x" * 100_000, "' OR 1=1 --", "%", "_"):
        for where in (
            ChangeFilter(name=hostile),
            ChangeFilter(kind=hostile),
            ChangeFilter(kind="role", key=(hostile,)),
            ChangeFilter(kind="role", key=("R1", hostile)),
        ):
            assert log.list(where, None, 10) == []
    assert len(log.list(ChangeFilter(kind="role", key=("R1",)), None, 10)) == 1


def test_a_process_of_the_version_before_may_write_beside_this_one(
    engine: Engine, administrator: Administrator
) -> None:
    """Its revisions have no records; the log goes on behind them."""
    create(administrator, 0, 2)
    execute(engine, "UPDATE state SET revision = revision + 1")
    create(administrator, 2, 3)
    assert append_records(engine) == 3
    assert [row[2] for row in placed(engine)] == [1, 2, 4]
    assert problems(engine) == ([], 3)
