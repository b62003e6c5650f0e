"""Operators with two operands: comparisons, `in`, and tests of texts."""

from collections.abc import Mapping
from typing import Any, Final

from pdp_filters import (
    FALSE,
    TRUE,
    Compare,
    Field,
    Filter,
    Kind,
    KindIs,
    Match,
    OneOf,
    Operator,
    Scalar,
    TextTest,
    all_of,
    any_of,
)
from pdp_filters.ir import every, kind_of, present, some

from pdp.decision.conditions import Failed
from pdp.decision.expression import Expression
from pdp.decision.forms import (
    ERROR,
    NO,
    TEXT,
    YES,
    Constant,
    Forms,
    Operand,
    SizeOf,
    Unexpressed,
    by_case,
    not_expressed,
    unexpressed_forms,
)

_LIST: Final = frozenset((Kind.LIST,))
_KEYS: Final = frozenset((Kind.BOOL, Kind.NUMBER, Kind.TEXT))
"""The kinds of values that may be looked up in a map; any other kind fails."""
COMPARISONS: Final = {f"_{operator.value}_": operator for operator in Operator}
TEXT_TESTS: Final = {test.value: test for test in TextTest}


def binary(call: Expression, left: Operand, right: Operand, level: int) -> Forms:
    """The forms of a call. `level`: the number of quantifiers around it."""
    if left is Failed.FAILED or right is Failed.FAILED:
        return ERROR
    for operand in (left, right):
        if isinstance(operand, Unexpressed):
            return Forms(operand, operand)
    if call.name == "@in":
        return _membership(call, left, right, level)
    if call.name in TEXT_TESTS:
        return _text_test(call, left, right)
    operator = COMPARISONS[call.name]
    if isinstance(left, Constant) and not isinstance(right, Constant):
        left, right, operator = right, left, operator.mirrored
    return _comparison(call, operator, left, right)


def _comparison(  # noqa: PLR0911  # a case each
    call: Expression, operator: Operator, left: Operand, right: Operand
) -> Forms:
    """The forms of a comparison. A constant is on the right side, unless both are constants."""
    is_equality = operator in (Operator.EQUAL, Operator.NOT_EQUAL)
    if isinstance(left, Constant):
        assert isinstance(right, Constant)  # noqa: S101  # for the type checker
        return _compared_constants(call, operator, left.value, right.value)
    if isinstance(left, Field) and isinstance(right, Field):
        return Forms(Compare(operator, left, right), Compare(operator.opposite, left, right))
    if isinstance(left, Field) and isinstance(right, Constant):
        value = right.value
        if isinstance(value, list | Mapping):
            return Forms(not_expressed(call), not_expressed(call)) if is_equality else ERROR
        if not is_equality and value is None:
            return ERROR
        return Forms(Compare(operator, left, value), Compare(operator.opposite, left, value))
    if isinstance(left, SizeOf) and isinstance(right, Constant):
        return _size_comparison(call, operator, left.field, right.value)
    if is_equality and isinstance(left, Forms) and isinstance(right, Constant):
        same = _same_truth(left, right.value)
        return same if operator is Operator.EQUAL else same.negated()
    return Forms(not_expressed(call), not_expressed(call))


def _same_truth(forms: Forms, constant: Any) -> Forms:
    """Compares with a constant, as in `has(resource.attributes.x) == false`."""
    if isinstance(constant, bool):
        return forms if constant else forms.negated()
    return Forms(FALSE, any_of(forms.true, forms.false))


def _compared_constants(call: Expression, operator: Operator, left: Any, right: Any) -> Forms:
    """The forms of a comparison of known values, one of which is the element of a known list."""
    if isinstance(left, list | Mapping) or isinstance(right, list | Mapping):
        return Forms(not_expressed(call), not_expressed(call))
    same_kind = kind_of(left) is kind_of(right)
    match operator:
        case Operator.EQUAL:
            return YES if same_kind and left == right else NO
        case Operator.NOT_EQUAL:
            return NO if same_kind and left == right else YES
    if not same_kind or left is None:
        return ERROR
    is_less, is_equal = left < right, left == right
    holds = {
        Operator.LESS: is_less,
        Operator.LESS_OR_EQUAL: is_less or is_equal,
        Operator.GREATER: not is_less and not is_equal,
        Operator.GREATER_OR_EQUAL: not is_less,
    }[operator]
    return YES if holds else NO


