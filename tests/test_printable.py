"""Untrusted text is shown to people without control characters."""

import logging
import sys

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from pdp.printable import printable
from pdp.process.logs import configure_logs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("user_1", "user_1"),
        ("Jos\u00e9 \U0001f600", "Jos\u00e9 \U0001f600"),
        ("[red]x[/red] :skull:", "[red]x[/red] :skull:"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\r\t\x00", "a\\nb\\r\\t\\x00"),
        ("a\u202eb\u2066c\u200bd\ufeff", "a\\u202eb\\u2066c\\u200bd\\ufeff"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_does_not_print_is_escaped_and_all_else_is_left_alone(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_whatever_it_is_it_prints_on_one_line(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text).splitlines()) <= 1


def test_a_log_for_people_holds_no_control_of_strangers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The console form; JSON escapes by itself."""
    hostile = "\x1b]0;owned\x07\u202e\nlevel=forged"
    root, configuration = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    configure_logs("info", "console")
    try:
        structlog.get_logger("strangers").info("refused", path=hostile, ids=[hostile])
        logging.getLogger("library").warning("of %s", hostile)
        try:
            raise ValueError(hostile)
        except ValueError:
            structlog.get_logger("strangers").exception("bug")
            logging.getLogger("library").exception("bug")
    finally:
        structlog.configure(**configuration)
        root.handlers[:], root.level = handlers, level
    shown = capsys.readouterr().err
    assert sys.stderr.isatty() or "\x1b" not in shown
    assert not {"\x07", "\u202e"} & set(shown)
    assert not any(line.startswith("level=forged") for line in shown.splitlines())
    assert shown.count("\\u202e") >= 5
