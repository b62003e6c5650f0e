"""Texts that would act on a terminal, and what finds them."""

import unicodedata

MARKUP = ["\\[/x]", "[conceal]x", "[link=//e]x[/link]", "a:skull:b", "[/]", "\\"]
CONTROLS = [
    "\x1b[2J\x1b]0;owned\x07",
    "\x1b]8;;//e\x1b\\x",
    "\x9b31m\x85",
    "a\u202eb\u2066c\u200d",
    "a\nforged: line\r",
    "\u2028x\u2029",
]


def unsafe(text: str) -> set[str]:
    """Characters that a terminal would act on, or that would show the text in another order."""
    return {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"} and c != "\n"}
