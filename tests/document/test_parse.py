"""What a document means, and how its problems are reported."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pdp_routes import PUBLIC, Needs

from pdp.document import derived_grant_id, derived_rule_id, parse_document
from pdp.errors import InvalidPolicy, LimitExceeded, Violation
from pdp.limits import (
    DOCUMENT_BYTES_MAX,
    DOCUMENT_DEPTH_MAX,
    RESOURCE_DEPTH_MAX,
    ROLE_DEPTH_MAX,
    VIOLATIONS_MAX,
)
from pdp.model import (
    EVERYWHERE,
    Effect,
    Grant,
    InOrganization,
    Membership,
    OnResource,
    Organization,
    Permission,
    Resource,
    ResourceRef,
    ResourceType,
    Role,
    Route,
    Rule,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
)
from tests.kit import soak


def problems(text: str) -> list[Violation]:
    with pytest.raises(InvalidPolicy) as caught:
        parse_document(text)
    return list(caught.value.violations)


def problem(text: str) -> Violation:
    (only,) = problems(text)
    return only


def test_the_shortest_policy_has_three_lines():
    document = parse_document(
        "permissions: [role:admin]\n"
        "roles: {ADMIN: {allow: [role:admin]}}\n"
        "grants: [{role: ADMIN, user: user_1}]\n"
    )
    assert document.permissions == (Permission("role:admin"),)
    assert document.roles == (Role("ADMIN"),)
    assert document.rules == (Rule("ADMIN.allow.role:admin", "ADMIN", Effect.ALLOW, "role:admin"),)
    (grant,) = document.grants or ()
    assert (grant.role, grant.subject, grant.scope) == ("ADMIN", ToUser("user_1"), EVERYWHERE)
    assert grant.id == derived_grant_id(grant)
    assert document.users is None


def test_every_field_of_every_section_is_read():
    document = parse_document("""
version: 1
permissions: {course:edit: Change a course, course:view: }
roles:
  BASE:
  ROLE:
    description: A role
    inherits: [BASE]
    allow: [{permission: course:edit, when: "actor.id == 'x'", id: my/rule, description: Why}]
    deny: [course:*]
grants:
  - {role: ROLE, user: u, organization: o, not_before: "1970-01-01T00:00:01Z", id: one}
  - {role: ROLE, organization_role: org:admin, resource: {type: course, id: c},
     expires_at: 1970-01-01T02:00:00.5+02:00, id: two}
