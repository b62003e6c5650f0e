"""Conditions: which texts are valid, what they answer, and what they can never do."""

import sys
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.decision import ConditionInvalid, compile_condition, decide, resolve_principal
from pdp.decision.conditions import condition_of
from pdp.decision.cost import Budget
from pdp.limits import CONDITION_CHARACTERS_MAX
from pdp.model import Effect, Question, Reason, User, UserFacts
from tests.kit import soak
from tests.kit.decision.builders import GRANT, NOW, TOKEN, ask, policy_with, rule
from tests.kit.decision.programs import program_of

ACTOR = {
    "actor.id": "user_1",
    "actor.session": "sess_1",
    "actor.organization": "org_1",
    "actor.organization_role": "org:admin",
    "actor.organization_permissions": ("org:course:publish",),
    "actor.impersonator": "",
    "actor.attributes": {"department": "physics"},
    "actor.claims": {"plan": "pro"},
    "actor.claimed_permissions": ("course:edit",),
    "now": NOW,
}


def evaluate(source, attributes=None, context=None):
    question = {
        "resource.type": "course",
        "resource.id": "1",
        "resource.organization": "org_1",
        "resource.attributes": attributes or {},
        "context": context or {},
    }
    return compile_condition(source).evaluate((ACTOR, question))


@pytest.mark.parametrize(
    "source",
    [
        "actor.id == 'user_1' && actor.session == 'sess_1' && actor.impersonator == ''",
        "actor.organization == 'org_1' && actor.organization_role == 'org:admin'",
        "actor.attributes.department == 'physics'",
        "actor.claims.plan == 'pro'",
        "'course:edit' in actor.claimed_permissions",
        "'org:course:publish' in actor.organization_permissions",
        "actor.organization_permissions.exists(one, one.startsWith('org:course:'))",
        "resource.type == 'course' && resource.id == '1' && resource.organization == 'org_1'",
        "resource.attributes.size() == 2 && context.size() == 1",
        "resource.attributes['owner'] == actor.id && resource.attributes.seats >= 30.0",
        "context.address.startsWith('10.')",
        "resource.attributes.all(key, key in ['owner', 'seats'])",
        "now > timestamp('2020-01-01T00:00:00Z') && now.getFullYear('UTC') == 2026",
        "context.exists(now, now == 'address')",
    ],
)
def test_a_condition_reads_every_variable_that_is_documented(source):
    attributes = {"owner": "user_1", "seats": 30.0}
    assert evaluate(source, attributes, {"address": "10.0.0.1"}) is True


@pytest.mark.parametrize(
    "source",
    [
        "resource.attributes.owner == 'x'",
        "resource.attributes['owner'] == 'x'",
        "resource.attributes.owner == 'x' || false",
        "resource.attributes.owner == 'x' && true",
        "!(resource.attributes.owner == 'x')",
        "resource.attributes.owner == 'x' ? true : true",
        "['x'].all(x, x == resource.attributes.owner)",
        "['x'].exists(x, x == resource.attributes.owner)",
        "['x'].filter(x, x == resource.attributes.owner).size() >= 0",
        "size(resource.attributes.owner) >= 0",
        "resource.attributes.a.b.c == 1.0",
        "actor.second_factor_minutes < 1000000.0",
        "context.place == 'office'",
    ],
)
@pytest.mark.parametrize("effect", list(Effect))
def test_a_missing_attribute_never_allows_and_never_frees(source, effect):
    """CVE-2024-46989, CVE-2024-48909, CVE-2025-49011, GO-2026-5133 (SpiceDB): a condition that
    cannot be evaluated does not become unconditional. Errors inside `||`, `&&`, `?:` and
    comprehensions are errors of the whole where nothing else settles it."""
    assert evaluate(source) is Reason.ATTRIBUTE_MISSING
    always = rule(rule_id="always", role="ROLE", permission="course:view")
    rules = [rule(source, effect=effect), always]
    if effect is Effect.DENY:
        rules.append(rule(rule_id="allow"))
    decision = ask(policy_with(*rules))
    assert (decision.effect, decision.reason) == (Effect.DENY, Reason.ATTRIBUTE_MISSING)
    assert decision.rule_id == "rule"


def test_an_error_is_absorbed_where_the_other_side_settles_the_result():
    """https://github.com/google/cel-spec, langdef.md, logical operators."""
    assert evaluate("resource.attributes.owner == 'x' || actor.organization_role == 'org:admin'")
    assert evaluate("actor.organization_role == 'org:admin' || resource.attributes.owner == 'x'")
    assert evaluate("resource.attributes.owner == 'x' && actor.id == 'nobody'") is False


