"""`pdp audit key | prove | consistency | account`: trees over the decision log, and proofs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.options import Config
from pdp.cli.output import emit, fail, say, show_table

if TYPE_CHECKING:
    from pdp.audit.transparency.notes import VerifierKey
    from pdp.facts import Store

Directories = Annotated[
    list[Path], typer.Argument(help="Audit directories or archives, with their trees.")
]
Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint", help="A checkpoint (default: the newest).")
]
NoDatabase = Annotated[
    bool, typer.Option("--no-database", help="Look in segments and archives only.")
]


def key(
    name: Annotated[str, typer.Option(help="Name of the log, e.g. pdp.example.com.")],
    out: Annotated[Path, typer.Option(help="New file of the private key.")],
) -> None:
    """Creates a key that signs checkpoints, and prints its verifier key for auditors."""
    from pdp.audit.transparency import new_key_file

    emit(f"{new_key_file(name, out)}\n")


def prove(
    decision_id: Annotated[
        str, typer.Argument(help="A decision; or a change: REVISION/NUMBER, e.g. 17/0.")
    ],
    directories: Directories,
    checkpoint: Checkpoint = None,
    no_database: NoDatabase = False,
    config: Config = None,
) -> None:
    """Prints the proof that a record is in the log; `verify_log.py record` checks it."""
    from pdp.audit.transparency import DamagedTreeError
    from pdp.audit.transparency.proofs import (
        CHANGE_ID,
        find_in_sql,
        find_trees,
        prove_record,
        records_on_disk,
    )

    note = None if checkpoint is None else checkpoint.read_text(encoding="utf-8")
    try:
        trees = find_trees(directories)
        is_change = CHANGE_ID.fullmatch(decision_id)
        found = [] if is_change else list(records_on_disk(directories, trees, decision_id))
        if not found and not no_database:
            found = find_in_sql(_open(config).engine, decision_id)
        if not found:
            raise DamagedTreeError(f"there is no record of {decision_id} here")
        emit(prove_record(trees, found[0], note))
    except DamagedTreeError as error:
        fail(str(error))
        raise typer.Exit(1) from None


def consistency(
    old: Annotated[Path, typer.Argument(help="The older checkpoint.")],
    directories: Directories,
    checkpoint: Checkpoint = None,
) -> None:
    """Prints the proof that a checkpoint continues an older one."""
    from pdp.audit.transparency import DamagedTreeError
    from pdp.audit.transparency.proofs import find_trees, prove_consistency

    note = None if checkpoint is None else checkpoint.read_text(encoding="utf-8")
    try:
        emit(prove_consistency(find_trees(directories), old.read_text(encoding="utf-8"), note))
    except DamagedTreeError as error:
        fail(str(error))
        raise typer.Exit(1) from None


def account(config: Config = None) -> None:
    """Accounts for every decision in the database, log by log: records + dropped = decisions."""
    from pdp.audit.accounting import account as accounts_of

    accounts = list(accounts_of(_open(config).engine))
    rows = [
        (
            a.log.origin,
            a.log.log_id,
            str(a.records),
            str(a.recorded),
            str(a.dropped),
            str(a.decisions),
        )
        for a in accounts
    ]
    totals = [
        str(sum(getattr(a, name) for a in accounts))
        for name in ("records", "recorded", "dropped", "decisions")
    ]
    columns = ("origin", "log", "records", "recorded", "dropped", "decisions")
    show_table(columns, [*rows, ("all", "", *totals)], heading=True)
    say("without what is still in segments; `pdp audit verify DIRECTORY` accounts for trees")


def trusted_keys(texts: list[str], config: Path | None) -> "list[VerifierKey]":
    """Returns the given verifier keys, or else those of the settings.

    Raises:
        ValueError: A key cannot be read.
        OSError: A file cannot be read.
    """
    from pdp.audit.transparency import VerifierKey, signers_of
    from pdp.settings import RetentionSettings

    if texts:
        return [
            VerifierKey.parse(text if "+" in text else Path(text).read_text()) for text in texts
        ]
    settings = RetentionSettings.load(config).audit_tree
    return [] if settings is None else [signer.key for signer in signers_of(settings)]


def trusted_witnesses(texts: list[str], config: Path | None) -> "list[VerifierKey]":
    """Returns the given keys of witnesses, or else those of the settings.

    Raises:
        ValueError: A key cannot be read.
        OSError: A file cannot be read.
    """
    from pdp.audit.transparency.notes import WITNESS_KEY, VerifierKey
    from pdp.audit.transparency.witnesses import witness_keys
    from pdp.settings import RetentionSettings

    if texts:
        return [
            VerifierKey.parse(text if "+" in text else Path(text).read_text(), WITNESS_KEY)
            for text in texts
        ]
    settings = RetentionSettings.load(config).audit_tree
    return [] if settings is None else witness_keys(settings.witnesses)


def _open(config: Path | None) -> "Store":
    from pdp.cli.database import open_store
    from pdp.settings import DatabaseSettings

    return open_store(DatabaseSettings.load(config), create=False)
