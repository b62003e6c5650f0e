"""`pdp init`: what it writes works, and what is there stays."""

from pathlib import Path

import pytest

from tests.cli.running import Run

NAMES = ["pdp.toml", "policy.yaml", "policy_test.yaml"]


def test_what_it_writes_passes_its_tests_has_no_warnings_and_is_applied(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run("init", str(tmp_path / "new"))
    assert made.status == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == NAMES
    monkeypatch.chdir(tmp_path / "new")
    assert run("test").out.startswith("12 passed, 0 failed")
    assert "0 warnings" in run("lint", "policy.yaml").out
    assert run("token", "mint", "--user", "user_ada").status == 0
    assert run("apply", "policy.yaml").status == 0
    checked = run("config", "check")
    assert checked.status == 0
    assert "http://localhost/pdp-development" in checked.out
    token = run("token", "mint", "--user", "user_sam", "--organization", "org_example").out
    assert run("token", "inspect", stdin=token).status == 0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_overwritten_and_nothing_is_half_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    Path(name).write_text("mine")
    done = run("init")
    assert (done.status, done.out) == (2, "")
    assert done.err == f"pdp: {name} exists already: nothing was written\n"
    assert [path.name for path in Path().iterdir()] == [name]
    assert Path(name).read_text() == "mine"


def test_a_link_is_not_followed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    Path("policy.yaml").symlink_to(tmp_path / "elsewhere")
    assert run("init").status == 2
    assert not (tmp_path / "elsewhere").exists()
