"""`pdp console`: the web page of the security team."""

from typing import Annotated

import typer

from pdp.cli.options import Config
from pdp.cli.output import HELP_STYLE, emit, note

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=HELP_STYLE, help="The console in a browser."
)


@app.callback()
def _commands() -> None:
    pass


@app.command("login")
def login(
    user: Annotated[str, typer.Option(help="Clerk user id that the link signs in.")],
    organization: Annotated[
        str | None, typer.Option(help="In which they act: limits what they see to it.")
    ] = None,
    config: Config = None,
) -> None:
    """Prints a link that signs a user in to the console, once, within five minutes.

    It proves who the user is, and grants nothing: they need the permission `console:view`.
    """
    from pdp.cli.database import open_store
    from pdp.clock import wall_clock
    from pdp.console import LINK_SECONDS, sign_in_link
    from pdp.errors import NotFound
    from pdp.facts.store.console_secrets import ConsoleSecrets
    from pdp.model import User
    from pdp.settings import Settings

    settings = Settings.load(config)
    origin = settings.console.address
    store = open_store(settings, create=False)
    with store.read() as reader:
        if reader.get(User, (user,)) is None:
            raise NotFound("user", user)
    note(f"good once, for {LINK_SECONDS / 60:.0f} minutes; the user needs console:view")
    secrets = ConsoleSecrets(store.engine, clock=wall_clock)
    emit(sign_in_link(secrets, origin, user, organization) + "\n")
