"""A policy document with its facts as a world that answers questions offline."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pdp.decision import NamedActor, Policy, Principal, Situation, build_policy
from pdp.document.policy_document import PolicyDocument
from pdp.model import (
    Grant,
    InOrganization,
    OnResource,
    OrganizationFacts,
    Question,
    Resource,
    ResourceFacts,
    ResourceRef,
    RevokedSession,
    ToUser,
    UserFacts,
)


@dataclass(frozen=True, slots=True)
class Asked(NamedActor):
    """An actor, and their question."""

    question: Question


class World:
    """The entities of a document, by key. Immutable once made."""

    def __init__(
        self, document: PolicyDocument, revoked_sessions: Sequence[RevokedSession] = ()
    ) -> None:
        grants = document.grants or ()
        self.policy: Policy = build_policy(
            1,
            document.permissions or (),
            document.roles or (),
            document.rules or (),
            grants,
            routes=document.routes or (),
            resource_types=document.resource_types or (),
        )
        self._resources = {
            (resource.type, resource.id): resource for resource in document.resources or ()
        }
        self._on_resource: defaultdict[ResourceRef, list[Grant]] = defaultdict(list)
        in_organization: defaultdict[str, list[Grant]] = defaultdict(list)
        to_user: defaultdict[str, list[Grant]] = defaultdict(list)
        for grant in sorted(grants, key=lambda grant: grant.id):
            if isinstance(grant.subject, ToUser):
                to_user[grant.subject.user_id].append(grant)
            elif isinstance(grant.scope, OnResource):
                self._on_resource[grant.scope.resource].append(grant)
            elif isinstance(grant.scope, InOrganization):
                in_organization[grant.scope.organization_id].append(grant)
        memberships: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for membership in document.memberships or ():
            memberships[membership.user_id][membership.organization_id] = membership.role
        self._users = {
            user.id: UserFacts(
                user,
                memberships[user.id],
                tuple(to_user[user.id]),
                frozenset(
                    revoked.session_id for revoked in revoked_sessions if revoked.user_id == user.id
                ),
            )
            for user in document.users or ()
        }
        known = {organization.id for organization in document.organizations or ()}
        for facts in self._users.values():
            known.update(facts.memberships)
        self._organizations: Mapping[str, OrganizationFacts] = {
            name: OrganizationFacts(name, tuple(in_organization[name]))
            for name in sorted(known | in_organization.keys())
        }

    @property
    def users(self) -> Mapping[str, UserFacts]:
        """By id."""
        return self._users

    @property
    def organizations(self) -> Mapping[str, OrganizationFacts]:
        """By id: those that are stored, have members, or are the scope of a grant."""
        return self._organizations

    @property
    def resources(self) -> Iterable[ResourceRef]:
        """The stored resources."""
        return (ResourceRef(*key) for key in self._resources)

    def situation(self, asked: Asked, now: float) -> Situation:
        """Everything that the decision of a question depends on, at `now` (seconds since 1970)."""
        return Situation(
            self.policy,
            asked.token(now),
            self._users.get(asked.actor.user_id),
            self._organizations,
            asked.question,
            self.chain(asked.question.resource),
            now,
        )

    def principal(self, asked: Asked, now: float) -> Principal:
        """The principal, for any number of questions."""
        return self.situation(asked, now).principal()

    def chain(self, asked: Resource | None) -> tuple[ResourceFacts, ...]:
        """A resource and its ancestors, nearest first. Stored values take precedence over those of
        the question: organization and parent as a whole, attributes by key."""
        chain: list[ResourceFacts] = []
        resource = asked
        while resource is not None:
            known = self._resources.get((resource.type, resource.id))
            if known is not None:
                resource = known._replace(attributes={**resource.attributes, **known.attributes})
            ref = ResourceRef(resource.type, resource.id)
            grants = tuple(self._on_resource.get(ref, ()))
            chain.append(ResourceFacts(resource, grants, stored=known is not None))
            above = resource.parent
            resource = None if above is None else Resource(above.type, above.id)
        return tuple(chain)
