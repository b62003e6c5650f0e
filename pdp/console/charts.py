"""Charts as SVG, which hold numbers only. A table with the same figures is next to each."""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

_WIDTH: Final = 720
_HEIGHT: Final = 160
_GAP: Final = 0.2
"""The part of a column's place that stays empty."""
_DIGIT_MAX: Final = 10


def chart(allowed: Sequence[int], denied: Sequence[int]) -> Markup:
    """Columns over time: denials below, allows on top of them."""
    top = scale_of(allowed, denied)
    place = _WIDTH / max(1, len(denied))
    parts = []
    for index, (allows, denials) in enumerate(zip(allowed, denied, strict=True)):
        x, width = index * place, place * (1 - _GAP)
        low, high = _HEIGHT * denials / top, _HEIGHT * (denials + allows) / top
        if denials:
            parts.append(_column("denied", x, _HEIGHT - low, width, low))
        if allows:
            parts.append(_column("allowed", x, _HEIGHT - high, width, high - low))
    grid = "".join(
        f'<line class="grid" x1="0" x2="{_WIDTH}" y1="{y}" y2="{y}"/>'
        for y in (0, _HEIGHT // 2, _HEIGHT)
    )
    return Markup(  # noqa: S704  # numbers only
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" '
        f'aria-hidden="true" focusable="false">{grid}{"".join(parts)}</svg>'
    )


def scale_of(allowed: Sequence[int], denied: Sequence[int]) -> int:
    """The top of the scale: the first of 1, 2, 4, 6, 8, 10, 20 and so on that holds all columns."""
    highest = max((a + d for a, d in zip(allowed, denied, strict=True)), default=0)
    top = 1
    while True:
        for factor in (1, 2, 4, 6, 8):
            if highest <= top * factor:
                return top * factor
        top *= _DIGIT_MAX


def bar(count: int, greatest: int) -> Markup:
    """A bar for a row of a table."""
    share = 100 * count / max(1, greatest)
    return Markup(  # noqa: S704  # numbers only
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" '
        f'focusable="false"><rect class="denied" width="{share:.1f}" height="10"/></svg>'
    )


def _column(name: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="{name}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    )
