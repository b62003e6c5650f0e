"""Decisions one by one: what a person would look up."""

import time
from dataclasses import replace
from itertools import pairwise

import pytest

from pdp.decision import decide, resolve_principal
from pdp.model import (
    EVERYWHERE,
    Actor,
    Effect,
    Grant,
    InOrganization,
    OnResource,
    OrganizationFacts,
    Question,
    Reason,
    Resource,
    ResourceFacts,
    ResourceRef,
    Role,
    ToUser,
    User,
    UserFacts,
)
from tests.kit.decision.builders import GRANT, NOW, PERMISSIONS, TOKEN, ask, policy_with, rule


def test_an_unconditional_wildcard_elsewhere_does_not_satisfy_a_conditional_one():
    """CVE-2025-64751 (OpenFGA): a wildcard grant without condition satisfied another one that has
    a condition."""
    policy = policy_with(
        rule(permission="lesson:*", rule_id="free"),
        rule("context.place == 'office'", permission="course:*", rule_id="conditional"),
    )
    assert ask(policy, "lesson:view").effect is Effect.ALLOW
    decision = ask(policy, "course:edit", context={"place": "home"})
    assert (decision.effect, decision.reason) == (Effect.DENY, Reason.CONDITION_NOT_MET)
    assert ask(policy, "course:edit", context={"place": "office"}).rule_id == "conditional"


def test_two_contexts_get_their_own_answers():
    """CVE-2026-33729, CVE-2026-34972 (OpenFGA): contexts that look alike shared an answer."""
    policy = policy_with(rule("context.a == '1' && context.b == '2'"))
    contexts = [{"a": "1,b:2"}, {"a": 1.0}, {"a": "1"}, {"a": True}, {"a": None}, {}, {"b": "2"}]
    for _ in range(2):
        assert ask(policy, context={"a": "1", "b": "2"}).effect is Effect.ALLOW
        for context in contexts:
            assert ask(policy, context=context).effect is Effect.DENY


def test_what_a_request_brings_is_gone_with_it():
    """CVE-2024-56323 (OpenFGA): contextual data outlived its request."""
    policy = policy_with(rule("resource.attributes.owner == actor.id"))
    cold = ask(policy)
    assert ask(policy, attributes={"owner": "user_1"}).effect is Effect.ALLOW
    assert ask(policy) == cold


CONJUNCTS = [
    ("actor.organization_role == 'org:member'", None),
    ("resource.attributes.owner == actor.id", ("attributes", {"owner": "other"})),
    ("context.place == 'office'", ("context", {"place": "home"})),
    ("actor.second_factor_minutes < 10.0", ("minutes", 11.0)),
    ("actor.attributes.department == 'physics'", ("department", "history")),
    ("resource.attributes.level >= 3.0", ("attributes", {"level": 2.0})),
]


