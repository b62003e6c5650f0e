"""The part of YAML that is read."""

import pytest

from pdp.document import parse_document
from pdp.errors import InvalidPolicy
from pdp.limits import VIOLATIONS_MAX


def attribute(text: str):
    """The value of an attribute that is written like this."""
    (user,) = parse_document(f"users: [{{id: u, attributes: {{a: {text}}}}}]").users or ()
    return user.attributes["a"]


@pytest.mark.parametrize(
    "text",
    ["no", "on", "Yes", "n", "0123", "0x1F", "0o17", "1_000", "12:30:45", "2026-01-31", ".5", "5.",
     "2026-01-31T12:00:00Z", "+1", ".inf", "-.inf", ".nan", "NaN", "Infinity", "1e", "=", "tRUE"],
)  # fmt: skip
def test_what_old_yaml_would_change_stays_text(text: str):
    assert attribute(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("1", 1.0),
     ("-0.5", -0.5), ("1e3", 1000.0), ("1.5E-1", 0.15), ("0", 0.0), ("'1'", "1"),
     ('"true"', "true")],
)  # fmt: skip
def test_booleans_null_and_json_numbers_are_themselves(text: str, value: object):
    read = attribute(text)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("text", ["9007199254740993", "1e400", "1" * 5000, '"\\0"'])
def test_what_a_double_or_the_database_would_change_is_refused(text: str):
    with pytest.raises(InvalidPolicy) as caught:
        attribute(text)
    assert caught.value.violations[0].field.startswith("users[0].attributes")


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("permissions: &p [a:b]", 1, "anchors"),
        ("permissions: [a:b]\nroles: *p\n", 2, "aliases"),
        ("permissions: [a:b]\nusers: [{id: !!str 1}]", 2, "tags"),
        ("users:\n- !!python/object/apply:os.system [id]", 2, "tags"),
        ("users:\n- ! x", 2, "tags"),
        ("users: []\nusers: []", 2, "twice"),
        ("users:\n- {id: u, attributes: {a: 1,\n   a: 2}}", 3, "twice"),
        ("users:\n- {id: u, attributes: {1: 2}}", 2, "key must be text"),
        ("users:\n- {id: u, attributes: {[a]: 2}}", 2, "key must be text"),
        ("users:\n- {<<: {id: u}}", 2, "merge"),
        ("users: []\n---\nroles: {}", 2, "second YAML document"),
        ("users: [\n", 2, "not YAML"),
        ("users: \t\n- a: b\n c", 3, "not YAML"),
        ("roles:\n\tADMIN: {}\n", 2, "a tab where only spaces are allowed"),
        ("roles:\n  ADMIN:\n  \tallow: []\n", 3, "a tab where only spaces are allowed"),
        ("permissions: [a:b]\nroles: @", 2, "not YAML"),
        ("- a", 1, "mapping of sections"),
        ("text", 1, "mapping of sections"),
        ("version: 2", 1, "must be 1"),
        ("version: true", 1, "must be 1"),
    ],
)
def test_the_rest_of_yaml_is_refused_with_its_line(text: str, line: int, word: str):
    with pytest.raises(InvalidPolicy) as caught:
        parse_document(text)
    assert any(
        violation.line == line and word in violation.description
        for violation in caught.value.violations
    ), caught.value.violations


@pytest.mark.parametrize(
    "text", ["", "# nothing", "\x00", "a: \ud800", "\x01", "%YAML 9.9\n---\na"]
)
def test_what_is_no_document_is_an_invalid_policy_and_nothing_else(text: str):
    with pytest.raises(InvalidPolicy):
        parse_document(text)


def test_a_thousand_million_laughs_stay_ten_lines():
    """After CVE-2025-6203: aliases are refused, so nothing expands."""
    lines = ["a0: &a0 [x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)
    ]
    with pytest.raises(InvalidPolicy):
        parse_document("\n".join(lines))


@pytest.mark.parametrize(
    "text",
    [
        "- *a\n" * 50_000,
        f'? "{"k" * 100_000}"\n: [' + "&a 1, " * 2_000 + "]",
        f'roles:\n  ? "{"k" * 100_000}"\n  : {{allow: [' + "1, " * 2_000 + "]}",
    ],
)
def test_the_errors_of_a_bad_document_are_bounded(text: str) -> None:
    with pytest.raises(InvalidPolicy) as raised:
        parse_document(text)
    assert len(raised.value.violations) <= VIOLATIONS_MAX + 1
    assert sum(len(violation.field) for violation in raised.value.violations) < 200_000
