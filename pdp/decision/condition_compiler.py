"""Compiles conditions, and rejects those that may not be written."""

import re
from typing import Any, Final, NamedTuple

from cel_expr_python import cel  # type: ignore[import-untyped]

from pdp import limits
from pdp.decision.cel_ast import Constant, Kind, Node, Tree, part_of, read, tree_of
from pdp.decision.constants import is_zoned, problem_of
from pdp.decision.cost import BINDING_MAX, MODEST_BYTES, MODEST_ITEMS, Estimate, estimate_of
from pdp.decision.fast_path import FastPath, fast_path_of
from pdp.decision.suggestions import with_suggestion
from pdp.decision.variables import (
    ENVIRONMENT,
    MODEST_SIZES,
    OPEN,
    PLACES,
    WORST_SIZES,
    Read,
    reads_of,
)

_COMPILE_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CONCATENATIONS = frozenset(("add_string", "add_bytes", "add_list"))
_WRITTEN_OUT_MAX: Final = 1e12
"""A larger cost is shown as a power of ten."""
_DEPTH_MAX: Final = 150
"""Far more than real conditions need; code that walks a tree may recurse to this depth."""


class ConditionInvalid(ValueError):  # named like the errors of pdp.errors
    """The text is not a condition. Line and column count from 1."""

    def __init__(self, message: str, column: int = 1, line: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.column = column
        self.line = line


class Program(NamedTuple):
    """A compiled condition."""

    expression: Any
    reads: tuple[Read, ...]
    fast_path: FastPath | None
    tree: Tree
    estimate: Estimate | None
    """The cost of an evaluation; None: too little to be charged."""


def compile_program(source: str) -> Program:
    """Compiles a text. Raises ConditionInvalid."""
    if len(source) > limits.CONDITION_CHARACTERS_MAX:
        raise ConditionInvalid(
            f"has {len(source)} characters, at most {limits.CONDITION_CHARACTERS_MAX} are allowed"
        )
    if _SURROGATE.search(source):
        raise ConditionInvalid("must not contain lone surrogates")
    try:
        expression = ENVIRONMENT.compile(source)
    except RuntimeError as error:
        if "recursion limit" in str(error):
            raise ConditionInvalid("nests too deeply") from None
        found = _COMPILE_ERROR.search(str(error).replace(" [INVALID_ARGUMENT]", ""))
        if found is None:
            raise ConditionInvalid("is not a CEL expression") from None
        line, column, message = found.groups()
        message = with_suggestion(message, PLACES)
        # The parser reports -1 if it rejects the text as a whole.
        raise ConditionInvalid(message, max(1, int(column)), max(1, int(line))) from None
    if expression.return_type() != cel.Type.BOOL:
        type_name = expression.return_type().name().lower()
        raise ConditionInvalid(f"must be of type bool, but is of type {type_name}")
    tree = tree_of(expression.serialize())
    reads = reads_of(used_keys(tree))
    estimate: Estimate | None = estimate_of(tree, tree.root)
    if estimate is not None and _costs_little(estimate, reads):
        estimate = None
    return Program(expression, reads, fast_path_of(tree, PLACES), tree, estimate)


def _costs_little(estimate: Estimate, reads: tuple[Read, ...]) -> bool:
    """Whether it costs little for all values within the limits of attributes."""
    binding = sum(BINDING_MAX for read in reads if read.name in OPEN)
    worst = max(estimate(sizes)[0] for sizes in WORST_SIZES)
    return worst + binding <= limits.CONDITION_COST_UNCHARGED_MAX


def check_cost(tree: Tree) -> None:
    """Raises ConditionInvalid if an expression is too expensive for values of a modest size."""
    cost, _ = estimate_of(tree, tree.root)(MODEST_SIZES)
    if cost > limits.CONDITION_COST_MAX:
        raise ConditionInvalid(
            f"is too expensive: it may cost {_rounded(cost)} for lists of {MODEST_ITEMS} items and"
            f" texts of {MODEST_BYTES} bytes, at most {limits.CONDITION_COST_MAX:,} are allowed"
        )


def _rounded(cost: float) -> str:
    return f"{cost:,.0f}" if cost < _WRITTEN_OUT_MAX else f"{cost:.0e}"


def check_constants(tree: Tree, source: str) -> None:
    """Raises ConditionInvalid if a constant cannot be evaluated."""

    def error_of(part: bytes) -> str | None:
        try:
            result = ENVIRONMENT.deserialize(part_of(tree, part)).eval(data={})
        except RuntimeError as error:  # the iteration budget
            return str(error)
        return str(result.value()) if result.type() == cel.Type.ERROR else None

    problem = problem_of(tree, PLACES, error_of, _is_unknown_zone)
    if problem is None:
        return
    offset = tree.offsets.get(problem.node_id, 0)
    line = source.count("\n", 0, offset) + 1
    column = offset - source.rfind("\n", 0, offset)
    raise ConditionInvalid(problem.message, column, line)


def _is_unknown_zone(zone: str) -> bool:
    return not isinstance(_ZONE_TRIAL.eval(data={"actor.id": zone}).value(), bool)


def used_keys(tree: Tree) -> dict[str, set[str] | None]:
    """The variables that an expression reads, each with its literal keys (None: the whole value is
    used). Raises ConditionInvalid for work that the iteration budget does not bound."""
    keys: dict[str, set[str] | None] = {}
    pending: list[tuple[bytes, bool, int]] = [(tree.root, False, 1)]
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


_ZONE_TRIAL: Final = ENVIRONMENT.compile("timestamp(0).getHours(actor.id) < 24")
_PATTERN_TRIAL: Final = ENVIRONMENT.compile("''.matches(context.pattern)")
