"""Applies what a database lacks, with Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from pdp.database.engine import begin_write, extended_timeouts


def upgrade(engine: Engine) -> None:
    """Applies the revisions that the database lacks; see `pdp.database.migrations.migrate`.

    Raises:
        DatabaseUnavailable: The database cannot be reached or does not answer in time.
        RuntimeError: A newer version of this program has migrated it.
    """
    config = configuration()
    with begin_write(engine) as connection:
        if connection.dialect.name == "postgresql":
            # SQLite's write lock is held already.
            connection.execute(text("SELECT pg_advisory_xact_lock(7165432198)"))
        found = MigrationContext.configure(connection).get_current_revision()
        scripts = ScriptDirectory.from_config(config)
        if found not in {None, *(script.revision for script in scripts.walk_revisions())}:
            raise RuntimeError(
                f"the database's schema is {found}, of a newer version than this one, which works "
                f"on {scripts.get_current_head()}"
            )
        config.attributes["connection"] = connection
        with extended_timeouts(connection):
            command.upgrade(config, "head")


def configuration() -> Config:
    """Where Alembic finds the revisions; it expects the connection in `attributes`."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
