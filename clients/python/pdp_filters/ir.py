"""The neutral form of a filter: `and`, `or`, and total predicates. There is no `not`.

A condition of the policy has three outcomes: true, false, error. A filter has two trees for it: one
is true if the condition is definitely true, the other if it is definitely false. An error makes
neither true. The opposite of `equal` is therefore `present and not
equal`, and has its own operator here.
"""

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Scalar = str | float | bool | None
"""A constant, as JSON knows it. Every number is a float."""


class Kind(enum.Enum):
    """What a field holds. Values of different kinds are never equal."""

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
    """A comparison. All are false if a side is absent; ordering is false if the kinds differ."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    """Both are present, and they are not equal; values of different kinds are not."""
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="

    @property
    def opposite(self) -> "Operator":
        """The operator for the other outcome: of `<`, `>=`."""
        return _OPPOSITES[self]

    @property
    def mirrored(self) -> "Operator":
        """The operator for swapped operands: of `<`, `>`."""
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
    """Where a text must contain another one; byte for byte."""

    PREFIX = "startsWith"
    SUFFIX = "endsWith"
    CONTAINS = "contains"


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the resource, or of the element that an enclosing quantifier looks at.

    Of the resource (level 0): `("id",)`, `("organization",)` (its own, or that of the nearest
    resource above it that has one), `("attributes", key, ...)`. Of an element of a list: keys below
    the element, which itself is `()`. Of a resource of the chain: `("type",)`, `("id",)`, and
    `("organization",)`, which is its own. What a path cannot reach is absent.
    """

    path: tuple[str, ...]
    level: int = 0
    """0: the resource. n: the element of the n-th quantifier, counted from the outermost."""

    def __str__(self) -> str:
        base = "resource" if self.level == 0 else f"element{self.level}"
        return ".".join((base, *self.path))


class Chain(enum.Enum):
    """The range of a quantifier: the resource and what is above it, nearest first."""

    CHAIN = "chain"


CHAIN = Chain.CHAIN


class Filter:
    """A predicate over a resource."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class And(Filter):
    """True if all parts are; without parts, always."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """True if a part is; without parts, never."""

    parts: tuple[Filter, ...]


TRUE = And(())
FALSE = Or(())


@dataclass(frozen=True, slots=True)
class Compare(Filter):
    """A field against a constant or another field."""

    operator: Operator
    left: Field
    right: Field | Scalar


@dataclass(frozen=True, slots=True)
class OneOf(Filter):
    """A field is present and equals one of the values; negated: is present and equals none."""

    field: Field
    values: tuple[Scalar, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class KindIs(Filter):
    """What a field holds is of one of these kinds: tests for presence, null and type."""

    field: Field
    kinds: frozenset[Kind]


@dataclass(frozen=True, slots=True)
class Match(Filter):
    """A field is a text that passes the test; negated: is a text that does not."""

    test: TextTest
    field: Field
    text: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Some(Filter):
    """A field is a list or map, and the body is true for one of its elements (of a map: its
    keys); of the chain, for one of its resources."""

    over: Field | Chain
    body: Filter


@dataclass(frozen=True, slots=True)
class Every(Filter):
    """As `Some`, for all elements; true also where there are none."""

    over: Field | Chain
    body: Filter


@dataclass(frozen=True, slots=True)
class Stored(Filter):
    """Each resource of the chain that has one of these types is stored in the decision point."""

    types: tuple[str, ...]


def all_of(*parts: Filter) -> Filter:
    """`And`, without what is settled or said twice."""
    return _joined(And, TRUE, FALSE, parts)


def any_of(*parts: Filter) -> Filter:
    """`Or`, without what is settled or said twice."""
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
            # Equal ones may differ all the same: to Python, 1.0 is True.
            if inner in seen and repr(inner) == seen[inner]:
                continue
            seen[inner] = repr(inner)
            found.append(inner)
    if not found:
        return neutral
    return found[0] if len(found) == 1 else kind(tuple(found))


def some(over: Field | Chain, body: Filter) -> Filter:
    """`Some`, or what it comes to."""
    return FALSE if body == FALSE else Some(over, body)


def every(over: Field | Chain, body: Filter) -> Filter:
    """`Every`, or what it comes to."""
    if body != TRUE:
        return Every(over, body)
    return TRUE if isinstance(over, Chain) else KindIs(over, COLLECTIONS)


def complement(node: Filter) -> Filter:  # noqa: PLR0911  # one each
    """True exactly where the node is false. For targets that have no total `not`.

    Raises ValueError for `Stored`, which nothing needs the complement of.
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
    """The field is not there."""
    return KindIs(field, frozenset((Kind.ABSENT,)))


def present(field: Field) -> Filter:
    """The field is there; it may be null."""
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
    """The node and all inside, in order."""
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
    """When neither a comparison nor its opposite is true."""
    if operator in (Operator.EQUAL, Operator.NOT_EQUAL):
        return [absent(left), *([absent(right)] if isinstance(right, Field) else [])]
    if not isinstance(right, Field):
        return [is_not(left, kind_of(right))]
    return [all_of(*(any_of(is_not(left, kind), is_not(right, kind)) for kind in ORDERED))]


def _no_collection(over: Field | Chain) -> list[Filter]:
    return [] if isinstance(over, Chain) else [KindIs(over, ANYTHING - COLLECTIONS)]
