"""Whatever strangers have written, it is shown as text."""

import ast
import json
import os
import pty
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp import cli
from pdp.audit import Recorder, Shipper, SqlDestination
from pdp.database.engine import open_engine
from pdp.model import Actor, ResourceRef
from tests.cli.hostile import CONTROLS, MARKUP, unsafe
from tests.cli.running import Done, Run
from tests.kit import prefork, waiting
from tests.kit.audit.records import decision_record
from tests.kit.server import ServerProcess
from tests.kit.sqlite import make_sqlite

CLI = Path(cli.__file__).parent


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose decision log holds what strangers asked and a sidecar reported."""
    directory = tmp_path_factory.mktemp("hostile")
    file = directory / "pdp.db"
    make_sqlite(file)
    recorder = Recorder(directory / "elsewhere", "one")
    recorder.start()
    waiting.run(
        recorder.record(
            [
                decision_record(
                    permission=text,
                    resource=ResourceRef("course", text),
                    actor=Actor(text, text, text, text),
                    caller=text,
                    rule_id=text,
                    grant_id=text,
                    request=f"GET /{text}",
                    token_id=text,
                )
                for text in (*MARKUP, *CONTROLS)
            ]
        )
    )
    recorder.stop()
    engine = open_engine(f"sqlite:///{file}")
    Shipper(directory / "elsewhere", SqlDestination(engine)).ship()
    engine.dispose()
    one = ServerProcess(directory)
    one.start()
    yield one
    one.stop()


@pytest.fixture
def at(server: ServerProcess, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands against that server."""
    monkeypatch.setenv("PDP_SERVER", server.environment["PDP_SERVER"])
    return run


def shown(done: Done, *statuses: int) -> str:
    assert done.status in (statuses or (0,)), done
    assert not unsafe(done.out + done.err), done
    return done.out


def test_the_list_shows_hostile_ids_as_they_are_and_their_controls_escaped(at: Run) -> None:
    table = shown(at("audit", "list"))
    for text in MARKUP:
        assert f" {text} " in table
        assert f" course:{text} " in table
    assert " \\x1b[2J\\x1b]0;owned\\x07 " in table
    assert " a\\nforged: line\\r " in table
    assert not any(line.startswith("forged") for line in table.splitlines())
    assert len(table.splitlines()) >= 1 + len(MARKUP) + len(CONTROLS)


def test_one_record_and_json_and_what_follows_are_as_safe(at: Run) -> None:
    lines = [json.loads(line) for line in shown(at("audit", "list", "--json")).splitlines()]
    assert {line["permission"] for line in lines} >= {*MARKUP, *CONTROLS}
    fields = [shown(at("audit", "show", line["decision_id"])) for line in lines]
    assert any("\npermission: [conceal]x\n" in text for text in fields)
    assert any("\npermission: a\\u202eb\\u2066c\\u200d\n" in text for text in fields)
    followed = shown(at("audit", "list", "--after", "start"))
    assert all(f" course:{text} " in followed for text in MARKUP)


@pytest.mark.parametrize("text", [MARKUP[0], MARKUP[2], CONTROLS[0], "a\nb\u202e\x9b\u2028"])
def test_errors_repeat_what_they_are_about_as_text(at: Run, text: str, tmp_path: Path) -> None:
    shown(at("audit", "show", text), 2)
    shown(at("audit", "list", "--reason", text), 2)
    shown(at("check", text, f"course:{text}", "--token", "x"), 1, 2)
    shown(at("check", "course:edit", "--token", "x", "--context", text), 2)
    shown(at("apply", str(tmp_path / text)), 2)
    shown(at("audit", "verify", str(tmp_path / text)), 2)
    shown(at("export", "--sections", text), 2)
    shown(at(text), 2)
    shown(at("audit", "list", "--after", text), 2)


def test_apply_shows_hostile_ids_and_ends_well(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    ids = [*MARKUP, "a\u202eb\u2066c"]
    document = {"users": [{"id": text, "name": "\n\tx\u202e"} for text in ids]}
    said = shown(run("apply", "-", stdin=json.dumps(document)))
    for text in MARKUP:
        assert f"create user {text}\n" in said
    assert "create user a\\u202eb\\u2066c\n" in said
    exported = shown(run("export"))
    assert "\\U0000202E" in exported
    assert shown(run("apply", "-", stdin=exported)).startswith("no changes"), "it is the same"
    for user in document["users"]:
        user["name"] = "[link=x]"
    assert 'name "\\n\\tx\\u202e" -> "[link=x]"\n' in shown(
        run("apply", "-", stdin=json.dumps(document))
    )
    for text in (*MARKUP, *CONTROLS):
        wrong = {
            text: [],
            "roles": {text: {text: 1}},
            "users": [{"id": text, text: 1}, {"id": text}],
        }
        shown(run("apply", "-", stdin=json.dumps(wrong)), 2)


def test_on_a_terminal_it_is_text_too(tmp_path: Path) -> None:
    """There, and only there, colours and links would work."""
    (tmp_path / "p.json").write_text(json.dumps({"users": [{"id": text} for text in MARKUP]}))
    make_sqlite(tmp_path / "pdp.db")
    terminal, its_end = pty.openpty()
    with Path(os.devnull).open("wb") as nothing:
        process = prefork.Process(
            ("apply", "p.json"),
            cwd=tmp_path,
            env={**os.environ, "TERM": "xterm-256color"},
            stdin=its_end,
            stdout=its_end,
            stderr=nothing,  # a busy machine may show there that it waits
        )
    os.close(its_end)
    said = b"".join(_read(terminal))
    assert process.wait(30) == 0
    for text in MARKUP:
        assert f"create user {text}\r\n".encode() in said
    assert b"\x1b" not in said


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            yield os.read(terminal, 65_536)
        except OSError:  # nobody is at the other end any more
            os.close(terminal)
            return


@pytest.mark.parametrize("file", sorted(CLI.glob("*.py")), ids=lambda file: file.stem)
def test_only_one_file_of_the_command_line_writes_to_the_terminal(file: Path) -> None:
    tree = ast.parse(file.read_text())
    if file.name == "output.py":
        assert "Console(" in file.read_text(), "this test looks where things are printed"
        return
    guarded = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if node in guarded:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None), *(name.name for name in node.names)]
            assert not any(str(name).partition(".")[0] in {"rich", "click"} for name in names)
        if isinstance(node, ast.Attribute | ast.Name):
            assert ast.unparse(node) not in {
                *("print", "typer.echo", "typer.secho", "typer.confirm", "typer.prompt"),
                *("sys.stdout", "sys.stderr", "os.write", "pprint"),
            }
