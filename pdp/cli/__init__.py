"""`pdp`, the command line: serve, sidecar, policy, questions, tokens, audit, Clerk.

Errors are one line on standard error and exit status 2; a denial answered to `pdp check` is exit
status 1, so that shells can tell no from failure.
"""

import sys

import typer
from pydantic import ValidationError

from pdp.cli import ask, audit, clerk, database, policy, secrets, serve, sidecar
from pdp.cli.output import fail
from pdp.cli.variables import warn_of_unknown_variables
from pdp.errors import InvalidPolicy, PdpError
from pdp.logs import configure_logs

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="A policy decision point for Clerk applications.",
)
app.command("serve")(serve.serve)
app.command("sidecar")(sidecar.sidecar)
app.command("migrate")(policy.migrate_database)
app.command("apply")(policy.apply)
app.command("export")(policy.export)
app.command("check")(ask.check)
app.command("token")(secrets.token)
app.command("key")(secrets.key)
app.add_typer(audit.app, name="audit")
app.add_typer(clerk.app, name="clerk")
app.add_typer(database.app, name="database")


def main() -> None:
    """Runs the command line; typed errors become one line and exit status 2."""
    # Until a command's settings say more; never on standard output, which may be a document.
    configure_logs("warning", "console")
    if sys.argv[1:2] not in (["serve"], ["sidecar"]):  # which do not start with them
        warn_of_unknown_variables()
    try:
        app()
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            where = ".".join(str(part) for part in problem["loc"])
            said = problem["msg"].removeprefix("Value error, ")
            fail(f"settings: {where}: {said}" if where else f"settings: {said}")
        sys.exit(2)
    except InvalidPolicy as error:
        for violation in error.violations:
            line = "" if violation.line is None else f"line {violation.line}: "
            fail(f"{line}{violation.field}: {violation.description}")
        sys.exit(2)
    except PdpError as error:
        fail(error.message)
        sys.exit(2)
    except (OSError, RuntimeError, ValueError) as error:
        fail(str(error))
        sys.exit(2)
