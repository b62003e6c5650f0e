"""What would have to change for one document to be another."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pdp.document.policy_document import PolicyDocument
from pdp.kinds import KINDS
from pdp.model import Entity, Key, Resource, key_of


class Action(enum.Enum):
    """What happens to an entity."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One entity is created, replaced or deleted."""

    action: Action
    kind: str
    """One of `KINDS`: `permission`, `role`, ..."""
    key: Key
    before: Entity | None = field(default=None, compare=False, repr=False)
    """What is stored; None: it is created."""
    after: Entity | None = field(default=None, compare=False, repr=False)
    """What the document says; None: it is deleted."""


def differences(current: PolicyDocument, wanted: PolicyDocument) -> list[Change]:
    """The changes that make `current` equal to `wanted`, for the sections that `wanted` names.

    Creations and updates first, by kind and key; then deletions, kinds in reverse.
    """
    written: list[Change] = []
    deleted: list[Change] = []
    for kind in KINDS:
        section = wanted.section(kind)
        if section is None:
            continue
        before = {key_of(entity): entity for entity in current.section(kind) or ()}
        after = {key_of(entity): entity for entity in section}
        for key in sorted(after):
            if key not in before:
                written.append(Change(Action.CREATE, kind, key, after=after[key]))
            elif not same_entity(before[key], after[key]):
                written.append(Change(Action.UPDATE, kind, key, before[key], after[key]))
        gone = sorted(before.keys() - after.keys(), reverse=True)
        deleted += [Change(Action.DELETE, kind, key, before[key]) for key in gone]
    order = list(KINDS)
    deleted.sort(key=lambda change: order.index(change.kind), reverse=True)
    return written + deleted


def same_entity(one: Entity, other: Entity) -> bool:
    """Whether both say the same. Not `==`, for which the attribute `true` equals `1.0`."""
    if isinstance(one, Resource) and isinstance(other, Resource):
        return all(map(_same_value, one, other))
    if isinstance(one, Resource) or type(one) is not type(other):
        return False
    return all(
        _same_value(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)
    )


def _same_value(one: Any, other: Any) -> bool:
    # the depth of attributes is bounded where they are accepted, so recursion is
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same_value(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_value, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
