"""Valid policies that are likely to surprise get a warning, and others do not."""

from pathlib import Path

import pytest

from pdp.document import ALL_RULES, lint, lint_applied, parse_document

SCHOOL = """
permissions: [course:edit, course:view, report:view]
roles:
  EDITOR: {inherits: [VIEWER], allow: [course:edit]}
  VIEWER: {allow: [course:view]}
  OWNER:
    allow:
      - {permission: course:edit, when: resource.attributes.owner == actor.id, id: owners}
  ALL:
    deny:
      - {permission: "course:*", when: has(resource.attributes.archived), id: archived}
"""


ONE_COURSE = "grants: [{role: EDITOR, user: u, resource: {type: course, id: c}, id: g}]"


@pytest.mark.parametrize(
    ("more", "warnings"),
    [
        ("", []),
        ("routes: {'/courses/{id}': {permission: course:edit, resource: 'course/{id}'}}", []),
        ("routes: {/reports: report:view, /healthz: public}", []),
        (
            "routes: {'/courses/{id}': course:edit}",
            [("routes./courses/{id}", "the condition of the rule 'owners' has no resource")],
        ),
        (
            "routes: {'/courses/{id}': course:view, /c: course:view}",
            [
                ("routes./c", "needs 'course:view' without naming a resource, so the condition"),
                ("routes./courses/{id}", "the condition of the rule 'archived' has no resource"),
            ],
        ),
        (
            # The route needs another permission than the grant gives.
            f"{ONE_COURSE}\nroutes: {{/reports: report:view}}",
            [],
        ),
        (
            "resource_types: {course: {stored: required}, coarse: {tenancy: none}}",
            [("resource_types.coarse", "no permission is declared for 'coarse'")],
        ),
    ],
)
def test_a_policy_is_warned_of_what_has_no_effect_or_no_resource(more, warnings):
    found = lint_applied(parse_document(SCHOOL + more))
    assert [finding.field for finding in found] == [field for field, _ in warnings]
    for finding, (_, said) in zip(found, warnings, strict=True):
        assert said in finding.description
        assert finding.line is not None


@pytest.mark.parametrize("permission", ["course:edit", "course:view"])
def test_a_finding_says_that_a_grant_on_one_course_does_not_apply_without_a_course(permission):
    """Also through a role that the granted one inherits."""
    (warning,) = lint_applied(
        parse_document(
            "permissions: [course:edit, course:view]\n"
            "roles: {EDITOR: {inherits: [VIEWER], allow: [course:edit]},"
            " VIEWER: {allow: [course:view]}}\n"
            "grants: [{role: EDITOR, user: u, resource: {type: course, id: algebra}, id: g}]\n"
            f"routes: {{'PUT /courses/{{id}}': {permission}}}"
        )
    )
    assert (warning.field, warning.line) == ("routes.PUT /courses/{id}", 4)
    assert "the grant 'g' on course/algebra does not allow it" in warning.description


def test_the_word_resource_in_a_text_is_no_reading_of_the_resource():
    assert not lint_applied(
        parse_document(
            "permissions: [a:b]\nroutes: {/a: a:b}\n"
            "roles: {R: {allow: [{permission: a:b, when: 'context.x == \"resource.id\"'}]}}"
        )
    )


def test_our_example_has_no_warnings():
    examples = Path(__file__).parents[2] / "examples"
    for name in ("courses.yaml", "next-courses/pdp.yaml"):
        found = lint(parse_document((examples / name).read_text()))
        assert [finding for finding in found if finding.rule.level == "warning"] == []


