"""A database with row-level security for the tests of other languages.

    python -m tests.kit.rls.school_database

Writes the URL for the application's role to standard output. Ends with standard input.
"""

import sys

from sqlalchemy import make_url

from tests.kit.clusters import started_cluster
from tests.kit.rls.database import open_database
from tests.kit.rls.school import put_school


def main() -> None:
    with started_cluster() as cluster:
        engine = open_database(cluster.database())
        with engine.connect() as connection:
            put_school(connection)
        url = make_url(engine.url).set(drivername="postgresql", username="app")
        sys.stdout.write(url.render_as_string(hide_password=False) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
        engine.dispose()


if __name__ == "__main__":
    main()
