"""The cost of conditions: estimated when written, bounded when evaluated."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from pdp import limits
from pdp.decision import ConditionInvalid, compile_condition, cost
from pdp.decision.conditions import condition_of
from pdp.decision.cost import Budget, measured
from pdp.decision.patterns import pattern_size
from pdp.model import Effect, Reason
from tests.kit.decision.adversary import ATTRIBUTES_MAX, conditions, data_of, estimated, questions
from tests.kit.decision.builders import ask, policy_with, rule
from tests.kit.decision.programs import program_of

SEARCH = "context.words.exists(w, resource.attributes.text.contains(w))"


def question(words: int, text: int) -> dict[str, Any]:
    return {"context": {"words": ["a" * 8 + "b"] * words}, "attributes": {"text": "a" * text}}


# --- when it is written ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "context.a.exists(a, context.b.exists(b, context.c.exists(c, context.t.contains(a))))",
        "context.a.all(a, context.b.all(b, context.c.all(c, context.d.all(d, a == d))))",
        "context.t.matches('\\\\pL{1,64}')",
        "context.a.exists(a, a.matches('[a-z]{1,500}'))",
        "context.a.map(a, context.b.map(b, context.c.map(c, c))).size() == 1",
        f"[{', '.join(['1'] * 300)}].all(a, [{', '.join(['2'] * 300)}].all(b, a != b))",
        f"context.a.all(a, context.b.all(b, {' && '.join(['a != b'] * 60)}))",
    ],
)
def test_what_is_too_expensive_for_values_of_a_modest_size_is_refused(source: str) -> None:
    with pytest.raises(ConditionInvalid, match=r"may cost [\d,e+]+ for lists of 20 items"):
        compile_condition(source)


def test_a_refusal_says_the_estimate_and_the_bound() -> None:
    with pytest.raises(ConditionInvalid) as caught:
        compile_condition("actor.id.matches('\\\\pL{64}')")
    assert caught.value.message == (
        "is too expensive: it may cost 177,188 for lists of 20 items and texts of 256 bytes, at"
        " most 5,000 are allowed"
    )


@pytest.mark.parametrize(
    "source",
    [
        "resource.attributes.owner == actor.id",
        "resource.attributes.tags.exists(t, t == 'x')",
        "resource.attributes.tags.exists(t, t == context.tag)",
        "resource.attributes.tags.all(t, t in ['a', 'b', 'c'])",
        "actor.id in resource.attributes.reviewers",
        "actor.organization_permissions.exists(p, p.startsWith('org:course:'))",
        "actor.attributes.department == 'sales' && now.getDayOfWeek() in [1, 2, 3, 4, 5]",
        "context.address.startsWith('10.') || has(actor.claims.vpn)",
        "now - timestamp(resource.attributes.created) < duration('720h')",
        "resource.attributes.size() == 2 && context.size() == 1",
    ],
)
def test_ordinary_conditions_are_never_charged(source: str) -> None:
    """Whatever is stored or sent: no evaluation of theirs pays for an estimate."""
    assert program_of(compile_condition(source)).estimate is None


@pytest.mark.parametrize(
    "source",
    [
        SEARCH,
        "resource.attributes.tags.exists(t, context.tags.exists(u, t == u))",
        "context.path.matches('^/api/v[0-9]+/')",
        "context.mail.matches('^[a-z0-9.+-]+@[a-z-]+[.]example$')",
        "context.id.matches('^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')",
        "context.name.matches('^\\\\pL+$')",
        "context.l.filter(x, x.startsWith('a')).size() > 2",
    ],
)
def test_useful_conditions_that_may_grow_are_accepted_and_charged(source: str) -> None:
    assert program_of(compile_condition(source)).estimate is not None


# --- when it is evaluated -------------------------------------------------------------------------


def test_an_evaluation_is_charged_by_length_and_by_iteration() -> None:
    policy = policy_with(rule(SEARCH, rule_id="search"))
    for words, text, reason in (
        (100, 1_000, Reason.CONDITION_NOT_MET),
        (900, 100, Reason.CONDITION_NOT_MET),
        (1, 50_000, Reason.CONDITION_NOT_MET),
        (900, 50_000, Reason.CONDITION_FAILED),
    ):
        decision = ask(policy, **question(words, text))
        assert decision.reason is reason, (words, text)
        failed = reason is Reason.CONDITION_FAILED
        assert decision.too_expensive == (("search",) if failed else ())


@pytest.mark.parametrize(
    ("source", "context", "attributes"),
    [
        ("resource.attributes.tags.exists(t, t == 'x')", {}, {"tags": ["b" * 60] * 990}),
        (
            "resource.attributes.tags.exists(t, t in context.tags)",
            {"tags": ["b"] * 200},
            {"tags": ["a"] * 200},
        ),
        (SEARCH, {"words": ["ab"] * 100}, {"text": "a" * 5_000}),
        (SEARCH, {"words": ["ab"] * 800}, {"text": "a" * 500}),
        ("context.text.matches('^[a-z]+@[a-z]+$')", {"text": "a" * 5_000}, {}),
        ("resource.attributes.tags.filter(t, t != 'x').size() > 400", {}, {"tags": ["a"] * 400}),
    ],
)
def test_the_documented_sizes_are_affordable(
    source: str, context: dict[str, Any], attributes: dict[str, Any]
) -> None:
    decision = ask(policy_with(rule(source)), context=context, attributes=attributes)
    assert decision.reason is Reason.CONDITION_NOT_MET


@pytest.mark.parametrize("effect", list(Effect))
def test_what_is_too_expensive_never_allows_and_never_frees(effect: Effect) -> None:
    """An attacker who chooses the values gains nothing by long ones."""
    rules = [rule(f"!{SEARCH}", effect=effect, rule_id="slow")]
    if effect is Effect.DENY:
        rules.append(rule(rule_id="allow"))
    decision = ask(policy_with(*rules), **question(900, 50_000))
    assert (decision.effect, decision.reason) == (Effect.DENY, Reason.CONDITION_FAILED)
    assert (decision.rule_id, decision.too_expensive) == ("slow", ("slow",))


def test_all_conditions_of_a_question_share_one_budget() -> None:
    rules = [
        rule(f"{SEARCH} || actor.id == 'nobody{number}'", rule_id=f"rule{number}")
        for number in range(5)
    ]
    decision = ask(policy_with(*rules), **question(50, 5_000))
    assert decision.too_expensive == ("rule2", "rule3", "rule4")
    # Positive control: one alone is affordable, and so is the next question.
    assert ask(policy_with(rules[4]), **question(50, 5_000)).too_expensive == ()


def test_a_cheap_rule_allows_behind_one_that_is_too_expensive() -> None:
    policy = policy_with(rule(SEARCH, rule_id="a"), rule("actor.id == 'user_1'", rule_id="b"))
    decision = ask(policy, **question(900, 50_000))
    assert (decision.effect, decision.rule_id) == (Effect.ALLOW, "b")
    assert decision.too_expensive == ("a",)


def test_measuring_large_values_is_charged_too() -> None:
    """A thousand rules that are too expensive do not measure the same values a thousand times."""
    condition = compile_condition(SEARCH)
    asked = question(900, 50_000)
    values = ({}, {"context": asked["context"], "resource.attributes": asked["attributes"]})
    budget = Budget()
    before = budget.left
    assert condition.evaluate(values, budget) is Reason.CONDITION_FAILED
    assert budget.left < before - 100
    for _ in range(60):
        condition.evaluate(values, budget)
    assert budget.left < measured(asked["context"])[1]


def test_deep_values_are_too_expensive_to_measure() -> None:
    """Claims are as deep as a token is long."""
    deep: Any = "x"
    for _ in range(3_000):
        deep = [deep]
    source = "actor.claims.exists(k, context.t.contains(k))"
    values = ({"actor.claims": {"a": deep}}, {"context": {"t": "x"}})
    assert compile_condition(source).evaluate(values) is Reason.CONDITION_FAILED


# --- the model holds ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_no_condition_outgrows_what_it_was_taken_for(seed: int) -> None:
    """Uncharged conditions cost little even with the largest values of attributes."""
    chance = random.Random(seed)
    for source in conditions(chance, 60):
        program = program_of(source)
        if program.estimate is not None:
            continue
        for asked in questions(chance, 3, ATTRIBUTES_MAX):
            assert estimated(program, asked) <= 2 * limits.CONDITION_COST_UNCHARGED_MAX, source


def test_an_accepted_evaluation_takes_no_longer_than_it_is_charged_for() -> None:
    """Searches for the evaluation that takes longest for its cost, among those that are accepted.

    Compared by the processor time of this thread with that of a loop of known cost, so neither a
    slow nor a busy machine matters.
    """
    searched = 0
    for source, ratio in ratios(random.Random(5), 60):
        searched += 1
        assert ratio < RATIO_MAX, source
    assert searched > 20


def test_the_search_finds_a_cost_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control of the test above: as if a search in a text cost nothing by its length."""
    monkeypatch.setattr(cost, "_SEARCH_STEP", 0.0)
    condition_of.cache_clear()
    try:
        assert any(
            source == SEARCH and ratio > RATIO_MAX for source, ratio in ratios(random.Random(5), 0)
        )
    finally:
        condition_of.cache_clear()


