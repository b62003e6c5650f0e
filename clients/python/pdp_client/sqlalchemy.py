"""Lists with SQLAlchemy: a plan becomes a `WHERE` of a query over the application's own tables.

    register(
        Course, "course",
        id=Course.id, organization=Course.organization_id, parent=Course.catalog,
        attributes={"owner": Course.owner_id, "tags": Many(Course.tags, Tag.name)},
    )
    plan = guard.plan(token, "course:view", "course")
    query = select(Course).where(where(plan, Course))

In:  a plan, and a model that was registered once.
Out: a `ColumnElement[bool]` that is true for exactly the rows for which a `Check` of
     `resource_of(row)` allows. Both use the same description, so they cannot differ.

Invariants:
- Relations are `EXISTS`, never joins: no row occurs twice, and other conditions stay unchanged.
- Texts compare byte for byte on PostgreSQL and SQLite, whatever the collation. Other databases, and
  column types whose values change on their way to a question, are refused by name.
- Only conditions that are never NULL are negated, so NULL never allows.
"""

from collections.abc import Callable
from typing import Any, Final

import sqlalchemy as sa
from pdp_filters import Kind, Operator, TextTest
from sqlalchemy import ColumnElement, types
from sqlalchemy.orm import QueryableAttribute, RelationshipProperty, aliased
from sqlalchemy.sql.functions import FunctionElement

from pdp_client.described_rows import describe, described_for, description_of, resource_from
from pdp_client.lowering import lower
from pdp_client.plans import FilterUnsupported, Plan
from pdp_client.resource_maps import (
    ABSENT,
    Attributes,
    Column,
    Many,
    NullAsValue,
    One,
    Reference,
    ResourceMap,
)
from pdp_client.sqlalchemy_functions import DOUBLES, MATCHES, AsDouble, Bytes, Equality
from pdp_client.stored_values import INT64, stored_integer, stored_uuid
from pdp_client.values import Resource

__all__ = [
    "ABSENT",
    "FilterUnsupported",
    "Many",
    "NullAsValue",
    "One",
    "Reference",
    "register",
    "resource_of",
    "where",
]


def register(
    model: type,
    resource_type: str,
    *,
    id: QueryableAttribute[Any],  # noqa: A002  # the word of the contract
    organization: QueryableAttribute[Any] | None = None,
    parent: QueryableAttribute[Any] | Reference | None = None,
    attributes: Attributes | None = None,
    stored: bool = False,
) -> None:
    """Describes the rows of a model as resources. Call it once per model.

    Args:
        model: a mapped class.
        resource_type: the type of its rows, such as `course`.
        id: the column with the resource's id: a text, an integer or a UUID.
        organization: the column with the Clerk organization that owns the row; NULL and an empty
            text mean that it is unknown. None: it is unknown for all rows.
        parent: a many-to-one relation to rows of a registered model, which the decision point
            stores with the same values; or a `Reference` to a parent that it does not store.
        attributes: the contents of `resource.attributes`, by name. A plan that reads an attribute
            that is missing here is refused, unless it is `ABSENT`.
        stored: whether the decision point stores each row with the same values.
    """
    describe(ResourceMap(model, resource_type, id, organization, parent, attributes or {}, stored))


def where(plan: Plan, entity: Any) -> ColumnElement[bool]:
    """The condition on the rows of a registered model, or of an alias of it.

    Raises:
        FilterUnsupported: the plan is for another type, or cannot be expressed exactly.
        sqlalchemy.exc.CompileError: later, if the statement is compiled for another database than
            PostgreSQL or SQLite.
    """
    described = described_for(plan, sa.inspect(entity).mapper.class_)
    return lower(plan.filter, _Target(), entity, described)


def resource_of(row: object) -> Resource:
    """The resource that a row describes, to pass to `Guard.check`.

    Loads the relations that the description names. Raises FilterUnsupported if the model is not
    registered.
    """
    return resource_from(row, _read, _read)


def _read(row: object, attribute: QueryableAttribute[Any]) -> Any:
    return getattr(row, attribute.key)


