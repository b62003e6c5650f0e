"""How the command line speaks."""

import sys

from rich.console import Console

# What is no terminal has no width: a pipe gets whole lines.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(message: str) -> None:
    """One line of an error, on standard error."""
    err.print(f"[red]pdp:[/red] {plain(message)}")


def warn(message: str) -> None:
    """One line of a warning, on standard error."""
    err.print(f"[yellow]warning:[/yellow] {plain(message)}")


def say(message: str) -> None:
    """One line, as it is, on standard output."""
    out.print(plain(message))


def say_marked(mark: str, style: str, message: str) -> None:
    """One line on standard output, behind a word in a colour."""
    out.print(f"[{style}]{mark:<8}[/{style}] {plain(message)}")


def plain(message: str) -> str:
    """Square brackets are text here, and control characters of an id do not reach a terminal."""
    visible = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message)
    return visible.replace("[", r"\[")
