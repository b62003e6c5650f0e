"""The values of a policy document."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pdp.document.silences import Silence
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
    """The place of an entity in the text."""

    path: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """Sections of entities. None: the document omits the section; empty: there are no such
    entities. `roles` and `rules` are the same section of the text, so both are None or neither
    is."""

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
    """The places in a parsed document, by kind and key."""
    silences: tuple[Silence, ...] = field(default=(), compare=False, repr=False)
    """Comments that silence findings, in a document parsed from YAML."""

    def section(self, kind: str) -> tuple[Entity, ...] | None:
        """The entities of a kind (`permission`, `role`, ...)."""
        section: tuple[Entity, ...] | None = getattr(self, f"{kind}s")
        return section

    def over(self, stored: "PolicyDocument") -> "PolicyDocument":
        """The stored document, with its sections replaced by those of this document."""
        sections: dict[str, Any] = {}
        for section in fields(self):
            own = getattr(self, section.name)
            sections[section.name] = getattr(stored, section.name) if own is None else own
        return PolicyDocument(**sections)
