"""What a checkup says: one line for each thing that it looked at."""

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    """Works, and is not as it should be."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a checkup. Holds no secret: ids, origins, addresses and our own words."""

    verdict: Verdict
    subject: str
    """What was looked at, in the words of the settings where it is one."""
    said: str
    advice: str = ""
    """What to do; empty: nothing."""


def fine(subject: str, said: str) -> Finding:
    return Finding(Verdict.OK, subject, said)


def warning(subject: str, said: str, advice: str) -> Finding:
    return Finding(Verdict.WARNING, subject, said, advice)


def failed(subject: str, said: str, advice: str) -> Finding:
    return Finding(Verdict.FAILED, subject, said, advice)
