"""One PostgreSQL database for test after test, as it was before the first: emptied, not replaced.

To make and to drop a database takes a server 100 ms; to empty one 10. Each test gets another name,
so that nothing that an earlier one left running finds it. A test that has changed more than rows
(tables, triggers, functions, settings) leaves a database that is dropped.
"""

import uuid

import psycopg
from sqlalchemy import make_url

from tests.kit.clusters import administer

_DISCONNECT = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname = 'public' AND pg_relation_size(c.oid) > 0
"""
_OURS = "IN (SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$')"
_RELATIONS = f"IN (SELECT oid FROM pg_class WHERE relnamespace {_OURS})"
_SHAPE = f"""
SELECT md5(string_agg(line, E'\n' ORDER BY line)) FROM (
    SELECT n::text FROM pg_namespace n WHERE oid {_OURS}
    UNION ALL SELECT t::text FROM pg_trigger t WHERE tgrelid {_RELATIONS}
    UNION ALL SELECT p::text FROM pg_proc p WHERE pronamespace {_OURS}
    UNION ALL SELECT s::text FROM pg_constraint s WHERE connamespace {_OURS}
    UNION ALL SELECT i::text FROM pg_index i WHERE indrelid {_RELATIONS}
    UNION ALL SELECT l::text FROM pg_policy l WHERE polrelid {_RELATIONS}
    UNION ALL SELECT q::text FROM pg_sequence q
    UNION ALL SELECT a::text FROM pg_attrdef a WHERE adrelid {_RELATIONS}
    UNION ALL SELECT r::text FROM pg_db_role_setting r
    UNION ALL SELECT (oid, relname, relowner, relkind, relacl, reloptions, relrowsecurity)::text
        FROM pg_class WHERE relnamespace {_OURS}
    UNION ALL SELECT (attrelid, attname, atttypid, atttypmod, attnotnull, attidentity, attacl,
            attisdropped)::text
        FROM pg_attribute WHERE attrelid {_RELATIONS} AND attnum > 0
    UNION ALL SELECT (oid, datdba, datallowconn, datconnlimit, datacl)::text
        FROM pg_database WHERE datname = current_database()
) AS shape(line)
"""


class EmptiedDatabase:
    """A copy of a migrated, empty database of a server."""

    def __init__(self, server: str, template: str) -> None:
        self._server = server
        self._template = template
        self._name: str | None = None
        self._shape: object = None
        self._rows: dict[str, bytes] = {}

    def url(self) -> str:
        """The database with the rows of its template, under a new name."""
        if self._name is not None and not self._emptied():
            self.drop()
        if self._name is None:
            self._make()
        return self._url()

    def drop(self) -> None:
        """Drops it, if there is one."""
        if self._name is not None:
            administer(self._server, f'DROP DATABASE IF EXISTS "{self._name}" WITH (FORCE)')
            self._name = None

    def _url(self, driver: str | None = None) -> str:
        url = make_url(self._server).set(database=self._name)
        return (url.set(drivername=driver) if driver else url).render_as_string(hide_password=False)

    def _make(self) -> None:
        self._name = _new_name()
        administer(self._server, f'CREATE DATABASE "{self._name}" TEMPLATE "{self._template}"')
        with self._connected() as connection:
            self._shape = connection.execute(_SHAPE).fetchone()
            self._rows = {}
            for (table,) in connection.execute(_TABLES).fetchall():
                with connection.cursor().copy(f"COPY {table} TO STDOUT") as rows:
                    self._rows[table] = b"".join(bytes(part) for part in rows)

    def _emptied(self) -> bool:
        """Whether it is as it was, but for its name."""
        try:
            with self._connected() as connection:
                connection.execute(_DISCONNECT)
                if connection.execute(_SHAPE).fetchone() != self._shape:
                    return False
                tables = [table for (table,) in connection.execute(_TABLES).fetchall()]
                if tables:
                    truncate = f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE"
                    connection.execute(truncate)
                for table, rows in self._rows.items():
                    with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                        copy.write(rows)
            name = _new_name()
            administer(self._server, f'ALTER DATABASE "{self._name}" RENAME TO "{name}"')
            self._name = name
        except psycopg.Error:
            return False
        return True

    def _connected(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(
            self._url("postgresql"), autocommit=True, options="-c lock_timeout=5s"
        )


def _new_name() -> str:
    return f"pdp_test_{uuid.uuid4().hex}"
