"""A document as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pdp.model import (
    Entity,
    Grant,
    Key,
    Membership,
    Organization,
    Permission,
    Resource,
    ResourceType,
    Role,
    Route,
    Rule,
    User,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entity stands in the text."""

    path: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """Sections of entities. None: the document does not speak of them; empty: there are none.
    `roles` and `rules` are one section of the text, so both are None or neither is."""

    permissions: tuple[Permission, ...] | None = None
    resource_types: tuple[ResourceType, ...] | None = None
    roles: tuple[Role, ...] | None = None
    rules: tuple[Rule, ...] | None = None
    grants: tuple[Grant, ...] | None = None
    routes: tuple[Route, ...] | None = None
    users: tuple[User, ...] | None = None
    organizations: tuple[Organization, ...] | None = None
    memberships: tuple[Membership, ...] | None = None
    resources: tuple[Resource, ...] | None = None
    places: Mapping[tuple[str, Key], Place] = field(default_factory=dict, compare=False, repr=False)
    """By kind and key; of a document that was parsed."""

    def section(self, kind: str) -> tuple[Entity, ...] | None:
        """The entities of a kind (`permission`, `role`, ...)."""
        section: tuple[Entity, ...] | None = getattr(self, f"{kind}s")
        return section

    def over(self, stored: "PolicyDocument") -> "PolicyDocument":
        """What is stored, with the sections of this document in place of those stored."""
        sections: dict[str, Any] = {}
        for one in fields(self):
            named = getattr(self, one.name)
            sections[one.name] = getattr(stored, one.name) if named is None else named
        return PolicyDocument(**sections)