@pytest.mark.parametrize(
    "source",
    [
        "1",
        "'true'",
        "[0]",
        "{}",
        "null",
        "0.0 / 0.0",
        "dyn(true)",
        "context.flag",
        "actor.id",
        "resource.attributes.owner == actor.id ? 1 : 2",
        "",
    ],
)
def test_only_a_boolean_is_a_condition(source):
    """node-casbin counted a matcher's non-empty string as an allow."""
    with pytest.raises(ConditionInvalid):
        compile_condition(source)
    if source:  # as if it had reached the database by another way
        decision = ask(policy_with(rule(source)), context={"flag": True})
        assert (decision.effect, decision.reason) == (Effect.DENY, Reason.CONDITION_FAILED)
        denied = ask(policy_with(rule(source, effect=Effect.DENY), rule(rule_id="allow")))
        assert (denied.effect, denied.rule_id) == (Effect.DENY, "rule")


@pytest.mark.parametrize("value", [1.0, "true", [True], {"a": True}, None, 0.0, "", []])
@pytest.mark.parametrize(
    "source", ["context.flag && true", "context.flag || false", "!context.flag"]
)
def test_only_true_allows(source, value):
    """node-casbin counted a matcher's non-empty string as an allow."""
    decision = ask(policy_with(rule(source)), context={"flag": value})
    assert (decision.effect, decision.reason) == (Effect.DENY, Reason.CONDITION_FAILED)


@pytest.mark.parametrize(
    ("source", "line", "column", "message"),
    [
        ("actor.idd == 'x'", 1, 6, "undeclared reference to 'actor.idd'"),
        ("true &&\n  actor.id == 1", 2, 12, "found no matching overload"),
        ("actor.organization_permissions == 'x'", 1, 32, "found no matching overload"),
        ("1.0 in actor.organization_permissions", 1, 5, "found no matching overload"),
        ("actor.id ==", 1, 12, "Syntax error"),
        ("actor.id", 1, 1, "must be of type bool"),
        ("(" * 40 + "true" + ")" * 40, 1, 1, "nests too deeply"),
        ("x" * (CONDITION_CHARACTERS_MAX + 1), 1, 1, "at most 4096"),
        ("'\ud800' == ''", 1, 1, "surrogate"),
    ],
)
def test_an_error_names_its_place(source, line, column, message):
    with pytest.raises(ConditionInvalid) as caught:
        compile_condition(source)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        "actor.__class__ == ''",
        "actor.id.__class__ == ''",
        "getattr(actor.id, '__class__') == ''",
        "'{0.__class__}'.format([actor.id]) == ''",
        "resource.attributes.keys() == []",
        "import('os') == ''",
        "open('/etc/passwd') == ''",
    ],
)
def test_no_python_is_reachable_from_a_condition(source):
    """CVE-2022-36085 (OPA), GHSA-gcjh (cel-go): only the declared variables and the functions of
    the language are there."""
    with pytest.raises(ConditionInvalid):
        compile_condition(source)


@pytest.mark.parametrize(
    "text",
    ['"] || true || ["', "' || true || '", "x' == 'x", "\\' || true //", "{{true}}", "%s", "${1}"],
)
def test_values_are_bound_and_never_spliced_into_a_condition(text):
    """CVE-2022-36085, CVE-2025-46569 (OPA): no text of a caller is ever part of an expression."""
    policy = policy_with(rule("resource.id == 'safe' && resource.attributes.owner == actor.id"))
    decision = ask(policy, resource_id=text, attributes={"owner": text})
    assert (decision.effect, decision.reason) == (Effect.DENY, Reason.CONDITION_NOT_MET)
    assert evaluate("resource.attributes.owner == context.owner", {"owner": text}, {"owner": text})


@pytest.mark.parametrize(
    ("source", "context"),
    [
        ("context.mail.endsWith('@corp.example')", {"mail": "eve@corp.example\0@evil.example"}),
        ("context.role in ['admin']", {"role": "admin\0"}),
        ("'admin' in context.roles", {"roles": ["admin\0"]}),
        ("context.deep.role in ['admin']", {"deep": {"role": "admin\0"}}),
        ("context == {'role': 'admin'}", {"role": "admin\0"}),
        ("context.exists(key, key == 'admin')", {"admin\0": True}),
        ("context['admin\\u0000'] == true || context.size() == 1", {"admin\0": True}),
    ],
)
def test_a_text_is_never_cut_off_at_nul(source, context):
    assert evaluate(source, context=context) is Reason.CONDITION_FAILED


def test_a_fast_path_distinguishes_texts_after_nul():
    assert evaluate("context.role == 'admin'", context={"role": "admin\0"}) is False


