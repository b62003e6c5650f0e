"""Archives: records leave SQL, proofs stay, and holds keep what they name."""

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from pdp.audit import DecisionFilter, Recorder, Shipper, SqlDestination
from pdp.audit.accounting import account
from pdp.audit.retention import Hold, list_holds
from pdp.audit.transparency import DamagedTreeError
from pdp.audit.transparency.archives import ArchiveReport, archive
from pdp.audit.transparency.notes import Signer
from pdp.audit.transparency.proofs import (
    find_trees,
    prove_consistency,
    prove_record,
    records_in_sql,
    records_on_disk,
)
from pdp.audit.transparency.verification import compare_with_sql, verify_tree
from pdp.audit.verify_sql import verify_sql
from pdp.audit.writer import LogWriter
from pdp.database.engine import begin_write
from pdp.errors import AlreadyExists, InvalidRequest, NotFound
from pdp.model import Actor
from tests.kit.audit.holds import place_hold, release_hold
from tests.kit.audit.logs import ORIGIN, write_log
from tests.kit.audit.records import decision_record
from tests.kit.audit.shipped import KeepAll, shipped_count, shipped_ids
from tests.kit.audit.trees import audit, new_signer, only_tree, run_tool, sign_trees
from tests.kit.sqlite import on_sqlite
from tests.kit.waiting import run

OLD, NEW = 1_700_000_000.0, 1_800_000_000.0


class Evidence:
    """A log in SQL, and its tree."""

    def __init__(self, directory: Path, engine: Engine) -> None:
        self.directory = directory
        self.engine = engine
        self.log = directory / "audit"
        self.out = directory / "archive"
        self.signer: Signer = new_signer(directory / "keys")
        self.old: list[str] = []
        self.new: list[str] = []

    def fill(self) -> None:
        """100 old records, 3 old equal ones, and 50 new records."""
        old, new = write_records(self.log)
        self.old, self.new = self.old + old, self.new + new
        self.ship()

    def ship(self, *, delete: bool = False) -> None:
        """Ships everything. While segments are there, a later process continues the log."""
        sign_trees(self.log / ORIGIN, [self.signer])
        notary = None if delete else KeepAll()
        Shipper(self.log, SqlDestination(self.engine), notary=notary).ship()

    def archive(self, before: float = NEW, *, remove: bool = True) -> ArchiveReport:
        tree = only_tree(self.log / ORIGIN)
        return archive(self.engine, tree, self.out, before, [self.signer], remove=remove)

    def problems(self) -> list[str]:
        """What `pdp audit verify` would report of SQL."""
        found: list[str] = []
        verify_sql(self.engine, found.append, {})
        tree = only_tree(self.log / ORIGIN)
        report = verify_tree(tree, [self.signer.key])
        found += report.problems
        compare_with_sql(self.engine, tree, report, found.append)
        return found


def write_records(log: Path) -> tuple[list[str], list[str]]:
    """The ids of the old and of the new records."""
    old = write_log(log, 100, decided_at=OLD)
    recorder = Recorder(log, ORIGIN)
    recorder.start()
    for _ in range(3):
        [found] = run(recorder.record([decision_record(token_id="equal", decided_at=OLD)]))
    recorder.stop()
    return [*old, found], write_log(log, 50, decided_at=NEW)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    """The log of `write_records`, to be copied, and what that returned."""
    log = tmp_path_factory.mktemp("written") / "audit"
    return log, *write_records(log)


@pytest.fixture
def evidence(
    tmp_path: Path, engine: Engine, written: tuple[Path, list[str], list[str]]
) -> Evidence:
    evidence = Evidence(tmp_path, engine)
    log, evidence.old, evidence.new = written
    shutil.copytree(log, evidence.log)
    evidence.ship()
    return evidence


def test_old_records_move_from_sql_into_an_archive_that_verifies_alone(
    evidence: Evidence,
) -> None:
    assert evidence.problems() == []
    assert evidence.archive() == ArchiveReport(101, 0)
    assert sorted(shipped_ids(evidence.engine)) == sorted(evidence.new)
    assert evidence.problems() == []
    [path] = evidence.out.rglob("*.jsonl.gz")
    assert len(gzip.decompress(path.read_bytes()).splitlines()) == 101
    assert audit(evidence.out, [evidence.signer.key]) == 0
    assert evidence.archive() == ArchiveReport(0, 0)


