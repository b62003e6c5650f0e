"""Conditions: CEL expressions of type bool, checked when written, compiled once per text.

The language is CEL (https://cel.dev) in Google's own runtime. Variables are declared with their
types, so a typo or a comparison of a number with a text is rejected at write time. Values are
bound, never spliced into the text. Only JSON values, times and texts are bound.

The runtime's binding truncates a text at its first NUL, so a value that holds one is never bound:
the condition fails.

Each condition has a cost (`pdp.decision.cost`). A condition that is too expensive for values of a
modest size is rejected when it is written. A condition that is too expensive for the actual values
fails before it is evaluated. A constant that cannot be evaluated is rejected at write time. A
stored condition that an earlier version accepted is still evaluated, within the budget.

As the CEL specification says, `a || b` and `a && b` absorb an error of one side if the other side
settles the result. An error that is not absorbed is a failure, which never allows.
"""

import enum
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from cel_expr_python import cel  # type: ignore[import-untyped]

from pdp import limits
from pdp.decision.cel_ast import Tree, part_of
from pdp.decision.condition_compiler import (
    ConditionInvalid,
    Program,
    check_constants,
    check_cost,
    compile_program,
    used_keys,
)
from pdp.decision.cost import BINDING_MAX, Budget, Estimate, Size, measured
from pdp.decision.fast_path import Values
from pdp.decision.variables import (
    ENVIRONMENT,
    OPEN,
    WORST_SIZES,
    Read,
    bound,
    holds_nul,
    reads_of,
    unwrapped,
)
from pdp.model import Reason

# Errors of an absent map key, and of an absent variable (no resource, no second factor).
_ABSENT = ("NOT_FOUND:", "UNKNOWN: No value with name")
_CONDITIONS_KEPT: Final = 2_048
_PART_COST: Final = 10.0
"""Of an evaluation of a part, without binding its values; in microseconds of one core, roughly."""


class OpenCondition(NamedTuple):
    """The parts of a compiled condition."""

    tree: Tree
    reads: tuple[Read, ...]
    estimate: Estimate | None

    def cost_max(self, values: Values) -> float:
        """The most that it takes from the budget of a question, for any resource; 0: it is not
        charged. `values` lack those of the resource."""
        if self.estimate is None:
            return 0
        known = {name: measured(value) for name, value in bound(self.reads, values).items()}
        sizes = {name: size for name, (size, _) in known.items()}
        binding = sum(cost for _, cost in known.values())
        binding += sum(
            BINDING_MAX for read in self.reads if read.name in OPEN and read.name not in known
        )
        # `_charge` counts the binding twice.
        return max(self.estimate({**worst, **sizes})[0] for worst in WORST_SIZES) + 2 * binding

    def binding(self, values: Values) -> float:
        """The cost of binding the values that it reads."""
        return sum(measured(value)[1] for value in bound(self.reads, values).values())

    def holds_nul(self, values: Values) -> bool:
        """Whether a value that it reads holds NUL; then the runtime is not used."""
        return holds_nul(bound(self.reads, values))


class Failed(enum.Enum):
    """The value of an expression that cannot be evaluated."""

    FAILED = "failed"


