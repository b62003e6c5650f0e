"""Proposes values that could change the result of a condition: those that it compares with."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from pdp.decision.cel_ast import Kind, Node, read
from pdp.decision.conditions import Parts
from pdp.model import Reason

ABSENT: Final = object()
"""The value of a removed key."""
_ORDERED: Final = frozenset(("_<_", "_<=_", "_>_", "_>=_"))
_ELEMENTS_MAX: Final = 8


class Path(NamedTuple):
    """A variable, or a key of a variable that is a map."""

    variable: str
    key: str | None


def proposals_of(parts: Parts) -> Iterator[tuple[Path, Any]]:
    """Paths with a value to try, each once. The caller finds out whether it helps."""
    seen: set[str] = set()
    for path, value in _proposals(parts, parts.tree.root, {}):
        mark = f"{path}{value!r}"
        if mark not in seen:
            seen.add(mark)
            yield path, value


def distance(parts: Parts, *, wanted: bool) -> int:
    """How many parts of a condition keep it from being `wanted`: the parts of `a && b` that are not
    true, or the parts of `a || b` that are not false. 0: it is as wanted."""
    if parts.evaluate(parts.tree.root) is wanted:
        return 0
    function = "_&&_" if wanted else "_||_"
    pending, unmet = [parts.tree.root], 0
    while pending:
        part = pending.pop()
        node = read(part)
        if node.kind is Kind.CALL and node.name == function:
            pending += node.inner
        elif parts.evaluate(part) is not wanted:
            unmet += 1
    return max(1, unmet)


def _proposals(
    parts: Parts, expression: bytes, elements: dict[str, Path]
) -> Iterator[tuple[Path, Any]]:
    """`elements`: the variables of the enclosing loops, each with the list that its loop visits."""
    node = read(expression)
    path = path_of(node)
    if path is not None:
        if node.kind is Kind.SELECT and node.tests:
            yield path, True
        else:
            yield from ((path, True), (path, False))
        yield path, ABSENT
        return
    if node.kind is Kind.COMPREHENSION:
        over = path_of(read(node.inner[0]))
        inside = {**elements, node.element: over} if over is not None else elements
        if over is not None:
            yield from ((over, []), (over, ABSENT))
        for part in node.inner[1:]:
            yield from _proposals(parts, part, inside)
        return
    if node.kind is Kind.CALL and len(node.inner) == 2:  # noqa: PLR2004
        yield from _compared(parts, node, elements)
    for part in node.inner:
        yield from _proposals(parts, part, elements)


def _compared(parts: Parts, node: Node, elements: dict[str, Path]) -> Iterator[tuple[Path, Any]]:
    for index, other in ((0, 1), (1, 0)):
        operand = read(node.inner[index])
        path = path_of(operand)
        element = elements.get(operand.name) if operand.kind is Kind.VARIABLE else None
        if path is None and element is None:
            continue
        value = parts.evaluate(node.inner[other])
        if isinstance(value, Reason):
            continue
        for tried in _tries(node.name, value, is_list=node.name == "@in" and index == 1):
            if element is not None:
                yield element, [tried]
            elif path is not None:
                yield path, tried


def _tries(function: str, value: Any, *, is_list: bool) -> Iterator[Any]:
    """Values of an operand that make a comparison with the other operand true or false."""
    if function == "@in":
        if is_list:
            yield from ([value], [])
        elif isinstance(value, list):
            yield from value[:_ELEMENTS_MAX]
        return
    if function in _ORDERED and isinstance(value, int | float) and not isinstance(value, bool):
        yield from (float(value), value - 1.0, value + 1.0)
        return
    yield value
    if function in ("_==_", "_!=_"):
        if isinstance(value, bool):
            yield not value
        elif isinstance(value, str):
            yield "" if value else "other"
        elif isinstance(value, int | float):
            yield value + 1.0


def path_of(node: Node) -> Path | None:
    """The path that an expression reads, if it does nothing else: `context.place`,
    `context['place']`, `has(context.place)`, or a variable that is not a map."""
    if node.kind is Kind.VARIABLE and "." in node.name:
        return Path(node.name, None)
    if node.kind is Kind.SELECT:
        operand = read(node.inner[0])
        if operand.kind is Kind.VARIABLE:
            return Path(operand.name, node.name)
    if node.kind is Kind.CALL and node.name == "_[_]":
        operand, key = read(node.inner[0]), read(node.inner[1]).constant
        if operand.kind is Kind.VARIABLE and isinstance(key, str):
            return Path(operand.name, key)
    return None
