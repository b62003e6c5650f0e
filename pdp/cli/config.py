"""`pdp config`: the settings in effect."""

import enum
from collections.abc import Iterable
from typing import Annotated, Any, Final

import typer

from pdp.cli.options import Config
from pdp.cli.output import HELP_STYLE, say, show_table
from pdp.cli.variables import require_known_variables

app = typer.Typer(no_args_is_help=True, rich_markup_mode=HELP_STYLE, help="The settings in effect.")

_HIDDEN: Final = "set, not shown"
_DIGESTS: Final = ".api_key_sha256"
_SHOWN_CHARACTERS_MAX: Final = 80


class Program(enum.Enum):
    """A program with settings."""

    SERVE = "serve"
    SIDECAR = "sidecar"


@app.callback()
def _group() -> None:
    """Without it, typer takes the only command for the group."""


@app.command("check")
def check(
    program: Annotated[Program, typer.Argument(help="Whose settings.")] = Program.SERVE,
    config: Config = None,
) -> None:
    """Checks the settings as the program does at its start, and shows each: its value, never a
    secret, and where it comes from.

    Exit status: 0 the program would accept them, 2 not.
    """
    from pdp.settings import PROGRAMS, check_tls, settings_in_effect

    prefix = "PDP_" if program is Program.SERVE else "PDP_SIDECAR_"
    require_known_variables()
    settings, found = settings_in_effect(PROGRAMS[prefix], config)
    rows = [(setting.name, _text(setting.name, setting.value), setting.origin) for setting in found]
    show_table(("setting", "value", "from"), rows, heading=True)
    check_tls(settings.tls)  # type: ignore[attr-defined]  # of both programs
    say(f"`pdp {program.value}` accepts these settings")


def _text(name: str, value: Any) -> str:
    from pydantic import SecretStr

    if name == "database_url":
        from pdp.database.engine import database_name

        return database_name(value.get_secret_value())
    if isinstance(value, SecretStr) or name.endswith(_DIGESTS):
        return _HIDDEN
    if isinstance(value, tuple | frozenset):
        return _list_text(value)
    if value is None:
        return "none"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}..."


def _list_text(values: Iterable[Any]) -> str:
    from pydantic import SecretStr

    texts = [_HIDDEN if isinstance(item, SecretStr) else str(item) for item in values]
    return ", ".join(sorted(texts)) or "none"
