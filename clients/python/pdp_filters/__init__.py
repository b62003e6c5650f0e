"""Filters: the resources of a type that an actor may use, in a form that is independent of
databases.

In:  the result of a policy decision point for an actor, a permission and a resource type.
Out: a tree of total predicates over a resource, and its value for a resource in memory.

Never: I/O, a database, protobuf. The decision point makes filters, clients lower them to queries.

Invariants:
1. A predicate is true or false for every resource, whatever is absent, null or of another type. So
   no node is ever negated: SQL's NULL counts as false everywhere, and false never allows.
2. A false node in place of any node allows less, a true node allows more.
3. A filter that cannot be lowered exactly is refused by name, never approximated.
"""

from pdp_filters.evaluate import Level, Row, evaluate
from pdp_filters.ir import (
    CHAIN,
    FALSE,
    PRESENT,
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
    all_of,
    any_of,
    complement,
    walk,
)

__all__ = [
    "CHAIN",
    "FALSE",
    "PRESENT",
    "TRUE",
    "And",
    "Chain",
    "Compare",
    "Every",
    "Field",
    "Filter",
    "Kind",
    "KindIs",
    "Level",
    "Match",
    "OneOf",
    "Operator",
    "Or",
    "Row",
    "Scalar",
    "Some",
    "Stored",
    "TextTest",
    "all_of",
    "any_of",
    "complement",
    "evaluate",
    "walk",
]