# --- what SQLAlchemy does -------------------------------------------------------------------------

_TEXTS: Final = (types.String, types.Text, types.Unicode, types.UnicodeText)
_TEXTS_IN_SQL: Final = (types.VARCHAR, types.NVARCHAR, types.TEXT)
_INTEGERS: Final = (types.Integer, types.SmallInteger, types.BigInteger)
_INTEGERS_IN_SQL: Final = (types.INTEGER, types.SMALLINT, types.BIGINT)
_DECIMALS: Final = (types.Numeric, types.NUMERIC, types.DECIMAL)
_KINDS: Final[dict[type, Kind]] = {
    **dict.fromkeys((*_TEXTS, *_TEXTS_IN_SQL), Kind.TEXT),
    **dict.fromkeys((*_INTEGERS, *_INTEGERS_IN_SQL, *DOUBLES, *_DECIMALS), Kind.NUMBER),
    **dict.fromkeys((types.Boolean, types.BOOLEAN), Kind.BOOL),
}
"""Types whose values reach a question unchanged. Subclasses are not among them: CHAR pads, CITEXT
folds, an Enum or a decorated type has another value than it stores."""
_FLOAT_BITS_MAX: Final = 24
"""FLOAT(24) and below is a 32-bit float in PostgreSQL, whose text form is another number."""
_CONDITIONS: Final = {
    Operator.EQUAL: "__eq__",
    Operator.NOT_EQUAL: "__ne__",
    Operator.LESS: "__lt__",
    Operator.LESS_OR_EQUAL: "__le__",
    Operator.GREATER: "__gt__",
    Operator.GREATER_OR_EQUAL: "__ge__",
}
_EQUALITIES: Final = (Operator.EQUAL, Operator.NOT_EQUAL)

Condition = ColumnElement[bool]


