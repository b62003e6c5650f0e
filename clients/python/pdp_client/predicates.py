"""Predicates on the values of a row, for any target that has columns and NULL.

Handles absent values, null, values of other kinds, and numbers that no question holds, in the same
way for all targets. In the conditions of a target, NULL counts as false.
"""

import sys
from dataclasses import dataclass, replace
from typing import Any, Final, Generic

from pdp_filters import Kind, Operator, Scalar, TextTest
from pdp_filters.ir import ORDERED, kind_of

from pdp_client.plans import FilterUnsupported
from pdp_client.resource_maps import Attributes, C, Column, E, Many, ResourceMap, Target

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
class MapValue:
    """A map that is present."""

    rows: Any
    fields: Attributes
    name: str


@dataclass(frozen=True, slots=True)
class ListValue:
    """A list that is present."""

    rows: Any
    many: Many
    name: str


@dataclass(frozen=True, slots=True)
class Known:
    """A constant."""

    value: str


Value = Any
"""A value of one of the classes above, or a Column."""


class Predicates(Generic[C, E]):
    """Writes predicates with the operations of a target."""

    def __init__(self, target: Target[C, E]) -> None:
        self._target = target

    def _kind_is(self, value: Value, kinds: frozenset[Kind]) -> C:
        if not isinstance(value, Column):
            kind = {MapValue: Kind.MAP, ListValue: Kind.LIST, Known: Kind.TEXT}[type(value)]
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
        if isinstance(value, Known):
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
        return self._all([target.compare(operator, value, constant), *self._held(value, operator)])

    def _one_of(self, value: Value, values: tuple[Scalar, ...], *, negated: bool) -> C:
        target = self._target
        if isinstance(value, Known):
            return self._known((value.value in values) is not negated)
        if not isinstance(value, Column):
            return self._known(negated)  # a list or a map is present, and equals no constant
        fitting = [constant for constant in values if kind_of(constant) is value.kind]
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
        if isinstance(value, Known):
            return self._known(_passes(test, value.value, text) is not negated)
        if not isinstance(value, Column) or value.kind is not Kind.TEXT:
            return self._target.false
        _refuse_parsed(value, test.value)
        if text == "":  # which every text holds
            return self._target.false if negated else self._target.is_null(value, wanted=False)
        return self._target.match(test, value, text, negated=negated)

    def _compare_two(self, operator: Operator, left: Value, right: Value) -> C:
        if isinstance(left, Known) or isinstance(right, Known):
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
