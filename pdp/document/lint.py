"""Finds parts of a valid policy that are likely to surprise. Findings are not errors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Final

from pdp.document.lint_rules import ON_APPLY, RULES, LintRule
from pdp.document.policy_document import PolicyDocument
from pdp.document.references import place_of
from pdp.document.silences import Silence
from pdp.errors import Violation
from pdp.limits import VIOLATIONS_MAX

SILENCE_INVALID: Final = LintRule(
    "silence-invalid",
    "warning",
    "A comment that silences nothing, or without a reason",
    lambda _: iter(()),
)
"""About the comments themselves, so it is checked here and cannot be silenced."""
ALL_RULES: Final = (*RULES, SILENCE_INVALID)


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding and its place."""

    rule: LintRule
    violation: Violation
    silenced: str | None = None
    """Why it is silenced; None: it is not."""


def lint(document: PolicyDocument) -> list[Finding]:
    """All findings about a policy with valid references, ordered by line, including silenced
    findings. A section that is None is not checked."""
    findings = list(_findings(document, RULES))
    used = {silence for finding in findings for silence in _silencing(document.silences, finding)}
    findings = [
        Finding(finding.rule, finding.violation, silence.reason)
        if (silence := next(_silencing(document.silences, finding), None)) is not None
        else finding
        for finding in findings
    ]
    for silence in document.silences:
        problem = _problem_of(silence, used=silence in used)
        if problem is not None:
            violation = Violation("comment", problem, silence.line)
            findings.append(Finding(SILENCE_INVALID, violation))
    return sorted(findings, key=lambda finding: finding.violation.line or 0)


def lint_applied(document: PolicyDocument) -> list[Violation]:
    """Warnings for the response to an applied document; at most VIOLATIONS_MAX."""
    found = (
        finding.violation
        for finding in _findings(document, ON_APPLY)
        if next(_silencing(document.silences, finding), None) is None
    )
    return list(islice(found, VIOLATIONS_MAX))


def _findings(document: PolicyDocument, rules: Sequence[LintRule]) -> Iterator[Finding]:
    for rule in rules:
        for kind, key, description in rule.check(document):
            path, line, column = place_of(document, kind, key, "")
            yield Finding(rule, Violation(path, description, line, column))


def _silencing(silences: Sequence[Silence], finding: Finding) -> Iterator[Silence]:
    for silence in silences:
        if (
            silence.reason
            and silence.rule == finding.rule.id
            and silence.target in (None, finding.violation.line)
        ):
            yield silence


def _problem_of(silence: Silence, *, used: bool) -> str | None:
    known = [rule.id for rule in RULES]
    if silence.rule not in known:
        near = get_close_matches(silence.rule, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{silence.rule!r} is not a rule{hint}"
    if not silence.reason:
        return f"silences {silence.rule} without a reason: write it after a colon"
    if not used:
        return f"silences {silence.rule}, which is not found here"
    return None
