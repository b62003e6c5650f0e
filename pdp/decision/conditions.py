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
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from cel_expr_python import cel  # type: ignore[import-untyped]

from pdp import limits
from pdp.decision.cel_ast import Constant, Kind, Node, Tree, part_of, read, tree_of
from pdp.decision.constants import is_zoned, problem_of
from pdp.decision.cost import (
    BINDING_MAX,
    MODEST,
    MODEST_BYTES,
    MODEST_ITEMS,
    SCALAR,
    WORST,
    Budget,
    Estimate,
    Size,
    Sizes,
    estimate_of,
    measured,
)
from pdp.decision.fast_path import FastPath, Values, fast_path_of
from pdp.decision.suggestions import with_suggestion
from pdp.model import Reason

_TEXT: Final = cel.Type.STRING
_MAP: Final = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
_OPEN: Final = frozenset(("actor.attributes", "actor.claims", "resource.attributes", "context"))
_ACTOR_VARIABLES: Mapping[str, cel.Type] = {
    "actor.id": _TEXT,
    "actor.session": _TEXT,
    "actor.organization": _TEXT,
    "actor.organization_role": _TEXT,
    "actor.organization_permissions": cel.Type.List(_TEXT),
    "actor.impersonator": _TEXT,
    "actor.attributes": _MAP,
    "actor.claims": _MAP,
    "actor.claimed_permissions": cel.Type.List(_TEXT),
    "actor.first_factor_minutes": cel.Type.DOUBLE,
    "actor.second_factor_minutes": cel.Type.DOUBLE,
    "now": cel.Type.TIMESTAMP,
}
_QUESTION_VARIABLES: Mapping[str, cel.Type] = {
    "resource.type": _TEXT,
    "resource.id": _TEXT,
    "resource.organization": _TEXT,
    "resource.attributes": _MAP,
    "context": _MAP,
}
_PLACES: Mapping[str, int] = dict.fromkeys(_ACTOR_VARIABLES, 0) | dict.fromkeys(
    _QUESTION_VARIABLES, 1
)
# From the types that values have to the types that CEL accepts.
_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "actor.organization_permissions": list,
    "actor.claimed_permissions": list,
    "now": lambda seconds: datetime.fromtimestamp(seconds, UTC),
}

_ENVIRONMENT: Final = cel.NewEnv(variables={**_ACTOR_VARIABLES, **_QUESTION_VARIABLES})
_COMPILE_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Errors of an absent map key, and of an absent variable (no resource, no second factor).
_ABSENT = ("NOT_FOUND:", "UNKNOWN: No value with name")
_CONDITIONS_KEPT: Final = 2_048
_CONCATENATIONS = frozenset(("add_string", "add_bytes", "add_list"))
_DEPTH_MAX: Final = 150
"""Far more than real conditions need; code that walks a tree may recurse to this depth."""
_PART_COST: Final = 10.0
"""Of an evaluation of a part, without binding its values; in microseconds of one core, roughly."""


def _sizes(shape: Size, text: float) -> Sizes:
    """Sizes of the variables: `text` bytes for texts, `shape` for lists and maps."""
    variables = {**_ACTOR_VARIABLES, **_QUESTION_VARIABLES}
    scalars = (cel.Type.DOUBLE, cel.Type.TIMESTAMP)
    return {
        name: Size(text) if kind == _TEXT else SCALAR if kind in scalars else shape
        for name, kind in variables.items()
    }


_MODEST: Final = _sizes(MODEST, MODEST_BYTES)
_WORST: Final = tuple(_sizes(shape, limits.TOKEN_BYTES_MAX) for shape in WORST)


