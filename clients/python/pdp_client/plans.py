"""Plans: the resources of a type that an actor may use, read from a message or from JSON.

Unknown parts are refused, never ignored: a filter that lacks a node may allow more.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value
from pdp_filters import (
    CHAIN,
    FALSE,
    TRUE,
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
    Scalar,
    Some,
    Stored,
    TextTest,
)
from pdpapi.v1 import filter_pb2

FORMAT_VERSION: Final = 1

_OPERATORS: Final[Mapping[int, Operator]] = {
    filter_pb2.FILTER_OPERATOR_EQUAL: Operator.EQUAL,
    filter_pb2.FILTER_OPERATOR_NOT_EQUAL: Operator.NOT_EQUAL,
    filter_pb2.FILTER_OPERATOR_LESS: Operator.LESS,
    filter_pb2.FILTER_OPERATOR_LESS_OR_EQUAL: Operator.LESS_OR_EQUAL,
    filter_pb2.FILTER_OPERATOR_GREATER: Operator.GREATER,
    filter_pb2.FILTER_OPERATOR_GREATER_OR_EQUAL: Operator.GREATER_OR_EQUAL,
}
_KINDS: Final[Mapping[int, Kind]] = {
    filter_pb2.FILTER_KIND_ABSENT: Kind.ABSENT,
    filter_pb2.FILTER_KIND_NULL: Kind.NULL,
    filter_pb2.FILTER_KIND_BOOL: Kind.BOOL,
    filter_pb2.FILTER_KIND_NUMBER: Kind.NUMBER,
    filter_pb2.FILTER_KIND_TEXT: Kind.TEXT,
    filter_pb2.FILTER_KIND_LIST: Kind.LIST,
    filter_pb2.FILTER_KIND_MAP: Kind.MAP,
}
_TESTS: Final[Mapping[int, TextTest]] = {
    filter_pb2.FILTER_TEXT_TEST_PREFIX: TextTest.PREFIX,
    filter_pb2.FILTER_TEXT_TEST_SUFFIX: TextTest.SUFFIX,
    filter_pb2.FILTER_TEXT_TEST_CONTAINS: TextTest.CONTAINS,
}


class PlanInvalid(ValueError):  # named like the errors of the guard
    """A plan that this version does not fully know, so it must not be used."""


class FilterUnsupported(ValueError):  # as above
    """A filter, or a description of a model, that cannot be lowered exactly.

    The message names the field and the reason.
    """


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A part of a condition that no filter can express."""

    rule_id: str
    operator: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The resources of a type on which the actor may use a permission. Has no truth value: pass it
    to an adapter, such as `pdp_client.sqlalchemy.where`."""

    permission: str
    resource_type: str
    filter: Filter
    check_each_row: bool = False
    """The filter selects more than is allowed: `check` each row that it selects. Only if the caller
    has asked for that."""
    unsupported: tuple[Unsupported, ...] = ()
    """The parts of conditions that the filter lacks; they are why each row must be checked."""

    def __bool__(self) -> bool:
        raise TypeError("a plan has no truth value: look at plan.nothing or plan.everything")

    @property
    def nothing(self) -> bool:
        """Whether no resource is allowed, whatever it is."""
        return self.filter == FALSE

    @property
    def everything(self) -> bool:
        """Whether each resource is allowed, whatever it is."""
        return self.filter == TRUE and not self.check_each_row


def plan_from_message(message: filter_pb2.ResourcePlan) -> Plan:
    """Reads a plan. Raises PlanInvalid."""
    if message.version != FORMAT_VERSION:
        raise PlanInvalid(f"version {message.version} of plans is unknown to this version")
    outcomes: dict[int, Callable[[], Filter]] = {
        filter_pb2.PLAN_OUTCOME_NOTHING: lambda: FALSE,
        filter_pb2.PLAN_OUTCOME_EVERYTHING: lambda: TRUE,
        filter_pb2.PLAN_OUTCOME_FILTER: lambda: _filter(message.filter, 0),
    }
    outcome = outcomes.get(message.outcome)
    has_filter = message.outcome == filter_pb2.PLAN_OUTCOME_FILTER
    if outcome is None or message.HasField("filter") is not has_filter:
        raise PlanInvalid(f"the outcome {message.outcome} and the filter do not go together")
    return Plan(
        message.permission,
        message.resource_type,
        outcome(),
        message.check_each_row,
        tuple(
            Unsupported(part.rule_id, part.operator, part.line, part.column)
            for part in message.unsupported
        ),
    )


def plan_from_json(text: str) -> Plan:
    """Reads the JSON form of a plan. Raises PlanInvalid."""
    try:
        message = json_format.Parse(text, filter_pb2.ResourcePlan())
    except json_format.ParseError as error:
        raise PlanInvalid(str(error)) from None
    return plan_from_message(message)


def _filter(message: filter_pb2.FilterNode, depth: int) -> Filter:
    """Reads a node. `depth`: the number of quantifiers around it."""
    kind = message.WhichOneof("node")
    if kind is None:
        raise PlanInvalid("a node of the filter is unknown to this version")
    return _NODES[kind](getattr(message, kind), depth)


def _many(nodes: filter_pb2.FilterNodes, depth: int) -> tuple[Filter, ...]:
    return tuple(_filter(node, depth) for node in nodes.nodes)


def _compare(message: filter_pb2.FilterComparison, depth: int) -> Filter:
    operator = _known(_OPERATORS, message.operator)
    right = message.WhichOneof("right")
    if right is None:
        raise PlanInvalid("a comparison has no right side")
    other = _field(message.field, depth) if right == "field" else _scalar(message.value)
    return Compare(operator, _field(message.left, depth), other)


def _match(message: filter_pb2.FilterTextMatch, depth: int) -> Filter:
    if not message.text:
        raise PlanInvalid("a test for an empty text")
    test = _known(_TESTS, message.test)
    return Match(test, _field(message.field, depth), message.text, message.negated)


def _kind_is(message: filter_pb2.FilterKindTest, depth: int) -> Filter:
    kinds = frozenset(_known(_KINDS, kind) for kind in message.kinds)
    return KindIs(_field(message.field, depth), kinds)


def _over(message: filter_pb2.FilterQuantifier, depth: int) -> Field | Chain:
    over = message.WhichOneof("over")
    if over == "field":
        return _field(message.field, depth)
    if over is None or not message.chain:
        raise PlanInvalid("a quantifier of the filter is unknown to this version")
    return CHAIN


_NODES: Final[Mapping[str, Callable[[Any, int], Filter]]] = {
    "all": lambda message, depth: And(_many(message, depth)),
    "any": lambda message, depth: Or(_many(message, depth)),
    "compare": _compare,
    "one_of": lambda message, depth: OneOf(
        _field(message.field, depth), _scalars(message.values), message.negated
    ),
    "kind_is": _kind_is,
    "match": _match,
    "some": lambda message, depth: Some(_over(message, depth), _filter(message.body, depth + 1)),
    "every": lambda message, depth: Every(_over(message, depth), _filter(message.body, depth + 1)),
    "stored": lambda message, _: Stored(tuple(message.types)),
}


def _known(values: Mapping[int, Any], number: int) -> Any:
    try:
        return values[number]
    except KeyError:
        raise PlanInvalid(f"the value {number} is unknown to this version") from None


def _field(message: filter_pb2.FilterField, depth: int) -> Field:
    if message.level > depth or (message.level == 0 and not message.path):
        raise PlanInvalid("a field is not within reach")
    return Field(tuple(message.path), message.level)


def _scalars(values: Iterable[Value]) -> tuple[Scalar, ...]:
    return tuple(map(_scalar, values))


def _scalar(value: Value) -> Scalar:
    kind = value.WhichOneof("kind")
    if kind == "null_value":
        return None
    if kind not in ("bool_value", "number_value", "string_value"):
        raise PlanInvalid("a constant of the filter is unknown to this version")
    scalar: Scalar = getattr(value, kind)
    return scalar
