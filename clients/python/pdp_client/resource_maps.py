"""What an adapter for queries is made of: descriptions of rows, and what a target can do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from pdp_filters import Kind, Operator, TextTest

C = TypeVar("C")
"""A condition of the target."""
E = TypeVar("E")
"""Rows of the target: a table or an alias of one, within some subqueries."""


# --- descriptions, as an application declares them ----------------------------------------------


class Absent:
    """An attribute that no row has."""


ABSENT: Final = Absent()


@dataclass(frozen=True, slots=True)
class NullAsValue:
    """A column of which NULL is sent as null. Without this, NULL means that the attribute is
    absent. Conditions tell the two apart: `has(resource.attributes.x)`."""

    column: Any


@dataclass(frozen=True, slots=True)
class One:
    """A relation to at most one row, sent as a map; absent without a row."""

    relation: Any
    fields: "Attributes"


@dataclass(frozen=True, slots=True)
class Many:
    """A relation to any number of rows, sent as a list: of the values of one column, or of maps."""

    relation: Any
    each: "Any | Attributes"


@dataclass(frozen=True, slots=True)
class Reference:
    """The parent, of which only the id is known here, and which the decision point does not
    store."""

    type: str
    id: Any


Attributes = Mapping[str, Any]
"""By name: a column, or one of the classes above."""


@dataclass(frozen=True, slots=True, eq=False)
class ResourceMap:
    """How the rows of one model are resources."""

    model: Any
    type: str
    id: Any
    organization: Any
    parent: Any
    """A relation to the rows of another described model, a `Reference`, or None."""
    attributes: Attributes
    stored: bool
    """Whether the decision point stores each row as it is here."""


# --- what a target does ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A column of some rows."""

    expression: Any
    kind: Kind
    name: str
    """For messages."""
    null: Kind = Kind.ABSENT
    """What NULL means: ABSENT or NULL."""
    blank_is_absent: bool = False
    """Whether an empty text means the same."""
    parse: Callable[[str], Any] | None = None
    """For a text that is not stored as one: the stored value, or None where no row has it."""


class Target(Protocol[C, E]):
    """What an adapter has to know."""

    true: C
    false: C

    def all(self, parts: list[C]) -> C:
        """Conjunction."""

    def any(self, parts: list[C]) -> C:
        """Disjunction."""

    def column(self, rows: E, column: Any, *, is_identifier: bool) -> Column:
        """A column of these rows. Raises FilterUnsupported for a type with no exact comparison."""

    def is_null(self, column: Column, *, wanted: bool) -> C:
        """Whether it is NULL (or, if that means the same, an empty text)."""

    def compare(self, operator: Operator, column: Column, value: Any) -> C:
        """Against a constant of the column's kind; for a `parse`d text, its stored value."""

    def compare_columns(self, operator: Operator, left: Column, right: Column) -> C:
        """Against a column of the same kind."""

    def one_of(self, column: Column, values: list[Any], *, negated: bool) -> C:
        """Against constants of the column's kind; at least one."""

    def match(self, test: TextTest, column: Column, text: str, *, negated: bool) -> C:
        """Of a column of kind TEXT."""

    def exists(self, rows: E, relation: Any, condition: Callable[[E], C], *, wanted: bool) -> C:
        """Whether a related row exists for which the condition is true; or that none does."""

    def not_true(self, condition: C) -> C:
        """True where the condition is false or NULL."""

    def has_no_parent(self, rows: E, relation: Any) -> C:
        """Whether the columns of a relation to one row are NULL."""

    def described(self, below: ResourceMap, relation: Any) -> ResourceMap:
        """The description of the rows that a relation of described rows leads to. Raises
        FilterUnsupported."""
