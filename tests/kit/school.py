"""The school of `examples/courses.yaml`: its policy, and questions about it to a real server."""

from pathlib import Path

from pdpapi.v1.core_pb2 import DecisionReason, Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest, CheckResponse

from tests.kit.server import Stubs, token_of
from tests.kit.wire.recorded import check

POLICY = (Path(__file__).parents[2] / "examples" / "courses.yaml").read_text()
ALGEBRA = Resource(type="course", id="algebra")
ORGANIZATION = "org_school"


def ask(stubs: Stubs, user: str, permission: str, resource: Resource = ALGEBRA) -> CheckResponse:
    """Checks a permission of a member of the school; waits for a busy disk."""
    request = CheckRequest(
        actor_token=token_of(user, organization_id=ORGANIZATION),
        permission=permission,
        resource=resource,
    )
    return check(stubs, request)


def reason_of(response: CheckResponse) -> str:
    """The reason of a decision, without its prefix: `ALLOWED_BY_RULE`."""
    return DecisionReason.Name(response.reason).removeprefix("DECISION_REASON_")