def test_a_key_named_like_a_dunder_is_only_a_key():
    """GHSA-gcjh (cel-go): private fields were reachable."""
    source = "resource.attributes.__class__ == 'x'"
    assert evaluate(source) is Reason.ATTRIBUTE_MISSING
    assert evaluate(source, {"__class__": "x"}) is True


@pytest.mark.parametrize(
    "source",
    [
        "actor.id.matches(context.pattern)",
        "matches(actor.id, context.pattern)",
        "actor.id.matches('a' + 'b')",
        "['(a'].exists(p, actor.id.matches(p))",
        "actor.id.matches('(a')",
        "actor.id.matches('a{2000}')",
        "actor.id.matches('(?=a)')",
    ],
)
def test_a_pattern_is_a_literal_re2_expression(source):
    """GHSA-rq2q-4r55-9877 and its like (ReDoS): no caller can choose a pattern."""
    with pytest.raises(ConditionInvalid, match="matches"):
        compile_condition(source)


@pytest.mark.parametrize(
    "source",
    [
        "now.getHours(context.zone) == 1",
        "timestamp(context.at).getDayOfWeek(string(context.zone)) == 1",
        "['UTC'].exists(zone, now.getFullYear(zone) == 2026)",
        "context.at.getMilliseconds(actor.id) == 1",
        "now.getDate('U' + 'TC') == 1",
    ],
)
def test_a_time_zone_is_a_literal(source):
    with pytest.raises(ConditionInvalid, match="time zone"):
        compile_condition(source)


@pytest.mark.parametrize("zone", ["", "'UTC'", "'Europe/Berlin'", "'-07:00'"])
def test_a_time_is_read_in_a_zone(zone):
    source = f"now.getFullYear({zone}) == 2026 && timestamp(context.at).getHours({zone}) < 24"
    assert evaluate(source, context={"at": "2020-01-01T00:00:00Z"}) is True


def test_a_pattern_takes_linear_time():
    """GHSA-rq2q-4r55-9877 and its like (ReDoS): a backtracking matcher would not end."""
    source = "context.text.matches('^(a+)+$')"
    text = "a" * 5_000 + "b"
    evaluate(source, context={"text": text})
    begin = time.thread_time()
    assert evaluate(source, context={"text": text}) is False
    assert time.thread_time() - begin < 0.05


def test_a_nested_loop_over_long_lists_never_allows():
    source = "context.l.all(a, context.l.all(b, context.l.all(c, a == a)))"
    few, many = ["x"] * 3, ["x"] * 900
    assert evaluate(source, context={"l": few}) is True  # positive control
    begin = time.thread_time()
    assert evaluate(source, context={"l": many}) is Reason.CONDITION_FAILED
    assert time.thread_time() - begin < 0.1


@pytest.mark.parametrize(
    "source",
    [
        "context.l.map(x, context.s + context.s).size() > 0",
        "context.l.all(x, x + 'a' != 'b')",
        "context.l.exists(x, context.l + context.l == [])",
        "context.l.all(x, context.l.filter(y, y + x == 'a').size() == 0)",
    ],
)
def test_texts_and_lists_cannot_grow_in_a_loop(source):
    """No budget counts the memory that they would take."""
    with pytest.raises(ConditionInvalid, match="must not join"):
        compile_condition(source)


@pytest.mark.parametrize(
    "source",
    [
        "context.l.map(x, x).size() == 2",
        "context.l.filter(x, x == 'a').size() == 1",
        "context.l.all(x, double(size(x)) + 1.0 == 2.0)",
        "(context.l + ['c']).exists(x, x == 'c')",
    ],
)
def test_macros_collect_and_numbers_add_in_a_loop(source):
    assert evaluate(source, context={"l": ["a", "b"]}) is True


def test_only_the_keys_that_are_read_are_bound():
    """Binding converts whole values: a large attribute nobody reads must cost nothing."""
    large = {f"key{index}": ["x"] * 9 for index in range(90)} | {"level": 4.0}

    def cost(source, attributes):
        evaluate(source, attributes)  # compiled now, so not measured
        best = 1.0
        for _ in range(5):
            begin = time.thread_time()
            for _ in range(100):
                evaluate(source, attributes)
            best = min(best, time.thread_time() - begin)
        return best

    small = cost("resource.attributes.level > 3.0", {"level": 4.0})
    assert cost("resource.attributes.level > 3.0", large) < 4 * small
    # Positive control: reading the whole map does cost.
    assert cost("resource.attributes.size() > 3", large) > 4 * small


def test_rules_with_one_text_share_one_condition():
    source = "actor.id == 'shared'"
    assert compile_condition(source) is condition_of(source)


