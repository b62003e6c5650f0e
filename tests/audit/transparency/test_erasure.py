"""Erasure: personal data goes, proofs stay, and an erasure leaves evidence."""

import gzip
import io
import shutil
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, redirect_stdout
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, select, text

from pdp.administration_records import Author, Source
from pdp.audit import (
    AdministrationLog,
    ChangeFilter,
    DecisionFilter,
    DecisionLog,
    Shipper,
    SqlDestination,
    append_records,
    decode,
)
from pdp.audit.accounting import account
from pdp.audit.decision_filters import conditions
from pdp.audit.erasure import ErasureReport, ErasureRequest, erase_rows, other_resources
from pdp.audit.retention import Hold, Recording, matches
from pdp.audit.tables import audit_records
from pdp.audit.tombstones import tombstone_of
from pdp.audit.transparency import DamagedTreeError
from pdp.audit.transparency.archive_erasure import erase_archived, waiting_in_segments
from pdp.audit.transparency.archives import archive, locked
from pdp.audit.transparency.files import replace_file
from pdp.audit.transparency.notes import Signer
from pdp.audit.transparency.parquet import write_copies
from pdp.audit.transparency.proofs import (
    find_trees,
    prove_record,
    records_in_sql,
    records_on_disk,
)
from pdp.audit.transparency.verification import compare_with_sql, verify_tree
from pdp.audit.verify_sql import verify_sql
from pdp.database.engine import begin_read, begin_write
from pdp.facts import Store
from pdp.model import Actor, Effect, Reason, ResourceRef
from tests.kit.audit.holds import place_hold, release_hold
from tests.kit.audit.logs import ORIGIN, frames_of, write_log
from tests.kit.audit.records import decision_record
from tests.kit.audit.shipped import KeepAll
from tests.kit.audit.trees import audit, new_signer, only_tree, run_tool, sign_trees
from tests.kit.sqlite import on_sqlite

ALL = ChangeFilter()
USER = "user_erased"
OLD, NOW = 1_700_000_000.0, 1_900_000_000.0
MINE: dict[str, Any] = {"actor": Actor(USER, "sess_secret", "org_1"), "decided_at": OLD}


class Written:
    """A log with its tree, to be copied."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "segments"
        self.signer: Signer = new_signer(directory / "keys")
        write_log(self.log, 5, decided_at=OLD)
        self.mine = write_log(self.log, 4, **MINE)
        self.others = write_log(self.log, 5, decided_at=OLD)
        sign_trees(self.log / ORIGIN, [self.signer])


class World:
    """A log in SQL with records of a user, its tree, and an archive."""

    def __init__(self, directory: Path, engine: Engine, written: "Written") -> None:
        self.directory = directory
        self.engine = engine
        self.log = directory / "audit"
        self.out = directory / "archive"
        self.segments = written.log
        self.signer, self.mine, self.others = written.signer, written.mine, written.others
        shutil.copytree(self.segments, self.log)
        self.ship()

    def ship(self) -> None:
        """Ships everything. While segments are there, a later process continues the log."""
        Shipper(self.log, SqlDestination(self.engine), notary=KeepAll()).ship()

    def write(self) -> AbstractContextManager[Recording]:
        return Store(self.engine).write(Author(Source.COMMAND, "operator", "request 17"))

    def erase(self, user: str = USER, before: float = NOW) -> ErasureReport:
        request, report = ErasureRequest(user, before), ErasureReport()
        erase_rows(self.engine, self.write, request, NOW, report)
        for tree in find_trees([self.out]) if self.out.is_dir() else ():
            erase_archived(
                self.engine, self.write, tree, [self.signer], request, at=NOW, report=report
            )
        return report

    def archive(self, *, remove: bool = True) -> int:
        tree = only_tree(self.log / ORIGIN)
        signers = [self.signer]
        return archive(self.engine, tree, self.out, NOW, signers, remove=remove).records

    def problems(self) -> list[str]:
        """What `pdp audit verify` would report."""
        while append_records(self.engine):
            pass
        found: list[str] = []
        verify_sql(self.engine, found.append, {})
        tree = only_tree(self.log / ORIGIN)
        report = verify_tree(tree, [self.signer.key])
        compare_with_sql(self.engine, tree, report, found.append)
        return found + report.problems

    def audit(self) -> tuple[int, str]:
        """Status and output of the auditor's file for the archive."""
        with redirect_stdout(io.StringIO()) as output:
            status = audit(self.out, [self.signer.key], complete=True)
        return status, output.getvalue()

    def texts(self) -> str:
        """All texts in SQL and in the archive."""
        with begin_read(self.engine) as connection:
            rows = connection.execute(select(audit_records)).all()
            changes = connection.execute(text("SELECT record FROM administration_records")).all()
        files = [gzip.decompress(p.read_bytes()) for p in self.out.rglob("*.jsonl.gz")]
        return f"{rows}{changes}{files}"

    def execute(self, statement: str) -> None:
        with begin_write(self.engine) as connection:
            assert connection.execute(text(statement)).rowcount


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("written"))


