"""`pdp test`: files, exit status, the difference, JUnit XML, coverage, watching."""

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.running import Run
from tests.kit import prefork
from tests.kit.decision.cases import CASES
from tests.kit.waiting import eventually

ROOT = Path(__file__).parents[2]
POLICY = """
permissions: [course:view]
roles: {READER: {allow: [course:view]}}
grants: [{role: READER, user: user_1, id: g}]
users: [{id: user_1}]
"""
TESTS = """
given: {policy: policy.yaml}
tables:
  - actors: [user_1, user_2]
    rows: [{permission: course:view, expect: [allow, ACTOR_UNKNOWN]}]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "policy_test.yaml").write_text(TESTS)
    return tmp_path


def test_the_golden_cases_of_the_project_pass(run: Run) -> None:
    done = run("test", *map(str, sorted(CASES.glob("*.yaml"))))
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("98 passed, 0 failed in 10 files")


def test_the_tests_of_the_example_pass_and_decide_every_rule_and_grant(run: Run) -> None:
    done = run("test", str(ROOT / "examples"), "--coverage")
    assert done.status == 0
    assert "its tests decide 7 of 7 rules, 3 of 3 grants" in done.out


def test_files_are_found_below_the_current_directory(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    (directory / ".hidden").mkdir()
    (directory / ".hidden" / "other_test.yaml").write_text("nonsense")
    assert run("test").out.startswith("2 passed, 0 failed in 1 files")
    (directory / "policy_test.yaml").unlink()
    done = run("test")
    assert (done.status, "there are no files of tests" in done.err) == (2, True)


def test_a_failure_shows_its_line_the_difference_and_why(run: Run, directory: Path) -> None:
    file = directory / "policy_test.yaml"
    file.write_text(TESTS.replace("[allow, ACTOR_UNKNOWN]", "[deny, ACTOR_UNKNOWN]"))
    done = run("test", str(file))
    assert done.status == 1
    assert done.out.splitlines()[:4] == [
        f"FAIL     {file}:5 user_1 course:view",
        "  - decision: deny",
        "  + decision: allow",
        (
            "    user_1 may course:view: ALLOWED_BY_RULE. A rule allows it. "
            "Rule READER.allow.course:view through grant g."
        ),
    ]
    assert "user_1 may" not in run("test", str(file), "--no-explain").out


def test_a_file_that_cannot_be_read_fails_the_run_and_hides_no_other(
    run: Run, directory: Path
) -> None:
    (directory / "broken_test.yaml").write_text("given: {policy: no.yaml}\nchecks: []\n")
    done = run("test", str(directory))
    assert done.status == 2
    assert "given.policy: there is no file" in done.err
    assert "2 passed" in done.out


@pytest.mark.parametrize("command", [["test"], ["lint"], ["shadow", "set"]])
def test_a_file_that_never_ends_is_read_no_further_than_a_document_may_be_long(
    run: Run, directory: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate or a test file may be anything that somebody sent."""
    monkeypatch.setattr("pdp.cli.output.DOCUMENT_BYTES_MAX", 1_000)
    monkeypatch.setattr("pdp.document.nodes.DOCUMENT_BYTES_MAX", 1_000)
    endless = directory / "endless_test.yaml"
    endless.symlink_to("/dev/zero")
    done = run(*command, str(endless))
    assert done.status == 2
    assert len(done.err.splitlines()) == 1
    assert "document_bytes_max" in done.err


def test_junit_xml_names_each_test_and_its_failure(run: Run, directory: Path) -> None:
    file, report = directory / "policy_test.yaml", directory / "report.xml"
    file.write_text(TESTS.replace("[allow,", "[deny,"))
    assert run("test", str(file), "--junit", str(report)).status == 1
    (suite,) = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    (failure,) = suite.iter("failure")
    assert failure.get("message") == "decision: wanted deny, found allow"
    assert [case.get("line") for case in suite] == ["5", "5"]


def test_a_name_that_xml_cannot_hold_leaves_the_report_readable(run: Run, directory: Path) -> None:
    file, report = directory / "policy_test.yaml", directory / "report.xml"
    file.write_text(TESTS.replace("- actors", '- name: "<a>\\x07&"\n    actors'))
    run("test", str(file), "--junit", str(report))
    assert "<a>\N{REPLACEMENT CHARACTER}&" in ElementTree.parse(report).find(".//testcase").get(
        "name"
    )


def test_watching_runs_again_when_the_policy_changes(directory: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PDP_")}
    output = directory / "output"
    with output.open("wb") as out:
        process = prefork.Process(
            ("test", "--watch"), cwd=directory, stdout=out, stderr=out, env=environment
        )
    try:
        eventually(lambda: "watches 2 files" in output.read_text(), seconds=60)
        (directory / "policy.yaml").write_text(POLICY.replace("allow:", "deny:"))
        eventually(lambda: "1 passed, 1 failed" in output.read_text(), seconds=60)
        (directory / "policy.yaml").write_text("nonsense")
        eventually(lambda: "must be a mapping" in output.read_text(), seconds=60)
        (directory / "policy.yaml").write_text(POLICY)
        eventually(lambda: output.read_text().count("2 passed") == 2, seconds=60)
    finally:
        process.terminate()
        process.wait(30)
