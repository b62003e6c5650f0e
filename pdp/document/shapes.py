"""The structure of a document's items as pydantic models: fields and their types.

The meaning (grammars, conditions, references) is checked later, on the entities.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import ErrorDetails


def _none_as_empty(value: Any) -> Any:
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
    # Each item is a RuleShape or a permission. Items are read separately, so a faulty item hides no
    # other.
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


Attributes = Annotated[dict[str, Any], BeforeValidator(_none_as_empty)]


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
    """Rewrites an error of pydantic for the author of the document."""
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
    # The fields of a nested item differ from those of `shape`: rather no hint than a wrong one.
    return f" (fields: {', '.join(shape.model_fields)})" if len(error["loc"]) == 1 else ""
