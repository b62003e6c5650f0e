"""The variables that a condition reads, for the checks of policies."""

from typing import NamedTuple

from pdp.decision.cel_ast import Kind, read
from pdp.decision.condition_changes import Path, path_of
from pdp.decision.conditions import Condition

_EQUALITY = ("_==_", "_!=_", "@in")


class Reads(NamedTuple):
    """The variables and keys that a condition reads."""

    paths: frozenset[Path]
    """Variables and keys whose value is read."""
    tested: frozenset[Path]
    """Keys that `has()` tests."""
    compared: frozenset[tuple[Path, Path]]
    """Pairs that are compared for equality, or with the operator `in`."""


def reads_of(condition: Condition) -> Reads:
    """The reads of a condition; none if the text is not a condition."""
    parts = condition.parts(({}, {}))
    paths: set[Path] = set()
    tested: set[Path] = set()
    compared: set[tuple[Path, Path]] = set()
    pending = [] if parts is None else [parts.tree.root]
    while pending:
        node = read(pending.pop())
        path = path_of(node)
        if path is not None:
            (tested if node.tests else paths).add(path)
            continue
        if node.kind is Kind.CALL and node.name in _EQUALITY:
            left, right = (path_of(read(part)) for part in node.inner)
            if left is not None and right is not None:
                compared.add((left, right))
        pending += node.inner
    return Reads(frozenset(paths), frozenset(tested), frozenset(compared))
