"""How the command line speaks. The only file here that writes to the terminal.

Ids, names and messages come from tokens, callers, Clerk and policy files, so none of it is trusted:
it is printed as plain text. Nothing in it is read as markup, as an emoji or as a link, and what
does not print is escaped (`pdp.printable`).
"""

import functools
import json
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pdp.limits import DOCUMENT_BYTES_MAX
from pdp.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

HELP_STYLE: Final[Literal["rich"] | None] = "rich" if sys.stdout.isatty() else None
"""How typer prints help: with boxes on a terminal, as plain text into a pipe."""
_PIPE_WIDTH: Final = 240
"""Columns of a table that is not shown on a terminal, which alone has a width."""
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_@./-]*")
_YAML_WORDS: Final = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
_SECRET: Final = re.compile(
    r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_.-]+|pdp_[A-Za-z0-9_-]{32,}|sk_(?:live|test)_[A-Za-z0-9]+"
    r"|whsec_[A-Za-z0-9+/=]+"
)
"""Tokens, API keys, and secrets of Clerk, by their form."""
_PATIENCE_SECONDS: Final = 1.0
_WAITING: Final = threading.Lock()
_TERMINAL: Final = Path("/dev/tty")


def say(message: str) -> None:
    """Prints one line on standard output."""
    _line(_out(), message)


def say_marked(mark: str, style: str, message: str) -> None:
    """Prints one line on standard output, after a word in a colour."""
    _line(_out(), message, f"{mark:<8} ", style)


def fail(message: str) -> None:
    """Prints one line of an error on standard error, without the secrets that arguments in the
    wrong place may bring into it."""
    _line(_err(), _SECRET.sub("<secret>", message), "pdp: ", "red")


def note(message: str) -> None:
    """Prints one line on standard error that is no error."""
    _line(_err(), message, "pdp: ", "yellow")


def warn(message: str) -> None:
    """Prints one line of a warning on standard error."""
    _line(_err(), message, "pdp: warning: ", "yellow")


def emit(text: str) -> None:
    """Writes to standard output, byte for byte, what programs read: JSON, YAML, tokens.

    The caller escapes what does not print.
    """
    sys.stdout.write(text)
    sys.stdout.flush()


def emit_json(value: Any, *, indent: int | None = None) -> None:
    """Writes JSON in ASCII that prints: on one line, or indented."""
    emit(json.dumps(value, indent=indent).replace("\x7f", "\\u007f") + "\n")


def yaml_text(fields: Mapping[str, Any]) -> str:
    """A YAML document in ASCII that prints. What a reader of any version of YAML could take for
    something else than text (`no`, `0o17`, a date) is in double quotes."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent(dumper: Dumper, text: str) -> yaml.Node:
        plain = _PLAIN.fullmatch(text) and text.lower() not in _YAML_WORDS
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')

    Dumper.add_representer(str, represent)
    text: str = yaml.dump(dict(fields), Dumper=Dumper, sort_keys=False, width=_PIPE_WIDTH)
    return text


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Shows on a terminal, from the second second on, what the command waits for. Within another
    one it shows nothing."""
    if not sys.stderr.isatty() or not _WAITING.acquire(blocking=False):
        yield
        return
    from rich.text import Text

    status = _err().status(Text(printable(what)))
    lock = threading.Lock()
    ended = False

    def start() -> None:
        with lock:
            if not ended:
                status.start()

    timer = threading.Timer(_PATIENCE_SECONDS, start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            ended = True
            status.stop()
        _WAITING.release()


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, heading: bool) -> None:
    """Prints rows under their columns; long cells are folded."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=heading, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    _out().print(table)


def progress_bars(*, lines: bool = False) -> "Progress":
    """Bars on standard error; nothing where that is not a terminal.

    `lines`: the command prints lines meanwhile, which then stand above the bar.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = _out() if lines else _err()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=lines,
        disable=not console.is_terminal,
    )


def is_asked_on_terminal(*, input_is_document: bool) -> bool:
    """Whether somebody sits at a terminal who can answer a question.

    `input_is_document`: standard input is a document, so it says nothing about that.
    """
    return sys.stderr.isatty() and (input_is_document or sys.stdin.isatty())


def confirm(question: str) -> bool:
    """Asks on the terminal, also where standard input is a document. Anything but yes is no."""
    _err().print(printable(question), end=" [y/N] ", markup=False, emoji=False)
    try:
        with _TERMINAL.open() as terminal:
            return terminal.readline().strip().lower() in {"y", "yes"}
    except OSError:
        return False


def read_input(what: str) -> str:
    """All of standard input; on a terminal it says first that it waits."""
    if sys.stdin.isatty():
        note(f"reads {what} from standard input; end it with Ctrl-D")
    return sys.stdin.read(DOCUMENT_BYTES_MAX + 1)


def read_document(file: str | Path) -> str:
    """The text of a policy document or of policy tests; `-` reads standard input.

    A file that is too large for a document (or never ends) is read only so far that its reader
    refuses it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8 text.
    """
    try:
        if file == "-":
            return read_input("a policy document")
        with Path(file).open(encoding="utf-8") as stream:
            return stream.read(DOCUMENT_BYTES_MAX + 1)
    except UnicodeDecodeError:
        raise ValueError(f"{file}: is not UTF-8 text") from None


def read_secret(what: str) -> str:
    """The text of standard input; typed on a terminal it is not shown. Raises ValueError if it is
    empty."""
    if sys.stdin.isatty():
        import getpass

        secret = getpass.getpass(f"pdp: {what}: ").strip()
    else:
        secret = sys.stdin.read().strip()
    if not secret:
        raise ValueError(f"{what} is empty")
    return secret


def _line(console: "Console", message: str, mark: str = "", style: str = "") -> None:
    from rich.text import Text

    console.print(Text.assemble((mark, style), printable(message)))


@functools.cache
def _out() -> "Console":
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)


@functools.cache
def _err() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
