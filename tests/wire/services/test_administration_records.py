"""Every method that writes leaves one administration record for each entity that it changes."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from google.protobuf.message import Message
from pdpapi.v1 import administration_service_pb2 as pb
from pdpapi.v1 import core_pb2
from pdpapi.v1.audit_service_pb2 import (
    CHANGE_SOURCE_API,
    CHANGE_SOURCE_TOKEN,
    AdministrationRecord,
    ChangeSource,
    ListChangesRequest,
)
from sqlalchemy import Engine

from pdp.administration_records import AdministrationRecord as Record
from pdp.administrator import Administrator
from pdp.audit import AdministrationLog, ChangeFilter
from pdp.errors import InvalidRequest
from pdp.facts import Barriers, Store
from pdp.wire import Pages, administration_methods, audit_methods
from pdp.wire.callers import Caller
from pdp.wire.methods import Method
from tests.kit.waiting import run

CALLER = Caller("backend-7", frozenset(("administer", "audit")))
READS = {"Export", "StreamExport", "Barrier"}
"""Besides Get and List. They write nothing."""
POLICY = """
version: 1
permissions: {course:view: "", course:edit: "", course:old: ""}
resource_types: {course: {}}
roles:
  READER: {allow: [course:view]}
  OLD: {inherits: [READER], allow: [course:view]}
grants:
  - {id: g1, role: READER, user: user_1}
  - {id: g2, role: READER, organization_role: "org:member", organization: org_1}
  - {id: g3, role: READER, user: user_2, resource: {type: course, id: c1}}
routes: {GET /c: course:view}
users: [{id: user_1}]
organizations: [{id: org_1}]
memberships: [{user: user_1, organization: org_1, role: "org:member"}]
resources: [{type: course, id: c1}]
"""

Expected = set[tuple[str, str, str]]
"""Action, kind and key."""


class Write(NamedTuple):
    """A request, and the records that it must leave."""

    request: Message
    records: Expected


def entity(kind: str, **fields: Any) -> Message:
    types: Mapping[str, Any] = {"Resource": core_pb2.Resource}
    message: Message = types.get(kind, getattr(pb, kind, None))(**fields)
    return message


NEW = {
    "Permission": ("permission", {"name": "course:new"}, "course:new"),
    "ResourceType": ("resource_type", {"name": "lesson"}, "lesson"),
    "Role": ("role", {"name": "R9"}, "R9"),
    "Rule": (
        "rule",
        {"id": "r9", "role": "READER", "effect": pb.EFFECT_ALLOW, "permission": "course:edit"},
        "r9",
    ),
    "Grant": ("grant", {"id": "g9", "role": "READER", "user_id": "user_9"}, "g9"),
    "Route": ("route", {"route": "GET /x", "public": True}, "GET /x"),
    "Resource": ("resource", {"type": "course", "id": "c9"}, "course/c9"),
    "User": ("user", {"id": "user_9"}, "user_9"),
    "Organization": ("organization", {"id": "org_9"}, "org_9"),
    "Membership": (
        "membership",
        {"organization_id": "org_1", "user_id": "user_9", "role": "org:member"},
        "org_1/user_9",
    ),
}
CHANGED: Mapping[str, tuple[dict[str, Any], str]] = {
    "Permission": ({"name": "course:view", "description": "x"}, "course:view"),
    "ResourceType": ({"name": "course", "stored_required": True}, "course"),
    "Role": ({"name": "READER", "description": "x"}, "READER"),
    "Rule": (
        {
            "id": "READER.allow.course:view",
            "role": "READER",
            "effect": pb.EFFECT_DENY,
            "permission": "course:view",
        },
        "READER.allow.course:view",
    ),
    "Grant": ({"id": "g1", "role": "READER", "user_id": "user_5"}, "g1"),
    "Route": ({"route": "GET /c", "public": True}, "GET /c"),
    "Resource": ({"type": "course", "id": "c1", "organization_id": "org_1"}, "course/c1"),
    "User": ({"id": "user_1", "status": pb.USER_STATUS_DISABLED}, "user_1"),
    "Organization": ({"id": "org_1", "name": "x"}, "org_1"),
    "Membership": (
        {"organization_id": "org_1", "user_id": "user_1", "role": "org:admin"},
        "org_1/user_1",
    ),
}
DELETED: Mapping[str, tuple[dict[str, str], set[tuple[str, str]]]] = {
    "Permission": ({"name": "course:old"}, {("permission", "course:old")}),
    "ResourceType": ({"name": "course"}, {("resource_type", "course")}),
    "Role": ({"name": "OLD"}, {("role", "OLD"), ("rule", "OLD.allow.course:view")}),
    "Rule": ({"id": "OLD.allow.course:view"}, {("rule", "OLD.allow.course:view")}),
    "Grant": ({"id": "g1"}, {("grant", "g1")}),
    "Route": ({"route": "GET /c"}, {("route", "GET /c")}),
    "Resource": ({"type": "course", "id": "c1"}, {("resource", "course/c1"), ("grant", "g3")}),
    "User": (
        {"id": "user_1"},
        {("user", "user_1"), ("membership", "org_1/user_1"), ("grant", "g1")},
    ),
    "Organization": (
        {"id": "org_1"},
        {("organization", "org_1"), ("membership", "org_1/user_1"), ("grant", "g2")},
    ),
    "Membership": (
        {"organization_id": "org_1", "user_id": "user_1"},
        {("membership", "org_1/user_1")},
    ),
}


def writes() -> dict[str, Write]:
    found: dict[str, Write] = {}
    for name, (kind, fields, key) in NEW.items():
        made = getattr(pb, f"Create{name}Request")(**{kind: entity(name, **fields)})
        found[f"Create{name}"] = Write(made, {("create", kind, key)})
        values, changed = CHANGED[name]
        made = getattr(pb, f"Update{name}Request")(**{kind: entity(name, **values)})
        found[f"Update{name}"] = Write(made, {("update", kind, changed)})
        parts, deleted = DELETED[name]
        made = getattr(pb, f"Delete{name}Request")(**parts)
        found[f"Delete{name}"] = Write(made, {("delete", *gone) for gone in deleted})
    revoked = pb.RevokeSessionRequest(session_id="sess_1", user_id="user_1")
    found["RevokeSession"] = Write(revoked, {("create", "session", "user_1/sess_1")})
    document = 'version: 1\npermissions: {course:view: "", course:edit: "x", course:add: ""}\n'
    found["Apply"] = Write(
        pb.ApplyRequest(document=document),
        {
            ("update", "permission", "course:edit"),
            ("create", "permission", "course:add"),
            ("delete", "permission", "course:old"),
        },
    )
    return found


class Service:
    """The methods of both services, without the network between."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.administrator = Administrator(Store(engine), lambda _: None)
        self.log = AdministrationLog(engine)
        pages, pool = Pages(lambda: b"secret"), ThreadPoolExecutor(2)
        self.methods = {
            method.name: method
            for method in (
                *administration_methods(self.administrator, Barriers(engine), pages, pool),
                *audit_methods(
                    None,  # type: ignore[arg-type]
                    self.log,
                    None,  # type: ignore[arg-type]
                    pages,
                    reported=None,  # type: ignore[arg-type]
                    pool=pool,
                ),
            )
        }

    def call(self, name: str, request: Any, caller: Caller = CALLER) -> Any:
        method = self.methods[name]
        assert isinstance(method, Method)
        return run(method.answer(request, caller))

    def changes(self, **fields: Any) -> list[AdministrationRecord]:
        return list(self.call("ListChanges", ListChangesRequest(**fields)).changes)

    def records(self) -> list[Record]:
        return list(self.log.list(ChangeFilter(), None, 1_000))


