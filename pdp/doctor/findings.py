"""The findings of a checkup: one line for each check."""

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    """Works, but should be corrected."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a checkup. Contains no secret: ids, origins, addresses and our own text."""

    verdict: Verdict
    subject: str
    """The subject of the check: the name of the setting, if it is a setting."""
    message: str
    advice: str = ""
    """What to do; empty: nothing."""


def fine(subject: str, message: str) -> Finding:
    """A check that passed."""
    return Finding(Verdict.OK, subject, message)


def warning(subject: str, message: str, advice: str) -> Finding:
    """A check that found something to correct."""
    return Finding(Verdict.WARNING, subject, message, advice)


def failed(subject: str, message: str, advice: str) -> Finding:
    """A check that failed."""
    return Finding(Verdict.FAILED, subject, message, advice)
