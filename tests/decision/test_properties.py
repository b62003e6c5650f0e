"""Properties of decisions over random worlds.

Hypothesis chooses seeds, not structures: a world from a seed takes a tenth of the time, so that
ten thousand worlds are asked in seconds. A failure names its seed, which makes the world again.
"""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pdp.decision import decide
from pdp.model import (
    Effect,
    Grant,
    OnResource,
    Question,
    Reason,
    Role,
    Rule,
    Tenancy,
    ToUser,
)
from tests.kit import soak
from tests.kit.decision import reference
from tests.kit.decision.engine import ask, chain_of, policy_of, principal_of
from tests.kit.decision.worlds import (
    ORGANIZATIONS,
    PATTERNS,
    REFS,
    random_grant,
    random_question,
    random_rule,
    random_world,
)


def in_worlds(whole: int, *, sample: int):
    """A property of worlds that are drawn by seed: in `make test` of the same sample each time."""
    count = settings(
        max_examples=soak.count(whole, sample=sample),
        derandomize=not soak.SOAK,
        deadline=None,
        database=None,
    )
    return lambda test: pytest.mark.soak(given(st.integers(0, 2**63))(count(test)))


@in_worlds(100_000, sample=1_000)
def test_every_decision_is_that_of_the_reference_evaluator(seed):
    """CVE-2024-42473, CVE-2025-25196, CVE-2025-48371 (OpenFGA), CVE-2024-38361 (SpiceDB): the
    answer is the one that a slow, obviously right evaluator gives, field for field."""
    random = Random(seed)
    world = random_world(random)
    policy = policy_of(world)
    for _ in range(2):
        asked = random_question(random)
        assert ask(world, asked, policy) == reference.decide(world, asked)


def test_the_random_worlds_meet_every_reason():
    """Positive control: worlds that never reach a reason would prove nothing about it."""
    reasons = Counter()
    for seed in range(2_000):
        random = Random(seed)
        world = random_world(random)
        reasons[reference.decide(world, random_question(random)).reason] += 1
    decided = {reason for reason in Reason if not reason.name.startswith("TOKEN_")}
    elsewhere = {
        Reason.SESSION_PENDING,
        Reason.ROUTE_UNKNOWN,
        Reason.PATH_AMBIGUOUS,
        Reason.QUERY_ANSWERED,
    }
    assert set(reasons) == decided - elsewhere
    assert min(reasons.values()) > 5


@pytest.mark.parametrize(
    ("rule", "answer"), [("reaches_to_allow", True), ("depends_on_organization", False)]
)
def test_a_wrong_evaluator_is_found_out(monkeypatch, rule, answer):
    """Positive control: the reference differs if it lacks a part of the tenant isolation."""
    monkeypatch.setattr(reference, rule, lambda *_, **__: answer)

    def differ(seed):
        random = Random(seed)
        world = random_world(random)
        asked = random_question(random)
        return ask(world, asked) != reference.decide(world, asked)

    assert any(map(differ, range(2_000)))


@in_worlds(10_000, sample=150)
def test_a_batch_answers_each_item_as_if_it_were_alone(seed):
    """CVE-2026-34972 (OpenFGA), CVE-2024-56323 (OpenFGA): nothing of one question (its context,
    its attributes) is seen by another, in any order."""
    random = Random(seed)
    world = random_world(random)
    policy = policy_of(world)
    first = random_question(random)
    questions = [
        replace(random_question(random), token=first.token, now=first.now) for _ in range(6)
    ]
    principal = principal_of(world, policy, first.token, first.now)
    for asked in [*questions, *reversed(questions)]:
        chain = chain_of(world, asked.resource)
        question = Question(asked.permission, chain[0].resource if chain else None, asked.context)
        assert decide(principal, question, chain) == ask(world, asked, policy_of(world))


@in_worlds(10_000, sample=150)
def test_one_more_deny_rule_never_allows(seed):
    """CVE-2024-42473 (OpenFGA), CVE-2024-38361 (SpiceDB): exclusions only ever take away."""
    random = Random(seed)
    world = random_world(random)
    asked = random_question(random)
    rule = replace(random_rule(random, random.choice(["a", "z"])), effect=Effect.DENY)
    more = replace(world, rules=[*world.rules, rule])
    assert not (denies(ask(world, asked)) and allows(ask(more, asked)))


