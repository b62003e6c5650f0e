"""What a user may do, in general and on the resources that are granted to them.

The other direction of `AccessQueries.actors`, by the same code: `access_paths` decides each row
from facts of one revision. A query is one record in the decision log, on disk before the answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

from pdp.access_queries import sessions_of, unknown_token
from pdp.audit import DecisionRecord, Recorder, new_decision_id
from pdp.clock import Clock
from pdp.concurrency.pacing import Pace
from pdp.decision import AccessPaths, access_paths, resolve_principal
from pdp.errors import LimitExceeded
from pdp.facts import Replica, Survey, View
from pdp.model import Effect, OnResource, Reason, Resource, ResourceRef, UserFacts

LOOKED_AT_MAX: Final = 1_000
"""Permissions, each in an organization and on a resource, that one page looks at."""
RESOURCES_MAX: Final = 10_000
"""Resources with a grant to one organization role."""


class Row(NamedTuple):
    """The key of an answer. Without an organization or a resource, these are empty."""

    organization_id: str
    resource_type: str
    resource_id: str
    permission: str


@dataclass(frozen=True, slots=True)
class UserAccess:
    """A permission that a user may have, and through what."""

    row: Row
    paths: AccessPaths


@dataclass(frozen=True, slots=True)
class UserAccessPage:
    """Answers in the order of their keys, all at one revision."""

    access: Sequence[UserAccess]
    after: Row | None
    """The key that was looked at last; None: the list is complete."""
    refusal: Reason | None
    """Why everything is denied to the user; None: it is not."""
    query_id: str
    revision: int
    epoch: str


class UserAccessQueries:
    """Answers what users may do. Keeps no state of its own."""

    def __init__(self, replica: Replica, recorder: Recorder, *, clock: Clock) -> None:
        self._replica = replica
        self._recorder = recorder
        self._clock = clock

    async def of_user(
        self, user_id: str, caller: str, *, size: int, after: Row | None
    ) -> UserAccessPage:
        """Returns one page of a user's access. It lists each declared permission in general, for
        each organization that the user may act in and for no organization. It also lists the
        permissions on each resource with a grant to the user or to their organization role.

        Raises:
            errors.LimitExceeded: Grants to an organization role name over RESOURCES_MAX resources.
            errors.Unavailable, errors.ShareExceeded: As `Authorizer.rule`.
        """
        record = DecisionRecord(
            decision_id=new_decision_id(),
            decided_at=self._clock(),
            effect=Effect.ALLOW,
            reason=Reason.QUERY_ANSWERED,
            permission="*",
            caller=caller,
            revision=self._replica.revision,
            token_fingerprint="",
            resource=ResourceRef("user", user_id),
            query="ListUserAccess",
        )

        def read(survey: Survey) -> tuple[list[Row], list[View]]:
            (facts,) = survey.users([user_id])
            rows = _rows_after(survey, user_id, facts, after)
            return rows, [survey.view(user_id, None, ()), *_views(survey, user_id, rows)]

        rows, (general, *views) = await self._replica.survey(read)
        now = record.decided_at
        found: list[UserAccess] = []
        complete, pace = len(rows) <= LOOKED_AT_MAX, Pace()
        last = after
        for row, view in zip(rows[:LOOKED_AT_MAX], views, strict=False):
            if len(found) == size:
                complete = False
                break
            token = unknown_token(user_id, row.organization_id or None)
            principal = resolve_principal(view.policy, token, view.user, view.organization, now)
            paths = access_paths(principal, row.permission, view.chains[0])
            if paths is not None:
                found.append(UserAccess(row, paths))
            last = row
            if pace.is_over():
                await pace.give_way()
        (query_id,) = await self._recorder.record([record])
        # Last, so that no pause between reading the facts and answering goes unnoticed.
        self._replica.confirm(general)
        principal = resolve_principal(
            general.policy, unknown_token(user_id, None), general.user, None, now
        )
        return UserAccessPage(
            found,
            None if complete else last,
            principal.refusal,
            query_id,
            general.revision,
            general.snapshot.epoch,
        )


def _rows_after(
    survey: Survey, user_id: str, facts: UserFacts | None, after: Row | None
) -> list[Row]:
    """Returns the next LOOKED_AT_MAX + 1 rows after `after`, in order."""
    found: list[Row] = []
    for _, active in sessions_of(user_id, facts):
        if after is not None and active < after.organization_id:
            continue
        for row in _rows_in(survey, facts, active):
            if after is None or row > after:
                found.append(row)
                if len(found) > LOOKED_AT_MAX:
                    return found
    return found


def _rows_in(survey: Survey, facts: UserFacts | None, active: str) -> Iterator[Row]:
    granted: set[tuple[str, str]] = set()
    if facts is not None:
        grants = list(facts.grants)
        role = facts.memberships.get(active, "")
        if role:
            to_role = survey.grants_on_resources(role, RESOURCES_MAX + 1)
            if len(to_role) > RESOURCES_MAX:
                raise LimitExceeded("review_resources_max", RESOURCES_MAX, len(to_role))
            grants += to_role
        granted = {
            (grant.scope.resource.type, grant.scope.resource.id)
            for grant in grants
            if isinstance(grant.scope, OnResource)
        }
    policy = survey.policy
    for permission in sorted(policy.permissions):
        yield Row(active, "", "", permission)
    names = {type_: policy.permissions_on(type_) for type_, _ in granted}
    for type_, id_ in sorted(granted):
        for permission in names[type_]:
            yield Row(active, type_, id_, permission)


def _views(survey: Survey, user_id: str, rows: Sequence[Row]) -> list[View]:
    """Returns the facts for each row. Reads those of an organization together."""
    views: list[View] = []
    for active, group in groupby(rows, lambda row: row.organization_id):
        places = [(row.resource_type, row.resource_id) for row in group]
        distinct = list(dict.fromkeys(places))
        resources = [Resource(*place) if place[0] else None for place in distinct]
        view = survey.view(user_id, active or None, resources)
        chains = dict(zip(distinct, view.chains, strict=True))
        views += (view._replace(chains=[chains[place]]) for place in places)
    return views
