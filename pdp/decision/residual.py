"""What is left of a condition once the actor, the context and the time are known.

In:  a condition, the values of the actor and of the context, the resource type.
Out: two filters: where the condition is definitely true, and where it is definitely false. Where it
     fails, neither is true.

What does not depend on the resource is evaluated by the CEL runtime itself. What a filter cannot
express becomes an `Unexpressed` node, which may still vanish: `false && x.matches("a")`.

See docs/adr/0026-one-neutral-filter.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import isfinite
from typing import Any, Final, NamedTuple

from pdp_filters import (
    FALSE,
    TRUE,
    And,
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
    TextTest,
    all_of,
    any_of,
    walk,
)
from pdp_filters.ir import absent, every, kind_of, present, some

from pdp import limits
from pdp.decision.cel_ast import Kind as Syntax
from pdp.decision.conditions import Condition, Failed
from pdp.decision.expression import Expression, expression_of, is_declared
from pdp.decision.fast_path import Values
from pdp.errors import LimitExceeded

_INTEGER_MAX: Final = 2**53
_ATTRIBUTES: Final = Field(("attributes",))
_ORGANIZATION: Final = Field(("organization",))
_MAP: Final = frozenset((Kind.MAP,))
_LIST: Final = frozenset((Kind.LIST,))
_TEXT: Final = frozenset((Kind.TEXT,))
_KEYS: Final = frozenset((Kind.BOOL, Kind.NUMBER, Kind.TEXT))
"""What may be looked up in a map; anything else fails."""
_COMPARISONS: Final = {f"_{operator.value}_": operator for operator in Operator}
_TESTS: Final = {test.value: test for test in TextTest}


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


class _Constant(NamedTuple):
    value: Any


class _Size(NamedTuple):
    """`size(...)` of a field."""

    field: Field


_Operand = _Constant | Field | Forms | _Size | Unexpressed | Failed
_Case = tuple[Filter, _Operand]
"""Where it holds, and what an operand is there."""
_Scope = Mapping[str, Field | _Constant]
"""The variables of enclosing loops."""

_ERROR: Final = Forms(FALSE, FALSE)
_YES: Final = Forms(TRUE, FALSE)
_NO: Final = Forms(FALSE, TRUE)


def cost_max(condition: Condition, values: Values) -> float:
    """What evaluating a condition takes of the budget of a question at most."""
    opened = condition.opened()
    return 0 if opened is None else opened.cost_max(values)


def forms_of(
    condition: Condition, values: Values, *, has_no_tenants: bool, is_affordable: bool
) -> Forms:
    """The two forms of a condition.

    Args:
        condition: a condition.
        values: those of the actor, and `context` and `resource.type` of the question.
        has_no_tenants: what the policy says of the resource type.
        is_affordable: whether the budget is enough whatever the resource is.

    Raises:
        LimitExceeded: they would have too many nodes.
    """
    opened = condition.opened()
    expression = expression_of(condition.source)
    if opened is None or expression is None:
        return _ERROR
    if opened.holds_nul(values):
        return _unexpressed("a text that holds NUL", expression)
    forms = _Residual(values, has_no_tenants=has_no_tenants).forms(expression, {}, 0)
    if opened.estimate is None or is_affordable:
        return forms
    # Whether it is evaluated at all depends on the size of each row, and on other conditions.
    for node in (*walk(forms.true), *walk(forms.false)):
        if isinstance(node, Unexpressed):
            return Forms(node, node)
    return _unexpressed("the cost of the condition", expression)


def check_size(size: int) -> None:
    """Raises LimitExceeded where a filter has too many nodes and values."""
    if size > limits.PLAN_NODES_MAX:
        raise LimitExceeded("plan_nodes_max", limits.PLAN_NODES_MAX, size)


def parts_of(node: Filter) -> tuple[Filter, ...]:
    """The nodes right below a node."""
    if isinstance(node, And | Or):
        return node.parts
    return (node.body,) if isinstance(node, Some | Every) else ()


def _unexpressed(operator: str, expression: Expression) -> Forms:
    node = _unsaid(operator, expression)
    return Forms(node, node)


class _Residual:
    """One condition, for one actor. `level` counts the quantifiers around an expression."""

    def __init__(self, values: Values, *, has_no_tenants: bool) -> None:
        self._values = values
        self._has_no_tenants = has_no_tenants
        self._forms_left = limits.PLAN_NODES_MAX
        self._sizes: dict[int, tuple[Filter, int]] = {}
        """By identity; the node is kept, so that its identity is not given away."""

    def forms(self, expression: Expression, scope: _Scope, level: int) -> Forms:
        """Of an expression of type bool, or of any type where only a bool does not fail."""
        self._spend()
        forms = self._forms(expression, scope, level)
        # A part may be in both forms, and so double with each level of nesting.
        check_size(max(self._size(forms.true), self._size(forms.false)))
        return forms

    def _spend(self) -> None:
        self._forms_left -= 1
        if self._forms_left < 0:
            check_size(limits.PLAN_NODES_MAX + 1)

    def _size(self, node: Filter) -> int:
        known = self._sizes.get(id(node))
        if known is None:
            known = self._sizes[id(node)] = (node, 1 + sum(map(self._size, parts_of(node))))
        return known[1]

    def _forms(self, expression: Expression, scope: _Scope, level: int) -> Forms:
        if not expression.is_known and expression.kind is Syntax.CALL:
            made = self._call(expression, scope, level)
            if made is not None:
                return made
        if not expression.is_known and expression.kind is Syntax.COMPREHENSION:
            return self._comprehension(expression, scope, level)
        if not expression.is_known and expression.kind is Syntax.SELECT and expression.tests:
            return self._presence(expression, scope, level)
        return _by_case(
            (guard, _as_bool(operand)) for guard, operand in self._cases(expression, scope, level)
        )

    def _call(  # noqa: PLR0911  # an operator each
        self, call: Expression, scope: _Scope, level: int
    ) -> Forms | None:
        inner = call.inner
        if call.name in ("_&&_", "_||_"):
            left, right = (self.forms(one, scope, level) for one in inner)
            if call.name == "_||_":
                return Forms(any_of(left.true, right.true), all_of(left.false, right.false))
            return Forms(all_of(left.true, right.true), any_of(left.false, right.false))
        if call.name == "!_":
            return self.forms(inner[0], scope, level).negated()
        if call.name == "_?_:_":
            test, first, second = (self.forms(one, scope, level) for one in inner)
            return _by_case(((test.true, first), (test.false, second)))
        if call.name in _COMPARISONS or call.name == "@in" or call.name in _TESTS:
            if call.name == "@in" and inner[1].kind is Syntax.LIST and not inner[1].is_known:
                return self._in_written_list(call, scope, level)
            return _by_case(
                (all_of(one, other), _binary(call, left, right, level))
                for (one, left), (other, right) in self._combined(inner, scope, level)
            )
        return None

    def _combined(
        self, operands: tuple[Expression, ...], scope: _Scope, level: int
    ) -> Iterator[tuple[_Case, ...]]:
        for chosen in product(*(self._cases(one, scope, level) for one in operands)):
            self._spend()
            yield chosen

    def _in_written_list(self, call: Expression, scope: _Scope, level: int) -> Forms:
        """`x in [resource.attributes.owner, "a"]`: a list of which an element fails, fails."""
        operands = (call.inner[0], *call.inner[1].inner)
        return _by_case(
            (
                all_of(*(guard for guard, _ in chosen)),
                _any_equal(call, [operand for _, operand in chosen]),
            )
            for chosen in self._combined(operands, scope, level)
        )

    def _presence(self, test: Expression, scope: _Scope, level: int) -> Forms:
        def forms(base: _Operand) -> Forms:
            if isinstance(base, Field):
                key = Field((*base.path, test.name), base.level)
                is_map = TRUE if base == _ATTRIBUTES else KindIs(base, _MAP)
                return Forms(present(key), all_of(is_map, absent(key)))
            if isinstance(base, _Constant) and isinstance(base.value, Mapping):
                return _YES if test.name in base.value else _NO
            return Forms(base, base) if isinstance(base, Unexpressed) else _ERROR

        cases = self._cases(test.inner[0], scope, level, whole=True)
        return _by_case((guard, forms(base)) for guard, base in cases)

    def _comprehension(self, loop: Expression, scope: _Scope, level: int) -> Forms:
        """The macros exists() and all(), as they are expanded."""
        step = loop.inner[3]
        name = {"_||_": "exists", "_&&_": "all"}.get(step.name, "")
        result = loop.inner[4]
        if (
            not name
            or loop.inner[1].constant is not (name == "all")
            or result.kind is not Syntax.VARIABLE
            or step.inner[0].name != loop.name
        ):
            return _unexpressed("a loop other than exists() and all()", loop)

        def forms(over: _Operand) -> Forms:
            if isinstance(over, Field):
                element = {loop.element: Field((), level + 1)}
                body = self.forms(step.inner[1], {**scope, **element}, level + 1)
                if name == "exists":
                    return Forms(some(over, body.true), every(over, body.false))
                return Forms(every(over, body.true), some(over, body.false))
            if isinstance(over, _Constant) and isinstance(over.value, list | Mapping):
                # Of a map, the keys.
                bodies = [
                    self.forms(step.inner[1], {**scope, loop.element: _Constant(value)}, level)
                    for value in over.value
                ]
                trues, falses = [one.true for one in bodies], [one.false for one in bodies]
                if name == "exists":
                    return Forms(any_of(*trues), all_of(*falses))
                return Forms(all_of(*trues), any_of(*falses))
            return Forms(over, over) if isinstance(over, Unexpressed) else _ERROR

        return _by_case(
            (guard, forms(over)) for guard, over in self._cases(loop.inner[0], scope, level)
        )

    def _cases(  # noqa: PLR0912  # a kind of expression each
        self, expression: Expression, scope: _Scope, level: int, *, whole: bool = False
    ) -> Iterator[_Case]:
        """What an operand is. `whole`: may also be all attributes of the resource."""
        if expression.is_known:
            yield TRUE, _constant(expression.evaluate(self._values), expression)
            return
        if expression.kind is Syntax.VARIABLE:
            yield from self._variable(expression, scope, whole=whole)
            return
        key = self._key(expression)
        if key is not None:
            for guard, base in self._cases(expression.inner[0], scope, level, whole=True):
                yield guard, _selected(base, key, expression)
            return
        if expression.kind is Syntax.CALL and expression.name == "dyn":
            yield from self._cases(expression.inner[0], scope, level)
        elif expression.kind is Syntax.CALL and expression.name == "_?_:_":
            test = self.forms(expression.inner[0], scope, level)
            for guard, branch in zip(test, expression.inner[1:], strict=True):
                for inner, operand in self._cases(branch, scope, level):
                    yield all_of(guard, inner), operand
        elif expression.kind is Syntax.CALL and expression.name == "size":
            for guard, operand in self._cases(expression.inner[0], scope, level):
                yield guard, _sized(operand, expression)
        elif expression.kind is Syntax.COMPREHENSION or (
            expression.kind is Syntax.SELECT and expression.tests
        ):
            yield TRUE, self.forms(expression, scope, level)
        else:
            made = None
            if expression.kind is Syntax.CALL:
                made = self._call(expression, scope, level)
            yield TRUE, made or _not(expression)

    def _variable(self, variable: Expression, scope: _Scope, *, whole: bool) -> Iterator[_Case]:
        if not is_declared(variable.name) or variable.name in scope:
            yield TRUE, scope[variable.name]
        elif variable.name == "resource.attributes":
            yield (
                TRUE,
                _ATTRIBUTES if whole else _unsaid("resource.attributes", variable),
            )
        elif variable.name == "resource.organization" and self._has_no_tenants:
            yield absent(_ORGANIZATION), _Constant("")
            yield KindIs(_ORGANIZATION, _TEXT), _ORGANIZATION
        else:
            yield TRUE, Field((variable.name.removeprefix("resource."),))

    def _key(self, expression: Expression) -> str | None:
        """Of `map.key`, and of `map[key]` with a known key."""
        if expression.kind is Syntax.SELECT and not expression.tests:
            return expression.name
        if expression.kind is Syntax.CALL and expression.name == "_[_]":
            index = expression.inner[1]
            value = index.evaluate(self._values) if index.is_known else None
            return value if isinstance(value, str) else None
        return None


def _named(expression: Expression) -> str:
    if expression.kind is Syntax.CALL:
        return expression.name.replace("_", "") or expression.name
    return expression.kind.name.lower()


def _by_case(cases: Iterator[tuple[Filter, Forms]] | tuple[tuple[Filter, Forms], ...]) -> Forms:
    found = list(cases)
    return Forms(
        any_of(*(all_of(guard, forms.true) for guard, forms in found)),
        any_of(*(all_of(guard, forms.false) for guard, forms in found)),
    )


def _constant(value: Any, expression: Expression) -> _Operand:
    """A value of the runtime as a filter may hold it."""
    if value is Failed.FAILED:
        return Failed.FAILED
    try:
        return _Constant(_plain(value))
    except ValueError:
        return _unsaid(f"a value of type {type(value).__name__}", expression)


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


def _selected(base: _Operand, key: str, expression: Expression) -> _Operand:
    if isinstance(base, Field):
        return Field((*base.path, key), base.level)
    if isinstance(base, _Constant):
        value = base.value
        return _Constant(value[key]) if isinstance(value, Mapping) and key in value else _FAILED
    return base if isinstance(base, Unexpressed | Failed) else _not(expression)


_FAILED: Final = Failed.FAILED


def _sized(operand: _Operand, expression: Expression) -> _Operand:
    if isinstance(operand, Field):
        return _Size(operand)
    if isinstance(operand, _Constant):
        value = operand.value
        return _Constant(float(len(value))) if isinstance(value, str | list | Mapping) else _FAILED
    return operand if isinstance(operand, Unexpressed | Failed) else _not(expression)


def _not(expression: Expression) -> Unexpressed:
    return _unsaid(_named(expression), expression)


def _unsaid(operator: str, expression: Expression) -> Unexpressed:
    return Unexpressed(operator, expression.source, expression.offset)


def _as_bool(operand: _Operand) -> Forms:
    if isinstance(operand, Forms):
        return operand
    if isinstance(operand, Unexpressed):
        return Forms(operand, operand)
    if isinstance(operand, Field):
        return Forms(
            Compare(Operator.EQUAL, operand, right=True),
            Compare(Operator.EQUAL, operand, right=False),
        )
    if isinstance(operand, _Constant) and isinstance(operand.value, bool):
        return _YES if operand.value else _NO
    return _ERROR


# --- operators with two operands ------------------------------------------------------------------


def _binary(call: Expression, left: _Operand, right: _Operand, level: int) -> Forms:
    if left is Failed.FAILED or right is Failed.FAILED:
        return _ERROR
    for operand in (left, right):
        if isinstance(operand, Unexpressed):
            return Forms(operand, operand)
    if call.name == "@in":
        return _membership(call, left, right, level)
    if call.name in _TESTS:
        return _text_test(call, left, right)
    operator = _COMPARISONS[call.name]
    if isinstance(left, _Constant) and not isinstance(right, _Constant):
        left, right, operator = right, left, operator.mirrored
    return _comparison(call, operator, left, right)


def _comparison(  # noqa: PLR0911  # a case each
    call: Expression, operator: Operator, left: _Operand, right: _Operand
) -> Forms:
    """A constant is on the right side, unless both are."""
    is_equality = operator in (Operator.EQUAL, Operator.NOT_EQUAL)
    if isinstance(left, _Constant):
        assert isinstance(right, _Constant)  # noqa: S101  # for the type checker
        return _compared_constants(call, operator, left.value, right.value)
    if isinstance(left, Field) and isinstance(right, Field):
        return Forms(Compare(operator, left, right), Compare(operator.opposite, left, right))
    if isinstance(left, Field) and isinstance(right, _Constant):
        value = right.value
        if isinstance(value, list | Mapping):
            return Forms(_not(call), _not(call)) if is_equality else _ERROR
        if not is_equality and value is None:
            return _ERROR
        return Forms(Compare(operator, left, value), Compare(operator.opposite, left, value))
    if isinstance(left, _Size) and isinstance(right, _Constant):
        return _size_comparison(call, operator, left.field, right.value)
    if is_equality and isinstance(left, Forms) and isinstance(right, _Constant):
        same = _same_truth(left, right.value)
        return same if operator is Operator.EQUAL else same.negated()
    return Forms(_not(call), _not(call))


def _same_truth(forms: Forms, constant: Any) -> Forms:
    """`has(resource.attributes.x) == false`"""
    if isinstance(constant, bool):
        return forms if constant else forms.negated()
    return Forms(FALSE, any_of(forms.true, forms.false))


def _compared_constants(call: Expression, operator: Operator, left: Any, right: Any) -> Forms:
    """Of two known values of which one is the element of a known list."""
    if isinstance(left, list | Mapping) or isinstance(right, list | Mapping):
        return Forms(_not(call), _not(call))
    same_kind = kind_of(left) is kind_of(right)
    match operator:
        case Operator.EQUAL:
            return _YES if same_kind and left == right else _NO
        case Operator.NOT_EQUAL:
            return _NO if same_kind and left == right else _YES
    if not same_kind or left is None:
        return _ERROR
    is_less, is_equal = left < right, left == right
    holds = {
        Operator.LESS: is_less,
        Operator.LESS_OR_EQUAL: is_less or is_equal,
        Operator.GREATER: not is_less and not is_equal,
        Operator.GREATER_OR_EQUAL: not is_less,
    }[operator]
    return _YES if holds else _NO


def _size_comparison(call: Expression, operator: Operator, field: Field, bound: Any) -> Forms:
    """Only whether something is empty, however that is written."""
    if not isinstance(bound, float):
        return Forms(_not(call), _not(call))
    truths = [_compared_constants(call, operator, float(size), bound) for size in range(4)]
    if not -1 <= bound <= 1 or truths[1] != truths[2] or truths[2] != truths[3]:
        return _unexpressed("size", call)
    empty = any_of(every(field, FALSE), Compare(Operator.EQUAL, field, ""))
    filled = any_of(
        some(field, TRUE), all_of(KindIs(field, _TEXT), Compare(Operator.NOT_EQUAL, field, ""))
    )
    return _by_case(((empty, truths[0]), (filled, truths[1])))


def _membership(call: Expression, value: _Operand, container: _Operand, level: int) -> Forms:
    if isinstance(value, Forms | _Size):
        return Forms(_not(call), _not(call))
    if isinstance(container, _Constant):
        items = container.value
        if not isinstance(items, list | Mapping):
            return _ERROR
        found = _any_equal(call, [value, *map(_Constant, items)])
        if isinstance(items, Mapping):
            is_key = _is_key(value)
            return Forms(all_of(is_key, found.true), all_of(is_key, found.false))
        return found
    if isinstance(container, Field):
        return _in_field(call, value, container, level)
    return Forms(_not(call), _not(call))


def _in_field(call: Expression, value: _Operand, container: Field, level: int) -> Forms:
    """`value in container`. A map is searched for a key, which must be of a kind that keys have."""
    element = Field((), level + 1)
    if isinstance(value, Field):
        is_member: Filter = Compare(Operator.EQUAL, element, value)
        is_other: Filter = Compare(Operator.NOT_EQUAL, element, value)
        is_there = present(value)
    else:
        assert isinstance(value, _Constant)  # noqa: S101  # for the type checker
        if isinstance(value.value, list | Mapping):
            return Forms(_not(call), _not(call))
        is_member = Compare(Operator.EQUAL, element, value.value)
        is_other = Compare(Operator.NOT_EQUAL, element, value.value)
        is_there = TRUE
    fits = any_of(KindIs(container, _LIST), _is_key(value))
    return Forms(some(container, is_member), all_of(is_there, fits, every(container, is_other)))


def _is_key(value: _Operand) -> Filter:
    if isinstance(value, Field):
        return KindIs(value, _KEYS)
    is_key = isinstance(value, _Constant) and kind_of(value.value) in _KEYS
    return TRUE if is_key else FALSE


def _any_equal(call: Expression, operands: list[_Operand]) -> Forms:
    """Whether the first operand equals one of the others; fails where any of them does."""
    if any(operand is Failed.FAILED for operand in operands):
        return _ERROR
    for operand in operands:
        if isinstance(operand, Unexpressed | Forms | _Size):
            node = operand if isinstance(operand, Unexpressed) else _not(call)
            return Forms(node, node)
    value, *items = operands
    values = [item.value for item in items if isinstance(item, _Constant)]
    if isinstance(value, Field) and len(values) == len(items):
        if any(isinstance(one, list | Mapping) for one in values):
            return Forms(_not(call), _not(call))
        scalars: tuple[Scalar, ...] = tuple(values)
        if not scalars:
            return Forms(FALSE, present(value))
        return Forms(OneOf(value, scalars), OneOf(value, scalars, negated=True))
    equalities = []
    for item in items:
        left, right = (item, value) if isinstance(value, _Constant) else (value, item)
        equalities.append(_comparison(call, Operator.EQUAL, left, right))
    fields = [present(one) for one in operands if isinstance(one, Field)]
    return Forms(
        all_of(*fields, any_of(*(one.true for one in equalities))),
        all_of(*fields, *(one.false for one in equalities)),
    )


def _text_test(call: Expression, value: _Operand, text: _Operand) -> Forms:
    test = _TESTS[call.name]
    if isinstance(value, Field) and isinstance(text, _Constant):
        if not isinstance(text.value, str):
            return _ERROR
        if not text.value:
            return Forms(KindIs(value, _TEXT), FALSE)
        return Forms(Match(test, value, text.value), Match(test, value, text.value, negated=True))
    if isinstance(value, _Constant) and isinstance(text, _Constant):
        if not isinstance(value.value, str) or not isinstance(text.value, str):
            return _ERROR
        tests = {
            TextTest.PREFIX: str.startswith,
            TextTest.SUFFIX: str.endswith,
            TextTest.CONTAINS: str.__contains__,
        }
        return _YES if tests[test](value.value, text.value) else _NO
    return Forms(_not(call), _not(call))