@in_worlds(10_000, sample=150)
def test_what_is_not_known_of_the_organization_never_allows(seed):
    """A question without the organization of a resource is never allowed if it is refused for any
    organization that it could have. (But for a grant to the user on that very resource.)"""
    random = Random(seed)
    world = random_world(random)
    asked = replace(random_question(random), resource=random.choice(REFS))
    grants = [
        grant
        for grant in world.grants
        if not (isinstance(grant.subject, ToUser) and isinstance(grant.scope, OnResource))
    ]
    world = replace(world, grants=grants, resource_types=[])

    def in_organization(organization):
        resources = {
            ref: one._replace(organization_id=organization) for ref, one in world.resources.items()
        }
        return ask(replace(world, resources=resources), asked)

    if allows(in_organization(None)):
        assert all(allows(in_organization(organization)) for organization in ORGANIZATIONS)


@in_worlds(10_000, sample=150)
def test_a_stricter_resource_type_never_allows(seed):
    random = Random(seed)
    world = random_world(random)
    asked = random_question(random)
    strict = [
        replace(resource_type, tenancy=Tenancy.ORGANIZATION)
        for resource_type in world.resource_types
    ]
    stored = [
        replace(resource_type, stored_required=True) for resource_type in world.resource_types
    ]
    for types in (strict, stored):
        less = replace(world, resource_types=types)
        assert not (denies(ask(world, asked)) and allows(ask(less, asked)))


@in_worlds(10_000, sample=150)
def test_one_grant_less_never_allows_unless_it_denied(seed):
    """CVE-2025-25196, CVE-2025-48371 (OpenFGA): removing a grant cannot allow anything."""
    random = Random(seed)
    world = random_world(random)
    world = replace(world, rules=[rule for rule in world.rules if rule.effect is Effect.ALLOW])
    asked = random_question(random)
    if world.grants:
        gone = random.choice(world.grants)
        less = replace(world, grants=[grant for grant in world.grants if grant is not gone])
        assert not (denies(ask(world, asked)) and allows(ask(less, asked)))


@in_worlds(10_000, sample=150)
def test_one_more_role_without_deny_rules_never_denies(seed):
    """CVE-2025-25196 (OpenFGA): an added rule denies only what it names."""
    random = Random(seed)
    world = random_world(random)
    asked = random_question(random)
    rule = Rule("extra", "EXTRA", Effect.ALLOW, random.choice(PATTERNS))
    grant = replace(random_grant(random, random.choice(["a", "z"])), role="EXTRA")
    more = replace(
        world,
        roles=[*world.roles, Role("EXTRA")],
        rules=[*world.rules, rule],
        grants=[*world.grants, grant],
    )
    assert not (allows(ask(world, asked)) and denies(ask(more, asked)))


@in_worlds(10_000, sample=150)
@example(0)
def test_a_policy_that_was_changed_decides_like_one_built_afresh(seed):
    """CVE-2025-46331 (OpenFGA): what was found before a change is not served after it."""
    random = Random(seed)
    world, later = random_world(random), random_world(random)
    policy = policy_of(world)
    asked = [random_question(random) for _ in range(4)]
    for question in asked:
        ask(world, question, policy)  # what is found here must not outlive the change
    after = replace(
        world,
        roles=later.roles,
        rules=later.rules,
        grants=later.grants,
        permissions=[],
        organization_permissions=later.organization_permissions,
        resource_types=later.resource_types,
    )
    after.permissions = [permission for permission in later.permissions if random.random() < 0.9]
    changed = policy.with_changes(
        2,
        [*after.permissions, *after.roles, *after.rules, *after.grants, *after.resource_types],
        [
            (kind, (key,))
            for kind, key in sorted(
                set(keys(world)) - set(keys(after)), key=lambda pair: (pair[0].__name__, pair[1])
            )
        ],
        organization_permissions=after.organization_permissions,
    )
    afresh = replace(policy_of(after), revision=2)
    assert contents(changed) == contents(afresh)
    for question in asked:
        assert ask(after, question, changed) == ask(after, question, afresh)
        # the old policy stays what it was
        assert ask(world, question, policy) == ask(world, question)


def allows(decision):
    return decision.effect is Effect.ALLOW


def denies(decision):
    return decision.effect is Effect.DENY


def keys(world):
    return [
        *(
            (type(entity), entity.name)
            for entity in (*world.permissions, *world.roles, *world.resource_types)
        ),
        *((type(entity), entity.id) for entity in (*world.rules, *world.grants)),
    ]


def contents(policy):
    grants = {role: policy.grants_to(role) for role in ("org:admin", "org:member")}
    assert all(isinstance(item, Grant) for some in grants.values() for item in some)
    maps = (
        policy.permissions,
        policy.roles,
        policy.rules,
        policy.grants,
        policy.resource_types,
    )
    permissions = policy.organization_permissions
    return (
        [dict(attributes.items()) for attributes in maps],
        grants,
        [len(attributes) for attributes in maps],
        permissions,
    )
