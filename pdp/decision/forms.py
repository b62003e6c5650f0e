"""Two filters for each expression of type bool, and what its operands may be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, NamedTuple

from pdp_filters import FALSE, TRUE, Compare, Field, Filter, Kind, Operator, all_of, any_of

from pdp.decision.cel_ast import Kind as Syntax
from pdp.decision.conditions import Failed
from pdp.decision.expression import Expression

_INTEGER_MAX: Final = 2**53
TEXT: Final = frozenset((Kind.TEXT,))


class Forms(NamedTuple):
    """Where an expression of type bool is definitely true, and where it is definitely false."""

    true: Filter
    false: Filter

    def negated(self) -> "Forms":
        """The forms of the opposite."""
        return Forms(self.false, self.true)


@dataclass(frozen=True, slots=True)
class Unexpressed(Filter):
    """A part of a condition that no filter expresses. Never part of a filter that is given out."""

    operator: str
    condition: str
    offset: int
    """Where in the condition it begins, in characters."""


class Constant(NamedTuple):
    """A value that is known without the resource."""

    value: Any


class SizeOf(NamedTuple):
    """`size(...)` of a field."""

    field: Field


Operand = Constant | Field | Forms | SizeOf | Unexpressed | Failed
ERROR: Final = Forms(FALSE, FALSE)
YES: Final = Forms(TRUE, FALSE)
NO: Final = Forms(FALSE, TRUE)


def unexpressed_forms(operator: str, expression: Expression) -> Forms:
    """The same, for both forms."""
    node = unexpressed(operator, expression)
    return Forms(node, node)


def _named(expression: Expression) -> str:
    if expression.kind is Syntax.CALL:
        return expression.name.replace("_", "") or expression.name
    return expression.kind.name.lower()


def by_case(cases: Iterable[tuple[Filter, Forms]]) -> Forms:
    """The forms of an expression that has other ones in different cases, at most one of which
    holds."""
    found = list(cases)
    return Forms(
        any_of(*(all_of(guard, forms.true) for guard, forms in found)),
        any_of(*(all_of(guard, forms.false) for guard, forms in found)),
    )


def constant_of(value: Any, expression: Expression) -> Operand:
    """A value of the runtime as a filter may hold it."""
    if value is Failed.FAILED:
        return Failed.FAILED
    try:
        return Constant(_plain(value))
    except ValueError:
        return unexpressed(f"a value of type {type(value).__name__}", expression)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if "\x00" in value:
            raise ValueError("NUL")
        return value
    if isinstance(value, int | float):
        if not isfinite(value) or (isinstance(value, int) and abs(value) > _INTEGER_MAX):
            raise ValueError("no exact double")
        return float(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {_plain(key): _plain(one) for key, one in value.items()}
    raise ValueError(type(value).__name__)


def selected(base: Operand, key: str, expression: Expression) -> Operand:
    """The value of a key."""
    if isinstance(base, Field):
        return Field((*base.path, key), base.level)
    if isinstance(base, Constant):
        value = base.value
        return (
            Constant(value[key]) if isinstance(value, Mapping) and key in value else Failed.FAILED
        )
    return base if isinstance(base, Unexpressed | Failed) else not_expressed(expression)


def sized(operand: Operand, expression: Expression) -> Operand:
    """The value of `size()`."""
    if isinstance(operand, Field):
        return SizeOf(operand)
    if isinstance(operand, Constant):
        value = operand.value
        return (
            Constant(float(len(value)))
            if isinstance(value, str | list | Mapping)
            else Failed.FAILED
        )
    return operand if isinstance(operand, Unexpressed | Failed) else not_expressed(expression)


def not_expressed(expression: Expression) -> Unexpressed:
    """Says that no filter expresses an operator or function."""
    return unexpressed(_named(expression), expression)


def unexpressed(operator: str, expression: Expression) -> Unexpressed:
    """Says that no filter expresses something of an expression."""
    return Unexpressed(operator, expression.source, expression.offset)


def as_bool(operand: Operand) -> Forms:
    """The forms of an operand: only a boolean does not fail."""
    if isinstance(operand, Forms):
        return operand
    if isinstance(operand, Unexpressed):
        return Forms(operand, operand)
    if isinstance(operand, Field):
        return Forms(
            Compare(Operator.EQUAL, operand, right=True),
            Compare(Operator.EQUAL, operand, right=False),
        )
    if isinstance(operand, Constant) and isinstance(operand.value, bool):
        return YES if operand.value else NO
    return ERROR
