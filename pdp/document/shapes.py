"""The structure of a document's items, as pydantic models: which fields, of which type.

Meaning (grammars, conditions, references) is checked on the entities that they become.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import ErrorDetails


def _nothing_is_empty(value: Any) -> Any:
    return {} if value is None else value


class Shape(BaseModel):
    """Base of all shapes: rejects unknown fields and converts no types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class RuleShape(Shape):
    """A rule that is written as a mapping."""

    permission: str
    when: str = ""
    id: str = ""
    description: str = ""


class RoleShape(Shape):
    """A role with its rules."""

    description: str = ""
    inherits: list[str] = Field(default_factory=list)
    # Each is a RuleShape or a permission, and read by itself: one that is wrong hides no other.
    allow: list[Any] = Field(default_factory=list)
    deny: list[Any] = Field(default_factory=list)


class ResourceTypeShape(Shape):
    """What the policy says about a resource type."""

    tenancy: Literal["organization", "none"] = "organization"
    stored: Literal["optional", "required"] = "optional"


class RouteShape(Shape):
    """What a route requires."""

    permission: str
    resource: str | None = None


class ResourceRefShape(Shape):
    """The type and id of a resource."""

    type: str
    id: str


class GrantShape(Shape):
    """A grant: a role, a subject, a scope, and the time in which it holds."""

    role: str
    user: str | None = None
    organization_role: str | None = None
    organization: str | None = None
    resource: ResourceRefShape | None = None
    not_before: str | None = None
    expires_at: str | None = None
    id: str = ""


Attributes = Annotated[dict[str, Any], BeforeValidator(_nothing_is_empty)]


class UserShape(Shape):
    """A user with attributes."""

    id: str
    email: str = ""
    name: str = ""
    status: Literal["active", "disabled"] = "active"
    attributes: Attributes = Field(default_factory=dict)


class OrganizationShape(Shape):
    """An organization."""

    id: str
    slug: str = ""
    name: str = ""


class MembershipShape(Shape):
    """A user's role in an organization."""

    organization: str
    user: str
    role: str


class ResourceShape(Shape):
    """A stored resource."""

    type: str
    id: str
    organization: str | None = None
    parent: ResourceRefShape | None = None
    attributes: Attributes = Field(default_factory=dict)


_SENTENCES = {
    "missing": "is missing",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
}


def sentence(error: ErrorDetails, shape: type[Shape]) -> str:
    """What pydantic found wrong, in words for whoever wrote the document."""
    match error["type"]:
        case "extra_forbidden":
            return f"is not a field here{_known_fields(error, shape)}"
        case "string_type":
            written = isinstance(error["input"], bool | int | float)
            return "must be text; put it in quotes" if written else "must be text"
        case "literal_error":
            return f"must be {error['ctx']['expected']}"
        case kind:
            return _SENTENCES.get(kind, error["msg"])


def _known_fields(error: ErrorDetails, shape: type[Shape]) -> str:
    # a nested item's fields are other than those of `shape`: say nothing rather than the wrong ones
    return f" (fields: {', '.join(shape.model_fields)})" if len(error["loc"]) == 1 else ""
