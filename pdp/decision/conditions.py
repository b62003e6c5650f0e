"""Conditions: CEL expressions of type bool, checked when written, compiled once per text.

The language is CEL (https://cel.dev) in Google's own runtime. Variables are declared with their
types, so that a typo or a comparison of a number with a text is refused at write time. Values are
bound, never spliced into the text, and only JSON values, times and texts are ever bound.

An error inside `a || b` or `a && b` is absorbed where the other side settles the result, as the
CEL specification says; an error that is left over is a failure, which never allows.
"""

import re
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel

from pdp import limits
from pdp.decision.checked_expression import references
from pdp.model import Reason

VARIABLES: Mapping[str, cel.Type] = {
    "actor.id": cel.Type.STRING,
    "actor.session": cel.Type.STRING,
    "actor.organization": cel.Type.STRING,
    "actor.organization_role": cel.Type.STRING,
    "actor.impersonator": cel.Type.STRING,
    "actor.attributes": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    "actor.claims": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    "actor.claimed_permissions": cel.Type.List(cel.Type.STRING),
    "actor.first_factor_minutes": cel.Type.DOUBLE,
    "actor.second_factor_minutes": cel.Type.DOUBLE,
    "resource.type": cel.Type.STRING,
    "resource.id": cel.Type.STRING,
    "resource.organization": cel.Type.STRING,
    "resource.attributes": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    "context": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    "now": cel.Type.TIMESTAMP,
}
"""What a condition may read. docs/policy.md explains each."""

_ENVIRONMENT = cel.NewEnv(variables=dict(VARIABLES))
_COMPILE_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
# An absent map key, and an absent variable (no resource, no second factor).
_ABSENT = ("NOT_FOUND:", "UNKNOWN: No value with name")


class ConditionInvalid(ValueError):
    """A text is not a condition. Line and column count from 1."""

    def __init__(self, message: str, column: int = 1, line: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.column = column
        self.line = line


@dataclass(frozen=True, slots=True)
class _Program:
    expression: cel.Expression
    reads: tuple[tuple[str, tuple[str, ...] | None], ...]
    """Variables with the keys read of them; None: the whole value."""


class Condition:
    """A condition, compiled at its first use. Safe to share between threads.

    There is at most one alive for a text, so that many rules with one text cost one compilation.
    """

    __slots__ = ("__weakref__", "_program", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self._program: _Program | ConditionInvalid | None = None

    def program(self) -> _Program:
        """Raises ConditionInvalid, every time, where the text is not a condition."""
        program = self._program
        if program is None:
            try:
                program = _compile(self.source)
            except ConditionInvalid as error:
                program = error
            self._program = program
        if isinstance(program, ConditionInvalid):
            raise program
        return program

    @property
    def reads_now(self) -> bool:
        """Whether it may read the time. A text that is not a condition reads nothing."""
        program = self._program
        return isinstance(program, _Program) and any(name == "now" for name, _ in program.reads)

    def evaluate(self, values: Mapping[str, Any]) -> bool | Reason:
        """True, False, or why there is no answer: ATTRIBUTE_MISSING or CONDITION_FAILED.

        `values` are all variables by name; an absent one is an error only where it is read.
        """
        try:
            program = self.program()
        except ConditionInvalid:
            return Reason.CONDITION_FAILED
        data: dict[str, Any] = {}
        for name, keys in program.reads:
            if name in values:
                value = values[name]
                # Binding converts the whole value, so only the keys that are read are bound.
                data[name] = value if keys is None else {k: value[k] for k in keys if k in value}
        try:
            result = program.expression.eval(data=data).value()
        except RuntimeError:  # the iteration budget
            return Reason.CONDITION_FAILED
        if result is True or result is False:
            return result
        # The static type is bool, so anything else is the text of an error.
        if isinstance(result, str) and result.startswith(_ABSENT):
            return Reason.ATTRIBUTE_MISSING
        return Reason.CONDITION_FAILED


_conditions: "weakref.WeakValueDictionary[str, Condition]" = weakref.WeakValueDictionary()
_lock = threading.Lock()


def condition_of(source: str) -> Condition:
    """The condition with this text, not checked yet."""
    with _lock:
        condition = _conditions.get(source)
        if condition is None:
            condition = _conditions[source] = Condition(source)
        return condition


def compile_condition(source: str) -> Condition:
    """The condition with this text, checked. Raises ConditionInvalid."""
    condition = condition_of(source)
    condition.program()
    return condition


def _compile(source: str) -> _Program:
    if len(source) > limits.CONDITION_CHARACTERS_MAX:
        raise ConditionInvalid(
            f"has {len(source)} characters, at most {limits.CONDITION_CHARACTERS_MAX} are allowed"
        )
    try:
        expression = _ENVIRONMENT.compile(source)
    except RuntimeError as error:
        found = _COMPILE_ERROR.search(str(error))
        if found is None:
            raise ConditionInvalid("is not a CEL expression") from None
        line, column, message = found.groups()
        raise ConditionInvalid(message, int(column), int(line)) from None
    if expression.return_type() != cel.Type.BOOL:
        raise ConditionInvalid(
            f"must be of type bool, but is of type {expression.return_type().name().lower()}"
        )
    found_references = references(expression.serialize())
    for pattern in found_references.patterns:
        _check_pattern(pattern)
    reads = tuple(
        (name, None if keys is None else tuple(sorted(keys)))
        for name, keys in sorted(found_references.keys.items())
        if name in VARIABLES
    )
    return _Program(expression, reads)


def _check_pattern(pattern: str | None) -> None:
    """Patterns are RE2 (linear time) and written by policy owners only, never by who asks."""
    if pattern is None:
        raise ConditionInvalid("the pattern of matches() must be a literal text")
    trial = _PATTERN_TRIAL.eval(data={"context": {"pattern": pattern}}).value()
    if not isinstance(trial, bool):
        raise ConditionInvalid(f"the pattern {pattern!r} of matches() is not an RE2 expression")


_PATTERN_TRIAL = _ENVIRONMENT.compile("''.matches(context.pattern)")
