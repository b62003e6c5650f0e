"""The neutral form of a filter: `and`, `or`, and total predicates. There is no `not`.

A condition of the policy has three outcomes: true, false, error. A filter has two trees for it: the
first is true if the condition is definitely true, the second if it is definitely false. An error
makes neither true. So the opposite of `equal` is `present and not equal`, and has its own operator
here.
"""

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Scalar = str | float | bool | None
"""A constant of JSON. Every number is a float."""


class Kind(enum.Enum):
    """The kind of a field's value. Values of different kinds are never equal."""

    ABSENT = "absent"
    NULL = "null"
    BOOL = "bool"
    NUMBER = "number"
    TEXT = "text"
    LIST = "list"
    MAP = "map"


ANYTHING = frozenset(Kind)
PRESENT = ANYTHING - {Kind.ABSENT}
COLLECTIONS = frozenset((Kind.LIST, Kind.MAP))
ORDERED = (Kind.BOOL, Kind.NUMBER, Kind.TEXT)
"""Kinds with an order: false before true, numbers by value, texts by their UTF-8 bytes."""


class Operator(enum.Enum):
    """A comparison. Each is false if a side is absent; an ordering is also false if the kinds
    differ."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    """Both sides are present and not equal; values of different kinds are not equal."""
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="

    @property
    def opposite(self) -> "Operator":
        """The operator of the opposite outcome: for `<`, `>=`."""
        return _OPPOSITES[self]

    @property
    def mirrored(self) -> "Operator":
        """The operator for swapped operands: for `<`, `>`."""
        return _MIRRORED.get(self, self)


_OPPOSITES = {
    Operator.EQUAL: Operator.NOT_EQUAL,
    Operator.NOT_EQUAL: Operator.EQUAL,
    Operator.LESS: Operator.GREATER_OR_EQUAL,
    Operator.LESS_OR_EQUAL: Operator.GREATER,
    Operator.GREATER: Operator.LESS_OR_EQUAL,
    Operator.GREATER_OR_EQUAL: Operator.LESS,
}
_MIRRORED = {
    Operator.LESS: Operator.GREATER,
    Operator.LESS_OR_EQUAL: Operator.GREATER_OR_EQUAL,
    Operator.GREATER: Operator.LESS,
    Operator.GREATER_OR_EQUAL: Operator.LESS_OR_EQUAL,
}


class TextTest(enum.Enum):
    """Where a text contains another text, byte for byte."""

    PREFIX = "startsWith"
    SUFFIX = "endsWith"
    CONTAINS = "contains"


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the resource, or of the element of an enclosing quantifier.

    Of the resource (level 0): `("id",)`, `("organization",)` (its own, or that of its nearest
    ancestor that has one), `("attributes", key, ...)`. Of an element of a list: keys below the
    element, which itself is `()`. Of a resource of the chain: `("type",)`, `("id",)`, and
    `("organization",)`, which is its own. A path that leads to no value is absent.
    """

    path: tuple[str, ...]
    level: int = 0
    """0: the resource. n: the element of the n-th quantifier, counted from the outermost."""

    def __str__(self) -> str:
        base = "resource" if self.level == 0 else f"element{self.level}"
        return ".".join((base, *self.path))


class Chain(enum.Enum):
    """The range of a quantifier: the resource and its ancestors, nearest first."""

    CHAIN = "chain"


CHAIN = Chain.CHAIN


