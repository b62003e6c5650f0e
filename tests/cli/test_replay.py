"""`pdp replay` over the decisions of a real server."""

import json
from pathlib import Path

import pytest
from pdpapi.v1.core_pb2 import Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.cli.policies import CANDIDATE
from tests.cli.running import Done, Run
from tests.kit.school import ALGEBRA, POLICY, ask
from tests.kit.server import ServerProcess, running_server, token_of
from tests.kit.waiting import eventually

BIOLOGY = Resource(type="course", id="biology")


def settings_of(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDP_DATABASE_URL", server.environment["PDP_DATABASE_URL"])


def when_shipped(run: Run, decisions: int, *arguments: str) -> Done:
    def shipped() -> bool:
        counted = json.loads(run("replay", *arguments, "-o", "json").out)
        names = ("flipped", "same", "without_inputs", "inexact")
        return sum(counted[name] for name in names) == decisions

    eventually(shipped)
    return run("replay", *arguments, "-o", "json")


def test_recorded_decisions_flip_as_the_candidate_says_and_no_secret_is_recorded(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, candidate = tmp_path / "same.yaml", tmp_path / "candidate.yaml"
    same.write_text(POLICY)
    candidate.write_text(CANDIDATE)
    with running_server(tmp_path, POLICY, AUDIT_INPUTS="full", AUDIT_ALLOWS=True) as (
        server,
        stubs,
    ):
        settings_of(server, monkeypatch)
        ask(stubs, "user_ada", "report:view")
        denied = ask(stubs, "user_ivan", "course:edit", BIOLOGY)
        ask(stubs, "user_ivan", "course:edit", ALGEBRA)
        request = CheckRequest(
            actor_token=token_of("user_sam", organization_id="org_school"),
            permission="course:delete",
            resource=ALGEBRA,
        )
        request.context.update({"Pass-Word": "hunter2"})
        stubs.decision.Check(request, timeout=10)

        done = when_shipped(run, 4, str(same))
        assert (done.status, json.loads(done.out)["flipped"]) == (0, 0)
        done = when_shipped(run, 4, str(candidate))
        assert done.status == 1
        flips = {flip["permission"]: flip for flip in json.loads(done.out)["flips"]}
        assert flips.keys() == {"report:view", "course:edit"}
        assert flips["course:edit"]["examples"] == [denied.decision_id]
        assert flips["course:edit"]["after"] == "allow"
        lines = run("replay", str(candidate)).out.splitlines()
        assert lines[-1] == "2 of 4 decisions flip"
        assert any(line.startswith(f"  {denied.decision_id}: user_ivan on") for line in lines)
    written = [*tmp_path.glob("pdp.db*"), *(tmp_path / "audit").rglob("*")]
    assert not any(b"hunter2" in file.read_bytes() for file in written if file.is_file())


def test_without_inputs_nothing_is_asked_again_and_wrong_arguments_give_no_result(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    same, facts = tmp_path / "same.yaml", tmp_path / "facts.yaml"
    same.write_text(POLICY)
    facts.write_text("version: 1\nusers: []\n")
    with running_server(tmp_path, POLICY) as (server, stubs):
        settings_of(server, monkeypatch)
        ask(stubs, "user_sam", "course:delete")
        done = when_shipped(run, 1, str(same))
        assert json.loads(done.out)["without_inputs"] == 1
        assert "not asked again: 1 recorded without inputs" in run("replay", str(same)).out
        assert run("replay", str(facts)).status == 2
        assert run("replay", str(same), "--since", "soon").status == 2
