"""`rls.yaml`: which table is which resource type."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pdp.document.nodes import plain, spot_of
from pdp.document.yaml_text import read_yaml
from pdp.errors import InvalidPolicy, Violation


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


Name = Annotated[str, Field(min_length=1, max_length=63)]
"""A column or a role. PostgreSQL cuts longer ones off."""
TableName = Annotated[str, Field(pattern=r"^[^.]{1,63}\.[^.]{1,63}$")]
"""`schema.table`, case-sensitive."""


class NullableColumn(_Shape):
    """A column of which NULL is a value of its own: null, not absent."""

    column: Name
    null_is: Literal["value"]


class Relation(_Shape):
    """Rows of another table: their columns, by the columns of this table that they equal."""

    table: TableName
    on: dict[Name, Name] = Field(min_length=1)
    """Column there: column here."""
    one: "dict[str, Attribute] | None" = None
    """At most one row: a map."""
    many: "dict[str, Attribute] | None" = None
    """A list of maps."""
    column: Name | None = None
    """A list of the values of a column."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Relation":
        if sum(value is not None for value in (self.one, self.many, self.column)) != 1:
            raise ValueError("must have exactly one of: one, many, column")
        return self


Attribute = Annotated[NullableColumn | Relation | Name | None, Field(union_mode="left_to_right")]
"""How a row has an attribute. A text: a column. Null: no row has it."""


class Parent(_Shape):
    """The resource above: a row of another table of the configuration, or one of which only the id
    is known here."""

    column: Name
    table: TableName | None = None
    type: str | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Parent":
        if (self.table is None) == (self.type is None):
            raise ValueError("must have exactly one of: table, type")
        return self


class Permissions(_Shape):
    """The permission that each command takes; without one it is refused to everybody."""

    read: str | None = None
    create: str | None = None
    update: str | None = None
    delete: str | None = None


class Table(_Shape):
    """A table of the application."""

    type: str
    id: Name
    organization: Name | None = None
    parent: Parent | None = None
    attributes: dict[str, Attribute] = Field(default_factory=dict)
    stored: bool = False
    """Whether the decision point stores each row as it is here."""
    permissions: Permissions | None = None
    """None: the table is described because others are below it, and is not protected."""


class Config(_Shape):
    """The whole file."""

    roles: list[Name] = Field(min_length=1)
    """The roles that the application connects as. No other role has any rows."""
    pdp_schema: Name = "public"
    """Where the decision point's tables are."""
    tables: dict[TableName, Table] = Field(min_length=1)

    def protected(self) -> Mapping[str, Table]:
        """The tables that get policies."""
        return {name: table for name, table in self.tables.items() if table.permissions is not None}


def parse_config(text: str) -> Config:
    """Reads a configuration.

    Raises:
        InvalidPolicy: it is not YAML, or not of this shape.
    """
    root, violations = read_yaml(text)
    if violations:
        raise InvalidPolicy(*violations)
    data: Any = plain(root)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        found = []
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            path = problem["loc"]
            message = problem["msg"].removeprefix("Value error, ")
            where = ".".join(str(part) for part in path)
            found.append(Violation(where or "document", message, *spot_of(root, path)))
        raise InvalidPolicy(*found) from None