@pytest.fixture
def world(tmp_path: Path, engine: Engine, written: Written) -> World:
    return World(tmp_path, engine, written)


def prove(world: World, decision_id: str, directories: list[Path]) -> tuple[int, str]:
    trees = find_trees([world.log])
    found = records_in_sql(world.engine, decision_id) or list(
        records_on_disk(directories, find_trees(directories), decision_id)
    )
    path = world.directory / "record.tlog-proof"
    path.write_text(prove_record(trees, found[0]))
    return run_tool("record", "--key", str(world.signer.key), str(path))


def test_an_erased_record_keeps_its_place_its_proof_and_the_fields_that_name_no_person(
    world: World,
) -> None:
    assert world.problems() == []
    assert USER in world.texts()
    assert world.erase() == ErasureReport(records=4, denials=4)
    for secret in (USER, "sess_secret"):
        assert secret not in world.texts()
    assert world.problems() == []
    for decision_id in world.mine:
        [record] = DecisionLog(world.engine).get(decision_id)
        assert (record.erased_at, record.actor, record.resource) == (NOW, None, None)
        assert (record.effect, record.reason) == (Effect.DENY, Reason.PERMISSION_NOT_GRANTED)
        status, output = prove(world, decision_id, [])
        assert (status, "its text was erased on request" in output) == (0, True)
        assert USER not in output
    [found] = [found for found in account(world.engine) if found.log.origin == ORIGIN]
    assert (found.records, found.decisions) == (14, 14)
    assert world.erase() == ErasureReport()


def test_an_erasure_records_who_erased_which_records_when_and_why(world: World) -> None:
    world.erase()
    [record] = AdministrationLog(world.engine).list(ChangeFilter(kind="erasure"), None, 10)
    assert (record.source, record.name, record.reason) == (
        Source.COMMAND,
        "operator",
        "request 17",
    )
    values = dict(record.after or {})
    places = values.pop("records")
    assert values == {"count": 4, "denials": 4, "unsalted": 0}
    [(log, positions)] = places.items()
    assert (log.split(" ")[0], sorted(map(int, positions))) == (ORIGIN, [5, 6, 7, 8])


def test_an_archive_with_erased_records_verifies_alone_and_counts_them(world: World) -> None:
    world.archive()
    assert world.erase() == ErasureReport(records=4, denials=4)
    assert USER not in world.texts()
    status, output = world.audit()
    assert status == 0, output
    assert "erased on request: the texts of 4 records, by their operator's word 4 denials" in output
    status, output = prove(world, world.mine[2], [world.out])
    assert (status, "its text was erased on request" in output) == (0, True)
    assert world.erase() == ErasureReport()


def test_records_that_were_erased_in_sql_are_archived_as_such(world: World) -> None:
    world.erase()
    assert world.archive() == 14
    assert USER not in world.texts()
    status, output = world.audit()
    assert (status, "the texts of 4 records" in output) == (0, True)
    assert world.problems() == []


def test_an_export_and_sql_are_erased_together(world: World) -> None:
    world.archive(remove=False)
    assert world.erase().records == 8
    assert USER not in world.texts()
    assert world.problems() == []
    assert world.audit()[0] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": Actor("user_other", "sess_2", impersonator_id=USER)},
        {"resource": ResourceRef("user", USER)},
    ],
)
def test_a_user_is_erased_as_impersonator_and_as_resource_too(
    world: World, changes: dict[str, Any]
) -> None:
    write_log(world.log, 2, **{"decided_at": OLD, **changes})
    sign_trees(world.log / ORIGIN, [world.signer])
    world.ship()
    assert world.erase().records == 6
    assert USER not in world.texts()


