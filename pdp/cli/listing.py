"""Lists that a command prints as a table, as CSV or as JSON."""

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Final

import typer

from pdp.cli.output import emit, emit_json, note, say, show_table
from pdp.printable import csv_text

TABLE_ROWS: Final = 100
PAGE_ITEMS: Final = 500


class Output(enum.Enum):
    """How a list is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


As = Annotated[
    Output, typer.Option("-o", "--output", help="A table, CSV, or one JSON object a line.")
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help=f"How many at the most: {TABLE_ROWS} in a table, all otherwise."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Row = Sequence[str]


def print_message(message: Any, **more: Any) -> None:
    """Prints a message, and further fields, as one JSON object on a line, in ASCII."""
    from google.protobuf.json_format import MessageToDict

    emit_json(MessageToDict(message, preserving_proto_field_name=True) | more)


def pages_of(ask: Callable[[Any], Any], request: Any) -> Iterator[Any]:
    """Yields page after page, as they are read."""
    while True:
        page = ask(request)
        yield page
        request.page_token = page.next_page_token
        if not request.page_token:
            return


def print_list(
    output: Output,
    columns: Row,
    items: Iterable[Any],
    rows_of: Callable[[Any], Iterable[Row]],
    limit: int | None,
    print_json: Callable[[Any], None] = print_message,
) -> None:
    """Prints items: `rows_of` gives the rows of each, `print_json` prints it with all fields."""
    found = iter(items)
    if output is Output.JSON:
        for item in islice(found, limit):
            print_json(item)
        return
    if output is Output.CSV:
        emit(csv_text([columns]))
        for item in islice(found, limit):
            emit(csv_text(rows_of(item)))
        return
    rows = [row for item in islice(found, limit or TABLE_ROWS) for row in rows_of(item)]
    show_table(columns, rows, heading=True)
    if next(found, None) is not None:
        note("there are more: --limit shows more, -o csv or -o json all")


def print_records(
    records: Iterator[Any],
    print_table: Callable[[Sequence[Any]], None],
    limit: int | None,
    *,
    as_json: bool,
) -> None:
    """Prints records of a log as JSON, or TABLE_ROWS of them as a table."""
    if as_json:
        for record in islice(records, limit):
            print_message(record)
        return
    shown = list(islice(records, limit or TABLE_ROWS))
    print_table(shown)
    if next(records, None) is not None:
        say(f"there are more than these {len(shown)}: --limit shows more, --json all")


def grant_cells(grant: Any) -> Row:
    """Returns the cells of GRANT_COLUMNS."""
    subject = grant.WhichOneof("subject")
    scope = grant.WhichOneof("scope")
    where = "everywhere"
    if scope == "organization_id":
        where = f"organization {grant.organization_id}"
    elif scope == "resource":
        where = f"resource {grant.resource.type}:{grant.resource.id}"
    return (
        grant.id,
        grant.role,
        f"user {grant.user_id}" if subject == "user_id" else f"role {grant.organization_role}",
        where,
        time_cell(grant, "not_before"),
        time_cell(grant, "expires_at"),
    )


GRANT_COLUMNS: Row = ("grant", "role", "subject", "scope", "from", "until")


def time_cell(message: Any, field: str) -> str:
    """Returns a time of a message, RFC 3339; empty: it is not set."""
    return getattr(message, field).ToJsonString() if message.HasField(field) else ""
