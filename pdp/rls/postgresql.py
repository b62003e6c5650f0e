"""How PostgreSQL compares columns and looks rows up, for `pdp_client.lowering`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pdp_client.plans import FilterUnsupported
from pdp_client.resource_maps import (
    ABSENT,
    Column,
    Many,
    NullAsValue,
    One,
    Reference,
    ResourceMap,
)
from pdp_client.stored_values import INT64, like_pattern, stored_integer, stored_uuid
from pdp_filters import Kind, Operator, TextTest

from pdp.rls.catalog import Catalog, ColumnInfo
from pdp.rls.config import Config, NullableColumn, Relation, Table
from pdp.rls.sql import SCHEMA, Functions, Ref, Scope, Sql, identifier, joined, literal, sql, texts

_KINDS: Final = {
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "int2": Kind.NUMBER,
    "int4": Kind.NUMBER,
    "int8": Kind.NUMBER,
    "float8": Kind.NUMBER,
    "numeric": Kind.NUMBER,
    "bool": Kind.BOOL,
}
"""Types whose values reach a question unchanged, as for `pdp_client.sqlalchemy`."""
INTEGERS: Final = ("int2", "int4", "int8")
_ARRAYS: Final = ("_text", "_varchar", "_int2", "_int4", "_int8", "_bool")
"""Of an array of other numbers, NaN becomes a text."""
_FAMILIES: Final = {"varchar": "text", **dict.fromkeys(INTEGERS, "integer")}
"""Types of columns that join: others only join their like."""
_OPERATORS: Final = {
    Operator.EQUAL: "=",
    Operator.NOT_EQUAL: "<>",
    Operator.LESS: "<",
    Operator.LESS_OR_EQUAL: "<=",
    Operator.GREATER: ">",
    Operator.GREATER_OR_EQUAL: ">=",
}
_EQUALITIES: Final = (Operator.EQUAL, Operator.NOT_EQUAL)
TRUE: Final = Sql(("true",))
FALSE: Final = Sql(("false",))


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a table in some FROM."""

    table: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class Typed:
    """A column in SQL, or something that compares like one."""

    sql: Sql
    base: str
    is_bytewise: bool = True


def describe(config: Config, name: str, table: Table) -> ResourceMap:
    """The description of the rows of a table, as adapters have it."""
    parent: Any = None
    if table.parent is not None and table.parent.table is not None:
        above = table.parent.table
        if above not in config.tables:
            raise ValueError(f"{name}: the table of its parent, {above}, is not described")
        on = {config.tables[above].id: table.parent.column}
        parent = Relation.model_construct(table=above, on=on, one={})
    elif table.parent is not None:
        parent = Reference(str(table.parent.type), table.parent.column)
    return ResourceMap(
        name,
        table.type,
        table.id,
        table.organization,
        parent,
        _fields(table.attributes),
        table.stored,
    )


def _fields(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _described(attribute) for name, attribute in attributes.items()}


def _described(attribute: Any) -> Any:
    match attribute:
        case None:
            return ABSENT
        case NullableColumn():
            return NullAsValue(attribute.column)
        case Relation(one=fields) if fields is not None:
            return One(attribute, _fields(fields))
        case Relation(many=fields) if fields is not None:
            return Many(attribute, _fields(fields))
        case Relation():
            return Many(attribute, attribute.column)
    return attribute


