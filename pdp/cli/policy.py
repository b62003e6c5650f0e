"""`pdp migrate`, `pdp apply`, `pdp export`: on the database that the settings name."""

import time
from pathlib import Path
from typing import Annotated

import typer

from pdp.administrator import Administrator
from pdp.cli.database import open_store
from pdp.cli.output import note, say, warn
from pdp.document import parse_document
from pdp.facts import migrate
from pdp.settings import DatabaseSettings
from pdp.sql import database_name, open_engine

Config = Annotated[Path | None, typer.Option(help="TOML file of settings.")]


def migrate_database(config: Config = None) -> None:
    """Brings the database's schema up to this version."""
    url = DatabaseSettings.load(config).database_url.get_secret_value()
    engine = open_engine(url)
    note(f"database {database_name(url)}")
    migrate(engine)
    say("the schema is up to date")


def apply(
    file: Annotated[typer.FileText, typer.Argument(help="Policy document; - reads from a pipe.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the difference and change nothing.")
    ] = False,
    everywhere: Annotated[
        bool,
        typer.Option("--everywhere", help="Wait until nobody answers from the policy before."),
    ] = False,
    config: Config = None,
) -> None:
    """Makes the database equal to a policy document."""
    if dry_run and everywhere:
        raise typer.BadParameter("--dry-run changes nothing anywhere")
    administrator = _administrator(config, create=not dry_run)
    document = parse_document(file.read())
    revision, changes = administrator.apply(document, dry_run=dry_run)
    for change in changes:
        say(f"{change.action.value} {change.kind} {'/'.join(change.key)}")
    if dry_run:
        say(f"{len(changes)} changes; nothing was changed")
    elif changes:
        say(f"{len(changes)} changes applied at revision {revision}")
    else:
        say(f"no changes; the database is equal to the document at revision {revision}")
    for one in administrator.lint(document):
        place = f"line {one.line}: {one.field}" if one.line else one.field
        warn(f"{place}: {one.description}")
    if everywhere:
        _wait_everywhere(administrator, revision)


def export(config: Config = None) -> None:
    """Writes the database as a policy document."""
    document, _ = _administrator(config, create=False).export()
    typer.echo(document, nl=False)


def _administrator(config: Path | None, *, create: bool) -> Administrator:
    store = open_store(DatabaseSettings.load(config), create=create)
    return Administrator(store, on_write=lambda _: None)


def _wait_everywhere(administrator: Administrator, revision: int) -> None:
    began = time.monotonic()
    passed = administrator.await_everywhere(revision)
    seconds = time.monotonic() - began
    say(f"in force everywhere after {seconds:.2f} s, at {passed.replicas} processes")
    if passed.silent:
        say(f"{passed.silent} of them did not answer, and may not answer any more")
