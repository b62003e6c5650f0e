"""Partially evaluates a condition with a known actor, context and time.

In:  a condition, the values of the actor and of the context, the resource type. Or no actor: then a
     filter also reads the actor, as `("actor", ...)`, and the time, as `("now",)` and, in whole
     seconds, `("now", "seconds")`.
Out: two filters: the resources for which the condition is definitely true, and those for which it
     is definitely false. If it fails, neither filter matches.

The CEL runtime evaluates each part that does not depend on the resource. A part that no filter can
express becomes an `Unexpressed` node, which may still disappear: `false && x.matches("a")`.

See docs/adr/0026-one-neutral-filter.md.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import product
from typing import Final

from pdp_filters import (
    TRUE,
    And,
    Compare,
    Every,
    Field,
    Filter,
    Kind,
    KindIs,
    Or,
    Some,
    all_of,
    any_of,
    walk,
)
from pdp_filters.ir import absent, every, present, some

from pdp import limits
from pdp.decision.cel_ast import Kind as Syntax
from pdp.decision.conditions import Condition
from pdp.decision.expression import Expression, expression_of, is_declared
from pdp.decision.fast_path import Values
from pdp.decision.forms import (
    ERROR,
    NO,
    TEXT,
    YES,
    Constant,
    Forms,
    Operand,
    Unexpressed,
    as_bool,
    by_case,
    constant_of,
    not_expressed,
    selected,
    sized,
    unexpressed,
    unexpressed_forms,
)
from pdp.decision.operators import COMPARISONS, TEXT_TESTS, any_equal, binary
from pdp.errors import LimitExceeded

_ATTRIBUTES: Final = Field(("attributes",))
_ORGANIZATION: Final = Field(("organization",))
_MAP: Final = frozenset((Kind.MAP,))
_NOW: Final = Field(("now",))
_SECONDS: Final = Field(("now", "seconds"))
_OF_ACTOR: Final = frozenset(
    f"actor.{name}"
    for name in (
        *("id", "session", "organization", "organization_role", "organization_permissions"),
        "attributes",
    )
)
"""What a filter may read of an actor who is not known yet: the facts in the database."""

_Case = tuple[Filter, Operand]
"""A filter of the case, and the operand in that case."""
_Scope = Mapping[str, Field | Constant]
"""The variables of enclosing loops."""


def cost_max(condition: Condition, values: Values) -> float:
    """The most that evaluating a condition takes from the budget of a question."""
    opened = condition.opened()
    return 0 if opened is None else opened.cost_max(values)


def forms_of(
    condition: Condition,
    values: Values,
    *,
    has_no_tenants: bool,
    is_affordable: bool,
    actor_is_known: bool = True,
) -> Forms:
    """The two forms of a condition.

    Args:
        condition: a condition.
        values: those of the actor, and `context` and `resource.type` of the question.
        has_no_tenants: whether resources of the type belong to no organization.
        is_affordable: whether the budget suffices for any resource.
        actor_is_known: whether `values` hold the actor, the context and the time; else only
            `resource.type`.

    Raises:
        LimitExceeded: the forms would have too many nodes.
    """
    opened = condition.opened()
    expression = expression_of(condition.source)
    if opened is None or expression is None:
        return ERROR
    if opened.holds_nul(values):
        return unexpressed_forms("a text that holds NUL", expression)
    residual = _Residual(values, has_no_tenants=has_no_tenants, actor_is_known=actor_is_known)
    forms = residual.forms(expression, {}, 0)
    if opened.estimate is None or is_affordable:
        return forms
    # The size of each row, and other conditions, decide whether it is evaluated at all.
    for node in (*walk(forms.true), *walk(forms.false)):
        if isinstance(node, Unexpressed):
            return Forms(node, node)
    return unexpressed_forms("the cost of the condition", expression)


def check_size(size: int) -> None:
    """Raises LimitExceeded if a filter has too many nodes and values."""
    if size > limits.PLAN_NODES_MAX:
        raise LimitExceeded("plan_nodes_max", limits.PLAN_NODES_MAX, size)


def parts_of(node: Filter) -> tuple[Filter, ...]:
    """The direct children of a node."""
    if isinstance(node, And | Or):
        return node.parts
    return (node.body,) if isinstance(node, Some | Every) else ()


class _Residual:
    """Evaluates a condition partially for an actor. `level` counts the quantifiers around an
    expression."""

    def __init__(
        self, values: Values, *, has_no_tenants: bool, actor_is_known: bool = True
    ) -> None:
        self._values = values
        self._has_no_tenants = has_no_tenants
        self._actor_is_known = actor_is_known
        self._forms_left = limits.PLAN_NODES_MAX
        self._sizes: dict[int, tuple[Filter, int]] = {}
        """By identity of the node. An entry keeps its node alive, so no other node can get that
        identity."""

    def forms(self, expression: Expression, scope: _Scope, level: int) -> Forms:
        """The forms of an expression as a condition: every value but a bool fails."""
        self._spend()
        forms = self._forms(expression, scope, level)
        # A part may occur in both forms, and so double with each level of nesting.
        check_size(max(self._size(forms.true), self._size(forms.false)))
        return forms

    def _is_known(self, expression: Expression) -> bool:
        """Whether its value depends on nothing that only a database knows."""
        if self._actor_is_known:
            return expression.is_known
        return expression.free <= {"resource.type"}

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
        if not self._is_known(expression) and expression.kind is Syntax.CALL:
            made = self._call(expression, scope, level)
            if made is not None:
                return made
        if not self._is_known(expression) and expression.kind is Syntax.COMPREHENSION:
            return self._comprehension(expression, scope, level)
        if not self._is_known(expression) and expression.kind is Syntax.SELECT and expression.tests:
            return self._presence(expression, scope, level)
        return by_case(
            (guard, as_bool(operand)) for guard, operand in self._cases(expression, scope, level)
        )

    def _call(  # noqa: PLR0911  # an operator each
        self, call: Expression, scope: _Scope, level: int
    ) -> Forms | None:
        inner = call.inner
        if call.name in ("_&&_", "_||_"):
            left, right = (self.forms(operand, scope, level) for operand in inner)
            if call.name == "_||_":
                return Forms(any_of(left.true, right.true), all_of(left.false, right.false))
            return Forms(all_of(left.true, right.true), any_of(left.false, right.false))
        if call.name == "!_":
            return self.forms(inner[0], scope, level).negated()
        if call.name == "_?_:_":
            test, first, second = (self.forms(operand, scope, level) for operand in inner)
            return by_case(((test.true, first), (test.false, second)))
        if call.name in COMPARISONS and not self._actor_is_known:
            timed = self._comparison_with_now(call)
            if timed is not None:
                return timed
        if call.name in COMPARISONS or call.name == "@in" or call.name in TEXT_TESTS:
            if call.name == "@in" and inner[1].kind is Syntax.LIST and not self._is_known(inner[1]):
                return self._in_written_list(call, scope, level)
            return by_case(
                (all_of(left_guard, right_guard), binary(call, left, right, level))
                for (left_guard, left), (right_guard, right) in self._combined(inner, scope, level)
            )
        return None

    def _comparison_with_now(self, call: Expression) -> Forms | None:
        """`now` on one side, a known time on the other. Seconds since 1970-01-01 UTC."""
        operator = COMPARISONS[call.name]
        now, other = call.inner
        if other.name == "now":
            now, other, operator = other, now, operator.mirrored
        if now.kind is not Syntax.VARIABLE or now.name != "now" or not self._is_known(other):
            return None
        value = other.evaluate(self._values)
        if not isinstance(value, datetime):
            return None
        seconds = value.timestamp()
        return Forms(Compare(operator, _NOW, seconds), Compare(operator.opposite, _NOW, seconds))

    def _combined(
        self, operands: tuple[Expression, ...], scope: _Scope, level: int
    ) -> Iterator[tuple[_Case, ...]]:
        for chosen in product(*(self._cases(operand, scope, level) for operand in operands)):
            self._spend()
            yield chosen

    def _in_written_list(self, call: Expression, scope: _Scope, level: int) -> Forms:
        """The forms of `x in [resource.attributes.owner, "a"]`: if an element fails, the list
        fails."""
        operands = (call.inner[0], *call.inner[1].inner)
        return by_case(
            (
                all_of(*(guard for guard, _ in chosen)),
                any_equal(call, [operand for _, operand in chosen]),
            )
            for chosen in self._combined(operands, scope, level)
        )

    def _presence(self, test: Expression, scope: _Scope, level: int) -> Forms:
        def forms(base: Operand) -> Forms:
            if isinstance(base, Field):
                key = Field((*base.path, test.name), base.level)
                is_map = TRUE if base == _ATTRIBUTES else KindIs(base, _MAP)
                return Forms(present(key), all_of(is_map, absent(key)))
            if isinstance(base, Constant) and isinstance(base.value, Mapping):
                return YES if test.name in base.value else NO
            return Forms(base, base) if isinstance(base, Unexpressed) else ERROR

        cases = self._cases(test.inner[0], scope, level, whole=True)
        return by_case((guard, forms(base)) for guard, base in cases)

    def _comprehension(self, loop: Expression, scope: _Scope, level: int) -> Forms:
        """The forms of the macros exists() and all(), as CEL expands them."""
        step = loop.inner[3]
        name = {"_||_": "exists", "_&&_": "all"}.get(step.name, "")
        result = loop.inner[4]
        if (
            not name
            or loop.inner[1].constant is not (name == "all")
            or result.kind is not Syntax.VARIABLE
            or step.inner[0].name != loop.name
        ):
            return unexpressed_forms("a loop other than exists() and all()", loop)

        def forms(over: Operand) -> Forms:
            if isinstance(over, Field):
                element = {loop.element: Field((), level + 1)}
                body = self.forms(step.inner[1], {**scope, **element}, level + 1)
                if name == "exists":
                    return Forms(some(over, body.true), every(over, body.false))
                return Forms(every(over, body.true), some(over, body.false))
            if isinstance(over, Constant) and isinstance(over.value, list | Mapping):
                # A loop over a map visits its keys.
                bodies = [
                    self.forms(step.inner[1], {**scope, loop.element: Constant(value)}, level)
                    for value in over.value
                ]
                trues, falses = [body.true for body in bodies], [body.false for body in bodies]
                if name == "exists":
                    return Forms(any_of(*trues), all_of(*falses))
                return Forms(all_of(*trues), any_of(*falses))
            return Forms(over, over) if isinstance(over, Unexpressed) else ERROR

        return by_case(
            (guard, forms(over)) for guard, over in self._cases(loop.inner[0], scope, level)
        )

    def _cases(  # noqa: PLR0912  # a kind of expression each
        self, expression: Expression, scope: _Scope, level: int, *, whole: bool = False
    ) -> Iterator[_Case]:
        """The cases of an operand. `whole`: it may also be the whole map of the resource's
        attributes."""
        if self._is_known(expression):
            yield TRUE, constant_of(expression.evaluate(self._values), expression)
            return
        if expression.kind is Syntax.VARIABLE:
            yield from self._variable(expression, scope, whole=whole)
            return
        key = self._key(expression)
        if key is not None:
            for guard, base in self._cases(expression.inner[0], scope, level, whole=True):
                yield guard, selected(base, key, expression)
            return
        if expression.kind is Syntax.CALL and expression.name == "dyn":
            yield from self._cases(expression.inner[0], scope, level)
        elif expression.kind is Syntax.CALL and expression.name == "_?_:_":
            test = self.forms(expression.inner[0], scope, level)
            for guard, branch in zip(test, expression.inner[1:], strict=True):
                for inner, operand in self._cases(branch, scope, level):
                    yield all_of(guard, inner), operand
        elif _is_seconds_of_now(expression):
            yield TRUE, _SECONDS
        elif expression.kind is Syntax.CALL and expression.name == "size":
            for guard, operand in self._cases(expression.inner[0], scope, level):
                yield guard, sized(operand, expression)
        elif expression.kind is Syntax.COMPREHENSION or (
            expression.kind is Syntax.SELECT and expression.tests
        ):
            yield TRUE, self.forms(expression, scope, level)
        else:
            made = None
            if expression.kind is Syntax.CALL:
                made = self._call(expression, scope, level)
            yield TRUE, made or not_expressed(expression)

    def _variable(self, variable: Expression, scope: _Scope, *, whole: bool) -> Iterator[_Case]:
        if not is_declared(variable.name) or variable.name in scope:
            yield TRUE, scope[variable.name]
        elif not variable.name.startswith("resource."):  # an actor that is not known
            path = tuple(variable.name.split("."))
            of_actor = variable.name in _OF_ACTOR
            yield TRUE, Field(path) if of_actor else unexpressed(variable.name, variable)
        elif variable.name == "resource.attributes":
            yield (
                TRUE,
                _ATTRIBUTES if whole else unexpressed("resource.attributes", variable),
            )
        elif variable.name == "resource.organization" and self._has_no_tenants:
            yield absent(_ORGANIZATION), Constant("")
            yield KindIs(_ORGANIZATION, TEXT), _ORGANIZATION
        else:
            yield TRUE, Field((variable.name.removeprefix("resource."),))

    def _key(self, expression: Expression) -> str | None:
        """The key of `map.key`, and of `map[key]` if the key is known."""
        if expression.kind is Syntax.SELECT and not expression.tests:
            return expression.name
        if expression.kind is Syntax.CALL and expression.name == "_[_]":
            index = expression.inner[1]
            value = index.evaluate(self._values) if self._is_known(index) else None
            return value if isinstance(value, str) else None
        return None


def _is_seconds_of_now(expression: Expression) -> bool:
    """Whether it is `int(now)` or `double(int(now))`: seconds since 1970-01-01 UTC."""
    if expression.kind is Syntax.CALL and expression.name == "double":
        expression = expression.inner[0]
    if expression.kind is not Syntax.CALL or expression.name != "int":
        return False
    [now] = expression.inner
    return now.kind is Syntax.VARIABLE and now.name == "now"
