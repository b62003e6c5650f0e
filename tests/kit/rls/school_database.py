"""A database with row-level security for the tests of other languages.

    python -m tests.kit.rls.school_database

Writes the URLs for the application's role to standard output, as a JSON object: `direct`, and those
behind PgBouncer by pool mode, if it is installed. Ends with standard input.
"""

import json
import sys
from contextlib import nullcontext

from sqlalchemy import make_url

from tests.kit.clusters import started_cluster
from tests.kit.pooler import pgbouncer, started_pooler
from tests.kit.rls.database import open_database
from tests.kit.rls.school import put_school


def main() -> None:
    with started_cluster() as cluster:
        engine = open_database(cluster.database())
        with engine.connect() as connection:
            put_school(connection)
        direct = make_url(engine.url).set(username="app")
        database = direct.render_as_string(hide_password=False)
        pooled = started_pooler(cluster, database, "app") if pgbouncer() else nullcontext({})
        with pooled as modes:
            urls = {
                name: url.set(drivername="postgresql").render_as_string(hide_password=False)
                for name, url in {"direct": direct, **modes}.items()
            }
            sys.stdout.write(json.dumps(urls) + "\n")
            sys.stdout.flush()
            sys.stdin.read()
        engine.dispose()


if __name__ == "__main__":
    main()
