"""Conditions: CEL expressions of type bool, checked when written, compiled once per text.

The language is CEL (https://cel.dev) in Google's own runtime. Variables are declared with their
types, so that a typo or a comparison of a number with a text is refused at write time. Values are
bound, never spliced into the text, and only JSON values, times and texts are ever bound.

The runtime's binding cuts a text off at its first NUL, so a value that holds one is never bound:
the condition fails.

A condition is charged for what it may cost (`pdp.decision.cost`): what is too expensive for values
of a modest size is refused when it is written, and what is too expensive with the values at hand
fails before it is evaluated. A constant that cannot be evaluated is refused when it is written. A
stored condition that an earlier version accepted is evaluated all the same, within the budget.

An error inside `a || b` or `a && b` is absorbed where the other side settles the result, as the
CEL specification says; an error that is left over is a failure, which never allows.
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
from pdp.decision.fast_path import Shortcut, Values, shortcut_of
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
# As values hold them -> as CEL knows them.
_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "actor.organization_permissions": list,
    "actor.claimed_permissions": list,
    "now": lambda seconds: datetime.fromtimestamp(seconds, UTC),
}

_ENVIRONMENT: Final = cel.NewEnv(variables={**_ACTOR_VARIABLES, **_QUESTION_VARIABLES})
_COMPILE_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# An absent map key, and an absent variable (no resource, no second factor).
_ABSENT = ("NOT_FOUND:", "UNKNOWN: No value with name")
_CONDITIONS_KEPT: Final = 2_048
_CONCATENATIONS = frozenset(("add_string", "add_bytes", "add_list"))
_DEPTH_MAX: Final = 150
"""Far more than anybody writes; what walks a tree may recurse so far."""


def _sizes(shape: Size, text: float) -> Sizes:
    """Texts of so many bytes, lists and maps of this shape."""
    variables = {**_ACTOR_VARIABLES, **_QUESTION_VARIABLES}
    scalars = (cel.Type.DOUBLE, cel.Type.TIMESTAMP)
    return {
        name: Size(text) if kind == _TEXT else SCALAR if kind in scalars else shape
        for name, kind in variables.items()
    }


_MODEST: Final = _sizes(MODEST, MODEST_BYTES)
_WORST: Final = tuple(_sizes(shape, limits.TOKEN_BYTES_MAX) for shape in WORST)


class ConditionInvalid(ValueError):  # named like the errors of pdp.errors
    """A text is not a condition. Line and column count from 1."""

    def __init__(self, message: str, column: int = 1, line: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.column = column
        self.line = line


class _Read(NamedTuple):
    place: int
    name: str
    keys: tuple[str, ...] | None
    """The keys that are read of a map; None: the whole value."""
    conversion: Callable[[Any], Any] | None


class _Program(NamedTuple):
    expression: Any
    reads: tuple[_Read, ...]
    shortcut: Shortcut | None
    tree: Tree
    estimate: Estimate | None
    """What an evaluation costs; None: so little that nobody needs to ask."""


class OpenCondition(NamedTuple):
    """A compiled condition in parts."""

    tree: Tree
    reads: tuple[_Read, ...]
    estimate: Estimate | None

    def cost_max(self, values: Values) -> float:
        """What it takes of the budget of a question at most, whatever the resource is; 0: it is not
        charged. `values` lack those of the resource."""
        if self.estimate is None:
            return 0
        known = {name: measured(value) for name, value in _bound(self.reads, values).items()}
        sizes = {name: size for name, (size, _) in known.items()}
        binding = sum(cost for _, cost in known.values())
        binding += sum(
            BINDING_MAX for one in self.reads if one.name in _OPEN and one.name not in known
        )
        # `_charge` counts the binding twice.
        return max(self.estimate({**worst, **sizes})[0] for worst in _WORST) + 2 * binding

    def holds_nul(self, values: Values) -> bool:
        """Whether a value that it reads holds NUL, so that the runtime is not asked."""
        return _holds_nul(_bound(self.reads, values))


class Failed(enum.Enum):
    """The value of an expression that cannot be evaluated."""

    FAILED = "failed"


class Condition:
    """A condition, compiled at its first use. Safe to share between threads.

    Made by `condition_of`, so that many rules with one text, and the policies that follow each
    other, share one compilation.
    """

    __slots__ = ("_acceptable", "_program", "reads_now", "reads_resource", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.reads_now = False
        """Whether it may read the time; known once it was compiled."""
        self.reads_resource = False
        """Whether it reads anything of the resource; known once it was compiled."""
        self._program: _Program | ConditionInvalid | None = None
        self._acceptable = False

    def check(self) -> None:
        """Raises ConditionInvalid where the text is not a condition, or none that may be written:
        a constant in it cannot be evaluated, or it is too expensive."""
        program = self._compiled()
        if isinstance(program, ConditionInvalid):
            raise ConditionInvalid(program.message, program.column, program.line)
        if not self._acceptable:
            _check_cost(program.tree)
            _check_constants(program.tree, self.source)
            self._acceptable = True

    def evaluate_plain(self, values: Values) -> bool | None:
        """What `evaluate` says, if that needs no runtime: of a plain condition and plain values."""
        program = self._program or self._compiled()
        if isinstance(program, ConditionInvalid) or program.shortcut is None:
            return None
        return program.shortcut(values)

    def evaluate(self, values: Values, budget: Budget | None = None) -> bool | Reason:
        """True, False, or why there is no answer: ATTRIBUTE_MISSING or CONDITION_FAILED.

        A variable that is absent from the values is an error only where it is read. A text that
        is not a condition (it was never checked) fails. So does what may cost more than is left of
        the budget, which then says so; without one it has a whole budget for itself.
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
        # The static type is bool, so anything else is the text of an error.
        if isinstance(result, str) and result.startswith(_ABSENT):
            return Reason.ATTRIBUTE_MISSING
        return Reason.CONDITION_FAILED

    def opened(self) -> "OpenCondition | None":
        """What it is made of, for whoever takes it apart; None: the text is not a condition."""
        program = self._program or self._compiled()
        if isinstance(program, ConditionInvalid):
            return None
        return OpenCondition(program.tree, program.reads, program.estimate)

    def _compiled(self) -> _Program | ConditionInvalid:
        program = self._program
        if program is None:
            # Two threads may compile at once: the runtime allows it, and either result will do.
            try:
                program = _compile(self.source)
            except ConditionInvalid as error:
                program = error.with_traceback(None)
            if isinstance(program, _Program):
                self.reads_now = any(one.name == "now" for one in program.reads)
                self.reads_resource = any(one.name.startswith("resource.") for one in program.reads)
            self._program = program
        return program


