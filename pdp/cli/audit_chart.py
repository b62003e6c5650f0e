"""`pdp audit chart`: decisions per hour."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pdp.cli.listing import As, Output
from pdp.cli.options import Config
from pdp.cli.output import emit, emit_json, show_table
from pdp.printable import csv_text

HOUR = 3_600
BAR_CHARACTERS = 40


def chart(
    hours: Annotated[int, typer.Option(min=1, max=744, help="How many, up to now.")] = 24,
    output: As = Output.TABLE,
    config: Config = None,
) -> None:
    """Shows how many decisions were made in each hour (UTC), with a bar for the denials. Reads the
    database that the settings name. Allows are counted if servers log them."""
    from pdp.audit import Statistics
    from pdp.cli.database import open_store
    from pdp.clock import wall_clock
    from pdp.settings import DatabaseSettings

    engine = open_store(DatabaseSettings.load(config), create=False).engine
    start = (int(wall_clock() // HOUR) + 1 - hours) * HOUR
    activity = Statistics(engine).activity(start, HOUR, hours)
    top = max(1, *activity.denied)
    found = [
        (f"{datetime.fromtimestamp(start + number * HOUR, UTC):%Y-%m-%dT%H:%MZ}", denied, allowed)
        for number, (denied, allowed) in enumerate(
            zip(activity.denied, activity.allowed, strict=True)
        )
    ]
    columns = ("from", "denied", "allowed")
    if output is Output.JSON:
        for row in found:
            emit_json(dict(zip(columns, row, strict=True)))
        return
    rows = [(at, str(denied), str(allowed)) for at, denied, allowed in found]
    if output is Output.CSV:
        emit(csv_text([columns, *rows]))
        return
    bars = ["#" * round(BAR_CHARACTERS * denied / top) for denied in activity.denied]
    shown = [(*row, bar) for row, bar in zip(rows, bars, strict=True)]
    show_table((*columns, ""), shown, heading=True)
