"""The project's own policy tests, for other evaluators than `pdp test` has.

A file of `tests/golden/cases` is what `pdp test` reads (docs/policy-tools.md). What answers is a
parameter of `run_case`, so that the same cases go through the pure core, the wire, and whatever
comes. `expect_audit` names fields of the record that a server keeps; null says that it keeps none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdp.audit import DecisionRecord
from pdp.document import (
    Asked,
    PolicyDocument,
    TestFile,
    World,
    differences_of,
    parse_tests,
    render_document,
)
from pdp.model import Decision, RevokedSession

CASES = Path(__file__).parents[2] / "golden" / "cases"
NOW = 1_790_000_000.0
"""For evaluators without a clock; the cases hold at any time of this decade."""


@dataclass(frozen=True)
class Case:
    """One file."""

    name: str
    file: TestFile

    @property
    def policy_text(self) -> str:
        """The policy and the facts as a document."""
        return render_document(self.file.document)


@dataclass(frozen=True)
class Answer:
    """A decision and its audit records; None if the evaluator keeps no records."""

    decision: Decision
    records: Sequence[DecisionRecord] | None = None


Ask = Callable[[Case, Asked], Answer]


def load_cases(directory: Path = CASES) -> list[Case]:
    """All cases, by name."""
    return [
        Case(path.stem, parse_tests(path.read_text(encoding="utf-8"), _no_other_file))
        for path in sorted(directory.glob("*.yaml"))
    ]


def _no_other_file(path: str) -> str:
    raise AssertionError(f"{path}: each case holds its own policy")


def run_case(case: Case, ask: Ask) -> None:
    """Asks every question of a case. Raises AssertionError if an answer is not the expected one."""
    for test in case.file.tests:
        where = f"{case.name}, line {test.line}"
        answer = ask(case, test.asked)
        assert not differences_of(test, answer.decision), f"{where}: found {answer.decision}"
        if test.looks_at_audit and answer.records is not None:
            if test.expect_audit is None:
                assert not answer.records, f"{where}: {answer.records} recorded"
            else:
                assert len(answer.records) == 1, f"{where}: {len(answer.records)} records"
                _compare(f"{where}, audit", test.expect_audit, _record_fields(answer.records[0]))


def ask_core(case: Case, asked: Asked) -> Answer:
    """Asks the pure core, which keeps no records."""
    return Answer(decide_document(case.file.document, case.file.revoked_sessions, asked))


def decide_document(
    document: PolicyDocument, revoked: Sequence[RevokedSession], asked: Asked
) -> Decision:
    """The core's decision from a whole document."""
    return World(document, revoked).situation(asked, NOW).decide()


def _record_fields(record: DecisionRecord) -> dict[str, Any]:
    actor = record.actor
    return {
        "decision": record.effect.value,
        "reason": record.reason.name,
        "user": actor and actor.user_id,
        "session": actor and actor.session_id,
        "organization": actor and actor.organization_id,
        "impersonator": actor and actor.impersonator_id,
        "permission": record.permission,
        "resource": record.resource and f"{record.resource.type}/{record.resource.id}",
        "resource_organization": record.resource_organization_id,
        "rule": record.rule_id,
        "grant": record.grant_id,
    }


def _compare(where: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    unknown = wanted.keys() - found.keys()
    assert not unknown, f"{where}: there is no {sorted(unknown)}"
    assert {key: found[key] for key in wanted} == dict(wanted), f"{where}: found {dict(found)}"
