"""Commands say which database they use; those that only read make none."""

from pathlib import Path

import pytest
from sqlalchemy import inspect, make_url

from pdp.database.engine import database_name, open_engine
from tests.kit.clusters import administer
from tests.kit.ports import free_port
from tests.kit.server import ServerProcess

READING = {
    "export": ("export",),
    "apply --dry-run": ("apply", "--dry-run", "-"),
    "audit verify": ("audit", "verify"),
    "clerk sync --dry-run": ("clerk", "sync", "--dry-run"),
    "push-claims --dry-run": ("clerk", "push-claims", "--dry-run"),
}


@pytest.mark.parametrize("command", READING.values(), ids=READING)
def test_a_command_that_reads_makes_no_file(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = ServerProcess(tmp_path).pdp(*command, stdin="roles: {}\n")
    assert done.returncode == 2
    assert f"database sqlite:///{tmp_path}/pdp.db" in done.stderr
    assert "the file is not there yet; `pdp migrate` makes it" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["issuer.pem"]


def test_a_command_that_reads_makes_no_tables(tmp_path: Path, postgresql_server: str) -> None:
    name = f"pdp_empty_{free_port()}"
    administer(postgresql_server, f'CREATE DATABASE "{name}"')
    url = make_url(postgresql_server).set(database=name).render_as_string(hide_password=False)
    try:
        server = ServerProcess(tmp_path, {"DATABASE_URL": url})
        for command in list(READING.values())[:2]:
            done = server.pdp(*command, stdin="roles: {}\n")
            assert done.returncode == 2
            assert "`pdp migrate` makes it" in done.stderr
        engine = open_engine(url)
        assert inspect(engine).get_table_names() == []
        engine.dispose()
    finally:
        administer(postgresql_server, f'DROP DATABASE "{name}" WITH (FORCE)')


def test_commands_that_write_name_the_database_and_a_document_stays_a_document(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path)
    named = f"pdp: database sqlite:///{tmp_path}/pdp.db"
    for command in (("migrate",), ("apply", "-"), ("database", "renew-epoch"), ("export",)):
        done = server.pdp(*command, stdin="roles: {READER: {}}\n")
        assert done.returncode == 0, done.stderr
        assert named in done.stderr.splitlines()
    assert done.stdout.lstrip().startswith("version: 1\n"), done.stdout[:80]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://pdp:s3cret@db.internal:5433/pdp", "postgresql://pdp@db.internal:5433/pdp"),
        ("postgres://db/pdp?password=s3cret&sslpassword=s3cret", "postgresql://db/pdp"),
        ("postgresql://p:s3cret@/x?host=a:1&host=b:2", "postgresql://p@a:1,b:2/x"),
        ("postgresql://p:s3cret%40@/x?host=/run/pg", "postgresql://p@/run/pg/x"),
        ("sqlite:////var/lib/pdp.db", "sqlite:////var/lib/pdp.db"),
    ],
)
def test_the_name_of_a_database_holds_no_secret(url: str, name: str) -> None:
    assert database_name(url) == name
