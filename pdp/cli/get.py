"""`pdp get`, `pdp describe` and `pdp delete`: entities of a running server."""

import enum
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from pdp.cli.completion import complete_kind, complete_name
from pdp.cli.connection import connects
from pdp.cli.entities import FILTERS, Entities, Kind, Reason, cell, heading, kind_named
from pdp.cli.output import (
    confirm,
    emit,
    emit_json,
    fail,
    is_asked_on_terminal,
    note,
    say,
    show_table,
    waiting,
    yaml_text,
)
from pdp.cli.profiles import Connection
from pdp.cli.remote import connected
from pdp.printable import printable

TABLE_ROWS = 100
RELATED_ROWS = 20


class Output(enum.Enum):
    """How entities are printed."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


KindArgument = Annotated[
    str,
    typer.Argument(
        metavar="KIND",
        help="users, organizations, memberships, roles, rules, grants, resources, routes, "
        "permissions or resource-types; or KIND/NAME.",
        autocompletion=complete_kind,
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Ids or names; a membership is ORGANIZATION/USER, a resource TYPE:ID.",
        autocompletion=complete_name,
    ),
]


@connects
def get(
    kind: KindArgument,
    names: Names = None,
    user: Annotated[str, typer.Option(help="Only of this user.")] = "",
    organization: Annotated[str, typer.Option(help="Only of this organization.")] = "",
    role: Annotated[str, typer.Option(help="Only with this role.")] = "",
    permission: Annotated[str, typer.Option(help="Only with exactly this permission.")] = "",
    resource: Annotated[str, typer.Option(help="Only on this resource, TYPE:ID.")] = "",
    type_: Annotated[str, typer.Option("--type", help="Only of this resource type.")] = "",
    status: Annotated[str, typer.Option(help="Only of this status: active, disabled.")] = "",
    effect: Annotated[str, typer.Option(help="Only of this effect: allow, deny.")] = "",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"How many at the most: {TABLE_ROWS} rows, all in other outputs."),
    ] = None,
    page_token: Annotated[str, typer.Option(help="Continue where an earlier list ended.")] = "",
    output: Annotated[
        Output, typer.Option("-o", "--output", help="A table, or one document for each entity.")
    ] = Output.TABLE,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Then print changes, until Ctrl-C.")
    ] = False,
    *,
    connection: Connection,
) -> None:
    """Lists entities of a kind, or prints those that are named.

    Exit status: 0 answered, 2 not, or one of the named does not exist.
    """
    found, named = _targets(kind, names)
    given = (user, organization, role, permission, resource, type_, status, effect)
    filters = {name: value for name, value in zip(FILTERS, given, strict=True) if value}
    if named and (filters or limit or page_token or watch):
        raise typer.BadParameter("names exclude filters, --limit, --page-token and --watch")
    if watch and (page_token or limit or output in {Output.YAML, Output.NAME}):
        raise typer.BadParameter("prints table, wide or json, and all that match", param_hint="-w")
    with connected(connection) as channel:
        entities = Entities(found, channel, connection)
        if named:
            _print(found, (entities.get(name) for name in named), output)
        elif watch:
            from pdp.cli.watch import watch_entities

            columns = _columns(found, output) if output is not Output.JSON else None
            watch_entities(entities, filters, channel, connection, columns)
        else:
            _list(entities, filters, limit, page_token, output)


@connects
def describe(
    kind: KindArgument,
    names: Names = None,
    *,
    connection: Connection,
) -> None:
    """Prints all fields of entities, and what belongs to them.

    Exit status: 0 answered, 2 not, or one of the named does not exist.
    """
    found, named = _targets(kind, names)
    if not named:
        raise typer.BadParameter(f"name one: `pdp get {found.plural}` lists them")
    with connected(connection) as channel:
        for index, name in enumerate(named):
            entity = Entities(found, channel, connection).get(name)
            if index:
                say("")
            for field in entity.DESCRIPTOR.fields:
                text = cell(entity, field.name)
                if text:
                    say(f"{heading(field.name)}: {text}")
            for other, option in found.related:
                related = Entities(kind_named(other), channel, connection)
                _show_related(related, {option: found.text_of(entity)})


@connects
def delete(
    kind: KindArgument,
    names: Names = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    reason: Reason = "",
    *,
    connection: Connection,
) -> None:
    """Deletes entities. On a terminal it asks before.

    Exit status: 0 deleted, 1 the answer was no, 2 not deleted for an error.
    """
    found, named = _targets(kind, names)
    if not named:
        raise typer.BadParameter(f"name one: `pdp get {found.plural}` lists them")
    for name in named:
        found.key_of(name)  # all of them, before the first is deleted
    if not yes and is_asked_on_terminal(input_is_document=False):
        for name in named:
            say(f"{found.name} {name}")
        if not confirm(f"delete {len(named)} {found.plural if len(named) > 1 else found.name}?"):
            say("nothing was changed")
            raise typer.Exit(1)
    with connected(connection) as channel:
        entities = Entities(found, channel, connection)
        for name in named:
            say(f"deleted {found.name} {name} at revision {entities.delete(name, reason)}")


def _targets(kind: str, names: Sequence[str] | None) -> tuple[Kind, list[str]]:
    """The kind and the names of `KIND [NAME...]` or `KIND/NAME...`."""
    if "/" not in kind:
        return kind_named(kind), list(names or ())
    pairs = [name.partition("/") for name in (kind, *(names or ()))]
    kinds = {kind_named(name) for name, _, _ in pairs}
    if len(kinds) > 1:
        raise typer.BadParameter("names of one kind only")
    return kinds.pop(), [name for _, _, name in pairs]


def _list(
    entities: Entities, filters: Mapping[str, str], limit: int | None, token: str, output: Output
) -> None:
    matches = entities.filter_of(filters)
    rows_max = limit or (TABLE_ROWS if output in {Output.TABLE, Output.WIDE} else None)
    rest = ""

    def found() -> Iterator[Any]:
        nonlocal rest
        count = 0
        for page_token, page, next_token in entities.pages(token):
            for index, entity in enumerate(page):
                if not matches(entity):
                    continue
                yield entity
                count += 1
                if count == rows_max:
                    last = index == len(page) - 1
                    rest = next_token if last else entities.more_after(page_token, index + 1)
                    return

    _print(entities.kind, found(), output)
    if rest:
        note(f"there may be more than these {rows_max}: --limit shows more; --page-token {rest}")


def _print(kind: Kind, found: Iterator[Any], output: Output) -> None:
    from google.protobuf.json_format import MessageToDict

    if output in {Output.TABLE, Output.WIDE}:
        columns = _columns(kind, output)
        with waiting(f"reading {kind.plural}"):
            rows = [[cell(entity, column) for column in columns] for entity in found]
        show_table([heading(column) for column in columns], rows, heading=True)
        return
    hidden = 0
    for index, entity in enumerate(found):
        if output is Output.NAME:
            name = f"{kind.name.replace('_', '-')}/{kind.text_of(entity)}"
            # An escaped name could be the name of another entity.
            if printable(name) == name:
                emit(f"{name}\n")
            else:
                hidden += 1
            continue
        fields = MessageToDict(entity, preserving_proto_field_name=True)
        if output is Output.JSON:
            emit_json(fields)
        else:
            emit("---\n" * bool(index) + yaml_text(fields))
    if hidden:
        fail(f"{hidden} names hold characters that do not print: -o json shows them")
        raise typer.Exit(2)


def _columns(kind: Kind, output: Output) -> tuple[str, ...]:
    return kind.columns + (kind.wide if output is Output.WIDE else ())


def _show_related(entities: Entities, filters: Mapping[str, str]) -> None:
    columns = [
        column for column in entities.kind.columns if column not in map(FILTERS.get, filters)
    ]
    rows: list[list[str]] = []
    more = False
    with waiting(f"reading {entities.kind.plural}"):
        for entity in entities.matching(filters):
            if len(rows) == RELATED_ROWS:
                more = True
                break
            rows.append([cell(entity, column) for column in columns])
    say("")
    say(f"{entities.kind.plural}:" + " none" * (not rows))
    if rows:
        show_table([heading(column) for column in columns], rows, heading=True)
    if more:
        option, value = next(iter(filters.items()))
        say(f"and more: pdp get {entities.kind.plural} --{option} {value}")
