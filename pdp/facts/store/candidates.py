"""Finds the stored resources or users that a search covers, a bounded number at a time.

Every query uses an index and reads a bounded number of rows. Resources of an organization are found
by key, resources below granted ones by their parents. If more than WALK_MAX resources lie below the
granted ones, all resources of the organizations concerned are candidates instead.

Every function raises `DatabaseUnavailable` if the database does not answer.
"""

import functools
from collections.abc import Collection
from typing import Final

from sqlalchemy import ColumnElement, Select, bindparam, or_, select

from pdp.decision import ActorSearch, Search
from pdp.facts.store import tables
from pdp.facts.store.keys import Key, key_parameter, key_table
from pdp.facts.store.reader import Reader
from pdp.facts.store.rows import check_text, grant_from_row
from pdp.model import Grant

WALK_MAX: Final = 10_000


def find_candidates(reader: Reader, search: Search, after: str, limit: int) -> list[str]:
    """Returns ids of resources in bytewise order after `after`.

    A resource on which a grant is stored is found even if the resource itself is not stored.

    Returns:
        At most `limit` ids; fewer: there are no more.

    Raises:
        InvalidRequest: The resource type cannot be stored.
    """
    check_text(search.resource_type, "resource_type")
    if search.everything:
        return _ids(reader, search.resource_type, after, limit)
    organizations = set(search.organizations)
    remaining = search.root_organizations - organizations
    found: set[str] = set()
    if remaining:
        below = _below_roots(reader, search, remaining)
        if below is None:
            organizations |= remaining
        else:
            found = {id_ for type_, id_ in below if type_ == search.resource_type and id_ > after}
    resources = tables.resources.c
    for organization in organizations:
        belongs = (
            resources.organization_id.is_(None)
            if organization is None
            else resources.organization_id == organization
        )
        found.update(_ids(reader, search.resource_type, after, limit, belongs))
    return sorted(found)[:limit]


def grants_on_resources(reader: Reader, organization_role: str, limit: int) -> list[Grant]:
    """Returns up to `limit` grants to an organization role on single resources."""
    grants = tables.grants
    query = (
        select(grants)
        .where(grants.c.organization_role == organization_role, grants.c.resource_type.is_not(None))
        .limit(limit)
    )
    return [grant_from_row(row) for row in reader.connection.execute(query).mappings()]


def find_actors(reader: Reader, search: ActorSearch, first: str, limit: int) -> list[str]:
    """Returns ids of users in bytewise order, from `first` on.

    A user with a grant is found even if the user is not stored.

    Returns:
        At most `limit` ids; fewer: there are no more.
    """
    if not search.roles:
        return []
    grants, memberships = tables.grants.c, tables.memberships.c
    within = search.organizations
    somewhere = grants.organization_id.is_not(None)
    scopes: list[ColumnElement[bool]] = [
        grants.organization_id.is_(None) & grants.resource_type.is_(None),
        somewhere if within is None else grants.organization_id.in_(within),
        *(
            (grants.resource_type == ref.type) & (grants.resource_id == ref.id)
            for ref in search.resources
        ),
    ]
    inside = [] if within is None else [memberships.organization_id.in_(within)]
    granted_there = (
        select(grants.id)
        .where(
            grants.organization_id == memberships.organization_id,
            grants.organization_role == memberships.role,
            grants.role.in_(search.roles),
        )
        .exists()
    )
    queries = (
        select(grants.user_id).where(grants.role.in_(search.roles), or_(*scopes)),
        select(memberships.user_id).where(
            *inside, or_(memberships.role.in_(search.organization_roles), granted_there)
        ),
    )
    found: set[str] = set()
    for query in queries:
        (user_id,) = query.selected_columns
        page = query.where(user_id >= first).distinct().order_by(user_id).limit(limit)
        found.update(reader.connection.execute(page).scalars())
    return sorted(found)[:limit]


def _ids(
    reader: Reader, type_: str, after: str, limit: int, *conditions: ColumnElement[bool]
) -> list[str]:
    resources = tables.resources.c
    query = (
        select(resources.id)
        .where(resources.type == type_, resources.id > after, *conditions)
        .order_by(resources.id)
        .limit(limit)
    )
    return list(reader.connection.execute(query).scalars())


def _below_roots(
    reader: Reader, search: Search, organizations: Collection[str | None]
) -> set[Key] | None:
    """Returns the roots in these organizations and all resources below; None: over WALK_MAX."""
    roots = {(root.type, root.id) for root in search.roots}
    most = WALK_MAX + 1
    if search.roles:
        granted = {
            "organization_role": search.organization_role,
            "roles": list(search.roles),
            "most": most,
        }
        roots.update((type_, id_) for type_, id_ in reader.connection.execute(_GRANTED, granted))
    if not roots:
        return set()
    if len(roots) > WALK_MAX:
        return None
    walk = _walk(reader.connection.dialect.name, in_none=None in organizations)
    parameters = {
        "keys": key_parameter(roots),
        "organizations": [id_ for id_ in organizations if id_ is not None],
        "most": most,
    }
    found = {(type_, id_) for type_, id_ in reader.connection.execute(walk, parameters)}
    return None if len(found) > WALK_MAX else found


_grants = tables.grants.c
# Built once: to build a query costs more than to execute it.
_GRANTED = (
    select(_grants.resource_type, _grants.resource_id)
    .where(
        _grants.organization_role == bindparam("organization_role"),
        _grants.resource_type.is_not(None),
        _grants.role.in_(bindparam("roles", expanding=True)),
    )
    .limit(bindparam("most"))
)


@functools.cache
def _walk(dialect: str, *, in_none: bool) -> Select[str, str]:
    """Selects at most `most` resources at or below those `keys` that belong to one of
    `organizations` or, if `in_none`, to no organization."""
    keys, resources = key_table(dialect), tables.resources
    belongs = or_(
        # A root that is not stored may have stored resources below it.
        resources.c.id.is_(None),
        resources.c.organization_id.in_(bindparam("organizations", expanding=True)),
        *([resources.c.organization_id.is_(None)] if in_none else []),
    )
    stored = (resources.c.type == keys.c.type) & (resources.c.id == keys.c.id)
    first = (
        select(keys.c.type, keys.c.id)
        .select_from(keys.outerjoin(resources, stored))
        .where(belongs)
        .cte("below", recursive=True)
    )
    children = select(resources.c.type, resources.c.id).join(
        first,
        (resources.c.parent_type == first.c.type) & (resources.c.parent_id == first.c.id),
    )
    below = first.union(children)
    return select(below.c.type, below.c.id).limit(bindparam("most"))
