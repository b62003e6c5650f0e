"""Whether stored values alone settle a decision: whatever token and request ask it.

Evaluates the conditions partially. An expression that reads the token's session facts, the context,
or an attribute that is not stored may have any value. All others have their current value.
"""

import enum
from collections.abc import Iterator, Sequence
from typing import Final

from pdp.decision.cel_ast import Kind, Node, read
from pdp.decision.condition_changes import path_of
from pdp.decision.conditions import Parts
from pdp.decision.principal import Candidate
from pdp.decision.situation import Account
from pdp.model import Reason

_OF_REQUEST: Final = frozenset(
    (
        *("actor.session", "actor.impersonator", "actor.claims", "actor.claimed_permissions"),
        *("actor.first_factor_minutes", "actor.second_factor_minutes", "context"),
    )
)
_ATTRIBUTES: Final = "resource.attributes"
_DEPTH_MAX: Final = 50

_Results = frozenset[bool | None]
"""The possible results of a condition; None: it fails."""
_ANY: Final[_Results] = frozenset((True, False, None))
_TRUE: Final[_Results] = frozenset((True,))
_FALSE: Final[_Results] = frozenset((False,))
_FAILS: Final[_Results] = frozenset((None,))


class Certainty(enum.Enum):
    """What stored values say about a question of an actor in an organization."""

    ALLOWED = "allowed"
    DENIED = "denied"
    DEPENDS = "depends"
    """On claims, factors, context, or on attributes that are not stored."""


def certainty_of(account: Account) -> Certainty:
    """What every request gets for this question of this actor, now. Never ALLOWED or DENIED if some
    request gets another answer."""
    seen, chain = account.seen, account.situation.chain
    if seen is None:
        return Certainty.DENIED  # refused before the rules
    if chain and not chain[0].stored:
        return Certainty.DEPENDS  # the request may name its organization
    allow, deny = seen.candidates
    allows = [_results(account, each) for each in allow if each[2] >= seen.needed]
    denials = [_results(account, each) for each in deny]
    if not any(True in results for results in allows):
        return Certainty.DENIED
    if any(False not in results for results in denials):
        return Certainty.DENIED
    if _TRUE in allows and all(results == _FALSE for results in denials):
        return Certainty.ALLOWED
    return Certainty.DEPENDS


def _results(account: Account, candidate: Candidate) -> _Results:
    condition, seen = candidate[3], account.seen
    if condition is None or seen is None:
        return _TRUE
    parts = condition.parts(seen.outcomes.values())
    if parts is None:
        return _FAILS
    chain = account.situation.chain
    stored = frozenset(chain[0].resource.attributes if chain else ())
    return _Partial(parts, stored if chain else None).results(parts.tree.root, _DEPTH_MAX)


class _Partial:
    """Evaluates a condition with a part of its values."""

    def __init__(self, parts: Parts, stored: frozenset[str] | None) -> None:
        """`stored`: the keys of the resource's attributes; None: there is no resource."""
        self._parts = parts
        self._stored = stored

    def results(self, expression: bytes, depth: int) -> _Results:
        node = read(expression)
        if not depth:
            return _ANY
        if node.kind is Kind.CALL and node.name in ("_&&_", "_||_"):
            return _joined(
                [self.results(part, depth - 1) for part in node.inner], node.name == "_||_"
            )
        if node.kind is Kind.CALL and node.name == "!_":
            inner = self.results(node.inner[0], depth - 1)
            return frozenset(None if result is None else not result for result in inner)
        if any(self._is_of_request(each) for each in _nodes(expression)):
            return _ANY
        value = self._parts.evaluate(expression)
        if isinstance(value, bool):
            return frozenset((value,))
        # Another failure may be one of the budget, which the whole condition does not exceed.
        return _FAILS if value is Reason.ATTRIBUTE_MISSING else _ANY

    def _is_of_request(self, node: Node) -> bool:
        path = path_of(node)
        variable = node.name if path is None else path.variable
        if path is None and node.kind is not Kind.VARIABLE:
            return False
        if variable == _ATTRIBUTES and self._stored is not None:
            # Callers may send attributes; those that are stored win.
            return path is None or path.key not in self._stored
        return variable in _OF_REQUEST


def _joined(operands: Sequence[_Results], settles: bool) -> _Results:
    """The results of a logical operator. `settles`: the value of an operand that settles it."""
    found: set[bool | None] = set()
    if any(settles in results for results in operands):
        found.add(settles)
    if all((not settles) in results for results in operands):
        found.add(not settles)
    if any(None in results for results in operands) and {settles} not in operands:
        found.add(None)
    return frozenset(found)


def _nodes(expression: bytes) -> Iterator[Node]:
    """The expressions inside, without those inside a path."""
    pending = [expression]
    while pending:
        node = read(pending.pop())
        yield node
        if path_of(node) is None:
            pending += node.inner
