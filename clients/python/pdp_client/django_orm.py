"""Lists with Django: a plan becomes a `filter` of a queryset.

    register(
        Course, "course",
        id="id", organization="organization_id", parent="catalog",
        attributes={"owner": "owner_id", "tags": Many("tags", "name")},
    )
    plan = guard.plan(token, "course:view", "course")
    courses = Course.objects.filter(q(plan, Course))

Columns and relations have their names in the model. The invariants are those of
`pdp_client.sqlalchemy`: the same description for the filter and for the question, `EXISTS` instead
of joins, texts byte for byte on PostgreSQL and SQLite; anything else is refused by name.
"""

from collections.abc import Callable
from typing import Any, Final

from django.core.exceptions import FieldDoesNotExist, ObjectDoesNotExist
from django.db import models
from django.db.models import Case, Exists, F, Func, OuterRef, Q, Value, When
from django.db.models.lookups import In, IsNull
from pdp_filters import Kind, Operator, TextTest

from pdp_client.described_rows import describe, described_for, description_of, resource_from
from pdp_client.django_functions import (
    MATCHES,
    Bytes,
    CastToDouble,
    Comparison,
    DecimalToDouble,
    Equality,
    Not,
)
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
from pdp_client.stored_values import INT64, like_pattern, stored_integer, stored_uuid
from pdp_client.values import Resource

__all__ = [
    "ABSENT",
    "FilterUnsupported",
    "Many",
    "NullAsValue",
    "One",
    "Reference",
    "q",
    "register",
    "resource_of",
]


def register(
    model: type,
    resource_type: str,
    *,
    id: str = "pk",  # noqa: A002  # the word of the contract
    organization: str | None = None,
    parent: str | Reference | None = None,
    attributes: Attributes | None = None,
    stored: bool = False,
) -> None:
    """Describes the rows of a model as resources. Call it once per model.

    The arguments have the meaning of `pdp_client.sqlalchemy.register`, with the names of fields
    (`owner_id` for the column of a foreign key) and of relations.
    """
    describe(ResourceMap(model, resource_type, id, organization, parent, attributes or {}, stored))


def q(plan: Plan, model: type) -> Q:
    """The condition on the rows of a registered model.

    Raises:
        FilterUnsupported: the plan is for another type, or cannot be expressed exactly.
        django.db.NotSupportedError: later, if the query is for another database than PostgreSQL or
            SQLite.
    """
    described = described_for(plan, model)
    return lower(plan.filter, _Target(), _Rows(model, 0), described)


def resource_of(row: models.Model) -> Resource:
    """The resource that a row describes, to pass to `Guard.check`.

    Loads the relations that the description names. Raises FilterUnsupported if the model is not
    registered.
    """
    return resource_from(row, _read, lambda row, relation: getattr(row, relation).all())


def _read(row: Any, name: str) -> Any:
    try:
        return getattr(row, name)
    except ObjectDoesNotExist:  # a reverse relation without a row
        return None


# --- what Django does -----------------------------------------------------------------------------

_TEXTS: Final = (models.CharField, models.TextField, models.SlugField, models.EmailField)
_INTEGERS: Final = (
    *(models.IntegerField, models.BigIntegerField, models.SmallIntegerField),
    *(models.PositiveIntegerField, models.PositiveBigIntegerField),
    *(models.PositiveSmallIntegerField, models.AutoField, models.BigAutoField),
    models.SmallAutoField,
)
_KINDS: Final[dict[type, Kind]] = {
    **dict.fromkeys((*_TEXTS, models.URLField), Kind.TEXT),
    **dict.fromkeys((*_INTEGERS, models.FloatField, models.DecimalField), Kind.NUMBER),
    models.BooleanField: Kind.BOOL,
}
"""Fields whose values reach a question unchanged. Subclasses are not among them: an application's
own field may store another value than it shows."""


class _Rows:
    """The rows of a model, inside of `depth` subqueries."""

    def __init__(self, model: type, depth: int) -> None:
        self.model: Any = model
        self.depth = depth


class _Reference:
    """A column as declared, with the depth of its rows."""

    def __init__(self, rows: _Rows, field: Any) -> None:
        self.depth = rows.depth
        self.name = field.attname
        while field.remote_field is not None:
            field = field.target_field
        self.field = field
        self.is_integer = type(field) in _INTEGERS


