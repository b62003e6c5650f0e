"""Every part has one meaning, whatever else the message contains."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pdp.clerk.objects import MalformedObject
from pdp.clerk.observations import UserSeen
from pdp.clerk.webhooks.events import DEPTH_MAX, observation_of, parse_event
from tests.kit.clerk import events as clerk
from tests.kit.clerk.events import event

AWKWARD = [
    "1e999",
    "-1e999",
    "9" * 5_000,
    '{"a":1,"a":2}',
    '"\\ud800"',
    '"\\u0000"',
    "[" * 4_000 + "]" * 4_000,
    '{"a":' * 900 + "1" + "}" * 900,
    '"' + "[" * 4_000 + '"',
    '"' + '\\"[' * 2_000 + '"',
]
awkward = st.recursive(
    st.sampled_from(AWKWARD),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda some: f"[{','.join(some)}]")
        | st.lists(inner, max_size=3).map(
            lambda some: "{" + ",".join(f'"{n % 2}":{one}' for n, one in enumerate(some)) + "}"
        )
    ),
    max_leaves=5,
)


@given(awkward)
@example("[" * 100_000 + "]" * 100_000)
@pytest.mark.parametrize("field", ["unsafe_metadata", "private_metadata", "public_metadata"])
def test_no_user_can_hide_a_ban_behind_what_they_write(field: str, value: str) -> None:
    """`unsafe_metadata` is the browser's to write: JSON that a strict parser refuses as a whole
    would keep every later event about this user from being read."""
    data = clerk.user(banned=True) | {field: "HERE"}
    body = event("user.updated", data).replace(b'"HERE"', value.encode())
    found = observation_of(parse_event(body))
    assert isinstance(found, UserSeen)
    assert found.barred
    assert found.id == "user_1"


@given(awkward)
def test_what_has_no_single_reading_is_no_envelope_and_no_data(value: str) -> None:
    whole = event("user.updated", "HERE")
    with pytest.raises(MalformedObject):
        observation_of(parse_event(whole.replace(b'"HERE"', value.encode())))
    twice = event("user.updated", clerk.user()).replace(b'"banned"', b'"id": "user_2", "banned"')
    with pytest.raises(MalformedObject):
        observation_of(parse_event(twice))


@pytest.mark.parametrize("levels", [DEPTH_MAX - 4, DEPTH_MAX + 4])
def test_fields_after_a_deeply_nested_value_are_read(levels: int) -> None:
    deep: Any = "deep"
    for _ in range(levels):
        deep = [deep]
    data = {"unsafe_metadata": None, **clerk.user(banned=True)} | {"unsafe_metadata": deep}
    found = observation_of(parse_event(event("user.updated", data)))
    assert isinstance(found, UserSeen)
    assert found.barred
