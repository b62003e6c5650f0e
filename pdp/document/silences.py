"""Comments that silence findings of `pdp lint`, each with a reason.

    # lint: silence grant-never-ends: staff is removed by Clerk
    - {role: ADMIN, user: user_ada}

A comment holds for the line that it is on, or for the next line that is no comment. Above the first
line of the document that is no comment, it holds for the whole document.
"""

import re
from dataclasses import dataclass
from typing import Final

_COMMENT: Final = re.compile(r"(?:^|\s)#\s*lint:\s*silence\b\s*([a-z0-9-]*)\s*(?::\s*(.*?))?\s*$")


@dataclass(frozen=True, slots=True)
class Silence:
    """One comment."""

    rule: str
    """The rule's id as it is written; it may be none."""
    reason: str
    line: int
    """Where the comment is."""
    target: int | None
    """The line that it holds for; None: the whole document."""


def silences_of(text: str) -> tuple[Silence, ...]:
    """The comments of a document in YAML."""
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
            one = (match[1], match[2] or "", number)
            if stripped.startswith("#"):
                pending.append(one)
                continue
            found.append(Silence(*one, number))
        if stripped.startswith("#") or not stripped:
            continue
        found += [Silence(*one, number if begun else None) for one in pending]
        pending, begun = [], True
    return (*found, *(Silence(*one, None) for one in pending))
