"""ListAllowedActors: who may, through which role, grant and rule, under which condition."""

import time

import pytest

from pdp.access_queries import AllowedActor
from pdp.decision import AccessPath
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
from tests.kit.access_queries.service import CALLER, QueryService
from tests.kit.waiting import run

ALGEBRA = Resource("course", "algebra", "org_1")
OWNED = "resource.attributes.owner == actor.id"


@pytest.fixture(autouse=True)
def policy(service: QueryService) -> None:
    service.write(
        Permission("course:view"),
        Permission("course:edit"),
        Role("VIEWER"),
        Role("TEACHER", inherits=("VIEWER",)),
        Rule("view", "VIEWER", Effect.ALLOW, "course:view"),
        Rule("edit", "TEACHER", Effect.ALLOW, "course:edit", OWNED),
        *(User(f"user_{name}") for name in ("ada", "bob", "eve")),
        User("user_gone", status=UserStatus.DISABLED),
        Membership("org_1", "user_bob", "org:member"),
        Membership("org_1", "user_eve", "org:guest"),
        Membership("org_2", "user_eve", "org:member"),
        ALGEBRA,
    )


def ask(
    service: QueryService,
    permission: str = "course:view",
    resource: Resource | None = ALGEBRA,
    size: int = 100,
) -> list[AllowedActor]:
    """All pages."""
    found: list[AllowedActor] = []
    after: tuple[str, str] | None = ("", "")
    while after is not None:
        _, page = run(service.queries.actors(permission, resource, CALLER, size=size, after=after))
        assert len(page.actors) <= size
        found += page.actors
        after = page.after
    return found


def who(actors: list[AllowedActor]) -> list[tuple[str, str]]:
    return [(one.user_id, one.organization_id) for one in actors]


def test_each_way_names_role_grant_rule_and_condition(service: QueryService) -> None:
    ends = time.time() + 60
    grant = Grant("g", "TEACHER", ToUser("user_bob"), InOrganization("org_1"), None, ends)
    service.write(grant)
    (actor,) = ask(service, "course:edit")
    assert (actor.user_id, actor.organization_id) == ("user_bob", "org_1")
    assert actor.paths.allowed_by == [AccessPath("edit", grant, OWNED)]
    (actor,) = ask(service, "course:view")
    assert actor.paths.allowed_by == [AccessPath("view", grant, "")]
    assert actor.paths.denied_by == []


def test_a_grant_to_an_organization_role_reaches_its_members_in_the_organization_of_the_resource(
    service: QueryService,
) -> None:
    service.write(Grant("g", "VIEWER", ToOrganizationRole("org:member")))
    assert who(ask(service)) == [("user_bob", "org_1")]
    service.write(Grant("h", "VIEWER", ToOrganizationRole("org:guest"), InOrganization("org_1")))
    assert who(ask(service)) == [("user_bob", "org_1"), ("user_eve", "org_1")]


def test_a_grant_everywhere_reaches_whatever_organization_is_active(service: QueryService) -> None:
    service.write(Grant("g", "VIEWER", ToUser("user_eve")))
    sessions = [("user_eve", ""), ("user_eve", "org_1"), ("user_eve", "org_2")]
    assert who(ask(service)) == sessions
    assert who(ask(service, size=1)) == sessions
    # One of the organizations takes it away.
    service.write(
        Rule("never", "TEACHER", Effect.DENY, "course:*"),
        Grant("h", "TEACHER", ToOrganizationRole("org:member"), InOrganization("org_2")),
    )
    assert who(ask(service)) == sessions[:2]


def test_a_deny_rule_with_a_condition_is_named_and_one_without_excludes(
    service: QueryService,
) -> None:
    grant = Grant("g", "TEACHER", ToUser("user_ada"), OnResource(ResourceRef("course", "algebra")))
    archived = Rule("archived", "TEACHER", Effect.DENY, "course:view", "resource.id == 'x'")
    service.write(grant, archived, Membership("org_1", "user_ada", "org:guest"))
    (actor,) = ask(service)
    assert actor.paths.denied_by == [AccessPath("archived", grant, "resource.id == 'x'")]
    service.write(Rule("archived", "TEACHER", Effect.DENY, "course:view"))
    assert ask(service) == []


def test_nobody_who_is_disabled_unknown_or_granted_too_late_is_listed(
    service: QueryService,
) -> None:
    now = time.time()
    service.write(
        Grant("a", "VIEWER", ToUser("user_gone")),
        Grant("b", "VIEWER", ToUser("user_nobody")),
        Grant("c", "VIEWER", ToUser("user_ada"), expires_at=now - 1),
        Grant("d", "VIEWER", ToUser("user_bob"), not_before=now + 60),
    )
    assert ask(service, size=1) == []
    assert ask(service, "course:undeclared") == []


def test_without_a_resource_it_is_the_permission_in_general(service: QueryService) -> None:
    service.write(Grant("g", "VIEWER", ToOrganizationRole("org:member")))
    assert who(ask(service, resource=None)) == [("user_bob", "org_1"), ("user_eve", "org_2")]


def test_the_query_is_on_record_without_an_actor(service: QueryService) -> None:
    ask(service)
    (record,) = service.records()
    assert (record.query, record.reason) == ("ListAllowedActors", Reason.QUERY_ANSWERED)
    assert (record.permission, record.caller) == ("course:view", CALLER)
    assert record.resource == ResourceRef("course", "algebra")
    assert (record.actor, record.token_fingerprint) == (None, "")
