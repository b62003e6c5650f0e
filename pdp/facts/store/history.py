"""Reads the policy of an earlier revision: what is stored now, with later changes taken back.

The administration records hold each entity as it was before each change. So the first record of an
entity after a revision holds, as the old value, the entity at that revision.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import func, select

from pdp.administration_records import AdministrationRecord, Values, decode
from pdp.database.administration_table import administration_records
from pdp.errors import InvalidRequest, Violation
from pdp.facts.store.reader import Reader
from pdp.facts.store.recording import POLICY_KINDS, entity_of
from pdp.kinds import KINDS
from pdp.model import Entity, Key, key_of

_ROWS_AT_ONCE = 1_000
_records = administration_records.c


def read_policy_entities(reader: Reader, revision: int) -> dict[str, Sequence[Entity]]:
    """Returns the entities of the policy at a revision, by kind, in the order of their keys.

    Raises:
        InvalidRequest: There is no such revision, or a later change is not recorded: an earlier
            version made it, or its record was deleted.
        DatabaseUnavailable: The database does not answer.
    """
    _check_covered(reader, revision)
    before: dict[tuple[str, Key], Values | None] = {}
    for record in read_policy_records(reader, revision, reader.revision):
        before.setdefault((record.kind, record.key), record.before)
    found: dict[str, Sequence[Entity]] = {}
    for kind in POLICY_KINDS:
        entities = {key_of(entity): entity for entity in reader.list(KINDS[kind])}
        for (changed, key), values in before.items():
            if changed == kind:
                entities.pop(key, None)
                if values is not None:
                    entities[key] = entity_of(kind, values)
        found[kind] = [entities[key] for key in sorted(entities)]
    return found


def read_policy_records(reader: Reader, after: int, until: int) -> Iterator[AdministrationRecord]:
    """Yields the records of policy entities of the revisions later than `after`, up to `until`."""
    query = (
        select(_records.record)
        .where(_records.revision > after, _records.revision <= until)
        .where(_records.kind.in_(POLICY_KINDS))
        .order_by(_records.revision, _records.number)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    for payload in reader.connection.execute(query).scalars():
        yield decode(payload)


def _check_covered(reader: Reader, revision: int) -> None:
    if not 0 <= revision <= reader.revision:
        text = f"{revision} does not exist: the newest is {reader.revision}"
        raise InvalidRequest(Violation("revision", text))
    # Each revision has a record with the number 0, in all versions that write records.
    query = select(func.count()).where(_records.revision > revision, _records.number == 0)
    recorded: int = reader.connection.execute(query).scalar_one()
    missing = reader.revision - revision - recorded
    if missing:
        text = (
            f"{revision} cannot be read: {missing} later revisions have no records. They are of a "
            "version before the records, or their records were deleted"
        )
        raise InvalidRequest(Violation("revision", text))