def _size_comparison(call: Expression, operator: Operator, field: Field, bound: Any) -> Forms:
    """Expresses a test for emptiness, in every way to write it. No filter expresses other sizes."""
    if not isinstance(bound, float):
        return Forms(not_expressed(call), not_expressed(call))
    truths = [_compared_constants(call, operator, float(size), bound) for size in range(4)]
    if not -1 <= bound <= 1 or truths[1] != truths[2] or truths[2] != truths[3]:
        return unexpressed_forms("size", call)
    empty = any_of(every(field, FALSE), Compare(Operator.EQUAL, field, ""))
    filled = any_of(
        some(field, TRUE), all_of(KindIs(field, TEXT), Compare(Operator.NOT_EQUAL, field, ""))
    )
    return by_case(((empty, truths[0]), (filled, truths[1])))


def _membership(call: Expression, value: Operand, container: Operand, level: int) -> Forms:
    if isinstance(value, Forms | SizeOf):
        return Forms(not_expressed(call), not_expressed(call))
    if isinstance(container, Constant):
        items = container.value
        if not isinstance(items, list | Mapping):
            return ERROR
        found = any_equal(call, [value, *map(Constant, items)])
        if isinstance(items, Mapping):
            is_key = _is_key(value)
            return Forms(all_of(is_key, found.true), all_of(is_key, found.false))
        return found
    if isinstance(container, Field):
        return _in_field(call, value, container, level)
    return Forms(not_expressed(call), not_expressed(call))


def _in_field(call: Expression, value: Operand, container: Field, level: int) -> Forms:
    """The forms of `value in container`. In a map `in` looks for a key, so the value must be of a
    kind that keys have."""
    element = Field((), level + 1)
    if isinstance(value, Field):
        is_member: Filter = Compare(Operator.EQUAL, element, value)
        is_other: Filter = Compare(Operator.NOT_EQUAL, element, value)
        is_there = present(value)
    else:
        assert isinstance(value, Constant)  # noqa: S101  # for the type checker
        if isinstance(value.value, list | Mapping):
            return Forms(not_expressed(call), not_expressed(call))
        is_member = Compare(Operator.EQUAL, element, value.value)
        is_other = Compare(Operator.NOT_EQUAL, element, value.value)
        is_there = TRUE
    fits = any_of(KindIs(container, _LIST), _is_key(value))
    return Forms(some(container, is_member), all_of(is_there, fits, every(container, is_other)))


def _is_key(value: Operand) -> Filter:
    if isinstance(value, Field):
        return KindIs(value, _KEYS)
    is_key = isinstance(value, Constant) and kind_of(value.value) in _KEYS
    return TRUE if is_key else FALSE


def any_equal(call: Expression, operands: list[Operand]) -> Forms:
    """The forms of: the first operand equals another one. Fails if any operand fails."""
    if any(operand is Failed.FAILED for operand in operands):
        return ERROR
    for operand in operands:
        if isinstance(operand, Unexpressed | Forms | SizeOf):
            node = operand if isinstance(operand, Unexpressed) else not_expressed(call)
            return Forms(node, node)
    value, *items = operands
    values = [item.value for item in items if isinstance(item, Constant)]
    if isinstance(value, Field) and len(values) == len(items):
        if any(isinstance(value, list | Mapping) for value in values):
            return Forms(not_expressed(call), not_expressed(call))
        scalars: tuple[Scalar, ...] = tuple(values)
        if not scalars:
            return Forms(FALSE, present(value))
        return Forms(OneOf(value, scalars), OneOf(value, scalars, negated=True))
    equalities = []
    for item in items:
        left, right = (item, value) if isinstance(value, Constant) else (value, item)
        equalities.append(_comparison(call, Operator.EQUAL, left, right))
    fields = [present(operand) for operand in operands if isinstance(operand, Field)]
    return Forms(
        all_of(*fields, any_of(*(equality.true for equality in equalities))),
        all_of(*fields, *(equality.false for equality in equalities)),
    )


def _text_test(call: Expression, value: Operand, text: Operand) -> Forms:
    test = TEXT_TESTS[call.name]
    if isinstance(value, Field) and isinstance(text, Constant):
        if not isinstance(text.value, str):
            return ERROR
        if not text.value:
            return Forms(KindIs(value, TEXT), FALSE)
        return Forms(Match(test, value, text.value), Match(test, value, text.value, negated=True))
    if isinstance(value, Constant) and isinstance(text, Constant):
        if not isinstance(value.value, str) or not isinstance(text.value, str):
            return ERROR
        tests = {
            TextTest.PREFIX: str.startswith,
            TextTest.SUFFIX: str.endswith,
            TextTest.CONTAINS: str.__contains__,
        }
        return YES if tests[test](value.value, text.value) else NO
    return Forms(not_expressed(call), not_expressed(call))
