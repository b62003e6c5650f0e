"""JSON with one reading only."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.strict_json import NotStrictJson, parse_object, with_numbers_as_floats
from tests.kit.stall import Stopwatch

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(value=st.dictionaries(st.text(max_size=5), _VALUES), ascii_only=st.booleans())
def test_what_json_writes_is_read_back(value: dict, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse_object(text, depth_max=64) == value


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":[{"b":1,"b":2}]}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e400}',
        b'{"a":-1e400}',
        b'{"a":' + b"9" * 400 + b"}",
        b'{"a":"\\ud800"}',
        b'{"\\udfff":1}',
        b'{"a":"\xff"}',
        b'{"a":1}x',
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":"\n"}',
        b'"a"',
        b"[{}]",
        b"",
    ],
)
def test_what_has_two_readings_is_refused(text: bytes) -> None:
    with pytest.raises(NotStrictJson):
        parse_object(text, depth_max=16)


def test_depth_is_bounded_and_brackets_in_texts_do_not_count() -> None:
    assert parse_object(b'{"a":' * 16 + b"1" + b"}" * 16, depth_max=16)
    with pytest.raises(NotStrictJson):
        parse_object(b'{"a":' * 17 + b"1" + b"}" * 17, depth_max=16)
    with pytest.raises(NotStrictJson):
        parse_object(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", depth_max=16)
    assert parse_object(json.dumps({"a": '[{"\\' * 100}).encode(), depth_max=1)
    assert parse_object(json.dumps({"a": [[1]] * 100}).encode(), depth_max=3)


def test_the_error_quotes_nothing_of_the_text() -> None:
    with pytest.raises(NotStrictJson) as error:
        parse_object(b'{"secret-canary":NaN,"secret-canary":1}', depth_max=16)
    assert "canary" not in str(error.value)
    assert error.value.__cause__ is None


def test_numbers_become_floats_and_bools_do_not() -> None:
    value = with_numbers_as_floats({"a": [1, True, None, "1", {"b": 2}], "c": 1.5})
    assert value == {"a": [1.0, True, None, "1", {"b": 2.0}], "c": 1.5}
    assert [type(item) for item in value["a"][:2]] == [float, bool]


@pytest.mark.parametrize("tail", [b'\\"' * 30_000, b'"\\' * 30_000, b"\\", b'"', b"[" * 60_000])
def test_a_text_that_never_ends_takes_linear_time(tail: bytes) -> None:
    watch = Stopwatch()
    with pytest.raises(NotStrictJson):
        parse_object(b'{"a":' + b"[" * 20 + b'"' + tail, depth_max=16)
    assert watch.seconds < 1
