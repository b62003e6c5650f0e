"""Compares what PostgreSQL shows and takes under generated row-level security with Check: four
commands, of a role that owns nothing, on rows of drawn worlds."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from pdp_client import FilterUnsupported as Refused
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from pdp.decision.policy import Policy
from pdp.errors import FilterUnsupported
from pdp.model import Effect
from pdp.rls.rules import compile_rules
from tests.kit.decision.engine import policy_of
from tests.kit.filters.tables import put
from tests.kit.filters.worlds import (
    NOW,
    PERMISSIONS,
    Case,
    decisions_of,
    random_rows,
)
from tests.kit.rls.database import LESSONS, acting, apply, put_facts
from tests.kit.rls.worlds import other_facts, random_policy

_COMPARES_LIST = re.compile(r"tags [!=]= actor|actor\.attributes\.\w+ [!=]= \S*tags")
FACTS_PER_POLICY = 5
"""Grants, users and rows change without a migration."""
VIEW, EDIT = PERMISSIONS
_COLUMNS = "organization_id, course_id, owner, editor, title, level, seats, open, unit_id"
_INSERT_EACH = """
CREATE OR REPLACE FUNCTION public.insert_each() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    one text;
    taken text[] := '{}';
BEGIN
    FOR one IN SELECT id FROM public.lessons_copy ORDER BY id LOOP
        BEGIN
            INSERT INTO public.lessons SELECT * FROM public.lessons_copy WHERE id = one;
            taken := taken || one;
        EXCEPTION WHEN insufficient_privilege THEN
        END;
    END LOOP;
    RETURN taken;
END $$
"""
"""As the caller: what row-level security refuses is left out."""


@dataclass
class Difference:
    """Where PostgreSQL and Check disagree."""

    seed: int
    command: str
    allowed: set[str]
    taken: set[str]


def prepare(connection: Connection) -> None:
    """Adds what the oracle itself needs."""
    connection.execute(text("CREATE TABLE IF NOT EXISTS lessons_copy AS TABLE lessons"))
    connection.execute(text("GRANT SELECT ON lessons_copy TO app"))
    connection.execute(text(_INSERT_EACH))
    connection.commit()


def differences(
    seeds: Sequence[int], connection: Connection, found: Counter[str]
) -> Iterator[Difference]:
    """All of some policies, each with several sets of rows and facts; counts what kind they are."""
    for seed in seeds:
        random = Random(seed)
        rows, above = random_rows(random)
        case = random_policy(random, rows, above)
        apply_expressible(connection, case, found)
        for _ in range(FACTS_PER_POLICY):
            yield from compare(seed, case, connection, found)
            rows, above = random_rows(random)
            case = other_facts(random, case, rows, above)


def apply_expressible(connection: Connection, case: Case, found: Counter[str]) -> None:
    """Applies the migration, without the rules that are refused by name."""
    policy = expressible(case, found)
    try:
        apply(connection, policy, LESSONS, now=NOW)
    except Refused:  # a list of the row beside a value of the actor
        rules = case.world.rules
        case.world.rules = [rule for rule in rules if not _COMPARES_LIST.search(rule.condition)]
        assert len(case.world.rules) < len(rules)
        found["refused"] += len(rules) - len(case.world.rules)
        apply(connection, policy_of(case.world), LESSONS, now=NOW)


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
    """One actor with all rows."""
    connection.rollback()
    put(connection, case.rows, case.world.resources)
    connection.execute(text("TRUNCATE lessons_copy"))
    connection.execute(text("INSERT INTO lessons_copy TABLE lessons"))
    put_facts(connection, case.world)
    connection.commit()
    viewed, edited = (_allowed(replace(case, permission=one)) for one in (VIEW, EDIT))
    for allowed in (viewed, edited):
        found["some" if 0 < len(allowed) < len(case.rows) else "all" if allowed else "none"] += 1
    moves, moved = _moved(case, viewed & edited)
    expected = {
        "SELECT": viewed,
        "UPDATE": viewed & edited,
        "DELETE": viewed & edited,
        "INSERT": edited,
        "UPDATE to another row": moved,
        "SELECT of the owner": set(),
    }
    actor = case.token.actor
    for command, allowed in expected.items():
        role = "app_owner" if command == "SELECT of the owner" else "app"
        if command == "INSERT":
            connection.execute(text("DELETE FROM lessons"))
            connection.commit()
        with acting(connection, actor.user_id, actor.organization_id, actor.session_id, role):
            if command == "INSERT":
                taken = set(connection.execute(text("SELECT public.insert_each()")).scalar_one())
            elif command == "UPDATE to another row":
                taken = _moves(connection, moves)
            else:
                statement = {
                    "UPDATE": "UPDATE lessons SET owner = owner RETURNING id",
                    "DELETE": "DELETE FROM lessons RETURNING id",
                }.get(command, "SELECT id FROM lessons")
                taken = set(connection.execute(text(statement)).scalars())
        if command == "INSERT":
            connection.execute(text("INSERT INTO lessons TABLE lessons_copy"))
            connection.commit()
        if taken != allowed:
            yield Difference(seed, command, allowed, taken)
    found["moved"] += len(moved)
    found["not moved"] += len(moves) - len(moved)


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


def _moves(connection: Connection, moves: list[tuple[str, str]]) -> set[str]:
    taken = set()
    for one, other in moves:
        savepoint = connection.begin_nested()
        try:
            taken |= set(
                connection.execute(
                    text(
                        f"UPDATE lessons SET ({_COLUMNS}) = (SELECT {_COLUMNS} FROM lessons_copy"
                        " WHERE id = :other) WHERE id = :one RETURNING id"
                    ),
                    {"one": one, "other": other},
                ).scalars()
            )
        except ProgrammingError as error:
            assert "row-level security" in str(error.orig), error
        savepoint.rollback()
    return taken


def assert_not_degenerate(found: Counter[str]) -> None:
    """Worlds in which everything or nothing is allowed would prove little."""
    total = found["some"] + found["all"] + found["none"]
    assert found["some"] > total * 0.15, found
    assert found["all"] > total * 0.01, found
    assert found["none"] < total * 0.85, found
    assert found["rules"] > found["refused"], found
    assert found["moved"] > 0 < found["not moved"], found
