"""An error reaches a real client as what it is, however long the request that caused it was."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from pdpapi.v1 import administration_service_pb2 as pb
from pdpapi.v1.audit_service_pb2 import GetDecisionRequest
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem

from tests.kit.server import Stubs
from tests.kit.wire.errors import rpc_error

# Percent-encoded in `grpc-message`, it is 6 to 12 times as long.
LONG = {"ascii": "x" * 4_000, "control": "\x01%" * 2_000, "emoji": "\U0001f600" * 4_000}


def detail(error: grpc.RpcError, kind: type) -> object:
    """The detail of this type, of which every status here has one."""
    status: status_pb2.Status = rpc_status.from_call(error)
    for packed in status.details:
        found = kind()
        if packed.Unpack(found):
            return found
    raise AssertionError(f"no {kind.__name__} in {status}")


def test_sixty_misspelled_permissions_are_named_as_far_as_they_fit_and_the_rest_is_counted(
    stubs: Stubs,
) -> None:
    rules = ", ".join(f"'course:misspelled-{number:03d}'" for number in range(60))
    document = f"permissions: {{}}\nroles:\n  ADMIN:\n    allow: [{rules}]\n"
    error = rpc_error(lambda: stubs.administration.Apply(pb.ApplyRequest(document=document)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = detail(error, error_details_pb2.BadRequest).field_violations
    assert found[0].field == "roles.ADMIN.allow[0].permission"
    assert "'course:misspelled-000' is not declared" in found[0].description
    info = detail(error, error_details_pb2.ErrorInfo)
    assert info.reason == "POLICY_INVALID"
    assert len(found) + int(info.metadata["violations_left_out"]) == 60
    assert 10 < len(found) < 60
    said = error.details() or ""
    named = said.count("is not declared")
    assert said.endswith(f"; and {60 - named} more")


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_long_decision_id_is_not_found(stubs: Stubs, text: str) -> None:
    error = rpc_error(lambda: stubs.audit.GetDecision(GetDecisionRequest(decision_id=text)))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert detail(error, error_details_pb2.ErrorInfo).reason == "NOT_FOUND"
    assert (error.details() or "").endswith("more bytes)")


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_long_id_of_an_entity_is_refused_as_what_it_is(stubs: Stubs, text: str) -> None:
    administration = stubs.administration
    grant = pb.Grant(id=text, role=text, user_id=text)
    calls = {
        "get": lambda: administration.GetRole(pb.GetRoleRequest(name=text)),
        "delete": lambda: administration.DeleteUser(pb.DeleteUserRequest(id=text)),
        "route": lambda: administration.CreateRoute(
            pb.CreateRouteRequest(route=pb.Route(route=f"/{text}", permission=text))
        ),
        "grant": lambda: administration.CreateGrant(pb.CreateGrantRequest(grant=grant)),
        "document": lambda: administration.Apply(
            pb.ApplyRequest(document=f"'{LONG['ascii']}': 1\nroles: {{'{LONG['ascii']}': []}}\n")
        ),
    }
    for name, call in calls.items():
        code = rpc_error(call).code()
        assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}, name


def test_a_long_batch_with_long_ids_is_refused_for_its_first_bad_item(stubs: Stubs) -> None:
    item = CheckItem(permission=LONG["emoji"])
    error = rpc_error(
        lambda: stubs.decision.BatchCheck(BatchCheckRequest(actor_token="x", items=[item] * 9))
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    [violation] = detail(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "items[0].permission"
