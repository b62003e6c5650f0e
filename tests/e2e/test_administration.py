"""The administration service, from the wire to SQL and back."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pdpapi.v1 import administration_service_pb2 as pb
from pdpapi.v1 import core_pb2

from pdp.database.engine import open_engine
from pdp.facts import Store
from pdp.model import User
from tests.kit import soak
from tests.kit.server import ServerProcess, Stubs, running_server, stubs_on
from tests.kit.sqlite import make_sqlite
from tests.kit.wire.errors import error_info, rpc_error

ATTRIBUTES = {"level": 3.0, "tags": ["a", {"b": None}], "open": True}


@pytest.fixture(scope="module")
def administered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stubs]:
    with running_server(tmp_path_factory.mktemp("administered")) as (_, stubs):
        yield stubs


def with_attributes(message: Any) -> Any:
    message.attributes.update(ATTRIBUTES)
    return message


ROLE = pb.Role(name="R1", description="first")
# For each kind: what is created, and what it is then replaced by.
ENTITIES: list[tuple[str, str, Message, Message]] = [
    (
        "Permission",
        "Permissions",
        pb.Permission(name="course:edit"),
        pb.Permission(name="course:edit", description="Change"),
    ),
    (
        "ResourceType",
        "ResourceTypes",
        pb.ResourceType(name="course", tenancy=pb.TENANCY_ORGANIZATION, stored_required=True),
        pb.ResourceType(name="course", tenancy=pb.TENANCY_NONE),
    ),
    ("Role", "Roles", ROLE, pb.Role(name="R1", description="again", inherits=["R0"])),
    (
        "Rule",
        "Rules",
        pb.Rule(id="rule-1", role="R0", effect=pb.EFFECT_ALLOW, permission="course:view"),
        pb.Rule(
            id="rule-1",
            role="R0",
            effect=pb.EFFECT_DENY,
            permission="course:*",
            condition="context.a == actor.id",
        ),
    ),
    (
        "Grant",
        "Grants",
        pb.Grant(id="grant-1", role="R0", user_id="user_1"),
        pb.Grant(
            id="grant-1",
            role="R0",
            organization_role="org:admin",
            resource=core_pb2.ResourceRef(type="course", id="c"),
        ),
    ),
    (
        "Route",
        "Routes",
        pb.Route(route="GET /c/{id}", permission="course:view", resource="course/{id}"),
        pb.Route(route="GET /c/{id}", public=True),
    ),
    (
        "Resource",
        "Resources",
        with_attributes(core_pb2.Resource(type="course", id="Ü/1")),
        core_pb2.Resource(type="course", id="Ü/1", organization_id="org_1"),
    ),
    (
        "User",
        "Users",
        with_attributes(pb.User(id="user_1", email="a@b.test", status=pb.USER_STATUS_ACTIVE)),
        pb.User(id="user_1", name="One", status=pb.USER_STATUS_DISABLED),
    ),
    (
        "Organization",
        "Organizations",
        pb.Organization(id="org_1", slug="one"),
        pb.Organization(id="org_1", name="One"),
    ),
    (
        "Membership",
        "Memberships",
        pb.Membership(organization_id="org_1", user_id="user_1", role="org:member"),
        pb.Membership(organization_id="org_1", user_id="user_1", role="org:admin"),
    ),
]


def call(stubs: Stubs, method: str, /, **fields: Any) -> Any:
    request = getattr(pb, f"{method}Request")(**fields)
    return getattr(stubs.administration, method)(request, timeout=10)


@pytest.mark.parametrize(
    ("kind", "plural", "first", "second"), ENTITIES, ids=[kind for kind, *_ in ENTITIES]
)
def test_an_entity_is_created_read_listed_replaced_and_deleted(
    administered: Stubs, kind: str, plural: str, first: Any, second: Any
) -> None:
    stubs = administered
    for name, request in (
        ("CreatePermission", {"permission": pb.Permission(name="course:view")}),
        ("CreateRole", {"role": pb.Role(name="R0")}),
    ):
        try:
            call(stubs, name, **request)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
    field = re.sub("(?<=[a-z])(?=[A-Z])", "_", kind).lower()
    key_fields = [field.name for field in getattr(pb, f"Get{kind}Request").DESCRIPTOR.fields]
    key = {name: getattr(first, name) for name in key_fields}

    created = call(stubs, f"Create{kind}", **{field: first})
    assert getattr(created, field) == first
    again = rpc_error(lambda: call(stubs, f"Create{kind}", **{field: first}))
    assert again.code() is grpc.StatusCode.ALREADY_EXISTS
    assert error_info(again).metadata["kind"] == field
    assert getattr(call(stubs, f"Get{kind}", **key), field) == first
    assert first in getattr(call(stubs, f"List{plural}"), f"{field}s")
    updated = call(stubs, f"Update{kind}", **{field: second})
    assert updated.revision > created.revision
    assert getattr(call(stubs, f"Get{kind}", **key), field) == second
    deleted = call(stubs, f"Delete{kind}", **key)
    assert deleted.revision > updated.revision
    for name, request in (
        (f"Get{kind}", key),
        (f"Delete{kind}", key),
        (f"Update{kind}", {field: second}),
    ):
        error = rpc_error(lambda name=name, request=request: call(stubs, name, **request))
        assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("name", "fields", "wrong"),
    [
        ("CreateRole", {"role": pb.Role(name="1")}, "name"),
        ("CreateRole", {"role": pb.Role(name="R\u0410")}, "name"),
        ("CreatePermission", {"permission": pb.Permission(name="edit")}, "name"),
        ("CreateRule", {"rule": pb.Rule(role="R", permission="a:b")}, "effect"),
        (
            "CreateRule",
            {
                "rule": pb.Rule(
                    role="R", permission="a:b", effect=pb.EFFECT_ALLOW, condition="actor.idd == 1"
                )
            },
            "condition",
        ),
        ("CreateGrant", {"grant": pb.Grant(role="R")}, "subject"),
        ("CreateRoute", {"route": pb.Route(route="/a")}, "needs"),
        ("CreateRoute", {"route": pb.Route(route="/a", public=False)}, "needs"),
        ("CreateRoute", {"route": pb.Route(route="/a", permission="")}, "route"),
        ("CreateRoute", {"route": pb.Route(route="/a", public=True, resource="a/{b}")}, "resource"),
        ("CreateUser", {"user": pb.User(id="a\nb")}, "id"),
        ("CreateUser", {"user": pb.User(id="u", status=9)}, "status"),  # type: ignore[arg-type]
        ("ListRoles", {"page_size": 1001}, "page_size"),
        ("ListRoles", {"page_token": "forged"}, "page_token"),
        ("Apply", {"document": "roles: {A: {allow: [nothing:here]}}"}, "roles.A"),
    ],
)
def test_what_is_malformed_is_refused_by_the_name_of_its_field(
    administered: Stubs, name: str, fields: dict[str, Any], wrong: str
) -> None:
    error = rpc_error(lambda: call(administered, name, **fields))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert any(wrong in violation.field for violation in bad.field_violations), bad


def test_a_dry_run_says_what_apply_then_does(administered: Stubs) -> None:
    document = "permissions: [a:b]\nroles: {A: {allow: [a:b]}}\ngrants: []\n"
    dry = call(administered, "Apply", document=document, dry_run=True)
    assert {(change.kind, change.key) for change in dry.changes} >= {
        ("permission", "a:b"),
        ("role", "A"),
    }
    done = call(administered, "Apply", document=document)
    assert list(done.changes) == list(dry.changes)
    assert done.revision == dry.revision + 1
    again = call(administered, "Apply", document=document)
    assert (again.revision, list(again.changes)) == (done.revision, [])
    exported = call(administered, "Export")
    assert not call(administered, "Apply", document=exported.document).changes


def pages(page: Callable[[str], Any], field: str) -> Iterator[Any]:
    token = ""
    while True:
        answer = page(token)
        yield from getattr(answer, field)
        token = answer.next_page_token
        if not token:
            return


@pytest.mark.soak
def test_pages_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    """SpiceDB CVE-2023-35930, CVE-2024-32001, CVE-2025-65111 and CVE-2024-27101 (partial results,
    and a chunk that overflowed at 65,536)."""
    server = ServerProcess(tmp_path)
    make_sqlite(tmp_path / "pdp.db")
    engine = open_engine(f"sqlite:///{tmp_path / 'pdp.db'}")
    count = soak.count(65_537, sample=4_001)
    with Store(engine).write() as transaction:
        transaction.apply_many(User(f"user_{number:06}") for number in range(count))
    engine.dispose()
    wanted = [f"user_{number:06}" for number in range(count)]
    server.start()
    try:
        with server.channel() as channel:
            stubs = stubs_on(channel)

            def page(size: int) -> Callable[[str], Any]:
                return lambda token: call(stubs, "ListUsers", page_size=size, page_token=token)

            assert [user.id for user in pages(page(1000), "users")] == wanted
            for size in (1, 16, 100):
                first = pages(page(size), "users")
                assert [next(first).id for _ in range(3 * size)] == wanted[: 3 * size]
            # A write between two pages neither shifts nor hides the rest.
            walk = pages(page(1000), "users")
            start = [next(walk).id for _ in range(1000)]
            call(stubs, "DeleteUser", id="user_000000")
            call(stubs, "CreateUser", user=pb.User(id="user_0000000"))
            call(stubs, "CreateUser", user=pb.User(id="user_999999"))
            assert start + [user.id for user in walk] == [*wanted, "user_999999"]
    finally:
        server.stop()


def test_a_barrier_returns_when_the_server_is_past_the_revision(administered: Stubs) -> None:
    user = pb.User(id="user_barrier")
    revision = call(administered, "CreateUser", user=user).revision
    for asked in (revision, 0):
        passed = call(administered, "Barrier", revision=asked)
        assert (passed.revision, passed.replicas, passed.silent) == (revision, 1, 0)
    error = rpc_error(lambda: call(administered, "Barrier", revision=2**64 - 1))
    assert error_info(error).reason == "REVISION_NOT_REACHED"


def test_apply_returns_warnings_and_nothing_is_refused_for_them(administered: Stubs) -> None:
    document = "permissions: [a:b]\nroles: {}\nresource_types: {b: {tenancy: none}}"
    for dry_run in (True, False):
        answer = call(administered, "Apply", document=document, dry_run=dry_run)
        (warning,) = answer.warnings
        assert (warning.field, warning.line) == ("resource_types.b", 3)
        assert "no permission is declared for 'b'" in warning.description
    again = call(administered, "Apply", document="resource_types: {}")
    assert [change.kind for change in again.changes] == ["resource_type"]
    assert not again.warnings
