"""`pdp migrate`, `pdp apply`, `pdp export`: on the database that the settings name."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.entities import Reason
from pdp.cli.options import Config
from pdp.cli.output import (
    confirm,
    emit,
    fail,
    is_asked_on_terminal,
    note,
    read_document,
    say,
    waiting,
    warn,
)

if TYPE_CHECKING:
    from pdp.administration_records import Author
    from pdp.administrator import Administrator
    from pdp.document import Described, PolicyDocument
    from pdp.facts import Store


_ASKED_KINDS = ("user", "grant", "membership", "organization", "resource")
"""Facts. Other than permissions, roles and routes they are seldom in a file under version control,
so what deletes them is confirmed."""


def migrate_database(config: Config = None) -> None:
    """Brings the database's schema up to this version."""
    from pdp.database.engine import database_name, open_engine
    from pdp.facts import migrate
    from pdp.settings import DatabaseSettings

    url = DatabaseSettings.load(config).database_url.get_secret_value()
    engine = open_engine(url)
    note(f"database {database_name(url)}")
    with waiting("bringing the schema up to date"):
        migrate(engine)
    say("the schema is up to date")


def apply(
    file: Annotated[str, typer.Argument(help="Policy document; - reads standard input.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the difference and change nothing.")
    ] = False,
    everywhere: Annotated[
        bool,
        typer.Option("--everywhere", help="Wait until nobody answers from the policy before."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Delete users, grants and other facts unasked.")
    ] = False,
    reason: Reason = "",
    config: Config = None,
) -> None:
    """Makes the database equal to a policy document.

    Before it deletes users, grants, memberships, organizations or resources, it asks, if it runs on
    a terminal. Exit status: 0 done, 1 the answer was no, 2 nothing was changed for an error.
    """
    if dry_run and everywhere:
        raise typer.BadParameter("--dry-run changes nothing anywhere")
    from pdp.document import described, parse_document
    from pdp.errors import InvalidPolicy

    text = read_document(file)
    store = _store(config, create=not dry_run)
    administrator = _administrator(store)
    asks = not (dry_run or yes) and is_asked_on_terminal(input_is_document=file == "-")
    try:
        document = parse_document(text)
        compared, shown = _confirmed(administrator, document) if asks else (0, False)
        with waiting("comparing the database with the document, and writing"):
            revision, changes = administrator.apply(
                document,
                dry_run=dry_run,
                expected_revision=compared,
                author=command_author(reason),
            )
    except InvalidPolicy as error:
        for violation in error.violations:
            fail(violation.located("stdin" if file == "-" else file))
        raise typer.Exit(2) from None
    lines = described(changes)
    counted = f"{len(lines)} changes"
    if not shown:
        _show(lines)
    if dry_run:
        say(f"{counted}; nothing was changed")
    elif lines:
        say(f"{counted} applied at revision {revision}")
    else:
        say(f"no changes; the database is equal to the document at revision {revision}")
    for warning in administrator.lint(document):
        warn(warning.located("stdin" if file == "-" else file) if warning.line else str(warning))
    if everywhere:
        _wait_everywhere(store, revision)


def export(
    sections: Annotated[
        str,
        typer.Option(
            help="Only these, with commas between: permissions, resource_types, roles, grants, "
            "routes, users, organizations, memberships, resources."
        ),
    ] = "",
    revision: Annotated[
        int | None,
        typer.Option(min=0, help="The policy as it was then: all sections but those of facts."),
    ] = None,
    config: Config = None,
) -> None:
    """Writes the database as a policy document, which `pdp apply` takes."""
    store = _store(config, create=False)
    administrator = _administrator(store)
    named = [name.strip() for name in sections.split(",")] if sections else []
    if revision is not None:
        if named:
            raise typer.BadParameter("--revision exports all sections of the policy")
        from pdp.administrator.history import policy_at
        from pdp.document import render_document

        emit(render_document(policy_at(store, revision)))
        return
    # All of it before the first byte: part of a document, applied, would delete what is missing.
    with waiting("reading the database"):
        document, _ = administrator.export(administrator.check_sections(named))
    emit(document)


def command_author(reason: str) -> "Author":
    """The account that runs the command, as the author of changes. Refuses an unfit reason."""
    import os
    import pwd

    from pdp.administration_records import Author, Source
    from pdp.names import check_reason

    violation = check_reason(reason, "reason")
    if violation is not None:
        raise typer.BadParameter(violation.description, param_hint="--reason")
    try:
        account = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        account = str(os.getuid())  # a container may run as a number without a name
    return Author(Source.COMMAND, account, reason)


def _store(config: Path | None, *, create: bool) -> "Store":
    from pdp.cli.database import open_store
    from pdp.settings import DatabaseSettings

    return open_store(DatabaseSettings.load(config), create=create)


def _administrator(store: "Store") -> "Administrator":
    from pdp.administrator import Administrator

    return Administrator(store, on_write=lambda _: None)


def _confirmed(administrator: "Administrator", document: "PolicyDocument") -> tuple[int, bool]:
    """Shows what would change and asks, if facts would be deleted.

    Returns the revision that the answer is about (0: nothing was asked), and whether the changes
    were shown. Exits with status 1 if the answer is no.
    """
    from pdp.document import Action, described

    with waiting("comparing the database with the document"):
        revision, changes = administrator.apply(document, dry_run=True)
    lines = described(changes)
    deleted = Counter(line.kind for line in lines if line.action is Action.DELETE)
    counts = [
        f"{deleted[kind]} {kind}" + "s" * (deleted[kind] > 1)
        for kind in _ASKED_KINDS
        if deleted[kind]
    ]
    if not counts:
        return 0, False
    _show(lines)
    note(f"{len(lines)} changes; this deletes {', '.join(counts)}")
    if not confirm("apply it?"):
        say("nothing was changed")
        raise typer.Exit(1)
    return revision, True


def _show(lines: "Sequence[Described]") -> None:
    for line in lines:
        say(line.text)


def _wait_everywhere(store: "Store", revision: int) -> None:
    from pdp.facts import Barriers

    began = time.monotonic()
    with waiting("waiting until nobody answers from the policy before"):
        passed = Barriers(store.engine).wait(revision)
    seconds = time.monotonic() - began
    say(f"in force everywhere after {seconds:.2f} s, at {passed.replicas} processes")
    if passed.silent:
        say(f"{passed.silent} of them did not answer, and may not answer any more")
