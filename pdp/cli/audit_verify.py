"""`pdp audit verify`: is the decision log what was recorded?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.options import Config
from pdp.cli.output import fail, say

if TYPE_CHECKING:
    from pdp.audit import Report, SqlReport
    from pdp.facts import Store

PROBLEMS_MAX = 100
"""How many are printed of the database; all are counted."""


def verify(
    directory: Annotated[
        Path | None, typer.Argument(help="Directory of audit segments.", show_default=False)
    ] = None,
    no_database: Annotated[
        bool, typer.Option("--no-database", help="Check segments only, e.g. a sidecar's.")
    ] = False,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Verifier key, or its file (default: the keys of the settings)."),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="An older checkpoint that the log must continue.")
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(help="Key of a witness, or its file (default: those of the settings)."),
    ] = None,
    cosignatures: Annotated[
        int, typer.Option(min=0, help="How many witnesses must have cosigned each tree.")
    ] = 0,
    config: Config = None,
) -> None:
    """Checks the decision log: its chain in SQL and in segments, and its trees in a directory.

    Exit status: 0 all that there is holds; 1 something does not; 2 something could not be checked,
    or there was nothing to check.
    """
    from pdp.audit import shipped_places, verify_segments
    from pdp.cli.audit_tree import trusted_keys, trusted_witnesses
    from pdp.cli.audit_verify_trees import Demands, verify_trees

    if directory is None and (checkpoint or witness or cosignatures):
        raise typer.BadParameter("checkpoints and cosignatures are in a directory: name it")
    store = None if no_database else _opened(config)
    places = {} if store is None else shipped_places(store.engine)
    on_disk = None if directory is None else verify_segments(directory, places)
    if on_disk is not None:
        _say_segments(on_disk)
    has_trees = directory is not None and any(directory.rglob("tree/*/checkpoint"))
    in_sql = None if store is None else _verify_sql(store, on_disk, has_trees=has_trees)
    trees_hold = True
    if directory is not None:
        trusted = trusted_keys(key or [], config)
        witnesses = trusted_witnesses(witness or [], config) if witness or cosignatures else []
        trees_hold = verify_trees(
            directory, store, Demands(trusted, checkpoint or [], witnesses, cosignatures)
        )
    if (on_disk and on_disk.problems) or (in_sql and in_sql.problems) or not trees_hold:
        raise typer.Exit(1)
    if store is None and not no_database:
        raise typer.Exit(2)
    in_both = (
        on_disk.records if on_disk else 0,
        *((in_sql.records, in_sql.changes) if in_sql else ()),
    )
    if not any(in_both):
        fail("nothing was checked: there is no record")
        raise typer.Exit(2)


def _opened(config: Path | None) -> "Store | None":
    from pdp.cli.database import open_store
    from pdp.errors import DatabaseUnavailable
    from pdp.settings import DatabaseSettings

    try:
        return open_store(DatabaseSettings.load(config), create=False)
    except (DatabaseUnavailable, ValueError) as error:
        message = error.message if isinstance(error, DatabaseUnavailable) else str(error)
        fail(f"the database was not checked: {message} (--no-database leaves it out)")
        return None


def _say_segments(report: "Report") -> None:
    for problem in report.problems:
        where = f"record {problem.position}" if problem.position is not None else "header"
        fail(f"{problem.path}: {where} at byte {problem.byte_offset}: {problem.what}")
    say(f"{report.records} records in {report.segments} segments")


def _verify_sql(store: "Store", on_disk: "Report | None", *, has_trees: bool) -> "SqlReport":
    from pdp.audit import verify_sql

    printed = 0

    def report_problem(problem: str) -> None:
        nonlocal printed
        printed += 1
        if printed <= PROBLEMS_MAX:
            fail(f"database: {problem}")

    report = verify_sql(store.engine, report_problem, {} if on_disk is None else on_disk.headers)
    if printed > PROBLEMS_MAX:
        fail(f"database: and {printed - PROBLEMS_MAX} more problems")
    say(f"{report.records} records and {report.gaps} gaps of {report.logs} logs in the database")
    if report.erased:
        say(f"{report.erased} of them were erased on request (pdp audit changes --kind erasure)")
    if report.changes:
        say(f"{report.changes} administration records in the database")
    if report.unlinked:
        say(f"could not be checked: {report.unlinked} of them, after rows that are missing")
    if report.counts and not has_trees:
        say(f"could not be checked: how often folded denials occurred ({report.counts} counts)")
    if on_disk is None:
        say("could not be checked: segments (name their directory)")
    if not has_trees:
        say("could not be checked: whether somebody has computed all digests again")
    return report
