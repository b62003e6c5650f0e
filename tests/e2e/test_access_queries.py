"""AccessQueryService of a real server, through a sidecar, and from the command line."""

import base64
import json
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from pdpapi.v1.access_query_service_pb2 import (
    ListAllowedActorsRequest,
    ListAllowedPermissionsRequest,
    ListAllowedResourcesRequest,
)
from pdpapi.v1.administration_service_pb2 import ApplyRequest
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest
from pdpapi.v1.core_pb2 import (
    DECISION_ALLOW,
    DECISION_DENY,
    DECISION_REASON_QUERY_ANSWERED,
    DECISION_REASON_TOKEN_MALFORMED,
    DENIAL_KIND_UNAUTHENTICATED,
    Resource,
)

from tests.kit.school import ALGEBRA, ORGANIZATION, POLICY
from tests.kit.server import ServerProcess, Stubs, running_server, token_of
from tests.kit.sidecar import running_sidecar
from tests.kit.waiting import eventually
from tests.kit.wire.errors import error_info, rpc_error
from tests.kit.wire.tls import digest

Pair = tuple[ServerProcess, Stubs]


def token(user: str = "user_ivan") -> str:
    return token_of(user, organization_id=ORGANIZATION)


def view(**changes: object) -> ListAllowedResourcesRequest:
    fields: dict[str, object] = {
        "actor_token": token(),
        "permission": "course:view",
        "resource_type": "course",
    }
    return ListAllowedResourcesRequest(**(fields | changes))


def is_invalid(stubs: Stubs, request: ListAllowedResourcesRequest) -> bool:
    """Whether the request is refused as malformed."""
    error = rpc_error(lambda: stubs.queries.ListAllowedResources(request, timeout=10))
    return (error.code(), error_info(error).reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "REQUEST_INVALID",
    )


def test_each_permission_is_allowed_or_denied(stubs: Stubs) -> None:
    request = ListAllowedPermissionsRequest(
        actor_token=token(), resources=[ALGEBRA, Resource(type="lesson", id="algebra-1")]
    )
    answer = stubs.queries.ListAllowedPermissions(request, timeout=10)
    course, lesson = answer.results
    assert list(course.allowed) == ["course:create", "course:edit", "course:view"]
    assert list(course.denied) == ["course:delete"]
    assert list(lesson.allowed) == ["lesson:view"]
    assert (answer.actor.user_id, answer.HasField("refusal")) == ("user_ivan", False)
    assert answer.revision > 0
    assert answer.epoch


def test_a_refused_token_gets_nothing_and_the_reason(stubs: Stubs) -> None:
    request = ListAllowedPermissionsRequest(resources=[ALGEBRA])
    answer = stubs.queries.ListAllowedPermissions(request, timeout=10)
    assert [list(result.allowed) for result in answer.results] == [[]]
    assert answer.refusal.reason == DECISION_REASON_TOKEN_MALFORMED
    assert answer.refusal.denial_kind == DENIAL_KIND_UNAUTHENTICATED
    assert not answer.HasField("actor")
    page = stubs.queries.ListAllowedResources(view(actor_token=""), timeout=10)
    assert (list(page.resource_ids), page.next_page_token) == ([], "")
    assert page.refusal.reason == DECISION_REASON_TOKEN_MALFORMED


def test_a_list_is_read_page_by_page(stubs: Stubs) -> None:
    found: list[str] = []
    request = view(page_size=2)
    while True:
        page = stubs.queries.ListAllowedResources(request, timeout=10)
        assert len(page.resource_ids) <= 2
        found += page.resource_ids
        if not page.next_page_token:
            break
        # Another token of the same actor, as after a minute.
        request = view(page_size=2, page_token=page.next_page_token)
    assert found == ["algebra", "biology", "latin"]


