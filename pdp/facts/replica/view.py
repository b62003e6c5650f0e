"""The facts that decisions about one actor need."""

from collections.abc import Sequence
from typing import NamedTuple

from pdp.decision import Policy, Principal, resolve_principal
from pdp.facts.replica.snapshot import PRINCIPALS_MAX, Snapshot
from pdp.model import (
    Actor,
    OrganizationFacts,
    ResourceFacts,
    UserFacts,
    UserStatus,
    VerifiedToken,
)


class View(NamedTuple):
    """Policy and facts, all at one revision."""

    policy: Policy
    user: UserFacts | None
    organization: OrganizationFacts | None
    """None: no organization is active."""
    chains: Sequence[tuple[ResourceFacts, ...]]
    """For each resource: itself, then its ancestors, nearest first; empty: no resource."""
    revision: int
    snapshot: Snapshot

    def principal(self, token: VerifiedToken, now: float) -> Principal:
        """The actor of a token, with these facts.

        Users ask several questions with one token, so the snapshot keeps principals. The key is the
        token itself: the entry keeps it alive, so no other object can have its identity. Policy and
        facts must be the same objects too. An entry serves from the time of its principal until the
        next edge of a grant or the end of the token.
        """
        known = self.snapshot.principals
        principal = known.get(id(token))
        if (
            principal is not None
            and principal.token is token
            and principal.policy is self.policy
            and principal.user is self.user
            and principal.organization is self.organization
            and principal.now <= now < principal.reusable_until
        ):
            principal = principal.at(now)
        else:
            principal = resolve_principal(self.policy, token, self.user, self.organization, now)
            if len(known) >= PRINCIPALS_MAX:
                known.clear()
        known[id(token)] = principal  # the newest: it may have the values of the actor
        return principal

    def lacks(self, actor: Actor) -> bool:
        """Whether to provision facts that a token of the actor proves and the database lacks. Never
        for a disabled user or a revoked session."""
        user = self.user
        if user is None:
            return True
        return (
            actor.organization_id is not None
            and actor.organization_id not in user.memberships
            and user.user.status is UserStatus.ACTIVE
            and actor.session_id not in user.revoked_sessions
        )
