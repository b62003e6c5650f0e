"""`pdp init`: settings, a small policy and its tests, to begin with."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pdp.cli.output import fail, say

_FILES = ("pdp.toml", "policy.yaml", "policy_test.yaml")
_NEXT = (
    "pdp test",
    "pdp token mint --user user_ada >/dev/null",
    "pdp apply policy.yaml",
    "pdp serve",
)


def init(
    directory: Annotated[
        Path, typer.Argument(file_okay=False, help="Where to write; made if it does not exist.")
    ] = Path(),
) -> None:
    """Writes pdp.toml, policy.yaml and policy_test.yaml, and overwrites nothing.

    Exit status: 0 written, 2 one of them exists already and nothing was written.
    """
    from importlib.resources import files

    paths = [directory / name for name in _FILES]
    # Also a link that leads nowhere: writing would follow it.
    existing = [str(path) for path in paths if os.path.lexists(path)]
    if existing:
        fail(f"{', '.join(existing)} exists already: nothing was written")
        raise typer.Exit(2)
    directory.mkdir(parents=True, exist_ok=True)
    scaffold = files("pdp.cli") / "scaffold"
    for path in paths:
        with path.open("x", encoding="utf-8") as file:
            file.write((scaffold / path.name).read_text(encoding="utf-8"))
        say(f"wrote {path}")
    say("next:")
    for command in (f"cd {directory}", *_NEXT) if directory != Path() else _NEXT:
        say(f"  {command}")
