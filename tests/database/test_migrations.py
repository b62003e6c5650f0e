"""The migrated schema is the one that the rooms' tables describe."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Engine, inspect

from pdp.audit import tables as audit_tables
from pdp.database import administration_table
from pdp.database.engine import begin_write, extended_timeouts, open_engine
from pdp.database.migrations import migrate, schema_problem
from pdp.database.migrations.upgrade import configuration, upgrade
from pdp.errors import DatabaseUnavailable
from pdp.facts.store import tables as facts_tables
from pdp.reviews import tables as review_tables

METADATAS = [
    facts_tables.metadata,
    audit_tables.metadata,
    administration_table.metadata,
    review_tables.metadata,
]


def test_the_migrated_schema_equals_the_declared_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "target_metadata": METADATAS}
        )
        assert compare_metadata(context, METADATAS) == []
    # Alembic does not compare primary keys and checks.
    inspector = inspect(engine)
    for metadata in METADATAS:
        for table in metadata.tables.values():
            key = inspector.get_pk_constraint(table.name)["constrained_columns"]
            assert key == [column.name for column in table.primary_key], table.name
            checks = {check["name"] for check in inspector.get_check_constraints(table.name)}
            declared = {c.name for c in table.constraints if isinstance(c, CheckConstraint)}
            assert checks == declared, table.name


def test_a_schema_of_another_version_is_recognized(engine: Engine, tmp_path: Path) -> None:
    assert schema_problem(engine) is None
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    head = ScriptDirectory.from_config(configuration()).get_current_head()
    assert schema_problem(engine) == f"its schema is 0001, and this version works on {head}"
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    assert "not there yet" in str(schema_problem(engine))
    missing = tmp_path / "missing.db"
    assert "not there yet" in str(schema_problem(open_engine(f"sqlite:///{missing}")))
    assert not missing.exists(), "looking makes no database"


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    with engine.connect() as connection:
        before = connection.exec_driver_sql("SELECT epoch, page_secret FROM state").all()
    migrate(engine)
    upgrade(engine)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT epoch, page_secret FROM state").all() == before


def test_what_a_newer_version_has_migrated_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RuntimeError, match="9999, of a newer version"):
        migrate(engine)


def test_processes_may_migrate_one_database_at_the_same_time(tmp_path: Path) -> None:
    failures: list[Exception] = []

    def run() -> None:
        try:
            migrate(f"sqlite:///{tmp_path / 'new.db'}")
        except Exception as error:  # noqa: BLE001  # whatever it is, the test shows it
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    engine = open_engine(f"sqlite:///{tmp_path / 'new.db'}")
    assert set(inspect(engine).get_table_names()) >= set(facts_tables.metadata.tables)
    engine.dispose()


def test_a_migration_may_take_longer_than_a_statement_of_the_service(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F35: building an index of a large decision log takes minutes and is not interrupted."""
    monkeypatch.setattr("pdp.database.postgresql.STATEMENT_SECONDS_MAX", 1)
    engine = open_engine(postgresql_url)
    with begin_write(engine) as connection, extended_timeouts(connection):
        connection.exec_driver_sql("SELECT pg_sleep(1.5)")
    # And the connection is as impatient as before.
    with pytest.raises(DatabaseUnavailable), begin_write(engine) as connection:
        connection.exec_driver_sql("SELECT pg_sleep(1.5)")
    engine.dispose()
