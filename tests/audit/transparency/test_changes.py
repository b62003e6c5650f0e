"""Trees over the log of changes: each change is proven, and none is changed or removed unseen."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from pdp.administration_records import Author, Source
from pdp.audit import Recorder, append_records
from pdp.audit.transparency import ChangesNotary, DamagedTreeError, Notary
from pdp.audit.transparency.changes import extend
from pdp.audit.transparency.notes import Signer
from pdp.audit.transparency.proofs import change_in_sql, find_trees, prove_record
from pdp.audit.transparency.verification import compare_with_sql, verify_tree
from pdp.database.engine import begin_write
from pdp.facts import Store, renew_epoch
from pdp.model import Permission
from tests.kit.audit.logs import ORIGIN
from tests.kit.audit.trees import NAME, audit, new_signer, run_tool
from tests.kit.waiting import eventually


class World:
    """A log of changes in SQL, and the trees that a server process keeps over it."""

    def __init__(self, directory: Path, engine: Engine) -> None:
        self.engine = engine
        self.directory = directory / "audit"
        self.signer: Signer = new_signer(directory / "keys")
        recorder = Recorder(self.directory, ORIGIN)
        self.notary = Notary(recorder, NAME, [self.signer], [], checkpoint_seconds=0.05)

    def change(self, *names: str) -> None:
        """One write of several changes."""
        with Store(self.engine).write(Author(Source.COMMAND, "operator")) as transaction:
            transaction.apply_many(Permission(name) for name in names)
        while append_records(self.engine):
            pass

    def cover(self) -> None:
        directory = self.directory / ORIGIN / "@administration"
        self.notary.cover(directory, lambda trees: extend(self.engine, trees))

    def problems(self) -> list[str]:
        found: list[str] = []
        for tree in find_trees([self.directory]):
            report = verify_tree(tree, [self.signer.key])
            found += report.problems
            compare_with_sql(self.engine, tree, report, found.append)
        return found


@pytest.fixture
def world(tmp_path: Path, engine: Engine) -> World:
    world = World(tmp_path, engine)
    world.change(*(f"course:edit{number}" for number in range(300)))
    world.cover()
    world.change("course:view", "course:list")
    world.cover()
    assert world.problems() == []
    return world


def test_a_third_party_verifies_the_proof_of_each_change(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = find_trees([world.directory])
    path = tmp_path / "change.tlog-proof"
    for revision, number in ((1, 0), (1, 150), (2, 1)):
        found = change_in_sql(world.engine, revision, number)
        assert found is not None
        path.write_text(prove_record(trees, found))
        status, output = run_tool("record", "--key", str(world.signer.key), str(path))
        assert (status, f'"revision":{revision}' in output) == (0, True)
    assert change_in_sql(world.engine, 3, 0) is None
    with Store(world.engine).write(Author(Source.COMMAND, "operator")) as transaction:
        transaction.apply_many([Permission("course:copy")])
    with pytest.raises(DamagedTreeError, match="the change has no place in the log yet"):
        change_in_sql(world.engine, 3, 0)
    assert audit(world.directory, [world.signer.key]) == 0
    assert "302 administration records" in capsys.readouterr().out


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE administration_records SET record = replace(record, 'operator', 'x')",
        "DELETE FROM administration_records WHERE number = 20",
        "DELETE FROM administration_places WHERE number = 20",
        "DELETE FROM administration_places WHERE revision > 1",
    ],
)
def test_a_change_that_was_edited_or_deleted_is_found(world: World, statement: str) -> None:
    with begin_write(world.engine) as connection:
        assert connection.execute(text(statement)).rowcount
    assert world.problems()


def test_each_epoch_has_a_tree(world: World) -> None:
    renew_epoch(world.engine)
    world.change("course:delete")
    world.cover()
    assert len(find_trees([world.directory])) == 2
    assert world.problems() == []


def test_a_server_covers_changes_in_the_background(world: World) -> None:
    shutil.rmtree(world.directory)
    changes = ChangesNotary(world.engine, world.notary, world.directory / ORIGIN)
    failing = changes.gauges()["pdp_audit_changes_tree_failing"][1]
    world.directory.write_text("no directory")
    changes.start()
    world.change("course:delete")
    eventually(lambda: failing() == 1)
    world.directory.unlink()
    eventually(lambda: failing() == 0)
    eventually(lambda: [t for t in find_trees([world.directory]) if t.end == 303])
    changes.stop()
    assert world.problems() == []
