"""JSON documents: read as JSON, as strictly as YAML, with the place of each problem."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.document import parse_document
from pdp.document.json_text import is_json, read_json
from pdp.document.nodes import plain
from pdp.errors import InvalidPolicy
from pdp.limits import DOCUMENT_DEPTH_MAX, VIOLATIONS_MAX
from pdp.model import User

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(VALUES, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_it_reads_what_the_standard_library_reads(
    value: object, ascii_only: bool, indent: int | str | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    root, problems = read_json(text)
    read = plain(root)
    assert (read, problems) == (json.loads(text), [])
    assert json.dumps(read) == json.dumps(value)


@given(st.text('{}[]":,\\ \n\t\ufeffaeu01.-+Eé\U0001f600', max_size=12).map(lambda s: '{"' + s))
def test_it_refuses_what_the_standard_library_refuses(text: str) -> None:
    try:
        wanted = json.loads(text)
    except ValueError:
        with pytest.raises(InvalidPolicy):
            read_json(text)
    else:
        root, duplicates = read_json(text)
        assert duplicates or plain(root) == wanted


def test_a_surrogate_pair_is_one_character_and_half_of_one_is_refused() -> None:
    text = '{"users":[{"id":"user_1","name":"\\ud83d\\ude00"}]}'
    assert parse_document(text).users == (User("user_1", name="\U0001f600"),)
    for half in ("\\ud83d", "\\ude00", "\\ude00\\ud83d", "x\\ud83dx"):
        with pytest.raises(InvalidPolicy) as caught:
            parse_document('{"users":[\n {"id": "user_1", "name": "' + half + '"}]}')
        (wrong,) = caught.value.violations
        assert (wrong.field, wrong.line, wrong.column) == ("users[0].name", 2, 27)
        assert "surrogate" in wrong.description


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ('{"users":\n [{"id": "a"},\n  {"id": "b",}]}', 3, 14, "a key in double quotes"),
        ('{"users": [{"id": "a"} {"id": "b"}]}', 1, 24, "',' or ']' is expected here"),
        ('{"users": [],\n}', 2, 1, "a key in double quotes"),
        ('{"users": []', 1, 13, "',' or '}' is expected here"),
        ('{"users": []} x', 1, 15, "more text after the object"),
        ('{"users": []}\n{"users": []}', 2, 1, "more text after the object"),
        ('{"users": [{"id": "a", "attributes": {"n": NaN}}]}', 1, 44, "'NaN' is not a value"),
        ('{"users": [{"id": "a", "attributes": {"n": -Infinity}}]}', 1, 44, "'-' is not a value"),
        (
            '{"users": [{"id": "a", "attributes": {"n": 1e400}}]}',
            1,
            44,
            "outside of the range of a double",
        ),
        (
            '{"users": [{"id": "a", "attributes": {"n": ' + "1" * 309 + "}}]}",
            1,
            44,
            "outside of the range",
        ),
        ('{"users": [{"id": "a", "attributes": {"n": 01}}]}', 1, 45, "',' or '}' is expected"),
        ('{"users": [{"id": "a\nb"}]}', 1, 21, "invalid control character"),
        ('{"users": [{"id": "a\\x"}]}', 1, 21, "escape"),
        ('{"users": [{"id": "a', 1, 19, "unterminated string"),
        ('{"users": [] /* none */}', 1, 14, "',' or '}' is expected here"),
        ("{\"users\": 'a'}", 1, 11, "is not a value"),
        ('{"users": ', 1, 11, "ends too early"),
    ],
)
def test_invalid_json_is_reported_with_its_line_and_column(
    text: str, line: int, column: int, said: str
) -> None:
    assert is_json(text)
    with pytest.raises(InvalidPolicy) as caught:
        parse_document(text)
    wrong = caught.value.violations[0]
    assert (wrong.line, wrong.column) == (line, column), wrong
    assert said in wrong.description
    assert wrong.description.startswith("is not JSON: ")


def test_duplicate_keys_are_reported_and_the_first_counts() -> None:
    text = '{"users": [{"id": "a",\n  "id": "b"}],\n "users": []}'
    with pytest.raises(InvalidPolicy) as caught:
        parse_document(text)
    assert [
        (violation.field, violation.line, violation.column) for violation in caught.value.violations
    ] == [
        ("users[0].id", 2, 3),
        ("users", 3, 2),
    ]
    root, _ = read_json(text)
    assert plain(root) == {"users": [{"id": "a"}]}
    many = "{" + ",".join(['"a": 1'] * 50_000) + "}"
    assert len(read_json(many)[1]) == VIOLATIONS_MAX


def test_problems_of_meaning_have_their_places_too() -> None:
    text = '{\n\t"users": [\n\t\t{"id": 1, "email": "x"},\n\t\t{"id": "b", "colour": "red"}]\n}'
    with pytest.raises(InvalidPolicy) as caught:
        parse_document(text)
    assert [
        (violation.field, violation.line, violation.column) for violation in caught.value.violations
    ] == [
        ("users[0].id", 3, 4),
        ("users[1].colour", 4, 15),
    ]


def test_depth_is_bounded_before_anything_recurses() -> None:
    fits = DOCUMENT_DEPTH_MAX
    assert read_json("[" * fits + "]" * fits)
    for opening in ("[", '{"a":'):
        with pytest.raises(InvalidPolicy, match="nested"):
            read_json(opening * 100_000)


def test_a_long_document_takes_linear_time() -> None:
    def seconds(count: int) -> float:
        text = json.dumps({"users": [{"id": f"u\n{n}"} for n in range(count)]}, indent=1)
        began = time.process_time()
        read_json(text)
        return time.process_time() - began

    def least(count: int) -> float:
        return min(seconds(count) for _ in range(3))

    # Quadratic, it would take 64 times as long.
    assert least(6_000) < 32 * max(least(750), 0.001)


@pytest.mark.parametrize(
    "text", ["{}", ' \n{ "a": 1}', '\ufeff{"a": 1}', '{"a": [}', '{"permissions": []}']
)
def test_what_begins_as_a_json_object_is_read_as_json(text: str) -> None:
    assert is_json(text)


@pytest.mark.parametrize("text", ["{permissions: [a:b]}", "- {}", "# {}\n{}", "", "{'a': 1}", "[]"])
def test_all_else_is_read_as_yaml(text: str) -> None:
    assert not is_json(text)


def test_numbers_keep_their_values() -> None:
    attributes = '{"a": 1, "b": -0.5, "c": 1E3, "d": true, "e": "1"}'
    document = parse_document(f'{{"users": [{{"id": "u", "attributes": {attributes}}}]}}')
    (user,) = document.users or ()
    assert user.attributes == {"a": 1.0, "b": -0.5, "c": 1000.0, "d": True, "e": "1"}
