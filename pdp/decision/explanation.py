"""The parts of an explanation: a tree of steps, and changes that would allow."""

import enum
from dataclasses import dataclass

from pdp.decision.certainty import Certainty
from pdp.model import Decision


class StepKind(enum.Enum):
    """The subject of a step. The names are those of `ExplanationStep.Kind` in the contract."""

    DECISION = "decision"
    TOKEN = "token"  # noqa: S105
    ACTOR = "actor"
    PERMISSION = "permission"
    RESOURCE = "resource"
    TENANT = "tenant"
    GRANTS = "grants"
    GRANT = "grant"
    DENY_RULES = "deny_rules"
    ALLOW_RULES = "allow_rules"
    OTHER_RULES = "other_rules"
    RULE = "rule"
    EXPRESSION = "expression"


class StepStatus(enum.Enum):
    """The result of a step. The names are those of `ExplanationStep.Status` in the contract."""

    NONE = "none"
    """A heading."""
    MET = "met"
    """A check passed, a rule applies, an expression is true or has a value."""
    NOT_MET = "not met"
    MISSING = "missing"
    """An expression reads an attribute or a variable that is absent."""
    FAILED = "failed"
    APPLIES = "applies"
    """The rules of the grant count."""
    DENY_ONLY = "deny only"
    """Only the deny rules of the grant count: it is in another organization."""
    OTHER_ROLE = "other role"
    NOT_YET = "not yet"
    OVER = "over"
    OTHER_ORGANIZATION = "other organization"
    OTHER_RESOURCE = "other resource"
    OUT_OF_REACH = "out of reach"
    """The grant of an allow rule does not reach a resource of this tenant."""
    NOT_HELD = "not held"
    """No grant that applies gives the role of the rule."""


@dataclass(frozen=True, slots=True)
class Step:
    """A node of the tree."""

    kind: StepKind
    status: StepStatus
    text: str
    id: str = ""
    """Id of the grant or the rule."""
    grant_id: str = ""
    """For a rule: the grant through which it counts."""
    children: tuple["Step", ...] = ()


class ChangeKind(enum.Enum):
    """The kind of a change. The names are those of `WouldAllow.Change.Kind` in the contract."""

    FACTOR = "factor"
    """Verify a factor again."""
    SESSION = "session"
    """Use another session: one that is not revoked, or has no impersonator."""
    ACTIVE_ORGANIZATION = "active_organization"
    CONTEXT = "context"
    ATTRIBUTE = "attribute"
    CLAIM = "claim"
    RESOURCE = "resource"
    """Store the resource, or its organization."""
    GRANT = "grant"
    MEMBERSHIP = "membership"
    USER = "user"
    REVOKE = "revoke"
    """Delete a grant, because its role denies."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the facts or of the request."""

    kind: ChangeKind
    text: str
    target: str = ""
    """The changed value: `resource.attributes.owner`, a role, an organization, a grant."""
    value: str = ""
    """The new value, as CEL writes it; for a grant, its scope."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation of a decision."""

    decision: Decision
    tree: Step
    would_allow: tuple[tuple[Change, ...], ...] = ()
    """Sets of changes that each make the decision ALLOW, smallest first. Empty for an allow, and if
    no small set is known."""
    search_was_cut: bool = False
    """Whether a bound ended the search for such sets: others may allow, also smaller ones."""
    certainty: Certainty = Certainty.DEPENDS
    """What stored values alone say."""