class Condition:
    """A condition, compiled at its first use. Threads may share it.

    `condition_of` makes conditions, so rules with the same text, also in successive policies, share
    a compilation.
    """

    __slots__ = ("_acceptable", "_program", "reads_now", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.reads_now = False
        """Whether it may read the time; known after the compilation."""
        self._program: Program | ConditionInvalid | None = None
        self._acceptable = False

    def check(self) -> None:
        """Raises ConditionInvalid if the text is not a condition, or may not be written: it is too
        expensive, or a constant in it cannot be evaluated."""
        program = self._compiled()
        if isinstance(program, ConditionInvalid):
            raise ConditionInvalid(program.message, program.column, program.line)
        if not self._acceptable:
            check_cost(program.tree)
            check_constants(program.tree, self.source)
            self._acceptable = True

    def evaluate_plain(self, values: Values) -> bool | None:
        """The result of `evaluate` if a fast path gives it; None: the runtime must evaluate."""
        program = self._program or self._compiled()
        if isinstance(program, ConditionInvalid) or program.fast_path is None:
            return None
        return program.fast_path(values)

    def evaluate(self, values: Values, budget: Budget | None = None) -> bool | Reason:
        """True, False, or why there is no result: ATTRIBUTE_MISSING or CONDITION_FAILED.

        A variable that is absent from the values is an error only if it is read. A text that is not
        a condition (it was never checked) fails. A condition that may cost more than the budget has
        left fails too, and the budget reports that; without a budget, the condition has a full one
        for itself.
        """
        answer = self.evaluate_plain(values)
        if answer is not None:
            return answer
        program = self._compiled()
        if isinstance(program, ConditionInvalid):
            return Reason.CONDITION_FAILED
        return self._evaluate_fully(program, values, budget or Budget())

    def _evaluate_fully(self, program: Program, values: Values, budget: Budget) -> bool | Reason:
        data = bound(program.reads, values)
        if program.estimate is not None:
            _charge(program.estimate, data, budget)
            if budget.exceeded:
                return Reason.CONDITION_FAILED
        if holds_nul(data):
            return Reason.CONDITION_FAILED
        try:
            result = program.expression.eval(data=data).value()
        except RuntimeError:  # the iteration budget
            return Reason.CONDITION_FAILED
        if result is True or result is False:
            return bool(result)
        # The static type is bool, so any other value is the text of an error.
        if isinstance(result, str) and result.startswith(_ABSENT):
            return Reason.ATTRIBUTE_MISSING
        return Reason.CONDITION_FAILED

    def parts(self, values: Values) -> "Parts | None":
        """The parts with these values, for explanations; None: the text is not a condition."""
        program = self._compiled()
        return None if isinstance(program, ConditionInvalid) else Parts(program, values)

    def opened(self) -> "OpenCondition | None":
        """The compiled parts, for analysis; None: the text is not a condition."""
        program = self._program or self._compiled()
        if isinstance(program, ConditionInvalid):
            return None
        return OpenCondition(program.tree, program.reads, program.estimate)

    def _compiled(self) -> Program | ConditionInvalid:
        program = self._program
        if program is None:
            # Two threads may compile at the same time: the runtime allows it, and the results are
            # equal.
            try:
                program = compile_program(self.source)
            except ConditionInvalid as error:
                program = error.with_traceback(None)
            if isinstance(program, Program):
                self.reads_now = any(read.name == "now" for read in program.reads)
            self._program = program
        return program


class Parts:
    """The expressions inside a condition, evaluated separately with the same values.

    All evaluations by an object share a budget. Each costs as much as the whole condition.
    """

    def __init__(
        self, program: Program, values: Values, compiled: dict[bytes, Any] | None = None
    ) -> None:
        """`compiled`: expressions by their place in the tree."""
        self._program = program
        self._compiled = {} if compiled is None else compiled
        self.tree = program.tree
        self._estimate = program.estimate
        self._data = bound(program.reads, values)
        self._budget = Budget()
        self._bindable = not holds_nul(self._data)
        self._evaluations = 0

    def with_values(self, values: Values) -> "Parts":
        """The parts with other values, and a budget of their own. Shares what was compiled."""
        return Parts(self._program, values, self._compiled)

    def cost(self) -> float:
        """What the evaluations took, in microseconds of one core, roughly."""
        binding = sum(measured(value)[1] for value in self._data.values())
        charged = limits.CONDITION_COST_MAX - self._budget.left
        return self._evaluations * (_PART_COST + binding) + charged

    def evaluate(self, part: bytes) -> Any:
        """The value of an expression outside of any loop: a JSON value, a time, a duration or
        bytes; or the Reason why it has none, as in `Condition.evaluate`."""
        if self._estimate is not None and not self._budget.exceeded:
            _charge(self._estimate, self._data, self._budget)
        if self._budget.exceeded or not self._bindable:
            return Reason.CONDITION_FAILED
        self._evaluations += 1
        try:
            expression = self._compiled.get(part)
            if expression is None:
                expression = ENVIRONMENT.deserialize(part_of(self.tree, part))
                self._compiled[part] = expression
            result = expression.eval(data=self._data)
        except RuntimeError:  # the iteration budget
            return Reason.CONDITION_FAILED
        value = result.value()
        if result.type() != cel.Type.ERROR:
            return unwrapped(value)
        absent = isinstance(value, str) and value.startswith(_ABSENT)
        return Reason.ATTRIBUTE_MISSING if absent else Reason.CONDITION_FAILED


def evaluator_of(tree: Tree, part: bytes) -> Callable[[Values], Any]:
    """Makes an evaluator of an expression: it returns the value as a Python object, or FAILED.

    The expression must not read a variable of a comprehension that encloses it.
    """
    expression = ENVIRONMENT.deserialize(part_of(tree, part))
    reads = reads_of(used_keys(tree._replace(root=part)))

    def evaluate(values: Values) -> Any:
        try:
            result = expression.eval(data=bound(reads, values))
        except RuntimeError:  # the iteration budget
            return Failed.FAILED
        return Failed.FAILED if result.type() == cel.Type.ERROR else unwrapped(result.value())

    return evaluate


def _charge(estimate: Estimate, data: Mapping[str, Any], budget: Budget) -> float:
    """Charges the budget for an evaluation with these values. Returns the cost.

    Measuring the values costs about as much as binding them. It is charged in every case.
    """
    sizes: dict[str, Size] = {}
    binding = 0.0
    for name, value in data.items():
        sizes[name], cost = measured(value)
        binding += cost
    cost = estimate(sizes)[0] + binding
    if budget.spend(binding):
        budget.spend(cost)
    return cost


@lru_cache(maxsize=_CONDITIONS_KEPT)
def condition_of(source: str) -> Condition:
    """The condition with this text, not yet checked."""
    return Condition(source)


def compile_condition(source: str) -> Condition:
    """Checks a text that is about to be written, and returns its condition. Raises
    ConditionInvalid."""
    condition = condition_of(source)
    condition.check()
    return condition
