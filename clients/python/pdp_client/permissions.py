"""What somebody may, for user interfaces to show. It guards nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from pdp_client.values import Decision, Question, Resource

Held = tuple[str, str | None, str | None]
"""Permission, type and id of the resource."""


@dataclass(frozen=True, slots=True)
class PermissionSet:
    """Which permissions hold, of those that `can` or `permissions` asked for. No other does."""

    _held: frozenset[Held] = frozenset()

    def holds(self, permission: str, resource: Resource | None = None) -> bool:
        """Whether the permission holds on the resource, of which type and id count; None: without
        one."""
        return _of(permission, resource) in self._held

    def __bool__(self) -> bool:
        raise TypeError("ask whether the set holds(...) something; it has no truth value")

    def to_json(self) -> list[dict[str, str]]:
        """What holds, for a front end: a list of `{"permission"}` and, where there is a resource,
        `"type"` and `"id"`."""
        names = ("permission", "type", "id")
        return [
            {name: text for name, text in zip(names, one, strict=True) if text is not None}
            for one in sorted(self._held, key=lambda one: [part or "" for part in one])
        ]


def permission_set(questions: Sequence[Question], decisions: Sequence[Decision]) -> PermissionSet:
    """A question that is asked twice, with other attributes, holds where both do."""
    asked = [_of(question.permission, question.resource) for question in questions]
    denied = {
        one for one, decision in zip(asked, decisions, strict=True) if decision.allowed is not True
    }
    return PermissionSet(frozenset(asked) - denied)


def _of(permission: str, resource: Resource | None) -> Held:
    return (
        (permission, None, None) if resource is None else (permission, resource.type, resource.id)
    )
