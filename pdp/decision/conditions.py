"""Conditions: CEL expressions of type bool, checked when written, compiled once per text.

The language is CEL (https://cel.dev) in Google's own runtime. Variables are declared with their
types, so that a typo or a comparison of a number with a text is refused at write time. Values are
bound, never spliced into the text, and only JSON values, times and texts are ever bound.

The runtime's binding cuts a text off at its first NUL, so a value that holds one is never bound:
the condition fails.

An error inside `a || b` or `a && b` is absorbed where the other side settles the result, as the
CEL specification says; an error that is left over is a failure, which never allows.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from cel_expr_python import cel  # type: ignore[import-untyped]

from pdp import limits
from pdp.decision.checked_expression import Kind, Node, Tree, read, tree_of
from pdp.decision.shortcuts import Shortcut, Values, shortcut_of
from pdp.decision.suggestions import with_suggestion
from pdp.model import Reason

_TEXT: Final = cel.Type.STRING
_MAP: Final = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
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
_IN_ZONE: Final = "_with_tz"


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


class Condition:
    """A condition, compiled at its first use. Safe to share between threads.

    Made by `condition_of`, so that many rules with one text, and the policies that follow each
    other, share one compilation.
    """

    __slots__ = ("_program", "reads_now", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.reads_now = False
        """Whether it may read the time; known once it was compiled."""
        self._program: _Program | ConditionInvalid | None = None

    def check(self) -> None:
        """Raises ConditionInvalid where the text is not a condition."""
        program = self._compiled()
        if isinstance(program, ConditionInvalid):
            raise ConditionInvalid(program.message, program.column, program.line)

    def evaluate(self, values: Values) -> bool | Reason:
        """True, False, or why there is no answer: ATTRIBUTE_MISSING or CONDITION_FAILED.

        A variable that is absent from the values is an error only where it is read. A text that
        is not a condition (it was never checked) fails.
        """
        program = self._program or self._compiled()
        if isinstance(program, ConditionInvalid):
            return Reason.CONDITION_FAILED
        if program.shortcut is not None:
            answer = program.shortcut(values)
            if answer is not None:
                return answer
        return self._evaluate_fully(program, values)

    def _evaluate_fully(self, program: _Program, values: Values) -> bool | Reason:
        data: dict[str, Any] = {}
        for place, name, keys, conversion in program.reads:
            value = values[place].get(name)
            if value is None:
                continue
            if keys is not None:
                # Binding converts the whole value, so only the keys that are read are bound.
                data[name] = {key: value[key] for key in keys if key in value}
            else:
                data[name] = conversion(value) if conversion is not None else value
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
            self._program = program
        return program


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
    """The condition with this text, checked. Raises ConditionInvalid."""
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
    keys = _check(tree)
    reads = tuple(
        _Read(
            _PLACES[name],
            name,
            None if known is None else tuple(sorted(known)),
            _CONVERSIONS.get(name),
        )
        for name, known in sorted(keys.items())
        if name in _PLACES
    )
    return _Program(expression, reads, shortcut_of(tree, _PLACES))


def _check(tree: Tree) -> dict[str, set[str] | None]:
    """The variables that an expression reads, with the literal keys read of each (None: any use
    of the whole value). Raises ConditionInvalid for what the iteration budget does not bound."""
    keys: dict[str, set[str] | None] = {}
    pending: list[tuple[memoryview, bool]] = [(tree.root, False)]
    while pending:
        expression, repeated = pending.pop()
        node = read(expression)
        inner = node.inner
        if node.kind is Kind.VARIABLE:
            keys[node.name] = None
        elif node.kind is Kind.COMPREHENSION:
            # The range is evaluated once, the rest for every element.
            pending.append((inner[0], repeated))
            pending += [(one, True) for one in inner[1:]]
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
        pending += [(one, repeated) for one in inner]
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
    if any(one.endswith(_IN_ZONE) for one in tree.overloads.get(node.id, ())) and not isinstance(
        read(node.inner[-1]).constant, str
    ):
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


def _check_pattern(pattern: str | bool | None) -> None:
    """Patterns are RE2 (linear time) and written by policy owners, never by who asks."""
    if not isinstance(pattern, str):
        raise ConditionInvalid("the pattern of matches() must be a literal text")
    trial = _PATTERN_TRIAL.eval(data={"context": {"pattern": pattern}}).value()
    if not isinstance(trial, bool):
        raise ConditionInvalid(f"the pattern {pattern!r} of matches() is not an RE2 expression")


_PATTERN_TRIAL: Final = _ENVIRONMENT.compile("''.matches(context.pattern)")
