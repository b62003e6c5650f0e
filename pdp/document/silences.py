"""Comments that silence findings of `pdp lint`, each with a reason.

    # lint: silence grant-never-ends: staff is removed by Clerk
    - {role: ADMIN, user: user_ada}

A comment applies to its own line, or to the next line that is not a comment. Before the first line
of the document that is not a comment, it applies to the whole document.
"""

import re
from dataclasses import dataclass
from typing import Final

_COMMENT: Final = re.compile(r"(?:^|\s)#\s*lint:\s*silence\b\s*([a-z0-9-]*)\s*(?::\s*(.*?))?\s*$")


@dataclass(frozen=True, slots=True)
class Silence:
    """A comment that silences a rule."""

    rule: str
    """The rule's id as written; perhaps no rule has it."""
    reason: str
    line: int
    """The line of the comment."""
    target: int | None
    """The line that it applies to; None: the whole document."""


def silences_of(text: str) -> tuple[Silence, ...]:
    """The silencing comments of a YAML document."""
    if "lint:" not in text:
        return ()
    lines = text.splitlines()
    found: list[Silence] = []
    pending: list[tuple[str, str, int]] = []
    begun = False
    for number, line in enumerate(lines, 1):
        match = _COMMENT.search(line)
        stripped = line.strip()
        if match is not None:
            comment = (match[1], match[2] or "", number)
            if stripped.startswith("#"):
                pending.append(comment)
                continue
            found.append(Silence(*comment, number))
        if stripped.startswith("#") or not stripped:
            continue
        target = number if begun else None
        found += [Silence(*comment, target) for comment in pending]
        pending, begun = [], True
    return (*found, *(Silence(*comment, None) for comment in pending))
