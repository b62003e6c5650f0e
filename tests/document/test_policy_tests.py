# ruff: noqa: E501  # a case is a line
"""Policy tests: what is read, what is refused, what is found out, what coverage counts."""

import time

import pytest

from pdp.document import Coverage, differences_of, explain_test, parse_tests, run_tests
from pdp.errors import InvalidPolicy

NOW = 1_790_000_000.0
POLICY = """
permissions: [course:view, course:edit]
roles:
  READER: {allow: [course:view]}
  OWNER:
    allow:
      - {permission: course:edit, id: own, when: "resource.attributes.owner == actor.id || actor.second_factor_minutes < 5.0"}
grants:
  - {role: OWNER, user: user_1, id: g1}
  - {role: READER, user: user_2, id: g2, expires_at: "2026-01-01T00:00:00Z"}
users: [{id: user_1}, {id: user_2}]
organizations: [{id: org_1}]
"""


def parsed(text: str, policy: str = POLICY):
    return parse_tests(text, lambda _: policy)


def outcomes(text: str):
    return [bool(outcome.differences) for outcome in run_tests(parsed(text), NOW)]


def problem_of(text: str) -> str:
    with pytest.raises(InvalidPolicy) as caught:
        parsed(text)
    return str(caught.value)


def test_checks_and_tables_are_decided_by_the_core():
    assert (
        outcomes("""
given:
  policy: policy.yaml
  actors: {one: {user: user_1}, fresh: {user: user_1, second_factor_minutes: 2}}
tables:
  - actors: [one, fresh, user_2]
    rows:
      - {permission: course:edit, resource: course:x, expect: [ATTRIBUTE_MISSING, allow, deny]}
      - permission: course:edit
        resource: {type: course, id: x, attributes: {owner: user_1}}
        expect: [allow, allow, PERMISSION_NOT_GRANTED]
checks:
  - ask: {actor: one, permission: course:view}
    expect: deny
    expect_reason: PERMISSION_NOT_GRANTED
  - ask: {actor: user_2, permission: course:view, now: "2025-12-31T23:59:59Z"}
    expect: {decision: allow, rule: "READER.allow.course:view", grant: g2}
  - ask: {actor: user_2, permission: course:view}
    expect: deny
""")
        == [False] * 9
    )


def test_a_wrong_expectation_fails_with_what_was_found():
    file = parsed("""
given: {policy: p}
checks:
  - ask: {actor: user_1, permission: course:view}
    expect: allow
""")
    (outcome,) = run_tests(file, NOW)
    assert outcome.differences == (("decision", "allow", "deny"),)
    assert outcome.test.line == 4
    explained = explain_test(file, outcome.test, NOW)
    assert explained.decision == outcome.decision


def test_a_reason_of_the_other_effect_says_so_first():
    file = parsed("""
given: {policy: p}
checks: [{ask: {actor: user_1, permission: course:view}, expect: ALLOWED_BY_RULE}]
""")
    (outcome,) = run_tests(file, NOW)
    assert [difference.field for difference in outcome.differences] == ["decision", "reason"]


def test_facts_are_added_to_the_policy():
    assert outcomes("""
given:
  policy: p
  facts:
    users: [{id: user_new}]
    memberships: [{organization: org_1, user: user_new, role: "org:member"}]
    grants: [{role: READER, organization_role: "org:member"}]
    resources: [{type: course, id: x, organization: org_1}]
  revoked_sessions: [{session: sess_gone, user: user_new}]
checks:
  - ask: {actor: {user: user_new, organization: org_1}, permission: course:view, resource: course:x}
    expect: allow
  - ask: {actor: {user: user_new, session: sess_gone}, permission: course:view}
    expect: SESSION_REVOKED
""") == [False, False]


