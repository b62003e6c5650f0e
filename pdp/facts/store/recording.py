"""Writes administration records: what a transaction changed, in that transaction."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from sqlalchemy import Connection

from pdp.administration_records import AdministrationRecord, Author, Values
from pdp.clock import wall_clock
from pdp.database.administration_table import administration_records, row_of
from pdp.database.bulk import batches, insert_rows
from pdp.facts.store.rows import KINDS, to_row
from pdp.kinds import KINDS as ENTITIES
from pdp.kinds import kind_of
from pdp.model import Entity, Key, Role
from pdp.redaction import redact, redact_text

POLICY_KINDS = ("permission", "resource_type", "role", "rule", "grant", "route")
"""Their records hold them completely; those of facts are without secrets."""
_PROSE = ("email", "name", "slug")
"""Fields of facts that may hold any text, besides attributes."""

Recorded = Entity | Values | None
"""An entity, or the values of an object that is no entity; None: it does not exist."""


class Touched(NamedTuple):
    """An entity or object before and after a transaction."""

    before: Recorded
    after: Recorded


def same_row(one: Entity, other: Entity) -> bool:
    """Returns whether both are stored alike: then a write of the other one changes nothing."""
    # For Python, the attribute `true` equals `1.0`; the rows differ. (`inherits` is in no row.)
    return one == other and to_row(one) == to_row(other)


def write_records(
    connection: Connection,
    touched: Iterable[tuple[str, Key, Touched]],
    author: Author,
    epoch: str,
    revision: int,
) -> None:
    """Writes a record for each entity. Holds some rows in memory, not all."""
    now = round(wall_clock(), 6)  # as the API has it: filters compare with what it returned

    def rows() -> Iterator[dict[str, Any]]:
        for number, (kind, key, states) in enumerate(touched):
            before, after = values_of(states.before), values_of(states.after)
            messages: tuple[str, ...] = ()
            if author.messages:
                messages = author.messages_about({*key, *_texts(before), *_texts(after)})
            yield row_of(
                AdministrationRecord(
                    epoch=epoch,
                    revision=revision,
                    number=number,
                    recorded_at=now,
                    source=author.source,
                    kind=kind,
                    key=key,
                    before=before,
                    after=after,
                    name=author.name,
                    reason=redact_text(author.reason),
                    messages=messages,
                    sync_run=author.sync_run,
                )
            )

    for batch in batches(rows()):
        statement, parameters = insert_rows(connection.dialect.name, administration_records, batch)
        connection.execute(statement, parameters)


def entity_of(kind: str, values: Values) -> Entity:
    """Returns the entity that a record of one of POLICY_KINDS holds."""
    stored = KINDS[ENTITIES[kind]]
    entity: Entity = stored.from_row({c.name: values.get(c.name) for c in stored.table.columns})
    if isinstance(entity, Role):
        return replace(entity, inherits=tuple(values["inherits"]))
    return entity


def _texts(values: Values | None) -> Iterator[str]:
    yield from (value for value in (values or {}).values() if isinstance(value, str))


def values_of(recorded: Recorded) -> Values | None:
    """Returns the fields that a record holds, for facts without secrets."""
    if recorded is None or isinstance(recorded, dict):
        return recorded
    entity: Any = recorded
    values = to_row(entity)
    if isinstance(entity, Role):
        values["inherits"] = sorted(set(entity.inherits))
    if "attributes" in values:
        values["attributes"] = redact(dict(entity.attributes))
    for name in _PROSE:
        if name in values and kind_of(entity) not in POLICY_KINDS:
            values[name] = redact_text(values[name])
    return {name: value for name, value in values.items() if value is not None}
