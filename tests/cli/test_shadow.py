"""`pdp shadow` with a real server."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from pdpapi.v1.core_pb2 import DECISION_ALLOW, DECISION_DENY, Resource

from tests.cli.policies import CANDIDATE
from tests.cli.running import Run
from tests.kit.school import ALGEBRA, POLICY, ask
from tests.kit.server import running_server
from tests.kit.waiting import eventually

BIOLOGY = Resource(type="course", id="biology")


def report(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("shadow", "report", "--json").out)
    return found


def test_a_candidate_changes_no_answer_and_its_flips_are_counted_and_listed(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = tmp_path / "candidate.yaml"
    candidate.write_text(CANDIDATE)
    with running_server(tmp_path, POLICY) as (server, stubs):
        monkeypatch.setenv("PDP_DATABASE_URL", server.environment["PDP_DATABASE_URL"])
        assert run("shadow", "status").status == 1
        assert run("shadow", "report").status == 2
        assert run("shadow", "set", str(candidate), "--sample", "1").status == 0

        def asked() -> bool:
            assert ask(stubs, "user_ivan", "course:edit", BIOLOGY).decision == DECISION_DENY
            assert ask(stubs, "user_ada", "report:view").decision == DECISION_ALLOW
            assert ask(stubs, "user_sam", "course:view", ALGEBRA).decision == DECISION_ALLOW
            return bool(len(report(run)["flips"]) == 2)

        eventually(asked)
        found = report(run)
        flips = {flip["permission"]: flip for flip in found["flips"]}
        assert (flips["course:edit"]["effect"], flips["report:view"]["effect"]) == ("allow", "deny")
        assert flips["course:edit"]["rule_after"].startswith("INSTRUCTOR.allow.course:edit")
        example = flips["course:edit"]["examples"][0]
        assert (example["user"], example["resource"]) == ("user_ivan", "course:biology")
        assert found["flipped"] == sum(flip["count"] for flip in found["flips"])
        assert found["decided"] > found["flipped"]
        text = run("shadow", "report").out
        assert "course:edit: deny -> allow (" in text
        assert text.startswith(f"candidate {found['candidate']}, set ")

        url = f"http://127.0.0.1:{server.http_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            metrics = response.read().decode()
        assert 'pdp_shadow_flips_total{effect="allow",permission="course:edit",rule="' in metrics
        assert 'pdp_shadow_decisions_total{outcome="same"}' in metrics

        assert run("shadow", "set", str(candidate), "--sample", "0").status == 0
        other = report(run)
        assert other["decided"] == 0, "what was counted for another candidate is gone"
        assert other["candidate"] != found["candidate"], "and the report says that it is another"
        assert run("shadow", "clear").status == 0
        assert run("shadow", "status").status == 1


def test_a_candidate_that_is_no_policy_is_refused(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDP_DATABASE_URL", f"sqlite:///{tmp_path / 'pdp.db'}")
    assert run("migrate").status == 0
    expensive = CANDIDATE.replace(
        "!has(resource.attributes.archived)",
        "context.a.all(x, context.a.all(y, context.a.all(z, context.a.all(w, x + y + z == w))))",
    )
    for text in ("version: 1\nusers: []\n", "version: 1\nroles: 7\n", expensive):
        (tmp_path / "candidate.yaml").write_text(text)
        assert run("shadow", "set", str(tmp_path / "candidate.yaml")).status == 2
    (tmp_path / "candidate.yaml").write_text(CANDIDATE)
    for sample in ("nan", "2", "-1"):
        done = run("shadow", "set", str(tmp_path / "candidate.yaml"), "--sample", sample)
        assert done.status == 2, sample
    assert run("shadow", "status").status == 1
