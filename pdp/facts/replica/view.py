"""What decisions about one actor are made from."""

from collections.abc import Sequence
from typing import NamedTuple

from pdp.decision import Policy
from pdp.facts.replica.snapshot import Snapshot
from pdp.model import OrganizationFacts, ResourceFacts, UserFacts


class View(NamedTuple):
    """All of it at one revision."""

    policy: Policy
    user: UserFacts | None
    organization: OrganizationFacts | None
    """None where no organization is active."""
    chains: Sequence[tuple[ResourceFacts, ...]]
    """One per asked resource: itself, then its ancestors nearest first; empty for no resource."""
    revision: int
    snapshot: Snapshot