def test_a_resource_that_only_has_the_id_of_the_user_stays_unless_its_type_is_named(
    world: World,
) -> None:
    for type_ in ("course", "person"):
        write_log(world.log, 2, decided_at=OLD, resource=ResourceRef(type_, USER))
    write_log(world.log, 1, **MINE, resource=ResourceRef("course", USER))
    sign_trees(world.log / ORIGIN, [world.signer])
    assert waiting_in_segments([world.log], ErasureRequest(USER, NOW)) == 4 + 1
    world.ship()
    assert world.erase().records == 5
    left = {"course": 2, "person": 2}
    assert other_resources(world.engine, ErasureRequest(USER, NOW)) == left
    assert other_resources(world.engine, ErasureRequest(USER, OLD)) == {}
    world.archive(remove=False)
    request, report = ErasureRequest(USER, NOW, ("user", "person")), ErasureReport()
    erase_rows(world.engine, world.write, request, NOW, report)
    [tree] = find_trees([world.out])
    signers = [world.signer]
    erase_archived(world.engine, world.write, tree, signers, request, at=NOW, report=report)
    assert report.records == 4  # in SQL and in the archive
    assert other_resources(world.engine, request) == {"course": 2}
    assert world.problems() == []


def test_the_grant_of_an_erased_record_is_not_known_and_others_are_checked(world: World) -> None:
    with_grant: dict[str, Any] = {"reason": Reason.DENIED_BY_RULE, "grant_id": "g1"}
    write_log(world.log, 1, **MINE, **with_grant)
    write_log(world.log, 1, decided_at=OLD, **with_grant)
    sign_trees(world.log / ORIGIN, [world.signer])
    world.ship()
    world.erase()
    assert world.problems() == []
    # The mark of an erased grant hides no use: at a record that is there it is found.
    world.execute("UPDATE audit_records SET grant_id = '' WHERE grant_id = 'g1'")
    assert [problem for problem in world.problems() if "grant_id" in problem]


def test_records_of_others_and_later_ones_stay(world: World) -> None:
    before = {id_: DecisionLog(world.engine).get(id_) for id_ in world.others + world.mine}
    assert world.erase("user_eras") == ErasureReport()
    assert world.erase(before=OLD) == ErasureReport()
    assert {id_: DecisionLog(world.engine).get(id_) for id_ in before} == before
    world.erase()
    assert all(DecisionLog(world.engine).get(id_) == before[id_] for id_ in world.others)


@pytest.mark.parametrize("archived", [False, True])
def test_a_hold_wins_over_an_erasure_until_it_is_released(world: World, archived: bool) -> None:
    hold = Hold("case-7", DecisionFilter(user_id=USER, effect=Effect.DENY), NOW)
    if archived:
        world.archive()
    place_hold(world.engine, hold)
    assert world.erase() == ErasureReport(held=4)
    assert USER in world.texts()
    assert AdministrationLog(world.engine).list(ChangeFilter(kind="erasure"), None, 10) == []
    release_hold(world.engine, "case-7")
    # A release that makes an erasure possible leaves evidence too.
    kinds = [(r.kind, r.after is None) for r in AdministrationLog(world.engine).list(ALL, None, 9)]
    assert kinds == [("hold", True), ("hold", False)]
    assert world.erase().records == 4
    assert USER not in world.texts()


def test_filters_of_holds_match_in_memory_what_they_match_in_sql(world: World) -> None:
    filters = [
        DecisionFilter(user_id=USER),
        DecisionFilter(user_id=USER.upper()),
        DecisionFilter(organization_id="org_1", permission="course:edit"),
        DecisionFilter(effect=Effect.ALLOW),
        DecisionFilter(effect=Effect.DENY, reason=Reason.PERMISSION_NOT_GRANTED),
        DecisionFilter(resource_type="course", resource_id="2"),
        DecisionFilter(not_before=OLD, before=OLD + 1),
        DecisionFilter(before=OLD),
        DecisionFilter(reported_by="sidecar"),
        DecisionFilter(caller="courses"),
    ]
    with begin_read(world.engine) as connection:
        rows = connection.execute(select(audit_records)).mappings().all()
        for where in filters:
            key = audit_records.c.decision_id
            in_sql = set(connection.execute(select(key).where(*conditions(where))).scalars())
            assert {r["decision_id"] for r in rows if matches(where, r)} == in_sql, where


# --- attacks --------------------------------------------------------------------------------------


def hide_a_denial(world: World) -> None:
    """The operator writes a tombstone and no record of it."""
    world.execute("DELETE FROM administration_records WHERE kind = 'erasure'")
    world.execute("DELETE FROM administration_places")


