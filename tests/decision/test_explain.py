"""Explanations: the tree shows what `decide` decides, and what would allow allows."""

import time
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from pdp.cli.tree import tree_lines
from pdp.decision import Explanation, Step, explain
from pdp.decision.certainty import Certainty
from pdp.decision.explanation import ChangeKind, StepKind, StepStatus
from pdp.model import (
    Actor,
    Effect,
    Grant,
    InOrganization,
    OnResource,
    Reason,
    Role,
    Rule,
    ToUser,
)
from tests.kit import soak
from tests.kit.decision import reference
from tests.kit.decision.builders import TOKEN, policy_with
from tests.kit.decision.reference import Asked, World
from tests.kit.decision.situations import asked_about, changed, situation_of
from tests.kit.decision.worlds import (
    ORGANIZATIONS,
    REFS,
    ROLES,
    random_attributes,
    random_question,
    random_world,
)


@pytest.mark.soak
def test_the_tree_shows_what_is_decided_and_every_would_allow_allows():
    for seed in range(soak.count(100_000, sample=80)):
        check_explanation(seed)


def check_explanation(seed: int) -> None:
    """The oracles: a reader who knows the laws and sees the tree alone, and the reference
    evaluator, to which the changes are applied as their fields say."""
    random = Random(seed)
    world, asked = random_world(random), random_question(random)
    explanation = explain(situation_of(world, asked))
    assert explanation.decision == reference.decide(world, asked), seed
    assert read_from(explanation.tree) == outcome(explanation), seed
    for changes in explanation.would_allow:
        later, question = world, asked
        for change in changes:
            later, question = changed(later, question, change)
        assert reference.decide(later, question).effect is Effect.ALLOW, (seed, changes)


@pytest.mark.soak
def test_no_smaller_change_allows_than_those_that_are_suggested():
    for seed in range(soak.count(10_000, sample=10)):
        check_smallest(seed)


def check_smallest(seed: int) -> None:
    """Tries every single change of the listed kinds, with values that nobody proposed."""
    random = Random(seed)
    world, asked = random_world(random), random_question(random)
    explanation = explain(situation_of(world, asked))
    if explanation.decision.effect is Effect.ALLOW or not explanation.decision.reason.denial_kind:
        return
    one_is_enough = any(
        reference.decide(*changed_by).effect is Effect.ALLOW
        for changed_by in single_changes(world, asked)
    )
    if one_is_enough:
        assert [len(changes) for changes in explanation.would_allow][:1] == [1], seed


@pytest.mark.soak
def test_what_stored_values_settle_no_request_changes():
    found = Counter(check_certainty(seed) for seed in range(soak.count(20_000, sample=400)))
    assert set(found) == set(Certainty), "positive control: the worlds meet each"


def check_certainty(seed: int) -> Certainty:
    """The same question of the same actor, with other session facts, context and attributes."""
    random = Random(seed)
    world, asked = random_world(random), random_question(random)
    certainty = explain(situation_of(world, asked), search=False).certainty
    wanted = Effect.ALLOW if certainty is Certainty.ALLOWED else Effect.DENY
    for _ in range(0 if certainty is Certainty.DEPENDS else 8):
        other, later = random_question(random), world
        actor = replace(asked.token.actor, impersonator_id=other.token.actor.impersonator_id)
        token = replace(other.token, actor=actor)
        if asked.resource is not None and asked.resource not in world.not_stored:
            stored = world.resources[asked.resource]
            sent = {**random_attributes(random), **stored.attributes}
            with_sent = stored._replace(attributes=sent)
            later = replace(world, resources={**world.resources, asked.resource: with_sent})
        question = replace(asked, token=token, context=other.context)
        assert reference.decide(later, question).effect is wanted, (seed, certainty)
    return certainty


def test_a_condition_is_settled_by_its_stored_operand_or_not_at_all():
    factor, owner = "actor.second_factor_minutes <= 10.0", "resource.attributes.owner == actor.id"
    for condition, owned_by, expected in (
        (owner, "user_1", Certainty.ALLOWED),
        (owner, "user_2", Certainty.DENIED),
        (f"{owner} && {factor}", "user_1", Certainty.DEPENDS),
        (f"{owner} && {factor}", "user_2", Certainty.DENIED),
        (f"{owner} || {factor}", "user_1", Certainty.ALLOWED),
        (f"{owner} || !has(context.draft)", "user_2", Certainty.DEPENDS),
        ("resource.attributes.sent == 'x'", "user_1", Certainty.DEPENDS),
        ("has(resource.attributes.owner)", "user_1", Certainty.ALLOWED),
        ("context['a'] in resource.attributes.owner", "user_1", Certainty.DEPENDS),
        ("[1, 2].exists(n, n == size(context))", "user_1", Certainty.DEPENDS),
        ("actor.attributes.level > 3.0", "user_1", Certainty.DENIED),
    ):
        situation = asked_about(condition, owner=owned_by)
        assert explain(situation, search=False).certainty is expected, condition


