"""Evaluates simple conditions without the CEL runtime, which is the greatest part of a decision's
cost.

The fast path knows `==` and `!=` between texts or between booleans, `has`, `!`, `&&` and `||`. It
returns a result only if CEL would certainly return the same. For anything else (an absent key,
another type) it returns None, and the runtime evaluates the condition. A property test compares the
two.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pdp.decision.cel_ast import Kind, Node, Tree, read

Values = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Variables by name: those of the actor, and those of the question."""
FastPath = Callable[[Values], bool | None]
_Reader = Callable[[Values], Any]

_DEPTH_MAX: Final = 16


def fast_path_of(tree: Tree, places: Mapping[str, int]) -> FastPath | None:
    """The fast path of an expression; None: it is not simple enough. `places` maps each variable to
    the index of the mapping that holds its value."""
    return _boolean(read(tree.root), places, _DEPTH_MAX)


def _boolean(node: Node, places: Mapping[str, int], depth: int) -> FastPath | None:
    if depth == 0:
        return None
    if node.kind is Kind.CALL:
        if node.name in ("_==_", "_!=_"):
            return _comparison(node, places)
        if node.name in ("_&&_", "_||_", "!_"):
            return _junction(node, places, depth)
        return None
    if node.kind is Kind.SELECT and node.tests:
        return _presence(node, places)
    value = _reader(node, places)
    return None if value is None else _boolean_value(value)


def _comparison(node: Node, places: Mapping[str, int]) -> FastPath | None:
    left, right = (_reader(read(operand), places) for operand in node.inner)
    if left is None or right is None:
        return None
    return _same(left, right, wanted=node.name == "_==_")


def _junction(node: Node, places: Mapping[str, int], depth: int) -> FastPath | None:
    first = _boolean(read(node.inner[0]), places, depth - 1)
    if first is None or node.name == "!_":
        return None if first is None else _negation(first)
    second = _boolean(read(node.inner[1]), places, depth - 1)
    return None if second is None else _joined(first, second, settles=node.name == "_||_")


def _reader(node: Node, places: Mapping[str, int]) -> _Reader | None:
    """A reader of a constant, a variable, or a key of a variable."""
    if node.kind is Kind.CONSTANT and isinstance(node.constant, str | bool):
        constant = node.constant
        return lambda _: constant
    if node.kind is Kind.VARIABLE and node.name in places:
        place, name = places[node.name], node.name
        return lambda values: values[place].get(name)
    if node.kind is Kind.SELECT and not node.tests:
        variable = read(node.inner[0])
        if variable.kind is Kind.VARIABLE and variable.name in places:
            place, name, key = places[variable.name], variable.name, node.name

            def value_of(values: Values) -> Any:
                attributes = values[place].get(name)
                return None if attributes is None else attributes.get(key)

            return value_of
    return None


def _same(left: _Reader, right: _Reader, *, wanted: bool) -> FastPath:
    def same(values: Values) -> bool | None:
        first, second = left(values), right(values)
        kind = type(first)
        if kind is type(second) and (kind is str or kind is bool):
            return (first == second) is wanted
        return None

    return same


def _joined(first: FastPath, second: FastPath, *, settles: bool) -> FastPath:
    def joined(values: Values) -> bool | None:
        value = first(values)
        return second(values) if value is (not settles) else value

    return joined


def _negation(negated: FastPath) -> FastPath:
    def negation(values: Values) -> bool | None:
        value = negated(values)
        return None if value is None else not value

    return negation


def _presence(node: Node, places: Mapping[str, int]) -> FastPath | None:
    variable = read(node.inner[0])
    if variable.kind is not Kind.VARIABLE or variable.name not in places:
        return None
    place, name, key = places[variable.name], variable.name, node.name

    def presence(values: Values) -> bool | None:
        attributes = values[place].get(name)
        return None if attributes is None else key in attributes

    return presence


def _boolean_value(reader: _Reader) -> FastPath:
    def boolean_value(values: Values) -> bool | None:
        value = reader(values)
        return value if type(value) is bool else None

    return boolean_value