def test_every_test_of_a_file_shares_the_time_that_it_names():
    assert outcomes("""
given: {policy: p, now: "2025-06-01T00:00:00Z"}
checks: [{ask: {actor: user_2, permission: course:view}, expect: allow}]
""") == [False]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("given: {policy: p}", "tests nothing"),
        ("given: {policy: p}\nchecks: [{ask: {actor: u, permission: a:b}}]", "expects nothing"),
        ("given: {policy: p}\nchecks: [{ask: {actor: u, permission: a:b}, expect: alow}]",
         "line 2: checks[0].expect: 'alow' is neither allow nor deny nor a reason; did you mean "),
        ("given: {policy: p}\nchecks: [{ask: {actor: u, permision: a:b}, expect: deny}]",
         "checks[0].ask.permission: is missing"),
        ("given: {policy: p}\nchecks: [{ask: {actor: {usr: u}, permission: a:b}, expect: deny}]",
         "checks[0].ask.actor.user: is missing"),
        ("given: {policy: p}\nchecks: [{ask: {actor: u, permission: a:b, resource: x}, expect: deny}]",
         "must be TYPE:ID"),
        ("given: {policy: p}\nchecks: [{ask: {actor: u, permission: a:b}, expect: {rules: x}}]",
         "is not a field here"),
        ("given: {policy: p, now: 2026-01-01}\nchecks: [{ask: {actor: u, permission: a:b}, expect: deny}]",
         "must be an RFC 3339 time"),
        ("given: {policy: p, facts: {roles: {}}}\nchecks: []", "is not one of grants, users"),
        (("given: {policy: p, facts: {grants: [{role: NONE, user: u}]}}\nchecks: "
         "[{ask: {actor: u, permission: a:b}, expect: deny}]"), "there is no role 'NONE'"),
        ("given: {policy: p}\ntables: [{actors: [a, b], rows: [{permission: a:b, expect: [deny]}]}]",
         "has 1 answers for 2 actors"),
        ("given: {policy: {permissions: [x]}}\nchecks: []", "line 1: permissions"),
        ("given: {policy: p}\ngiven: {policy: q}\nchecks: []", "is written twice"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_refused_with_its_place(text, problem):
    """A misspelled expectation that passed would be worse than no test."""
    assert problem in problem_of(text)


LAUGHS = "\n".join(
    ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAUGHS, "anchors (&a0) are not read"),
        ("given: {policy: p}\nchecks: " + "[" * 100_000, "exceeded maximum nesting depth"),
        ("given: {policy: p}\nchecks: " + "[" * 40 + "]" * 40, "is nested more than 32"),
        (f"given: {{policy: p, now: {'9' * 5_000_000}}}\nchecks: []", "given.now: must be text"),
        ((f"given: {{policy: p}}\nchecks: [{{ask: {{actor: u, permission: {'p' * 5_000_000}}}, "
         "expect: {reason: x}}]"), "is neither allow nor deny nor a reason"),
    ],
    ids=["aliases", "open brackets", "nesting", "a huge number", "a huge text"],
)  # fmt: skip
def test_a_bomb_is_refused_soon_with_a_short_error(text, problem):
    """Tests come with pull requests, so a file may be written by anybody."""
    began = time.thread_time()
    found = problem_of(text)
    assert time.thread_time() - began < 5
    assert problem in found
    assert len(found) < 20_000


def test_coverage_names_each_rule_grant_and_branch_that_nothing_decides():
    file = parsed("""
given: {policy: p}
checks:
  - ask: {actor: user_1, permission: course:edit, resource: {type: course, id: x, attributes: {owner: user_1}}}
    expect: allow
""")
    coverage = Coverage()
    list(run_tests(file, NOW, coverage))
    counts, gaps = coverage.gaps(file.document)
    assert counts == {"rules": (1, 2), "grants": (1, 2), "branches": (1, 4)}
    assert [(gap.kind, gap.text, gap.line) for gap in gaps] == [
        ("rule", "rule READER.allow.course:view decides no test", 4),
        ("branch", "rule own: never false: resource.attributes.owner == actor.id", 7),
        ("branch", "rule own: never true: actor.second_factor_minutes < 5.0", 7),
        ("branch", "rule own: never false: actor.second_factor_minutes < 5.0", 7),
        ("grant", "grant g2 of READER decides no test", 10),
    ]


def test_coverage_changes_no_decision():
    file = parsed("""
given: {policy: p}
tables:
  - actors: [user_1, user_2, user_3]
    rows:
      - {permission: course:edit, resource: course:x, expect: [deny, deny, deny]}
      - {permission: course:view, expect: [deny, deny, deny]}
""")
    plain, counted = (
        [outcome.decision for outcome in run_tests(file, NOW, coverage)]
        for coverage in (None, Coverage())
    )
    assert plain == counted
    both = zip(file.tests, plain, strict=True)
    assert not any(differences_of(test, decision) for test, decision in both)