class _Target:
    """Writes single conditions for `pdp_client.lowering`. Rows are mapped classes or aliases."""

    true: Condition = sa.true()
    false: Condition = sa.false()

    def all(self, parts: list[Condition]) -> Condition:
        return sa.and_(*parts)

    def any(self, parts: list[Condition]) -> Condition:
        return sa.or_(*parts)

    def column(self, rows: Any, column: Any, *, is_identifier: bool) -> Column:
        if not issubclass(sa.inspect(rows).mapper.class_, column.class_):
            raise FilterUnsupported(f"the column {column}, which the relation does not lead to")
        expression = getattr(rows, column.key)
        type_ = expression.type
        kind = _KINDS.get(type(type_))
        if isinstance(type_, types.Float) and (type_.precision or 53) <= _FLOAT_BITS_MAX:
            kind = None
        if is_identifier and isinstance(type_, types.Uuid):
            return Column(expression, Kind.TEXT, str(column), parse=stored_uuid)
        if is_identifier and type(type_) in (*_INTEGERS, *_INTEGERS_IN_SQL):
            return Column(expression, Kind.TEXT, str(column), parse=stored_integer)
        if kind is None or (is_identifier and kind is not Kind.TEXT):
            raise FilterUnsupported(f"the column {column} of type {type_!r}")
        is_fraction = kind is Kind.NUMBER and not _is_integer(expression)
        return Column(expression, kind, str(column), is_fraction=is_fraction)

    def is_null(self, column: Column, *, wanted: bool) -> Condition:
        expression = column.expression
        if column.blank_is_absent:
            blank = _as_text(column, Operator.EQUAL) == _bound("", types.String())
            if wanted:
                return sa.or_(expression.is_(None), blank)
            return sa.and_(expression.is_not(None), sa.not_(blank))
        return expression.is_(None) if wanted else expression.is_not(None)  # type: ignore[no-any-return]

    def compare(self, operator: Operator, column: Column, value: Any) -> Condition:
        if column.parse is not None:
            left, right = column.expression, _bound(value, _id_type(column.expression))
        elif column.kind is Kind.NUMBER:
            left, right = _number(column.expression, value)
        elif column.kind is Kind.BOOL:
            left, right = column.expression, _bound(value, types.Boolean())
        else:
            left, right = _as_text(column, operator), _bound(value, types.String())
        return getattr(left, _CONDITIONS[operator])(right)  # type: ignore[no-any-return]

    def compare_columns(self, operator: Operator, left: Column, right: Column) -> Condition:
        sides = [left.expression, right.expression]
        if left.kind is Kind.TEXT:
            # By the bytes in any case: columns of two collations have no comparison of their own.
            sides = [Bytes(column.expression) for column in (left, right)]
        elif left.kind is Kind.NUMBER and not all(map(_is_integer, sides)):
            sides = [AsDouble(side) for side in sides]
        return getattr(sides[0], _CONDITIONS[operator])(sides[1])  # type: ignore[no-any-return]

    def one_of(self, column: Column, values: list[Any], *, negated: bool) -> Condition:
        operator = Operator.NOT_EQUAL if negated else Operator.EQUAL
        if column.kind is not Kind.TEXT:
            parts = [self.compare(operator, column, value) for value in values]
            return sa.and_(*parts) if negated else sa.or_(*parts)
        if column.parse is not None:
            left, type_ = column.expression, _id_type(column.expression)
        else:
            left, type_ = _as_text(column, operator), types.String()
        among = sa.bindparam(None, values, type_=type_, expanding=True)
        found: Condition = left.not_in(among) if negated else left.in_(among)
        return found

    def match(self, test: TextTest, column: Column, text: str, *, negated: bool) -> Condition:
        found = MATCHES[test](column.expression, text)
        return sa.not_(found) if negated else found

    def exists(
        self, rows: Any, relation: Any, condition: Callable[[Any], Condition], *, wanted: bool
    ) -> Condition:
        related = aliased(_relation(relation).mapper.class_)
        attribute = getattr(rows, relation.key).of_type(related)
        inner = condition(related)
        is_list = _relation(relation).uselist
        found: Condition = attribute.any(inner) if is_list else attribute.has(inner)
        return found if wanted else sa.not_(found)

    def not_true(self, condition: Condition) -> Condition:
        return condition.is_not(sa.true())

    def has_no_parent(self, rows: Any, relation: Any) -> Condition:
        mapper = sa.inspect(relation.class_)
        local = _relation(relation).local_columns
        columns = (mapper.get_property_by_column(column) for column in local)
        return sa.or_(*(getattr(rows, column.key).is_(None) for column in columns))

    def described(self, below: ResourceMap, relation: Any) -> ResourceMap:
        found = _relation(relation)
        if found.uselist:
            raise FilterUnsupported(f"the parent {relation} is not one row")
        return description_of(found.mapper.class_)


def _relation(attribute: Any) -> RelationshipProperty[Any]:
    found = getattr(attribute, "property", None)
    if not isinstance(found, RelationshipProperty):
        raise FilterUnsupported(f"{attribute} is not a relationship")
    return found


def _bound(value: Any, type_: types.TypeEngine[Any]) -> Any:
    return sa.bindparam(None, value, type_=type_)


def _is_integer(expression: Any) -> bool:
    return isinstance(expression.type, types.Integer)


def _number(expression: Any, value: float) -> tuple[Any, Any]:
    """Both sides of a comparison: as integers, which uses indexes, or as doubles."""
    if _is_integer(expression) and value.is_integer() and int(value) in INT64:
        return expression, _bound(int(value), types.BigInteger())
    return AsDouble(expression), _bound(value, types.Double())


def _id_type(expression: Any) -> types.TypeEngine[Any]:
    """Of a constant beside an id. An integer is one of 64 bits: it may be beyond the column's."""
    return types.BigInteger() if _is_integer(expression) else expression.type


def _as_text(column: Column, operator: Operator) -> FunctionElement[str]:
    # Equality is bytewise under every deterministic collation, and an index serves it.
    is_plain = operator in _EQUALITIES and column.expression.type.collation is None
    return Equality(column.expression) if is_plain else Bytes(column.expression)
