"""Lists of grants that a review looks at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pdp.audit import Coverage, Findings
from pdp.clock import Clock
from pdp.decision import holds
from pdp.facts import Store
from pdp.facts.store.grant_lists import (
    GrantPage,
    cross_tenant_grants,
    ending_grants,
    ending_key,
    grants_of_disabled_users,
)
from pdp.model import Grant

DAY_SECONDS: Final = 86_400.0
USES_MAX: Final = 500
"""Grants whose last use one page looks up."""


@dataclass(frozen=True, slots=True)
class GrantFinding:
    """A grant that a review should look at."""

    grant: Grant
    after: Sequence[str]
    """Where the list continues after it."""
    last_used_at: float | None = None
    """When a logged decision last used it, before the window; None: none, or not looked up."""


@dataclass(frozen=True, slots=True)
class GrantFindingPage:
    """Some findings. It may be short or empty although there are more."""

    findings: Sequence[GrantFinding]
    after: Sequence[str]
    """Where the next page begins; empty: the list is complete."""
    coverage: Coverage | None = None
    """What is known about the uses of the grants; None: the list does not read the log."""


class GrantReviews:
    """Lists grants. Every method raises DatabaseUnavailable."""

    def __init__(self, store: Store, findings: Findings, *, clock: Clock) -> None:
        self._store = store
        self._findings = findings
        self._clock = clock

    def ending(self, days: int, after: Sequence[str], limit: int) -> GrantFindingPage:
        """Lists the grants that end within so many days, by their end.

        Args:
            days: The length of the window, from the time of the first page on.
            after: `GrantFindingPage.after` of the page before; empty: the first page.
            limit: The largest number of findings.
        """
        now, *rest = after or (repr(self._clock()),)
        since = float(now)
        with self._store.read() as reader:
            page = ending_grants(reader, since, since + days * DAY_SECONDS, rest, limit)
        found = [GrantFinding(grant, (now, *ending_key(grant))) for grant in page.grants]
        return GrantFindingPage(found, () if page.after is None else (now, *page.after))

    def cross_tenant(self, after: Sequence[str], limit: int) -> GrantFindingPage:
        """Lists the grants to users that reach beyond their memberships. Args: As `ending`."""
        with self._store.read() as reader:
            return _found(cross_tenant_grants(reader, after, limit))

    def of_disabled_users(self, after: Sequence[str], limit: int) -> GrantFindingPage:
        """Lists the grants of disabled users. Args: As `ending`."""
        with self._store.read() as reader:
            return _found(grants_of_disabled_users(reader, after, limit))

    def unused(self, days: int, after: Sequence[str], limit: int) -> GrantFindingPage:
        """Lists the grants that hold now and that no logged decision has used for so many days.

        The days end when the log is complete, and `coverage` states for which of them it is. If it
        is for none of them, no grant is listed.

        Args: As `ending`.
        """
        now, *rest = after or (repr(self._clock()),)
        coverage = self._findings.coverage(days * DAY_SECONDS, float(now))
        if not coverage.covered_seconds:
            return GrantFindingPage((), (), coverage)
        with self._store.read() as reader:
            looked_at = reader.list(Grant, tuple(rest) or None, USES_MAX)
        grants = [grant for grant in looked_at if holds(grant, float(now))]
        uses = self._findings.last_uses([grant.id for grant in grants])
        unused = [
            GrantFinding(grant, (now, grant.id), uses.get(grant.id))
            for grant in grants
            if uses.get(grant.id, float("-inf")) < coverage.since
        ]
        if len(unused) > limit:
            return GrantFindingPage(unused[:limit], unused[limit - 1].after, coverage)
        more = len(looked_at) == USES_MAX
        return GrantFindingPage(unused, (now, looked_at[-1].id) if more else (), coverage)


def _found(page: GrantPage) -> GrantFindingPage:
    """Returns a page of a list by id."""
    found = [GrantFinding(grant, (grant.id,)) for grant in page.grants]
    return GrantFindingPage(found, page.after or ())
