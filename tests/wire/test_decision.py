"""The questions of a batch: each item is read as it would be alone."""

import asyncio

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from pdpapi.v1.core_pb2 import Resource
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem

from pdp.errors import InvalidRequest
from pdp.wire.services.decision import _question, _questions

VALUES = st.none() | st.booleans() | st.sampled_from([0.0, 1.0]) | st.sampled_from(["", "a", "b"])
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["a", "b"]), VALUES | st.lists(VALUES, max_size=2), max_size=2
)
ITEMS = st.lists(st.tuples(ATTRIBUTES, ATTRIBUTES), min_size=1, max_size=8)


def item_of(attributes: dict[str, object], context: dict[str, object]) -> CheckItem:
    item = CheckItem(permission="course:edit", resource=Resource(type="course", id="1"))
    item.resource.attributes.update(attributes)
    item.context.update(context)
    return item


@given(ITEMS)
def test_every_item_of_a_batch_is_read_as_it_would_be_alone(
    items: list[tuple[dict[str, object], dict[str, object]]],
) -> None:
    request = BatchCheckRequest(items=[item_of(*each) for each in items])
    alone = [_question(item) for item in request.items]
    assert repr(asyncio.run(_questions(request))) == repr(alone)  # 0.0 is not False here


def test_equal_attributes_of_a_batch_are_read_once() -> None:
    request = BatchCheckRequest(items=[item_of({"owner": "ann"}, {}) for _ in range(2)])
    first, second = (question.resource for question in asyncio.run(_questions(request)))
    assert first is not None
    assert second is not None
    assert first.attributes is second.attributes


def test_a_batch_says_in_which_item_attributes_are_wrong() -> None:
    wrong = Struct()
    wrong.fields["owner"].string_value = "an\0n"
    items = [item_of({"owner": "ann"}, {}), CheckItem(permission="course:edit", context=wrong)]
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(_questions(BatchCheckRequest(items=items)))
    assert [violation.field for violation in refused.value.violations] == ["items[1].context"]