class Filter:
    """A predicate over a resource."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class And(Filter):
    """True if all parts are true; without parts, always."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """True if a part is true; without parts, never."""

    parts: tuple[Filter, ...]


TRUE = And(())
FALSE = Or(())


@dataclass(frozen=True, slots=True)
class Compare(Filter):
    """Compares a field with a constant or another field."""

    operator: Operator
    left: Field
    right: Field | Scalar


@dataclass(frozen=True, slots=True)
class OneOf(Filter):
    """A field is present and equals one of the values; negated: it is present and equals none."""

    field: Field
    values: tuple[Scalar, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class KindIs(Filter):
    """The value of a field has one of these kinds: tests for presence, null and type."""

    field: Field
    kinds: frozenset[Kind]


@dataclass(frozen=True, slots=True)
class Match(Filter):
    """A field is a text that passes the test; negated: it is a text that does not pass."""

    test: TextTest
    field: Field
    text: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Some(Filter):
    """A field is a list or map, and the body is true for an element (of a map: for a key). Over the
    chain: for a resource of it."""

    over: Field | Chain
    body: Filter


@dataclass(frozen=True, slots=True)
class Every(Filter):
    """Like `Some`, for all elements; also true if there are none."""

    over: Field | Chain
    body: Filter


@dataclass(frozen=True, slots=True)
class Stored(Filter):
    """The decision point stores each resource of the chain that has one of these types."""

    types: tuple[str, ...]


def all_of(*parts: Filter) -> Filter:
    """`And`, simplified: without constant parts and duplicates."""
    return _joined(And, TRUE, FALSE, parts)


def any_of(*parts: Filter) -> Filter:
    """`Or`, simplified: without constant parts and duplicates."""
    return _joined(Or, FALSE, TRUE, parts)


def _joined(
    kind: type[And] | type[Or], neutral: Filter, settled: Filter, parts: Iterable[Filter]
) -> Filter:
    found: list[Filter] = []
    seen: dict[Filter, str] = {}
    for part in parts:
        if part == settled:
            return settled
        for inner in part.parts if isinstance(part, kind) else (part,):
            # Equal parts may differ nevertheless: in Python, 1.0 equals True.
            if inner in seen and repr(inner) == seen[inner]:
                continue
            seen[inner] = repr(inner)
            found.append(inner)
    if not found:
        return neutral
    return found[0] if len(found) == 1 else kind(tuple(found))


def some(over: Field | Chain, body: Filter) -> Filter:
    """`Some`, simplified if the body is constant."""
    return FALSE if body == FALSE else Some(over, body)


def every(over: Field | Chain, body: Filter) -> Filter:
    """`Every`, simplified if the body is constant."""
    if body != TRUE:
        return Every(over, body)
    return TRUE if isinstance(over, Chain) else KindIs(over, COLLECTIONS)


def complement(node: Filter) -> Filter:  # noqa: PLR0911  # one each
    """A filter that is true exactly if the node is false. For targets that have no total `not`.

    Raises ValueError for `Stored`, whose complement is never needed.
    """
    match node:
        case And(parts):
            return any_of(*map(complement, parts))
        case Or(parts):
            return all_of(*map(complement, parts))
        case Compare(operator, left, right):
            return any_of(*_incomparable(operator, left, right), _flipped(node))
        case OneOf(field, values, negated):
            return any_of(absent(field), OneOf(field, values, not negated))
        case KindIs(field, kinds):
            return KindIs(field, ANYTHING - kinds)
        case Match(test, field, text, negated):
            return any_of(is_not(field, Kind.TEXT), Match(test, field, text, not negated))
        case Some(over, body):
            return any_of(*_no_collection(over), every(over, complement(body)))
        case Every(over, body):
            return any_of(*_no_collection(over), some(over, complement(body)))
    raise ValueError(f"{type(node).__name__} has no complement")


def absent(field: Field) -> Filter:
    """The field is absent."""
    return KindIs(field, frozenset((Kind.ABSENT,)))


def present(field: Field) -> Filter:
    """The field is present; it may be null."""
    return KindIs(field, PRESENT)


def is_not(field: Field, kind: Kind) -> Filter:
    """The field is absent or of another kind."""
    return KindIs(field, ANYTHING - {kind})


def kind_of(value: Scalar) -> Kind:
    """The kind of a constant."""
    if value is None:
        return Kind.NULL
    if isinstance(value, bool):
        return Kind.BOOL
    return Kind.TEXT if isinstance(value, str) else Kind.NUMBER


def walk(node: Filter) -> Iterator[Filter]:
    """The node and all nodes below it, in order."""
    pending = [node]
    while pending:
        found = pending.pop()
        yield found
        if isinstance(found, And | Or):
            pending += reversed(found.parts)
        elif isinstance(found, Some | Every):
            pending.append(found.body)


def _flipped(node: Compare) -> Filter:
    return Compare(node.operator.opposite, node.left, node.right)


def _incomparable(operator: Operator, left: Field, right: Field | Scalar) -> list[Filter]:
    """The cases in which neither a comparison nor its opposite is true."""
    if operator in (Operator.EQUAL, Operator.NOT_EQUAL):
        return [absent(left), *([absent(right)] if isinstance(right, Field) else [])]
    if not isinstance(right, Field):
        return [is_not(left, kind_of(right))]
    return [all_of(*(any_of(is_not(left, kind), is_not(right, kind)) for kind in ORDERED))]


def _no_collection(over: Field | Chain) -> list[Filter]:
    return [] if isinstance(over, Chain) else [KindIs(over, ANYTHING - COLLECTIONS)]
