"""Compares what PostgreSQL shows and takes under generated row-level security with Check: four
commands, of a role that owns nothing, on rows of drawn worlds."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from pdp_client import FilterUnsupported as Refused
from psycopg.types.json import Jsonb
from sqlalchemy import Connection, Engine, text

from pdp.database.bulk import batches
from pdp.decision.policy import Policy
from pdp.errors import FilterUnsupported
from pdp.model import Effect
from pdp.rls.catalog import Catalog, read_catalog
from pdp.rls.rules import compile_rules
from pdp.rls.sql import texts
from tests.kit.decision.engine import policy_of
from tests.kit.decision.reference import World
from tests.kit.filters.tables import records
from tests.kit.filters.worlds import (
    NOW,
    PERMISSIONS,
    Case,
    decisions_of,
    random_rows,
)
from tests.kit.rls.database import LESSONS, apply_within, fact_records, setting_of
from tests.kit.rls.worlds import (
    other_facts,
    random_policy,
    rule_on_organization_permissions,
)

_COMPARES_LIST = re.compile(r"tags [!=]= actor|actor\.attributes\.\w+ [!=]= \S*tags")
FACTS_PER_POLICY = 5
"""Grants, users and rows change without a migration."""
POLICIES_PER_CONNECTION = 10
"""A process of PostgreSQL keeps the plans of functions that are gone, and goes through all of them
at each change of a schema: a thousand policies later it is several times slower."""
VIEW, EDIT = PERMISSIONS
_COLUMNS = "organization_id, course_id, owner, editor, title, level, seats, open, unit_id"
_FUNCTIONS = f"""
CREATE OR REPLACE FUNCTION public.try_world(names text[], data jsonb, setting text, commands jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    name text;
    command jsonb;
    found text[];
    results jsonb := '[]';
BEGIN
    FOREACH name IN ARRAY names LOOP
        EXECUTE format(
            'INSERT INTO public.%1$I SELECT * FROM jsonb_populate_recordset(NULL::public.%1$I, $1)',
            name
        ) USING data -> name;
    END LOOP;
    FOR command IN SELECT * FROM jsonb_array_elements(commands) LOOP
        BEGIN
            EXECUTE command ->> 'before';
            PERFORM set_config('role', command ->> 'role', true),
                set_config('pdp.actor', setting, true);
            EXECUTE command ->> 'statement' INTO found;
            results := results || jsonb_build_array(to_jsonb(coalesce(found, '{{}}')));
            RAISE EXCEPTION USING ERRCODE = 'PDP00';
        EXCEPTION WHEN SQLSTATE 'PDP00' THEN
        END;
    END LOOP;
    RETURN results;
END $$;
CREATE OR REPLACE FUNCTION public.insert_each() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    one text;
    taken text[] := '{{}}';
BEGIN
    FOR one IN SELECT id FROM public.lessons_copy ORDER BY id LOOP
        BEGIN
            INSERT INTO public.lessons SELECT * FROM public.lessons_copy WHERE id = one;
            taken := taken || one;
        EXCEPTION WHEN insufficient_privilege THEN
        END;
    END LOOP;
    RETURN taken;
END $$;
CREATE OR REPLACE FUNCTION public.move_each(moved text[], others text[]) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    number int;
    taken text[] := '{{}}';
BEGIN
    FOR number IN 1 .. cardinality(moved) LOOP
        BEGIN
            UPDATE public.lessons SET ({_COLUMNS}) = (
                SELECT {_COLUMNS} FROM public.lessons_copy WHERE id = others[number]
            ) WHERE id = moved[number];
            IF FOUND THEN
                taken := taken || moved[number];
            END IF;
            RAISE EXCEPTION USING ERRCODE = 'PDP00';
        EXCEPTION WHEN insufficient_privilege OR SQLSTATE 'PDP00' THEN
        END;
    END LOOP;
    RETURN taken;
END $$
"""
"""The first puts rows into tables and executes commands, each by itself, rolled back, as a role: a
world in one round trip. The others, as their caller, leave out what row-level security refuses."""
_COMMANDS = {
    "SELECT": "SELECT array_agg(id) FROM lessons",
    "UPDATE": "WITH done AS (UPDATE lessons SET owner = owner RETURNING id)"
    " SELECT array_agg(id) FROM done",
    "DELETE": "WITH done AS (DELETE FROM lessons RETURNING id) SELECT array_agg(id) FROM done",
    "SELECT of the owner": "SELECT array_agg(id) FROM lessons",
    "INSERT": "SELECT public.insert_each()",
}


@dataclass
class Difference:
    """Where PostgreSQL and Check disagree."""

    seed: int
    command: str
    allowed: set[str]
    taken: set[str]


Differences = Callable[[Sequence[int], Connection, Counter[str]], Iterator[Difference]]


def prepare(connection: Connection) -> None:
    """Adds what the oracle itself needs, and the indexes of a migration."""
    connection.execute(text("CREATE TABLE IF NOT EXISTS lessons_copy AS TABLE lessons"))
    connection.execute(text("GRANT SELECT ON lessons_copy TO app"))
    connection.execute(text(_FUNCTIONS))
    connection.commit()


def empty(connection: Connection, *names: str) -> None:
    """Removes the rows of all tables that a world has, and of these."""
    facts = [*fact_records(World()), "rules", "role_inheritance"]
    tables = reversed([*facts, *records([], {}), "lessons_copy", *names])
    connection.exec_driver_sql("; ".join(f"DELETE FROM {name}" for name in tables))


def differences(
    seeds: Sequence[int], connection: Connection, found: Counter[str]
) -> Iterator[Difference]:
    """All of some policies, each with several sets of rows and facts; counts what kind they are.

    A policy is one transaction, rolled back, so that nothing has to be dropped.
    """
    connection.rollback()
    empty(connection)
    connection.commit()
    catalog = read_catalog(connection, LESSONS)
    for seed in seeds:
        random = Random(seed)
        rows, above = random_rows(random)
        case = random_policy(random, rows, above)
        if seed % 10 == 9:
            case.world.rules.append(rule_on_organization_permissions(Random(seed)))
        apply_expressible(connection, case, catalog, found)
        for _ in range(FACTS_PER_POLICY):
            yield from compare(seed, case, connection, found)
            rows, above = random_rows(random)
            case = other_facts(random, case, rows, above)
        connection.rollback()


def differences_in(
    engine: Engine, compare_all: Differences, seeds: Sequence[int], found: Counter[str]
) -> Iterator[Difference]:
    """The `differences` of many policies."""
    for batch in batches(seeds, POLICIES_PER_CONNECTION):
        with engine.connect() as connection:
            yield from compare_all(batch, connection, found)
            connection.invalidate()


def apply_expressible(
    connection: Connection, case: Case, catalog: Catalog, found: Counter[str]
) -> None:
    """Applies the migration, without the rules that are refused by name."""
    policy = expressible(case, found)
    try:
        apply_within(connection, policy, LESSONS, catalog, now=NOW)
    except Refused:  # a list of the row beside a value of the actor
        rules = case.world.rules
        case.world.rules = [rule for rule in rules if not _COMPARES_LIST.search(rule.condition)]
        assert len(case.world.rules) < len(rules)
        found["refused"] += len(rules) - len(case.world.rules)
        apply_within(connection, policy_of(case.world), LESSONS, catalog, now=NOW)


def expressible(case: Case, found: Counter[str]) -> Policy:
    """Takes rules away that row-level security refuses by name."""
    world = case.world
    while True:
        policy = policy_of(world)
        refused: set[str] = set()
        for permission in PERMISSIONS:
            try:
                compile_rules(policy, permission, "lesson")
            except FilterUnsupported as error:
                refused.add(error.metadata["rule"])
        if not refused:
            found["rules"] += len(world.rules)
            return policy
        found["refused"] += len(refused)
        world.rules = [rule for rule in world.rules if rule.id not in refused]


def compare(
    seed: int, case: Case, connection: Connection, found: Counter[str]
) -> Iterator[Difference]:
    """One actor with all rows, in tables that are empty."""
    data = records(case.rows, case.world.resources) | fact_records(case.world)
    data["lessons_copy"] = data["lessons"]
    viewed, edited = (_allowed(replace(case, permission=one)) for one in (VIEW, EDIT))
    for allowed in (viewed, edited):
        found["some" if 0 < len(allowed) < len(case.rows) else "all" if allowed else "none"] += 1
    moves, moved = _moved(case, viewed & edited)
    expected = {
        "SELECT": viewed,
        "UPDATE": viewed & edited,
        "DELETE": viewed & edited,
        "SELECT of the owner": set[str](),
        "INSERT": edited,
        "UPDATE to another row": moved,
    }
    moved_rows, others = texts(row for row, _ in moves), texts(other for _, other in moves)
    moving = f"SELECT public.move_each({moved_rows}, {others})"
    commands = [
        {
            "role": "app_owner" if command == "SELECT of the owner" else "app",
            "before": "DELETE FROM lessons" if command == "INSERT" else "SELECT",
            "statement": _COMMANDS.get(command, moving),
        }
        for command in expected
    ]
    answers = tried(connection, case, data, commands)
    for (command, allowed), taken in zip(expected.items(), answers, strict=True):
        if taken != allowed:
            yield Difference(seed, command, allowed, taken)
    found["moved"] += len(moved)
    found["not moved"] += len(moves) - len(moved)


def tried(
    connection: Connection,
    case: Case,
    data: dict[str, list[dict[str, Any]]],
    commands: list[dict[str, str]],
) -> list[set[str]]:
    """The ids that each command has given, with these rows in tables that are empty otherwise."""
    parameters = {
        "names": [name for name, rows in data.items() if rows],
        "data": Jsonb({name: [_integral(row) for row in rows] for name, rows in data.items()}),
        "setting": setting_of(case.token.actor),
        "commands": Jsonb(commands),
    }
    with connection.begin_nested() as savepoint:
        results = connection.exec_driver_sql(
            "SELECT public.try_world(%(names)s, %(data)s, %(setting)s, %(commands)s)", parameters
        ).scalar_one()
        savepoint.rollback()
    return [set(ids) for ids in results]


def _integral(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers as integers, where they are: PostgreSQL reads no 1.0 as an integer."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in row.items()
    }


def _allowed(case: Case) -> set[str]:
    return {
        row.id
        for row, decision in zip(case.rows, decisions_of(case), strict=True)
        if decision.effect is Effect.ALLOW
    }


def _moved(case: Case, editable: set[str]) -> tuple[list[tuple[str, str]], set[str]]:
    """Rows that take over the columns of another row, where the actor may use both states."""
    moves = [(one.id, other.id) for one, other in zip(case.rows, case.rows[3:], strict=False)]
    by_id = {row.id: row for row in case.rows}
    lists = ("tags", "members")
    after = []
    for one, other in moves:
        attributes = {k: v for k, v in by_id[other].attributes.items() if k not in lists}
        kept = {key: by_id[one].attributes[key] for key in lists}
        after.append(by_id[other]._replace(id=one, attributes=attributes | kept))
    states = [
        _allowed(replace(case, permission=permission, rows=after)) for permission in (VIEW, EDIT)
    ]
    return moves, editable & states[0] & states[1]


def assert_not_degenerate(found: Counter[str]) -> None:
    """Worlds in which everything or nothing is allowed would prove little."""
    total = found["some"] + found["all"] + found["none"]
    assert found["some"] > total * 0.15, found
    assert found["all"] > total * 0.01, found
    assert found["none"] < total * 0.85, found
    assert found["rules"] > found["refused"], found
    assert found["moved"] > 0 < found["not moved"], found
