"""`pdp diff`: how one policy differs from another, in entities or in answers."""

import re
from dataclasses import fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdp.cli.connection import connects
from pdp.cli.output import emit_json, fail, read_document, say
from pdp.cli.profiles import Connection
from pdp.cli.remote import connected, method_of

if TYPE_CHECKING:
    from pdp.administrator.history import Records
    from pdp.document import Described, PolicyDocument

EXPORT_SECONDS = 60.0
_REVISION = re.compile(r"@[0-9]{1,18}")
_POLICY = "A policy document, `server`, or @N: revision N of the database."


class Output(StrEnum):
    """How the result is printed."""

    TEXT = "text"
    JSON = "json"


@connects
def diff(
    before: Annotated[str, typer.Argument(help=_POLICY)],
    after: Annotated[str, typer.Argument(help=_POLICY)],
    effective: Annotated[
        bool, typer.Option("--effective", help="Compare answers instead of entities.")
    ] = False,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="How to print it.")
    ] = Output.TEXT,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings, for @N.")] = None,
    *,
    connection: Connection,
) -> None:
    """Prints what changes from one policy to another; between two revisions also who changed it.

    Compares the sections that both have. With --effective: which answers change, for all stored
    users, permissions and resources; a section that one policy lacks is then that of the other.
    Exit status: 0 they are equal, 1 they differ, 2 an error.
    """
    from pdp.document import described, differences
    from pdp.errors import InvalidPolicy

    def load(name: str) -> "PolicyDocument":
        if name == "server":
            return _of_server(connection)
        return _of_revision(name, config) if name.startswith("@") else _of_file(name)

    try:
        old, new = load(before), load(after)
    except InvalidPolicy as error:
        for violation in error.violations:
            fail(str(violation))
        raise typer.Exit(2) from None
    if effective:
        from pdp.cli.effective import compare_answers

        raise typer.Exit(1 if compare_answers(old, new, as_json=output is Output.JSON) else 0)
    lines = described(differences(old, _in_common(new, old)))
    records = _records(before, after, config) if lines else {}
    if output is Output.JSON:
        items = [
            {
                "action": line.action.value,
                "kind": line.kind,
                "text": line.text,
                "by": _authors(line, records),
            }
            for line in lines
        ]
        emit_json(items, indent=2)
    else:
        for line in lines:
            say(line.text)
            for text in _authors(line, records):
                say(f"    {text}")
    if lines:
        raise typer.Exit(1)


def _of_file(name: str) -> "PolicyDocument":
    from pdp.document import parse_document

    return parse_document(read_document(name))


def _of_server(connection: Connection) -> "PolicyDocument":
    from pdpapi.v1.administration_service_pb2 import StreamExportRequest
    from pdpapi.v1.administration_service_pb2_grpc import PolicyAdministrationServiceStub

    from pdp.document import parse_document

    with connected(connection) as channel:
        stub = PolicyAdministrationServiceStub(channel)
        export = method_of(stub.StreamExport, connection, EXPORT_SECONDS)
        parts = export(StreamExportRequest())
        return parse_document("".join(part.part for part in parts))


def _of_revision(name: str, config: Path | None) -> "PolicyDocument":
    from pdp.administrator.history import policy_at
    from pdp.cli.database import open_store
    from pdp.settings import DatabaseSettings

    return policy_at(open_store(DatabaseSettings.load(config), create=False), _revision(name))


def _revision(name: str) -> int:
    if not _REVISION.fullmatch(name):
        raise typer.BadParameter(f"{name!r} is not a revision such as @12")
    return int(name[1:])


def _in_common(document: "PolicyDocument", other: "PolicyDocument") -> "PolicyDocument":
    """The document without the sections that the other one does not have."""
    missing = {field.name: None for field in fields(other) if getattr(other, field.name) is None}
    return replace(document, **missing)  # type: ignore[arg-type]


def _records(before: str, after: str, config: Path | None) -> "Records":
    """The records between two revisions; none for other policies."""
    from pdp.administrator.history import policy_changes
    from pdp.cli.database import open_store
    from pdp.settings import DatabaseSettings

    if not (before.startswith("@") and after.startswith("@")):
        return {}
    first, last = sorted((_revision(before), _revision(after)))
    return policy_changes(open_store(DatabaseSettings.load(config), create=False), first, last)


def _authors(line: "Described", records: "Records") -> list[str]:
    from pdp.administrator.history import records_of

    return [
        f"revision {record.revision}: {record.source.value} {record.name}".rstrip()
        + (f": {record.reason}" if record.reason else "")
        for record in records_of(line, records)
    ]
