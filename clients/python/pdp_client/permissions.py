"""Permissions of an actor, for display in user interfaces. They guard nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from pdp_client.values import Decision, Question, Resource

Held = tuple[str, str | None, str | None]
"""Permission, type and id of the resource."""


@dataclass(frozen=True, slots=True)
class PermissionSet:
    """The permissions that hold, of those that `can` or `permissions` asked for. No other
    permission holds."""

    _held: frozenset[Held] = frozenset()

    def holds(self, permission: str, resource: Resource | None = None) -> bool:
        """Whether the permission holds on a resource with this type and id; None: without a
        resource."""
        return _of(permission, resource) in self._held

    def __bool__(self) -> bool:
        raise TypeError("ask whether the set holds(...) something; it has no truth value")

    def to_json(self) -> list[dict[str, str]]:
        """The permissions that hold, for a front end: a list of `{"permission"}` and, if there is a
        resource, `"type"` and `"id"`."""
        names = ("permission", "type", "id")
        return [
            {name: text for name, text in zip(names, held, strict=True) if text is not None}
            for held in sorted(self._held, key=lambda held: [part or "" for part in held])
        ]


def permission_set(questions: Sequence[Question], decisions: Sequence[Decision]) -> PermissionSet:
    """The set of allowed questions. If two questions differ only in attributes, both must be
    allowed."""
    asked = [_of(question.permission, question.resource) for question in questions]
    denied = {
        key for key, decision in zip(asked, decisions, strict=True) if decision.allowed is not True
    }
    return PermissionSet(frozenset(asked) - denied)


def _of(permission: str, resource: Resource | None) -> Held:
    return (
        (permission, None, None) if resource is None else (permission, resource.type, resource.id)
    )
