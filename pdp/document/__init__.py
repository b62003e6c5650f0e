"""Policy documents: the database as a file that people write, review and keep in git.

In: the text of a document (YAML or JSON). Out: entities of the vocabulary (`pdp.model`), the
    differences between two documents, and the text of a document. `docs/policy.md` teaches the
    language.

Never: reads a file, a database, the clock or the environment; resolves an anchor, an alias, a tag
or a second YAML document; converts a string to another type because YAML 1.1 would.

Invariants:
- `parse_document(render_document(d))` is `d`, for every `d` whose entities are valid.
- `differences(d, d)` is empty.
- A document with a problem yields nothing: `errors.InvalidPolicy` names every problem with its path
  and its line.
- If a document leaves an id out, it is derived from the content alone (`derived_rule_id`,
  `derived_grant_id`), so the same content always gives the same entity.
"""

from pdp.document.describe import Described, described
from pdp.document.diff import Action, Change, differences, same_entity
from pdp.document.ids import derived_grant_id, derived_rule_id
from pdp.document.lint import ALL_RULES, Finding, lint, lint_applied
from pdp.document.parse import parse_document, refuse
from pdp.document.policy_document import Place, PolicyDocument
from pdp.document.policy_test_run import (
    Coverage,
    Difference,
    Gap,
    Outcome,
    differences_of,
    explain_test,
    run_tests,
)
from pdp.document.policy_tests import PolicyTest, TestFile, parse_tests
from pdp.document.references import (
    Declared,
    parent_problem,
    reference_violations,
    role_problems,
)
from pdp.document.render import (
    VERSION_LINE,
    as_written,
    render_document,
    render_more,
    render_sections,
)
from pdp.document.validate import checked, display_key
from pdp.document.world import Asked, World

__all__ = [
    "ALL_RULES",
    "VERSION_LINE",
    "Action",
    "Asked",
    "Change",
    "Coverage",
    "Declared",
    "Described",
    "Difference",
    "Finding",
    "Gap",
    "Outcome",
    "Place",
    "PolicyDocument",
    "PolicyTest",
    "TestFile",
    "World",
    "as_written",
    "checked",
    "derived_grant_id",
    "derived_rule_id",
    "described",
    "differences",
    "differences_of",
    "display_key",
    "explain_test",
    "lint",
    "lint_applied",
    "parent_problem",
    "parse_document",
    "parse_tests",
    "reference_violations",
    "refuse",
    "render_document",
    "render_more",
    "render_sections",
    "role_problems",
    "run_tests",
    "same_entity",
]
