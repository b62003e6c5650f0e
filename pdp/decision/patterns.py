r"""The cost of an RE2 pattern: a bound on the size of the program that RE2 compiles it to.

RE2 matches in time linear in the text, but its program grows with counted repetition (`a{1000}`)
and with Unicode classes (`\pL`), and the runtime compiles a pattern at every use. Syntax:
https://github.com/google/re2/wiki/Syntax. Syntax that this module does not recognise counts as a
literal.
"""

import re
from typing import Final, NamedTuple

_COUNT = re.compile(r"\{(\d{1,4})(,?)(\d{0,4})\}")
_UNICODE_CLASS = re.compile(r"\\[pP](?:\{[^}]*\}|.)", re.DOTALL)
_POSIX_CLASS = re.compile(r"\[:\^?\w*:\]")


class PatternSize(NamedTuple):
    """The cost of a pattern. The unit of both fields is an instruction of a plain literal."""

    compiling: float
    """The cost of compiling the pattern."""
    matching: float
    """The most that matching a byte of text may cost."""


_NOTHING: Final = PatternSize(0, 0)
_ANY: Final = PatternSize(12, 4)
_UNICODE: Final = PatternSize(6_000, 400)


def pattern_size(pattern: str) -> PatternSize:
    """The size of a pattern that RE2 accepts."""
    # With case folding, single letters become classes; so do non-ASCII letters.
    folds = re.search(r"\(\?[a-zA-Z-]*i", pattern) is not None
    groups: list[PatternSize] = [_NOTHING]  # totals of the open groups, outermost first
    last = _NOTHING  # a repetition would repeat this; the group's total already contains it
    position = 0
    while position < len(pattern):
        character = pattern[position]
        count = _COUNT.match(pattern, position)
        if count is not None:
            more = _times(last, _repetitions(count) - 1)
            groups[-1] = _sum(groups[-1], more)
            last = _sum(last, more)
            position = count.end()
        elif character == "(":
            groups.append(_NOTHING)
            position += 1
        elif character == ")" and len(groups) > 1:
            last = _sum(groups.pop(), PatternSize(2, 2))
            groups[-1] = _sum(groups[-1], last)
            position += 1
        elif character in "*+?":
            # `x+` and `x*` add a loop, not another x.
            groups[-1] = _sum(groups[-1], PatternSize(1, 1))
            position += 1
        else:
            last, position = _atom(pattern, position, folds=folds)
            groups[-1] = _sum(groups[-1], last)
    total = _NOTHING
    for group in groups:
        total = _sum(total, group)
    return total


def _repetitions(count: re.Match[str]) -> int:
    least, comma, most = count.groups()
    return max(int(most) if most else int(least) + (1 if comma else 0), 1)


def _atom(pattern: str, position: int, *, folds: bool) -> tuple[PatternSize, int]:
    """The size of the atom at `position`, and where it ends."""
    character = pattern[position]
    if character == "[":
        return _class(pattern, position, folds=folds)
    unicode_class = _UNICODE_CLASS.match(pattern, position)
    if unicode_class is not None:
        return _UNICODE, unicode_class.end()
    if pattern.startswith("\\Q", position):
        end = pattern.find("\\E", position)
        end = len(pattern) if end < 0 else end + 2
        return _times(_literal(pattern[position], folds=folds), end - position), end
    if character == "\\":
        return _ANY, position + 2
    if character == ".":
        return _ANY, position + 1
    return _literal(character, folds=folds), position + 1


def _literal(character: str, *, folds: bool) -> PatternSize:
    size = len(character.encode(errors="replace")) * (5 if folds else 2)
    return PatternSize(size, size)


def _class(pattern: str, position: int, *, folds: bool) -> tuple[PatternSize, int]:
    size = PatternSize(6, 2) if folds else PatternSize(2, 2)
    position += 1
    if pattern.startswith("^", position):
        size = _sum(size, _ANY)
        position += 1
    first = True
    while position < len(pattern) and (first or pattern[position] != "]"):
        first = False
        named = _POSIX_CLASS.match(pattern, position)
        unicode_class = _UNICODE_CLASS.match(pattern, position)
        if named is not None:
            size, position = _sum(size, _ANY), named.end()
        elif unicode_class is not None:
            size, position = _sum(size, _UNICODE), unicode_class.end()
        elif pattern[position] == "\\":
            size, position = _sum(size, _ANY), position + 2
        elif pattern[position] <= "\x7f":
            size, position = _sum(size, PatternSize(1, 1)), position + 1
        else:
            # A range of such letters may fold to hundreds of other letters.
            letter = PatternSize(60, 20) if folds else PatternSize(20, 8)
            size, position = _sum(size, letter), position + 1
    return size, position + 1


def _sum(left: PatternSize, right: PatternSize) -> PatternSize:
    return PatternSize(left.compiling + right.compiling, left.matching + right.matching)


def _times(size: PatternSize, times: float) -> PatternSize:
    return PatternSize(size.compiling * times, size.matching * times)
