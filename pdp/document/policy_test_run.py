"""Runs policy tests, and measures which parts of the policy they cover."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pdp.decision import Account, Explanation, account_of, branches_of, explain
from pdp.decision.conditions import condition_of
from pdp.document.policy_document import PolicyDocument
from pdp.document.policy_tests import PolicyTest, TestFile, decision_fields
from pdp.document.references import place_of
from pdp.document.world import World
from pdp.model import Decision, Effect, Reason

_BRANCHES = (True, False)


class Difference(NamedTuple):
    """A field of a decision that differs from the expectation."""

    field: str
    wanted: Any
    found: Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a test."""

    test: PolicyTest
    decision: Decision
    differences: tuple[Difference, ...]
    """Empty: the test passed."""


class Gap(NamedTuple):
    """A part of a policy that no test covers."""

    kind: str
    """`rule`, `grant` or `branch`."""
    id: str
    text: str
    line: int | None


@dataclass(slots=True)
class Coverage:
    """The parts of a policy that its tests cover."""

    rules: set[str] = field(default_factory=set)
    grants: set[str] = field(default_factory=set)
    branches: defaultdict[tuple[str, str], set[bool]] = field(
        default_factory=lambda: defaultdict(set)
    )
    """By rule and expression: the values that occurred."""

    def add(self, account: Account) -> None:
        """Counts a decision."""
        decision, seen = account.decision, account.seen
        if decision.rule_id is not None and decision.reason in _DECIDED:
            self.rules.add(decision.rule_id)
            if decision.grant_id is not None:
                self.grants.add(decision.grant_id)
        if seen is None:
            return
        evaluated = seen.outcomes.evaluated()
        allow, deny = seen.candidates
        for rule_id, _, _, condition in (*allow, *deny):
            if condition is not None and condition in evaluated:
                for text, value in branches_of(condition, seen.outcomes.values()):
                    if isinstance(value, bool):
                        self.branches[rule_id, text].add(value)

    def gaps(self, document: PolicyDocument) -> tuple[dict[str, tuple[int, int]], list[Gap]]:
        """By kind, how many parts are covered and how many there are; and the parts that are not
        covered."""
        gaps: list[Gap] = []
        totals = {"rules": 0, "grants": 0, "branches": 0}
        for rule in document.rules or ():
            line = place_of(document, "rule", (rule.id,), "")[1]
            totals["rules"] += 1
            if rule.id not in self.rules:
                text = f"rule {rule.id} decides no test"
                gaps.append(Gap("rule", rule.id, text, line))
            if not rule.condition:
                continue
            for text, _ in branches_of(condition_of(rule.condition)):
                for value in _BRANCHES:
                    totals["branches"] += 1
                    if value not in self.branches[rule.id, text]:
                        never = f"rule {rule.id}: never {'true' if value else 'false'}: {text}"
                        gaps.append(Gap("branch", rule.id, never, line))
        for grant in document.grants or ():
            totals["grants"] += 1
            if grant.id not in self.grants:
                line = place_of(document, "grant", (grant.id,), "")[1]
                text = f"grant {grant.id} of {grant.role} decides no test"
                gaps.append(Gap("grant", grant.id, text, line))
        missing = {
            name: sum(gap.kind == kind for gap in gaps)
            for name, kind in (("rules", "rule"), ("grants", "grant"), ("branches", "branch"))
        }
        return {name: (total - missing[name], total) for name, total in totals.items()}, gaps


_DECIDED = (Reason.ALLOWED_BY_RULE, Reason.DENIED_BY_RULE)


def run_tests(file: TestFile, now: float, coverage: Coverage | None = None) -> Iterator[Outcome]:
    """Runs the tests of a file in order.

    Args:
        file: the policy, its facts and the tests.
        now: the current time in seconds since 1970, for tests that do not name a time.
        coverage: counts the covered parts; without it tests run several times as fast.
    """
    world = World(file.document, file.revoked_sessions)
    for test in file.tests:
        situation = world.situation(test.asked, now if test.now is None else test.now)
        if coverage is None:
            decision = situation.decide()
        else:
            account = account_of(situation)
            coverage.add(account)
            decision = account.decision
        yield Outcome(test, decision, differences_of(test, decision))


def differences_of(test: PolicyTest, decision: Decision) -> tuple[Difference, ...]:
    """The fields in which a decision differs from the expectation."""
    found = decision_fields(decision)
    differences = [
        Difference(name, wanted, found[name])
        for name, wanted in test.expect.items()
        if found[name] != wanted
    ]
    if differences and "decision" not in test.expect:
        wants_allow = test.expect.get("reason") == Reason.ALLOWED_BY_RULE.name
        if wants_allow != (decision.effect is Effect.ALLOW):
            wanted = "allow" if wants_allow else "deny"
            differences.insert(0, Difference("decision", wanted, decision.effect.value))
    return tuple(differences)


def explain_test(file: TestFile, test: PolicyTest, now: float) -> Explanation:
    """Explains the decision of a test."""
    world = World(file.document, file.revoked_sessions)
    return explain(world.situation(test.asked, now if test.now is None else test.now))