PERMISSIONS = "permissions: [course:edit, course:view]\n"
HELD = "grants: [{role: A, user: u, organization: o, expires_at: '2030-01-01T00:00:00Z'}]\n"
ARCHIVED = "resource.attributes.archived == true"
CASES = {
    "type-without-permission": (
        "resource_types: {coarse: {tenancy: none}}",
        "resource_types: {course: {tenancy: none}}",
    ),
    "route-without-resource": (
        (
            "roles: {A: {allow: [{permission: course:edit, when: resource.id == 'x'}]}}\n"
            "routes: {/a: course:edit}"
        ),
        (
            "roles: {A: {allow: [{permission: course:edit, when: context.id == 'x'}]}}\n"
            "routes: {/a: course:edit}"
        ),
    ),
    "permission-in-no-rule": (
        "roles: {A: {allow: [course:edit], deny: [course:view]}}",
        "roles: {A: {allow: [course:*]}}",
    ),
    "permission-in-no-route": (
        "routes: {/a: course:edit}",
        "routes: {/a: course:edit, /b: course:view}",
    ),
    "role-unheld": (
        "roles: {A: {}, B: {inherits: [A]}}\n" + HELD,
        "roles: {A: {inherits: [B]}, B: {inherits: [C]}, C: {}}\n" + HELD,
    ),
    "rule-shadowed": (
        (
            "roles: {A: {inherits: [B], allow: [{permission: course:edit, when: 'true'}]}, "
            "B: {allow: [course:*]}}"
        ),
        (
            "roles: {A: {inherits: [B], allow: [{permission: course:edit, when: 'true'}]}, "
            "B: {allow: [{permission: 'course:*', when: actor.id == 'y'}, course:view]}}"
        ),
    ),
    "rule-equal": (
        "roles: {A: {inherits: [B], allow: [course:edit]}, B: {allow: [course:edit]}}",
        "roles: {A: {allow: [course:edit]}, B: {allow: [course:edit]}}",
    ),
    "wildcard-beside-deny": (
        "roles: {A: {allow: [course:*], deny: [course:edit]}}",
        "roles: {A: {allow: [course:*]}, B: {deny: [course:edit]}}",
    ),
    "identity-from-caller": (
        "roles: {A: {allow: [{permission: course:edit, when: context.userId == 'u'}]}}",
        (
            "roles: {A: {allow: [{permission: course:edit, when: context.user_agent == 'u' "
            "|| context.place == 'office'}]}}"
        ),
    ),
    "deny-may-fail": (
        f"roles: {{A: {{deny: [{{permission: course:edit, when: {ARCHIVED}}}]}}}}",
        (
            "roles: {A: {deny: [{permission: course:edit, when: "
            f"has(resource.attributes.archived) && {ARCHIVED}}}], "
            f"allow: [{{permission: course:edit, when: {ARCHIVED}}}]}}}}"
        ),
    ),
    "grant-crosses-tenants": (
        "roles: {A: {inherits: [B]}, B: {allow: ['*']}}\ngrants: [{role: A, user: u}]",
        (
            "resource_types: {course: {tenancy: none}}\nroles: {A: {allow: ['*']}}\n"
            "grants: [{role: A, user: u}, {role: A, organization_role: 'org:admin'}]"
        ),
    ),
    "grant-without-console": (
        (
            "permissions: [console:review]\n"
            "roles: {A: {inherits: [B]}, B: {allow: ['console:review']}}\n"
            "grants: [{role: A, user: u, organization: o}, {role: B, organization_role: o:admin}]"
        ),
        (
            "permissions: [console:view]\n"
            "roles: {A: {allow: ['console:*']}, B: {allow: ['*']}}\n"
            "grants: [{role: A, user: u, organization: o}, {role: B, user: u, organization: o}]"
        ),
    ),
    "grant-never-ends": (
        "roles: {A: {}}\ngrants: [{role: A, user: u, organization: o}]",
        "roles: {A: {}}\n" + HELD,
    ),
    "silence-invalid": (
        "roles: {A: {}} # lint: silence role-unhold: a reason",
        "roles: {A: {}}",
    ),
}


def whole(text: str) -> str:
    """A case with the usual permissions, unless it declares its own."""
    return text if text.startswith("permissions") else PERMISSIONS + text


