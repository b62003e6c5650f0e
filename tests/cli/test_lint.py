"""`pdp lint`: text, JSON, SARIF and exit status."""

import json
from pathlib import Path

import pytest

from tests.cli.policies import LINTED
from tests.cli.running import Run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a policy.yaml"
    path.write_text(LINTED)
    return path


def test_a_warning_has_its_line_and_its_rule_and_fails(run: Run, file: Path) -> None:
    done = run("lint", str(file))
    assert done.status == 1
    assert done.out.splitlines() == [
        (
            f"warning  {file}:4:3: roles.B: no grant gives it, neither by itself nor through a "
            "role that inherits it [role-unheld]"
        ),
        "1 warnings, 0 notes, 1 silenced",
    ]


def test_notes_alone_do_not_fail(run: Run, file: Path) -> None:
    file.write_text(
        LINTED.replace("  # lint: silence grant-never-ends: staff\n", "").replace("  B: {}\n", "")
    )
    done = run("lint", str(file))
    assert (done.status, done.out.splitlines()[-1]) == (0, "0 warnings, 1 notes, 0 silenced")


def test_a_file_that_is_refused_has_status_2(run: Run, file: Path) -> None:
    done = run("lint", "-", str(file), stdin="roles: []")
    assert (done.status, "stdin:1:1: roles: must be a mapping" in done.err) == (2, True)


def test_json_names_what_is_silenced_and_why(run: Run, file: Path) -> None:
    found = json.loads(run("lint", str(file), "-o", "json").out)
    assert [(item["rule"], item["line"], item["silenced"]) for item in found] == [
        ("role-unheld", 4, None),
        ("grant-never-ends", 7, "staff"),
    ]


def test_sarif_has_what_code_scanners_need(run: Run, file: Path) -> None:
    """The fields that SARIF 2.1.0 requires, and those by which GitHub places a finding."""
    log = json.loads(run("lint", str(file), "-o", "sarif").out)
    assert log["version"] == "2.1.0"
    (one,) = log["runs"]
    rules = {rule["id"] for rule in one["tool"]["driver"]["rules"]}
    first, second = one["results"]
    assert {first["ruleId"], second["ruleId"]} <= rules
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"].endswith("/a%20policy.yaml")
    assert place["region"] == {"startLine": 4, "startColumn": 3}
    assert second["suppressions"] == [{"kind": "inSource", "justification": "staff"}]
