"""CSV of untrusted text, which no spreadsheet may execute."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdp.printable import csv_text

SEPARATORS = [",", ";", "\t", "|"]
STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r")
HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    " =1",
    "\t=1",
    "\r=1",
    "\n=1",
    'x","=1',
    "x;=HYPERLINK(1)",
    "x\t=1",
    "'=1",
    '"=1',
    "\uff1dcmd()",
    "a\n=1",
    ";;=1",
]


def cells(text: str, separator: str) -> list[str]:
    """All cells, as a spreadsheet with this separator reads them: with quotes or without."""
    quoted = csv.reader(io.StringIO(text), delimiter=separator)
    plain = csv.reader(io.StringIO(text), delimiter=separator, quoting=csv.QUOTE_NONE)
    return [cell for reader in (quoted, plain) for row in reader for cell in row]


def is_formula(cell: str) -> bool:
    # The end of a line is not part of a cell that begins with a quote.
    return cell.removesuffix("\r\n").strip(' "').startswith(STARTS)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_cell_begins_a_formula_whatever_separator_is_expected(hostile: str) -> None:
    text = csv_text([[hostile, f"x{hostile}", hostile]])
    assert not [cell for sep in SEPARATORS for cell in cells(text, sep) if is_formula(cell)]


@given(st.lists(st.text(alphabet="=+-@,;|\t\r\n\"' ax\uff1d"), min_size=1, max_size=3))
def test_no_text_begins_a_formula(row: list[str]) -> None:
    text = csv_text([row])
    assert not [cell for sep in SEPARATORS for cell in cells(text, sep) if is_formula(cell)]
    assert text.count("\n") == 1, "one row is one line"


def test_harmless_text_is_itself() -> None:
    row = ["user_1", "", "resource.attributes.owner == actor.id", "a, b", 'a "b"', "é", "x-y"]
    assert next(csv.reader(io.StringIO(csv_text([row])))) == row


def test_the_measure_sees_a_formula() -> None:
    """The control."""
    assert any(map(is_formula, cells('"x;=1"', ";")))
    assert any(map(is_formula, cells("=1", ",")))
