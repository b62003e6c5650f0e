"""Dictionaries become Structs exactly, or not at all."""

import datetime
import decimal
import enum
import math

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from pdp_client.attributes import to_struct


def test_each_kind_of_value_keeps_its_kind():
    struct = to_struct(
        {"n": None, "t": True, "f": False, "i": 1, "d": 1.5, "s": "1", "l": [], "m": {}}, "context"
    )
    kinds = {name: value.WhichOneof("kind") for name, value in struct.fields.items()}
    assert kinds == {
        "n": "null_value",
        "t": "bool_value",
        "f": "bool_value",
        "i": "number_value",
        "d": "number_value",
        "s": "string_value",
        "l": "list_value",
        "m": "struct_value",
    }


text = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    text,
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3)
)


@given(st.dictionaries(text, values, max_size=4))
def test_what_goes_in_is_what_the_other_side_reads(attributes):
    assert MessageToDict(to_struct(attributes, "context")) == attributes


@pytest.mark.parametrize("value", [2**53, -(2**53)])
def test_the_largest_exact_integers_are_taken(value: int):
    assert to_struct({"n": value}, "context").fields["n"].number_value == value


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 10**400])
def test_an_integer_that_a_double_cannot_hold_is_refused(value: int):
    with pytest.raises(ValueError, match=r"attributes\.n: an integer beyond 2\*\*53"):
        to_struct({"n": value}, "attributes")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_know_is_refused(value: float):
    with pytest.raises(ValueError, match=r"context\.a\[0\]: a number must be finite"):
        to_struct({"a": [value]}, "context")


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        {1, 2},
        decimal.Decimal(1),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        Colour.RED,
        object(),
        1j,
        (n for n in ()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_in_json_is_refused_without_its_value(value):
    with pytest.raises(TypeError, match=r"context\.a: \w+ has no form in JSON"):
        to_struct({"a": value}, "context")


@pytest.mark.parametrize("key", [1, None, True, b"k"])
def test_a_key_that_is_no_text_is_refused(key):
    with pytest.raises(TypeError, match="a key must be a str"):
        to_struct({key: 1}, "context")


@pytest.mark.parametrize("attributes", [{"a": "\ud800"}, {"\ud800": 1}])
def test_text_that_is_not_unicode_is_refused(attributes):
    with pytest.raises(ValueError, match="not Unicode text"):
        to_struct(attributes, "context")


@pytest.mark.parametrize("wrap", [lambda inner: {"a": inner}, lambda inner: [inner]])
def test_sixteen_levels_are_taken_and_seventeen_are_not(wrap):
    nested: object = {}
    for _ in range(14):
        nested = wrap(nested)
    to_struct({"top": nested}, "context")
    with pytest.raises(ValueError, match="deeper than 16 levels"):
        to_struct({"top": wrap(nested)}, "context")


def test_a_value_that_holds_itself_is_refused():
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="deeper than 16 levels"):
        to_struct({"a": circle}, "context")


def test_something_else_than_a_mapping_is_refused():
    with pytest.raises(TypeError, match="context must be a mapping, not list"):
        to_struct(["a"], "context")
