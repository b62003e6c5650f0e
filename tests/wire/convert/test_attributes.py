"""Struct -> attributes: exact for what JSON knows, bounded for what strangers send."""

from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from pdp.errors import InvalidRequest, LimitExceeded
from pdp.wire.convert.attributes import attributes_of, struct_of

texts = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
leaf = (
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(texts, max_size=20)
)
values = st.recursive(
    leaf,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(texts, max_size=8), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(texts, max_size=8), values, max_size=5))
def test_what_is_written_is_read_back_exactly(attributes: dict[str, Any]) -> None:
    read = attributes_of(struct_of(attributes), "attributes")
    assert read == attributes
    assert repr(read) == repr(attributes) or sorted(read) == sorted(attributes)


def nested(depth: int) -> Struct:
    struct = Struct()
    for _ in range(depth - 1):
        outer = Struct()
        outer.fields["a"].struct_value.CopyFrom(struct)
        struct = outer
    return struct


def test_sixteen_levels_are_read_and_seventeen_are_refused() -> None:
    """CVE-2026-0994: nested values are refused by depth before anything recurses into them."""
    attributes_of(nested(16), "context")
    with pytest.raises(InvalidRequest, match="attribute_depth_max"):
        attributes_of(nested(17), "context")


def test_a_wide_struct_is_refused_with_the_limit_and_the_value() -> None:
    """CVE-2022-1941: many small keys."""
    struct = Struct()
    struct.update({f"k{i}": True for i in range(1001)})
    with pytest.raises(LimitExceeded) as refusal:
        attributes_of(struct, "context")
    assert refusal.value.metadata == {
        "limit": "attribute_nodes_max",
        "maximum": "1000",
        "value": "1001",
    }


def test_a_large_struct_is_refused_before_it_is_read() -> None:
    struct = Struct()
    struct.update({"k": "x" * (64 * 1024)})
    with pytest.raises(LimitExceeded, match="attribute_bytes_max"):
        attributes_of(struct, "context")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_know_are_refused(number: float) -> None:
    struct = Struct()
    struct.fields["n"].number_value = number
    with pytest.raises(InvalidRequest, match="NaN or an infinity"):
        attributes_of(struct, "context")


@pytest.mark.parametrize("attributes", [{"a": "b\0c"}, {"a\0": 1.0}, {"a": [{"b": "\0"}]}])
def test_a_text_with_nul_is_refused(attributes: dict[str, Any]) -> None:
    """A condition would take "admin\0x" for "admin"."""
    with pytest.raises(InvalidRequest, match="NUL"):
        attributes_of(struct_of(attributes), "context")


def test_a_value_without_a_kind_is_refused() -> None:
    struct = Struct()
    struct.fields["n"].CopyFrom(Value())
    with pytest.raises(InvalidRequest, match="without a kind"):
        attributes_of(struct, "context")