class ConditionInvalid(ValueError):  # named like the errors of pdp.errors
    """The text is not a condition. Line and column count from 1."""

    def __init__(self, message: str, column: int = 1, line: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.column = column
        self.line = line


class _Read(NamedTuple):
    place: int
    name: str
    keys: tuple[str, ...] | None
    """The keys of a map that are read; None: the whole value."""
    conversion: Callable[[Any], Any] | None


class _Program(NamedTuple):
    expression: Any
    reads: tuple[_Read, ...]
    fast_path: FastPath | None
    tree: Tree
    estimate: Estimate | None
    """The cost of an evaluation; None: too little to be charged."""


class OpenCondition(NamedTuple):
    """The parts of a compiled condition."""

    tree: Tree
    reads: tuple[_Read, ...]
    estimate: Estimate | None

    def cost_max(self, values: Values) -> float:
        """The most that it takes from the budget of a question, for any resource; 0: it is not
        charged. `values` lack those of the resource."""
        if self.estimate is None:
            return 0
        known = {name: measured(value) for name, value in _bound(self.reads, values).items()}
        sizes = {name: size for name, (size, _) in known.items()}
        binding = sum(cost for _, cost in known.values())
        binding += sum(
            BINDING_MAX for read in self.reads if read.name in _OPEN and read.name not in known
        )
        # `_charge` counts the binding twice.
        return max(self.estimate({**worst, **sizes})[0] for worst in _WORST) + 2 * binding

    def binding(self, values: Values) -> float:
        """The cost of binding the values that it reads."""
        return sum(measured(value)[1] for value in _bound(self.reads, values).values())

    def holds_nul(self, values: Values) -> bool:
        """Whether a value that it reads holds NUL; then the runtime is not used."""
        return _holds_nul(_bound(self.reads, values))


class Failed(enum.Enum):
    """The value of an expression that cannot be evaluated."""

    FAILED = "failed"


class Condition:
    """A condition, compiled at its first use. Threads may share it.

    `condition_of` makes conditions, so rules with the same text, also in successive policies, share
    a compilation.
    """

    __slots__ = ("_acceptable", "_program", "reads_now", "reads_resource", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.reads_now = False
        """Whether it may read the time; known after the compilation."""
        self.reads_resource = False
        """Whether it reads the resource; known after the compilation."""
        self._program: _Program | ConditionInvalid | None = None
        self._acceptable = False

    def check(self) -> None:
        """Raises ConditionInvalid if the text is not a condition, or may not be written: it is too
        expensive, or a constant in it cannot be evaluated."""
        program = self._compiled()
        if isinstance(program, ConditionInvalid):
            raise ConditionInvalid(program.message, program.column, program.line)
        if not self._acceptable:
            _check_cost(program.tree)
            _check_constants(program.tree, self.source)
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

    def _evaluate_fully(self, program: _Program, values: Values, budget: Budget) -> bool | Reason:
        data = _bound(program.reads, values)
        if program.estimate is not None:
            _charge(program.estimate, data, budget)
            if budget.exceeded:
                return Reason.CONDITION_FAILED
        if _holds_nul(data):
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

    def _compiled(self) -> _Program | ConditionInvalid:
        program = self._program
        if program is None:
            # Two threads may compile at the same time: the runtime allows it, and the results are
            # equal.
            try:
                program = _compile(self.source)
            except ConditionInvalid as error:
                program = error.with_traceback(None)
            if isinstance(program, _Program):
                self.reads_now = any(read.name == "now" for read in program.reads)
                self.reads_resource = any(
                    read.name.startswith("resource.") for read in program.reads
                )
            self._program = program
        return program


class Parts:
    """The expressions inside a condition, evaluated separately with the same values.

    All evaluations by an object share a budget. Each costs as much as the whole condition.
    """

    def __init__(
        self, program: _Program, values: Values, compiled: dict[memoryview, Any] | None = None
    ) -> None:
        """`compiled`: expressions by their place in the tree."""
        self._program = program
        self._compiled = {} if compiled is None else compiled
        self.tree = program.tree
        self._estimate = program.estimate
        self._data = _bound(program.reads, values)
        self._budget = Budget()
        self._bindable = not _holds_nul(self._data)
        self._evaluations = 0

    def with_values(self, values: Values) -> "Parts":
        """The parts with other values, and a budget of their own. Shares what was compiled."""
        return Parts(self._program, values, self._compiled)

    def cost(self) -> float:
        """What the evaluations took, in microseconds of one core, roughly."""
        binding = sum(measured(value)[1] for value in self._data.values())
        charged = limits.CONDITION_COST_MAX - self._budget.left
        return self._evaluations * (_PART_COST + binding) + charged

    def evaluate(self, part: memoryview) -> Any:
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
                expression = _ENVIRONMENT.deserialize(part_of(self.tree, part))
                self._compiled[part] = expression
            result = expression.eval(data=self._data)
        except RuntimeError:  # the iteration budget
            return Reason.CONDITION_FAILED
        value = result.value()
        if result.type() != cel.Type.ERROR:
            return _unwrapped(value)
        absent = isinstance(value, str) and value.startswith(_ABSENT)
        return Reason.ATTRIBUTE_MISSING if absent else Reason.CONDITION_FAILED


def evaluator_of(tree: Tree, part: memoryview) -> Callable[[Values], Any]:
    """Makes an evaluator of an expression: it returns the value as a Python object, or FAILED.

    The expression must not read a variable of a comprehension that encloses it.
    """
    expression = _ENVIRONMENT.deserialize(part_of(tree, part))
    reads = _reads_of(_check(tree._replace(root=part)))

    def evaluate(values: Values) -> Any:
        try:
            result = expression.eval(data=_bound(reads, values))
        except RuntimeError:  # the iteration budget
            return Failed.FAILED
        return Failed.FAILED if result.type() == cel.Type.ERROR else _unwrapped(result.value())

    return evaluate


def _unwrapped(value: Any) -> Any:
    """Removes the runtime's accessors, which wrap the elements of lists and maps."""
    if isinstance(value, Mapping):
        return {_unwrapped(key): _unwrapped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unwrapped(item) for item in value]
    return _unwrapped(value.value()) if isinstance(value, cel.Value) else value


def _bound(reads: tuple[_Read, ...], values: Values) -> dict[str, Any]:
    """The values that an expression reads, in the types that CEL accepts."""
    data: dict[str, Any] = {}
    for place, name, keys, conversion in reads:
        value = values[place].get(name)
        if value is None:
            continue
        if keys is not None:
            # Binding converts the whole value, so only the keys that are read are bound.
            data[name] = {key: value[key] for key in keys if key in value}
        else:
            data[name] = conversion(value) if conversion is not None else value
    return data


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


def _holds_nul(data: Mapping[str, Any]) -> bool:
    """Whether a text that would be bound holds NUL. Iterative, because values may nest to any
    depth."""
    pending: list[Any] = [data]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            if "\x00" in value:
                return True
        elif isinstance(value, Mapping):
            pending += value.keys()
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return False


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


def _compile(source: str) -> _Program:
    if len(source) > limits.CONDITION_CHARACTERS_MAX:
        raise ConditionInvalid(
            f"has {len(source)} characters, at most {limits.CONDITION_CHARACTERS_MAX} are allowed"
        )
    if _SURROGATE.search(source):
        raise ConditionInvalid("must not contain lone surrogates")
    try:
        expression = _ENVIRONMENT.compile(source)
    except RuntimeError as error:
        if "recursion limit" in str(error):
            raise ConditionInvalid("nests too deeply") from None
        found = _COMPILE_ERROR.search(str(error).replace(" [INVALID_ARGUMENT]", ""))
        if found is None:
            raise ConditionInvalid("is not a CEL expression") from None
        line, column, message = found.groups()
        message = with_suggestion(message, _PLACES)
        # The parser reports -1 if it rejects the text as a whole.
        raise ConditionInvalid(message, max(1, int(column)), max(1, int(line))) from None
    if expression.return_type() != cel.Type.BOOL:
        type_name = expression.return_type().name().lower()
        raise ConditionInvalid(f"must be of type bool, but is of type {type_name}")
    tree = tree_of(expression.serialize())
    reads = _reads_of(_check(tree))
    estimate: Estimate | None = estimate_of(tree, tree.root)
    if estimate is not None and _costs_little(estimate, reads):
        estimate = None
    return _Program(expression, reads, fast_path_of(tree, _PLACES), tree, estimate)


def _reads_of(keys: Mapping[str, set[str] | None]) -> tuple[_Read, ...]:
    return tuple(
        _Read(
            _PLACES[name],
            name,
            None if known is None else tuple(sorted(known)),
            _CONVERSIONS.get(name),
        )
        for name, known in sorted(keys.items())
        if name in _PLACES
    )


def _costs_little(estimate: Estimate, reads: tuple[_Read, ...]) -> bool:
    """Whether it costs little for all values within the limits of attributes."""
    binding = sum(BINDING_MAX for read in reads if read.name in _OPEN)
    worst = max(estimate(sizes)[0] for sizes in _WORST)
    return worst + binding <= limits.CONDITION_COST_UNCHARGED_MAX


def _check_cost(tree: Tree) -> None:
    cost, _ = estimate_of(tree, tree.root)(_MODEST)
    if cost > limits.CONDITION_COST_MAX:
        raise ConditionInvalid(
            f"is too expensive: it may cost {_rounded(cost)} for lists of {MODEST_ITEMS} items and"
            f" texts of {MODEST_BYTES} bytes, at most {limits.CONDITION_COST_MAX:,} are allowed"
        )


def _rounded(cost: float) -> str:
    return f"{cost:,.0f}" if cost < 1e12 else f"{cost:.0e}"  # noqa: PLR2004


def _check_constants(tree: Tree, source: str) -> None:
    def error_of(part: memoryview) -> str | None:
        try:
            result = _ENVIRONMENT.deserialize(part_of(tree, part)).eval(data={})
        except RuntimeError as error:  # the iteration budget
            return str(error)
        return str(result.value()) if result.type() == cel.Type.ERROR else None

    problem = problem_of(tree, _PLACES, error_of, _is_unknown_zone)
    if problem is None:
        return
    offset = tree.offsets.get(problem.node_id, 0)
    line = source.count("\n", 0, offset) + 1
    column = offset - source.rfind("\n", 0, offset)
    raise ConditionInvalid(problem.message, column, line)


def _is_unknown_zone(zone: str) -> bool:
    return not isinstance(_ZONE_TRIAL.eval(data={"actor.id": zone}).value(), bool)


def _check(tree: Tree) -> dict[str, set[str] | None]:
    """The variables that an expression reads, each with its literal keys (None: the whole value is
    used). Raises ConditionInvalid for work that the iteration budget does not bound."""
    keys: dict[str, set[str] | None] = {}
    pending: list[tuple[memoryview, bool, int]] = [(tree.root, False, 1)]
    while pending:
        expression, repeated, depth = pending.pop()
        if depth > _DEPTH_MAX:
            raise ConditionInvalid("nests too deeply")
        node = read(expression)
        inner = node.inner
        if node.kind is Kind.VARIABLE:
            keys[node.name] = None
        elif node.kind is Kind.COMPREHENSION:
            # The range is evaluated once, the rest for every element.
            pending.append((inner[0], repeated, depth + 1))
            pending += [(part, True, depth + 1) for part in inner[1:]]
            continue
        elif node.kind is Kind.CALL:
            _check_call(node, tree, repeated=repeated)
        key = _literal_key(node)
        if key is not None:
            operand = read(inner[0])
            if operand.kind is Kind.VARIABLE:
                known = keys.setdefault(operand.name, set())
                if known is not None:
                    known.add(key)
                continue
        pending += [(part, repeated, depth + 1) for part in inner]
    return keys


def _literal_key(node: Node) -> str | None:
    """The key of `map.key` and `map['key']`."""
    if node.kind is Kind.SELECT:
        return node.name
    if node.kind is Kind.CALL and node.name == "_[_]":
        constant = read(node.inner[1]).constant
        return constant if isinstance(constant, str) else None
    return None


def _check_call(node: Node, tree: Tree, *, repeated: bool) -> None:
    if node.name == "matches":
        _check_pattern(read(node.inner[-1]).constant)
    # The runtime opens a file for each time zone and keeps every name it has seen.
    if is_zoned(node, tree) and not isinstance(read(node.inner[-1]).constant, str):
        raise ConditionInvalid(f"the time zone of {node.name}() must be a literal text")
    # Texts that grow in a loop would take memory that no budget limits. A macro builds its result
    # by adding to an accumulator, whose name begins with "@"; that is allowed.
    if (
        repeated
        and node.name == "_+_"
        and not _CONCATENATIONS.isdisjoint(tree.overloads.get(node.id, ()))
        and not read(node.inner[0]).name.startswith("@")
    ):
        raise ConditionInvalid(
            "must not join texts or lists inside all(), exists(), map() or filter(); "
            "to add numbers there, say double(a) + double(b)"
        )


def _check_pattern(pattern: Constant) -> None:
    """Patterns are RE2 (linear time). Policy owners write them; a request cannot supply one."""
    if not isinstance(pattern, str):
        raise ConditionInvalid("the pattern of matches() must be a literal text")
    trial = _PATTERN_TRIAL.eval(data={"context": {"pattern": pattern}}).value()
    if not isinstance(trial, bool):
        raise ConditionInvalid(f"the pattern {pattern!r} of matches() is not an RE2 expression")


_ZONE_TRIAL: Final = _ENVIRONMENT.compile("timestamp(0).getHours(actor.id) < 24")
_PATTERN_TRIAL: Final = _ENVIRONMENT.compile("''.matches(context.pattern)")
