"""`pdp context`: client profiles, named connections to servers."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pdp.cli.output import HELP_STYLE, fail, read_secret, say, show_table
from pdp.cli.profiles import (
    DEFAULT_SERVER,
    Connection,
    Profiles,
    profiles_file,
    read_profiles,
    write_profiles,
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=HELP_STYLE,
    help="Client profiles: named connections to servers.",
)

Name = Annotated[str, typer.Argument(help="Name of the profile, e.g. prod.")]
File = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, resolve_path=True)]


@app.command("list")
def list_profiles() -> None:
    """Lists the profiles; `*` marks the current one. Keys are not shown."""
    profiles = read_profiles()
    rows = [
        (
            "*" if name == profiles.current else "",
            name,
            connection.server,
            "TLS" if connection.tls() is not None else "clear text",
            " and ".join(
                how
                for how, value in (
                    ("API key", connection.api_key),
                    ("certificate", connection.certificate),
                )
                if value is not None
            ),
        )
        for name, connection in sorted(profiles.by_name.items())
    ]
    show_table(("", "name", "server", "transport", "authentication"), rows, heading=True)


@app.command("set")
def set_profile(
    name: Name,
    server: Annotated[
        str, typer.Option(help="host:port or unix:PATH of the server.")
    ] = DEFAULT_SERVER,
    ca: File = None,
    certificate: File = None,
    key: File = None,
    with_key: Annotated[
        bool, typer.Option("--with-key", help="Read this caller's API key from standard input.")
    ] = False,
) -> None:
    """Makes a profile, or replaces it. The first one becomes the current one."""
    connection = Connection(
        server,
        api_key=read_secret("the API key") if with_key else None,
        ca=_text(ca),
        certificate=_text(certificate),
        key=_text(key),
    )
    connection.tls()  # ValueError if only one of certificate and key is named
    profiles = read_profiles()
    by_name = {**profiles.by_name, name: connection}
    write_profiles(Profiles(profiles.current or name, by_name))
    say(f"profile {name}: {server}, in {profiles_file()}")


@app.command("use")
def use_profile(name: Name) -> None:
    """Makes a profile the current one: that of commands that name no connection."""
    profiles = _having(name)
    write_profiles(replace(profiles, current=name))
    say(f"{name} is the current profile: {profiles.by_name[name].server}")


@app.command("delete")
def delete_profile(name: Name) -> None:
    """Deletes a profile, with its API key."""
    profiles = _having(name)
    by_name = {key: value for key, value in profiles.by_name.items() if key != name}
    current = None if profiles.current == name else profiles.current
    write_profiles(Profiles(current, by_name))
    say(f"profile {name} is deleted")
    if profiles.current == name and by_name:
        say("no profile is the current one; `pdp context use` chooses one")


def _having(name: str) -> Profiles:
    profiles = read_profiles()
    if name not in profiles.by_name:
        fail(f"there is no profile {name!r}; `pdp context list` lists them")
        raise typer.Exit(2)
    return profiles


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
