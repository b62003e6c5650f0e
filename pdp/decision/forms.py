"""A pair of filters for each expression of type bool, and the operands of expressions."""

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
    """The filters of the resources for which an expression is definitely true, or definitely
    false."""

    true: Filter
    false: Filter

    def negated(self) -> "Forms":
        """The forms of the negation."""
        return Forms(self.false, self.true)


@dataclass(frozen=True, slots=True)
class Unexpressed(Filter):
    """A part of a condition that no filter can express. Never part of a returned filter."""

    operator: str
    condition: str
    offset: int
    """The offset in the condition, in characters."""


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
    """An `Unexpressed` node as both forms."""
    node = unexpressed(operator, expression)
    return Forms(node, node)


def _named(expression: Expression) -> str:
    if expression.kind is Syntax.CALL:
        return expression.name.replace("_", "") or expression.name
    return expression.kind.name.lower()


def by_case(cases: Iterable[tuple[Filter, Forms]]) -> Forms:
    """The forms of an expression that has different forms in different cases, at most one of which
    holds."""
    found = list(cases)
    return Forms(
        any_of(*(all_of(guard, forms.true) for guard, forms in found)),
        any_of(*(all_of(guard, forms.false) for guard, forms in found)),
    )


def constant_of(value: Any, expression: Expression) -> Operand:
    """Converts a value of the runtime to a value that a filter may hold."""
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
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
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
    """A node for an operator or function that no filter can express."""
    return unexpressed(_named(expression), expression)


def unexpressed(operator: str, expression: Expression) -> Unexpressed:
    """A node for a part of an expression that no filter can express."""
    return Unexpressed(operator, expression.source, expression.offset)


def as_bool(operand: Operand) -> Forms:
    """The forms of an operand as a condition: every value but a boolean fails."""
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
