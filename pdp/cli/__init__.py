"""`pdp`, the command line: serve, sidecar, policy, questions, tokens, audit, Clerk.

Errors are one line on standard error and exit status 2; a denial answered to `pdp check` is exit
status 1, so that shells can tell no from failure.

A module of a command imports what the command runs on when it runs: `pdp --help` and the commands
that need little must not wait for SQL, gRPC and CEL. `tests/cli/test_start.py` holds that.
"""

import functools
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pdp.cli import (
    allowed,
    ask,
    audit,
    clerk,
    config,
    console,
    context,
    database,
    diff,
    explain,
    get,
    grants,
    init,
    lint,
    policy,
    policy_tests,
    replay,
    review,
    rls,
    secrets,
    serve,
    shadow,
    sidecar,
    token,
    whoami,
)
from pdp.cli.connection import ContextOption
from pdp.cli.output import HELP_STYLE, emit, fail, say
from pdp.errors import PdpError

_HELP = frozenset(("-h", "--help", "--version"))
"""With these a command does nothing else, and loads nothing else."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=HELP_STYLE,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A policy decision point for Clerk applications.",
)
app.command("serve")(serve.serve)
app.command("sidecar")(sidecar.sidecar)
app.command("init")(init.init)
app.command("migrate")(policy.migrate_database)
app.command("apply")(policy.apply)
app.command("export")(policy.export)
app.command("diff")(diff.diff)
app.command("replay")(replay.replay)
app.command("check")(ask.check)
app.command("explain")(explain.explain)
app.command("test")(policy_tests.run)
app.command("lint")(lint.lint)
app.command("plan")(ask.plan)
app.command("get")(get.get)
app.command("describe")(get.describe)
app.command("delete")(get.delete)
app.command("grant")(grants.grant)
app.command("revoke")(grants.revoke)
app.command("key")(secrets.key)
app.command("whoami")(whoami.whoami)
app.add_typer(allowed.app, name="allowed")
app.add_typer(audit.app, name="audit")
app.add_typer(clerk.app, name="clerk")
app.add_typer(config.app, name="config")
app.add_typer(context.app, name="context")
app.add_typer(shadow.app, name="shadow")
app.add_typer(console.app, name="console")
app.add_typer(database.app, name="database")
app.add_typer(review.app, name="review")
app.add_typer(rls.app, name="rls")
app.add_typer(token.app, name="token")
app.add_typer(grants.app, name="user")


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(f"pdp {version('pdp')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version),
    ] = False,
    profile: ContextOption = None,
) -> None:
    pass


def _prepare() -> None:
    from pdp.cli.variables import warn_of_unknown_variables

    servers = (["serve"], ["sidecar"], ["audit", "forward"])  # which do not start with them
    if sys.argv[1:2] not in servers and sys.argv[1:3] not in servers:
        warn_of_unknown_variables()


@functools.cache
def command() -> Any:
    """The tree of all commands, of click's types; it takes some 80 ms to build."""
    return typer.main.get_command(app)


def main() -> None:
    """Runs the command line; typed errors become one line each and exit status 2."""
    if _HELP.isdisjoint(sys.argv[1:]):
        _prepare()
    try:
        status = command()(prog_name="pdp", standalone_mode=False)
    except typer.TyperException as error:
        status = _usage(error)
    except typer.Abort:
        status = 1
    except (PdpError, OSError, RuntimeError, ValueError) as error:
        for line in _lines(error):
            fail(line)
        status = 2
    sys.exit(status or 0)


def _usage(error: typer.TyperException) -> int:
    """Says what is wrong with the arguments, or prints the help that replaces an error."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        # With boxes it has been printed already, and there is no text of it.
        emit(f"{message}\n" if message else "")
        return error.exit_code
    fail(message)
    if context is not None:
        fail(f"'{context.command_path} --help' lists the arguments")
    return error.exit_code


def _lines(error: Exception) -> Iterator[str]:
    if isinstance(error, PdpError):
        yield error.message
        return
    if isinstance(error, OSError) and error.filename and error.strerror:
        yield f"{error.filename}: {error.strerror}"
        return
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        yield str(error)
        return
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        yield f"settings: {where}: {message}" if where else f"settings: {message}"
