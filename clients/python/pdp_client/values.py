"""What goes into a guard and what comes out: frozen values, free of gRPC."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

Attributes = Mapping[str, object]
"""What JSON knows: None, bool, int (to 2**53), finite float, str, list or tuple, mapping."""


class Token:
    """A session token that shows nothing of itself when it is printed, logged or formatted."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a token is a str, not {type(text).__name__}; '' is a denial")
        self._text = text

    @staticmethod
    def of(token: "str | Token") -> "Token":
        """The token itself, or one that is made of its text."""
        return token if isinstance(token, Token) else Token(token)

    def __repr__(self) -> str:
        return "Token(...)"

    def reveal(self) -> str:
        """The token itself, for putting it on the wire."""
        return self._text


@dataclass(frozen=True, slots=True)
class Resource:
    """What the actor wants to act upon. What the PDP has stored about it wins."""

    type: str
    """A lower-case resource type, e.g. `course`."""
    id: str
    """The application's own id; compared byte for byte."""
    attributes: Attributes | None = None
    """Read by conditions as `resource.attributes`."""
    organization_id: str | None = None
    """The Clerk organization that owns it, as your own database has it; never that of the token
    or of the request. Read only where the PDP has not stored the resource; None: not known."""
    parent: "Resource | None" = None
    """The resource above it; only its type and id are sent."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a batch."""

    permission: str
    """`resource-type:action`, e.g. `course:edit`."""
    resource: Resource | None = None
    context: Attributes | None = None
    """Facts of the request itself, read by conditions as `context`."""


class Effect(enum.Enum):
    """What a decision is."""

    ALLOW = "allow"
    DENY = "deny"

    def __bool__(self) -> bool:
        raise TypeError("compare an Effect with Effect.ALLOW; it has no truth value")


class DenialKind(enum.Enum):
    """What a guard turns a denial into."""

    UNAUTHENTICATED = "unauthenticated"
    """The token does not prove who asks: 401."""
    FORBIDDEN = "forbidden"
    """The actor is known and may not: 403."""


class AnswerSource(enum.Enum):
    """Where a decision comes from."""

    DECIDED = "decided"
    """The PDP decided it for this very question."""
    CACHED = "cached"
    """It was given to an equal question before, and nothing that was told since touches it."""
    STAYED_OPEN = "stayed_open"
    """As CACHED, from a sidecar that is cut off and was told to let this permission stay open."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who the token speaks for, as the PDP has verified it."""

    user_id: str
    session_id: str
    organization_id: str | None = None
    impersonator_id: str | None = None


class Factor(enum.Enum):
    """Which factors are to be verified again, as levels of Clerk's reverification."""

    FIRST = "first_factor"
    SECOND = "second_factor"
    BOTH = "multi_factor"


@dataclass(frozen=True, slots=True)
class StepUp:
    """A verification that would make a denial an allow."""

    factor: Factor
    max_age_seconds: int
    """How long ago it may have been when the question is asked again."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The PDP's answer. Look at `effect` or `allowed`; the decision itself has no truth value."""

    effect: Effect
    reason: str
    """The name of a DecisionReason without its prefix, e.g. `TOKEN_EXPIRED`; the digits of one
    that this client is too old to know."""
    message: str
    """The reason as a sentence for people. Its wording may change."""
    denial_kind: DenialKind | None
    """None for an allow."""
    actor: Actor | None
    """None where the token was refused."""
    decision_id: str
    """The key to the audit log."""
    rule_id: str | None = None
    grant_id: str | None = None
    revision: int = 0
    """The revision of policy and facts that was read."""
    reusable_until: datetime | None = None
    """Until when (UTC) the same question has the same answer; None: not at all."""
    source: AnswerSource = AnswerSource.DECIDED
    step_up: StepUp | None = None
    """On a denial that only a fresher factor is missing from; None otherwise."""

    @property
    def allowed(self) -> bool:
        """Whether the actor may."""
        return self.effect is Effect.ALLOW

    def __bool__(self) -> bool:
        raise TypeError("look at decision.allowed; a decision has no truth value")
