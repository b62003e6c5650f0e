"""The grammar of names, byte for byte."""

import pytest

from pdp import names

GRAMMARS = {
    names.check_permission: (["course:edit", "a:b", "a.b-c_1:d.e", "c" * 126 + ":x"], ["course:*"]),
    names.check_permission_pattern: (["course:edit", "course:*", "*"], ["*:edit", "*:*", "**"]),
    names.check_resource_type: (["course", "a", "a.b-c_1"], ["course:edit", "*"]),
    names.check_role: (["ADMIN", "a", "org:admin", "A.b-c_1:"], ["1A", "_A", ":A"]),
    names.check_rule_id: (["r1", "9", "ADMIN/course:*/1", "x" * 256], ["-r", "/r", "x" * 257]),
}
NEVER = [
    "",
    " ",
    "course:edit\n",
    "course:edit ",
    " course:edit",
    "c\u043eurse:edit",
    "course\u200b:edit",
    "\uff43ourse:edit",
    "course:\u0435dit",
    "course:edit\x00",
    "\u202ecourse:edit",
    "\ud800:x",
    "c" * 300 + ":x",
]


@pytest.mark.parametrize("check", GRAMMARS)
def test_a_name_follows_its_grammar(check):
    good, bad = GRAMMARS[check]
    assert [name for name in good if check(name, "name")] == []
    for name in [*bad, *NEVER]:
        violation = check(name, "name")
        assert violation is not None
        assert violation.field == "name"


@pytest.mark.parametrize("check", [names.check_permission, names.check_resource_type])
def test_permissions_and_types_are_lower_case(check):
    for name in ("Course:edit", "course:Edit", "COURSE", "course:edit:more", ":edit", "course:"):
        assert check(name, "name") is not None


@pytest.mark.parametrize(
    "value", ["user_1", "a:b#c@d/e|f", "'; DROP TABLE users; --", "%_\\\"'", " x ", "é", "x" * 256]
)
def test_an_identifier_is_any_text(value):
    assert names.check_identifier(value, "id") is None


@pytest.mark.parametrize(
    "value", ["", "a\nb", "a\x00", "\x1f", "\x7f", "\x9b", "\ud800", "x" * 257]
)
def test_an_identifier_has_no_control_characters(value):
    """CVE-2025-25294 (Envoy Gateway): a line feed in an id forged a line of the log."""
    assert names.check_identifier(value, "id") is not None


def test_a_description_may_have_lines():
    assert names.check_description("", "description") is None
    assert names.check_description("one\n\ttwo", "description") is None
    for value in ("\x00", "\r", "\x1b[0m", "\ud800", "x" * 1025):
        assert names.check_description(value, "description") is not None
