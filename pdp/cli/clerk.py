"""`pdp clerk`: the Clerk account that people come from, and the database that follows it."""

import typer

from pdp.cli import clerk_claims, clerk_doctor, clerk_sync
from pdp.cli.output import HELP_STYLE

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=HELP_STYLE,
    help="The Clerk account that people come from.",
)
app.command("sync")(clerk_sync.sync)
app.command("doctor")(clerk_doctor.doctor)
app.command("push-claims")(clerk_claims.push_claims)
