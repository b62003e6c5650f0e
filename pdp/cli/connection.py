"""The options of a connection, for the commands that ask a server."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import typer

from pdp.cli.options import with_options
from pdp.cli.output import warn
from pdp.cli.profiles import DEFAULT_SERVER, Connection, profile_connection

R = TypeVar("R")

_OPTIONS: Mapping[str, tuple[Any, str | None]] = {
    "server": (
        Annotated[
            str,
            typer.Option(envvar="PDP_SERVER", help="host:port or unix:PATH of a running server."),
        ],
        DEFAULT_SERVER,
    ),
    "api_key": (
        Annotated[
            str | None,
            typer.Option(
                envvar="PDP_API_KEY",
                help="This caller's API key. Other users of this machine see it in the list of "
                "processes: use PDP_API_KEY or a profile.",
                show_default=False,
            ),
        ],
        None,
    ),
    "ca": (
        Annotated[
            str | None,
            typer.Option(envvar="PDP_CA_FILE", help="Authority of the server's certificate."),
        ],
        None,
    ),
    "certificate": (
        Annotated[
            str | None,
            typer.Option(envvar="PDP_CERTIFICATE_FILE", help="This caller's certificate."),
        ],
        None,
    ),
    "key": (
        Annotated[
            str | None,
            typer.Option(envvar="PDP_KEY_FILE", help="Private key of the certificate."),
        ],
        None,
    ),
}
ContextOption = Annotated[
    str | None,
    typer.Option("--context", envvar="PDP_CONTEXT", help="Client profile (`pdp context`)."),
]
_TYPED, _SET = "COMMANDLINE", "ENVIRONMENT"


def connects(command: Callable[..., R]) -> Callable[..., R]:
    """Gives a command the options of a connection, which it takes as one argument, `connection`.

    A command that has a `context` of its own takes the profile before its name only:
    `pdp --context prod check`.
    """
    options = dict(_OPTIONS)
    if "context" not in inspect.signature(command).parameters:
        options["profile"] = (ContextOption, None)
    added = [
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
            for name, (annotation, default) in options.items()
        ),
    ]
    return with_options(command, "connection", added, lambda ctx, **_: connection_of(ctx))


def connection_of(ctx: typer.Context) -> Connection:
    """The connection that the arguments, variables and profiles of a command name.

    It comes as a whole from one source, so that a key never reaches the server of another source:
    `--context`; else options, with variables; else PDP_CONTEXT; else variables; else the current
    profile; else the default.

    Raises typer.BadParameter if two sources are named; ValueError and OSError as `read_profiles`.
    """
    values = {name: ctx.params[name] for name in _OPTIONS if name in ctx.params}
    typed = [name for name in values if _source(ctx, name) == _TYPED]
    inherited = [name for name in values if _source(ctx, name) == _SET]
    if "api_key" in typed and not ctx.resilient_parsing:  # not while a shell completes
        warn("other users of this machine see --api-key: use PDP_API_KEY or a profile")
    root = ctx.find_root()
    named = [
        (place.params[name], _source(place, name))
        for place, name in ((ctx, "profile"), (root, "profile"))
        if place.params.get(name) is not None
    ]
    for profile, source in sorted(named, key=lambda choice: choice[1] != _TYPED):
        if source == _TYPED and typed:
            raise typer.BadParameter(
                f"{_flag(typed[0])} and --context exclude each other: a profile is a whole "
                "connection"
            )
        if source == _SET and typed:
            break
        if source == _SET and inherited:
            raise typer.BadParameter(
                f"{_variable(inherited[0])} and PDP_CONTEXT are both set: unset one of them"
            )
        return profile_connection(profile)
    if typed or inherited:
        return Connection(**values)
    return profile_connection(None)


def _source(ctx: Any, name: str) -> str:
    source = ctx.get_parameter_source(name)
    return "" if source is None else source.name


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _variable(name: str) -> str:
    [option] = _OPTIONS[name][0].__metadata__
    return str(option.envvar)
