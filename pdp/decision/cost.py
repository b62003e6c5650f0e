"""An upper bound on the cost of a condition, computed from the sizes of the values that it reads.

A unit is about a microsecond of one core (measured; the weights below are rounded up). The same
model answers three questions: is a condition affordable for values of a modest size (at write
time), can it become expensive at all (once), and what will this evaluation cost (before each
evaluation of a condition that can become expensive). Every estimate assumes the worst case: loops
run to their end, both sides of `&&` and `||` are evaluated, texts differ in their last byte.

See docs/adr/0022-cost-of-conditions.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from math import inf
from typing import Any, Final, NamedTuple

from pdp import limits
from pdp.decision.cel_ast import Kind, Node, Tree, read
from pdp.decision.patterns import pattern_size

_STEP: Final = 0.03  # a constant, a variable, a logical operator
_CALL: Final = 0.15
_SELECTION: Final = 0.15
_ELEMENT: Final = 0.05  # one element of a list or map that is made or compared
_ITERATION: Final = 0.1
_APPENDED: Final = 0.025  # times the square: map() and filter() copy their list for each element
_COMPARED_BYTE: Final = 0.0001
_COPIED_BYTE: Final = 0.0015
_SEARCH_STEP: Final = 0.009
_SEARCHED_BYTE: Final = 0.000_018
_PATTERN: Final = 10.0
_PATTERN_INSTRUCTION: Final = 0.35
_MATCHED_BYTE: Final = 0.7
_MATCHED_BYTE_INSTRUCTION: Final = 0.0065
_ZONE: Final = 0.5
_BOUND_NODE: Final = 0.12
_BOUND_BYTE: Final = 0.0002
_DEPTH_MAX: Final = 32
_CHARACTER_BYTES_MAX: Final = 4
_NUMBER_TEXT: Final = 40  # the longest text of a number or time


class Size(NamedTuple):
    """A bound on how large a value can be."""

    text: float = 0
    """Bytes of a text."""
    items: float = 0
    """Number of elements of a list or a map."""
    inner: "Size | None" = None
    """Size of each element, and of each key."""
    fields: Mapping[str, "Size"] | None = None
    """Sizes of the values of a map, by key; None: unknown."""

    def element(self) -> "Size":
        """The size of any element."""
        return self.inner or SCALAR

    def iterated(self) -> "Size":
        """The size of one item that a loop visits: an element of a list, or a key of a map."""
        if self.fields is None or isinstance(self.fields, _Anywhere):
            return self.element()
        return Size(max(map(len, self.fields), default=0) * _CHARACTER_BYTES_MAX)

    def field(self, key: str) -> "Size":
        """The size of the value of a key."""
        if self.fields is None:
            return self.element()
        try:
            return self.fields[key]
        except KeyError:
            return SCALAR


SCALAR: Final = Size()
Sizes = Mapping[str, Size]
"""Sizes by variable."""
Estimate = Callable[[Sizes], tuple[float, Size]]
"""Computes the cost of an expression, and a bound on the size of its value."""


class Budget:
    """The budget of all conditions of a question. Used by one thread at a time."""

    __slots__ = ("exceeded", "left")

    def __init__(self) -> None:
        self.left: float = limits.CONDITION_COST_MAX
        self.exceeded = False
        """Whether the last condition was too expensive."""

    def spend(self, cost: float) -> bool:
        """Takes the cost from the budget, if enough is left. Returns whether it was."""
        self.exceeded = cost > self.left
        if not self.exceeded:
            self.left -= cost
        return not self.exceeded


# --- sizes ----------------------------------------------------------------------------------------


def joined(sizes: Iterable[Size]) -> Size:
    """A bound for values that each have one of these sizes."""
    return reduce(_join, sizes, SCALAR)


def _join(first: Size, other: Size) -> Size:
    if other is SCALAR:
        return first
    if first is SCALAR:
        return other
    inner = first.inner
    if other.inner is not None:
        inner = other.inner if inner is None else _join(inner, other.inner)
    return Size(max(first.text, other.text), max(first.items, other.items), inner)


def measured(value: Any, depth: int = 0) -> tuple[Size, float]:
    """The size of a value that is to be bound, and the cost of binding it."""
    if isinstance(value, str):
        length = len(value) if value.isascii() else len(value) * _CHARACTER_BYTES_MAX
        return Size(length), _BOUND_NODE + length * _BOUND_BYTE
    if not isinstance(value, Mapping | list | tuple):
        return SCALAR, _BOUND_NODE
    if depth == _DEPTH_MAX:
        return Size(inf, inf), inf
    cost = _BOUND_NODE
    fields: dict[str, Size] | None = None
    inner = SCALAR
    if isinstance(value, Mapping):
        fields = {}
        for key, item in value.items():
            size, more = measured(item, depth + 1)
            fields[key] = size
            text = len(key) * _CHARACTER_BYTES_MAX
            inner = _join(_join(inner, size), Size(text))
            cost += more + _BOUND_NODE + text * _BOUND_BYTE
    else:
        for item in value:
            size, more = measured(item, depth + 1)
            inner = _join(inner, size)
            cost += more
    return Size(0, len(value), inner, fields), cost


class _Anywhere(dict[str, Size]):
    """The fields of a value at the limits: each may be as large as the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = SCALAR

    def __missing__(self, key: str) -> Size:
        return self.whole


