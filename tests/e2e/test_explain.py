"""ExplainService, on a real server."""

import grpc
import pytest
from pdpapi.v1.access_query_service_pb2 import ListAllowedPermissionsRequest
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest
from pdpapi.v1.core_pb2 import DECISION_ALLOW, DECISION_DENY, DecisionReason, Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest
from pdpapi.v1.explain_service_pb2 import ExplainRequest, NamedActor
from pdpapi.v1.explain_service_pb2_grpc import ExplainServiceStub

from tests.kit.server import ServerProcess, Stubs, running_server, token_of
from tests.kit.waiting import eventually
from tests.kit.wire.errors import rpc_error

SAM = NamedActor(user_id="user_sam", organization_id="org_school")
ALGEBRA = Resource(type="course", id="algebra")


def explain(stubs: Stubs, **fields):
    return ExplainServiceStub(stubs.channel).Explain(ExplainRequest(**fields), timeout=10)


@pytest.mark.parametrize("user", ["user_ada", "user_ivan", "user_sam", "user_nobody"])
@pytest.mark.parametrize("permission", ["course:edit", "course:delete", "course:burn"])
@pytest.mark.parametrize("course", ["algebra", "latin", "unknown"])
def test_a_named_user_and_a_token_get_the_answer_of_check(
    stubs: Stubs, user: str, permission: str, course: str
) -> None:
    token = token_of(user, organization_id="org_school")
    resource = Resource(type="course", id=course)
    answer = stubs.decision.Check(
        CheckRequest(actor_token=token, permission=permission, resource=resource), timeout=10
    )
    actor = NamedActor(user_id=user, organization_id="org_school")
    for asking in ({"actor_token": token}, {"actor": actor}):
        explained = explain(stubs, **asking, permission=permission, resource=resource)
        fields = ("decision", "denial_kind", "reason", "rule_id", "grant_id", "revision")
        assert [getattr(explained, field) for field in fields] == [
            getattr(answer, field) for field in fields
        ]


def test_an_explanation_is_in_no_log(stubs: Stubs) -> None:
    """Nobody was answered: a security team must not find denials that nobody met."""
    marker = "course:explained"
    for _ in range(3):
        explain(stubs, actor=SAM, permission=marker)
    check = CheckRequest(actor_token=token_of("user_sam"), permission="course:checked")
    stubs.decision.Check(check, timeout=10)

    def logged(permission: str) -> int:
        query = ListDecisionsRequest(permission=permission)
        return len(stubs.audit.ListDecisions(query, timeout=10).decisions)

    eventually(lambda: logged("course:checked") == 1)
    assert logged(marker) == 0


def test_a_token_that_is_refused_is_explained_without_facts(stubs: Stubs) -> None:
    explained = explain(stubs, actor_token="nonsense", permission="course:edit", resource=ALGEBRA)
    assert explained.reason == DecisionReason.DECISION_REASON_TOKEN_MALFORMED
    assert [len(step.children) for step in (explained.tree, *explained.tree.children)] == [1, 0]


def test_a_forged_token_learns_nothing_of_the_policy(stubs: Stubs) -> None:
    """An attacker who may call Explain with somebody's unsigned claims sees no facts of them."""
    head, _, signature = token_of("user_ada", organization_id="org_school").split(".")
    other = token_of("user_sam").split(".")[1]
    token = f"{head}.{other}.{signature}"
    explained = explain(stubs, actor_token=token, permission="course:edit", resource=ALGEBRA)
    assert explained.reason == DecisionReason.DECISION_REASON_TOKEN_SIGNATURE_INVALID
    assert "user_" not in str(explained)


@pytest.mark.parametrize(
    "actor",
    [
        NamedActor(),
        NamedActor(user_id="user_\n"),
        NamedActor(user_id="user_sam", second_factor_minutes=float("nan")),
        NamedActor(user_id="user_sam", second_factor_minutes=-1),
        NamedActor(user_id="user_sam", organization_id="\0"),
    ],
)
def test_a_malformed_actor_is_refused(stubs: Stubs, actor: NamedActor) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        explain(stubs, actor=actor, permission="course:edit")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_would_allow_allows_once_it_is_done(server: ServerProcess, stubs: Stubs) -> None:
    """A user has the wrong active organization: with the other one, Check allows."""
    actor = NamedActor(user_id="user_ada")
    explained = explain(stubs, actor=actor, permission="course:edit", resource=ALGEBRA)
    assert explained.decision == DECISION_DENY
    texts = [[change.text for change in changes.changes] for changes in explained.would_allow]
    assert ["make org_school the active organization"] in texts
    token = token_of("user_ada", organization_id="org_school")
    request = CheckRequest(actor_token=token, permission="course:edit", resource=ALGEBRA)
    assert stubs.decision.Check(request, timeout=10).decision == DECISION_ALLOW


def test_a_query_is_not_explained(stubs: Stubs) -> None:
    """The log holds queries too; they decide nothing."""
    request = ListAllowedPermissionsRequest(
        actor_token=token_of("user_ada", organization_id="org_school"), resources=[ALGEBRA]
    )
    query_id = stubs.queries.ListAllowedPermissions(request, timeout=10).query_id

    def refusal() -> grpc.RpcError | None:
        error = rpc_error(lambda: explain(stubs, decision_id=query_id))
        return None if error.code() is grpc.StatusCode.NOT_FOUND else error

    eventually(lambda: refusal() is not None)
    error = refusal()
    assert error is not None
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_caller_that_may_only_decide_gets_no_explanation(tmp_path) -> None:
    from hashlib import sha256

    key = "k" * 43
    callers = [
        {"name": "backend", "api_key_sha256": sha256(key.encode()).hexdigest(), "may": ["decide"]}
    ]
    with running_server(tmp_path, CALLERS=callers) as (server, _), server.channel() as channel:
        with pytest.raises(grpc.RpcError) as caught:
            ExplainServiceStub(channel).Explain(
                ExplainRequest(actor=SAM, permission="course:edit"),
                metadata=[("authorization", f"Bearer {key}")],
                timeout=10,
            )
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