def test_a_page_token_is_good_for_its_actor_and_query_alone(stubs: Stubs) -> None:
    page = stubs.queries.ListAllowedResources(view(page_size=1), timeout=10)
    sealed = base64.urlsafe_b64decode(page.next_page_token)
    assert b"algebra" not in sealed
    assert b"user_ivan" not in sealed
    context = Struct()
    context.update({"place": "office"})
    for other in (
        {"actor_token": token("user_sam")},
        {"actor_token": token_of("user_ivan")},
        {"permission": "course:edit"},
        {"resource_type": "lesson"},
        {"context": context},
        {"page_token": page.next_page_token[:-4] + "AAA="},
    ):
        fields = {"page_size": 1, "page_token": page.next_page_token} | other
        assert is_invalid(stubs, view(**fields)), other


@pytest.mark.parametrize(
    "changes",
    [
        {"permission": ""},
        {"resource_type": ""},
        {"resource_type": "Course"},
        {"page_size": -1},
        {"page_size": 1001},
        {"page_token": "x"},
    ],
    ids=str,
)
def test_a_malformed_query_is_refused(stubs: Stubs, changes: dict[str, object]) -> None:
    assert is_invalid(stubs, view(**changes))


def test_who_may_is_told_with_role_grant_rule_and_condition(stubs: Stubs) -> None:
    request = ListAllowedActorsRequest(permission="course:edit", resource=ALGEBRA)
    answer = stubs.queries.ListAllowedActors(request, timeout=10)
    ways = {
        (actor.user_id, actor.organization_id): [
            (path.role, path.rule_id, path.condition) for path in actor.allowed_by
        ]
        for actor in answer.actors
    }
    assert ways == {
        ("user_ada", ORGANIZATION): [("ADMIN", "ADMIN.allow.course:*", "")],
        ("user_ivan", ORGANIZATION): [
            (
                "INSTRUCTOR",
                ways["user_ivan", ORGANIZATION][0][1],
                "resource.attributes.owner == actor.id",
            )
        ],
    }
    assert all(path.grant_id for actor in answer.actors for path in actor.allowed_by)
    first = stubs.queries.ListAllowedActors(
        ListAllowedActorsRequest(permission="course:edit", resource=ALGEBRA, page_size=1),
        timeout=10,
    )
    assert [actor.user_id for actor in first.actors] == ["user_ada"]
    request.page_token = first.next_page_token
    rest = stubs.queries.ListAllowedActors(request, timeout=10)
    assert [actor.user_id for actor in rest.actors] == ["user_ivan"]


def test_a_query_is_one_record_and_says_its_method(stubs: Stubs) -> None:
    answer = stubs.queries.ListAllowedResources(
        view(actor_token=token("user_sam"), permission="course:delete"), timeout=10
    )
    assert list(answer.resource_ids) == []

    def records() -> list[object]:
        listed = stubs.audit.ListDecisions(
            ListDecisionsRequest(user_id="user_sam", permission="course:delete"), timeout=10
        )
        return [decision for decision in listed.decisions if decision.query]

    eventually(records)
    (record,) = records()
    assert record.decision_id == answer.query_id
    assert record.query == "ListAllowedResources"
    assert (record.decision, record.reason) == (DECISION_ALLOW, DECISION_REASON_QUERY_ANSWERED)
    assert (record.resource.type, record.resource.id) == ("course", "")


def test_only_a_caller_with_audit_asks_who_may(tmp_path_factory: pytest.TempPathFactory) -> None:
    callers = [{"name": "backend", "api_key_sha256": digest("key"), "may": ["decide"]}]
    directory = tmp_path_factory.mktemp("callers")
    with running_server(directory, CALLERS=callers) as (_, stubs):
        metadata = (("authorization", "Bearer key"),)
        with pytest.raises(grpc.RpcError) as raised:
            stubs.queries.ListAllowedActors(
                ListAllowedActorsRequest(permission="course:edit"), timeout=10, metadata=metadata
            )
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
        answer = stubs.queries.ListAllowedResources(view(), timeout=10, metadata=metadata)
        assert answer.HasField("refusal")


# --- through a sidecar ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_server(tmp_path_factory.mktemp("upstream"), POLICY) as one:
        yield one


