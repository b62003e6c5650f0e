"""`pdp clerk`: the Clerk account that people come from, and the database that follows it."""

import typer

from pdp.cli import clerk_claims, clerk_doctor, clerk_sync

app = typer.Typer(no_args_is_help=True, help="The Clerk account that people come from.")
app.command("sync")(clerk_sync.sync)
app.command("doctor")(clerk_doctor.doctor)
app.command("push-claims")(clerk_claims.push_claims)
