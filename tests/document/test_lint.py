"""Valid policies that are likely to surprise get a warning, and others do not."""

from pathlib import Path

import pytest

from pdp.document import lint, parse_document

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
    found = lint(parse_document(SCHOOL + more))
    assert [one.field for one in found] == [field for field, _ in warnings]
    for one, (_, said) in zip(found, warnings, strict=True):
        assert said in one.description
        assert one.line is not None


@pytest.mark.parametrize("permission", ["course:edit", "course:view"])
def test_a_finding_says_that_a_grant_on_one_course_does_not_apply_without_a_course(permission):
    """Also through a role that the granted one inherits."""
    (warning,) = lint(
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
    assert not lint(
        parse_document(
            "permissions: [a:b]\nroutes: {/a: a:b}\n"
            "roles: {R: {allow: [{permission: a:b, when: 'context.x == \"resource.id\"'}]}}"
        )
    )


def test_our_example_has_no_warnings():
    examples = Path(__file__).parents[2] / "examples"
    for name in ("courses.yaml", "next-courses/pdp.yaml"):
        assert lint(parse_document((examples / name).read_text())) == []