def claim_an_allow(world: World) -> None:
    """The operator makes a denial look like an allow."""
    world.execute(
        "UPDATE audit_records SET effect = 'ALLOW',"
        " record = replace(record, 'DENY', 'ALLOW') WHERE position = 6"
    )


def claim_another_text(world: World) -> None:
    """The operator claims that another text was erased."""
    with begin_read(world.engine) as connection:
        record = connection.execute(
            text("SELECT record FROM audit_records WHERE position = 6")
        ).scalar_one()
    found = tombstone_of(record.encode())
    assert found is not None
    digest = found.digest.hex()
    world.execute(
        f"UPDATE audit_records SET record = replace(record, '{digest}', '{'0' * 64}')"
        " WHERE position = 6"
    )


def put_the_text_back(world: World) -> None:
    """A part of a backup is restored."""
    payload = frames_of(world.segments / ORIGIN)[6].payload
    with begin_write(world.engine) as connection:
        connection.execute(
            text(
                "UPDATE audit_records SET record = :record, user_id = :user,"
                " organization_id = 'org_1', resource_type = 'course', resource_id = '1'"
                " WHERE position = 6"
            ),
            {"record": payload.decode(), "user": USER},
        )


@pytest.mark.parametrize(
    ("attack", "problem"),
    [
        (hide_a_denial, "its text is missing, and no change records its erasure"),
        (claim_an_allow, "its text is missing, and no change records its erasure"),
        (claim_another_text, "is not what the tree says"),
        (put_the_text_back, "was erased, and its text is here again"),
    ],
)
def test_an_abused_erasure_is_found(
    world: World, attack: Callable[[World], None], problem: str
) -> None:
    world.erase()
    assert world.problems() == []
    attack(world)
    assert any(problem in found for found in world.problems())


def test_a_record_with_another_salt_is_found(world: World) -> None:
    payload = frames_of(world.segments / ORIGIN)[6].payload.decode()
    other = frames_of(world.segments / ORIGIN)[7].payload.decode()
    salts = [part.split('"salt":"')[1][:32] for part in (payload, other)]
    assert salts[0] != salts[1]
    world.execute(
        f"UPDATE audit_records SET record = replace(record, '{salts[0]}', '{salts[1]}')"
        " WHERE position = 6"
    )
    assert any("row 6" in found for found in world.problems())


def test_segments_that_are_shipped_again_do_not_bring_a_text_back(world: World) -> None:
    world.erase()
    shutil.rmtree(world.log)
    shutil.copytree(world.segments, world.log)
    assert waiting_in_segments([world.log], ErasureRequest(USER, NOW)) == 4
    Shipper(world.log, SqlDestination(world.engine)).ship()
    assert waiting_in_segments([world.log], ErasureRequest(USER, NOW)) == 0
    assert USER not in world.texts()
    assert world.problems() == []


def test_records_that_are_shipped_after_an_erasure_are_erased_by_the_next(world: World) -> None:
    write_log(world.log, 2, **MINE)
    world.erase()
    sign_trees(world.log / ORIGIN, [world.signer])
    world.ship()
    assert world.erase().records == 2
    assert world.problems() == []


def test_an_erasure_during_an_archive_leaves_no_text_in_it(world: World) -> None:
    signer, times = world.signer, []

    def erase_meanwhile(text: bytes) -> bytes:
        times.append(1)
        if len(times) == 1:
            erase_rows(world.engine, world.write, ErasureRequest(USER, NOW), NOW, ErasureReport())
        return signer.sign(text)

    world.signer = Signer(signer.key, erase_meanwhile)
    assert world.archive() == 14
    assert len(times) == 2, "the file with the text was written, and not used"
    assert USER not in world.texts()
    assert not list(world.out.rglob("*.new"))
    assert world.audit()[0] == 0


def test_operators_who_erase_at_once_erase_each_record_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.audit.erasure.BATCH_RECORDS", 3)
    write_log(world.log, 20, **MINE)
    write_log(world.log, 9, decided_at=OLD, actor=Actor("user_second", "sess_2"))
    sign_trees(world.log / ORIGIN, [world.signer])
    world.ship()
    together = threading.Barrier(3)

    def erase(user: str) -> ErasureReport:
        request, report = ErasureRequest(user, NOW), ErasureReport()
        together.wait(30)
        erase_rows(world.engine, world.write, request, NOW, report)
        return report

    with ThreadPoolExecutor(3) as pool:
        first, same, second = pool.map(erase, (USER, USER, "user_second"))
    assert (first.records + same.records, second.records) == (24, 9)
    assert USER not in world.texts()
    assert "user_second" not in world.texts()
    changes = AdministrationLog(world.engine).list(ChangeFilter(kind="erasure"), None, 100)
    places = [
        (log, position)
        for change in changes
        for log, listed in (change.after or {})["records"].items()
        for position in listed
    ]
    assert len(places) == len(set(places)) == 24 + 9
    assert world.problems() == []