def test_the_worlds_meet_every_kind_of_change_and_every_status():
    """Positive control: what never occurs would prove nothing."""
    wanted = set(ChangeKind) - {ChangeKind.CLAIM}, set(StepStatus), {1, 2, 3}
    kinds, statuses, sizes = set(), set(), set()
    for seed in range(800):
        random = Random(seed)
        explanation = explain(situation_of(random_world(random), random_question(random)))
        statuses.update(step.status for step in steps_of(explanation.tree))
        for changes in explanation.would_allow:
            sizes.add(len(changes))
            kinds.update(change.kind for change in changes)
        if (kinds, statuses, sizes) == wanted:
            break
    assert (kinds, statuses, sizes) == wanted


def test_a_tree_that_is_wrong_is_found_out():
    """Positive control of the reader: with one rule's status turned round it reads otherwise."""

    def differs(seed):
        random = Random(seed)
        explanation = explain(situation_of(random_world(random), random_question(random)))
        return read_from(turned_round(explanation.tree)) != outcome(explanation)

    assert any(map(differs, range(300)))


def test_each_expression_that_decided_has_its_value():
    tree = explained('resource.attributes.owner == actor.id || "x" in context.tags', owner="ivan")
    assert expressions(tree) == [
        'resource.attributes.owner == actor.id || "x" in context.tags: cannot be evaluated',
        '"x" in context.tags: context.tags is absent',
    ]
    tree = explained("resource.attributes.owner == actor.id && actor.id != ''", owner="ivan")
    assert expressions(tree) == [
        'resource.attributes.owner == actor.id && actor.id != "": false',
        'resource.attributes.owner == actor.id: "ivan" == "user_1" is false',
    ]


@pytest.mark.parametrize(
    ("condition", "lines"),
    [
        ("!has(resource.attributes.owner)", ["!has(resource.attributes.owner): false",
         "has(resource.attributes.owner): true"]),
        ("resource.attributes.tags.exists(t, t == ')')",
         [("resource.attributes.tags.exists(t, t == ')'): false; "
          'resource.attributes.tags is ["a", 1.0]')]),
        ("resource.attributes.owner > 3.0",
         ['resource.attributes.owner > 3.0: "ivan" > 3.0 cannot be evaluated']),
        ("actor.id == 'x' ? true : resource.attributes.owner == 'x'",
         ['actor.id == "x" ? true : resource.attributes.owner == "x": false',
          'actor.id == "x": "user_1" == "x" is false',
          'resource.attributes.owner == "x": "ivan" == "x" is false']),
        ("(1 + 2) * 3 == size(resource.attributes.tags)",
         ["(1 + 2) * 3 == size(resource.attributes.tags): 9 == 2 is false"]),
        ("resource.attributes.owner.matches('^a')",
         ['resource.attributes.owner.matches("^a"): "ivan".matches("^a") is false']),
        ("actor.second_factor_minutes < 10.0",
         ["actor.second_factor_minutes < 10.0: actor.second_factor_minutes is absent"]),
    ],
)  # fmt: skip
def test_expressions_are_written_as_people_write_them(condition, lines):
    assert expressions(explained(condition, owner="ivan", tags=["a", 1.0])) == lines


def test_a_long_value_is_shortened():
    (line,) = expressions(explained("resource.attributes.owner == 'x'", owner="y" * 5_000))
    assert len(line) < 300


def test_a_condition_that_is_too_expensive_is_not_evaluated_part_by_part():
    """A reader with the capability `audit` must not be able to hold a processor for long."""
    text = "resource.attributes.tags.exists(t, t in context.tags)"
    condition = " && ".join([text] * 40)
    situation = asked_about(condition, tags=[str(number) for number in range(3_000)])
    situation = replace(
        situation,
        question=situation.question._replace(
            context={"tags": [str(number) for number in range(3_000, 6_000)]}
        ),
    )
    tree = explain(situation, search=False).tree
    assert "cannot be evaluated" in expressions(tree)[0]