def ids(text: str) -> list[str]:
    return [finding.rule.id for finding in lint(parse_document(whole(text)))]


@pytest.mark.parametrize("rule", [rule.id for rule in ALL_RULES])
def test_a_rule_finds_its_positive_case_and_not_its_negative_one(rule):
    positive, negative = CASES[rule]
    assert rule in ids(positive)
    assert rule not in ids(negative)


@pytest.mark.parametrize("rule", [rule.id for rule in ALL_RULES])
def test_a_rule_has_a_paragraph_in_the_documentation(rule):
    page = (Path(__file__).parents[2] / "docs" / "policy-tools.md").read_text()
    assert f"\n#### {rule}\n" in page


@pytest.mark.parametrize("rule", [rule.id for rule in ALL_RULES[:-1]])
def test_every_finding_has_a_line_and_can_be_silenced_there_with_a_reason(rule):
    text = whole(CASES[rule][0])
    lines = text.splitlines()
    targets = {
        finding.violation.line for finding in lint(parse_document(text)) if finding.rule.id == rule
    }
    assert None not in targets
    for line in sorted(targets, reverse=True):
        lines.insert(line - 1, f"# lint: silence {rule}: it is meant")
    found = lint(parse_document("# nothing\n\n" + "\n".join(lines)))
    reasons = {finding.silenced for finding in found if finding.rule.id == rule}
    assert reasons == {"it is meant"}
    assert "silence-invalid" not in {finding.rule.id for finding in found}


@pytest.mark.parametrize(
    ("comment", "problem"),
    [
        ("# lint: silence role-unheld", "without a reason"),
        ("# lint: silence role-unheld:", "without a reason"),
        ("# lint: silence role-unhold: because", "is not a rule; did you mean role-unheld?"),
        ("# lint: silence rule-equal: because", "is not found here"),
        ("# lint: silence", "'' is not a rule"),
    ],
)
def test_a_comment_that_silences_nothing_is_a_finding_and_silences_nothing(comment, problem):
    text = (
        f"permissions: [course:edit]\n{comment}\nroles: {{A: {{allow: [course:edit]}}}}\ngrants: []"
    )
    found = {finding.rule.id: finding for finding in lint(parse_document(text))}
    assert found["role-unheld"].silenced is None
    assert problem in found["silence-invalid"].violation.description
    assert found["silence-invalid"].violation.line == 2


def test_a_comment_above_the_first_line_silences_in_the_whole_document():
    grants = "".join(f"  - {{role: A, user: u{number}, organization: o}}\n" for number in range(5))
    text = f"# A policy.\n# lint: silence grant-never-ends: Clerk removes staff\n{PERMISSIONS}"
    found = lint(parse_document(f"{text}roles: {{A: {{allow: [course:*]}}}}\ngrants:\n{grants}"))
    assert [finding.silenced for finding in found] == ["Clerk removes staff"] * 5


def test_a_silence_elsewhere_leaves_a_finding_alone():
    grants = (
        "grants:\n  - {role: A, user: u}\n"
        "  # lint: silence grant-never-ends: b\n  - {role: A, user: v}\n"
    )
    found = lint(parse_document(f"{PERMISSIONS}roles: {{A: {{allow: [course:*]}}}}\n{grants}"))
    ends = [finding.silenced for finding in found if finding.rule.id == "grant-never-ends"]
    assert ends == [None, "b"]


@pytest.mark.parametrize("section", ["roles: {A: {allow: [course:edit]}}", "grants: []", ""])
def test_what_a_document_leaves_out_is_not_judged(section):
    """The rest may be stored, or in another file."""
    assert "role-unheld" not in ids(section)


def test_an_identity_that_is_compared_with_what_the_caller_sends_is_found():
    condition = "context.x == actor.id"
    assert "identity-from-caller" in ids(
        f"roles: {{A: {{allow: [{{permission: course:edit, when: {condition}}}]}}}}"
    )
