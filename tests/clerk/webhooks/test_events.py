"""The body of a message -> what was seen."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from pdp import limits
from pdp.clerk.objects import SESSION_ENDS, MalformedObject
from pdp.clerk.observations import (
    DeletionSeen,
    MembershipSeen,
    Observation,
    OrganizationSeen,
    PermissionSeen,
    RoleSeen,
    SessionEnded,
    UserSeen,
)
from pdp.clerk.webhooks.events import TYPES, observation_of, parse_event
from pdp.facts.store.clerk_objects import ClerkKind
from tests.kit.clerk import events as clerk
from tests.kit.clerk.events import INSTANCE_ID, T0, event


def seen(type_: str, data: Any, *, at: int = T0 + 7) -> Observation | None:
    return observation_of(parse_event(event(type_, data, at=at)))


def user_seen(**fields: Any) -> UserSeen:
    found = seen("user.updated", clerk.user(**fields))
    assert isinstance(found, UserSeen)
    return found


# --- what is seen -------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["created", "updated"])
def test_a_user(verb: str) -> None:
    data = clerk.user(
        email="ada@example.test",
        first_name="Ada",
        last_name="Lovelace",
        username="ada",
        public_metadata={"level": 3, "tags": ["a", None]},
        updated_at=T0 + 5,
    )
    assert seen(f"user.{verb}", data) == UserSeen(
        id="user_1",
        updated_at=T0 + 5,
        noticed_at=T0 + 7,
        email="ada@example.test",
        name="Ada Lovelace",
        attributes={"level": 3.0, "tags": ["a", None]},
    )


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"first_name": "Ada", "last_name": None, "username": "al"}, "Ada"),
        ({"first_name": "", "last_name": "Lovelace", "username": "al"}, "Lovelace"),
        ({"first_name": None, "last_name": None, "username": "al"}, "al"),
        ({"first_name": None, "last_name": None, "username": None}, ""),
    ],
)
def test_the_name_is_first_and_last_name_or_else_the_username(
    fields: Mapping[str, Any], wanted: str
) -> None:
    assert user_seen(**fields).name == wanted


def test_the_email_is_the_primary_address_and_not_the_first() -> None:
    addresses = [clerk.email_address(f"idn_{n}", f"{n}@example.test") for n in range(3)]
    some = {"email_addresses": addresses}
    assert user_seen(**some, primary_email_address_id="idn_1").email == "1@example.test"
    assert user_seen(**some, primary_email_address_id="idn_9").email == ""
    assert user_seen(**some, primary_email_address_id=None).email == ""


@pytest.mark.parametrize("addresses", [[], None, {}, [None, 5], [{"id": None}], [{"id": "idn_1"}]])
def test_a_user_may_have_no_email(addresses: object) -> None:
    assert user_seen(email_addresses=addresses, primary_email_address_id="idn_1").email == ""
    assert user_seen(email_addresses=addresses, primary_email_address_id=None).email == ""


@pytest.mark.parametrize("flag", ["banned", "locked", "deprovisioned"])
def test_a_banned_a_locked_and_a_deprovisioned_user_is_barred(flag: str) -> None:
    assert user_seen(**{flag: True}).barred
    assert not user_seen(**{flag: False}).barred
    assert not user_seen(**{flag: None}).barred


def test_of_the_metadata_only_the_public_reaches_the_attributes() -> None:
    """The browser writes `unsafe_metadata`; `private_metadata` is not for other services."""
    found = user_seen(
        public_metadata={"a": 1},
        private_metadata={"private": "canary"},
        unsafe_metadata={"a": 2, "role": "canary"},
    )
    assert found.attributes == {"a": 1.0}
    assert "canary" not in repr(found)


def test_an_organization() -> None:
    data = clerk.organization(name="Acme", slug="acme", updated_at=T0 + 5)
    wanted = OrganizationSeen(
        id="org_1", updated_at=T0 + 5, noticed_at=T0 + 7, slug="acme", name="Acme"
    )
    assert seen("organization.created", data) == wanted
    assert seen("organization.updated", data) == wanted
    bare = seen("organization.updated", {"id": "org_1", "slug": None})
    assert bare == OrganizationSeen(id="org_1", updated_at=0, noticed_at=T0 + 7)


@pytest.mark.parametrize("role", ["org:admin", "admin"])
def test_a_membership_and_its_role_with_the_prefix(role: str) -> None:
    wanted = MembershipSeen(
        id="orgmem_1",
        updated_at=T0 + 5,
        noticed_at=T0 + 7,
        created_at=T0,
        role="org:admin",
        organization_id="org_1",
        user_id="user_1",
    )
    data = clerk.membership(role=role, updated_at=T0 + 5)
    assert seen("organizationMembership.created", data) == wanted
    assert seen("organizationMembership.updated", data) == wanted


def test_a_membership_need_not_say_whose_it_is() -> None:
    """`public_user_data` is not among the fields that Clerk promises."""
    absent = clerk.membership(user_id=None)
    for data in (
        absent,
        {**absent, "public_user_data": None},
        {**absent, "public_user_data": {"user_id": None}},
    ):
        found = seen("organizationMembership.updated", data)
        assert isinstance(found, MembershipSeen)
        assert (found.organization_id, found.user_id) == ("org_1", None)


def test_the_end_of_a_membership_says_which_life_has_ended() -> None:
    data = clerk.membership(created_at=T0 - 9, updated_at=T0 - 9)
    assert seen("organizationMembership.deleted", data) == DeletionSeen(
        kind=ClerkKind.MEMBERSHIP,
        id="orgmem_1",
        updated_at=T0 - 9,
        noticed_at=T0 + 7,
        created_at=T0 - 9,
        organization_id="org_1",
        user_id="user_1",
    )
    bare = seen("organizationMembership.deleted", {"id": "orgmem_1", "deleted": True})
    assert bare == DeletionSeen(
        kind=ClerkKind.MEMBERSHIP, id="orgmem_1", updated_at=0, noticed_at=T0 + 7
    )


@pytest.mark.parametrize("kind", ["user", "organization", "role", "permission"])
def test_a_deletion_needs_no_more_than_the_id(kind: str) -> None:
    for data in (clerk.deleted(kind, "x_1", slug=None, external_id="e"), {"id": "x_1"}):
        assert seen(f"{kind}.deleted", data) == DeletionSeen(
            kind=ClerkKind(kind), id="x_1", updated_at=0, noticed_at=T0 + 7
        )


def test_roles_and_permissions_keep_the_ids_of_clerk() -> None:
    some = [clerk.permission("perm_2", "org:posts:edit"), clerk.permission("perm_1", "org:a:b")]
    data = clerk.role("role_1", "editor", permissions=some, updated_at=T0 + 5)
    wanted = RoleSeen(
        id="role_1",
        updated_at=T0 + 5,
        noticed_at=T0 + 7,
        key="org:editor",
        permissions=(("perm_1", "org:a:b"), ("perm_2", "org:posts:edit")),
    )
    assert seen("role.created", data) == seen("role.updated", data) == wanted
    assert seen("permission.updated", some[0]) == PermissionSeen(
        id="perm_2", updated_at=T0, noticed_at=T0 + 7, key="org:posts:edit"
    )


@pytest.mark.parametrize("verb", ["ended", "removed", "revoked"])
def test_the_end_of_a_session_whatever_its_status_says(verb: str) -> None:
    for status in (verb, "active", None, []):
        data = clerk.session("sess_9", user_id="user_9", status=status)
        ended = SessionEnded(session_id="sess_9", user_id="user_9")
        assert seen(f"session.{verb}", data) == ended


@pytest.mark.parametrize("verb", ["created", "pending"])
def test_the_beginning_of_a_session_matters_only_where_it_is_over_already(verb: str) -> None:
    for status in SESSION_ENDS:
        assert seen(f"session.{verb}", clerk.session(status=status)) is not None
    for status in ("active", "pending", "", None, ["revoked"]):
        data = clerk.session(status=status)
        assert seen(f"session.{verb}", data) is None


# --- times --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestamp", "made_at"),
    [
        (T0, T0),
        (T0 // 1000, T0 + 999),
        (99_999_999_999, 99_999_999_999_999),
        (100_000_000_000, 100_000_000_000),
        (0, 999),
    ],
)
def test_the_time_of_an_event_is_read_in_milliseconds_and_in_seconds(
    timestamp: int, made_at: int
) -> None:
    found = seen("user.updated", clerk.user(), at=timestamp)
    assert isinstance(found, UserSeen)
    assert found.noticed_at == made_at


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{} {}",
        b'{"type":"user.updated","type":"user.deleted","instance_id":"ins_1"}',
        b'{"type":"user.updated","instance_id":NaN}',
        b'{"type":"user.updated","instance_id":"ins_1","x":Infinity}',
        b'{"type":["user.updated"],"instance_id":"ins_1"}',
        b'{"type":"user.updated"}',
        b'\xef\xbb\xbf{"type":"user.updated","instance_id":"ins_1"}',
        b"[" * 100_000,
        b"]" * 100_000,
        b'{"type":"user.updated","instance_id":"ins_1","x":' + b"[" * 100_000,
    ],
)
def test_what_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedObject):
        parse_event(body)


@pytest.mark.parametrize("id_", ["", None, 5, True, [], {}, "a\x00", "a\n", "x" * 257, "\ud800"])
@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("user.updated", clerk.user()),
        ("user.deleted", clerk.deleted("user", "user_1")),
        ("organization.updated", clerk.organization()),
        ("organizationMembership.updated", clerk.membership()),
        ("organizationMembership.deleted", clerk.membership()),
        ("session.revoked", clerk.session()),
        ("role.updated", clerk.role()),
        ("permission.updated", clerk.permission()),
    ],
)
def test_no_id_is_made_up(type_: str, data: dict[str, Any], id_: object) -> None:
    with pytest.raises(MalformedObject):
        seen(type_, {**data, "id": id_})


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("user.updated", None),
        ("user.updated", [clerk.user()]),
        ("user.updated", clerk.user(updated_at="soon")),
        ("user.updated", clerk.user(updated_at=-1)),
        ("user.updated", clerk.user(updated_at=True)),
        ("organizationMembership.updated", clerk.membership(created_at=None)),
        ("organizationMembership.updated", clerk.membership(role="")),
        ("organizationMembership.updated", clerk.membership(role="org:")),
        ("organizationMembership.updated", clerk.membership(organization="org_1")),
        ("organizationMembership.updated", clerk.membership(organization={"id": ""})),
        ("organizationMembership.updated", clerk.membership(public_user_data={"user_id": 5})),
        ("session.revoked", clerk.session(user_id="")),
        ("role.updated", clerk.role(key="")),
        ("role.updated", clerk.role() | {"permissions": "all"}),
        ("role.updated", clerk.role() | {"permissions": [5]}),
        ("role.updated", clerk.role() | {"permissions": [{"id": "perm_1"}]}),
        ("permission.updated", clerk.permission(key="")),
    ],
)
def test_what_all_else_hangs_on_must_be_sound(type_: str, data: Any) -> None:
    with pytest.raises(MalformedObject):
        seen(type_, data)


@pytest.mark.parametrize("timestamp", [None, "1790000000", -1, 1.5, True, []])
def test_an_event_says_when_it_was_made(timestamp: Any) -> None:
    with pytest.raises(MalformedObject, match="timestamp"):
        seen("user.updated", clerk.user(), at=timestamp)


def test_of_an_event_that_is_not_known_only_type_and_instance_are_read() -> None:
    body = json.dumps({"type": "email.created", "instance_id": INSTANCE_ID, "data": None}).encode()
    assert parse_event(body).type == "email.created"
    assert "email.created" not in TYPES


# --- what a user writes costs no more than itself -------------------------------------------------


def nested(levels: int) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"public_metadata": {"a": nested(limits.ATTRIBUTE_DEPTH_MAX)}}, "public_metadata"),
        ({"public_metadata": {"a": nested(900)}}, "public_metadata"),
        ({"public_metadata": {"a": "x" * limits.ATTRIBUTE_BYTES_MAX}}, "public_metadata"),
        ({"public_metadata": {"a": 2**53 + 1}}, "public_metadata"),
        ({"public_metadata": {"a": "\x00canary"}}, "public_metadata"),
        ({"public_metadata": {"\ud800canary": 1}}, "public_metadata"),
        ({"public_metadata": ["canary"]}, "public_metadata"),
        ({"first_name": "canary\x1b[2J"}, "first_name, last_name, username"),
        ({"username": ["canary"]}, "first_name, last_name, username"),
        ({"last_name": "x" * 1100}, "first_name, last_name, username"),
        ({"email": "canary\ud800@example.test"}, "email_addresses"),
        ({"email": 5}, "email_addresses"),
    ],
)
def test_what_cannot_be_stored_is_left_out_and_named_and_the_ban_is_seen(
    fields: dict[str, Any], field: str
) -> None:
    with capture_logs() as logs:
        found = user_seen(**{"email": "ada@example.test", "banned": True, **fields})
    assert found.barred
    assert "canary" not in repr(found)
    assert [(line["event"], line["id"], line["field"]) for line in logs] == [
        ("clerk_field_left_out", "user_1", field)
    ]
    assert "canary" not in repr(logs)
    if field != "email_addresses":
        assert found.email == "ada@example.test"
