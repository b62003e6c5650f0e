"""Lists of cases that are known to fail. A list may only shrink: an entry that passes is an error.

Each line of a list is `case: reason`; empty lines and lines that start with `#` do not count.
"""

from collections.abc import Mapping, Set
from pathlib import Path


def read(path: Path) -> Mapping[str, str]:
    """Case -> reason. Raises ValueError for a line without a reason."""
    reasons = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        case, _, reason = (part.strip() for part in line.partition(": "))
        if not reason or case in reasons:
            raise ValueError(f"{path.name}: {line!r} has no reason, or is there twice")
        reasons[case] = reason
    return reasons


def differences(run: Set[str], failed: Set[str], known: Mapping[str, str]) -> list[str]:
    """The problems of a run of the cases `run`, of which `failed` failed; empty: none."""
    return [
        *(f"{case}: failed, and is not known to fail" for case in sorted(failed - known.keys())),
        *(f"{case}: passed, but is listed as failing" for case in sorted(known.keys() - failed)),
        *(["no case was run"] if not run else []),
    ]
