"""The facts that decisions about one actor need."""

from collections.abc import Sequence
from typing import NamedTuple

from pdp.decision import Policy, Principal, resolve_principal
from pdp.facts.replica.snapshot import Snapshot
from pdp.model import OrganizationFacts, ResourceFacts, UserFacts, VerifiedToken


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
        """The actor of a token, with these facts."""
        return resolve_principal(self.policy, token, self.user, self.organization, now)
