"""The permissions of the console: filters and lists of actors agree with decisions about them."""

import pytest
from pdp_filters import FALSE, TRUE

from pdp.decision import (
    TENANT_CONSOLE,
    access_paths,
    build_policy,
    decide,
    plan_for,
    resolve_principal,
)
from pdp.model import (
    EVERYWHERE,
    Effect,
    Grant,
    InOrganization,
    OnResource,
    OrganizationFacts,
    Permission,
    Question,
    Resource,
    ResourceFacts,
    ResourceRef,
    ResourceType,
    Role,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
    UserFacts,
)
from tests.kit.decision.builders import NOW, TOKEN, rule

PAGE = Resource("console", "now")
SCOPES = (EVERYWHERE, InOrganization("org_1"), OnResource(ResourceRef("console", "now")))


@pytest.mark.parametrize("pattern", ["console:view", "console:*", "*"])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("subject", [ToUser("user_1"), ToOrganizationRole("org:member")])
def test_check_filters_and_lists_reach_the_console_by_the_same_grants(pattern, scope, subject):
    grant = Grant("grant", "ROLE", subject, scope)
    rules = [rule(permission=pattern)]
    named = isinstance(subject, ToUser)
    policy = build_policy(1, [Permission("console:view")], [Role("ROLE")], rules, [grant])
    user = UserFacts(
        User("user_1"), {"org_1": "org:member"}, (grant,) if named else (), frozenset()
    )
    in_organization = isinstance(scope, InOrganization) and not named
    organization = OrganizationFacts("org_1", (grant,) if in_organization else ())
    on_resource = isinstance(scope, OnResource) and not named
    chain = (ResourceFacts(PAGE, (grant,) if on_resource else (), stored=True),)
    principal = resolve_principal(policy, TOKEN, user, organization, NOW)

    reached = named and scope is EVERYWHERE and pattern != "*"
    decision = decide(principal, Question("console:view", PAGE), chain)
    assert (decision.effect is Effect.ALLOW) == reached
    assert (access_paths(principal, "console:view", chain) is not None) == reached
    plan = plan_for(principal, "console:view", "console", {}, [grant] if on_resource else [])
    assert plan.filter == (TRUE if reached else FALSE)


OWN = Resource(TENANT_CONSOLE, "org_1", "org_1")
ATTACKS = (
    PAGE,
    None,
    # Whatever is stored under the name of a page, or sent with it.
    Resource("console", "now", "org_1"),
    Resource("console", "org_1", "org_1"),
    Resource(TENANT_CONSOLE, "org_2", "org_2"),
    Resource(TENANT_CONSOLE, "org_2"),
)


@pytest.mark.parametrize("tenancy", Tenancy)
@pytest.mark.parametrize("subject", [ToUser("user_1"), ToOrganizationRole("org:member")])
@pytest.mark.parametrize("permission", ["console:view", "console:review"])
@pytest.mark.parametrize("pattern", ["console:view", "console:*", "*"])
def test_a_grant_in_an_organization_reaches_the_view_of_that_organization_alone(
    tenancy, subject, permission, pattern
):
    grant = Grant("grant", "ROLE", subject, InOrganization("org_1"))
    named = isinstance(subject, ToUser)
    policy = build_policy(
        1,
        [Permission("console:view"), Permission("console:review")],
        [Role("ROLE")],
        [rule(permission=pattern)],
        [],
        resource_types=[ResourceType("console", tenancy)],
    )
    user = UserFacts(
        User("user_1"), {"org_1": "org:member"}, (grant,) if named else (), frozenset()
    )
    organization = OrganizationFacts("org_1", () if named else (grant,))
    principal = resolve_principal(policy, TOKEN, user, organization, NOW)
    for resource in (*ATTACKS, OWN, *ATTACKS):
        chain = () if resource is None else (ResourceFacts(resource, (), stored=True),)
        reached = named and resource is OWN and permission == "console:view" and pattern != "*"
        decision = decide(principal, Question(permission, resource), chain)
        assert (decision.effect is Effect.ALLOW) == reached, resource
        assert (access_paths(principal, permission, chain) is not None) == reached, resource
    assert plan_for(principal, permission, "console", {}).filter == FALSE
    plan = plan_for(principal, permission, TENANT_CONSOLE, {})
    assert (plan.filter != FALSE) == (named and permission == "console:view" and pattern != "*")
    assert plan.filter != TRUE


def test_a_permission_that_only_begins_alike_is_an_ordinary_one():
    policy = build_policy(
        1, [Permission("consoles:view")], [Role("ROLE")], [rule(permission="*")], []
    )
    grant = Grant("grant", "ROLE", ToUser("user_1"), InOrganization("org_1"))
    user = UserFacts(User("user_1"), {"org_1": "org:member"}, (grant,), frozenset())
    principal = resolve_principal(policy, TOKEN, user, OrganizationFacts("org_1", ()), NOW)
    assert decide(principal, Question("consoles:view"), ()).effect is Effect.ALLOW
