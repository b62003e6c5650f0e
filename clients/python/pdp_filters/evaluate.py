"""Evaluates a filter for a resource in memory. Every lowering must agree with this result."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pdp_filters.ir import (
    ORDERED,
    And,
    Chain,
    Compare,
    Every,
    Field,
    Filter,
    Kind,
    KindIs,
    Match,
    OneOf,
    Operator,
    Or,
    Some,
    Stored,
    TextTest,
)

_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Level:
    """A resource of a chain."""

    type: str
    id: str
    organization: str | None = None
    """Its own organization."""
    stored: bool = True
    """Whether the decision point stores it."""


@dataclass(frozen=True, slots=True)
class Row:
    """A resource and its ancestors."""

    chain: tuple[Level, ...]
    """The resource first, then its ancestors."""
    attributes: Mapping[str, Any]


def evaluate(node: Filter, row: Row) -> bool:
    """Whether the filter selects the row. Raises TypeError for a node that is not in `ir`."""
    return _Evaluation(row).value(node, (_as_map(row),))


def _as_map(row: Row) -> dict[str, Any]:
    owner = next((level.organization for level in row.chain if level.organization), None)
    return _level(row.chain[0], owner) | {"attributes": row.attributes}


def _level(level: Level, organization: str | None) -> dict[str, Any]:
    values = {"type": level.type, "id": level.id}
    return values | ({"organization": organization} if organization else {})


class _Evaluation:
    __slots__ = ("_row",)

    def __init__(self, row: Row) -> None:
        self._row = row

    def value(self, node: Filter, levels: tuple[Any, ...]) -> bool:  # noqa: PLR0911  # one each
        match node:
            case And(parts):
                return all(self.value(part, levels) for part in parts)
            case Or(parts):
                return any(self.value(part, levels) for part in parts)
            case Compare(operator, left, right):
                other = _read(right, levels) if isinstance(right, Field) else right
                return _compared(operator, _read(left, levels), other)
            case OneOf(field, values, negated):
                value = _read(field, levels)
                return value is not _ABSENT and (
                    any(_equal(value, other) for other in values) is not negated
                )
            case KindIs(field, kinds):
                return _kind(_read(field, levels)) in kinds
            case Match(test, field, text, negated):
                value = _read(field, levels)
                return isinstance(value, str) and _TESTS[test](value, text) is not negated
            case Some(over, body):
                elements = self._elements(over, levels)
                return elements is not None and any(
                    self.value(body, (*levels, element)) for element in elements
                )
            case Every(over, body):
                elements = self._elements(over, levels)
                return elements is not None and all(
                    self.value(body, (*levels, element)) for element in elements
                )
            case Stored(types):
                return all(level.stored for level in self._row.chain if level.type in types)
        raise TypeError(f"{type(node).__name__} is not part of a filter")

    def _elements(self, over: Field | Chain, levels: tuple[Any, ...]) -> Iterable[Any] | None:
        if isinstance(over, Chain):
            return [_level(level, level.organization) for level in self._row.chain]
        value = _read(over, levels)
        return value if isinstance(value, list | Mapping) else None  # a map: its keys


_TESTS = {
    TextTest.PREFIX: str.startswith,
    TextTest.SUFFIX: str.endswith,
    TextTest.CONTAINS: str.__contains__,
}


def _read(field: Field, levels: tuple[Any, ...]) -> Any:
    value = levels[field.level]
    for key in field.path:
        if not isinstance(value, Mapping) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _kind(value: Any) -> Kind:
    if value is _ABSENT:
        return Kind.ABSENT
    if value is None:
        return Kind.NULL
    for kind, types in _TYPES.items():
        if isinstance(value, types):
            return kind
    raise TypeError(f"{type(value).__name__} is not a JSON value")


# In this order, because a boolean is an int in Python.
_TYPES: dict[Kind, type | tuple[type, ...]] = {
    Kind.BOOL: bool,
    Kind.NUMBER: (float, int),
    Kind.TEXT: str,
    Kind.LIST: list,
    Kind.MAP: Mapping,
}


def _equal(left: Any, right: Any) -> bool:
    kind = _kind(left)
    if kind is not _kind(right):
        return False
    if kind is Kind.LIST:
        return len(left) == len(right) and all(map(_equal, left, right))
    if kind is Kind.MAP:
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return bool(left == right)


def _compared(operator: Operator, left: Any, right: Any) -> bool:  # noqa: PLR0911  # one each
    if left is _ABSENT or right is _ABSENT:
        return False
    if operator is Operator.EQUAL:
        return _equal(left, right)
    if operator is Operator.NOT_EQUAL:
        return not _equal(left, right)
    kind = _kind(left)
    if kind is not _kind(right) or kind not in ORDERED:
        return False
    match operator:
        case Operator.LESS:
            return bool(left < right)
        case Operator.LESS_OR_EQUAL:
            return bool(left <= right)
        case Operator.GREATER:
            return bool(left > right)
    return bool(left >= right)