def _shape(counts: Sequence[int], texts: Sequence[float]) -> Size:
    """Lists of `counts[0]` elements, of `counts[1]` elements each, and so on; at each level a value
    may also be a text of `texts[level]` bytes."""
    fields = _Anywhere()
    inner = _shape(counts[1:], texts[1:]) if counts else None
    fields.whole = Size(texts[0], counts[0] if counts else 0, inner, fields)
    return fields.whole


MODEST_ITEMS: Final = 20
MODEST_BYTES: Final = 256
MODEST: Final = _shape((MODEST_ITEMS,), (MODEST_BYTES,) * 2)
"""Every condition must be affordable for values of this size."""
_BYTES: Final = limits.ATTRIBUTE_BYTES_MAX
WORST: Final = (
    _shape((1_000,), (_BYTES, _BYTES / 1_000)),
    _shape((31, 31), (_BYTES, _BYTES / 31, _BYTES / 961)),
    _shape((10, 10, 10), (_BYTES, _BYTES / 10, _BYTES / 100, _BYTES / 1_000)),
    _shape((1, 999), (_BYTES, _BYTES, _BYTES / 999)),
)
"""Values as large as the limits of attributes allow: spread out, or in one place."""
BINDING_MAX: Final = limits.ATTRIBUTE_NODES_MAX * 2 * _BOUND_NODE + _BYTES * _BOUND_BYTE
"""The cost of binding such a value."""


# --- the model ------------------------------------------------------------------------------------


def estimate_of(tree: Tree, expression: bytes) -> Estimate:
    """The model of an expression. Recursive: the caller bounds its depth."""
    node = read(expression)
    match node.kind:
        case Kind.CONSTANT:
            return _constant(node)
        case Kind.VARIABLE:
            return _variable(node)
        case Kind.SELECT:
            return _selection(node, tree)
        case Kind.COMPREHENSION:
            return _comprehension(node, tree)
        case Kind.CALL:
            return _call(node, [estimate_of(tree, part) for part in node.inner])
    return _collection([estimate_of(tree, part) for part in node.inner])


def _constant(node: Node) -> Estimate:
    text = node.constant
    encoded = text.encode() if isinstance(text, str) else text
    size = Size(len(encoded)) if isinstance(encoded, bytes) else SCALAR
    return lambda _: (_STEP, size)


def _variable(node: Node) -> Estimate:
    name = node.name
    return lambda sizes: (_STEP, sizes.get(name, SCALAR))


def _selection(node: Node, tree: Tree) -> Estimate:
    operand, key = estimate_of(tree, node.inner[0]), node.name

    def selection(sizes: Sizes) -> tuple[float, Size]:
        cost, size = operand(sizes)
        return cost + _SELECTION, size.field(key)

    return selection


def _collection(parts: Sequence[Estimate]) -> Estimate:
    def collection(sizes: Sizes) -> tuple[float, Size]:
        found = [part(sizes) for part in parts]
        cost = _CALL + sum(cost for cost, _ in found) + _ELEMENT * len(parts)
        return cost, Size(0, len(parts), joined(size for _, size in found))

    return collection


def _comprehension(node: Node, tree: Tree) -> Estimate:
    # range, initial value, condition, step, result
    ranged, initial, *body, result = (estimate_of(tree, part) for part in node.inner)
    collects = read(node.inner[1]).kind is Kind.LIST
    element, accumulator = node.element, node.name

    def comprehension(sizes: Sizes) -> tuple[float, Size]:
        cost, size = ranged(sizes)
        more, accumulated = initial(sizes)
        inside = {**sizes, element: size.iterated(), accumulator: accumulated}
        times = size.items
        each = _ITERATION
        for part in body:
            part_cost, accumulated = part(inside)  # the last part is the new accumulator
            each += part_cost
        cost += more + _CALL + each * times

        if collects:
            cost += _APPENDED * times * times
            accumulated = Size(0, times * accumulated.items, accumulated.inner)
        more, size = result({**inside, accumulator: accumulated})
        return cost + more, size

    return comprehension


