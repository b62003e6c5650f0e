"""Text that others wrote, made safe to show to people."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

# Spreadsheets execute a cell that begins like this. One that expects another separator than the
# comma also begins a cell within ours.
_FORMULA: Final = re.compile(r"""(^|[,;|"'])(\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])""")


def printable(text: str) -> str:
    r"""Escapes everything that does not print: controls (C0 and C1, so every escape sequence), line
    breaks, bidirectional and other format characters, lone surrogates.

    The escapes look as in a Python literal: `\n`, `\x1b`, `\u202e`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Renders rows as CSV (RFC 4180). An apostrophe precedes what a spreadsheet would take for a
    formula, and what does not print is escaped.

    Source: https://owasp.org/www-community/attacks/CSV_Injection
    """
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([_FORMULA.sub(r"\1\2'", printable(cell)) for cell in row] for row in rows)
    return text.getvalue()
