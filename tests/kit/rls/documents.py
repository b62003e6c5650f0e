"""Holds row-level security over jsonb and array columns against Check: one column for each
attribute, whose values are of any kind."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from pdp_client import FilterUnsupported as Refused
from sqlalchemy import Connection

from pdp.errors import FilterUnsupported
from pdp.model import Effect, Resource
from pdp.rls.catalog import Catalog, read_catalog
from pdp.rls.config import parse_config
from pdp.rls.migration import make_migration
from tests.kit.decision.engine import policy_of
from tests.kit.filters.worlds import (
    NOW,
    PERMISSIONS,
    TEXTS,
    Case,
    decisions_of,
    random_rows,
    wild_attributes,
)
from tests.kit.rls.database import apply_within, fact_records
from tests.kit.rls.oracle import FACTS_PER_POLICY, Difference, empty, tried
from tests.kit.rls.worlds import other_facts, random_policy

VIEW, _ = PERMISSIONS
_JSONB = ["owner", "editor", "level", "seats", "open", "title", "members", "unit"]
DOCUMENTS = parse_config(
    f"""
roles: [app]
tables:
  public.documents:
    type: lesson
    id: id
    organization: organization_id
    permissions: {{read: "{VIEW}"}}
    attributes: {{{", ".join(f"{name}: {name}" for name in [*_JSONB, "tags"])}}}
"""
)
_TABLE = f"""
CREATE TABLE IF NOT EXISTS documents (
    id text PRIMARY KEY, organization_id text, tags text[],
    {", ".join(f"{name} jsonb" for name in _JSONB)}
);
CREATE INDEX IF NOT EXISTS documents_of ON documents (organization_id);
GRANT SELECT ON documents TO app
"""


def differences(
    seeds: Sequence[int], connection: Connection, found: Counter[str]
) -> Iterator[Difference]:
    """All of some policies, each with several sets of rows and facts."""
    connection.rollback()
    connection.exec_driver_sql(_TABLE)
    empty(connection, "documents")
    connection.commit()
    catalog = read_catalog(connection, DOCUMENTS)
    connection.rollback()
    for seed in seeds:
        random = Random(seed)
        case = _expressible(random_policy(random, _rows(random), {}), catalog, found)
        case = replace(case, permission=VIEW)
        apply_within(connection, policy_of(case.world), DOCUMENTS, catalog, now=NOW)
        for _ in range(FACTS_PER_POLICY):
            yield from _compare(seed, case, connection, found)
            case = replace(other_facts(random, case, _rows(random), {}), permission=VIEW)
        connection.rollback()


def _rows(random: Random) -> list[Resource]:
    rows, _ = random_rows(random)
    tags = {"tags": [random.choice([*TEXTS, None]) for _ in range(random.randint(0, 3))]}
    return [
        row._replace(
            parent=None,
            attributes={
                key: value for key, value in wild_attributes(random).items() if key in _JSONB
            }
            | (tags if random.random() < 0.8 else {}),
        )
        for row in rows
    ]


def _expressible(case: Case, catalog: Catalog, found: Counter[str]) -> Case:
    """Without the rules that are refused by name."""
    kept = []
    for rule in case.world.rules:
        try:
            make_migration(policy_of(replace(case.world, rules=[rule])), DOCUMENTS, catalog)
        except (FilterUnsupported, Refused):
            found["refused"] += 1
        else:
            kept.append(rule)
    found["rules"] += len(kept)
    return replace(case, world=replace(case.world, rules=kept))


def _compare(
    seed: int, case: Case, connection: Connection, found: Counter[str]
) -> Iterator[Difference]:
    data = fact_records(case.world)
    # What is absent is SQL's NULL; what is null would be, too, so it is put in below.
    data["documents"] = [
        {"id": row.id, "organization_id": row.organization_id} | row.attributes for row in case.rows
    ]
    allowed = {
        row.id
        for row, decision in zip(case.rows, decisions_of(case), strict=True)
        if decision.effect is Effect.ALLOW
    }
    found["some" if 0 < len(allowed) < len(case.rows) else "all" if allowed else "none"] += 1
    statement = {"role": "app", "before": _nulls(case), "statement": _SELECT}
    [taken] = tried(connection, case, data, [statement])
    if taken != allowed:
        yield Difference(seed, "SELECT", allowed, taken)


_SELECT = "SELECT array_agg(id) FROM documents"


def _nulls(case: Case) -> str:
    """Makes the jsonb null of SQL's NULL, for attributes that are null and not absent."""
    return "; ".join(
        [
            "SELECT",
            *(
                f"UPDATE documents SET {name} = 'null' WHERE id = '{row.id}'"
                for row in case.rows
                for name, value in row.attributes.items()
                if value is None
            ),
        ]
    )
