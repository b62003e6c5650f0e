"""Lowers a filter to a query, for any target that has columns, NULL, and `EXISTS`.

In:  a filter, a description of the rows, and a `Target` that writes single conditions.
Out: a condition of the target that is true for exactly the rows that the filter selects.

An adapter knows how a column compares and how a subquery is made. This module handles absent
values, null, values of other kinds and chains of parents, in the same way for all targets. In the
conditions of a target, NULL counts as false.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic

from pdp_filters import (
    And,
    Chain,
    Compare,
    Every,
    Field,
    Filter,
    Kind,
    KindIs,
    Match,
    OneOf,
    Operator,
    Or,
    Scalar,
    Some,
    Stored,
    TextTest,
)
from pdp_filters.ir import ORDERED, kind_of

from pdp_client.plans import FilterUnsupported
from pdp_client.resource_maps import (
    Absent,
    Attributes,
    C,
    Column,
    E,
    Many,
    NullAsValue,
    One,
    Reference,
    ResourceMap,
    Target,
)

_Below = tuple[ResourceMap, ...]
"""The descriptions of the rows below, beginning with the resource."""
_NUL: Final = "\x00"
_BELOW: Final = (Operator.LESS, Operator.LESS_OR_EQUAL)
_LEAST: Final = (Operator.GREATER_OR_EQUAL, -sys.float_info.max)
_GREATEST: Final = (Operator.LESS_OR_EQUAL, sys.float_info.max)
_BOUNDS: Final = {
    Operator.NOT_EQUAL: (_LEAST, _GREATEST),
    **dict.fromkeys(_BELOW, (_LEAST,)),
    **dict.fromkeys((Operator.GREATER, Operator.GREATER_OR_EQUAL), (_GREATEST,)),
}
"""Which bounds an operator does not imply by itself."""


# --- values ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RowValue:
    """The resource."""

    rows: Any
    described: ResourceMap


@dataclass(frozen=True, slots=True)
class ChainValue:
    """A resource of the chain."""

    type: str
    id: Column
    organization: Column | None


@dataclass(frozen=True, slots=True)
class _Map:
    """A map that is present."""

    rows: Any
    fields: Attributes
    name: str


@dataclass(frozen=True, slots=True)
class _List:
    """A list that is present."""

    rows: Any
    many: Many
    name: str


@dataclass(frozen=True, slots=True)
class _Known:
    """A constant."""

    value: str


Value = Any
"""A value of one of the classes above, or a Column."""


def lower(plan_filter: Filter, target: Target[C, E], rows: E, described: ResourceMap) -> C:
    """The condition that selects the rows that the filter selects.

    Raises FilterUnsupported for what the target cannot do exactly.
    """
    return Lowering(target).condition(plan_filter, (RowValue(rows, described),))


class Lowering(Generic[C, E]):
    """Lowers the filters of one plan."""

    def __init__(self, target: Target[C, E]) -> None:
        self._target = target

    def condition(self, node: Filter, levels: tuple[Value, ...]) -> C:  # noqa: PLR0911
        """A node as a condition. `levels`: the resource, and elements of enclosing quantifiers."""
        match node:
            case And(parts):
                needed = _without_absorbed(parts, levels[0].described)
                return self._all([self.condition(part, levels) for part in needed])
            case Or(parts):
                return self._any([self.condition(part, levels) for part in parts])
            case Compare(operator, left, right):
                return self._comparison(operator, left, right, levels)
            case OneOf(field, values, negated):
                return self._field(
                    field, levels, lambda value: self._one_of(value, values, negated=negated)
                )
            case KindIs(field, kinds):
                return self._field(
                    field,
                    levels,
                    lambda value: self._kind_is(value, kinds),
                    if_absent=Kind.ABSENT in kinds,
                )
            case Match(test, field, text, negated):
                return self._field(
                    field, levels, lambda value: self._match(test, value, text, negated=negated)
                )
            case Some(over, body) | Every(over, body):
                wanted = isinstance(node, Some)
                if isinstance(over, Chain):
                    row = levels[0]
                    return self._chain(row.rows, row.described, body, levels, (), some=wanted)
                return self._field(
                    over,
                    levels,
                    lambda value: self._elements(value, over, body, levels, some=wanted),
                )
            case Stored(types):
                return self._stored(levels[0].described, types, ())
        raise TypeError(f"{type(node).__name__} is not part of a filter")

    def _comparison(
        self, operator: Operator, left: Field, right: Field | Scalar, levels: tuple[Value, ...]
    ) -> C:
        if not isinstance(right, Field):
            return self._field(left, levels, lambda value: self._compare(operator, value, right))
        return self._field(
            left,
            levels,
            lambda first: self._field(
                right, levels, lambda second: self._compare_two(operator, first, second)
            ),
        )

    # --- fields -----------------------------------------------------------------------------------

    def _field(
        self,
        field: Field,
        levels: tuple[Value, ...],
        then: Callable[[Value], C],
        *,
        if_absent: bool = False,
    ) -> C:
        """The condition `then` on the value of a field. A condition on a column must also hold if
        the column is NULL; if the path reaches nothing, `if_absent` is the result."""
        return self._at(levels[field.level], field.path, then, if_absent=if_absent)

    def _at(  # noqa: PLR0911  # a kind of value each
        self,
        value: Value,
        path: tuple[str, ...],
        then: Callable[[Value], C],
        *,
        if_absent: bool,
    ) -> C:
        target = self._target
        match value:
            case RowValue(rows, described) if path == ("id",):
                return then(self._id(rows, described))
            case RowValue(rows, described) if path == ("organization",):
                return self._organization(rows, described, then, (), if_absent=if_absent)
            case RowValue(rows, described) if path[:1] == ("attributes",):
                attributes = _Map(rows, described.attributes, described.type)
                return self._at(attributes, path[1:], then, if_absent=if_absent)
            case ChainValue(type_, id_, organization):
                found = {"type": _Known(type_), "id": id_, "organization": organization}
                inner = found.get(path[0]) if len(path) == 1 else None
                return self._known(if_absent) if inner is None else then(inner)
            case _ if not path:
                return then(value)
            case _Map(rows, fields, name):
                key, rest = path[0], path[1:]
                name = f"{name}.{key}"
                if key not in fields:
                    raise FilterUnsupported(
                        f"the attribute {name} is not described: add it, or ABSENT if no row has it"
                    )
                match fields[key]:
                    case Absent():
                        return self._known(if_absent)
                    case One(relation, inner_fields):
                        reached = target.exists(
                            rows,
                            relation,
                            lambda related: self._at(
                                _Map(related, inner_fields, name), rest, then, if_absent=if_absent
                            ),
                            wanted=True,
                        )
                        if not if_absent:
                            return reached
                        missing = target.exists(rows, relation, lambda _: target.true, wanted=False)
                        return self._any([reached, missing])
                    case Many() as many:
                        return self._at(_List(rows, many, name), rest, then, if_absent=if_absent)
                    case column:
                        found_column = self._column(rows, column, name)
                        return self._at(found_column, rest, then, if_absent=if_absent)
        return self._known(if_absent)  # neither a column nor a list has keys

    def _column(self, rows: E, column: Any, name: str) -> Column:
        null = Kind.ABSENT
        if isinstance(column, NullAsValue):
            column, null = column.column, Kind.NULL
        return replace(self._target.column(rows, column, is_identifier=False), name=name, null=null)

    def _id(self, rows: E, described: ResourceMap) -> Column:
        column = self._target.column(rows, described.id, is_identifier=True)
        return replace(column, name=f"the id of {described.type}")

    def _own_organization(self, rows: E, described: ResourceMap) -> Column | None:
        if described.organization is None:
            return None
        column = self._target.column(rows, described.organization, is_identifier=True)
        name = f"the organization of {described.type}"
        return replace(column, name=name, blank_is_absent=column.parse is None)

    def _organization(
        self,
        rows: E,
        described: ResourceMap,
        then: Callable[[Value], C],
        below: _Below,
        *,
        if_absent: bool,
    ) -> C:
        """The organization of the resource, or of its nearest ancestor that has one."""
        own = self._own_organization(rows, described)
        parent = described.parent
        if parent is None or isinstance(parent, Reference):
            return self._known(if_absent) if own is None else then(own)
        target = self._target
        above, below = self._above(described, below)
        inherited = target.exists(
            rows,
            parent,
            lambda related: self._organization(related, above, then, below, if_absent=if_absent),
            wanted=True,
        )
        if if_absent:
            inherited = self._any([target.has_no_parent(rows, parent), inherited])
        if own is None:
            return inherited
        return self._any(
            [
                self._all([target.is_null(own, wanted=False), then(own)]),
                self._all([target.is_null(own, wanted=True), inherited]),
            ]
        )

    # --- predicates -------------------------------------------------------------------------------

    def _kind_is(self, value: Value, kinds: frozenset[Kind]) -> C:
        if not isinstance(value, Column):
            kind = {_Map: Kind.MAP, _List: Kind.LIST, _Known: Kind.TEXT}[type(value)]
            return self._known(kind in kinds)
        if value.kind in kinds and value.null in kinds:
            return self._target.true
        parts = []
        if value.kind in kinds:
            parts.append(self._target.is_null(value, wanted=False))
        if value.null in kinds:
            parts.append(self._target.is_null(value, wanted=True))
        return self._any(parts)

    def _compare(self, operator: Operator, value: Value, constant: Scalar) -> C:
        target = self._target
        if isinstance(value, _Known):
            return self._known(_compared(operator, value.value, constant))
        if operator is Operator.NOT_EQUAL:
            return self._one_of(value, (constant,), negated=True)
        if not isinstance(value, Column):
            return target.false
        if operator is Operator.EQUAL:
            return self._one_of(value, (constant,), negated=False)
        if kind_of(constant) is not value.kind:
            return target.false
        _refuse_parsed(value, operator.value)
        if isinstance(constant, str) and _NUL in constant:
            # No stored text holds NUL: those up to the part before it are less, all others greater.
            constant = constant.partition(_NUL)[0]
            operator = Operator.LESS_OR_EQUAL if operator in _BELOW else Operator.GREATER
        return self._all([target.compare(operator, value, constant), *self._held(value, operator)])

    def _one_of(self, value: Value, values: tuple[Scalar, ...], *, negated: bool) -> C:
        target = self._target
        if isinstance(value, _Known):
            return self._known((value.value in values) is not negated)
        if not isinstance(value, Column):
            return self._known(negated)  # a list or a map is present, and equals no constant
        fitting = [
            constant
            for constant in values
            if kind_of(constant) is value.kind and _NUL not in str(constant)
        ]
        if value.blank_is_absent:
            fitting = [constant for constant in fitting if constant != ""]
        if value.parse is not None:
            parsed = (value.parse(str(constant)) for constant in fitting)
            fitting = [constant for constant in parsed if constant is not None]
        null_counts = value.null is Kind.NULL and (None in values) is not negated
        parts = [target.is_null(value, wanted=True)] if null_counts else []
        if negated:
            there = [target.is_null(value, wanted=False), *self._held(value, Operator.NOT_EQUAL)]
            different = [self._equals(value, fitting, negated=True)] if fitting else []
            parts.append(self._all([*there, *different]))
        elif fitting:
            parts.append(self._equals(value, fitting, negated=False))
        return self._any(parts)

    def _held(self, column: Column, operator: Operator) -> list[C]:
        """What a comparison with a constant must also require, so that it is false for a number
        that no question holds. PostgreSQL puts NaN above all others; SQLite does so with texts."""
        if not column.is_fraction:
            return []
        bounds = _BOUNDS.get(operator, ())
        return [self._target.compare(bound, column, value) for bound, value in bounds]

    def _is_held(self, column: Column) -> C:
        """A question holds the column's value, so that another field may be compared with it."""
        if column.blank_is_absent:
            return self._target.is_null(column, wanted=False)
        bounds = self._all(self._held(column, Operator.NOT_EQUAL))
        if column.null is Kind.NULL:
            return self._any([bounds, self._target.is_null(column, wanted=True)])
        return bounds

    def _equals(self, column: Column, values: list[Any], *, negated: bool) -> C:
        if len(values) > 1:
            return self._target.one_of(column, values, negated=negated)
        operator = Operator.NOT_EQUAL if negated else Operator.EQUAL
        return self._target.compare(operator, column, values[0])

    def _match(self, test: TextTest, value: Value, text: str, *, negated: bool) -> C:
        if isinstance(value, _Known):
            return self._known(_passes(test, value.value, text) is not negated)
        if not isinstance(value, Column) or value.kind is not Kind.TEXT:
            return self._target.false
        _refuse_parsed(value, test.value)
        if text == "" or _NUL in text:  # every text holds the one, and no stored text the other
            passes = (text == "") is not negated
            return self._target.is_null(value, wanted=False) if passes else self._target.false
        return self._target.match(test, value, text, negated=negated)

    def _compare_two(self, operator: Operator, left: Value, right: Value) -> C:
        if isinstance(left, _Known) or isinstance(right, _Known):
            raise FilterUnsupported("a comparison with the type of a resource")
        if not isinstance(left, Column) or not isinstance(right, Column):
            return self._compare_with_collection(operator, left, right)
        target = self._target
        for column in (left, right):
            if column.blank_is_absent or column.is_fraction:
                plain = replace(column, blank_is_absent=False, is_fraction=False)
                sides = (plain, right) if column is left else (left, plain)
                return self._all([self._is_held(column), self._compare_two(operator, *sides)])
        for column in (left, right):
            _refuse_parsed(column, f"{operator.value} with another field")
        same_kind = left.kind is right.kind
        if operator not in (Operator.EQUAL, Operator.NOT_EQUAL):
            ordered = same_kind and left.kind in ORDERED
            return target.compare_columns(operator, left, right) if ordered else target.false
        both_null = left.null is Kind.NULL and right.null is Kind.NULL
        if operator is Operator.EQUAL:
            parts = [target.compare_columns(operator, left, right)] if same_kind else []
            if both_null:
                nulls = [target.is_null(side, wanted=True) for side in (left, right)]
                parts.append(self._all(nulls))
            return self._any(parts)
        if same_kind:
            parts = [target.compare_columns(operator, left, right)]
        else:
            parts = [self._all([target.is_null(side, wanted=False) for side in (left, right)])]
        for null, other in ((left, right), (right, left)):
            if null.null is Kind.NULL:  # null is present, and equals nothing else
                is_null = target.is_null(null, wanted=True)
                parts.append(self._all([is_null, target.is_null(other, wanted=False)]))
        return self._any(parts)

    def _compare_with_collection(self, operator: Operator, left: Value, right: Value) -> C:
        columns = [side for side in (left, right) if isinstance(side, Column)]
        if not columns and type(left) is type(right):
            raise FilterUnsupported(f"{operator.value} between {left.name} and {right.name}")
        if operator is not Operator.NOT_EQUAL:
            return self._target.false
        return self._all([self._present(column) for column in columns])

    def _present(self, column: Column) -> C:
        if column.null is Kind.NULL:
            return self._target.true
        return self._target.is_null(column, wanted=False)

    # --- quantifiers ------------------------------------------------------------------------------

    def _elements(
        self, value: Value, over: Field, body: Filter, levels: tuple[Value, ...], *, some: bool
    ) -> C:
        if isinstance(value, _Map):
            raise FilterUnsupported(f"a search through the keys of {over}, which is a map")
        if not isinstance(value, _List):
            return self._target.false
        many = value.many

        def condition(related: E) -> C:
            if isinstance(many.each, Mapping):
                element: Value = _Map(related, many.each, value.name)
            else:
                # An element is never absent.
                element = replace(self._column(related, many.each, value.name), null=Kind.NULL)
            inner = self.condition(body, (*levels, element))
            return inner if some else self._target.not_true(inner)

        return self._target.exists(value.rows, many.relation, condition, wanted=some)

    def _chain(
        self,
        rows: E,
        described: ResourceMap,
        body: Filter,
        levels: tuple[Value, ...],
        below: _Below,
        *,
        some: bool,
    ) -> C:
        own = self._own_organization(rows, described)
        here = ChainValue(described.type, self._id(rows, described), own)
        parts = [self.condition(body, (*levels, here))]
        parent = described.parent
        if isinstance(parent, Reference):
            column = self._target.column(rows, parent.id, is_identifier=True)
            bare = ChainValue(parent.type, replace(column, name=f"the id of {parent.type}"), None)
            above = self._all(
                [
                    self._target.is_null(bare.id, wanted=False),
                    self.condition(body, (*levels, bare)),
                ]
            )
            no_parent = self._target.is_null(bare.id, wanted=True)
            parts.append(above if some else self._any([no_parent, above]))
        elif parent is not None:
            above_described, below = self._above(described, below)
            found = self._target.exists(
                rows,
                parent,
                lambda related: self._chain(
                    related, above_described, body, levels, below, some=some
                ),
                wanted=True,
            )
            if not some:
                found = self._any([self._target.has_no_parent(rows, parent), found])
            parts.append(found)
        return self._any(parts) if some else self._all(parts)

    def _stored(self, described: ResourceMap, types: tuple[str, ...], below: _Below) -> C:
        if described.type in types and not described.stored:
            raise FilterUnsupported(
                f"resources of type {described.type} must be stored in the decision point, and they"
                " are not described as such: register them with stored=True"
            )
        parent = described.parent
        if isinstance(parent, Reference):
            if parent.type in types:
                raise FilterUnsupported(
                    f"resources of type {parent.type} must be stored in the decision point, and a"
                    f" Reference to one is a parent that is not: describe the relation instead"
                )
        elif parent is not None:
            above, below = self._above(described, below)
            return self._stored(above, types, below)
        return self._target.true

    def _above(self, described: ResourceMap, below: _Below) -> tuple[ResourceMap, _Below]:
        """The description of the parents, and all descriptions below it."""
        above = self._target.described(described, described.parent)
        below = (*below, described)
        if any(above is known for known in below):
            # A search through up to 16 levels takes nested subqueries that no database plans well.
            raise FilterUnsupported(
                f"the parent of {described.type} leads to {above.type} again, so that there is no"
                " fixed number of levels"
            )
        return above, below

    # --- junctions --------------------------------------------------------------------------------

    def _known(self, value: bool) -> C:  # a condition that is settled
        return self._target.true if value else self._target.false

    def _all(self, parts: list[C]) -> C:
        target = self._target
        if any(part is target.false for part in parts):
            return target.false
        parts = [part for part in parts if part is not target.true]
        return target.all(parts) if parts else target.true

    def _any(self, parts: list[C]) -> C:
        target = self._target
        if any(part is target.true for part in parts):
            return target.true
        parts = [part for part in parts if part is not target.false]
        return target.any(parts) if parts else target.false


