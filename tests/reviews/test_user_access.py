"""What a user may do equals Check over random worlds, page by page."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest
from sqlalchemy import Engine

from pdp.access_queries import AllowedActor
from pdp.decision import paths
from pdp.model import (
    Effect,
    Grant,
    InOrganization,
    Membership,
    OnResource,
    Permission,
    Reason,
    Resource,
    ResourceRef,
    Role,
    Rule,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
)
from pdp.reviews import Row, UserAccess, UserAccessQueries
from tests.kit import soak
from tests.kit.access_queries.oracle import (
    Difference,
    compare_actor,
    search_worlds,
)
from tests.kit.access_queries.service import CALLER, QueryService, query_service
from tests.kit.access_queries.worlds import PERMISSIONS, USERS, World
from tests.kit.waiting import run

WORLDS = soak.count(2_000, sample=6)
PAGES_MAX = 500


@pytest.fixture
def service(engine: Engine, tmp_path: Path) -> Iterator[QueryService]:
    with query_service(engine, tmp_path / "audit") as running:
        yield running


def listed(service: QueryService, user: str, size: int) -> list[UserAccess]:
    queries = UserAccessQueries(service.replica, service.recorder, clock=time.time)
    found: list[UserAccess] = []
    after = None
    for _ in range(PAGES_MAX):
        page = run(queries.of_user(user, CALLER, size=size, after=after))
        assert len(page.access) <= size
        found += page.access
        after = page.after
        if after is None:
            return found
    raise Difference("the pages do not end")


def rows_of(world: World, user: str) -> list[Row]:
    """All keys that the list may hold: organizations, granted resources, permissions."""
    memberships = {
        one.organization_id: one.role
        for one in world.entities
        if isinstance(one, Membership) and one.user_id == user
    }
    rows = []
    for active in ("", *memberships):
        subjects = (ToUser(user), ToOrganizationRole(memberships.get(active, "")))
        refs = {
            (one.scope.resource.type, one.scope.resource.id)
            for one in world.entities
            if isinstance(one, Grant)
            and isinstance(one.scope, OnResource)
            and one.subject in subjects
        }
        rows += [Row(active, "", "", name) for name in PERMISSIONS]
        rows += [
            Row(active, *ref, name)
            for ref in refs
            for name in PERMISSIONS
            if name.startswith(f"{ref[0]}:")
        ]
    return sorted(rows)


def compare_access(service: QueryService, world: World, random: Random) -> Counter[str]:
    """Raises Difference."""
    met: Counter[str] = Counter()
    for user in USERS:
        with patch("pdp.reviews.user_access.LOOKED_AT_MAX", random.randint(1, 20)):
            found = listed(service, user, random.randint(1, 5))
        access = {one.row: one for one in found}
        if [one.row for one in found] != sorted(access):
            raise Difference("the rows are not in order, or come twice")
        rows = rows_of(world, user)
        if not set(access) <= set(rows):
            raise Difference(f"{set(access) - set(rows)} are listed for {user}")
        for row in rows:
            resource = Resource(*row[1:3]) if row.resource_type else None
            session = (user, row.organization_id)
            one = access.get(row)
            actors = {session: AllowedActor(*session, one.paths)} if one else {}
            met[compare_actor(service, row.permission, resource, session, actors)] += 1
    return met


@pytest.mark.soak
def test_what_a_user_may_do_equals_check_in_random_worlds(service: QueryService) -> None:
    met = search_worlds(service, range(WORLDS), compare_access)
    assert min(met["allowed"], met["depends"], met["not listed"]) > WORLDS / 5


def test_a_list_that_forgets_deny_rules_is_found_out(service: QueryService) -> None:
    """The control."""
    whole = paths.applicable

    def without_denials(*arguments):
        refusal, (allow, _), *rest = whole(*arguments)
        return refusal, (allow, []), *rest

    with patch.object(paths, "applicable", without_denials), pytest.raises(Difference):
        search_worlds(service, range(max(WORLDS, 100)), compare_access)


def test_a_user_who_is_unknown_or_disabled_may_nothing_and_the_page_says_why(
    service: QueryService,
) -> None:
    service.write(
        Permission("course:view"),
        Role("A"),
        Rule("r", "A", Effect.ALLOW, "*"),
        User("user_off", status=UserStatus.DISABLED),
        Grant("g", "A", ToUser("user_off")),
    )
    queries = UserAccessQueries(service.replica, service.recorder, clock=time.time)
    for user, reason in (
        ("user_off", Reason.ACTOR_DISABLED),
        ("user_nobody", Reason.ACTOR_UNKNOWN),
    ):
        page = run(queries.of_user(user, CALLER, size=10, after=None))
        assert (page.access, page.refusal) == ([], reason)


def test_pages_go_on_where_they_ended_after_grants_were_revoked(service: QueryService) -> None:
    names = [f"course:do-{number}" for number in range(6)]
    service.write(
        *map(Permission, names),
        Role("A"),
        Rule("r", "A", Effect.ALLOW, "*"),
        User("user_1"),
        Membership("org_1", "user_1", "org:member"),
        Grant("g-here", "A", ToUser("user_1"), InOrganization("org_1")),
        Resource("course", "1", "org_1"),
        Grant("g-one", "A", ToUser("user_1"), OnResource(ResourceRef("course", "1"))),
    )
    queries = UserAccessQueries(service.replica, service.recorder, clock=time.time)
    first = run(queries.of_user("user_1", CALLER, size=8, after=None))
    assert [one.row.permission for one in first.access[:6]] == names
    service.delete(Grant, "g-here")
    rest = run(queries.of_user("user_1", CALLER, size=8, after=first.after))
    assert {path.grant.id for one in rest.access for path in one.paths.allowed_by} == {"g-one"}
    assert min(one.row for one in rest.access) > first.access[-1].row
