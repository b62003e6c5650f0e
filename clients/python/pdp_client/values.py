"""The inputs and outputs of a guard: frozen values, independent of gRPC."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

Attributes = Mapping[str, object]
"""JSON values: None, bool, int (to 2**53), finite float, str, list or tuple, mapping."""


class Token:
    """A session token whose text never appears when it is printed, logged or formatted."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a token is a str, not {type(text).__name__}; '' is a denial")
        self._text = text

    @staticmethod
    def of(token: "str | Token") -> "Token":
        """The token itself, or a token made from its text."""
        return token if isinstance(token, Token) else Token(token)

    def __repr__(self) -> str:
        return "Token(...)"

    def reveal(self) -> str:
        """The text of the token, to send it."""
        return self._text


@dataclass(frozen=True, slots=True)
class Resource:
    """The resource that the actor wants to use. Values that the PDP has stored take precedence."""

    type: str
    """A lower-case resource type, e.g. `course`."""
    id: str
    """The application's own id; compared byte for byte."""
    attributes: Attributes | None = None
    """Conditions read them as `resource.attributes`."""
    organization_id: str | None = None
    """The Clerk organization that owns it, from your own database; never that of the token or of
    the request. Used only if the PDP has not stored the resource; None: unknown."""
    parent: "Resource | None" = None
    """The resource above it; only its type and id are sent."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a batch."""

    permission: str
    """`resource-type:action`, e.g. `course:edit`."""
    resource: Resource | None = None
    context: Attributes | None = None
    """Facts of the request itself; conditions read them as `context`."""


class Effect(enum.Enum):
    """The effect of a decision."""

    ALLOW = "allow"
    DENY = "deny"

    def __bool__(self) -> bool:
        raise TypeError("compare an Effect with Effect.ALLOW; it has no truth value")


class DenialKind(enum.Enum):
    """The kind of a denial, which decides the HTTP status."""

    UNAUTHENTICATED = "unauthenticated"
    """The token does not prove the actor's identity: 401."""
    FORBIDDEN = "forbidden"
    """The actor is known and not allowed: 403."""


class AnswerSource(enum.Enum):
    """The source of a decision."""

    DECIDED = "decided"
    """The PDP decided it for this very question."""
    CACHED = "cached"
    """It was made for an equal question before, and no later change affects it."""
    STAYED_OPEN = "stayed_open"
    """As CACHED, from a sidecar without a connection to the PDP, in the fail-open window that is
    configured for this permission."""


@dataclass(frozen=True, slots=True)
class Actor:
    """The actor of the token, as the PDP has verified it."""

    user_id: str
    session_id: str
    organization_id: str | None = None
    impersonator_id: str | None = None


class Factor(enum.Enum):
    """The factors to verify again, as levels of Clerk's reverification."""

    FIRST = "first_factor"
    SECOND = "second_factor"
    BOTH = "multi_factor"


@dataclass(frozen=True, slots=True)
class StepUp:
    """A verification that would make a denial an allow."""

    factor: Factor
    max_age_seconds: int
    """The greatest age of the verification when the question is asked again."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The PDP's answer. Read `effect` or `allowed`; the decision itself has no truth value."""

    effect: Effect
    reason: str
    """The name of a DecisionReason without its prefix, for example `TOKEN_EXPIRED`; the number of a
    reason that only a newer client knows."""
    message: str
    """The reason as a sentence for people. Its wording may change."""
    denial_kind: DenialKind | None
    """None for an allow."""
    actor: Actor | None
    """None if the token was refused."""
    decision_id: str
    """The id of the decision in the audit log."""
    rule_id: str | None = None
    grant_id: str | None = None
    revision: int = 0
    """The revision of the policy and facts that the decision used."""
    reusable_until: datetime | None = None
    """Until when (UTC) the same question has the same answer; None: not reusable."""
    source: AnswerSource = AnswerSource.DECIDED
    step_up: StepUp | None = None
    """The step up that would make a denial an allow; otherwise None."""

    @property
    def allowed(self) -> bool:
        """Whether the actor is allowed."""
        return self.effect is Effect.ALLOW

    def __bool__(self) -> bool:
        raise TypeError("look at decision.allowed; a decision has no truth value")
