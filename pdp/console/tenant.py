"""Reduces records to what the view of one organization shows: nothing of others.

A record is shown only if it is of that organization, and then without the fields that may name what
belongs to others. In doubt it is not shown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from pdp.administration_records import AdministrationRecord, Values
from pdp.audit import DecisionFilter, DecisionLog, DecisionRecord, Listed
from pdp.model import InOrganization, ResourceRef, UserFacts
from pdp.reviews import CONSOLE_REVIEWER

_KINDS: Final = {
    "organization": "id",
    "membership": "organization_id",
    "grant": "organization_id",
    "resource": "organization_id",
}
"""By kind: the field with the organization that an entity belongs to."""
_LOOKS_MAX: Final = 4
_LOOK_ROWS: Final = 500
_UNIT_CHARACTERS: Final = 8
"""Of an id: its time, in units of 65.536 s."""
_BEHIND: Final = "~"
"""Sorts behind the rest of an id."""


def search_decisions(
    log: DecisionLog, where: DecisionFilter, organization: str, after: str | None, limit: int
) -> Listed:
    """Lists the decisions of an organization that `decisions_of` shows.

    The next page begins after a decision that is shown. If the search ends before it has found
    enough, the next page begins where a unit of 65.536 s begins to be older: the id at which the
    search ended may be that of a decision that is not shown.

    Args:
        log: The log.
        where: The filter, of any organization.
        organization: The organization.
        after: As for `DecisionLog.list`.
        limit: The largest number of decisions.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    where, place = replace(where, organization_id=organization), after
    found: list[DecisionRecord] = []
    for _ in range(_LOOKS_MAX):
        listed = log.list(where, place, _LOOK_ROWS, within="organization_id")
        found += (
            record
            for record in decisions_of(listed.decisions, organization)
            # A member may have asked about a resource of others with this id.
            if where.resource_id is None or (record.resource and record.resource.id)
        )
        place = listed.after
        if place is None or len(found) > limit:
            break
    if len(found) > limit:
        return Listed(found[:limit], log.key(found[limit - 1]))
    if place is None:
        return Listed(found, None)
    # More characters only if the search does not get out of the unit: it must go on.
    lengths = range(_UNIT_CHARACTERS, max(_UNIT_CHARACTERS, len(place)) + 1)
    ends = (place[:length] + _BEHIND for length in lengths)
    end = next((end for end in ends if after is None or end < after), place)
    return Listed(found, min([end, *map(log.key, found[-1:])]))


def decisions_of(records: Iterable[DecisionRecord], organization: str) -> Sequence[DecisionRecord]:
    """The decisions about actors who acted in an organization, without queries, which analysts
    make too.

    A resource is named only if it is known to belong to the organization. No grant is named: it
    may hold in another organization. Nor is who impersonates a member: a user of the operator.
    """
    found = []
    for record in records:
        if record.actor is None or record.actor.organization_id != organization or record.query:
            continue
        actor = record.actor
        if actor.impersonator_id is not None:
            actor = replace(actor, impersonator_id="")
        shown = replace(record, actor=actor, grant_id=None, inputs=None, revision=0)
        if record.resource_organization_id != organization:
            resource = record.resource and ResourceRef(record.resource.type, "")
            shown = replace(shown, resource=resource, resource_organization_id=None, request=None)
        found.append(shown)
    return found


def changes_of(
    records: Iterable[AdministrationRecord], organization: str
) -> Sequence[AdministrationRecord]:
    """The changes of an organization, and of memberships, grants and resources within it.

    An entity may have moved: a state in which it belonged to another organization is left out.
    Reasons and messages may be about several organizations, and reviewers are users of another.
    """
    found = []
    for record in records:
        before, after = (
            _own(record.kind, state, organization) for state in (record.before, record.after)
        )
        if before is not None or after is not None:
            name = "" if record.name.startswith(CONSOLE_REVIEWER) else record.name
            shown = replace(record, before=before, after=after, name=name)
            found.append(replace(shown, reason="", messages=(), sync_run=0))
    return found


def facts_of(facts: UserFacts | None, organization: str) -> UserFacts | None:
    """The facts about a member, as far as they are about their organization; None: the user is no
    member."""
    if facts is None or organization not in facts.memberships:
        return None
    return replace(
        facts,
        user=replace(facts.user, attributes={}),
        memberships={organization: facts.memberships[organization]},
        grants=tuple(
            grant for grant in facts.grants if grant.scope == InOrganization(organization)
        ),
        revoked_sessions=frozenset(),
    )


def _own(kind: str, state: Values | None, organization: str) -> Values | None:
    """A state in which an entity belongs to an organization, without its parent, which may belong
    to another one."""
    if state is None or kind not in _KINDS or state.get(_KINDS[kind]) != organization:
        return None
    return {name: value for name, value in state.items() if not name.startswith("parent_")}
