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

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from pdp_filters import Kind, Operator, TextTest
from sqlalchemy import ColumnElement, types
from sqlalchemy.exc import CompileError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import QueryableAttribute, RelationshipProperty, aliased
from sqlalchemy.sql.functions import FunctionElement

from pdp_client.lowering import double_of_decimal, lower
from pdp_client.plans import FilterUnsupported, Plan
from pdp_client.resource_maps import (
    ABSENT,
    Absent,
    Attributes,
    Column,
    Many,
    NullAsValue,
    One,
    Reference,
    ResourceMap,
)
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

_described: WeakKeyDictionary[type, ResourceMap] = WeakKeyDictionary()


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
    _described[model] = ResourceMap(
        model, resource_type, id, organization, parent, attributes or {}, stored
    )


def where(plan: Plan, entity: Any) -> ColumnElement[bool]:
    """The condition on the rows of a registered model, or of an alias of it.

    Raises:
        FilterUnsupported: the plan is for another type, or cannot be expressed exactly.
        sqlalchemy.exc.CompileError: later, if the statement is compiled for another database than
            PostgreSQL or SQLite.
    """
    described = _description(sa.inspect(entity).mapper.class_)
    if described.type != plan.resource_type:
        raise FilterUnsupported(
            f"the plan is for resources of type {plan.resource_type}, and the model's are"
            f" {described.type}"
        )
    return lower(plan.filter, _Target(), entity, described)


def resource_of(row: object) -> Resource:
    """The resource that a row describes, to pass to `Guard.check`.

    Loads the relations that the description names. Raises FilterUnsupported if the model is not
    registered.
    """
    described = _description(type(row))
    parent = described.parent
    above = None
    if isinstance(parent, Reference):
        value = _value(row, parent.id)
        above = None if value is None else Resource(parent.type, str(value))
    elif parent is not None and (related := _value(row, parent)) is not None:
        above_described = _description(type(related))
        above = Resource(above_described.type, str(_value(related, above_described.id)))
    organization = None if described.organization is None else _value(row, described.organization)
    return Resource(
        described.type,
        str(_value(row, described.id)),
        organization_id=None if organization in (None, "") else str(organization),
        parent=above,
        attributes=_attributes(row, described.attributes),
    )


def _description(model: type) -> ResourceMap:
    try:
        return _described[model]
    except KeyError:
        raise FilterUnsupported(f"{model.__name__} is not registered") from None