class _Target:
    """Writes single conditions for `pdp_client.lowering`. Made for a single filter."""

    true = Q(Value(value=True, output_field=models.BooleanField()))
    false = Q(Value(value=False, output_field=models.BooleanField()))

    def __init__(self) -> None:
        self._depth = 0
        """The number of subqueries around the current condition."""

    def all(self, parts: list[Q]) -> Q:
        return Q(*parts)

    def any(self, parts: list[Q]) -> Q:
        return Q(*parts, _connector=Q.OR)

    def column(self, rows: _Rows, column: str, *, is_identifier: bool) -> Column:
        reference = _Reference(rows, _field(rows.model, column))
        kind = _KINDS.get(type(reference.field))
        name = f"{rows.model.__name__}.{column}"
        if is_identifier and type(reference.field) is models.UUIDField:
            return Column(reference, Kind.TEXT, name, parse=stored_uuid)
        if is_identifier and reference.is_integer:
            return Column(reference, Kind.TEXT, name, parse=stored_integer)
        if kind is None or (is_identifier and kind is not Kind.TEXT):
            type_name = type(reference.field).__name__
            raise FilterUnsupported(f"the column {name} of type {type_name}")
        is_fraction = kind is Kind.NUMBER and not reference.is_integer
        return Column(reference, kind, name, is_fraction=is_fraction)

    def is_null(self, column: Column, *, wanted: bool) -> Q:
        is_null = Q(IsNull(self._read(column), wanted))
        if not column.blank_is_absent:
            return is_null
        operator = Operator.EQUAL if wanted else Operator.NOT_EQUAL
        blank = Q(_compared(operator, self._text(column, operator), Value("")))
        return is_null | blank if wanted else is_null & blank

    def compare(self, operator: Operator, column: Column, value: Any) -> Q:
        read = self._read(column)
        if column.parse is not None:
            field = column.expression.field
            return Q(_compared(operator, read, Value(value, output_field=field)))
        if column.kind is Kind.NUMBER:
            if column.expression.is_integer and value.is_integer() and int(value) in INT64:
                return Q(_compared(operator, read, Value(int(value))))
            return Q(_compared(operator, _double(column, read), CastToDouble(Value(value))))
        if column.kind is Kind.BOOL:
            return Q(_compared(operator, read, Value(value)))
        return Q(_compared(operator, self._text(column, operator), Value(value)))

    def compare_columns(self, operator: Operator, left: Column, right: Column) -> Q:
        if left.kind is Kind.TEXT:
            # By the bytes in any case: columns of two collations have no comparison of their own.
            sides = [Bytes(self._read(column)) for column in (left, right)]
        elif left.kind is Kind.NUMBER:
            sides = [_double(column, self._read(column)) for column in (left, right)]
        else:
            sides = [self._read(column) for column in (left, right)]
        return Q(_compared(operator, *sides))

    def one_of(self, column: Column, values: list[Any], *, negated: bool) -> Q:
        operator = Operator.NOT_EQUAL if negated else Operator.EQUAL
        if column.kind is not Kind.TEXT:
            parts = [self.compare(operator, column, value) for value in values]
            return self.all(parts) if negated else self.any(parts)
        parsed = column.parse is not None
        left = self._read(column) if parsed else self._text(column, operator)
        found = In(left, values)
        return Q(Not(found)) if negated else Q(found)

    def match(self, test: TextTest, column: Column, text: str, *, negated: bool) -> Q:
        found = MATCHES[test](
            self._read(column), Value(like_pattern(test, text)), Value(text), Value(text)
        )
        return Q(Not(found)) if negated else Q(found)

    def exists(
        self, rows: _Rows, relation: str, condition: Callable[[_Rows], Q], *, wanted: bool
    ) -> Q:
        field = _relation(rows.model, relation)
        self._depth += 1
        related = _Rows(field.related_model, self._depth)
        if field.many_to_many:
            reverse = field.remote_field.name if field.auto_created else field.related_query_name()
            joined = {reverse: self._outer(rows, "pk")}
        elif field.one_to_many or (field.one_to_one and field.auto_created):
            key = field.remote_field
            joined = {key.attname: self._outer(rows, key.target_field.attname)}
        else:
            joined = {field.target_field.attname: self._outer(rows, field.attname)}
        query = field.related_model._base_manager.filter(**joined).filter(condition(related))  # noqa: SLF001
        self._depth -= 1
        return Q(Exists(query)) if wanted else Q(~Exists(query))

    def not_true(self, condition: Q) -> Q:
        case = Case(When(condition, then=Value(value=False)), default=Value(value=True))
        return Q(case)

    def has_no_parent(self, rows: _Rows, relation: str) -> Q:
        field = _relation(rows.model, relation)
        return Q(IsNull(self._at_depth(rows.depth, field.attname), True))

    def described(self, below: ResourceMap, relation: str) -> ResourceMap:
        field = _relation(below.model, relation)
        if not field.concrete or field.many_to_many:
            raise FilterUnsupported(f"the parent {relation} is not a foreign key")
        return description_of(field.related_model)

    def _read(self, column: Column) -> Any:
        reference = column.expression
        return self._at_depth(reference.depth, reference.name)

    def _text(self, column: Column, operator: Operator) -> Any:
        is_equality = operator in (Operator.EQUAL, Operator.NOT_EQUAL)
        is_plain = is_equality and column.expression.field.db_collation is None
        return (Equality if is_plain else Bytes)(self._read(column))

    def _outer(self, rows: _Rows, name: str) -> Any:
        return self._at_depth(rows.depth, name)

    def _at_depth(self, depth: int, name: str) -> Any:
        found: Any = name
        for _ in range(self._depth - depth):
            found = OuterRef(found)
        return F(name) if found is name else found


def _field(model: Any, name: str) -> Any:
    if name == "pk":
        return model._meta.pk  # noqa: SLF001
    for field in model._meta.concrete_fields:  # noqa: SLF001
        if name == field.attname:
            return field
    raise FilterUnsupported(f"{model.__name__} has no column {name}")


def _relation(model: Any, name: str) -> Any:
    try:
        field = model._meta.get_field(name)  # noqa: SLF001
    except FieldDoesNotExist:
        field = next(
            (
                related
                for related in model._meta.related_objects  # noqa: SLF001
                if related.get_accessor_name() == name
            ),
            None,
        )
    if field is None or not field.is_relation or field.related_model is None:
        raise FilterUnsupported(f"{model.__name__} has no relation {name}")
    return field


def _double(column: Column, read: Any) -> Any:
    is_decimal = type(column.expression.field) is models.DecimalField
    return (DecimalToDouble if is_decimal else CastToDouble)(read)


def _compared(operator: Operator, left: Any, right: Any) -> Func:
    symbol = {Operator.EQUAL: "=", Operator.NOT_EQUAL: "<>"}.get(operator, operator.value)
    return Comparison(left, right, arg_joiner=f" {symbol} ")