def test_a_later_archive_continues_the_first(evidence: Evidence) -> None:
    evidence.archive()
    evidence.archive(NEW + 1)
    assert shipped_count(evidence.engine) == 0
    assert evidence.problems() == []
    assert len(list(evidence.out.rglob("*.jsonl.gz"))) == 2
    assert audit(evidence.out, [evidence.signer.key], complete=True) == 0
    write_log(evidence.log, 5, decided_at=NEW)
    evidence.ship()
    assert evidence.problems() == []
    evidence.archive(NEW + 1)
    assert audit(evidence.out, [evidence.signer.key], complete=True) == 0


def test_an_export_leaves_the_records_in_sql(evidence: Evidence) -> None:
    assert evidence.archive(NEW + 1, remove=False).records == 151
    assert shipped_count(evidence.engine) == 151
    assert audit(evidence.out, [evidence.signer.key], complete=True) == 0


def test_every_decision_is_accounted_for_before_and_after(evidence: Evidence) -> None:
    for _ in range(2):
        [found] = account(evidence.engine)
        assert (found.records, found.recorded, found.decisions) == (151, 153, 153)
        evidence.archive()
    report = verify_tree(only_tree(evidence.log / ORIGIN), [])
    assert report.decisions == 153


def test_a_hold_keeps_its_records_in_sql_until_it_is_released(
    tmp_path: Path, engine: Engine
) -> None:
    evidence = Evidence(tmp_path, engine)
    held = write_log(evidence.log, 3, decided_at=OLD, actor=Actor("user_held", "sess_1"))
    evidence.fill()
    place_hold(engine, Hold("case-7", DecisionFilter(user_id="user_held"), NEW))
    assert evidence.archive() == ArchiveReport(104, 3)
    assert sorted(shipped_ids(engine)) == sorted(held + evidence.new)
    assert evidence.problems() == []
    [found] = [found for found in account(engine) if found.log.origin == ORIGIN]
    assert found.decisions == 156
    assert [hold.name for hold in list_holds(engine)] == ["case-7"]
    with begin_write(engine) as connection:
        connection.execute(
            text(
                "UPDATE audit_records SET record = replace(record, 'course', 'curses')"
                " WHERE decision_id = :id"
            ),
            {"id": held[1]},
        )
    assert any("is not what the tree says" in problem for problem in evidence.problems())
    release_hold(engine, "case-7")
    with pytest.raises(NotFound):
        release_hold(engine, "case-7")


def test_a_hold_has_one_name_and_names_a_part_of_the_log(engine: Engine) -> None:
    place_hold(engine, Hold("a", DecisionFilter(caller="courses"), NEW))
    with pytest.raises(AlreadyExists):
        place_hold(engine, Hold("a", DecisionFilter(caller="others"), NEW))
    with pytest.raises(InvalidRequest):
        place_hold(engine, Hold("b", DecisionFilter(), NEW))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_records SET record = replace(record, 'course', 'curses') WHERE position = 40",
        "DELETE FROM audit_records WHERE position = 40",
        "UPDATE audit_records SET position = 9000 WHERE position = 40",
    ],
)
def test_rows_that_are_not_what_the_tree_says_are_not_archived(
    evidence: Evidence, statement: str
) -> None:
    with begin_write(evidence.engine) as connection:
        connection.execute(text(statement))
    count = shipped_count(evidence.engine)
    with pytest.raises(DamagedTreeError, match="40"):
        evidence.archive()
    assert shipped_count(evidence.engine) == count
    assert evidence.problems()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "UPDATE audit_records SET occurrences = 9 WHERE occurrences = 3",
            "counts 9 decisions, the tree 3",
        ),
        (
            "UPDATE audit_gaps SET dropped = 1 WHERE dropped = 7",
            "(a gap) is not what the tree says",
        ),
        ("DELETE FROM audit_records WHERE position >= 100", "are not in the database"),
        ("DELETE FROM audit_shipping", "the database does not know this log"),
    ],
)
def test_the_tree_shows_what_the_chain_in_sql_cannot(
    tmp_path: Path, engine: Engine, statement: str, problem: str
) -> None:
    evidence = Evidence(tmp_path, engine)
    evidence.fill()
    writer = LogWriter(evidence.log / ORIGIN, ORIGIN, lambda: NEW)
    writer.open()
    writer.append((), 7)
    writer.close()
    evidence.ship(delete=True)
    with begin_write(engine) as connection:
        connection.execute(text(statement))
    assert any(problem in found for found in evidence.problems())


# --- proofs ---------------------------------------------------------------------------------------
# They are of files; the first test takes the record from either database.