def test_thirty_two_threads_get_their_own_answers():
    """The runtime is shared by the threads of the server."""
    source = "actor.id == context.id && context.list.exists(x, x == actor.id)"
    condition = compile_condition(source)
    wrong = []

    def work(name):
        for index in range(300):
            asked = name if index % 2 else "other"
            values = ({"actor.id": name}, {"context": {"id": asked, "list": ["a", name]}})
            if condition.evaluate(values) is not bool(index % 2):
                wrong.append((name, index))
            if index % 50 == 0:
                fresh = compile_condition(
                    f"context.id == '{name}' && {index} >= 0 && size('a') == 1"
                )
                if fresh.evaluate(({}, {"context": {"id": name}})) is not True:
                    wrong.append((name, "compiled"))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(f"u{number}",)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


# --- fast paths -----------------------------------------------------------------------------------

operands = st.sampled_from(
    [
        "resource.attributes.a",
        "resource.attributes['b']",
        "context.a",
        "actor.id",
        "resource.id",
        "'x'",
        "'user_1'",
        "true",
        "1.0",
        "null",
        "actor.claims.a",
    ]
)
plain = st.one_of(
    st.builds("dyn({}) == {}".format, operands, operands),
    st.builds("{} == {}".format, operands, operands),
    st.builds("{} != {}".format, operands, operands),
    st.sampled_from(["has(context.a)", "has(resource.attributes.b)", "context.a", "true"]),
)
sources = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.builds("!({})".format, inner),
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("({}) || ({})".format, inner, inner),
    ),
    max_leaves=5,
)
values = st.sampled_from(["x", "user_1", "", True, False, 1.0, None, ["x"], {"a": "x"}])
maps = st.dictionaries(st.sampled_from(["a", "b"]), values)


@pytest.mark.soak
@given(sources, maps, maps, st.booleans())
@settings(
    max_examples=soak.count(20_000, sample=300),
    deadline=None,
    derandomize=not soak.SOAK,
    database=None,
)
def test_a_fast_path_answers_what_the_runtime_answers(source, attributes, context, with_resource):
    try:
        condition = compile_condition(source)
    except ConditionInvalid:
        return
    question = {"context": context}
    if with_resource:
        question |= {"resource.id": "x", "resource.attributes": attributes}
    program = program_of(condition)
    fast_path = program.fast_path
    if fast_path is None:
        return
    quick = fast_path((ACTOR, question))
    if quick is not None:
        slow = condition._evaluate_fully(program, (ACTOR, question), Budget())
        assert quick is slow


def test_the_plain_conditions_do_have_fast_paths():
    """Positive control of the test above."""
    question = {"context": {}, "resource.attributes": {"owner": "user_1", "archived": False}}
    for source, wanted in {
        "resource.attributes.owner == actor.id": True,
        "resource.attributes.archived == true": False,
        "has(resource.attributes.owner) && !resource.attributes.archived": True,
        "resource.attributes.absent == actor.id": None,
        "resource.attributes.owner == actor.id || resource.attributes.absent == 'x'": True,
    }.items():
        assert program_of(compile_condition(source)).fast_path((ACTOR, question)) is wanted


def test_an_absent_factor_is_never_fresh():
    source = "actor.second_factor_minutes < 10.0"
    policy = policy_with(rule(source))
    assert ask(policy).reason is Reason.ATTRIBUTE_MISSING
    assert ask(policy, token=replace(TOKEN, second_factor_minutes=5.0)).effect is Effect.ALLOW
    assert ask(policy, token=replace(TOKEN, second_factor_minutes=10.0)).effect is Effect.DENY


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("has(resource.attributes.archived)", False),
        ("has(resource.attributes.archived) && resource.attributes.archived == true", False),
        ("!has(resource.attributes.archived)", True),
        ("'archived' in resource.attributes", False),
        ("resource.attributes.owner == actor.id", Reason.ATTRIBUTE_MISSING),
        ("resource.id != '' && !has(resource.attributes.locked)", Reason.ATTRIBUTE_MISSING),
        ("resource.type == 'course'", Reason.ATTRIBUTE_MISSING),
        ("resource.organization == actor.organization", Reason.ATTRIBUTE_MISSING),
        ("resource.organization == ''", Reason.ATTRIBUTE_MISSING),
    ],
)
def test_without_a_resource_there_are_no_attributes_and_nothing_else_to_read(source, outcome):
    policy = policy_with(rule(source))
    facts = UserFacts(User("user_1"), {"org_1": "org:member"}, (GRANT,), frozenset())
    principal = resolve_principal(policy, TOKEN, facts, None, NOW)
    decision = decide(principal, Question("course:edit"), ())
    reasons = {True: Reason.ALLOWED_BY_RULE, False: Reason.CONDITION_NOT_MET}
    assert decision.reason is reasons.get(outcome, outcome)