users: [{id: u, email: e@x, name: N, status: disabled, attributes: {n: 1, deep: [{a: null}]}}]
organizations: [{id: o, slug: s, name: n}]
memberships: [{organization: o, user: u, role: org:member}]
routes:
  GET /courses/{id}: {permission: course:view, resource: "course/{id}"}
  /courses/{id}:
    permission: course:edit
  /healthz: public
  /admin/**: course:edit
resources:
  - {type: course, id: c, organization: o, attributes: {owner: u}}
  - {type: lesson, id: l, organization: o, parent: {type: course, id: c}}
""")
    assert document.permissions == (
        Permission("course:edit", "Change a course"),
        Permission("course:view"),
    )
    assert document.roles == (Role("BASE"), Role("ROLE", "A role", ("BASE",)))
    assert document.rules == (
        Rule("ROLE.deny.course:*", "ROLE", Effect.DENY, "course:*"),
        Rule("my/rule", "ROLE", Effect.ALLOW, "course:edit", "actor.id == 'x'", "Why"),
    )
    assert document.grants == (
        Grant("one", "ROLE", ToUser("u"), InOrganization("o"), not_before=1.0),
        Grant(
            "two",
            "ROLE",
            ToOrganizationRole("org:admin"),
            OnResource(ResourceRef("course", "c")),
            expires_at=0.5,
        ),
    )
    attributes = {"n": 1.0, "deep": [{"a": None}]}
    assert document.routes == (
        Route("/admin/**", Needs("course:edit")),
        Route("/courses/{id}", Needs("course:edit")),
        Route("/healthz", PUBLIC),
        Route("GET /courses/{id}", Needs("course:view", "course/{id}")),
    )
    assert document.users == (User("u", "e@x", "N", UserStatus.DISABLED, attributes),)
    assert document.organizations == (Organization("o", "s", "n"),)
    assert document.memberships == (Membership("o", "u", "org:member"),)
    assert document.resources == (
        Resource("course", "c", "o", None, {"owner": "u"}),
        Resource("lesson", "l", "o", ResourceRef("course", "c")),
    )


def test_all_problems_are_reported_at_once_each_with_its_path_and_line():
    found = problems("""
permissions: [course:view, Course:edit]
roles:
  A:
    inherits: [B]
    allow: [course:vieww, lesson:*, {permission: course:view, when: actor.idd == 1}]
  B: {inherits: [A], alow: []}
  C: {inherits: [A, MISSING]}
grants:
  - {role: NOBODY, user: u}
  - {role: A}
  - {role: A, user: 42}
  - {role: A, user: u, expires_at: tomorrow}
users:
  - {id: u, status: banned}
  - {id: u}
colour: blue
""")
    assert [(item.line, item.field) for item in found] == [
        (2, "permissions[1]"),
        (6, "roles.A.allow[2].when"),
        (6, "roles.A.allow[0].permission"),
        (6, "roles.A.allow[1].permission"),
        (7, "roles.B.alow"),
        (7, "roles.B.inherits"),
        (8, "roles.C.inherits"),
        (10, "grants[0].role"),
        (11, "grants[1]"),
        (12, "grants[2].user"),
        (13, "grants[3].expires_at"),
        (15, "users[0].status"),
        (17, "colour"),
    ]


def test_an_unknown_field_hides_no_other_problem_of_its_item():
    found = problems("""
permissions: [a:b]
roles:
  R:
    alow: []
    inherits: [MISSING]
    allow:
      - {permission: a:b, wen: "true", when: actor.idd == 1}
      - {permision: a:b}
      - 42
      - a:c
    deny:
      - {permission: a:b, when: actor.idd == 2}
grants:
  - {role: NOBODY, user: u, expire_at: x}
  - {role: R, usr: u}
resources:
  - {type: t, id: i, owner: x, parent: {type: t, id: i, id2: x}}
""")
    assert [(item.line, item.field) for item in found] == [
        (4, "roles.R.inherits"),
        (5, "roles.R.alow"),
        (8, "roles.R.allow[0].wen"),
        (8, "roles.R.allow[0].when"),
        (9, "roles.R.allow[1].permission"),
        (9, "roles.R.allow[1].permision"),
        (10, "roles.R.allow[2]"),
        (11, "roles.R.allow[3].permission"),
        (13, "roles.R.deny[0].when"),
        (15, "grants[0].expire_at"),
        (15, "grants[0].role"),
        (16, "grants[1].usr"),
        (18, "resources[0].parent.id2"),
        (18, "resources[0].owner"),
    ]


def test_a_condition_is_compiled_and_its_error_names_the_column():
    wrong = problem(
        "permissions: [a:b]\n"
        "roles: {R: {allow: [{permission: a:b, when: 'actor.id == resource.idd'}]}}\n"
    )
    assert wrong.field == "roles.R.allow[0].when"
    assert wrong.line == 2
    assert "resource.idd" in wrong.description
    assert "column" in wrong.description


@pytest.mark.parametrize(
    "condition",
    [
        "actor.__class__.__mro__ == []",
        "getattr(actor, 'id') == ''",
        "'{0}'.format(actor.id) == ''",
        "open('/etc/passwd') == ''",
        "actor",
        "resource.id",
        "1",
    ],
)
def test_no_python_is_reachable_from_a_condition(condition: str):
    """After OPA CVE-2022-36085 and cel-go GHSA-gcjh: dunders, builtins and format strings
    do not compile, nor does what is no boolean."""
    text = (
        f'permissions: [a:b]\nroles: {{R: {{deny: [{{permission: a:b, when: "{condition}"}}]}}}}\n'
    )
    assert problem(text).field == "roles.R.deny[0].when"


def test_an_inheritance_circle_is_named():
    """After OpenFGA CVE-2023-43645: refused when it is written."""
    wrong = problem("roles: {A: {inherits: [B]}, B: {inherits: [C]}, C: {inherits: [A]}}")
    assert wrong.description == "inherits in a circle: A -> B -> C -> A"


def test_inheritance_of_depth_10000_is_refused_and_a_diamond_of_2_to_the_30_paths_is_not():
    """After OpenFGA CVE-2023-45810 and CVE-2023-35933: each role is visited once."""
    chain = "\n".join(f"  R{n}: {{inherits: [R{n + 1}]}}" for n in range(10_000))
    wrong = problem(f"roles:\n{chain}\n  R10000:\n")
    assert "more than 32 roles" in wrong.description

    layers = range(ROLE_DEPTH_MAX - 2)
    diamond = "\n".join(
        f"  {side}{n}: {{inherits: [L{n + 1}, R{n + 1}]}}" for n in layers for side in "LR"
    )
    document = parse_document(f"roles:\n{diamond}\n  L{len(layers)}:\n  R{len(layers)}:\n")
    assert len(document.roles or ()) == 2 * (len(layers) + 1)


def test_many_long_circles_are_reported_in_little_time_and_space():
    """2,000 circles of up to 2,000 roles would be megabytes of names."""
    roles = "\n".join(f"  R{n}: {{inherits: [R{n + 1}, R0]}}" for n in range(2_000))
    found = problems(f"roles:\n{roles}\n  R2000: {{inherits: [R0]}}\n")
    assert len(found) <= VIOLATIONS_MAX + 1
    assert max(len(item.description) for item in found) < 1_000


def test_the_longest_chain_of_roles_has_the_length_of_the_limit():
    def chain(length: int) -> str:
        links = "".join(f"  R{n}: {{inherits: [R{n + 1}]}}\n" for n in range(1, length))
        return f"roles:\n{links}  R{length}:\n"

    assert len(parse_document(chain(ROLE_DEPTH_MAX)).roles or ()) == ROLE_DEPTH_MAX
    assert problem(chain(ROLE_DEPTH_MAX + 1)).field == "roles.R1.inherits"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ("[{type: a, id: x, parent: {type: a, id: x}}]", "is below itself"),
        ("[{type: a, id: x, parent: {type: a, id: y}}]", "there is no resource a/y"),
        ("[{type: a, id: x}, {type: a, id: y, organization: o, parent: {type: a, id: x}}]", "belo"),
    ],
)
def test_a_parent_must_be_there_above_and_of_the_same_organization(resources: str, expected: str):
    assert expected in problem(f"resources: {resources}").description


def test_the_longest_chain_of_resources_has_the_length_of_the_limit():
    def chain(length: int) -> str:
        items = ["{type: a, id: '1'}"]
        items += [
            f"{{type: a, id: '{n}', parent: {{type: a, id: '{n - 1}'}}}}"
            for n in range(2, length + 1)
        ]
        return f"resources: [{', '.join(items)}]"

    assert len(parse_document(chain(RESOURCE_DEPTH_MAX)).resources or ()) == RESOURCE_DEPTH_MAX
    assert "levels deep" in problem(chain(RESOURCE_DEPTH_MAX + 1)).description


def test_a_section_without_a_value_is_refused_and_an_empty_one_is_not():
    assert "[]" in problem("grants:\n").description
    assert parse_document("grants: []").grants == ()


def test_the_same_entity_twice_is_refused_with_both_lines():
    grant = "{role: R, user: u}"
    wrong = problem(f"roles: {{R: {{}}}}\ngrants:\n- {grant}\n- {grant}\n")
    assert (wrong.line, "line 3" in wrong.description) == (4, True)
    wrong = problem("permissions: [a:b]\nroles: {R: {allow: [\n a:b,\n a:b]}}\n")
    assert (wrong.line, "line 3" in wrong.description) == (4, True)


def test_rules_whose_derived_ids_would_collide_get_suffixes():
    document = parse_document(
        "permissions: [a:b]\nroles: {R: {allow: [a:b]}, S: {allow: [{permission: a:b, "
        "id: R.allow.a:b}]}}"
    )
    assert [rule.id for rule in document.rules or ()] == ["R.allow.a:b", "R.allow.a:b.2"]


def test_a_derived_rule_id_of_the_longest_names_is_an_id():
    rule = Rule("", "R" * 128, Effect.ALLOW, f"{'a' * 63}:{'b' * 64}", "true")
    other = Rule("", "R" * 128, Effect.ALLOW, f"{'a' * 63}:{'b' * 64}", "false")
    assert len(derived_rule_id(rule)) <= 256
    assert derived_rule_id(rule) != derived_rule_id(other)


def test_grants_that_differ_in_where_a_field_ends_have_other_ids():
    one = Grant("", "R", ToUser("u"), OnResource(ResourceRef("ab", "c")))
    other = Grant("", "R", ToUser("u"), OnResource(ResourceRef("a", "bc")))
    assert derived_grant_id(one) != derived_grant_id(other)


@pytest.mark.parametrize(
    "name", ["course:ed\u0456t", "course:edit\u200b", "\uff43ourse:edit", "course:Edit"]
)
def test_a_permission_that_looks_like_another_is_refused(name: str):
    """Names are ASCII, so that no confusable, zero-width or full-width twin exists."""
    assert problem(f'permissions: ["{name}"]').field == "permissions[0]"


@pytest.mark.parametrize(
    "user", ["' OR 1=1 --", "%", "_", "\\", '"', "user\u202e1", "' '", "User_1", "\u017f", "\u00df"]
)
def test_identifiers_are_kept_byte_for_byte(user: str):
    """An id is data, whatever it looks like."""
    quoted = "'" + user.replace("'", "''") + "'"
    document = parse_document(f"users: [{{id: {quoted}}}]")
    assert document.users == (User(user),)


def test_a_longer_document_than_the_limit_is_refused_before_it_is_read():
    with pytest.raises(LimitExceeded) as caught:
        parse_document("#" * (DOCUMENT_BYTES_MAX + 1))
    assert caught.value.metadata["limit"] == "document_bytes_max"


@pytest.mark.parametrize(
    ("routes", "field", "said"),
    [
        ("{/a: }", "routes./a", "must be a permission, public, or a mapping"),
        ("{/a: 1}", "routes./a", "must be a permission, public, or a mapping"),
        ("{/a: {}}", "routes./a.permission", "is missing"),
        ("{/a: {permission: a:b, id: x}}", "routes./a.id", "is not a field here"),
        ("{/a: {permission: public}}", "routes./a", "'public' is not a permission"),
        ("{/a: Public}", "routes./a", "'Public' is not a permission"),
        ("{/a: {permission: a:b, resource: 'a/{id}'}}", "routes./a", "no variable {id}"),
        ("{a: public}", "routes.a", "must begin with /"),
        ("{/a: a:c}", "routes./a", "the permission 'a:c' is not declared"),
        ("{'/a/{x}': a:b, '/{y}/b': a:b}", "routes./{y}/b", "and '/a/{x}' could take the same"),
        ("{/a: a:b, /A: public}", "routes./a", "and '/A' differ only in letter case"),
        ("{/a: a:b, /a: public}", "/a", "is written twice"),
    ],
)
def test_a_route_that_cannot_be_meant_is_refused(routes: str, field: str, said: str):
    wrong = problem(f"permissions: [a:b]\nroles: {{R: {{}}}}\nroutes: {routes}")
    assert (wrong.field, wrong.line) == (field, 3)
    assert said in wrong.description


def test_a_resource_type_says_whether_its_resources_have_tenants_and_are_stored():
    document = parse_document(
        "resource_types:\n  course: {stored: required}\n  no: {tenancy: none}\n"
        "  invoice: {tenancy: organization, stored: optional}\n  page:\n"
    )
    assert document.resource_types == (
        ResourceType("course", Tenancy.ORGANIZATION, stored_required=True),
        ResourceType("invoice"),
        ResourceType("no", Tenancy.NONE),
        ResourceType("page"),
    )


@pytest.mark.parametrize(
    ("resource_types", "field", "said"),
    [
        ("{a: none}", "resource_types.a", "must be a mapping"),
        ("{a: {tenancy: null}}", "resource_types.a.tenancy", "must be 'organization' or 'none'"),
        ("{a: {tenancy: None}}", "resource_types.a.tenancy", "must be 'organization' or 'none'"),
        ("{a: {stored: true}}", "resource_types.a.stored", "must be 'optional' or 'required'"),
        ("{a: {store: required}}", "resource_types.a.store", "(fields: tenancy, stored)"),
        ("{a:b: {}}", "resource_types.a:b", "a lower-case resource type such as course"),
        ("{A: {}}", "resource_types.A", "a lower-case resource type such as course"),
        ("[a]", "resource_types", "must be a mapping"),
    ],
)
def test_a_resource_type_that_cannot_be_meant_is_refused(
    resource_types: str, field: str, said: str
):
    wrong = problem(f"resource_types: {resource_types}")
    assert (wrong.field, wrong.line) == (field, 1)
    assert said in wrong.description


def test_a_deeper_document_than_the_limit_is_refused():
    """After CVE-2026-0994: depth is refused while reading, without recursion."""
    assert "levels deep" in problem("[" * (DOCUMENT_DEPTH_MAX + 1)).description
    # Far deeper, the library refuses before it reports the first level.
    for text in ("[" * 1_000_000, '{"a":' * 100_000):
        said = problem(text).description
        assert "levels deep" in said or "maximum nesting depth" in said


def test_many_problems_are_cut_short():
    found = problems("permissions: [" + "X, " * (VIOLATIONS_MAX * 3) + "]")
    assert len(found) == VIOLATIONS_MAX + 1
    assert "more problems" in found[-1].description


COURSES = (Path(__file__).parents[2] / "examples" / "courses.yaml").read_text()
PIECES = ["&a ", "*a", "!!int ", "<<", "- ", ": ", "[", "]", "{", "}", "null", "1e999", "'", '"',
          "|", "\n", "  ", "\t", "#", "?", "%", "@", "`",
          "0" * 5000, "\ud800", "\x00", "\ufeff", "\u2028"]  # fmt: skip


@settings(deadline=None, max_examples=soak.count(300, sample=60))
@given(
    st.integers(0, len(COURSES)),
    st.integers(0, 40),
    st.lists(st.sampled_from(PIECES), max_size=4).map("".join) | st.text(max_size=20),
)
def test_a_damaged_document_is_a_policy_or_an_invalid_one(at: int, cut: int, inserted: str):
    """No text makes anything else come out: no traceback, no other error."""
    damaged = COURSES[:at] + inserted + COURSES[at + cut :]
    try:
        parse_document(damaged)
    except InvalidPolicy as error:
        assert error.violations


@pytest.mark.parametrize(
    "section", ["permissions", "roles", "grants", "users", "organizations", "memberships",
                "routes", "resources", "resource_types", "version"]
)  # fmt: skip
@pytest.mark.parametrize(
    "value", ["1", "true", "text", "[1]", "[null]", "[[]]", "[{}]", "{a: 1}", "{a: []}",
              "{a: {b: 1}}", "{A: {allow: 1}}", "{A: {allow: [1]}}", "{A: {allow: [{}]}}",
              "{A: {inherits: A}}",
              "{A: {inherits: [1]}}", "[{id: [], type: {}}]", "[{id: u, attributes: []}]",
              "[{type: a, id: b, parent: c}]", "[{role: R, user: u, resource: []}]"]
)  # fmt: skip
def test_a_section_of_another_shape_is_refused_with_a_line(section: str, value: str):
    if (section, value) == ("version", "1"):
        return
    try:
        parse_document(f"\n{section}: {value}")
    except InvalidPolicy as error:
        assert {violation.line for violation in error.violations} == {2}
    else:
        pytest.fail("was taken for a policy")
