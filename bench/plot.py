"""A bar for each subject, as SVG."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

_WIDTH = 720
_LABELS = 180
_BAR = 28
_GAP = 12
_TOP = 68
_VALUES = 90


def bars(title: str, note: str, rows: Sequence[tuple[str, float]], *, ours: str) -> str:
    """A row of (name, value) each, the longest bar first; that of `ours` in another colour."""
    ordered = sorted(rows, key=lambda row: -row[1])
    height = _TOP + len(ordered) * (_BAR + _GAP)
    longest = max((value for _, value in ordered), default=0.0) or 1.0
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'role="img" font-family="sans-serif" font-size="15">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="28" font-weight="bold" fill="#1f2933">{escape(title)}</text>',
        f'<text x="16" y="50" font-size="13" fill="#52606d">{escape(note)}</text>',
    ]
    for number, (name, value) in enumerate(ordered):
        top = _TOP + number * (_BAR + _GAP)
        length = (_WIDTH - _LABELS - _VALUES) * value / longest
        middle = top + _BAR - 9
        colour = "#2f6fde" if name == ours else "#9aa5b1"
        lines += [
            (
                f'<text x="{_LABELS - 12}" y="{middle}" text-anchor="end" fill="#1f2933">'
                f"{escape(name)}</text>"
            ),
            f'<rect x="{_LABELS}" y="{top}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<text x="{_LABELS + length + 8:.1f}" y="{middle}" fill="#1f2933">{value:,.0f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