def _call(node: Node, operands: Sequence[Estimate]) -> Estimate:
    name = node.name
    if name == "matches":
        return _matching(operands[0], read(node.inner[-1]))
    if name == "_?_:_":
        return _choice(*operands)
    own = _FUNCTIONS.get(name, _other)
    extra = _ZONE if name.startswith("get") else 0.0
    key = read(node.inner[1]).constant if name == "_[_]" else None

    def call(sizes: Sizes) -> tuple[float, Size]:
        found = [operand(sizes) for operand in operands]
        cost, size = own([size for _, size in found])
        if isinstance(key, str):
            size = found[0][1].field(key)
        return cost + extra + sum(cost for cost, _ in found), size

    return call


def _matching(operand: Estimate, pattern: Node) -> Estimate:
    # `conditions` rejects a pattern that is not a literal.
    size = pattern_size(pattern.constant if isinstance(pattern.constant, str) else "")
    compiling = _PATTERN + size.compiling * _PATTERN_INSTRUCTION
    matching = _MATCHED_BYTE + size.matching * _MATCHED_BYTE_INSTRUCTION

    def match_(sizes: Sizes) -> tuple[float, Size]:
        cost, text = operand(sizes)
        return cost + compiling + matching * text.text, SCALAR

    return match_


def _choice(condition: Estimate, then: Estimate, otherwise: Estimate) -> Estimate:
    def choice(sizes: Sizes) -> tuple[float, Size]:
        cost, _ = condition(sizes)
        then_cost, then_size = then(sizes)
        otherwise_cost, otherwise_size = otherwise(sizes)
        size = _join(then_size, otherwise_size)
        return cost + _STEP + max(then_cost, otherwise_cost), size

    return choice


def _compared(left: Size, right: Size) -> float:
    cost = _ELEMENT + min(left.text, right.text) * _COMPARED_BYTE
    items = min(left.items, right.items)
    return cost + (items * (_ELEMENT + _compared(left.element(), right.element())) if items else 0)


def _logic(_: Sequence[Size]) -> tuple[float, Size]:
    return _STEP, SCALAR


def _equals(sizes: Sequence[Size]) -> tuple[float, Size]:
    return _CALL + _compared(*sizes), SCALAR


def _contained(sizes: Sequence[Size]) -> tuple[float, Size]:
    """`key in map`, `element in list`."""
    element, container = sizes
    if container.fields is not None and not isinstance(container.fields, _Anywhere):
        return _CALL + element.text * _COPIED_BYTE, SCALAR
    return _CALL + container.items * _compared(element, container.element()), SCALAR


def _search(sizes: Sequence[Size]) -> tuple[float, Size]:
    """Search of a text in a text: at each position it may compare to the last byte."""
    text, searched = (size.text for size in sizes)
    # The searched text may be shorter than its bound: the worst length is half of the text's.
    searched = min(searched, text / 2)
    return _CALL + text * (_SEARCH_STEP + searched * _SEARCHED_BYTE), SCALAR


def _affix(sizes: Sequence[Size]) -> tuple[float, Size]:
    return _CALL + min(size.text for size in sizes) * _COMPARED_BYTE, SCALAR


def _sum_of(sizes: Sequence[Size]) -> tuple[float, Size]:
    left, right = sizes
    text, items = left.text + right.text, left.items + right.items
    return _CALL + text * _COPIED_BYTE + items * _ELEMENT, _join(left, right)._replace(
        text=text, items=items
    )


def _element_of(sizes: Sequence[Size]) -> tuple[float, Size]:
    # The error about a missing key quotes the key.
    return _CALL + sizes[1].text * _COPIED_BYTE * 2, sizes[0].element()


def _same(sizes: Sequence[Size]) -> tuple[float, Size]:
    return _CALL, sizes[0]


def _as_text(sizes: Sequence[Size]) -> tuple[float, Size]:
    text = max(sizes[0].text, _NUMBER_TEXT)
    return _CALL * 3 + text * _COPIED_BYTE, Size(text)


def _other(sizes: Sequence[Size]) -> tuple[float, Size]:
    """Conversions, arithmetic, orderings, `size()`: they read each text at most once and return a
    scalar."""
    return _CALL + sum(size.text for size in sizes) * _COPIED_BYTE, SCALAR


_FUNCTIONS: Final[Mapping[str, Callable[[Sequence[Size]], tuple[float, Size]]]] = {
    "_&&_": _logic,
    "_||_": _logic,
    "!_": _logic,
    "@not_strictly_false": _logic,
    "_==_": _equals,
    "_!=_": _equals,
    "@in": _contained,
    "contains": _search,
    "startsWith": _affix,
    "endsWith": _affix,
    "_+_": _sum_of,
    "_[_]": _element_of,
    "dyn": _same,
    "string": _as_text,
    "bytes": _as_text,
}
