"""All that a decision depends on, as one value, and what a decision looked at.

For explanations and policy tests, which ask many questions that differ in one thing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pdp.decision.evaluate import Outcomes, decide, judge_rules
from pdp.decision.policy import Policy
from pdp.decision.principal import Candidates, Standing, prepare
from pdp.model import (
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


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision depends on."""

    policy: Policy
    token: VerifiedToken
    user: UserFacts | None
    organizations: Mapping[str, OrganizationFacts]
    """By id: the active organization, and others that are known."""
    question: Question
    chain: tuple[ResourceFacts, ...]
    now: float

    def standing(self) -> Standing:
        """The actor in this situation."""
        active = self.token.actor.organization_id
        organization = self.organizations.get(active) if active is not None else None
        return prepare(self.policy, self.token, self.user, organization, self.now)

    def decide(self) -> Decision:
        """The decision that `Check` gives."""
        return decide(self.standing(), self.question, self.chain)


class Seen(NamedTuple):
    """What the judge was given."""

    candidates: Candidates
    needed: int
    outcomes: Outcomes


@dataclass(frozen=True, slots=True)
class Account:
    """A decision, and what it was made from."""

    situation: Situation
    standing: Standing
    decision: Decision
    seen: Seen | None
    """None: the rules were not reached."""


def account_of(situation: Situation) -> Account:
    """Decides, and keeps what was looked at."""
    seen: list[Seen] = []

    def noting(
        candidates: Candidates, needed: int, owner: str | None, until: float, outcomes: Outcomes
    ) -> Decision:
        seen.append(Seen(candidates, needed, outcomes))
        return judge_rules(candidates, needed, owner, until, outcomes)

    standing = situation.standing()
    decision = decide(standing, situation.question, situation.chain, noting)
    return Account(situation, standing, decision, seen[0] if seen else None)


def grant_text(grant: Grant) -> str:
    """Role, subject and scope of a grant."""
    if isinstance(grant.subject, ToUser):
        subject = grant.subject.user_id
    else:
        subject = f"holders of {grant.subject.organization_role}"
    return f"{grant.role} to {subject} {scope_text(grant)}"


def scope_text(grant: Grant) -> str:
    """Where a grant holds."""
    match grant.scope:
        case InOrganization(organization):
            return f"in {organization}"
        case OnResource(ref):
            return f"on {ref.type}:{ref.id}"
    return "everywhere"
