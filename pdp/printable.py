"""Text that others wrote, made safe to show to people."""


def printable(text: str) -> str:
    r"""Escapes everything that does not print: controls (C0 and C1, so every escape sequence), line
    breaks, bidirectional and other format characters, lone surrogates.

    The escapes look as in a Python literal: `\n`, `\x1b`, `\u202e`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
