"""Finds the stored resources or users that a search covers, a bounded number at a time.

Resources are found by an index, and a bounded number of rows is read: those of a type in an
organization by key, those below granted resources by their parents. What is below more than
WALK_MAX resources is not walked; all resources of the organizations concerned are candidates
instead.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ARRAY, ColumnElement, FromClause, Text, bindparam, func, or_, select

from pdp.decision import ActorSearch, Search
from pdp.facts import tables
from pdp.facts.rows import check_text, grant_from_row
from pdp.facts.store import Reader
from pdp.model import Grant

WALK_MAX: Final = 10_000

_Key = tuple[str, str]


def find_candidates(reader: Reader, search: Search, after: str, limit: int) -> list[str]:
    """The first ids, in bytewise order, behind `after`. Fewer than `limit`: there are no more.
    One that is granted by name is among them also if nothing is stored of it.

    Raises:
        InvalidRequest: the resource type cannot be stored.
        DatabaseUnavailable: the database does not answer.
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
    """Grants to an organization role on single resources, up to a number of them.

    Raises DatabaseUnavailable.
    """
    grants = tables.grants
    query = (
        select(grants)
        .where(grants.c.organization_role == organization_role, grants.c.resource_type.is_not(None))
        .limit(limit)
    )
    return [grant_from_row(row) for row in reader.connection.execute(query).mappings()]


def find_actors(reader: Reader, search: ActorSearch, first: str, limit: int) -> list[str]:
    """The first ids of users, in bytewise order, from `first` on. Fewer than `limit`: there are no
    more. One to whom something is granted is among them also if nothing is stored of them.

    Raises DatabaseUnavailable.
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
    reader: Reader, search: Search, organizations: Iterable[str | None]
) -> set[_Key] | None:
    """The roots in these organizations and all below them; None: more than WALK_MAX."""
    roots = {(root.type, root.id) for root in search.roots}
    if search.roles:
        grants = tables.grants.c
        granted = (
            select(grants.resource_type, grants.resource_id)
            .where(
                grants.organization_role == search.organization_role,
                grants.resource_type.is_not(None),
                grants.role.in_(search.roles),
            )
            .limit(WALK_MAX + 1)
        )
        roots.update((type_, id_) for type_, id_ in reader.connection.execute(granted))
    if not roots:
        return set()
    if len(roots) > WALK_MAX:
        return None
    keys, parameters = _keys(reader.connection.dialect.name, roots)
    resources = tables.resources
    named = [one for one in organizations if one is not None]
    belongs = or_(
        # A root that is not stored may have stored resources below it.
        resources.c.id.is_(None),
        resources.c.organization_id.in_(named),
        *([resources.c.organization_id.is_(None)] if None in set(organizations) else []),
    )
    first = (
        select(keys.c.type, keys.c.id)
        .select_from(
            keys.outerjoin(
                resources, (resources.c.type == keys.c.type) & (resources.c.id == keys.c.id)
            )
        )
        .where(belongs)
        .cte("below", recursive=True)
    )
    children = select(resources.c.type, resources.c.id).join(
        first,
        (resources.c.parent_type == first.c.type) & (resources.c.parent_id == first.c.id),
    )
    below = first.union(children)
    query = select(below.c.type, below.c.id).limit(WALK_MAX + 1)
    found = {(type_, id_) for type_, id_ in reader.connection.execute(query, parameters)}
    return None if len(found) > WALK_MAX else found


def _keys(dialect: str, keys: Iterable[_Key]) -> tuple[FromClause, dict[str, Any]]:
    """A table of keys, and its parameters: two for any number of keys."""
    types, ids = zip(*sorted(keys), strict=True)
    if dialect == "postgresql":
        arrays = (bindparam(name, type_=ARRAY(Text)) for name in ("types", "ids"))
        each = func.unnest(*arrays).table_valued("type", "id", name="each").render_derived()
        # Else the recursive query would mix this collation with that of the tables.
        columns = [each.c[name].collate("C").label(name) for name in ("type", "id")]
        return select(*columns).subquery("keys"), {"types": list(types), "ids": list(ids)}
    each = func.json_each(bindparam("keys")).table_valued("value", name="each")
    columns = [
        func.json_extract(each.c.value, place).label(name)
        for place, name in (("$[0]", "type"), ("$[1]", "id"))
    ]
    pairs = json.dumps(list(zip(types, ids, strict=True)), ensure_ascii=False)
    return select(*columns).subquery("keys"), {"keys": pairs}
