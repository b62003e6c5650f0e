"""`pdp rls generate` and `verify`, as an operator runs them, and what `verify` finds."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, make_url, text

from pdp.clock import wall_clock
from pdp.doctor.checks import examine
from pdp.facts import Store
from pdp.model import Effect, Entity, Grant, Permission, Role, Rule, ToOrganizationRole
from pdp.rls.catalog import PDP_TABLES
from pdp.rls.config import Config, parse_config
from pdp.rls.deployment import generate, verify
from pdp.settings import Settings
from tests.kit import prefork
from tests.kit.clusters import Cluster
from tests.kit.rls.database import CONFIG, LESSONS, execute, open_database
from tests.kit.tokens import ISSUER, signing_key

POLICY: list[Entity] = [
    *(Permission(name) for name in ("lesson:view", "lesson:edit")),
    Role("A"),
    Rule("view", "A", Effect.ALLOW, "*", "resource.attributes.owner == actor.id"),
    Rule("never", "A", Effect.DENY, "lesson:edit", "resource.attributes.open == false"),
    Grant("g", "A", ToOrganizationRole("org:member")),
]


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[Engine]:
    """A database whose policy is stored in it, with the migration applied."""
    engine = open_database(cluster.database())
    with Store(engine).write() as transaction:
        for entity in POLICY:
            transaction.insert(entity)
    with engine.connect() as connection:
        execute(connection, generate(Store(engine), LESSONS).text)
    yield engine
    assert problems(engine) == []  # each test has undone what it did
    engine.dispose()


def problems(engine: Engine, config: Config = LESSONS) -> list[str]:
    return [f"{one.subject}: {one.message}" for one in verify(Store(engine), config)]


@contextmanager
def done(engine: Engine, statement: str, undo: str) -> Iterator[None]:
    with engine.begin() as connection:
        connection.execute(text(statement))
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(text(undo))


def test_nothing_is_found_after_the_migration_was_applied(database: Engine) -> None:
    assert problems(database) == []


def test_the_migration_may_be_applied_again(database: Engine) -> None:
    with database.connect() as connection:
        execute(connection, generate(Store(database), LESSONS).text)
    assert problems(database) == []


_GROUP = """CREATE ROLE far; CREATE ROLE near NOINHERIT;
GRANT far TO near; GRANT near TO app WITH INHERIT FALSE; {}"""
_NO_GROUP = "DROP OWNED BY far; DROP ROLE far, near"
_OWN_DATABASE = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO"


@pytest.mark.parametrize(
    ("statement", "undo", "found"),
    [
        (
            "ALTER TABLE lessons NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE lessons FORCE ROW LEVEL SECURITY",
            "public.lessons: row-level security is not forced",
        ),
        (
            "ALTER TABLE lessons DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE lessons ENABLE ROW LEVEL SECURITY",
            "public.lessons: row-level security is not enabled",
        ),
        (
            "ALTER POLICY pdp_update_deny ON lessons RENAME TO other",
            "ALTER POLICY other ON lessons RENAME TO pdp_update_deny",
            "public.lessons: the policy pdp_update_deny is missing",
        ),
        (
            "CREATE POLICY all_rows ON lessons USING (true)",
            "DROP POLICY all_rows ON lessons",
            "public.lessons: the policy all_rows allows rows, too",
        ),
        (
            "ALTER FUNCTION pdp_rls.clock() VOLATILE",
            "ALTER FUNCTION pdp_rls.clock() STABLE",
            "pdp_rls: a policy or a function was changed",
        ),
        (
            "UPDATE rules SET condition = 'true' WHERE id = 'view'",
            "UPDATE rules SET condition = '" + POLICY[3].condition + "' WHERE id = 'view'",
            "pdp_rls: the rules, the columns or the configuration have changed",
        ),
        (
            "ALTER TABLE lessons ALTER seats TYPE bigint",
            "ALTER TABLE lessons ALTER seats TYPE integer",
            None,
        ),
        (
            "GRANT TRUNCATE ON lessons TO app",
            "REVOKE TRUNCATE ON lessons FROM app",
            "public.lessons: app has the privilege TRUNCATE",
        ),
        ("ALTER ROLE app BYPASSRLS", "ALTER ROLE app NOBYPASSRLS", "app: has BYPASSRLS"),
        ("ALTER ROLE app SUPERUSER", "ALTER ROLE app NOSUPERUSER", "app: is a superuser"),
        ("GRANT app_owner TO app", "REVOKE app_owner FROM app", "app: owns public.courses"),
        ("GRANT pdp_rls TO app", "REVOKE pdp_rls FROM app", "app: is a member of pdp_rls"),
        (
            "ALTER ROLE app SET pdp.actor = '{}'",
            "ALTER ROLE app RESET pdp.actor",
            "app: has an actor by default",
        ),
        (
            "GRANT INSERT ON grants TO app",
            "REVOKE INSERT ON grants FROM app",
            "app: has the privilege INSERT on the decision point's table grants",
        ),
        (
            "GRANT SELECT ON revoked_sessions TO PUBLIC",
            "REVOKE SELECT ON revoked_sessions FROM PUBLIC",
            "app: has the privilege SELECT on the decision point's table revoked_sessions",
        ),
        (
            "GRANT SELECT (role) ON grants TO app",
            "REVOKE SELECT (role) ON grants FROM app",
            "app: has the privilege SELECT on the decision point's table grants",
        ),
        (
            _GROUP.format("GRANT INSERT ON grants TO far"),
            _NO_GROUP,
            "app: has, by SET ROLE far, the privilege INSERT on the decision point's table grants",
        ),
        (
            _GROUP.format("GRANT TRUNCATE ON lessons TO far"),
            _NO_GROUP,
            "public.lessons: app has, by SET ROLE far, the privilege TRUNCATE",
        ),
        (_GROUP.format("ALTER ROLE far REPLICATION"), _NO_GROUP, "app: has REPLICATION"),
        (
            _GROUP.format(
                """CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql SECURITY DEFINER
                AS 'SELECT count(*) FROM public.lessons';
                REVOKE EXECUTE ON FUNCTION counted() FROM PUBLIC;
                GRANT EXECUTE ON FUNCTION counted() TO far"""
            ),
            f"DROP FUNCTION counted(); {_NO_GROUP}",
            "public.counted(): may be called by app",
        ),
        (_GROUP.format("SELECT"), _NO_GROUP, None),
        (
            "GRANT UPDATE (role) ON grants TO app",
            "REVOKE UPDATE (role) ON grants FROM app",
            "app: has the privilege UPDATE on the decision point's table grants",
        ),
        (
            "GRANT TRUNCATE ON revoked_sessions TO app",
            "REVOKE TRUNCATE ON revoked_sessions FROM app",
            "app: has the privilege TRUNCATE on the decision point's table revoked_sessions",
        ),
        (
            "GRANT REFERENCES (id) ON lessons TO app",
            "REVOKE REFERENCES (id) ON lessons FROM app",
            "public.lessons: app has the privilege REFERENCES",
        ),
        (
            "ALTER ROLE app REPLICATION",
            "ALTER ROLE app NOREPLICATION",
            "app: has REPLICATION",
        ),
        (
            "GRANT pg_read_server_files TO app",
            "REVOKE pg_read_server_files FROM app",
            "app: is a member of pg_read_server_files",
        ),
        (
            "ALTER SCHEMA pdp_rls OWNER TO app",
            "ALTER SCHEMA pdp_rls OWNER TO pdp_rls",
            "app: owns the schema pdp_rls",
        ),
        (  # the owner of the database owns the schema public
            f"{_OWN_DATABASE} app', current_database()); END $$",
            f"{_OWN_DATABASE} postgres', current_database()); END $$",
            "app: owns the schema public",
        ),
        (
            """CREATE TABLE asked (id text);
            CREATE RULE answer AS ON INSERT TO asked DO INSTEAD UPDATE lessons SET title = ''""",
            "DROP TABLE asked",
            "the rule answer ON public.asked: reads or writes public.lessons as the owner of",
        ),
        (
            "CREATE RULE kept AS ON DELETE TO lessons DO INSTEAD NOTHING",
            "DROP RULE kept ON lessons",
            None,
        ),
        (
            "CREATE VIEW all_lessons AS SELECT * FROM lessons",
            "DROP VIEW all_lessons",
            "public.all_lessons: reads public.lessons as its own owner",
        ),
        (
            "CREATE VIEW all_lessons WITH (security_invoker = off) AS SELECT * FROM lessons",
            "DROP VIEW all_lessons",
            "public.all_lessons: reads public.lessons as its own owner",
        ),
        (
            "CREATE VIEW all_lessons WITH (security_invoker) AS SELECT * FROM lessons",
            "DROP VIEW all_lessons",
            None,
        ),
        (
            """CREATE VIEW own WITH (security_invoker) AS SELECT * FROM lessons;
            CREATE VIEW through AS SELECT * FROM own""",
            "DROP VIEW own CASCADE",
            "public.through: reads public.lessons as its own owner",
        ),
        (
            "CREATE MATERIALIZED VIEW copied AS SELECT * FROM lessons",
            "DROP MATERIALIZED VIEW copied",
            "public.copied: is a materialized view",
        ),
    ],
)
def test_what_no_longer_enforces_the_policy_is_found(
    database: Engine, statement: str, undo: str, found: str | None
) -> None:
    with done(database, statement, undo):
        said = problems(database)
    assert any(one.startswith(found) for one in said) if found else said == []


_DEFINER = "RETURNS SETOF text LANGUAGE sql SECURITY DEFINER"
_FUNCTIONS = f"""
CREATE SCHEMA apart;
CREATE TABLE apart.lessons (id text);
CREATE ROLE stranger;
CREATE ROLE passing BYPASSRLS;
CREATE VIEW invoking WITH (security_invoker) AS SELECT * FROM lessons;
CREATE FUNCTION f_text() {_DEFINER} AS 'SELECT id FROM public.lessons';
CREATE FUNCTION f_atomic() {_DEFINER} BEGIN ATOMIC SELECT id FROM public.lessons; END;
CREATE FUNCTION f_view() {_DEFINER} AS 'SELECT id FROM "invoking"';
CREATE FUNCTION f_literal(one text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
    AS $$ BEGIN EXECUTE 'DELETE FROM LESSONS WHERE id = $1' USING one; END $$;
CREATE FUNCTION f_inner() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM lessons';
CREATE FUNCTION f_outer() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT f_inner()';
CREATE FUNCTION f_passing() {_DEFINER} AS 'SELECT id FROM lessons';
ALTER FUNCTION f_passing() OWNER TO passing;
CREATE FUNCTION f_owner() {_DEFINER} AS 'SELECT id FROM lessons';
ALTER FUNCTION f_owner() OWNER TO app_owner;
CREATE TABLE visits (number bigint);
GRANT INSERT (number) ON visits TO app;
CREATE FUNCTION apart.f_trigger() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    AS $$ BEGIN NEW.number := (SELECT count(*) FROM public.lessons); RETURN NEW; END $$;
REVOKE EXECUTE ON FUNCTION apart.f_trigger() FROM PUBLIC;
CREATE TRIGGER visited BEFORE INSERT ON visits FOR EACH ROW EXECUTE FUNCTION apart.f_trigger();
CREATE FUNCTION apart.f_seen() {_DEFINER} AS 'SELECT id FROM public.lessons';
CREATE VIEW seen WITH (security_invoker) AS SELECT apart.f_seen() AS id;
GRANT SELECT ON seen TO app;

CREATE FUNCTION g_stranger() {_DEFINER} AS 'SELECT id FROM lessons';
ALTER FUNCTION g_stranger() OWNER TO stranger;
CREATE FUNCTION g_own() {_DEFINER} AS 'SELECT id FROM lessons';
ALTER FUNCTION g_own() OWNER TO app;
CREATE FUNCTION g_revoked() {_DEFINER} AS 'SELECT id FROM lessons';
REVOKE EXECUTE ON FUNCTION g_revoked() FROM PUBLIC;
CREATE FUNCTION g_apart() {_DEFINER} AS 'SELECT id FROM apart.lessons';
CREATE FUNCTION g_longer() {_DEFINER} AS 'SELECT lessons_id FROM (VALUES (1::text)) v(lessons_id)';
CREATE FUNCTION apart.g_closed() {_DEFINER} AS 'SELECT id FROM public.lessons';
"""
_NO_FUNCTIONS = """
DROP FUNCTION f_text, f_atomic, f_view, f_literal, f_inner, f_outer, f_passing, f_owner,
    g_stranger, g_own, g_revoked, g_apart, g_longer;
DROP TABLE visits;
DROP SCHEMA apart CASCADE;
DROP VIEW invoking;
DROP ROLE stranger, passing;
"""


def test_functions_that_read_as_a_role_with_more_rows_are_found(database: Engine) -> None:
    with done(database, _FUNCTIONS, _NO_FUNCTIONS):
        said = problems(database)
        with database.begin() as connection:  # neither needs a right on the function's schema
            connection.exec_driver_sql("INSERT INTO lessons (id) VALUES ('l1'); SET ROLE app")
            assert connection.exec_driver_sql("SELECT id FROM seen").all() == [("l1",)]
            connection.exec_driver_sql("INSERT INTO visits (number) VALUES (0)")
            connection.exec_driver_sql("RESET ROLE")
            assert connection.exec_driver_sql("SELECT number FROM visits").scalar() == 1
            connection.rollback()
    passes = "passes row-level security"
    owners = {"f_passing": f"passing {passes}", "f_owner": "app_owner may switch"}
    names = {"f_text": "", "f_atomic": "", "f_view": "", "f_literal": "text", "f_outer": ""}
    apart = dict.fromkeys(("f_trigger", "f_seen"), "")
    for name, types in (names | apart | dict.fromkeys(owners, "")).items():
        schema = "apart" if name in apart else "public"
        [found] = [one for one in said if one.startswith(f"{schema}.{name}({types}): ")]
        assert "may be called by app, and names public.lessons as SECURITY DEFINER" in found
        assert owners.get(name, f"postgres {passes}") in found
    assert len(said) == 9, said


def test_a_role_that_is_missing_is_found(database: Engine) -> None:
    config = parse_config(CONFIG.replace("[app]", "[app, other]"))
    assert "other: there is no such role" in problems(database, config)


def test_a_database_without_the_migration_is_found(cluster: Cluster) -> None:
    engine = open_database(cluster.database())
    with Store(engine).write() as transaction:
        for entity in POLICY:
            transaction.insert(entity)
    said = problems(engine)
    assert "pdp_rls: no migration of this program was applied" in said
    assert "public.lessons: row-level security is not enabled: every row is seen" in said
    engine.dispose()


def test_an_operator_generates_applies_and_verifies(
    database: Engine, connection: Connection, tmp_path: Path
) -> None:
    file = tmp_path / "rls.yaml"
    file.write_text(CONFIG)
    url = make_url(database.url).set(drivername="postgresql")

    def pdp(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PDP_DATABASE_URL": url.render_as_string(hide_password=False), "PATH": ""}
        return prefork.run(
            (*arguments, "--config", str(file)), cwd=tmp_path, env=environment, timeout=60
        )

    made = pdp("rls", "generate")
    assert made.returncode == 0, made.stderr
    assert made.stdout == generate(Store(database), LESSONS).text
    assert pdp("rls", "verify").returncode == 0
    undo = "ALTER TABLE lessons FORCE ROW LEVEL SECURITY"
    with done(database, "ALTER TABLE lessons NO FORCE ROW LEVEL SECURITY", undo):
        found = pdp("rls", "verify")
        examined = pdp_doctor(file, url.render_as_string(hide_password=False))
    assert found.returncode == 1
    assert "row-level security is not forced" in found.stdout
    assert "row-level security: public.lessons: row-level security is not forced" in examined


def pdp_doctor(file: Path, url: str) -> str:
    issuer = {"issuer": ISSUER, "public_key": signing_key().public_pem}
    settings = Settings(database_url=url, issuers=[issuer])
    config = parse_config(file.read_text())
    findings = examine(settings, None, wall_clock, partial(verify, config=config))
    return "\n".join(f"{one.subject}: {one.message}" for one in findings)


def test_a_role_that_is_no_superuser_can_apply_it(cluster: Cluster) -> None:
    engine = open_database(cluster.database())
    with Store(engine).write() as transaction:
        for entity in POLICY:
            transaction.insert(entity)
    script = generate(Store(engine), LESSONS).text
    with engine.begin() as connection:
        connection.execute(text("ALTER ROLE app_owner CREATEROLE"))
        connection.execute(text("DROP OWNED BY pdp_rls"))
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f"ALTER DATABASE {name} OWNER TO app_owner"))
        for table in PDP_TABLES:
            connection.execute(text(f"ALTER TABLE {table} OWNER TO app_owner"))
        connection.execute(text("GRANT pdp_rls TO app_owner WITH ADMIN OPTION"))
    with engine.connect() as connection:
        connection.execute(text("SET SESSION AUTHORIZATION app_owner"))
        connection.commit()
        execute(connection, script)
        connection.invalidate()
    assert problems(engine) == []
    engine.dispose()
