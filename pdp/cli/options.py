"""Options that several commands have, and how their values are read."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

Config = Annotated[Path | None, typer.Option(help="TOML file of settings.")]

_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration_of(text: str) -> timedelta | None:
    """Returns a duration such as `30m`, `12h`, `3d` or `2w`; None: it is written otherwise."""
    found = _DURATION.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def utc_seconds(time: datetime | None) -> float | None:
    """Returns an option's time, which is UTC, in seconds since 1970-01-01 UTC."""
    return None if time is None else time.replace(tzinfo=UTC).timestamp()
