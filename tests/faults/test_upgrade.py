"""A migration while processes of the version before it serve: they go on, before and after."""

import re
import subprocess
import time
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from pdpapi.v1.administration_service_pb2 import (
    ApplyRequest,
    CreateGrantRequest,
    CreateResourceTypeRequest,
    DeleteGrantRequest,
    Grant,
    ResourceType,
)
from sqlalchemy import event

from pdp.database.engine import begin_read, begin_write, open_engine
from pdp.database.migrations.upgrade import configuration
from tests.kit.clusters import administer
from tests.kit.faults.load import ask_once, asking, question
from tests.kit.faults.table import FAULTS, ROOT
from tests.kit.school import POLICY
from tests.kit.server import PDP, ServerProcess, stubs_on
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

BEFORE = "146bfa4"
BEFORE_SCHEMA = "0004"
"""The last commit whose schema that was."""


@pytest.fixture(scope="module")
def version_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the version whose schema is the one before."""
    directory = tmp_path_factory.mktemp("before")
    archive = subprocess.run(
        ["git", "archive", BEFORE, "pdp", "clients/python"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archive.returncode != 0:
        pytest.skip(f"the history does not reach back to {BEFORE}: a shallow clone?")
    subprocess.run(["tar", "x"], cwd=directory, input=archive.stdout, check=True)
    return directory


def server_of(directory: Path, url: str, sources: Path | None = None) -> ServerProcess:
    """A server of the present version, or of the sources that are given."""
    directory.mkdir()
    server = ServerProcess(directory, {"DATABASE_URL": url, "POLL_SECONDS": "0.1"})
    if sources is not None:
        server.program = PDP
        server.environment["PYTHONPATH"] = f"{sources}:{sources / 'clients' / 'python'}"
    return server


@pytest.fixture
def empty_url(postgresql_url: str) -> str:
    """The URL of a database without any tables."""
    administer(postgresql_url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return postgresql_url


def test_the_version_before_serves_and_writes_while_and_after_the_schema_is_migrated(
    version_before: Path, tmp_path: Path, empty_url: str
) -> None:
    fault = FAULTS["F35"]
    old = server_of(tmp_path / "old", empty_url, version_before)
    new = server_of(tmp_path / "new", empty_url)
    request = question(permission="course:edit")
    grant = CreateGrantRequest(grant=Grant(id="g", role="ADMIN", user_id="user_sam"))
    resource_type = CreateResourceTypeRequest(
        resource_type=ResourceType(name="course", stored_required=True)
    )
    try:
        assert old.pdp("migrate").returncode == 0
        assert schema_of(empty_url) == BEFORE_SCHEMA
        old.start()
        new.start(ready=False)
        with old.channel() as old_channel, new.channel() as new_channel:
            of_old, of_new = stubs_on(old_channel), stubs_on(new_channel)
            # The version before knows no resource types.
            policy = POLICY.replace("resource_types:\n  lesson: {stored: required}\n", "")
            assert "resource_types" not in policy
            of_old.administration.Apply(ApplyRequest(document=policy), timeout=20)
            with asking(of_old, question()) as log:
                eventually(lambda: len(log.allows()) > 20)
                # The new version does not guess: it waits, and says for what.
                eventually(lambda: "pdp migrate" in new.log(), seconds=20)
                error = ask_once(of_new, question()).error
                assert error is not None
                fault.expect(error)
                assert new.http("/readyz")[0] == 503
                assert new.pdp("migrate").returncode == 0
                assert schema_of(empty_url) != BEFORE_SCHEMA
                migrated_at, since = time.monotonic(), Stopwatch()
                new.wait_until_ready()
                assert since.seconds < fault.healed_within()
                # Each sees the writes of the other.
                of_old.administration.CreateGrant(grant, timeout=20)
                eventually(lambda: ask_once(of_new, request).allowed)
                eventually(lambda: ask_once(of_old, request).allowed)
                of_new.administration.CreateResourceType(resource_type, timeout=20)
                of_new.administration.DeleteGrant(DeleteGrantRequest(id="g"), timeout=20)
                eventually(lambda: not ask_once(of_old, request).allowed)
                eventually(lambda: len(log.allows(migrated_at)) > 20)
            assert not log.errors()
            assert len(log.allows()) == len(log.asked)
    finally:
        for server in (old, new):
            if server.process is not None:
                server.stop()


def schema_of(url: str) -> str:
    engine = open_engine(url)
    with begin_read(engine) as connection:
        found: str = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    engine.dispose()
    return found


ADDS = re.compile(
    r"CREATE (TABLE|(UNIQUE )?INDEX) |DROP INDEX |ALTER TABLE \w+ ADD COLUMN "
    r"|UPDATE alembic_version |SELECT "
)
"""The version before needs no index that a wider one replaces."""


def test_the_newest_step_of_the_schema_only_adds_what_may_be_left_out(tmp_path: Path) -> None:
    """Expand, then contract: for a history that does not reach back to the version before."""
    assert "F35" in FAULTS
    engine = open_engine(f"sqlite:///{tmp_path / 'pdp.db'}")
    config = configuration()
    statements: list[str] = []

    def step(revision: str) -> None:
        with begin_write(engine) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)

    head = ScriptDirectory.from_config(config).get_revision("head")
    step(str(head.down_revision))
    event.listen(engine, "before_cursor_execute", lambda *said: statements.append(said[2].strip()))
    step("head")
    engine.dispose()
    ours = [statement for statement in statements if not statement.startswith(("PRAGMA", "BEGIN"))]
    assert any(text.startswith(("ALTER TABLE", "CREATE ")) for text in ours)
    created = set(re.findall(r"^CREATE TABLE (\w+)", "\n".join(ours), re.MULTILINE))
    for statement in ours:
        filled = re.match(r"INSERT INTO (\w+) ", statement)  # a table that the old does not know
        assert ADDS.match(statement) or (filled and filled[1] in created), statement
        if "ADD COLUMN" in statement and "NOT NULL" in statement:
            assert " DEFAULT " in statement
