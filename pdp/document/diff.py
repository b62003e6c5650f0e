"""Finds the changes that turn a document into another."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pdp.document.policy_document import PolicyDocument
from pdp.kinds import KINDS
from pdp.model import Entity, Key, Resource, key_of


class Action(enum.Enum):
    """The kind of a change."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """An entity is created, replaced or deleted."""

    action: Action
    kind: str
    """The kind of the entity, from `KINDS`: `permission`, `role`, ..."""
    key: Key
    before: Entity | None = field(default=None, compare=False, repr=False)
    """The stored entity; None: it is created."""
    after: Entity | None = field(default=None, compare=False, repr=False)
    """The entity in the document; None: it is deleted."""


def differences(current: PolicyDocument, wanted: PolicyDocument) -> list[Change]:
    """The changes that make `current` equal to `wanted`, for the sections of `wanted`.

    Creations and updates come first, by kind and key; then deletions, kinds in reverse.
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


def same_entity(left: Entity, right: Entity) -> bool:
    """Whether two entities are equal. Unlike `==`, it distinguishes the attributes `true` and
    `1.0`."""
    if isinstance(left, Resource) and isinstance(right, Resource):
        return all(map(_same_value, left, right))
    if isinstance(left, Resource) or type(left) is not type(right):
        return False
    return all(
        _same_value(getattr(left, field.name), getattr(right, field.name)) for field in fields(left)
    )


def _same_value(left: Any, right: Any) -> bool:
    # Validation bounds the depth of attributes, and so of this recursion.
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_same_value(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same_value, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
