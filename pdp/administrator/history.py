"""The policy of earlier revisions, and who changed it."""

from collections.abc import Mapping, Sequence

from pdp.administration_records import AdministrationRecord
from pdp.document import Described, PolicyDocument
from pdp.facts import Store
from pdp.facts.store.history import read_policy_entities, read_policy_records
from pdp.model import Key

Records = Mapping[tuple[str, Key], Sequence[AdministrationRecord]]
"""Records by kind and key."""


def policy_at(store: Store, revision: int) -> PolicyDocument:
    """Returns the policy of a revision: all sections but those of facts.

    Raises:
        InvalidRequest: There is no such revision, or later changes are not recorded.
        DatabaseUnavailable: The database does not answer.
    """
    with store.read() as reader:
        found = read_policy_entities(reader, revision)
    sections = {f"{kind}s": tuple(entities) for kind, entities in found.items()}
    return PolicyDocument(**sections)  # type: ignore[arg-type]


def policy_changes(store: Store, after: int, until: int) -> Records:
    """Returns the records of policy entities of the revisions later than `after`, up to `until`, by
    kind and key. Raises DatabaseUnavailable."""
    found: dict[tuple[str, Key], list[AdministrationRecord]] = {}
    with store.read() as reader:
        for record in read_policy_records(reader, after, until):
            found.setdefault((record.kind, record.key), []).append(record)
    return found


def records_of(line: Described, records: Records) -> Sequence[AdministrationRecord]:
    """Returns the records of the entities of a difference, oldest first."""
    found = [record for key in line.keys for record in records.get((line.kind, key), ())]
    return sorted(found, key=lambda record: (record.revision, record.number))