def evaluator_of(tree: Tree, part: memoryview) -> Callable[[Values], Any]:
    """Evaluates one expression of a tree: gives its value as Python holds it, or FAILED.

    For expressions that read no variable of a comprehension outside of them.
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
    """A value without the runtime's accessors, which it puts around what is in a list or map."""
    if isinstance(value, list):
        return [_unwrapped(one.value()) for one in value]
    if isinstance(value, dict):
        return {key: _unwrapped(one.value()) for key, one in value.items()}
    return value


def _bound(reads: tuple[_Read, ...], values: Values) -> dict[str, Any]:
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

    Measuring them costs about what binding them does, and is charged whatever comes of it.
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
    """Whether a text that would be bound holds NUL. Iterative: nothing here bounds the depth."""
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
    """The condition with this text, not checked yet."""
    return Condition(source)


def compile_condition(source: str) -> Condition:
    """The condition with this text, checked as one that is written. Raises ConditionInvalid."""
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
        # The parser says -1 where it gave up as a whole.
        raise ConditionInvalid(message, max(1, int(column)), max(1, int(line))) from None
    if expression.return_type() != cel.Type.BOOL:
        type_name = expression.return_type().name().lower()
        raise ConditionInvalid(f"must be of type bool, but is of type {type_name}")
    tree = tree_of(expression.serialize())
    reads = _reads_of(_check(tree))
    estimate: Estimate | None = estimate_of(tree, tree.root)
    if estimate is not None and _costs_little(estimate, reads):
        estimate = None
    return _Program(expression, reads, shortcut_of(tree, _PLACES), tree, estimate)


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
    """Whether it does for whatever the limits of attributes let in."""
    binding = sum(BINDING_MAX for one in reads if one.name in _OPEN)
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
    """The variables that an expression reads, with the literal keys read of each (None: any use
    of the whole value). Raises ConditionInvalid for what the iteration budget does not bound."""
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
            pending += [(one, True, depth + 1) for one in inner[1:]]
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
        pending += [(one, repeated, depth + 1) for one in inner]
    return keys


def _literal_key(node: Node) -> str | None:
    """Of `map.key` and `map['key']`."""
    if node.kind is Kind.SELECT:
        return node.name
    if node.kind is Kind.CALL and node.name == "_[_]":
        constant = read(node.inner[1]).constant
        return constant if isinstance(constant, str) else None
    return None


def _check_call(node: Node, tree: Tree, *, repeated: bool) -> None:
    if node.name == "matches":
        _check_pattern(read(node.inner[-1]).constant)
    # The runtime opens the file of a zone and keeps every name it was ever given.
    if is_zoned(node, tree) and not isinstance(read(node.inner[-1]).constant, str):
        raise ConditionInvalid(f"the time zone of {node.name}() must be a literal text")
    # Texts that grow in a loop would take memory that no budget counts. Lists that a macro
    # gathers are its own additions to an accumulator, whose name begins with "@".
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
    """Patterns are RE2 (linear time) and written by policy owners, never by who asks."""
    if not isinstance(pattern, str):
        raise ConditionInvalid("the pattern of matches() must be a literal text")
    trial = _PATTERN_TRIAL.eval(data={"context": {"pattern": pattern}}).value()
    if not isinstance(trial, bool):
        raise ConditionInvalid(f"the pattern {pattern!r} of matches() is not an RE2 expression")


_ZONE_TRIAL: Final = _ENVIRONMENT.compile("timestamp(0).getHours(actor.id) < 24")
_PATTERN_TRIAL: Final = _ENVIRONMENT.compile("''.matches(context.pattern)")