def test_a_fresher_factor_is_suggested_with_the_age_that_is_enough():
    situation = asked_about("actor.second_factor_minutes <= 10.0")
    (changes,) = [
        changes
        for changes in explain(situation).would_allow
        if changes[0].kind is ChangeKind.FACTOR
    ]
    assert [change.text for change in changes] == ["verify the second factor within 10 minutes"]


def test_a_role_is_suggested_on_the_resource_or_in_the_organization_and_not_everywhere():
    situation = replace(asked_about(""), user=replace(asked_about("").user, grants=()))
    assert [[change.text for change in changes] for changes in explain(situation).would_allow] == [
        ["grant ROLE to user_1 on course:1"],
        ["grant ROLE to user_1 in org_1"],
    ]


def test_another_active_organization_is_suggested_to_a_member_of_it():
    situation = asked_about("")
    token = replace(TOKEN, actor=Actor("user_1", "sess_1", None))
    explanation = explain(replace(situation, token=token, user=replace(situation.user, grants=(
        Grant("g", "ROLE", ToUser("user_1"), InOrganization("org_1")),
    ))))  # fmt: skip
    assert explanation.decision.reason is Reason.WRONG_ORGANIZATION
    assert explanation.would_allow[0][0].text == "make org_1 the active organization"


def test_an_undeclared_permission_suggests_the_nearest_one():
    situation = asked_about("")
    situation = replace(situation, question=situation.question._replace(permission="course:edti"))
    assert "did you mean course:edit?" in "\n".join(tree_lines(explain(situation).tree))
    assert explain(situation).would_allow == ()


def test_the_tree_of_many_grants_is_bounded():
    situation = asked_about("")
    grants = tuple(Grant(f"g{number}", "ROLE", ToUser("user_1")) for number in range(1_000))
    tree = explain(replace(situation, user=replace(situation.user, grants=grants))).tree
    assert len(list(steps_of(tree))) < 500
    assert "and 800 more grants" in "\n".join(tree_lines(tree))


@pytest.mark.parametrize(
    "condition",
    [
        "context.b{} == 'y'",
        "resource.attributes.a{} == 'x' && context.b{} == 'y'",
        "!(resource.attributes.a{0} == 'x' || context.b{0} in ['v', 'w'] || context.c{0} > 7.0)",
        "context.words.exists(w, w == 'w{}')",
    ],
)
def test_the_work_of_a_search_is_bounded_and_a_cut_is_reported(condition):
    """A caller with the capability `audit` must not hold a processor. 150 rules took 10 s, and
    these would take minutes."""
    situation = asked_about_rules(condition.format(index, index) for index in range(400))
    began = time.thread_time()
    explanation = explain(situation)
    assert time.thread_time() - began < 30
    assert explanation.search_was_cut


@pytest.mark.parametrize(
    ("condition", "size"),
    [
        ("context.b{} == 'y'", 1),
        ("context.words.exists(w, w == 'w{}')", 1),
        ("resource.attributes.a{} == 'x' && context.b{} == 'y'", 2),
        ("context.a{0} == 'x' && context.b{0} == 'y' && context.c{0} > 7.0", 3),
    ],
)
def test_a_search_among_many_rules_finds_the_smallest_changes(condition, size):
    """A change towards one condition is continued before those towards others."""
    rules = {1: 150, 2: 20, 3: 5}[size]
    explanation = explain(
        asked_about_rules(condition.format(index, index) for index in range(rules))
    )
    assert {len(changes) for changes in explanation.would_allow} == {size}


def test_a_complete_search_is_not_reported_as_cut():
    assert not explain(asked_about("context.place == 'office'")).search_was_cut
    assert not explain(asked_about("")).search_was_cut


def test_a_tree_of_many_long_conditions_is_bounded():
    part = "context.a == 'a{}'"
    conditions = (
        " || ".join(part.format(100 * rule + index) for index in range(100)) for rule in range(30)
    )
    tree = explain(asked_about_rules(conditions), search=False).tree
    assert 2_000 < len(list(steps_of(tree))) < 2_500
    assert "its condition is not shown" in "\n".join(tree_lines(tree))


# --- a reader of trees ----------------------------------------------------------------------------


