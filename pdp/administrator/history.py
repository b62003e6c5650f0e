"""The policy of earlier revisions, and who changed it."""

from collections.abc import Mapping, Sequence

from pdp.administration_records import AdministrationRecord
from pdp.document import PolicyDocument
from pdp.facts import Store
from pdp.facts.store.history import read_policy_entities, read_policy_records
from pdp.model import Key


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


def policy_changes(
    store: Store, after: int, until: int
) -> Mapping[tuple[str, Key], Sequence[AdministrationRecord]]:
    """Returns the records of policy entities of the revisions later than `after`, up to `until`, by
    kind and key. Raises DatabaseUnavailable."""
    found: dict[tuple[str, Key], list[AdministrationRecord]] = {}
    with store.read() as reader:
        for record in read_policy_records(reader, after, until):
            found.setdefault((record.kind, record.key), []).append(record)
    return found
