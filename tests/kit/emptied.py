"""One PostgreSQL database for test after test, as it was before the first: emptied, not replaced.

To make and to drop a database takes a server 100 ms; to empty one 20, most of which is the new
connection: its process has yet to read the catalogs. Each test gets another name, so that nothing
that an earlier one left running finds it. A test that has changed more than rows (tables, triggers,
functions, settings) leaves a database that is dropped.
"""

import time
import uuid

import psycopg
from sqlalchemy import make_url

from tests.kit.clusters import administer

Connection = psycopg.Connection[tuple[object, ...]]

_DISCONNECT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s
"""
_DATABASE = """
SELECT datdba, datallowconn, datconnlimit, datacl::text FROM pg_database WHERE datname = %s
"""
# Objects that are not PostgreSQL's own begin with this number.
_OURS = ">= 16384"
_RELATIONS = f"oid {_OURS} AND relpersistence <> 't' AND relnamespace <> 'pg_toast'::regnamespace"
# Whatever changes a row of a catalog gives it a higher xmin.
_CATALOGS = " UNION ALL ".join(
    f"SELECT ROW(count(*), max(xmin::text::bigint))::text FROM {catalog} WHERE {ours}"
    for catalog, ours in {
        "pg_namespace": f"oid {_OURS} AND nspname !~ '^pg_'",
        "pg_trigger": f"oid {_OURS}",
        "pg_proc": f"oid {_OURS}",
        "pg_constraint": f"oid {_OURS}",
        "pg_index": f"indexrelid {_OURS}",
        "pg_policy": f"oid {_OURS}",
        "pg_attrdef": f"oid {_OURS}",
        "pg_attribute": f"attrelid {_OURS}",
        "pg_db_role_setting": "true",
    }.items()
)
# Not pg_class as a whole: to fill or to empty a table changes its rows too.
_SHAPE = f"""
{_CATALOGS} UNION ALL
SELECT ROW(
    md5(string_agg((oid, relname, relowner, relkind, relacl, reloptions, relrowsecurity)::text,
        '' ORDER BY oid)),
    count(pg_sequence_last_value(oid)) FILTER (WHERE relkind = 'S')
)::text FROM pg_class WHERE {_RELATIONS}
"""
# Rows that are deleted leave their pages behind. A plan takes no notice of so few pages in a table
# without statistics.
_TABLES = f"""
SELECT relname, pg_relation_size(oid) > 65536 OR reltuples >= 0 FROM pg_class
WHERE relkind = 'r' AND {_RELATIONS} AND pg_relation_size(oid) > 0
"""


class EmptiedDatabase:
    """A copy of a migrated, empty database of a server."""

    def __init__(self, server: str, template: str) -> None:
        self._server = server
        self._template = template
        self._name: str | None = None
        self._shape: object = None
        self._rows: dict[str, bytes] = {}
        self._connection: Connection | None = None

    def url(self) -> str:
        """The database with the rows of its template, under a new name."""
        if self._name is not None and not self._emptied():
            self.drop()
        if self._name is None:
            self._make()
        return self._url()

    def drop(self) -> None:
        """Drops it, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._name is not None:
            administer(self._server, f'DROP DATABASE IF EXISTS "{self._name}" WITH (FORCE)')
            self._name = None

    def _url(self, driver: str | None = None) -> str:
        url = make_url(self._server).set(database=self._name)
        return (url.set(drivername=driver) if driver else url).render_as_string(hide_password=False)

    def _make(self) -> None:
        self._name = _new_name()
        administer(self._server, f'CREATE DATABASE "{self._name}" TEMPLATE "{self._template}"')
        plain = make_url(self._server).set(drivername="postgresql")
        self._connection = psycopg.connect(
            plain.render_as_string(hide_password=False), autocommit=True
        )
        with self._connected() as connection:
            self._shape = self._shape_of(self._connection, connection)
            self._rows = {}
            for table, _ in connection.execute(_TABLES).fetchall():
                with connection.cursor().copy(f"COPY {table} TO STDOUT") as rows:
                    self._rows[table] = b"".join(bytes(part) for part in rows)

    def _emptied(self) -> bool:
        """Whether it is as it was, but for its name."""
        server = self._connection
        assert server is not None
        try:
            self._disconnect(server)
            with self._connected() as connection:
                if self._shape_of(server, connection) != self._shape:
                    return False
                tables = connection.execute(_TABLES).fetchall()
                large = [table for table, is_large in tables if is_large]
                small = [table for table, is_large in tables if not is_large]
                if large:
                    connection.execute(f"TRUNCATE {', '.join(large)} CASCADE")
                if small:
                    # In one statement, at whose end references between them are checked.
                    deletes = (f"d_{table} AS (DELETE FROM {table})" for table in small)
                    connection.execute(f"WITH {', '.join(deletes)} SELECT")
                for table, rows in self._rows.items():
                    with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                        copy.write(rows)
            self._disconnect(server)
            name = _new_name()
            server.execute(f'ALTER DATABASE "{self._name}" RENAME TO "{name}"')
            self._name = name
        except psycopg.Error:
            return False
        return True

    def _disconnect(self, server: Connection) -> None:
        """Ends what is connected, without the steps of 100 ms in which the server waits."""
        until = time.monotonic() + 5
        while server.execute(_DISCONNECT, (self._name,)).fetchall() and time.monotonic() < until:
            time.sleep(0.005)

    def _shape_of(self, server: Connection, connection: Connection) -> object:
        settings = server.execute(_DATABASE, (self._name,)).fetchone()
        return settings, connection.execute(_SHAPE).fetchall()

    def _connected(self) -> Connection:
        return psycopg.connect(
            self._url("postgresql"), autocommit=True, options="-c lock_timeout=5s"
        )


def _new_name() -> str:
    return f"pdp_test_{uuid.uuid4().hex}"