def _without_absorbed(parts: tuple[Filter, ...], described: ResourceMap) -> Iterable[Filter]:
    """Without what another part implies if nothing is above the resource: that it is in an
    organization, and that it is in that one or in none. A planner would count both."""
    if described.parent is not None:
        return parts
    organizations = [
        part.body
        for part in parts
        if isinstance(part, Some)
        and isinstance(part.over, Chain)
        and isinstance(part.body, Compare)
        and isinstance(part.body.right, str)
    ]
    return [
        part
        for part in parts
        if not (
            isinstance(part, Every)
            and isinstance(part.over, Chain)
            and isinstance(part.body, Or)
            and any(body in part.body.parts for body in organizations)
        )
    ]


def double_of_decimal(number: str) -> str:
    """SQL of PostgreSQL: a decimal as a double; NULL if no double holds it. A cast alone would fail
    the whole statement."""
    return (
        f"CASE WHEN abs({number}) < 2.4703282292062328e-324 THEN 0"
        f" WHEN abs({number}) < 1.797693134862315807e308"
        f" THEN CAST({number} AS DOUBLE PRECISION) END"
    )


def _passes(test: TextTest, value: str, text: str) -> bool:
    match test:
        case TextTest.PREFIX:
            return value.startswith(text)
        case TextTest.SUFFIX:
            return value.endswith(text)
    return text in value


def _compared(operator: Operator, value: str, constant: Scalar) -> bool:
    if operator in (Operator.EQUAL, Operator.NOT_EQUAL):
        return (value == constant) is (operator is Operator.EQUAL)
    if not isinstance(constant, str):
        return False
    is_less, is_equal = value < constant, value == constant
    return {
        Operator.LESS: is_less,
        Operator.LESS_OR_EQUAL: is_less or is_equal,
        Operator.GREATER: not is_less and not is_equal,
    }.get(operator, not is_less)


def _refuse_parsed(column: Column, operator: str) -> None:
    if column.parse is not None:
        raise FilterUnsupported(f"{operator} of {column.name}, which is not stored as text")
