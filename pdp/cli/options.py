"""Options that several commands have, and how their values are read."""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

R = TypeVar("R")

Config = Annotated[Path | None, typer.Option(help="TOML file of settings.")]

_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def with_options(
    command: Callable[..., R],
    argument: str,
    options: Sequence[inspect.Parameter],
    value_of: Callable[..., Any],
) -> Callable[..., R]:
    """Replaces an argument of a command by options, and passes it `value_of(**options)` instead."""
    names = [option.name for option in options]
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        shown += options if parameter.name == argument else [parameter]
    shown = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in shown]

    @functools.wraps(command)
    def run(**arguments: Any) -> R:
        values = {name: arguments.pop(name) for name in names}
        return command(**arguments, **{argument: value_of(**values)})

    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run


def duration_of(text: str) -> timedelta | None:
    """Returns a duration such as `30m`, `12h`, `3d` or `2w`; None: it is written otherwise."""
    found = _DURATION.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def utc_text(seconds: float) -> str:
    """Returns a time, seconds since 1970-01-01 UTC, as ISO 8601 without a fraction.

    Raises:
        ValueError, OverflowError, OSError: It is not a time of the years 1 to 9999.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def utc_seconds(time: datetime | None) -> float | None:
    """Returns an option's time, which is UTC, in seconds since 1970-01-01 UTC."""
    return None if time is None else time.replace(tzinfo=UTC).timestamp()