def _attributes(row: object, fields: Attributes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in fields.items():
        match field:
            case Absent():
                continue
            case One(relation, inner):
                related = _value(row, relation)
                if related is not None:
                    found[name] = _attributes(related, inner)
            case Many(relation, each):
                found[name] = [
                    _attributes(related, each)
                    if isinstance(each, Mapping)
                    else _scalar(related, each)
                    for related in _value(row, relation)
                ]
            case NullAsValue(column):
                found[name] = _scalar(row, column)
            case column:
                value = _scalar(row, column)
                if value is not None:
                    found[name] = value
    return found


def _scalar(row: object, column: QueryableAttribute[Any]) -> Any:
    value = _value(row, column)
    if value is None or isinstance(value, str | bool):
        return value
    return float(value)


def _value(row: object, attribute: QueryableAttribute[Any]) -> Any:
    return getattr(row, attribute.key)


# --- what SQLAlchemy does -------------------------------------------------------------------------

_TEXTS: Final = (types.String, types.Text, types.Unicode, types.UnicodeText)
_TEXTS_IN_SQL: Final = (types.VARCHAR, types.NVARCHAR, types.TEXT)
_INTEGERS: Final = (types.Integer, types.SmallInteger, types.BigInteger)
_INTEGERS_IN_SQL: Final = (types.INTEGER, types.SMALLINT, types.BIGINT)
_DOUBLES: Final = (types.Float, types.Double, types.FLOAT, types.DOUBLE, types.DOUBLE_PRECISION)
_DECIMALS: Final = (types.Numeric, types.NUMERIC, types.DECIMAL)
_KINDS: Final[dict[type, Kind]] = {
    **dict.fromkeys((*_TEXTS, *_TEXTS_IN_SQL), Kind.TEXT),
    **dict.fromkeys((*_INTEGERS, *_INTEGERS_IN_SQL, *_DOUBLES, *_DECIMALS), Kind.NUMBER),
    **dict.fromkeys((types.Boolean, types.BOOLEAN), Kind.BOOL),
}
"""Types whose values reach a question unchanged. Subclasses are not among them: CHAR pads, CITEXT
folds, an Enum or a decorated type has another value than it stores."""
_FLOAT_BITS_MAX: Final = 24
"""FLOAT(24) and below is a 32-bit float in PostgreSQL, whose text form is another number."""
_INT64: Final = range(-(2**63), 2**63)
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
            return Column(expression, Kind.TEXT, str(column), parse=_uuid)
        if is_identifier and type(type_) in (*_INTEGERS, *_INTEGERS_IN_SQL):
            return Column(expression, Kind.TEXT, str(column), parse=_integer)
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
            sides = [_Bytes(column.expression) for column in (left, right)]
        elif left.kind is Kind.NUMBER and not all(map(_is_integer, sides)):
            sides = [_Double(side) for side in sides]
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
        found = _MATCHES[test](column.expression, text)
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
        return _description(found.mapper.class_)


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
    if _is_integer(expression) and value.is_integer() and int(value) in _INT64:
        return expression, _bound(int(value), types.BigInteger())
    return _Double(expression), _bound(value, types.Double())


def _id_type(expression: Any) -> types.TypeEngine[Any]:
    """Of a constant beside an id. An integer is one of 64 bits: it may be beyond the column's."""
    return types.BigInteger() if _is_integer(expression) else expression.type


def _integer(text: str) -> int | None:
    try:
        value = int(text)
    except ValueError:
        return None
    return value if str(value) == text and value in _INT64 else None


def _uuid(text: str) -> UUID | None:
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text else None


def _as_text(column: Column, operator: Operator) -> "FunctionElement[str]":
    # Equality is bytewise under every deterministic collation, and an index serves it.
    is_plain = operator in _EQUALITIES and column.expression.type.collation is None
    return _Equality(column.expression) if is_plain else _Bytes(column.expression)


class _Double(FunctionElement[float]):
    """A number as a question has it; NULL if no question holds it."""

    type = types.Double()
    inherit_cache = True


class _Bytes(FunctionElement[str]):
    """A text that compares by its bytes."""

    type = types.String()
    inherit_cache = True


class _Equality(FunctionElement[str]):
    """A text that compares for equality by its bytes, in a column without its own collation."""

    type = types.String()
    inherit_cache = True


class _Match(FunctionElement[bool]):
    """A search in a text, byte for byte."""

    type = types.Boolean()
    inherit_cache = True

    def __init__(self, column: Any, text: str, before: str, after: str) -> None:
        escaped = text
        for character in ("\\", "%", "_"):
            escaped = escaped.replace(character, "\\" + character)
        pattern = _bound(before + escaped + after, types.String())
        super().__init__(column, pattern, _bound(text, types.String()))


class _Prefix(_Match):
    inherit_cache = True

    def __init__(self, column: Any, text: str) -> None:
        super().__init__(column, text, "", "%")


class _Suffix(_Match):
    inherit_cache = True

    def __init__(self, column: Any, text: str) -> None:
        super().__init__(column, text, "%", "")


class _Contains(_Match):
    inherit_cache = True

    def __init__(self, column: Any, text: str) -> None:
        super().__init__(column, text, "%", "%")


_MATCHES: Final = {
    TextTest.PREFIX: _Prefix,
    TextTest.SUFFIX: _Suffix,
    TextTest.CONTAINS: _Contains,
}


@compiles(_Double)
@compiles(_Bytes)
@compiles(_Equality)
@compiles(_Match)
def _refuse(element: Any, compiler: Any, **_: Any) -> str:
    raise CompileError(
        "filters of the policy decision point are exact on PostgreSQL and SQLite; this is"
        f" {compiler.dialect.name}"
    )


def _sides(element: Any, compiler: Any, options: Any) -> list[str]:
    return [compiler.process(side, **options) for side in element.clauses]


@compiles(_Double, "postgresql")
def _double_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    [number] = _sides(element, compiler, options)
    [column] = element.clauses
    if type(column.type) in _DOUBLES:
        return number
    double = f"CAST({number} AS DOUBLE PRECISION)"
    return double if _is_integer(column) else double_of_decimal(number)


@compiles(_Double, "sqlite")
def _double_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return _sides(element, compiler, options)[0]  # it compares any two numbers by their values


@compiles(_Equality, "postgresql")
def _equality_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return _sides(element, compiler, options)[0]


@compiles(_Bytes, "postgresql")
def _bytes_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f'({_sides(element, compiler, options)[0]} COLLATE "C")'


@compiles(_Equality, "sqlite")
@compiles(_Bytes, "sqlite")
def _bytes_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return f"({_sides(element, compiler, options)[0]} COLLATE BINARY)"


@compiles(_Match, "postgresql")
def _match_on_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    column, pattern, _ = element.clauses
    text = compiler.process(column, **options)
    return f"({text} COLLATE \"C\" LIKE {compiler.process(pattern, **options)} ESCAPE '\\')"


def _column_and_text(element: Any, compiler: Any, options: Any) -> tuple[str, str]:
    column, _, text = element.clauses
    return compiler.process(column, **options), compiler.process(text, **options)


# On SQLite, LIKE ignores the case of ASCII letters.


@compiles(_Prefix, "sqlite")
def _prefix_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    column, text = _column_and_text(element, compiler, options)
    return f"(substr({column}, 1, length({text})) = {text} COLLATE BINARY)"


@compiles(_Suffix, "sqlite")
def _suffix_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    column, text = _column_and_text(element, compiler, options)
    return f"(substr({column}, -length({text})) = {text} COLLATE BINARY)"


@compiles(_Contains, "sqlite")
def _contains_on_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    column, text = _column_and_text(element, compiler, options)
    return f"(instr({column}, {text}) > 0)"
