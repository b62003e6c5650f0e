"""Finds constants in an expression that cannot be evaluated.

A constant that fails is rejected wherever it occurs, also in a branch that is never taken: `false
&& 1 / 0 == 1` is a mistake, whatever the runtime returns for it. The same holds for a call that
fails at every evaluation because of a constant argument: an unknown time zone, a division by zero,
a negative index.
"""

from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from pdp.decision.cel_ast import Kind, Node, Tree, read

ErrorOf = Callable[[bytes], str | None]
"""Evaluates a constant expression and returns the runtime's error, or None."""

_LAZY: Final = frozenset(("_&&_", "_||_", "_?_:_"))
_NOTHING: Final[frozenset[str]] = frozenset()
_HINTS: Final = {
    "duration": '; write a duration with the units h, m, s, ms: "720h", "1h30m"',
    "timestamp": '; write a time with its offset: "2026-01-31T00:00:00Z"',
}


class Problem(NamedTuple):
    """A constant that cannot be evaluated."""

    node_id: int
    message: str


def problem_of(
    tree: Tree, variables: Collection[str], error_of: ErrorOf, zone_error: Callable[[str], bool]
) -> Problem | None:
    """The first problem with a constant, or None.

    `variables` are all that the environment declares; `zone_error` returns whether the runtime
    rejects a time zone. Recursive: the caller bounds the depth of the tree.
    """
    impossible = _impossible_call(tree, zone_error)
    if impossible is not None:
        return impossible
    parts: list[bytes] = []
    if not _collect(tree.root, _NOTHING, frozenset(variables), parts):
        parts.append(tree.root)
    for part in parts:
        if error_of(part) is not None:
            return _innermost(part, error_of)
    return None


def _collect(
    expression: bytes,
    bound: frozenset[str],
    variables: frozenset[str],
    parts: list[bytes],
) -> frozenset[str]:
    """Returns the variables that an expression reads. Adds to `parts` the largest constant parts
    inside, and the parts of those that the runtime may skip, inner parts first."""
    node = read(expression)
    if node.kind is Kind.VARIABLE:
        # A name that is neither declared nor bound by a loop is the name of a type.
        return frozenset((node.name,)) if node.name in bound or node.name in variables else _NOTHING
    loops = node.kind is Kind.COMPREHENSION
    own = frozenset((node.element, node.name)) if loops else _NOTHING
    free = _NOTHING
    constant: list[bytes] = []
    for index, part in enumerate(node.inner):
        # The range and the initial value are outside of the loop.
        inside = loops and index > 1
        names = _collect(part, bound | own if inside else bound, variables, parts)
        free |= names - own if inside else names
        if not names and read(part).inner:
            constant.append(part)
    if free or loops or node.name in _LAZY:
        parts += constant
    return free


def _innermost(expression: bytes, error_of: ErrorOf) -> Problem:
    """Finds the smallest part of a constant expression that fails."""
    node = read(expression)
    if node.kind is not Kind.COMPREHENSION:
        for part in node.inner:
            if read(part).inner and error_of(part) is not None:
                return _innermost(part, error_of)
    error = error_of(expression) or ""
    text = error.partition(": ")[2] or error
    return Problem(node.id, f"can never be evaluated: {text}{_HINTS.get(node.name, '')}")


def _impossible_call(tree: Tree, zone_error: Callable[[str], bool]) -> Problem | None:
    pending = [tree.root]
    while pending:
        node = read(pending.pop())
        pending += reversed(node.inner)
        if node.kind is not Kind.CALL or not node.inner:
            continue
        argument = read(node.inner[-1])
        problem = _problem_with(node, argument, tree, zone_error)
        if problem is not None:
            return Problem(node.id, f"can never be evaluated: {problem}")
    return None


def _problem_with(
    call: Node, argument: Node, tree: Tree, zone_error: Callable[[str], bool]
) -> str | None:
    constant = argument.constant
    is_integer = isinstance(constant, int) and not isinstance(constant, bool)
    if call.name in ("_/_", "_%_") and is_integer and constant == 0:
        return "divide by zero" if call.name == "_/_" else "modulus by zero"
    if call.name == "_[_]" and isinstance(constant, int) and constant < 0:
        return f"the index {constant} is negative"
    if is_zoned(call, tree) and isinstance(constant, str) and zone_error(constant):
        return (
            f"the time zone {constant[:64]!r} is not known; write a name of the IANA database"
            ' ("Europe/Berlin") or an offset ("+02:00")'
        )
    return None


def is_zoned(call: Node, tree: Tree) -> bool:
    """Whether the last argument of a call is a time zone."""
    return any(name.endswith("_with_tz") for name in tree.overloads.get(call.id, ()))
