"""The facts that decisions about one actor need."""

from collections.abc import Sequence
from typing import NamedTuple

from pdp.decision import Policy
from pdp.facts.replica.snapshot import Snapshot
from pdp.model import OrganizationFacts, ResourceFacts, UserFacts


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