def test_a_record_is_proven_from_sql_and_from_the_archive(
    evidence: Evidence, tmp_path: Path
) -> None:
    key = str(evidence.signer.key)
    path = tmp_path / "record.tlog-proof"
    wanted = evidence.old[42]
    for where in ("sql", "archive"):
        directories = [evidence.log] if where == "sql" else [evidence.out]
        trees = find_trees(directories)
        found = (
            records_in_sql(evidence.engine, wanted)
            if where == "sql"
            else list(records_on_disk(directories, trees, wanted))
        )
        path.write_text(prove_record(trees, found[0]))
        status, output = run_tool("record", "--key", key, str(path))
        assert status == 0, output
        assert wanted in output
        evidence.archive()
    assert records_in_sql(evidence.engine, wanted) == []


@on_sqlite
def test_a_changed_proof_or_record_is_refused(evidence: Evidence, tmp_path: Path) -> None:
    key, path = str(evidence.signer.key), tmp_path / "record.tlog-proof"
    trees = find_trees([evidence.log])
    [found] = records_in_sql(evidence.engine, evidence.new[3])
    proof = prove_record(trees, found)
    lines = proof.split("\n")
    other = prove_record(trees, records_in_sql(evidence.engine, evidence.new[4])[0]).split("\n")
    for changed in (
        [lines[0], other[1], *lines[2:]],
        [*lines[:2], other[2], *lines[3:]],
        [*lines[:3], *lines[4:]],
        [*lines[:3], lines[4], lines[3], *lines[5:]],
        ["c2sp.org/tlog-proof@v2", *lines[1:]],
        [*lines[:2], "index 007", *lines[3:]],
        lines[:8],
        [],
    ):
        path.write_text("\n".join(changed))
        assert run_tool("record", "--key", key, str(path))[0] == 1, changed
    path.write_text(proof)
    assert run_tool("record", "--key", key, str(path))[0] == 0
    another = new_signer(tmp_path, file="another.pem")
    assert run_tool("record", "--key", str(another.key), str(path))[0] == 1


@on_sqlite
def test_a_record_is_proven_for_the_checkpoint_that_an_auditor_has(
    evidence: Evidence, tmp_path: Path
) -> None:
    key, mine = str(evidence.signer.key), tmp_path / "mine.note"
    mine.write_text(only_tree(evidence.log / ORIGIN).note)
    write_log(evidence.log, 20, decided_at=NEW)
    evidence.ship()
    trees = find_trees([evidence.log])
    [found] = records_in_sql(evidence.engine, evidence.new[3])
    path = tmp_path / "record.tlog-proof"
    path.write_text(prove_record(trees, found))
    assert run_tool("record", "--key", key, "--checkpoint", str(mine), str(path))[0] == 1
    path.write_text(prove_record(trees, found, mine.read_text()))
    assert run_tool("record", "--key", key, "--checkpoint", str(mine), str(path))[0] == 0


@on_sqlite
def test_any_two_checkpoints_are_shown_to_be_of_one_history(
    evidence: Evidence, tmp_path: Path
) -> None:
    key = str(evidence.signer.key)
    notes = [only_tree(evidence.log / ORIGIN).note]
    for size in (1, 150, 300):
        write_log(evidence.log, size, decided_at=NEW)
        evidence.ship()
        notes.append(only_tree(evidence.log / ORIGIN).note)
    trees = find_trees([evidence.log])
    old, proof = tmp_path / "old.note", tmp_path / "proof"
    for first, note in enumerate(notes):
        old.write_text(note)
        for newer in notes[first:]:
            proof.write_text(prove_consistency(trees, note, newer))
            status, output = run_tool("consistency", "--key", key, str(old), str(proof))
            assert (status, "continues size" in output) == (0, True), output
    # The proof for one older checkpoint is none for another.
    old.write_text(notes[1])
    proof.write_text(prove_consistency(trees, notes[0], notes[3]))
    assert run_tool("consistency", "--key", key, str(old), str(proof))[0] == 1


@on_sqlite
def test_nothing_is_proven_for_a_checkpoint_of_another_history(
    evidence: Evidence, tmp_path: Path
) -> None:
    other = Evidence(tmp_path / "other", evidence.engine)
    write_log(other.log, 200)
    sign_trees(other.log / ORIGIN, [evidence.signer])
    foreign = only_tree(other.log / ORIGIN).note
    trees = find_trees([evidence.log])
    with pytest.raises(DamagedTreeError):
        prove_consistency(trees, foreign)
    [found] = records_in_sql(evidence.engine, evidence.new[3])
    with pytest.raises(DamagedTreeError):
        prove_record(trees, found, foreign)
    with pytest.raises(DamagedTreeError, match="changed"):
        prove_record(trees, replace(found, payload=b"{}"))