@pytest.fixture
def service(engine: Engine) -> Service:
    return Service(engine)


def action_of(record: AdministrationRecord) -> str:
    if not record.HasField("before"):
        return "create"
    return "update" if record.HasField("after") else "delete"


def test_the_table_of_this_test_holds_every_method_that_writes(service: Service) -> None:
    administering = {m.name for m in service.methods.values() if m.access == "administer"}
    reading = {name for name in administering if name.startswith(("Get", "List"))} | READS
    assert set(writes()) == administering - reading


@pytest.mark.parametrize("name", sorted(writes()))
def test_a_write_leaves_one_record_for_each_entity_that_it_changes(
    service: Service, name: str
) -> None:
    service.administrator.apply(POLICY)
    before = len(service.records())
    request, expected = writes()[name]
    request.reason = "ticket 12"  # type: ignore[attr-defined]
    answer = service.call(name, request)
    records = service.changes(page_size=1_000)[: len(service.records()) - before]
    assert {(action_of(r), r.kind, "/".join(r.key)) for r in records} == expected
    assert len(records) == len(expected)
    for record in records:
        assert record.revision == answer.revision
        assert record.source == CHANGE_SOURCE_API
        assert record.caller == "backend-7"
        assert record.reason == "ticket 12"
        assert record.epoch
        assert record.recorded_at.ToSeconds() > 1_700_000_000
    # Positive control of "exactly one": the same write again changes nothing, or is refused.
    if name.startswith("Update") or name in ("RevokeSession", "Apply"):
        service.call(name, request)
        assert len(service.records()) == before + len(expected)


