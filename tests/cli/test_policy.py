"""`pdp apply` and `pdp export`: what changes is shown, what deletes facts is asked."""

import sys
from pathlib import Path

import pytest

from pdp.administrator import Administrator
from pdp.cli import output, policy
from pdp.database.engine import open_engine
from pdp.facts import Store
from pdp.model import User
from tests.cli.running import Run
from tests.cli.terminal import on_terminal

POLICY = """\
permissions: [course:edit]
roles: {EDITOR: {allow: [{permission: course:edit, when: actor.id == 'a'}]}}
grants:
- {role: EDITOR, user: user_1}
- {role: EDITOR, user: user_2}
users: [{id: user_1, attributes: {plan: {name: free}}}, {id: user_2}]
"""


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_changed_entity_is_shown_with_what_it_was_and_what_it_becomes(run: Run) -> None:
    assert run("apply", "-", stdin=POLICY).status == 0
    changed = (
        POLICY.replace("actor.id == 'a'", "actor.id == 'b'")
        .replace("user: user_1}", "user: user_1, expires_at: '2030-01-01T00:00:00Z'}")
        .replace("plan: {name: free}", "plan: {name: paid}, beta: true")
        .replace("- {role: EDITOR, user: user_2}\n", "")
    )
    dry = run("apply", "-", "--dry-run", stdin=changed)
    *lines, last = dry.out.splitlines()
    assert last == "4 changes; nothing was changed"
    rule, grant, user, gone = lines
    assert rule.startswith("update rule EDITOR.allow.course:edit.")
    assert rule.endswith(""": when "actor.id == 'a'" -> "actor.id == 'b'\"""")
    assert grant.endswith(': expires_at (none) -> "2030-01-01T00:00:00Z"')
    assert user == (
        'update user user_1: attributes.plan.name "free" -> "paid", attributes.beta (none) -> true'
    )
    assert gone.startswith("delete grant g-")
    assert run("apply", "-", stdin=changed).out.splitlines()[:-1] == lines
    assert run("apply", "-", stdin=changed).out.startswith("no changes")


def users(tmp_path: Path) -> list[str]:
    engine = open_engine(f"sqlite:///{tmp_path / 'pdp.db'}")
    found = [user.id for user in Administrator(Store(engine), lambda _: None).list(User)]
    engine.dispose()
    return found


def test_on_a_terminal_it_asks_before_it_deletes_people(run: Run, tmp_path: Path) -> None:
    assert run("apply", "-", stdin=POLICY).status == 0
    fewer = "users: [{id: user_1}]\ngrants: [{role: EDITOR, user: user_1}]\n"
    (tmp_path / "fewer.yaml").write_text(fewer)
    status, shown = on_terminal("apply", "fewer.yaml", answer="n\n")
    assert (status, users(tmp_path)) == (1, ["user_1", "user_2"])
    assert "delete user user_2\n" in shown
    assert "3 changes; this deletes 1 user, 1 grant\n" in shown
    assert shown.endswith("nothing was changed\n")
    # The document comes through a pipe: the terminal is asked all the same.
    status, shown = on_terminal("apply", "-", answer="yes\n", piped=fewer)
    assert (status, users(tmp_path)) == (0, ["user_1"]), shown
    assert shown.count("delete user user_2\n") == 1


def test_it_asks_for_confirmation_only_on_a_terminal_and_without_yes(
    run: Run, tmp_path: Path
) -> None:
    assert run("apply", "-", stdin=POLICY).status == 0
    (tmp_path / "none.yaml").write_text("grants: []\nusers: []\n")
    assert run("apply", "none.yaml").status == 0
    assert users(tmp_path) == []
    assert run("apply", "-", stdin=POLICY).status == 0
    status, shown = on_terminal("apply", "none.yaml", "--yes")
    assert (status, users(tmp_path), "[y/N]" in shown) == (0, [], False)


def test_what_was_not_shown_is_not_applied(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer changes the policy while the question waits for its answer."""
    assert run("apply", "-", stdin=POLICY).status == 0
    (tmp_path / "none.yaml").write_text("users: []\n")

    def meanwhile(_: str) -> bool:
        engine = open_engine(f"sqlite:///{tmp_path / 'pdp.db'}")
        Administrator(Store(engine), lambda _: None).create(User("user_new"))
        engine.dispose()
        return True

    monkeypatch.setattr(policy, "is_asked_on_terminal", lambda **_: True)
    monkeypatch.setattr(policy, "confirm", meanwhile)
    done = run("apply", "none.yaml")
    assert done.status == 2
    assert "others have written" in done.err
    assert users(tmp_path) == ["user_1", "user_2", "user_new"]


def test_on_a_terminal_it_says_that_it_waits_for_input(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("apply", "-", stdin=POLICY).status == 0
    status, shown = on_terminal("apply", "-", "--dry-run", answer="users: []\n\x04")
    assert (status, "reads a policy document from standard input" in shown) == (0, True)
    from types import SimpleNamespace

    terminal = SimpleNamespace(isatty=lambda: True, read=lambda _: "x")
    monkeypatch.setattr(sys, "stdin", terminal)
    output._err.cache_clear()
    assert output.read_input("a session token") == "x"
    assert "reads a session token from standard input" in capsys.readouterr().err
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    output.read_input("a session token")
    assert capsys.readouterr().err == ""


def test_sections_are_exported_by_name(run: Run) -> None:
    assert run("apply", "-", stdin=POLICY).status == 0
    done = run("export", "--sections", "users,grants")
    assert [line for line in done.out.splitlines() if not line.startswith("-")] == [
        "version: 1",
        "grants:",
        "users:",
    ]
    assert run("apply", "-", stdin=done.out).out.startswith("no changes")
    wrong = run("export", "--sections", "user")
    assert (wrong.status, wrong.out) == (2, "")
    assert "'user' is not one of permissions, resource_types, roles" in wrong.err


def test_messages_name_file_line_and_column(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("permissions:\n- course:edit\n- Course\n")
    (tmp_path / "p.json").write_text('{\n "users": [{"id": 1}]\n}')
    (tmp_path / "tab.yaml").write_text("roles:\n\tADMIN: {}\n")
    (tmp_path / "latin.yaml").write_bytes(b"# \xe9\n")

    def said(file: str) -> str:
        return run("apply", file).err.splitlines()[-1]

    assert said("p.yaml").startswith("pdp: p.yaml:3:3: permissions[1]: ")
    assert said("p.json").startswith("pdp: p.json:2:13: users[0].id: ")
    tab = said("tab.yaml")
    assert tab.startswith("pdp: tab.yaml:2:1: document: is not YAML: a tab where")
    assert said("latin.yaml") == "pdp: latin.yaml: is not UTF-8 text"
