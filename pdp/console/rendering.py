"""Renders templates. Every value is escaped, and what does not print is visible."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pdp.console.charts import bar, chart
from pdp.console.forms import PROOF
from pdp.printable import printable

STATIC: Final = Path(__file__).parent / "static"
_TEMPLATES: Final = Path(__file__).parent / "templates"


class _Lines(str):
    """Text whose line breaks are shown as such."""

    __slots__ = ()


def lines(text: str) -> _Lines:
    """A text of several lines without other controls. Forms send line breaks as CRLF."""
    text = text.replace("\r\n", "\n")
    return _Lines("\n".join(printable(line.replace("\t", "    ")) for line in text.split("\n")))


def _finalize(value: Any) -> Any:
    """What a template prints of a value. It is escaped afterwards."""
    if hasattr(value, "__html__"):
        return value
    return str(value) if isinstance(value, _Lines) else printable(str(value))


def when(seconds: float | None) -> str:
    """A time as people read it, in UTC."""
    if seconds is None:
        return ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def machine_time(seconds: float) -> str:
    """A time for the attribute `datetime`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def address(path: str, **parameters: Any) -> str:
    """A path with those of the parameters that are set."""
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, errors='replace')}" if given else path


def asset(name: str) -> str:
    """The path of a file of `static/`, which changes with its content."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{digest}/{name}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "when": when,
        "machine_time": machine_time,
        "lines": lines,
    }
    environment.globals |= {
        "address": address,
        "bar": bar,
        "chart": chart,
        "proof_name": PROOF,
        "style_sheet": asset("console.css"),
        "icon": asset("icon.svg"),
    }
    return environment


_ENVIRONMENT: Final = _environment()


def render(template: str, values: Mapping[str, Any]) -> str:
    """The page. Templates are compiled at their first use."""
    return _ENVIRONMENT.get_template(template).render(values)