class PostgreSQL:
    """Writes single conditions for `pdp_client.lowering`."""

    true = TRUE
    false = FALSE

    def __init__(self, config: Config, catalog: Catalog, functions: Functions) -> None:
        self._config = config
        self._catalog = catalog
        self._functions = functions
        self._depth = 0

    @contextmanager
    def scope(self) -> Iterator[Scope]:
        """The rows of a subquery, with an alias that no query around it has."""
        self._depth += 1
        yield Scope(identifier(f"pdp_{self._depth}"))
        self._depth -= 1

    def all(self, parts: list[Sql]) -> Sql:
        """Conjunction."""
        return parts[0] if len(parts) == 1 else sql("(", joined(" AND ", parts), ")")

    def any(self, parts: list[Sql]) -> Sql:
        """Disjunction."""
        return parts[0] if len(parts) == 1 else sql("(", joined("\n    OR ", parts), ")")

    def column(self, rows: Rows, column: str, *, is_identifier: bool) -> Column:
        """A column of these rows. Raises FilterUnsupported for a type with no exact comparison."""
        found = self._info(rows.table, column)
        name = f"{rows.table}.{column}"
        ref = _ref(rows, column, found)
        typed = Typed(Sql((ref,)), found.base, found.is_bytewise)
        if is_identifier and found.base in INTEGERS:
            return Column(typed, Kind.TEXT, name, parse=stored_integer)
        if is_identifier and found.base == "uuid":
            return Column(typed, Kind.TEXT, name, parse=stored_uuid)
        kind = _KINDS.get(found.base)
        if kind is None or (is_identifier and kind is not Kind.TEXT):
            raise FilterUnsupported(f"the column {name} of type {found.type}")
        is_fraction = kind is Kind.NUMBER and found.base not in INTEGERS
        return Column(typed, kind, name, is_fraction=is_fraction)

    def as_jsonb(self, rows: Rows, column: str) -> Sql | None:
        """A column whose values are of any kind, or lists. None: it is another one."""
        found = self._info(rows.table, column)
        value = Sql((_ref(rows, column, found),))
        if found.base in _ARRAYS:
            return sql("to_jsonb(", value, ")")
        return value if found.base == "jsonb" else None

    def _info(self, table: str, column: str) -> ColumnInfo:
        try:
            return self._catalog[table].columns[column]
        except KeyError:
            raise FilterUnsupported(f"the table {table} has no column {column}") from None

    def is_null(self, column: Column, *, wanted: bool) -> Sql:
        """Whether it is NULL (or, if that means the same, an empty text)."""
        value = column.expression.sql
        if column.blank_is_absent:
            blank = sql(as_text(column, Operator.EQUAL), " = ''")
            if wanted:
                return sql("(", value, " IS NULL OR ", blank, ")")
            return sql("(", value, " IS NOT NULL AND NOT ", blank, ")")
        return sql("(", value, " IS NULL)" if wanted else " IS NOT NULL)")

    def compare(self, operator: Operator, column: Column, value: Any) -> Sql:
        """Against a constant of the column's kind."""
        typed: Typed = column.expression
        symbol = f" {_OPERATORS[operator]} "
        if column.parse is not None:
            # A constant may be beyond the integers of the column.
            type_ = "bigint" if typed.base in INTEGERS else typed.base
            return sql("(", typed.sql, symbol, f"{literal(str(value))}::{type_}", ")")
        if column.kind is Kind.NUMBER:
            if typed.base in INTEGERS and value.is_integer() and int(value) in INT64:
                return sql("(", typed.sql, symbol, f"{literal(str(int(value)))}::bigint)")
            number = f"{literal(repr(value))}::double precision"
            return sql("(", as_double(typed), symbol, number, ")")
        if column.kind is Kind.BOOL:
            return sql("(", typed.sql, symbol, "true)" if value else "false)")
        return sql("(", as_text(column, operator), symbol, literal(value), ")")

    def compare_columns(self, operator: Operator, left: Column, right: Column) -> Sql:
        """Against a column of the same kind."""
        sides = [left.expression.sql, right.expression.sql]
        if left.kind is Kind.TEXT:
            # By the bytes in any case: columns of two collations have no comparison of their own.
            sides = [as_text(side, Operator.LESS) for side in (left, right)]
        elif left.kind is Kind.NUMBER and not all(
            side.expression.base in INTEGERS for side in (left, right)
        ):
            sides = [as_double(side.expression) for side in (left, right)]
        return sql("(", sides[0], f" {_OPERATORS[operator]} ", sides[1], ")")

    def one_of(self, column: Column, values: list[Any], *, negated: bool) -> Sql:
        """Against constants of the column's kind; at least one."""
        operator = Operator.NOT_EQUAL if negated else Operator.EQUAL
        if column.kind is not Kind.TEXT or column.parse is not None:
            parts = [self.compare(operator, column, value) for value in values]
            return self.all(parts) if negated else self.any(parts)
        quantified = " <> ALL (" if negated else " = ANY ("
        return sql("(", as_text(column, operator), quantified, texts(values), "))")

    def match(self, test: TextTest, column: Column, text: str, *, negated: bool) -> Sql:
        """Of a column of kind TEXT."""
        pattern = literal(like_pattern(test, text))
        like = " NOT LIKE " if negated else " LIKE "
        return sql("(", column.expression.sql, ' COLLATE "C"', like, pattern, " ESCAPE '\\')")

    def exists(
        self, rows: Rows, relation: Relation, condition: Callable[[Rows], Sql], *, wanted: bool
    ) -> Sql:
        """Whether a related row exists for which the condition is true; or that none does."""
        with self.scope() as scope:
            related = Rows(relation.table, scope)
            inner = condition(related)
        matches = [self._equal(related, there, rows, here) for there, here in relation.on.items()]
        inner = self.all([*matches, inner])
        schema, _, table = relation.table.partition(".")
        qualified = f"{identifier(schema)}.{identifier(table)}"
        found = self._functions.exists(qualified, scope, inner)
        return found if wanted else sql("NOT ", found)

    def _equal(self, related: Rows, there: str, rows: Rows, here: str) -> Sql:
        one, other = self._info(related.table, there), self._info(rows.table, here)
        if _FAMILIES.get(one.base, one.base) != _FAMILIES.get(other.base, other.base):
            raise FilterUnsupported(
                f"{related.table}.{there} of type {one.type} beside {rows.table}.{here} of type"
                f" {other.type}"
            )
        return sql("(", _ref(related, there, one), " = ", _ref(rows, here, other), ")")

    def not_true(self, condition: Sql) -> Sql:
        """True where the condition is false or NULL."""
        return sql("((", condition, ") IS NOT TRUE)")

    def has_no_parent(self, rows: Rows, relation: Relation) -> Sql:
        """Whether the columns of a relation to one row are NULL."""
        refs = (_ref(rows, here, self._info(rows.table, here)) for here in relation.on.values())
        return self.any([sql("(", ref, " IS NULL)") for ref in refs])

    def described(self, below: ResourceMap, relation: Relation) -> ResourceMap:
        """The description of the rows that a relation leads to."""
        return describe(self._config, relation.table, self._config.tables[relation.table])


def _ref(rows: Rows, column: str, info: ColumnInfo) -> Ref:
    return Ref(f"{rows.scope.alias}.{identifier(column)}", info.type, rows.scope)


def as_text(column: Column, operator: Operator) -> Sql:
    """A text whose equality, and with other operators whose order, is that of its bytes."""
    # Equality is bytewise under every deterministic collation, and an index serves it.
    typed: Typed = column.expression
    if operator in _EQUALITIES and typed.is_bytewise:
        return typed.sql
    return sql("(", typed.sql, ' COLLATE "C")')


def as_double(typed: Typed) -> Sql:
    """A number as a question has it."""
    if typed.base == "numeric":
        return sql(f"{SCHEMA}.double_of(", typed.sql, ")")
    return typed.sql if typed.base == "float8" else sql("(", typed.sql, ")::double precision")
