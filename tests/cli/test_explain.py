"""`pdp explain`, and the transcripts of the page about policy tools."""

import json
import re
from pathlib import Path

import pytest
from pdpapi.v1.administration_service_pb2 import ApplyRequest
from pdpapi.v1.core_pb2 import Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.cli.policies import CANDIDATE, LINTED
from tests.cli.running import Done, Run
from tests.kit.school import POLICY
from tests.kit.server import ServerProcess, running_server, token_of
from tests.kit.waiting import eventually

ALGEBRA = Resource(type="course", id="algebra")


def test_the_command_prints_a_tree_and_json(
    server: ServerProcess,
    run: Run,
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


def test_a_recorded_decision_is_asked_again_and_says_what_is_different_today(
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running_server(tmp_path, POLICY) as (server, stubs):
        monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
        token = token_of("user_sam", organization_id="org_school")
        request = CheckRequest(actor_token=token, permission="course:edit", resource=ALGEBRA)
        denied = stubs.decision.Check(request, timeout=10)
        refused = stubs.decision.Check(CheckRequest(actor_token="x", permission="a:b"), timeout=10)

        def asked_again(decision_id: str, *more: str) -> Done | None:
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


DOCS = Path(__file__).parents[2] / "docs"
PAGES = (DOCS / "policy-tools.md", DOCS / "impact.md")


@pytest.mark.parametrize(
    "transcript",
    [
        transcript
        for page in PAGES
        for transcript in re.findall(r"```console\n\$ pdp (.*?)```", page.read_text(), re.DOTALL)
    ],
)
def test_the_transcripts_of_the_documentation_are_what_is_printed(
    server: ServerProcess,
    run: Run,
    transcript: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command, _, wanted = transcript.partition("\n")
    (tmp_path / "policy.yaml").write_text(LINTED)
    (tmp_path / "candidate.yaml").write_text(CANDIDATE)
    (tmp_path / "examples").symlink_to(DOCS.parent / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
    printed = run(*command.split()).out
    seconds = re.compile(r"\(\d+\.\d\d s\)")
    assert seconds.sub("", printed) == seconds.sub("", wanted)
