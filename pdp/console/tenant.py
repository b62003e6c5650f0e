"""Reduces records to what the view of one organization shows: nothing of others.

A record is shown only if it is of that organization, and then without the fields that may name what
belongs to others. In doubt it is not shown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from pdp.administration_records import AdministrationRecord, Values
from pdp.model import DecisionRecord, InOrganization, ResourceRef, UserFacts
from pdp.reviews import CONSOLE_REVIEWER

_KINDS: Final = {
    "organization": "id",
    "membership": "organization_id",
    "grant": "organization_id",
    "resource": "organization_id",
}
"""By kind: the field with the organization that an entity belongs to."""


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
