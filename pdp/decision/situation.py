"""Everything that a decision depends on as a value, and the details of a decision.

For explanations and policy tests, which ask many questions that differ in a detail.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, NamedTuple

from pdp.decision.evaluate import Judge, decide, judge_rules
from pdp.decision.outcomes import Outcomes
from pdp.decision.policy import Policy
from pdp.decision.principal import Candidates, Principal, resolve_principal
from pdp.model import (
    Actor,
    Attributes,
    Decision,
    Grant,
    InOrganization,
    OnResource,
    OrganizationFacts,
    Question,
    ResourceFacts,
    ToUser,
    UserFacts,
    VerifiedToken,
)

TOKEN_SECONDS: Final = 60.0
"""The assumed lifetime of a named actor's token; that of Clerk's session tokens."""


@dataclass(frozen=True, slots=True)
class NamedActor:
    """An actor with what a token would say about the session, in place of a token."""

    actor: Actor
    _: KW_ONLY
    claims: Attributes = field(default_factory=dict)
    claimed_permissions: tuple[str, ...] = ()
    first_factor_minutes: float | None = None
    second_factor_minutes: float | None = None

    def token(self, now: float) -> VerifiedToken:
        """The token that this actor would have."""
        return VerifiedToken(
            self.actor,
            issuer="",
            key_id="",
            expires_at=now + TOKEN_SECONDS,
            claims=self.claims,
            claimed_permissions=self.claimed_permissions,
            first_factor_minutes=self.first_factor_minutes,
            second_factor_minutes=self.second_factor_minutes,
        )


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that a decision depends on."""

    policy: Policy
    token: VerifiedToken
    user: UserFacts | None
    organizations: Mapping[str, OrganizationFacts]
    """By id: the active organization, and other known organizations."""
    question: Question
    chain: tuple[ResourceFacts, ...]
    now: float

    def principal(self) -> Principal:
        """The principal in this situation."""
        active = self.token.actor.organization_id
        organization = self.organizations.get(active) if active is not None else None
        return resolve_principal(self.policy, self.token, self.user, organization, self.now)

    def decide(self) -> Decision:
        """The decision that `Check` gives."""
        return decide(self.principal(), self.question, self.chain)


class Seen(NamedTuple):
    """The arguments of the judge."""

    candidates: Candidates
    needed: int
    outcomes: Outcomes


@dataclass(frozen=True, slots=True)
class Account:
    """A decision with the values that it was made from."""

    situation: Situation
    principal: Principal
    decision: Decision
    seen: Seen | None
    """None: the question was refused before the rules."""


def account_of(situation: Situation, judge: Judge = judge_rules) -> Account:
    """Decides by `judge`, and returns the details of the decision."""
    seen: list[Seen] = []

    def noting(
        candidates: Candidates, needed: int, owner: str | None, until: float, outcomes: Outcomes
    ) -> Decision:
        seen.append(Seen(candidates, needed, outcomes))
        return judge(candidates, needed, owner, until, outcomes)

    principal = situation.principal()
    decision = decide(principal, situation.question, situation.chain, noting)
    return Account(situation, principal, decision, seen[0] if seen else None)


def grant_text(grant: Grant) -> str:
    """Role, subject and scope of a grant as text."""
    if isinstance(grant.subject, ToUser):
        subject = grant.subject.user_id
    else:
        subject = f"holders of {grant.subject.organization_role}"
    return f"{grant.role} to {subject} {scope_text(grant)}"


def scope_text(grant: Grant) -> str:
    """The scope of a grant as text."""
    match grant.scope:
        case InOrganization(organization):
            return f"in {organization}"
        case OnResource(ref):
            return f"on {ref.type}:{ref.id}"
    return "everywhere"
