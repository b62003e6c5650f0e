"""Row-level security for the policy and the tables that a database has now."""

from pdp.facts import Store
from pdp.facts.store.loader import read_policy
from pdp.rls.catalog import read_catalog
from pdp.rls.config import Config
from pdp.rls.migration import Migration, make_migration
from pdp.rls.verify import Problem, problems


def generate(store: Store, config: Config) -> Migration:
    """Makes the migration.

    Raises:
        FilterUnsupported, ValueError: as `make_migration` and `read_catalog`.
        DatabaseUnavailable: the database does not answer.
    """
    with store.read() as reader:
        policy = read_policy(reader)
        return make_migration(policy, config, read_catalog(reader.connection, config))


def verify(store: Store, config: Config) -> list[Problem]:
    """Compares the database with what would be generated now.

    Raises:
        FilterUnsupported, ValueError, DatabaseUnavailable: as `generate`.
    """
    with store.read() as reader:
        policy = read_policy(reader)
        catalog = read_catalog(reader.connection, config)
        expected = make_migration(policy, config, catalog)
        return list(problems(reader.connection, config, catalog, expected))
