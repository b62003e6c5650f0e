"""Step ups: reported for an otherwise allowed question, and for no other."""

from dataclasses import replace
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.decision import with_step_up
from pdp.model import Effect, Factor, InOrganization, StepUp, UserStatus
from tests.kit import soak
from tests.kit.decision import reference
from tests.kit.decision.builders import TOKEN
from tests.kit.decision.situations import asked_about, situation_of
from tests.kit.decision.worlds import random_question, random_world

OLD = replace(TOKEN, first_factor_minutes=60.0, second_factor_minutes=60.0)


def stepped(situation):
    decision = situation.decide()
    return with_step_up(
        decision, situation.principal(), situation.question, situation.chain
    ).step_up


def about(condition, token=OLD, **attributes):
    return replace(asked_about(condition, **attributes), token=token)


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("actor.second_factor_minutes <= 10.0", StepUp(Factor.SECOND, 10.0)),
        ("actor.second_factor_minutes < 10.0", StepUp(Factor.SECOND, 9.0)),
        ("10.0 > actor.second_factor_minutes", StepUp(Factor.SECOND, 9.0)),
        ("!(actor.first_factor_minutes > 5.0)", StepUp(Factor.FIRST, 5.0)),
        (
            "actor.first_factor_minutes <= 5.0 && actor.second_factor_minutes <= 10.0",
            StepUp(Factor.BOTH, 5.0),
        ),
        (
            "actor.first_factor_minutes <= 5.0 || actor.second_factor_minutes <= 10.0",
            StepUp(Factor.FIRST, 5.0),
        ),
        ("actor.second_factor_minutes <= 10.0 && actor.id == 'user_1'", StepUp(Factor.SECOND, 10)),
        ("actor.second_factor_minutes <= 10.0 && actor.id == 'user_2'", None),
        ("actor.second_factor_minutes <= 10.0 && resource.attributes.x == 1.0", None),
        ("actor.id == 'user_2'", None),
        ("actor.second_factor_minutes > 100.0", None),
        ("actor.second_factor_minutes <= 60.0", None),
    ],
)
def test_a_step_up_has_the_factor_and_the_greatest_age_that_is_enough(condition, wanted):
    assert stepped(about(condition)) == wanted


def test_a_token_that_says_nothing_of_a_factor_is_told_to_verify_it():
    assert stepped(about("actor.second_factor_minutes <= 10.0", TOKEN)) == StepUp(Factor.SECOND, 10)


def test_nobody_who_is_refused_otherwise_is_told_to_verify_anything():
    situation = about("actor.second_factor_minutes <= 10.0")
    disabled = replace(
        situation.user, user=replace(situation.user.user, status=UserStatus.DISABLED)
    )
    without = replace(situation.user, grants=())
    revoked = replace(situation.user, revoked_sessions=frozenset(("sess_1",)))
    for user in (None, disabled, without, revoked):
        assert stepped(replace(situation, user=user)) is None
    foreign = tuple(
        facts._replace(resource=facts.resource._replace(organization_id="org_2"))
        for facts in situation.chain
    )
    grants = (replace(situation.user.grants[0], scope=InOrganization("org_1")),)
    here = replace(situation.user, grants=grants)
    assert stepped(replace(situation, user=here)) is not None
    assert stepped(replace(situation, chain=foreign, user=here)) is None


def test_what_is_expensive_is_not_decided_again_and_again():
    loop = "resource.attributes.tags.exists(t, t in context.tags)"
    condition = f"actor.second_factor_minutes <= 10.0 || {loop}"
    situation = about(condition, tags=[str(number) for number in range(150)])
    context = {"tags": [str(number) for number in range(200, 350)]}
    situation = replace(situation, question=situation.question._replace(context=context))
    assert situation.decide().effect is Effect.DENY
    assert stepped(situation) is None


def world_of_factors(random):
    """A world in which many rules read the age of the second factor."""
    world = random_world(random)
    rules = [
        replace(rule, condition="actor.second_factor_minutes < 10.0")
        if random.random() < 0.5
        else rule
        for rule in world.rules
    ]
    return replace(world, rules=rules)


@pytest.mark.soak
@given(st.integers(0, 2**63))
@settings(
    max_examples=soak.count(50_000, sample=300),
    deadline=None,
    derandomize=not soak.SOAK,
    database=None,
)
def test_a_step_up_is_reported_if_and_only_if_it_allows(seed):
    """The oracle is the reference evaluator, with every age that the worlds' conditions know."""
    random = Random(seed)
    world, asked = world_of_factors(random), random_question(random)
    found = stepped(situation_of(world, asked))
    allows = [
        minutes
        for minutes in (11.0, 10.0, 9.0, 0.0)
        if reference.decide(
            world, replace(asked, token=replace(asked.token, second_factor_minutes=minutes))
        ).effect
        is Effect.ALLOW
    ]
    decision = reference.decide(world, asked)
    if decision.effect is Effect.ALLOW or 0.0 not in allows:  # as it is after a verification
        assert found is None
    else:
        assert found is not None
        assert found.factor is Factor.SECOND
        assert found.max_age_minutes == allows[0]


def test_the_worlds_meet_step_ups():
    """Positive control."""
    found = (
        stepped(situation_of(world_of_factors(random), random_question(random)))
        for random in map(Random, range(3_000))
    )
    step_ups = (item for item in found if item is not None)
    assert len(list(islice(step_ups, 21))) == 21
