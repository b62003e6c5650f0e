"""A process that changes policy and facts is killed at any moment: what is committed has its
records, what is recorded was committed, and each record gets one place in the log."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text

from pdp.audit import AdministrationLog, ChangeFilter, append_records, verify_sql
from pdp.database.administration_table import administration_places
from pdp.database.engine import begin_read, begin_write, open_engine
from pdp.facts import Store
from pdp.facts.store.recording import values_of
from pdp.kinds import KINDS
from pdp.model import key_of
from tests.kit import soak
from tests.kit.audit.straced import ROOT, Runner, count_calls
from tests.kit.sqlite import make_sqlite

CALLS = "pwrite64,write,fdatasync,fsync,unlink,ftruncate,openat"


def check(engine: Engine, acked: list[int], where: str) -> int:
    """Checks a database whose writer was killed; returns its revision."""
    records = AdministrationLog(engine).list(ChangeFilter(), None, 10_000)[::-1]
    with Store(engine).read() as reader:
        revision = reader.revision
        stored = {
            (kind, key_of(entity)): values_of(entity)
            for kind, type_ in KINDS.items()
            for entity in reader.list(type_)
        }
        revoked = reader.is_revoked("user_1", "sess_1")
    assert {record.revision for record in records} == set(range(1, revision + 1)), where
    assert revision >= max(acked, default=0), where
    # The records, replayed, are exactly what is stored.
    replayed = {}
    for record in records:
        entity = (record.kind, record.key)
        assert replayed.get(entity) == record.before, where
        replayed[entity] = record.after
    sessions = [replayed.pop(entity) for entity in list(replayed) if entity[0] == "session"]
    assert {e: v for e, v in replayed.items() if v is not None} == stored, where
    assert len(sessions) == revoked, where
    while append_records(engine):
        pass
    with begin_read(engine) as connection:
        placed = connection.execute(
            select(administration_places).order_by(administration_places.c.position)
        ).all()
    assert [row[:2] for row in placed] == [(r.revision, r.number) for r in records], where
    problems: list[str] = []
    report = verify_sql(engine, problems.append, {})
    assert (problems, report.changes) == ([], len(records)), where
    return revision


def empty(engine: Engine) -> None:
    with begin_write(engine) as connection:
        tables = ("administration_records", "administration_places", "audit_shipping", "changes")
        facts = ("grants", "rules", "role_inheritance", "roles", "permissions", "users")
        clerk = ("organizations", "memberships", "revoked_sessions", "clerk_objects")
        for table in (*tables, *facts, *clerk, "webhook_messages"):
            connection.execute(text(f"DELETE FROM {table}"))
        connection.execute(text("UPDATE state SET revision = 0"))


@pytest.fixture(scope="module")
def parent() -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.audit.changer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=ROOT,
    )
    yield process
    process.stdin.close()
    process.stdout.close()
    process.wait(30)


def killed_at(
    parent: "subprocess.Popen[str]", url: str, acks: Path, number: int
) -> tuple[bool, list[int]]:
    """Runs a child that is killed at a statement; whether it was, and what it had committed."""
    acks.unlink(missing_ok=True)
    order = {"url": url, "acks": str(acks), "kill_at": number}
    parent.stdin.write(json.dumps(order) + "\n")
    os.kill(int(parent.stdout.readline()), signal.SIGCONT)
    status = int(parent.stdout.readline())
    lines = [line.split() for line in acks.read_text().splitlines()]
    return os.WIFSIGNALED(status), [int(line[1]) for line in lines if line[0] == "ack"]


@pytest.mark.soak
def test_kill_at_every_statement_and_commit_leaves_each_change_with_one_record(
    engine: Engine, database_url: str, parent: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    step = soak.count(1, sample=83)
    reached, killed, number = set(), True, 1
    while killed:
        empty(engine)
        killed, acked = killed_at(parent, database_url, tmp_path / "acks", number)
        reached.add(check(engine, acked, f"killed at {number}"))
        number += step
        assert number < 2_000
    # Positive control: the last run was not killed, and the runs before stopped at each revision.
    assert acked == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len(reached) >= soak.count(9, sample=3)


@pytest.mark.soak
def test_kill_at_every_system_call_leaves_each_change_with_one_record(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: what a crash at a system call does is not tested")
    runner = Runner(tmp_path, "tests.kit.audit.changer")

    def prepare(name: str) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        make_sqlite(directory / "pdp.db")
        return directory

    whole = runner.run(prepare("count"), f"trace={CALLS}", records=0)
    assert whole.stopped
    killed = 0
    for name, occurrences in sorted(count_calls(whole.trace).items()):
        for occurrence in range(occurrences, 0, -soak.count(1, sample=max(83, occurrences // 2))):
            where = f"{name} {occurrence}"
            directory = prepare(f"{name}-{occurrence}")
            inject = f"inject={name}:signal=SIGKILL:when={occurrence}"
            run = runner.run(directory, f"trace={name}", inject, records=0)
            killed += run.killed
            engine = open_engine(f"sqlite:///{directory / 'pdp.db'}")
            check(engine, list(map(int, run.acked)), where)
            engine.dispose()
    runner.close()
    assert killed >= soak.count(50, sample=3)
