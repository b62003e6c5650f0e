"""Random small worlds for reviews of grants, and what each list has to hold, by brute force.

The oracles look at every grant in memory; they share nothing with the lists but the words of the
contract.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from sqlalchemy import delete

from pdp.facts import Store
from pdp.facts.store import tables
from pdp.facts.store.clerk_objects import ClerkKind, ClerkObject, ClerkStatus, write_objects
from pdp.model import (
    EVERYWHERE,
    Everywhere,
    Grant,
    InOrganization,
    Membership,
    OnResource,
    Resource,
    ResourceRef,
    Role,
    Scope,
    Subject,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
)

USERS = ["user_1", "user_2", "user_3", "Ünä '%_\"", "=cmd()"]
ORGANIZATIONS = ["org_1", "org_2", "org_'\U0001f600"]
ROLES = ["A", "B"]
NOW = 1_790_000_000.0
DAY = 86_400.0


@dataclass(frozen=True)
class GrantWorld:
    """What is stored."""

    grants: Sequence[Grant]
    users: Sequence[User]
    barred: Sequence[str]
    """Users that Clerk bars or has deleted."""
    memberships: Sequence[Membership]
    resources: Sequence[Resource]

    def store(self, store: Store) -> None:
        """Stores this and nothing else."""
        with store.write() as transaction:
            for table in (
                *(tables.grants, tables.memberships, tables.resources, tables.users),
                tables.clerk_objects,
            ):
                transaction.connection.execute(delete(table))
            transaction.apply_many(map(Role, ROLES))
            transaction.apply_many(self.grants)
            transaction.apply_many(self.users)
            transaction.apply_many(self.memberships)
            transaction.apply_many(self.resources)
            states = [ClerkStatus.BARRED, ClerkStatus.DELETED]
            objects = [
                ClerkObject(ClerkKind.USER, user_id, "1", states[index % 2])
                for index, user_id in enumerate(self.barred)
            ]
            write_objects(transaction, objects, {})

    # --- the oracles ------------------------------------------------------------------------------

    def ending(self, days: int) -> list[Grant]:
        found = [
            grant
            for grant in self.grants
            if grant.expires_at is not None and NOW <= grant.expires_at < NOW + days * DAY
        ]
        return sorted(found, key=lambda grant: (grant.expires_at or 0.0, grant.id))

    def cross_tenant(self) -> list[Grant]:
        return _by_id(grant for grant in self.grants if self._reaches_beyond(grant))

    def of_disabled_users(self) -> list[Grant]:
        off = {user.id for user in self.users if user.status is UserStatus.DISABLED}
        off |= set(self.barred)
        return _by_id(
            grant
            for grant in self.grants
            if isinstance(grant.subject, ToUser) and grant.subject.user_id in off
        )

    def _reaches_beyond(self, grant: Grant) -> bool:
        if not isinstance(grant.subject, ToUser):
            return False
        member_of = {
            one.organization_id for one in self.memberships if one.user_id == grant.subject.user_id
        }
        match grant.scope:
            case Everywhere():
                return True
            case InOrganization(organization_id):
                return organization_id not in member_of
            case OnResource(ref):
                owners = {
                    one.organization_id
                    for one in self.resources
                    if (one.type, one.id) == (ref.type, ref.id)
                }
                return bool(owners - {None} - member_of)


def random_grant_world(random: Random) -> GrantWorld:
    """Few users, organizations and resources, so that they meet often."""
    resources = [
        Resource(type_, id_, random.choice([None, *ORGANIZATIONS]))
        for type_ in ("course", "lesson")
        for id_ in ("1", "2", "é")
        if random.random() < 0.8
    ]
    refs = [ResourceRef(one.type, one.id) for one in resources] + [ResourceRef("course", "none")]
    return GrantWorld(
        grants=[random_grant(random, f"g{n}", refs) for n in range(random.randint(0, 12))],
        users=[
            User(one, status=random.choice([UserStatus.ACTIVE, UserStatus.DISABLED]))
            for one in USERS
            if random.random() < 0.8
        ],
        barred=[one for one in USERS if random.random() < 0.2],
        memberships=[
            Membership(organization, user, "org:member")
            for organization in ORGANIZATIONS
            for user in USERS
            if random.random() < 0.5
        ],
        resources=resources,
    )


def random_grant(random: Random, grant_id: str, refs: Sequence[ResourceRef]) -> Grant:
    subject: Subject = random.choice(
        [*map(ToUser, USERS), ToUser("user_unknown"), ToOrganizationRole("org:member")]
    )
    scope: Scope = random.choice(
        [
            EVERYWHERE,
            *map(InOrganization, ORGANIZATIONS),
            *(OnResource(random.choice(refs)) for _ in range(3)),
        ]
    )
    ends = [None, NOW - DAY, NOW, NOW + DAY, NOW + DAY, NOW + 2 * DAY, NOW + 9.5 * DAY]
    begins = random.choice([*[None] * 5, NOW - 50 * DAY, NOW + 0.5 * DAY])
    ids = random.choice(["", "é", "'\"", "\U0001f600"])
    return Grant(grant_id + ids, random.choice(ROLES), subject, scope, begins, random.choice(ends))


def _by_id(grants) -> list[Grant]:
    return sorted(grants, key=lambda grant: grant.id.encode())