def test_an_erasure_waits_for_no_command_that_uses_the_archive_and_leaves_no_copy(
    world: World,
) -> None:
    world.archive()
    [tree] = find_trees([world.out])
    assert write_copies(tree.directory) == 1
    [copy] = world.out.rglob("*.parquet")
    with locked(tree.directory), pytest.raises(OSError, match="another command"):
        # As if the other command were writing a copy of the old text.
        world.erase()
    assert USER in world.texts()
    crashed = copy.with_name(copy.name + ".new")
    shutil.copy(copy, crashed)
    with pq.ParquetFile(copy) as reader:
        assert world.erase().records == 4
        # A reader that has begun ends as it began: what it has got before is its own.
        assert reader.read().num_rows == 14
    assert not copy.exists()
    assert not crashed.exists()
    assert write_copies(tree.directory) == 1
    assert USER not in str(pq.read_table(copy).to_pylist())
    assert world.audit()[0] == 0


def test_an_archive_that_grows_during_an_erasure_leaves_no_text_in_another_file(
    world: World,
) -> None:
    write_log(world.log, 2, decided_at=OLD)
    sign_trees(world.log / ORIGIN, [world.signer])
    signer, times = world.signer, []

    def erase_and_ship_meanwhile(text: bytes) -> bytes:
        times.append(1)
        if len(times) == 1:
            erase_rows(world.engine, world.write, ErasureRequest(USER, NOW), NOW, ErasureReport())
            world.ship()
        return signer.sign(text)

    world.signer = Signer(signer.key, erase_and_ship_meanwhile)
    assert world.archive() == 16
    assert len(times) == 2, "the second file is longer, so it has another name"
    assert not list(world.out.rglob("*.new"))


@pytest.mark.parametrize("step", ["before", "between"])
def test_an_erasure_that_a_crash_interrupts_is_completed_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world.archive()

    def crash(path: Path, note: str) -> None:
        if step == "between":
            replace_file(path.with_name(path.name + ".note"), note.encode())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pdp.audit.transparency.archive_erasure.put_file", crash)
        with pytest.raises(KeyboardInterrupt):
            world.erase()
    assert USER in world.texts()
    world.erase()
    assert USER not in world.texts()
    assert world.audit()[0] == 0
    assert not list(world.out.rglob("*.new"))


def test_a_changed_archive_is_not_signed_again(world: World) -> None:
    world.archive()
    [path] = world.out.rglob("*.jsonl.gz")
    lines = gzip.decompress(path.read_bytes()).replace(b"course:edit", b"course:view", 1)
    path.write_bytes(gzip.compress(lines))
    with pytest.raises(DamagedTreeError, match="not the file that its note describes"):
        world.erase()


def test_a_log_of_an_earlier_version_verifies_and_is_erased_with_a_warning(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pdp.audit.recorder.new_salts", lambda: repeat(""))
        world = World(tmp_path, engine, Written(tmp_path))
    assert '"salt"' not in world.texts()
    assert world.problems() == []
    assert world.erase() == ErasureReport(records=4, denials=4, unsalted=4)
    assert world.problems() == []
    world.archive()
    assert world.audit()[0] == 0


@on_sqlite
def test_free_pages_of_sqlite_do_not_keep_the_texts(world: World) -> None:
    """PostgreSQL removes old rows with VACUUM."""
    world.erase()
    file = Path(world.engine.url.database or "")
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert USER.encode() not in file.read_bytes()


def test_an_erased_record_decodes_without_the_fields_that_name_a_person(world: World) -> None:
    world.erase()
    with begin_read(world.engine) as connection:
        rows = connection.execute(select(audit_records.c.record)).scalars()
        erased = [r for row in rows if (r := decode(row)).erased_at is not None]
    assert len(erased) == 4
    whole = decision_record()
    for record in erased:
        assert record.permission == whole.permission
        assert (record.actor, record.resource, record.token_fingerprint) == (None, None, "")
        assert (record.token_id, record.resource_organization_id) == (None, None)
