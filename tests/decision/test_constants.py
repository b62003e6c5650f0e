"""A constant that cannot be evaluated is refused when a condition is written, with its place."""

import pytest

from pdp.decision import ConditionInvalid, compile_condition
from pdp.decision.conditions import condition_of
from pdp.document.parse import parse_document
from pdp.errors import InvalidPolicy
from pdp.model import Effect, Reason
from tests.kit.decision.builders import NOW, ask, policy_with, rule
from tests.kit.decision.programs import program_of


@pytest.mark.parametrize(
    ("source", "line", "column", "message"),
    [
        ('now < timestamp(context.at) + duration("30d")', 1, 39, "720h"),
        ('timestamp("2026-01-01") < now', 1, 10, "2026-01-31T00:00:00Z"),
        ('now.getHours("Amerika/New_York") == 1', 1, 13, "'Amerika/New_York' is not known"),
        ('timestamp(context.at).getDate("utc") == 1', 1, 30, "'utc' is not known"),
        ("context.all(zone, now.getFullYear('+2') == 1)", 1, 34, "'+2' is not known"),
        ('int("x") == 1', 1, 4, "cannot convert string to int"),
        ('uint("-1") == 1u', 1, 5, "string to uint"),
        ("uint(-1) == 1u", 1, 5, "out of uint64 range"),
        ("int(1e30) == 1", 1, 4, "out of int64 range"),
        ('double("x") == 1.0', 1, 7, "string to double"),
        ('bool("x")', 1, 5, "'string' to 'bool'"),
        ('string(b"\\xff") == ""', 1, 7, "malformed UTF-8"),
        ("context.n == 1 / 0", 1, 16, "divide by zero"),
        ("int(context.n) / 0 == 1", 1, 16, "divide by zero"),
        ("int(context.n) % 0 == 1", 1, 16, "modulus by zero"),
        ("uint(context.n) / 0u == 1u", 1, 17, "divide by zero"),
        ("context.l.all(x, int(x) / 0 == 1)", 1, 25, "divide by zero"),
        ("9223372036854775807 + 1 > 0", 1, 21, "overflow"),
        ("[1, 2][2] == 1", 1, 7, "index=2 size=2"),
        ("context.l[-1] == 'a'", 1, 10, "index -1 is negative"),
        ("{'a': 1}['b'] == 1", 1, 9, "Key not found"),
        ("actor.id in [string(int('x'))]", 1, 24, "cannot convert string to int"),
        ('duration("1h") < duration("999999999999s")', 1, 26, "720h"),
        ("timestamp(99999999999999) > now", 1, 10, "timestamp overflow"),
        ("dyn(1) < dyn('a')", 1, 8, "No matching overload"),
        ("[1, 2].exists(x, x / 0 == 1)", 1, 20, "divide by zero"),
        ("[0].all(x, 1 / x == 1)", 1, 8, "divide by zero"),
        ("actor.id == 'ä😀' &&\n  int('x') == 1", 2, 6, "cannot convert string to int"),
    ],
)
def test_a_constant_that_cannot_be_evaluated_is_refused_with_its_place(
    source: str, line: int, column: int, message: str
) -> None:
    with pytest.raises(ConditionInvalid, match="can never be evaluated") as caught:
        compile_condition(source)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        "false && 1 / 0 == 1",
        "true || int('x') == 1",
        "true ? actor.id == 'x' : int('x') == 1",
        "actor.id == 'x' || duration('30d') == duration('1s')",
        "context.l.exists(x, x == 'a' || timestamp('yesterday') < now)",
        "[true].exists(x, x || 1 / 0 == 1)",
    ],
)
def test_a_branch_that_may_never_be_taken_is_no_excuse(source: str) -> None:
    with pytest.raises(ConditionInvalid, match="can never be evaluated"):
        compile_condition(source)


@pytest.mark.parametrize(
    "source",
    [
        'now - timestamp(resource.attributes.created) < duration("720h")',
        'now > timestamp("2026-01-01T00:00:00+02:00")',
        'now.getHours("Europe/Berlin") < 8 || now.getHours("-07:00") > 8 || now.getHours("") > 1',
        "now.getDayOfWeek() in [1, 2, 3, 4, 5]",
        "context.n / 0.0 == 1.0",
        "context.l[0] == 'a'",
        "int(context.n) / 2 == 1 && 7 % 2 == 1",
        "type(context.n) == double && type('a') == string",
        "[0, 1].exists(x, 1 / x == 1)",
        "context.exists(now, now == 'a')",
        "['a'].exists(int, int == 'a')",
        "{'a': 1}['a'] == 1 && has({'a': 1}.b) == false",
        "actor.id.matches('^user_')",
    ],
)
def test_constants_that_can_be_evaluated_are_accepted(source: str) -> None:
    compile_condition(source)


def test_an_error_names_the_place_of_the_constant() -> None:
    document = """
permissions: [course:edit]
roles:
  EDITOR:
    deny:
      - permission: course:edit
        when: now - timestamp(resource.attributes.created) > duration("30d")
"""
    with pytest.raises(InvalidPolicy) as caught:
        parse_document(document)
    [violation] = caught.value.violations
    assert (violation.line, violation.field) == (7, "roles.EDITOR.deny[0].when")
    assert "String to Duration conversion failed" in violation.description
    assert "(column 56)" in violation.description


@pytest.mark.parametrize("effect", list(Effect))
def test_what_an_earlier_version_stored_still_never_allows(effect: Effect) -> None:
    """Stored conditions are not checked again: they fail when the constant is evaluated."""
    source = 'now - timestamp(context.at) < duration("30d")'
    assert condition_of(source).evaluate(({"now": NOW}, {"context": {}})) in (
        Reason.ATTRIBUTE_MISSING,
        Reason.CONDITION_FAILED,
    )
    rules = [rule(source, effect=effect), rule(rule_id="other")][: 1 + (effect is Effect.DENY)]
    decision = ask(policy_with(*rules), context={"at": "2026-01-01T00:00:00Z"})
    assert (decision.effect, decision.reason) == (Effect.DENY, Reason.CONDITION_FAILED)
    lazy = condition_of("actor.id == 'user_1' || 1 / 0 == 1")
    assert lazy.evaluate(({"actor.id": "user_1"}, {"context": {}})) is True


def test_checking_many_constants_takes_time_in_proportion() -> None:
    """A condition of 4,096 characters is at most some hundred constants, each evaluated once."""
    evaluated = 0
    source = " && ".join(f"{number} == {number}" for number in range(300))
    from pdp.decision import constants

    tree = program_of(source).tree

    def error_of(part: bytes) -> None:
        nonlocal evaluated
        evaluated += 1

    assert constants.problem_of(tree, (), error_of, lambda _: False) is None
    assert 300 <= evaluated <= 600
