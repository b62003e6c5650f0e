"""Attributes are JSON within bounds, and nothing else."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdp.attributes import normalise_attributes
from pdp.errors import InvalidRequest, LimitExceeded
from pdp.limits import ATTRIBUTE_BYTES_MAX, ATTRIBUTE_DEPTH_MAX, ATTRIBUTE_NODES_MAX

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5)
json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(text, json, max_size=4))
@settings(deadline=None, derandomize=True, database=None)
def test_json_is_copied_as_it_is(value):
    copy = normalise_attributes(value, "attributes")
    assert copy == value
    assert copy is not value
    assert normalise_attributes(copy, "attributes") == copy


def test_every_number_becomes_a_float_and_a_boolean_stays_one():
    copy = normalise_attributes({"a": 1, "b": [True, -(2**53)], "c": (1,)}, "attributes")
    assert copy == {"a": 1.0, "b": [True, -(2.0**53)], "c": [1.0]}
    assert [type(copy["a"]), type(copy["b"][0]), type(copy["c"])] == [float, bool, list]


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        2**53 + 1,
        object(),
        {1: "x"},
        {None: 1},
        b"bytes",
        {1, 2},
        "\x00",
        "\ud800",
        {"\udfff": 1},
        lambda: True,
        1j,
    ],
)
def test_what_json_cannot_say_is_refused_with_its_path(value):
    """GHSA-gcjh (cel-go): nothing but plain values may reach a condition."""
    with pytest.raises(InvalidRequest) as caught:
        normalise_attributes({"a": [0, value]}, "resource.attributes")
    assert caught.value.violations[0].field == "resource.attributes.a[1]"


@pytest.mark.parametrize("value", [None, [], "x", 1, [("a", 1)]])
def test_attributes_are_a_mapping(value):
    with pytest.raises(InvalidRequest):
        normalise_attributes(value, "attributes")


def nested(depth):
    value = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("limit", "fits", "exceeding"),
    [
        (
            "attribute_depth_max",
            nested(ATTRIBUTE_DEPTH_MAX),
            lambda: nested(ATTRIBUTE_DEPTH_MAX + 1),
        ),
        ("attribute_depth_max", nested(1), lambda: nested(100_000)),
        (
            "attribute_nodes_max",
            {"a": [0] * (ATTRIBUTE_NODES_MAX - 1)},
            lambda: {"a": [0] * ATTRIBUTE_NODES_MAX},
        ),
        ("attribute_nodes_max", {}, lambda: {str(index): None for index in range(500_000)}),
        (
            "attribute_bytes_max",
            {"a": "x" * (ATTRIBUTE_BYTES_MAX - 1)},
            lambda: {"a": "x" * ATTRIBUTE_BYTES_MAX},
        ),
        ("attribute_bytes_max", {}, lambda: {"a": "\u20ac" * (ATTRIBUTE_BYTES_MAX // 3 + 1)}),
        ("attribute_bytes_max", {}, lambda: {"x" * ATTRIBUTE_BYTES_MAX: "x"}),
    ],
)
def test_a_bound_is_met_exactly(limit, fits, exceeding):
    """CVE-2026-0994 (protobuf), CVE-2022-1941 (protobuf): nesting and width exhausted the stack
    or the memory."""
    assert normalise_attributes(fits, "attributes") == fits
    with pytest.raises(LimitExceeded) as caught:
        normalise_attributes(exceeding(), "attributes")
    assert caught.value.metadata["limit"] == limit


def test_an_error_message_does_not_grow_with_its_subject():
    with pytest.raises(InvalidRequest) as caught:
        normalise_attributes({"k" * 60_000: object()}, "attributes")
    assert len(str(caught.value)) < 500
