"""Loads facts and policy in one transaction, without caches."""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from sqlalchemy import Column, RowMapping, Select, Table, bindparam, select

from pdp.database.bulk import batches
from pdp.decision import Policy, PolicyEntity, build_policy
from pdp.facts.store import tables
from pdp.facts.store.changelog import Change, ChangeKind
from pdp.facts.store.clerk_objects import ClerkKind, ClerkStatus
from pdp.facts.store.keys import key_parameter, key_table
from pdp.facts.store.organization_roles import read_organization_permissions
from pdp.facts.store.reader import Reader
from pdp.facts.store.rows import check_text, grant_from_row, resource_from_row, user_from_row
from pdp.limits import RESOURCE_DEPTH_MAX
from pdp.model import (
    Entity,
    Grant,
    Key,
    OrganizationFacts,
    Permission,
    Resource,
    ResourceFacts,
    ResourceType,
    Role,
    Route,
    Rule,
    User,
    UserFacts,
    UserStatus,
)

log = structlog.get_logger(__name__)

KEYS_PER_QUERY = 500

FactKey = tuple[str, str | tuple[str, str]]
"""The kind of a fact, and its key."""

_POLICY_KINDS: dict[ChangeKind, type[PolicyEntity]] = {
    ChangeKind.PERMISSION: Permission,
    ChangeKind.RESOURCE_TYPE: ResourceType,
    ChangeKind.ROLE: Role,
    ChangeKind.RULE: Rule,
    ChangeKind.ROLE_GRANT: Grant,
    ChangeKind.ROUTE: Route,
}


@dataclass(slots=True)
class FactKeys:
    """Keys of facts: user ids, organization ids, (type, id) of resources."""

    users: set[str] = field(default_factory=set)
    organizations: set[str] = field(default_factory=set)
    resources: set[tuple[str, str]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.users or self.organizations or self.resources)

    def single_keys(self) -> list[FactKey]:
        """Returns the keys one by one, each with its kind."""
        return [
            *(("user", user_id) for user_id in self.users),
            *(("organization", id_) for id_ in self.organizations),
            *(("resource", key) for key in self.resources),
        ]

    @classmethod
    def of(cls, single_keys: Sequence[FactKey]) -> "FactKeys":
        """Collects single keys."""
        keys = cls()
        for kind, key in single_keys:
            if isinstance(key, tuple):
                keys.resources.add(key)
            elif kind == "user":
                keys.users.add(key)
            else:
                keys.organizations.add(key)
        return keys


@dataclass(frozen=True, slots=True)
class FactBatch:
    """Facts at one revision of one epoch.

    Holds a value for each requested key and for the ancestors of each resource. The value of an
    unknown user is None.
    """

    revision: int
    epoch: str
    users: dict[str, UserFacts | None]
    organizations: dict[str, OrganizationFacts]
    resources: dict[tuple[str, str], ResourceFacts]


def load_facts(reader: Reader, keys: FactKeys) -> FactBatch:
    """Loads the facts of some keys, and the ancestors of the resources.

    Raises:
        InvalidRequest: A key cannot be stored.
        DatabaseUnavailable: The database does not answer.
    """
    resources: dict[tuple[str, str], ResourceFacts] = {}
    level = keys.resources
    # Each resource and its ancestors. Deeper ones are not loaded: `Lookup` refuses them.
    for _ in range(RESOURCE_DEPTH_MAX + 1):
        if not level:
            break
        found = _resources(reader, level)
        resources.update(found)
        parents = (known.resource.parent for known in found.values())
        level = {(parent.type, parent.id) for parent in parents if parent} - resources.keys()
    return FactBatch(
        reader.revision,
        reader.epoch,
        _users(reader, keys.users),
        _organizations(reader, keys.organizations),
        resources,
    )


def read_policy(reader: Reader) -> Policy:
    """Loads the whole policy."""
    policy = build_policy(
        reader.revision,
        reader.list(Permission),
        reader.list(Role),
        reader.list(Rule),
        _policy_grants(reader),
        organization_permissions=read_organization_permissions(reader),
        routes=reader.list(Route),
        resource_types=reader.list(ResourceType),
    )
    _log_refused_routes(policy)
    return policy


def read_policy_changes(reader: Reader, policy: Policy, changes: Iterable[Change]) -> Policy:
    """Applies changes to an earlier policy; loads only the entities that they touched."""
    touched: dict[type[PolicyEntity], set[Key]] = {}
    organization_permissions = None
    for change in changes:
        if change.kind in _POLICY_KINDS:
            touched.setdefault(_POLICY_KINDS[change.kind], set()).add(change.key)
        elif change.kind is ChangeKind.ORGANIZATION_ROLE and organization_permissions is None:
            # There are few, and they depend on each other: load all of them.
            organization_permissions = read_organization_permissions(reader)
    changed: list[Any] = []
    removed: list[tuple[Any, Key]] = []
    for kind, keys in touched.items():
        found: dict[Key, Entity] = reader.get_many(kind, keys)
        changed += found.values()
        removed += ((kind, key) for key in keys - found.keys())
    after = policy.with_changes(
        reader.revision, changed, removed, organization_permissions=organization_permissions
    )
    if after.routes is not policy.routes:
        _log_refused_routes(after)
    return after


def _log_refused_routes(policy: Policy) -> None:
    if policy.routes_problem is not None:
        # No write of this version makes such a map; another version, or manual SQL, did.
        log.error("all_routes_refused", problem=policy.routes_problem, revision=policy.revision)


