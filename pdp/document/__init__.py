"""Policy documents: the database as a file that people write, review and keep in git.

In: the text of a document (YAML or JSON). Out: entities of the vocabulary
(`pdp.model`), the differences between two documents, and the text of a document again.
`docs/policy.md` is the language as people learn it.

Never: reads a file, a database, the clock or the environment; resolves an anchor, an alias, a tag
or a second YAML document; turns a string into something else because an old YAML would.

Invariants:
- `parse_document(render_document(d))` is `d`, for every `d` whose entities are valid.
- `differences(d, d)` is empty.
- Nothing of a document that has a problem comes out: `errors.InvalidPolicy` names every problem,
  each with its path and its line.
- Ids that a document leaves out follow from the content alone (`derived_rule_id`,
  `derived_grant_id`), so the same content twice is the same entity.
"""

from pdp.document.describe import Described, described
from pdp.document.diff import Action, Change, differences, same_entity
from pdp.document.ids import derived_grant_id, derived_rule_id
from pdp.document.lint import lint
from pdp.document.parse import parse_document, refuse
from pdp.document.policy_document import Place, PolicyDocument
from pdp.document.references import (
    Declared,
    parent_problem,
    reference_violations,
    role_problems,
)
from pdp.document.render import VERSION_LINE, render_document, render_more, render_sections
from pdp.document.validate import checked, display_key

__all__ = [
    "VERSION_LINE",
    "Action",
    "Change",
    "Declared",
    "Described",
    "Place",
    "PolicyDocument",
    "checked",
    "derived_grant_id",
    "derived_rule_id",
    "described",
    "differences",
    "display_key",
    "lint",
    "parent_problem",
    "parse_document",
    "reference_violations",
    "refuse",
    "render_document",
    "render_more",
    "render_sections",
    "role_problems",
    "same_entity",
]
