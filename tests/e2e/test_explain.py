"""ExplainService and `pdp explain`, on a real server."""

import json
import re
from pathlib import Path

import grpc
import pytest
from pdpapi.v1.administration_service_pb2 import ApplyRequest
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest
from pdpapi.v1.core_pb2 import DECISION_ALLOW, DECISION_DENY, DecisionReason, Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest
from pdpapi.v1.explain_service_pb2 import ExplainRequest, NamedActor
from pdpapi.v1.explain_service_pb2_grpc import ExplainServiceStub

from tests.cli import test_lint
from tests.cli.conftest import run  # noqa: F401  # a fixture
from tests.cli.running import Run
from tests.e2e.conftest import POLICY
from tests.kit.server import ServerProcess, Stubs, running_server, token_of
from tests.kit.waiting import eventually

SAM = NamedActor(user_id="user_sam", organization_id="org_school")
ALGEBRA = Resource(type="course", id="algebra")


def explain(stubs: Stubs, **fields):
    return ExplainServiceStub(stubs.channel).Explain(ExplainRequest(**fields), timeout=10)


@pytest.mark.parametrize("user", ["user_ada", "user_ivan", "user_sam", "user_nobody"])
@pytest.mark.parametrize("permission", ["course:edit", "course:delete", "course:burn"])
@pytest.mark.parametrize("course", ["algebra", "latin", "unknown"])
def test_a_named_user_and_a_token_are_told_what_check_answers(
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
        assert [getattr(explained, one) for one in fields] == [
            getattr(answer, one) for one in fields
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
    """Told of a user with the wrong active organization: with the other one, Check allows."""
    actor = NamedActor(user_id="user_ada")
    explained = explain(stubs, actor=actor, permission="course:edit", resource=ALGEBRA)
    assert explained.decision == DECISION_DENY
    texts = [[change.text for change in one.changes] for one in explained.would_allow]
    assert ["make org_school the active organization"] in texts
    token = token_of("user_ada", organization_id="org_school")
    request = CheckRequest(actor_token=token, permission="course:edit", resource=ALGEBRA)
    assert stubs.decision.Check(request, timeout=10).decision == DECISION_ALLOW


def test_the_command_prints_a_tree_and_json(
    server: ServerProcess,
    stubs: Stubs,
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
    sam = ("--user", "user_sam", "--active-organization", "org_school")
    done = run("explain", "course:edit", "course:algebra", *sam)
    assert done.status == 1
    lines = done.out.splitlines()
    assert lines[0].startswith("user_sam may not course:edit on course:algebra: PERMISSION_NOT_GR")
    assert (
        "├─ actor: user_sam is active and acts in the organization org_school as org:member"
        in lines
    )
    assert "  - grant ADMIN to user_sam on course:algebra" in lines

    done = run("explain", "course:edit", "course:algebra", *sam, "-o", "json")
    assert json.loads(done.out)["tree"]["kind"] == "KIND_DECISION"

    ada = token_of("user_ada", organization_id="org_school")
    assert run("explain", "course:edit", "course:algebra", "--token", "-", stdin=ada).status == 0
    assert run("explain", "course:edit").status == 2
    wrong = run("explain", "course:edit", "--user", "u", "--context", "[]")
    assert (wrong.status, "JSON object" in wrong.err) == (2, True)


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


def test_a_recorded_decision_is_asked_again_and_says_what_is_different_today(
    tmp_path: Path,
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running_server(tmp_path, POLICY) as (server, stubs):
        monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
        token = token_of("user_sam", organization_id="org_school")
        request = CheckRequest(actor_token=token, permission="course:edit", resource=ALGEBRA)
        denied = stubs.decision.Check(request, timeout=10)
        refused = stubs.decision.Check(CheckRequest(actor_token="x", permission="a:b"), timeout=10)

        def asked_again(decision_id: str, *more: str):
            done = run("explain", "--decision", decision_id, *more)
            return None if "NOT_FOUND" in done.err else done

        eventually(lambda: asked_again(denied.decision_id))
        same = asked_again(denied.decision_id)
        assert same.status == 1
        assert "today's decision is the recorded one" in same.out

        changed = POLICY.replace(
            "- {role: STUDENT, user: user_sam", "- {role: ADMIN, user: user_sam"
        )
        stubs.administration.Apply(ApplyRequest(document=changed), timeout=10)
        now = asked_again(denied.decision_id)
        assert now.status == 0
        assert "  decision: then deny, today allow" in now.out.splitlines()
        fields = json.loads(asked_again(denied.decision_id, "-o", "json").out)
        assert fields["recorded"]["decision_id"] == denied.decision_id

        eventually(lambda: asked_again(refused.decision_id))
        token_step = asked_again(refused.decision_id)
        assert "the token is refused: TOKEN_MALFORMED" in token_step.out
        assert run("explain", "--decision", denied.decision_id[:-1] + "x").status == 2
        assert run("explain", "course:edit", "--decision", denied.decision_id).status == 2
        assert run("explain", "--decision", denied.decision_id, "--user", "u").status == 2


PAGE = Path(__file__).parents[2] / "docs" / "policy-tools.md"


@pytest.mark.parametrize(
    "transcript", re.findall(r"```console\n\$ pdp (.*?)```", PAGE.read_text(), re.DOTALL)
)
def test_the_transcripts_of_the_documentation_are_what_is_printed(
    server: ServerProcess,
    run: Run,  # noqa: F811
    transcript: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command, _, wanted = transcript.partition("\n")
    (tmp_path / "policy.yaml").write_text(test_lint.POLICY)
    (tmp_path / "examples").symlink_to(PAGE.parents[1] / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
    printed = run(*command.split()).out
    seconds = re.compile(r"\(\d+\.\d\d s\)")
    assert seconds.sub("", printed) == seconds.sub("", wanted)
