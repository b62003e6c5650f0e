"""What an explanation is made of: a tree of steps, and changes that would allow."""

import enum
from dataclasses import dataclass

from pdp.model import Decision


class StepKind(enum.Enum):
    """What a step is about. The names are those of `ExplanationStep.Kind` in the contract."""

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
    """What a step came to. The names are those of `ExplanationStep.Status` in the contract."""

    NONE = "none"
    """A heading."""
    MET = "met"
    """A check passed, a rule applies, an expression is true or has a value."""
    NOT_MET = "not met"
    MISSING = "missing"
    """It reads an attribute or a variable that is absent."""
    FAILED = "failed"
    APPLIES = "applies"
    """A grant: its rules count."""
    DENY_ONLY = "deny only"
    """A grant in another organization, of which only deny rules count."""
    OTHER_ROLE = "other role"
    NOT_YET = "not yet"
    OVER = "over"
    OTHER_ORGANIZATION = "other organization"
    OTHER_RESOURCE = "other resource"
    OUT_OF_REACH = "out of reach"
    """An allow rule whose grant does not reach a resource of this tenant."""
    NOT_HELD = "not held"
    """A rule of a role that no applying grant gives."""


@dataclass(frozen=True, slots=True)
class Step:
    """A node of the tree."""

    kind: StepKind
    status: StepStatus
    text: str
    id: str = ""
    """Of a grant or a rule."""
    grant_id: str = ""
    """Of a rule: the grant through which it counts."""
    children: tuple["Step", ...] = ()


class ChangeKind(enum.Enum):
    """What a change changes. The names are those of `WouldAllow.Change.Kind` in the contract."""

    FACTOR = "factor"
    """A verification of a factor that is fresh."""
    SESSION = "session"
    """Another session: not revoked, or not of an impersonator."""
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
    """One change of the facts or of the request."""

    kind: ChangeKind
    text: str
    target: str = ""
    """What is changed: `resource.attributes.owner`, a role, an organization, a grant."""
    value: str = ""
    """What it becomes, as CEL writes it; of a grant its scope."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a decision is what it is."""

    decision: Decision
    tree: Step
    would_allow: tuple[tuple[Change, ...], ...] = ()
    """Each makes the decision ALLOW, smallest first. Empty for an allow, and if no small change is
    known."""
