"""Answers the plainest conditions without the CEL runtime, which costs more than all else.

A shortcut knows `==` and `!=` between texts or between booleans, `has`, `!`, `&&` and `||`. It
answers only what CEL would answer for certain; for anything else (an absent key, another type) it
says None, and the runtime decides. A property test holds the two against each other.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pdp.decision.cel_ast import Kind, Node, Tree, read

Values = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Variables by name: those of the actor and those of the question."""
Shortcut = Callable[[Values], bool | None]
_Reader = Callable[[Values], Any]

_DEPTH_MAX: Final = 16


def shortcut_of(tree: Tree, places: Mapping[str, int]) -> Shortcut | None:
    """None where the expression is not plain enough. `places` are the variables and in which of
    the two mappings of the values each is."""
    return _boolean(read(tree.root), places, _DEPTH_MAX)


def _boolean(node: Node, places: Mapping[str, int], depth: int) -> Shortcut | None:
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


def _comparison(node: Node, places: Mapping[str, int]) -> Shortcut | None:
    left, right = (_reader(read(operand), places) for operand in node.inner)
    if left is None or right is None:
        return None
    return _same(left, right, wanted=node.name == "_==_")


def _junction(node: Node, places: Mapping[str, int], depth: int) -> Shortcut | None:
    first = _boolean(read(node.inner[0]), places, depth - 1)
    if first is None or node.name == "!_":
        return None if first is None else _negation(first)
    second = _boolean(read(node.inner[1]), places, depth - 1)
    return None if second is None else _joined(first, second, settles=node.name == "_||_")


def _reader(node: Node, places: Mapping[str, int]) -> _Reader | None:
    """Reads a constant, a variable, or a key of a variable."""
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


def _same(left: _Reader, right: _Reader, *, wanted: bool) -> Shortcut:
    def same(values: Values) -> bool | None:
        one, other = left(values), right(values)
        kind = type(one)
        if kind is type(other) and (kind is str or kind is bool):
            return (one == other) is wanted
        return None

    return same


def _joined(first: Shortcut, second: Shortcut, *, settles: bool) -> Shortcut:
    def joined(values: Values) -> bool | None:
        one = first(values)
        return second(values) if one is (not settles) else one

    return joined


def _negation(negated: Shortcut) -> Shortcut:
    def negation(values: Values) -> bool | None:
        value = negated(values)
        return None if value is None else not value

    return negation


def _presence(node: Node, places: Mapping[str, int]) -> Shortcut | None:
    variable = read(node.inner[0])
    if variable.kind is not Kind.VARIABLE or variable.name not in places:
        return None
    place, name, key = places[variable.name], variable.name, node.name

    def presence(values: Values) -> bool | None:
        attributes = values[place].get(name)
        return None if attributes is None else key in attributes

    return presence


def _boolean_value(reader: _Reader) -> Shortcut:
    def boolean_value(values: Values) -> bool | None:
        value = reader(values)
        return value if type(value) is bool else None

    return boolean_value