@pytest.fixture(scope="module")
def beside(upstream: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("beside")
    settings = {"DEADLINE_SECONDS": "10"}
    with running_sidecar(directory, upstream[0].port, **settings) as one:
        yield one


def test_a_sidecar_passes_queries_on_and_keeps_no_answer(upstream: Pair, beside: Pair) -> None:
    stubs = beside[1]
    ask = ListAllowedPermissionsRequest(actor_token=token("user_sam"), resources=[ALGEBRA])

    def answers() -> tuple[list[str], list[str]]:
        permissions = stubs.queries.ListAllowedPermissions(ask, timeout=10)
        page = stubs.queries.ListAllowedResources(view(actor_token=token("user_sam")), timeout=10)
        return list(permissions.results[0].allowed), list(page.resource_ids)

    assert answers() == (["course:view"], ["algebra", "biology", "latin"])
    assert answers() == (["course:view"], ["algebra", "biology", "latin"])
    without = POLICY.replace("  - {role: STUDENT, user: user_sam, organization: org_school}\n", "")
    assert without != POLICY
    administration = upstream[1].administration
    revision = administration.Apply(ApplyRequest(document=without), timeout=10).revision
    ask.at_least_revision = revision
    # The next question is answered by what holds now: no lease to wait for.
    assert answers() == ([], [])
    administration.Apply(ApplyRequest(document=POLICY), timeout=10)


def test_a_sidecar_does_not_lend_its_capability_to_audit(beside: Pair) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        beside[1].queries.ListAllowedActors(
            ListAllowedActorsRequest(permission="course:edit"), timeout=10
        )
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_what_upstream_refuses_a_sidecar_refuses(beside: Pair) -> None:
    assert is_invalid(beside[1], view(page_token="x"))


# --- commands -------------------------------------------------------------------------------------


def test_the_commands_print_tables_and_json(server: ServerProcess) -> None:
    def lines(*arguments: str, status: int = 0, stdin: str = "") -> list[str]:
        done = server.pdp("allowed", *arguments, stdin=stdin or token())
        assert done.returncode == status, done.stderr
        return [line.rstrip() for line in done.stdout.splitlines()]

    table = lines("permissions", "course:algebra")
    assert table[0].split() == ["resource", "permission", "allowed"]
    assert ["course:algebra", "course:delete", "no"] in [line.split() for line in table]
    assert ["course:algebra", "course:edit", "yes"] in [line.split() for line in table]
    (answer,) = map(json.loads, lines("permissions", "course:algebra", "-o", "json"))
    assert answer["allowed"] == ["course:create", "course:edit", "course:view"]
    assert lines("resources", "course:edit") == ["id", "algebra", "latin"]
    listed = map(json.loads, lines("resources", "course:view", "course", "-o", "json"))
    assert [row["id"] for row in listed] == ["algebra", "biology", "latin"]
    assert lines("resources", "course:view", "--limit", "1") == ["id", "algebra"]
    (one,) = map(json.loads, lines("actors", "report:view", "-o", "json"))
    assert (one["user_id"], one["organization_id"]) == ("user_ada", ORGANIZATION)
    table = lines("actors", "course:edit", "course:algebra")
    assert "resource.attributes.owner == actor.id" in "\n".join(table)
    refused = server.pdp("allowed", "resources", "course:view", stdin="no token")
    assert refused.returncode == 1
    assert "TOKEN_MALFORMED" in refused.stderr


def test_the_audit_log_shows_queries(server: ServerProcess) -> None:
    done = server.pdp("allowed", "actors", "course:create")
    assert done.returncode == 0, done.stderr

    def shown() -> bool:
        listed = server.pdp("audit", "list", "--permission", "course:create").stdout
        return "ListAllowedActors" in listed and "QUERY_ANSWERED" in listed

    eventually(shown)


def test_a_denied_query_is_found_as_a_denial(stubs: Stubs) -> None:
    answer = stubs.queries.ListAllowedResources(view(actor_token=token("user_stranger")))

    def found() -> bool:
        listed = stubs.audit.ListDecisions(
            ListDecisionsRequest(user_id="user_stranger", decision=DECISION_DENY), timeout=10
        )
        return [decision.decision_id for decision in listed.decisions] == [answer.query_id]

    eventually(found)
