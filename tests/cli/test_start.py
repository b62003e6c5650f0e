"""Commands start without what they do not need: SQL, gRPC, CEL and HTTP take seconds."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.running import Run
from tests.kit.server import PDP

HEAVY = {
    *("sqlalchemy", "alembic", "psycopg", "grpc", "google.protobuf", "cel_expr_python"),
    *("httpx", "pydantic_settings", "cryptography", "jwt"),
    *("structlog", "starlette", "uvicorn", "prometheus_client", "yaml", "rich"),
}
"""Modules that cost more than 20 ms to import, except pydantic, which typer uses for arguments."""
COMMANDS = [
    *(
        (),
        ("serve",),
        ("sidecar",),
        ("migrate",),
        ("apply",),
        ("export",),
        ("check",),
        ("explain",),
    ),
    *(("get",), ("describe",), ("delete",), ("whoami",)),
    *(("context",), ("context", "list"), ("context", "set"), ("context", "use")),
    *(("init",), ("config",), ("config", "check")),
    *(("grant",), ("revoke",), ("user",), ("user", "disable"), ("user", "enable")),
    *(("token", "mint"), ("token", "inspect")),
    *(("token",), ("key",), ("audit",), ("audit", "list"), ("audit", "show"), ("audit", "verify")),
    *(("clerk",), ("clerk", "sync"), ("clerk", "doctor"), ("clerk", "push-claims")),
    *(("allowed",), ("allowed", "permissions"), ("allowed", "resources"), ("allowed", "actors")),
    *(("review",), ("review", "unused"), ("review", "campaign"), ("review", "campaign", "export")),
    *(("database",), ("database", "renew-epoch")),
    *(("diff",), ("replay",), ("shadow",), ("shadow", "set"), ("shadow", "status")),
    *(("shadow", "clear"), ("shadow", "report")),
]


def imported(statements: str) -> set[str]:
    """The heavy modules that a new interpreter has imported after these statements."""
    script = f"import sys\n{statements}\nprint(*sorted(sys.modules), file=sys.__stderr__)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={name: value for name, value in os.environ.items() if not name.startswith("PDP_")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return HEAVY & set(done.stderr.split())


def running(arguments: tuple[str, ...]) -> str:
    return (
        f"sys.argv = ['pdp', *{arguments!r}]\n"
        "from pdp.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )


def test_no_help_imports_anything_heavy() -> None:
    """One interpreter for all of them: what any of them imported would be found."""
    assert imported("\n".join(running((*command, "--help")) for command in COMMANDS)) == set()


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (("--version",), {"rich"}),
        (("key",), set()),
        (
            ("check", "a:b", "--token", "x", "--server", "127.0.0.1:1"),
            {"grpc", "google.protobuf", "rich"},
        ),
        (("audit", "list", "--server", "127.0.0.1:1"), {"grpc", "google.protobuf", "rich"}),
    ],
)
def test_a_command_imports_what_it_needs(arguments: tuple[str, ...], needed: set[str]) -> None:
    assert imported(running(arguments)) <= needed


def test_the_measure_sees_what_is_heavy() -> None:
    """The control: a command that works on the database has to import all this."""
    assert {"sqlalchemy", "yaml"} <= imported("import pdp.administrator")


def test_only_a_database_that_lacks_a_migration_needs_alembic(tmp_path: Path) -> None:
    migrate = f"from pdp.facts import migrate\nmigrate('sqlite:///{tmp_path}/pdp.db')"
    assert "alembic" in imported(migrate)
    assert "alembic" not in imported(f"import pdp.process.app\n{migrate}")


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version").out == f"pdp {version('pdp')}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_a_short_and_a_long_help_without_boxes_in_a_pipe(
    run: Run, command: tuple[str, ...]
) -> None:
    short, long = run(*command, "-h"), run(*command, "--help")
    assert (short.status, short.out) == (0, long.out)
    assert short.out.lstrip().startswith(f"Usage: pdp {' '.join(command)}".rstrip())
    assert short.out.isascii()


def test_an_unknown_command_is_one_line_with_a_suggestion(run: Run) -> None:
    done = run("audit", "lst")
    assert (done.status, done.out) == (2, "")
    assert done.err.splitlines()[0] == "pdp: No such command 'lst'. Did you mean 'list'?"


def test_without_a_command_the_help_is_printed(run: Run) -> None:
    done = run()
    assert done.status == 2
    assert "Commands:" in done.out


def test_a_pipe_that_is_closed_is_no_error() -> None:
    command = " ".join(PDP)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} apply --help | true; echo $?"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