def read_from(tree: Step):
    """Effect, rule and grant as a reader of the tree's steps finds them: deny before allow, and
    a deny rule whose condition fails applies."""
    sections = {step.kind: step for step in tree.children}
    for kind in (StepKind.ACTOR, StepKind.PERMISSION, StepKind.RESOURCE):
        step = sections.get(kind)
        if step is not None and StepStatus.NOT_MET in {one.status for one in steps_of(step)}:
            return Effect.DENY, "", ""
    failed = (StepStatus.MISSING, StepStatus.FAILED)
    deny = sections[StepKind.DENY_RULES].children
    allow = sections[StepKind.ALLOW_RULES].children
    applying = {
        step.id
        for step in sections[StepKind.GRANTS].children
        if step.status in (StepStatus.APPLIES, StepStatus.DENY_ONLY)
    }
    assert {step.grant_id for step in (*deny, *allow)} <= applying
    for statuses in ((StepStatus.MET,), failed):
        for step in deny:
            if step.status in statuses:
                return Effect.DENY, step.id, step.grant_id
    for step in allow:
        if step.status is StepStatus.MET:
            return Effect.ALLOW, step.id, step.grant_id
    return Effect.DENY, "", ""


def outcome(explanation: Explanation):
    """What the reader can know: which rule kept from allowing is a matter of the reason's order."""
    decision = explanation.decision
    decided = (Reason.ALLOWED_BY_RULE, Reason.DENIED_BY_RULE)
    deny_rules = [child for child in explanation.tree.children if child.kind is StepKind.DENY_RULES]
    failed = {
        step.id
        for section in deny_rules
        for step in section.children
        if step.status in (StepStatus.MISSING, StepStatus.FAILED)
    }
    if decision.reason in decided or decision.rule_id in failed:
        return decision.effect, decision.rule_id, decision.grant_id
    return decision.effect, "", ""


def turned_round(step: Step) -> Step:
    status = step.status
    if step.kind is StepKind.RULE:
        turned = {StepStatus.MET: StepStatus.NOT_MET, StepStatus.NOT_MET: StepStatus.MET}
        status = turned.get(status, status)
    children = tuple(turned_round(child) for child in step.children)
    return replace(step, status=status, children=children)


def steps_of(step: Step):
    yield step
    for child in step.children:
        yield from steps_of(child)


def single_changes(world: World, asked: Asked):
    """The kinds that the documentation lists: a role, an attribute, a factor, an organization."""
    user_id = asked.token.actor.user_id
    for role in ROLES:
        for scope in (*map(InOrganization, ORGANIZATIONS), *map(OnResource, REFS), None):
            grant = Grant("zz", role, ToUser(user_id), *([scope] if scope else []))
            yield replace(world, grants=[*world.grants, grant]), asked
    for organization in (None, *ORGANIZATIONS):
        actor = replace(asked.token.actor, organization_id=organization)
        yield world, replace(asked, token=replace(asked.token, actor=actor))
    yield world, replace(asked, token=replace(asked.token, second_factor_minutes=3.0))
    for key, values in {
        "owner": [user_id, "other"],
        "level": [0.0, 9.0],
        "archived": [True, False],
        "tags": [[], ["free"]],
    }.items():
        if asked.resource is not None:
            resource = world.resources[asked.resource]
            rest = {name: one for name, one in resource.attributes.items() if name != key}
            for attributes in (rest, *({**rest, key: value} for value in values)):
                stored = resource._replace(attributes=attributes)
                yield replace(world, resources={**world.resources, asked.resource: stored}), asked
    for key, values in {"place": ["office", "nowhere"], "flag": [True, False]}.items():
        rest = {name: one for name, one in asked.context.items() if name != key}
        for context in (rest, *({**rest, key: value} for value in values)):
            yield world, replace(asked, context=context)


# --- one course -----------------------------------------------------------------------------------


def explained(condition: str, **attributes) -> Step:
    return explain(asked_about(condition, **attributes)).tree


def asked_about_rules(conditions):
    """As `asked_about`, by a rule for each condition."""
    situation = asked_about("", words=[])
    rules = [
        Rule(f"r{index}", "ROLE", Effect.ALLOW, "course:edit", condition)
        for index, condition in enumerate(conditions)
    ]
    return replace(situation, policy=policy_with(*rules, roles=(Role("ROLE"),)))


def expressions(tree: Step) -> list[str]:
    return [step.text for step in steps_of(tree) if step.kind is StepKind.EXPRESSION]
