"""`pdp diff` with files and with a running server."""

import json
from pathlib import Path

import pytest

from tests.cli.policies import CANDIDATE
from tests.cli.running import Run
from tests.kit.school import POLICY
from tests.kit.server import ServerProcess


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stored.yaml").write_text(POLICY)
    (tmp_path / "candidate.yaml").write_text(CANDIDATE)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("files")
def test_a_file_and_the_server_with_the_same_content_are_equal(
    server: ServerProcess, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
    for options in ((), ("--effective",)):
        assert run("diff", "stored.yaml", "server", *options).status == 0
        done = run("diff", "server", "candidate.yaml", *options)
        assert done.status == 1
        offline = run("diff", "stored.yaml", "candidate.yaml", *options)
        assert done.out.splitlines()[:-1] == offline.out.splitlines()[:-1]


@pytest.mark.usefixtures("files")
def test_the_answers_that_change_are_counted_with_examples(run: Run) -> None:
    done = run("diff", "stored.yaml", "candidate.yaml", "--effective", "-o", "json")
    changes = {
        (change["permission"], change["after"]): change
        for change in json.loads(done.out)["changes"]
    }
    edit = changes["course:edit", "allow"]
    assert (edit["users"], edit["answers"], edit["before"]) == (1, 2, "deny")
    examples = {example["resource"]: example for example in edit["examples"]}
    assert examples.keys() == {"course:biology", None}, "without a resource nothing is archived"
    example = examples["course:biology"]
    assert example["user"] == "user_ivan"
    assert example["before"]["reason"] == "CONDITION_NOT_MET"
    assert example["after"]["rule"].startswith("INSTRUCTOR.allow.course:edit")


@pytest.mark.usefixtures("files")
def test_a_file_that_is_no_policy_or_is_missing_gives_no_result(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("roles: {A: {allow: [nothing]}}")
    assert run("diff", "stored.yaml", "broken.yaml", "--effective").status == 2
    assert run("diff", "stored.yaml", "absent.yaml").status == 2