def _policy_grants(reader: Reader) -> list[Grant]:
    grants = tables.grants
    query = select(grants).where(
        grants.c.organization_role.is_not(None),
        grants.c.organization_id.is_(None),
        grants.c.resource_type.is_(None),
    )
    return [grant_from_row(row) for row in reader.connection.execute(query).mappings()]


def _users(reader: Reader, ids: Collection[str]) -> dict[str, UserFacts | None]:
    for user_id in ids:
        check_text(user_id, "user_id")
    found: dict[str, UserFacts | None] = dict.fromkeys(ids)
    users = {row["id"]: user_from_row(row) for row in _matching(reader, _USERS, ids)}
    # A user that Clerk bars or has deleted is disabled, even without a row in `users`.
    for row in _matching(reader, _BARRED_USERS, ids):
        user = users.get(row["id"]) or User(row["id"])
        users[user.id] = replace(user, status=UserStatus.DISABLED)
    known = users.keys()
    memberships: dict[str, dict[str, str]] = {}
    for row in _matching(reader, _MEMBERSHIPS, known):
        memberships.setdefault(row["user_id"], {})[row["organization_id"]] = row["role"]
    sessions: dict[str, set[str]] = {}
    for row in _matching(reader, _REVOKED_SESSIONS, known):
        sessions.setdefault(row["user_id"], set()).add(row["session_id"])
    grants: dict[str, list[Grant]] = {}
    for row in _matching(reader, _USER_GRANTS, known):
        grants.setdefault(row["user_id"], []).append(grant_from_row(row))
    for user in users.values():
        found[user.id] = UserFacts(
            user,
            memberships.get(user.id, {}),
            _by_id(grants.get(user.id, ())),
            frozenset(sessions.get(user.id, ())),
        )
    return found


def _organizations(reader: Reader, ids: Collection[str]) -> dict[str, OrganizationFacts]:
    for id_ in ids:
        check_text(id_, "organization_id")
    grants: dict[str, list[Grant]] = {id_: [] for id_ in ids}
    for row in _matching(reader, _ORGANIZATION_GRANTS, ids):
        grants[row["organization_id"]].append(grant_from_row(row))
    return {id_: OrganizationFacts(id_, _by_id(granted)) for id_, granted in grants.items()}


def _resources(
    reader: Reader, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], ResourceFacts]:
    for type_, resource_id in keys:
        check_text(type_, "resource.type")
        check_text(resource_id, "resource.id")
    grants: dict[tuple[str, str], list[Grant]] = {}
    for row in _with_keys(reader, _resource_grants, keys):
        key = (row["resource_type"], row["resource_id"])
        grants.setdefault(key, []).append(grant_from_row(row))
    stored: dict[tuple[str, str], Resource] = {}
    for row in _with_keys(reader, _stored_resources, keys):
        stored[row["type"], row["id"]] = resource_from_row(row)
    return {
        key: ResourceFacts(
            stored.get(key) or Resource(*key), _by_id(grants.get(key, ())), key in stored
        )
        for key in keys
    }


def _matching(reader: Reader, query: Select[Any], keys: Iterable[Any]) -> Iterator[RowMapping]:
    for batch in batches(keys, KEYS_PER_QUERY):
        yield from reader.connection.execute(query, {"keys": batch}).mappings()


def _with_keys(
    reader: Reader, query: Callable[[str], Select[Any]], keys: Iterable[tuple[str, str]]
) -> Iterator[RowMapping]:
    statement = query(reader.connection.dialect.name)
    for batch in batches(keys, KEYS_PER_QUERY):
        parameters = {"keys": key_parameter(batch)}
        yield from reader.connection.execute(statement, parameters).mappings()


def _by_id(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    return tuple(sorted(grants, key=lambda grant: grant.id))


def _where_in(table: Table, column: Column[Any]) -> Select[Any]:
    return select(table).where(column.in_(bindparam("keys", expanding=True)))


# Built once: to build a query costs more than to execute it.
_USERS = _where_in(tables.users, tables.users.c.id)
_BARRED_USERS = _where_in(tables.clerk_objects, tables.clerk_objects.c.id).where(
    tables.clerk_objects.c.kind == ClerkKind.USER.value,
    tables.clerk_objects.c.standing != ClerkStatus.ACTIVE.value,
)
_MEMBERSHIPS = _where_in(tables.memberships, tables.memberships.c.user_id)
_REVOKED_SESSIONS = _where_in(tables.revoked_sessions, tables.revoked_sessions.c.user_id)
_USER_GRANTS = _where_in(tables.grants, tables.grants.c.user_id)
# Only grants to organization roles. Grants to users may be very many; they belong to the user.
_TO_ROLES = tables.grants.c.organization_role.is_not(None)
_ORGANIZATION_GRANTS = _where_in(tables.grants, tables.grants.c.organization_id).where(_TO_ROLES)


@functools.cache
def _stored_resources(dialect: str) -> Select[Any]:
    resources, keys = tables.resources, key_table(dialect)
    same = (resources.c.type == keys.c.type) & (resources.c.id == keys.c.id)
    return select(resources).join(keys, same)


@functools.cache
def _resource_grants(dialect: str) -> Select[Any]:
    grants, keys = tables.grants, key_table(dialect)
    same = (grants.c.resource_type == keys.c.type) & (grants.c.resource_id == keys.c.id)
    return select(grants).join(keys, same).where(_TO_ROLES)
