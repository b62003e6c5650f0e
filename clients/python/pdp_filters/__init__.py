"""Filters: which resources of one type an actor may use, in a form that no database dictates.

In:  what a policy decision point has worked out for one actor, permission and resource type.
Out: a tree of total predicates over one resource, and its value for a resource in memory.

Never: I/O, a database, protobuf. The decision point makes filters, clients lower them to queries.

Invariants:
1. A predicate is true or false for every resource, whatever is absent, null or of another type. So
   nothing is ever negated: SQL's NULL counts as false wherever it appears, and false never allows.
2. Replacing any node by a false one allows less, by a true one allows more.
3. What cannot be lowered exactly is refused by name, never replaced by something close.
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
