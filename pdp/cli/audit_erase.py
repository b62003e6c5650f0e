"""`pdp audit erase`: erases personal data of a user from the decision log."""

from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.options import Config, utc_seconds
from pdp.cli.output import fail, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdp.audit.retention import Recording
    from pdp.audit.transparency.notes import Signer
    from pdp.audit.transparency.trees import StoredTree


def erase(
    user: Annotated[str, typer.Option(help="Clerk user id.")],
    reason: Annotated[
        str, typer.Option(help="Why, e.g. the number of a request. It is recorded: name nobody.")
    ],
    directories: Annotated[
        list[Path] | None,
        typer.Argument(help="Archives, and audit directories.", show_default=False),
    ] = None,
    before: Annotated[
        datetime | None, typer.Option(help="Decided before (UTC); default: now.")
    ] = None,
    resource_type: Annotated[
        list[str] | None,
        typer.Option(help="A type of resources whose ids are those of users, beside `user`."),
    ] = None,
    config: Config = None,
) -> None:
    """Erases the texts of records that name a user, in the database and in archives.

    Removes examples of the shadow that name the user too. Proofs continue to work, and the log of
    changes records the erasure. Records that a hold keeps are not erased.

    Exit status: 0 all were erased; 1 some remain, as the output says.
    """
    from pdp.audit.erasure import (
        USER_TYPE,
        ErasureReport,
        ErasureRequest,
        erase_rows,
        other_resources,
    )
    from pdp.audit.transparency import DamagedTreeError, signers_of
    from pdp.audit.transparency.archive_erasure import erase_archived, waiting_in_segments
    from pdp.audit.transparency.proofs import find_trees
    from pdp.cli.database import open_store
    from pdp.cli.policy import command_author
    from pdp.clock import wall_clock
    from pdp.facts import ShadowStore
    from pdp.settings import RetentionSettings

    if not reason or user in reason:
        raise typer.BadParameter("is recorded: give one that does not name the user")
    settings = RetentionSettings.load(config)
    author = command_author(reason)
    store = open_store(settings, create=False)
    now = round(wall_clock(), 6)
    end = utc_seconds(before)
    types = (USER_TYPE, *(resource_type or []))
    request = ErasureRequest(user, now if end is None else end, types)
    report = ErasureReport()

    def write() -> "AbstractContextManager[Recording]":
        return store.write(author)

    problems: list[str] = []
    erase_rows(store.engine, write, request, now, report)
    examples = ShadowStore(store.engine).forget(user, request.before, types)
    signers = [] if settings.audit_tree is None else signers_of(settings.audit_tree)
    for tree in find_trees(directories or []):
        if (tree.directory / "records").is_dir():
            try:
                _check_tree(tree, signers)
                erase_archived(store.engine, write, tree, signers, request, at=now, report=report)
            except (DamagedTreeError, OSError) as error:
                problems.append(f"{tree.directory}: not erased: {error}")
    waiting = waiting_in_segments(directories or [], request)
    say(f"{report.records} records erased, of which {report.denials} denials")
    if examples:
        say(f"{examples} examples of the shadow removed")
    for name, count in other_resources(store.engine, request).items():
        say(
            f"{count} records name a resource {name}:{user}, which is no user: they remain "
            f"(--resource-type {name} erases them too)"
        )
    if report.unsalted:
        say(
            f"{report.unsalted} of them are of an earlier version and have no salt: a correct "
            "guess of all their fields, the fingerprint of the token included, can be confirmed"
        )
    if report.held:
        problems.append(f"{report.held} records remain: a hold keeps them")
    if waiting:
        problems.append(
            f"{waiting} records are still in segments: run it again once they are deleted "
            "(a restart of the process closes its current segment)"
        )
    for problem in problems:
        fail(problem)
    if problems:
        raise typer.Exit(1)


def _check_tree(tree: "StoredTree", signers: "Sequence[Signer]") -> None:
    """Raises DamagedTreeError: an archive cannot be signed again."""
    from pdp.audit.transparency import DamagedTreeError
    from pdp.audit.transparency.verification import verify_tree

    if not signers:
        raise DamagedTreeError("settings: audit_tree: its keys sign changed archives")
    for problem in verify_tree(tree, [signer.key for signer in signers]).problems:
        raise DamagedTreeError(problem)