@pytest.mark.parametrize("flipped", [None, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("order", [1, -1])
def test_and_is_and(flipped, order):
    """CVE-2026-42349 (Clerk): `has()` was true for combined conditions of which one was not met."""
    source = " && ".join(text for text, _ in CONJUNCTS[::order])
    facts = {
        "attributes": {"owner": "user_1", "level": 3.0},
        "context": {"place": "office"},
        "minutes": 5.0,
        "department": "physics",
    }
    if flipped is not None:
        field, value = CONJUNCTS[flipped][1]
        facts[field] = facts[field] | value if isinstance(value, dict) else value
    decision = ask(
        policy_with(rule(source)),
        attributes=facts["attributes"],
        context=facts["context"],
        token=replace(TOKEN, second_factor_minutes=facts["minutes"]),
        actor_attributes={"department": facts["department"]},
    )
    assert decision.effect is (Effect.ALLOW if flipped is None else Effect.DENY)


@pytest.mark.parametrize(
    ("known", "active", "reason"),
    [
        ({"org:member": ("org:course:edit", "org:x:y")}, "org_1", Reason.ALLOWED_BY_RULE),
        ({"org:member": ("org:x:y",), "org:admin": ("org:course:edit",)}, "org_1", None),
        ({"org:member": ()}, "org_1", None),
        ({"org:admin": ("org:course:edit",)}, "org_1", Reason.ATTRIBUTE_MISSING),
        ({"org:member": ("org:course:edit",), "": ("org:course:edit",)}, None, None),
    ],
)
def test_organization_permissions_are_those_of_the_stored_role_whatever_the_token_claims(
    known, active, reason
):
    """A role of which Clerk has said nothing is not taken for one without permissions."""
    source = "'org:course:edit' in actor.organization_permissions"
    policy = policy_with(rule(source)).with_changes(2, organization_permissions=known)
    actor = replace(TOKEN.actor, organization_id=active)
    token = replace(TOKEN, actor=actor, claimed_permissions=("org:course:edit",))
    user = UserFacts(User("user_1"), {"org_1": "org:member"}, (GRANT,), frozenset())
    principal = resolve_principal(policy, token, user, None, NOW)
    decision = decide(principal, Question("course:edit"), ())
    assert decision.reason is (reason or Reason.CONDITION_NOT_MET)


@pytest.mark.parametrize("missing", ["role", "permission", "organization", "condition"])
def test_role_permission_organization_and_condition_must_all_hold(missing):
    """CVE-2026-42349 (Clerk): one of several requirements was enough."""
    grant = replace(GRANT, role="OTHER" if missing == "role" else "ROLE")
    scope = InOrganization("org_2" if missing == "organization" else "org_1")
    decision = ask(
        policy_with(rule("context.place == 'office'")),
        "course:delete" if missing == "permission" else "course:edit",
        context={"place": "home" if missing == "condition" else "office"},
        grants=(replace(grant, scope=scope),),
    )
    assert decision.effect is Effect.DENY


def test_a_circle_of_roles_ends_and_is_right_once_it_is_cut():
    """CVE-2025-46331 (OpenFGA): a result computed in a cycle was cached. CVE-2023-43645,
    CVE-2023-45810 (OpenFGA): cycles did not end. (Writes refuse circles; a database may hold one.)
    """
    circle = (Role("ROLE", inherits=("B",)), Role("B", inherits=("C",)), Role("C", "", ("ROLE",)))
    policy = policy_with(rule(role="C"), roles=circle)
    assert ask(policy).effect is Effect.ALLOW
    cut = policy.with_changes(2, [Role("B")])
    assert ask(cut).reason is Reason.PERMISSION_NOT_GRANTED
    assert ask(policy).effect is Effect.ALLOW


def chain_of_roles():
    names = [f"R{index}" for index in range(10_000)]
    roles = [Role(name, "", (below,)) for name, below in pairwise(names)]
    return (Role("ROLE", "", (names[0],)), *roles, Role(names[-1])), names[-1]


def fan_of_roles():
    names = [f"R{index}" for index in range(100_000)]
    return (Role("ROLE", "", tuple(names)), *(Role(name) for name in names)), names[-1]


def diamonds():
    """2^30 ways from top to bottom."""
    roles = [Role("ROLE", "", ("L0", "R0"))]
    for level in range(30):
        below = (f"L{level + 1}", f"R{level + 1}")
        roles += [Role(f"L{level}", "", below), Role(f"R{level}", "", below)]
    return (*roles, Role("L30"), Role("R30")), "R30"


@pytest.mark.parametrize("shape", [chain_of_roles, fan_of_roles, diamonds])
def test_a_monstrous_hierarchy_is_walked_once(shape):
    """CVE-2023-43645, CVE-2023-45810, CVE-2023-35933 (OpenFGA): depth, width or the number of
    paths exhausted the server."""
    roles, last = shape()
    policy = policy_with(rule(role=last), roles=roles)
    begin = time.thread_time()
    assert ask(policy).effect is Effect.ALLOW
    assert time.thread_time() - begin < 2
    begin = time.thread_time()
    for _ in range(100):
        ask(policy)
    assert time.thread_time() - begin < 0.1


def test_the_number_of_rules_does_not_matter():
    def cost(number):
        rules = [rule(rule_id=f"r{index}", role=f"R{index}") for index in range(number)]
        policy = policy_with(rule("resource.attributes.owner == actor.id"), *rules)
        attributes = {"owner": "user_1"}
        assert ask(policy, attributes=attributes).effect is Effect.ALLOW
        best = 1.0
        for _ in range(7):
            begin = time.thread_time()
            for _ in range(300):
                ask(policy, attributes=attributes)
            best = min(best, time.thread_time() - begin)
        return best

    assert cost(50_000) < 2 * cost(50)


def test_deny_wins_and_the_smallest_ids_decide():
    policy = policy_with(
        rule(rule_id="b-allow"),
        rule(rule_id="a-allow"),
        rule("context.stop == true", rule_id="z-deny", effect=Effect.DENY),
    )
    grants = (replace(GRANT, id="h"), replace(GRANT, id="g"))
    allowed = ask(policy, context={"stop": False}, grants=grants)
    assert (allowed.effect, allowed.rule_id, allowed.grant_id) == (Effect.ALLOW, "a-allow", "g")
    denied = ask(policy, context={"stop": True}, grants=grants)
    assert (denied.reason, denied.rule_id) == (Reason.DENIED_BY_RULE, "z-deny")
    failed = ask(policy, context={}, grants=grants)
    assert (failed.reason, failed.rule_id) == (Reason.ATTRIBUTE_MISSING, "z-deny")


def test_a_grant_holds_from_its_beginning_until_before_its_end():
    policy = policy_with(rule())
    for begins, ends, effect, until in [
        (NOW, NOW + 10, Effect.ALLOW, NOW + 10),
        (NOW + 1, None, Effect.DENY, NOW + 1),
        (None, NOW, Effect.DENY, NOW + 60),
        (NOW - 10, NOW + 100, Effect.ALLOW, NOW + 60),
    ]:
        grant = replace(GRANT, not_before=begins, expires_at=ends)
        decision = ask(policy, grants=(grant,))
        assert (decision.effect, decision.reusable_until) == (effect, until)


def test_an_answer_that_depends_on_the_time_is_not_reusable():
    early = rule("now < timestamp('2020-01-01T00:00:00Z')", rule_id="a")
    assert ask(policy_with(early)).reusable_until is None
    assert ask(policy_with(early, rule(rule_id="b"))).reusable_until is None
    # Not evaluated: the first rule in order already allows.
    assert ask(policy_with(rule(rule_id="0"), early)).reusable_until == NOW + 60


def test_a_grant_on_a_resource_reaches_what_is_below_it_and_nothing_else():
    course = Resource("course", "1", "org_1")
    lesson = Resource("lesson", "1", "org_1", ResourceRef("course", "1"))
    policy = policy_with(rule(permission="*"))
    scoped = replace(GRANT, scope=OnResource(ResourceRef("course", "1")))
    facts = UserFacts(User("user_1"), {"org_1": "org:member"}, (scoped,), frozenset())
    principal = resolve_principal(policy, TOKEN, facts, OrganizationFacts("org_1", ()), NOW)

    def effect(permission, *resources):
        chain = tuple(ResourceFacts(resource, ()) for resource in resources)
        question = Question(permission, resources[0] if resources else None)
        return decide(principal, question, chain).effect

    assert effect("course:edit", course) is Effect.ALLOW
    assert effect("lesson:view", lesson, course) is Effect.ALLOW
    assert effect("lesson:view", lesson._replace(parent=None)) is Effect.DENY
    assert effect("course:edit", course._replace(id="2")) is Effect.DENY
    assert effect("course:edit", course._replace(type="Course")) is Effect.DENY
    assert effect("course:edit") is Effect.DENY


@pytest.mark.parametrize("many", [1, 100])
def test_one_grant_among_many_on_other_resources_is_found(many):
    others = [
        Grant(f"g{index}", "ROLE", ToUser("user_1"), OnResource(ResourceRef("course", f"x{index}")))
        for index in range(many)
    ]
    mine = replace(GRANT, scope=OnResource(ResourceRef("course", "1")))
    for grants, effect in [((*others, mine), Effect.ALLOW), (tuple(others), Effect.DENY)]:
        for _ in range(2):
            assert ask(policy_with(rule()), grants=grants).effect is effect


def test_only_a_grant_everywhere_reaches_into_another_organization():
    course = Resource("course", "1", "org_2")
    chain = (ResourceFacts(course, ()),)
    for scope, reason in [
        (EVERYWHERE, Reason.ALLOWED_BY_RULE),
        (InOrganization("org_2"), Reason.WRONG_ORGANIZATION),
        (OnResource(ResourceRef("course", "1")), Reason.WRONG_ORGANIZATION),
    ]:
        memberships = {"org_1": "org:member", "org_2": "org:admin"}
        facts = UserFacts(User("user_1"), memberships, (replace(GRANT, scope=scope),), frozenset())
        principal = resolve_principal(policy_with(rule()), TOKEN, facts, None, NOW)
        decision = decide(principal, Question("course:edit", course), chain)
        assert (decision.reason, decision.resource_organization_id) == (reason, "org_2")


def test_identifiers_that_only_look_alike_are_others():
    """CVE-2026-55170 (OpenFGA): a collation made ids of another case equal."""
    policy = policy_with(rule("resource.attributes.owner == actor.id"))
    for other in ("User_1", "user_1 ", "user_1\u200b", "us\u0435r_1", "\uff55ser_1"):
        assert ask(policy, attributes={"owner": other}).effect is Effect.DENY


def test_facts_that_do_not_belong_together_are_a_defect_not_an_answer():
    facts = UserFacts(User("user_1"), {"org_1": "org:member"}, (GRANT,), frozenset())
    policy = policy_with(rule())
    with pytest.raises(ValueError, match="another user"):
        resolve_principal(policy, replace(TOKEN, actor=Actor("user_2", "s")), facts, None, NOW)
    with pytest.raises(ValueError, match="another organization"):
        resolve_principal(policy, TOKEN, facts, OrganizationFacts("org_2", ()), NOW)
    principal = resolve_principal(policy, TOKEN, facts, None, NOW)
    course = Resource("course", "1", "org_2")
    with pytest.raises(ValueError, match="not the first"):
        decide(principal, Question("course:edit", course), ())
    other = ResourceFacts(course._replace(id="2"), ())
    with pytest.raises(ValueError, match="not the first"):
        decide(principal, Question("course:edit", course), (other,))
    with pytest.raises(ValueError, match="names none"):
        decide(principal, Question("course:edit"), (ResourceFacts(course, ()),))


def test_every_permission_of_a_wildcard_is_meant_and_no_undeclared_one():
    for pattern, wanted in [
        ("*", set(PERMISSIONS)),
        ("course:*", {"course:view", "course:edit", "course:delete"}),
        ("course:view", {"course:view"}),
    ]:
        policy = policy_with(rule(permission=pattern))
        found = {name for name in PERMISSIONS if ask(policy, name).effect is Effect.ALLOW}
        assert found == wanted
        assert ask(policy, "course:burn").reason is Reason.PERMISSION_UNKNOWN
