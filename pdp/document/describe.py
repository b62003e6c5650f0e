"""Describes changes for people: a changed entity with its old and its new values."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pdp.document.diff import Action, Change
from pdp.document.render import as_written
from pdp.document.validate import display_key
from pdp.model import Grant, Key, Rule

_VALUE_CHARACTERS_MAX = 200

_Identity = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """A line for people."""

    action: Action
    kind: str
    text: str
    """For example `update rule EDITOR.allow.course:edit: when "a" -> "b"`. Contains ids unescaped:
    escape it before it is printed."""
    keys: tuple[Key, ...]
    """The keys of the entities: two, if one replaces the other."""


def described(changes: Sequence[Change]) -> list[Described]:
    """Describes the changes in their order.

    A derived id of a rule or a grant depends on its content, so a change of the condition or the
    end deletes an entity and creates another. Such a pair becomes a single update here if it is the
    only pair of its identity: a rule's role, effect and permission; a grant's role, subject and
    scope.
    """
    old = _by_identity(changes, Action.DELETE)
    new = _by_identity(changes, Action.CREATE)
    pairs = {
        id(new[identity][0]): old[identity][0]
        for identity in new.keys() & old.keys()
        if len(new[identity]) == len(old[identity]) == 1
    }
    replaced = set(map(id, pairs.values()))
    lines: list[Described] = []
    for change in changes:
        if id(change) in replaced:
            continue
        before = pairs.get(id(change))
        if before is not None:
            key = f"{display_key(before.key)} -> {display_key(change.key)}"
            lines.append(_updated(change.kind, key, before, change))
        elif change.action is Action.UPDATE:
            lines.append(_updated(change.kind, display_key(change.key), change, change))
        else:
            text = f"{change.action.value} {change.kind} {display_key(change.key)}"
            lines.append(Described(change.action, change.kind, text, (change.key,)))
    return lines


def _by_identity(changes: Sequence[Change], action: Action) -> dict[_Identity, list[Change]]:
    found: dict[_Identity, list[Change]] = {}
    for change in changes:
        if change.action is not action:
            continue
        match change.before or change.after:
            case Rule() as rule:
                identity: _Identity = ("rule", rule.role, rule.effect, rule.permission)
            case Grant() as grant:
                identity = ("grant", grant.role, grant.subject, grant.scope)
            case _:
                continue
        found.setdefault(identity, []).append(change)
    return found


def _updated(kind: str, key: str, old: Change, new: Change) -> Described:
    before = {} if old.before is None else as_written(old.before)
    after = {} if new.after is None else as_written(new.after)
    fields = ", ".join(_differences(before, after, ""))
    return Described(
        Action.UPDATE,
        kind,
        f"update {kind} {key}" + (f": {fields}" if fields else ""),
        tuple(dict.fromkeys((old.key, new.key))),
    )


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """The differences by field; for attributes, by key. Recursive: the depth of attributes is
    bounded."""
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif _text(old) != _text(new):
            yield f"{prefix}{name} {_shown(name in before, old)} -> {_shown(name in after, new)}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _shown(is_there: bool, value: Any) -> str:
    if not is_there:
        return "(none)"
    text = _text(value)
    return text if len(text) <= _VALUE_CHARACTERS_MAX else f"{text[:_VALUE_CHARACTERS_MAX]}..."
