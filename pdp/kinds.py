"""The kinds of entities: the one table of their names and types.

Documents, changes, errors, SQL and the wire take the names from here. A section of a document and
a list of the contract are named by the plural, which is the name and an "s".
"""

from collections.abc import Mapping
from typing import Any

from pdp.model import (
    Entity,
    Grant,
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

KINDS: Mapping[str, type[Entity]] = {
    "permission": Permission,
    "resource_type": ResourceType,
    "role": Role,
    "rule": Rule,
    "grant": Grant,
    "route": Route,
    "user": User,
    "organization": Organization,
    "membership": Membership,
    "resource": Resource,
}
"""In the order in which documents and changes list them."""
SECTIONS = tuple(f"{kind}s" for kind in KINDS if kind != "rule")
"""As a document names and orders them. `roles` holds the rules too."""
_NAMES = {entity: name for name, entity in KINDS.items()}


def kind_of(entity: Entity | type[Any]) -> str:
    """`permission`, `role`, ..."""
    return _NAMES[entity if isinstance(entity, type) else type(entity)]
