"""Parts of an adapter for queries: descriptions of rows, and the operations of a target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from pdp_filters import Kind, Operator, TextTest

C = TypeVar("C")
"""A condition of the target."""
E = TypeVar("E")
"""Rows of the target: a table or an alias of a table, inside of some subqueries."""


# --- descriptions, as an application declares them ----------------------------------------------


class Absent:
    """An attribute that no row has."""


ABSENT: Final = Absent()


@dataclass(frozen=True, slots=True)
class NullAsValue:
    """A column whose NULL is sent as null. Otherwise NULL means that the attribute is absent.
    Conditions distinguish the two: `has(resource.attributes.x)`."""

    column: Any


@dataclass(frozen=True, slots=True)
class One:
    """A relation to at most one row, sent as a map; absent if there is no row."""

    relation: Any
    fields: "Attributes"


@dataclass(frozen=True, slots=True)
class Many:
    """A relation to any number of rows, sent as a list: of the values of a column, or of maps."""

    relation: Any
    each: "Any | Attributes"


@dataclass(frozen=True, slots=True)
class Reference:
    """A parent whose id alone is known here, and which the decision point does not store."""

    type: str
    id: Any


Attributes = Mapping[str, Any]
"""Attributes by name: a column, or one of the classes above."""


@dataclass(frozen=True, slots=True, eq=False)
class ResourceMap:
    """Describes the rows of a model as resources."""

    model: Any
    type: str
    id: Any
    organization: Any
    parent: Any
    """A relation to the rows of another described model, a `Reference`, or None."""
    attributes: Attributes
    stored: bool
    """Whether the decision point stores each row with the same values."""


# --- what a target does ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A column of some rows."""

    expression: Any
    kind: Kind
    name: str
    """The name in messages."""
    null: Kind = Kind.ABSENT
    """The meaning of NULL: ABSENT or NULL."""
    is_fraction: bool = False
    """Whether rows may hold numbers that no question holds: NaN, infinities, and decimals beyond
    every double."""
    blank_is_absent: bool = False
    """Whether an empty text has the meaning of NULL."""
    parse: Callable[[str], Any] | None = None
    """For a text that is stored as another type: returns the stored value, or None if no row can
    have it."""


class Target(Protocol[C, E]):
    """The operations that an adapter provides."""

    true: C
    false: C

    def all(self, parts: list[C]) -> C:
        """Conjunction."""

    def any(self, parts: list[C]) -> C:
        """Disjunction."""

    def column(self, rows: E, column: Any, *, is_identifier: bool) -> Column:
        """A column of these rows. Raises FilterUnsupported for a type with no exact comparison."""

    def is_null(self, column: Column, *, wanted: bool) -> C:
        """The column is NULL (or an empty text, if that means the same)."""

    def compare(self, operator: Operator, column: Column, value: Any) -> C:
        """Compares with a constant of the column's kind; for a `parse`d text, with its stored
        value. Fails for no row: a decimal that no double holds compares as NULL."""

    def compare_columns(self, operator: Operator, left: Column, right: Column) -> C:
        """Compares with a column of the same kind."""

    def one_of(self, column: Column, values: list[Any], *, negated: bool) -> C:
        """Compares with at least one constant of the column's kind."""

    def match(self, test: TextTest, column: Column, text: str, *, negated: bool) -> C:
        """Tests a column of kind TEXT."""

    def exists(self, rows: E, relation: Any, condition: Callable[[E], C], *, wanted: bool) -> C:
        """A related row exists for which the condition is true; or none does."""

    def not_true(self, condition: C) -> C:
        """True if the condition is false or NULL."""

    def has_no_parent(self, rows: E, relation: Any) -> C:
        """The columns of a to-one relation are NULL."""

    def described(self, below: ResourceMap, relation: Any) -> ResourceMap:
        """The description of the rows that a relation leads to. Raises FilterUnsupported."""