def test_a_dry_run_and_a_refused_write_leave_no_record(service: Service) -> None:
    service.call("Apply", pb.ApplyRequest(document=POLICY, dry_run=True))
    with pytest.raises(InvalidRequest):
        service.call("CreateRole", pb.CreateRoleRequest(role=pb.Role(name="not a name")))
    assert service.records() == []


def test_a_record_holds_what_was_before_and_what_is_after(service: Service) -> None:
    user = pb.User(id="user_1", email="a@example.test")
    user.attributes.update({"level": 3, "password": "hunter2", "nested": {"api_key": "k"}})
    service.call("CreateUser", pb.CreateUserRequest(user=user))
    user.attributes.update({"level": 4, "password": "correct horse"})
    service.call("UpdateUser", pb.UpdateUserRequest(user=user))
    updated, created = service.changes()
    assert not created.HasField("before")
    assert updated.before == created.after
    assert updated.before["attributes"]["level"] == 3
    assert updated.after["attributes"]["level"] == 4
    assert updated.after["attributes"]["password"] == "[redacted]"
    assert updated.after["attributes"]["nested"]["api_key"] == "[redacted]"


def test_filters_select_by_entity_caller_source_and_time(service: Service) -> None:
    other = Caller("backend-8", frozenset(("administer",)))
    for name, caller in (("R1", CALLER), ("R2", other)):
        service.call("CreateRole", pb.CreateRoleRequest(role=pb.Role(name=name)), caller)
    service.call("UpdateRole", pb.UpdateRoleRequest(role=pb.Role(name="R1", description="x")))
    assert [r.key[0] for r in service.changes()] == ["R1", "R2", "R1"]
    assert [r.revision for r in service.changes(kind="role", key=["R1"])] == [3, 1]
    assert [r.key[0] for r in service.changes(caller="backend-8")] == ["R2"]
    assert service.changes(kind="grant") == []
    assert service.changes(kind="role", key=["R"]) == []
    assert service.changes(source=CHANGE_SOURCE_TOKEN) == []
    assert len(service.changes(source=CHANGE_SOURCE_API)) == 3
    middle = service.changes()[1].recorded_at
    assert [r.revision for r in service.changes(not_before=middle)] == [3, 2]
    assert [r.revision for r in service.changes(before=middle)] == [1]
    for wrong in ({"key": ["R1"]}, {"source": 99}):
        with pytest.raises(InvalidRequest):
            service.changes(**wrong)
    # A key is compared part by part: no text of one part reaches another entity.
    assert service.changes(kind="role", key=["R1", ""]) == []
    assert service.changes(kind='role","R1', key=[""]) == []


def test_pages_hold_each_record_once_in_order(service: Service) -> None:
    service.administrator.apply(POLICY)
    request = ListChangesRequest(page_size=3)
    seen: list[tuple[int, int]] = []
    while True:
        page = service.call("ListChanges", request)
        seen += [(r.revision, r.number) for r in page.changes]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) == len(service.records())
    first = service.call("ListChanges", ListChangesRequest(page_size=3))
    with pytest.raises(InvalidRequest, match="page_token"):
        service.changes(page_size=3, page_token=first.next_page_token, caller="other")


@pytest.mark.parametrize(
    "reason", ["two\nlines", "\x1b[31mred", "a\u2028b", "x" * 501, "null\0", "\x85"]
)
def test_a_reason_that_could_forge_a_line_of_a_log_is_refused(
    service: Service, reason: str
) -> None:
    role = pb.Role(name="R1")
    for name, request in (
        ("CreateRole", pb.CreateRoleRequest(role=role, reason=reason)),
        ("Apply", pb.ApplyRequest(document=POLICY, reason=reason)),
        ("DeleteRole", pb.DeleteRoleRequest(name="R1", reason=reason)),
        (
            "RevokeSession",
            pb.RevokeSessionRequest(session_id="sess_1", user_id="user_1", reason=reason),
        ),
    ):
        with pytest.raises(InvalidRequest, match="reason"):
            service.call(name, request)
    assert service.records() == []


def test_a_token_in_a_reason_is_masked(service: Service) -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyXzEifQ.c2lnbmF0dXJl"
    reason = f"asked with Bearer {token} and sk_live_abcdefghijk"
    service.call("CreateRole", pb.CreateRoleRequest(role=pb.Role(name="R1"), reason=reason))
    [record] = service.changes()
    assert record.reason == "asked with Bearer [redacted] and [redacted]"


def test_every_source_has_a_name_in_the_contract() -> None:
    assert set(ChangeSource.keys()) >= {"CHANGE_SOURCE_API", "CHANGE_SOURCE_UNNAMED"}
