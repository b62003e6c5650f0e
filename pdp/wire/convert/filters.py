"""Converts filters and plans to messages. `pdp_client.plans` reads them."""

from typing import Final

from google.protobuf.struct_pb2 import NULL_VALUE, Value
from pdp_filters import (
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

from pdp.decision.partial import Plan

FORMAT_VERSION: Final = 1

_OPERATORS: Final = {
    Operator.EQUAL: filter_pb2.FILTER_OPERATOR_EQUAL,
    Operator.NOT_EQUAL: filter_pb2.FILTER_OPERATOR_NOT_EQUAL,
    Operator.LESS: filter_pb2.FILTER_OPERATOR_LESS,
    Operator.LESS_OR_EQUAL: filter_pb2.FILTER_OPERATOR_LESS_OR_EQUAL,
    Operator.GREATER: filter_pb2.FILTER_OPERATOR_GREATER,
    Operator.GREATER_OR_EQUAL: filter_pb2.FILTER_OPERATOR_GREATER_OR_EQUAL,
}
_KINDS: Final = {kind: filter_pb2.FilterKind.Value(f"FILTER_KIND_{kind.name}") for kind in Kind}
_TESTS: Final = {
    test: filter_pb2.FilterTextTest.Value(f"FILTER_TEXT_TEST_{test.name}") for test in TextTest
}


def message_of_plan(plan: Plan, permission: str, resource_type: str) -> filter_pb2.ResourcePlan:
    """A plan as a message."""
    message = filter_pb2.ResourcePlan(
        version=FORMAT_VERSION,
        permission=permission,
        resource_type=resource_type,
        check_each_row=bool(plan.unsupported),
        unsupported=[
            filter_pb2.UnsupportedExpression(
                rule_id=part.rule_id, operator=part.operator, line=part.line, column=part.column
            )
            for part in plan.unsupported
        ],
    )
    if plan.filter == FALSE:
        message.outcome = filter_pb2.PLAN_OUTCOME_NOTHING
    elif plan.filter == TRUE:
        message.outcome = filter_pb2.PLAN_OUTCOME_EVERYTHING
    else:
        message.outcome = filter_pb2.PLAN_OUTCOME_FILTER
        message.filter.CopyFrom(message_of_filter(plan.filter))
    return message


def message_of_filter(node: Filter) -> filter_pb2.FilterNode:  # noqa: PLR0911  # a node each
    """A filter as a message. Raises TypeError for a node that is not part of `pdp_filters`."""
    match node:
        case And(parts):
            return filter_pb2.FilterNode(all=_nodes(parts))
        case Or(parts):
            return filter_pb2.FilterNode(any=_nodes(parts))
        case Compare(operator, left, right):
            message = filter_pb2.FilterComparison(operator=_OPERATORS[operator], left=_field(left))
            if isinstance(right, Field):
                message.field.CopyFrom(_field(right))
            else:
                message.value.CopyFrom(_value(right))
            return filter_pb2.FilterNode(compare=message)
        case OneOf(field, values, negated):
            one_of = filter_pb2.FilterOneOf(
                field=_field(field), values=map(_value, values), negated=negated
            )
            return filter_pb2.FilterNode(one_of=one_of)
        case KindIs(field, kinds):
            numbers = sorted(_KINDS[kind] for kind in kinds)
            return filter_pb2.FilterNode(
                kind_is=filter_pb2.FilterKindTest(field=_field(field), kinds=numbers)
            )
        case Match(test, field, text, negated):
            match = filter_pb2.FilterTextMatch(
                test=_TESTS[test], field=_field(field), text=text, negated=negated
            )
            return filter_pb2.FilterNode(match=match)
        case Some(over, body):
            return filter_pb2.FilterNode(some=_quantifier(over, body))
        case Every(over, body):
            return filter_pb2.FilterNode(every=_quantifier(over, body))
        case Stored(types):
            return filter_pb2.FilterNode(stored=filter_pb2.FilterStored(types=types))
    raise TypeError(f"{type(node).__name__} is not part of a filter")


def _nodes(parts: tuple[Filter, ...]) -> filter_pb2.FilterNodes:
    return filter_pb2.FilterNodes(nodes=map(message_of_filter, parts))


def _quantifier(over: Field | Chain, body: Filter) -> filter_pb2.FilterQuantifier:
    message = filter_pb2.FilterQuantifier(body=message_of_filter(body))
    if isinstance(over, Field):
        message.field.CopyFrom(_field(over))
    else:
        message.chain = True
    return message


def _field(field: Field) -> filter_pb2.FilterField:
    return filter_pb2.FilterField(level=field.level, path=field.path)


def _value(value: Scalar) -> Value:
    if value is None:
        return Value(null_value=NULL_VALUE)
    if isinstance(value, bool):
        return Value(bool_value=value)
    return Value(string_value=value) if isinstance(value, str) else Value(number_value=value)