RATIO_MAX = 5
"""The loop takes a third of what it is charged for."""


def ratios(chance: random.Random, number: int) -> Iterator[tuple[str, float]]:
    """Accepted evaluations, and how much longer each takes for its cost than a plain loop."""
    loop = program_of("context.l.all(x, x == 'a' || x == 'b')")
    values = ({}, {"context": {"l": ["b"] * 900}})
    seconds_a_unit = min(run(loop, data_of(loop, values)) for _ in range(20)) / estimated(
        loop, values
    )
    for source in [*conditions(chance, number), SEARCH]:
        program = program_of(source)
        searches = [question(100, 5_000), question(900, 500), question(2, 60_000)]
        asks = [
            ({}, {"context": search["context"], "resource.attributes": search["attributes"]})
            for search in searches
        ]
        for asked in asks if source == SEARCH else questions(chance, 3):
            charged = estimated(program, asked)
            if not 300 < charged <= limits.CONDITION_COST_MAX:
                continue
            data = data_of(program, asked)
            took = run(program, data)
            for _ in range(30):  # what else the machine does can only make it longer
                if took < RATIO_MAX * charged * seconds_a_unit:
                    break
                took = min(took, run(program, data))
            yield source, took / (charged * seconds_a_unit)


def run(program: Any, data: dict[str, Any]) -> float:
    began = time.thread_time()
    with suppress(RuntimeError):
        program.expression.eval(data=data).value()
    return time.thread_time() - began


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("abc", 3, 10),
        ("a{1000}", 1_000, 3_000),
        ("(a{10}){50}", 500, 2_000),
        ("(a|b{2,}){300}", 900, 4_000),
        (r"\pL", 3_000, 10_000),
        (r"(\Q)\E\pL){30}", 100_000, 400_000),
        (r"([)(]\pL){30}", 100_000, 400_000),
        (r"[\]\pL]{30}", 100_000, 400_000),
        (r"[]\pL]{30}", 100_000, 400_000),
        (r"[[:alpha:]\pL]{30}", 100_000, 400_000),
        (r"\(\pL\){2}", 3_000, 10_000),
        (r"\\Q\pL\E{30}", 3_000, 10_000),
        ("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", 30, 400),
        ("a{", 2, 10),
        ("a{,5}", 2, 20),
    ],
)
def test_a_pattern_is_as_large_as_its_repetitions_make_it(
    pattern: str, least: float, most: float
) -> None:
    assert least <= pattern_size(pattern).compiling <= most


def test_threads_measure_for_themselves() -> None:
    """The model of a condition is shared, the budgets are not."""
    condition = compile_condition(SEARCH)
    wrong = []

    def work(words: int, text: int, wanted: object) -> None:
        asked = question(words, text)
        values = ({}, {"context": asked["context"], "resource.attributes": asked["attributes"]})
        wrong.extend(1 for _ in range(50) if condition.evaluate(values) is not wanted)

    threads = [
        threading.Thread(target=work, args=arguments)
        for arguments in ((5, 50, False), (900, 50_000, Reason.CONDITION_FAILED)) * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
