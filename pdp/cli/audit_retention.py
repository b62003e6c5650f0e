"""`pdp audit archive | hold | holds | release`: how long records stay in SQL."""

from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.audit_tree import Directories
from pdp.cli.options import Config, duration_of, utc_seconds, utc_text
from pdp.cli.output import fail, say

if TYPE_CHECKING:
    from pdp.settings import RetentionSettings

Reason = Annotated[str, typer.Option(help="Why; it is recorded.")]


def archive(
    directories: Directories,
    before: Annotated[str, typer.Option(help="Age of the records, e.g. 90d or 12h.")],
    out: Annotated[Path, typer.Option(help="Directory of the archive.")],
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the records in the database: an export.")
    ] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Also write copies as Parquet, for analysis.")
    ] = False,
    config: Config = None,
) -> None:
    """Moves old records from the database into signed, compressed files that prove themselves.

    Exit status: 0 all logs were archived; 1 a log could not be, and nothing of it was removed.
    """
    from pdp.audit.administration_log import ORIGIN
    from pdp.audit.transparency import DamagedTreeError, signers_of
    from pdp.audit.transparency.archives import archive as archive_tree
    from pdp.audit.transparency.proofs import find_trees
    from pdp.audit.transparency.verification import verify_tree
    from pdp.cli.database import open_store
    from pdp.clock import wall_clock

    if parquet and find_spec("pyarrow") is None:
        raise ValueError("--parquet needs pyarrow: pip install 'pdp[parquet]'")
    settings = _settings(config)
    if settings.audit_tree is None:
        raise ValueError("settings: audit_tree: is not configured; its keys sign archives")
    signers = signers_of(settings.audit_tree)
    engine = open_store(settings, create=False).engine
    cutoff = wall_clock() - _age(before)
    failed = False
    for tree in find_trees(directories):
        if tree.genesis.origin == ORIGIN:
            continue  # the log of changes stays in the database
        report = verify_tree(tree, [signer.key for signer in signers])
        problems = list(report.problems)
        if not problems:
            try:
                done = archive_tree(engine, tree, out, cutoff, signers, remove=not keep)
                say(f"{report.origin}: {done.records} records archived, {done.kept} held back")
                if parquet:
                    from pdp.audit.transparency.parquet import write_copies

                    copies = write_copies(out / tree.genesis.origin / tree.directory.name)
                    say(f"{report.origin}: {copies} files copied as Parquet")
            except DamagedTreeError as error:
                problems.append(str(error))
        for problem in problems:
            fail(f"{report.origin}: {problem}")
        failed = failed or bool(problems)
    if failed:
        raise typer.Exit(1)


def hold(
    name: Annotated[str, typer.Argument(help="Name of the hold, e.g. a case number.")],
    user: Annotated[str | None, typer.Option(help="Clerk user id.")] = None,
    organization: Annotated[str | None, typer.Option(help="The actor's organization.")] = None,
    resource: Annotated[str | None, typer.Option(help="TYPE or TYPE:ID.")] = None,
    permission: Annotated[str | None, typer.Option(help="Exact permission.")] = None,
    caller: Annotated[str | None, typer.Option(help="The calling backend.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Decided at or after (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Decided before (UTC).")] = None,
    reason: Reason = "",
    config: Config = None,
) -> None:
    """Keeps records that match a filter in the database, whatever is archived."""
    from pdp.audit import DecisionFilter
    from pdp.audit.retention import Hold, place_hold
    from pdp.cli.database import open_store
    from pdp.cli.policy import command_author
    from pdp.clock import wall_clock

    kind, _, identifier = (resource or "").partition(":")
    wanted = DecisionFilter(
        user_id=user,
        organization_id=organization,
        resource_type=kind or None,
        resource_id=identifier or None,
        permission=permission,
        caller=caller,
        not_before=utc_seconds(since),
        before=utc_seconds(until),
    )
    author = command_author(reason)
    with open_store(_settings(config), create=False).write(author) as transaction:
        place_hold(transaction, Hold(name, wanted, wall_clock()))
    say(f"hold {name} is in place")


def holds(config: Config = None) -> None:
    """Lists the holds."""
    from dataclasses import asdict

    from pdp.audit.retention import list_holds
    from pdp.cli.database import open_store

    for found in list_holds(open_store(_settings(config), create=False).engine):
        placed = utc_text(found.placed_at)
        parts = [
            f"{name}={value}" for name, value in asdict(found.filter).items() if value is not None
        ]
        say(f"{found.name}  {placed}  {' '.join(parts)}")


def release(
    name: Annotated[str, typer.Argument(help="Name of the hold.")],
    reason: Reason = "",
    config: Config = None,
) -> None:
    """Removes a hold: the next archive removes its records from the database."""
    from pdp.audit.retention import release_hold
    from pdp.cli.database import open_store
    from pdp.cli.policy import command_author

    author = command_author(reason)
    with open_store(_settings(config), create=False).write(author) as transaction:
        release_hold(transaction, name)
    say(f"hold {name} is released")


def _settings(config: Path | None) -> "RetentionSettings":
    from pdp.settings import RetentionSettings

    return RetentionSettings.load(config)


def _age(text: str) -> float:
    age = duration_of(text)
    if age is None:
        raise typer.BadParameter("--before is a number with a unit: 12h, 90d")
    return age.total_seconds()
