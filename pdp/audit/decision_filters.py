"""The filters of the decision log, and their conditions in SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from sqlalchemy import ColumnElement

from pdp.audit.rows import filterable
from pdp.audit.tables import ID_TIMES, ID_UNIT_SECONDS, audit_records
from pdp.model import Effect, Reason

_column = audit_records.c
Texts = Sequence[tuple[ColumnElement[str], str]]
"""Columns and their values."""


@dataclass(frozen=True, slots=True)
class DecisionFilter:
    """A record matches if every field that is set matches. Identifiers compare byte for byte."""

    user_id: str | None = None
    permission: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    effect: Effect | None = None
    reason: Reason | None = None
    organization_id: str | None = None
    """The actor's active organization."""
    caller: str | None = None
    reported_by: str | None = None
    not_before: float | None = None
    """Decided at or after; seconds since 1970-01-01 UTC."""
    before: float | None = None
    """Decided before."""


def conditions(where: DecisionFilter) -> list[ColumnElement[bool]]:
    """The conditions of a filter on the columns of the decision log."""
    return [*equal(texts_of(where), use_index=True), *times_of(where)]


def texts_of(where: DecisionFilter) -> Texts:
    """The columns that must equal a text, with the text."""
    texts: dict[ColumnElement[str], str | None] = {
        _column.user_id: where.user_id,
        _column.permission: where.permission,
        _column.resource_type: where.resource_type,
        _column.resource_id: where.resource_id,
        _column.effect: None if where.effect is None else where.effect.name,
        _column.reason: None if where.reason is None else where.reason.name,
        _column.organization_id: where.organization_id,
        _column.caller: where.caller,
        _column.reported_by: where.reported_by,
    }
    return [(column, filterable(text)) for column, text in texts.items() if text is not None]


def times_of(where: DecisionFilter) -> list[ColumnElement[bool]]:
    """The conditions on the time of a decision."""
    found: list[ColumnElement[bool]] = []
    if where.not_before is not None:
        found.append(_column.decided_at >= where.not_before)
    if where.before is not None:
        found.append(_column.decided_at < where.before)
    return found


def equal(texts: Texts, *, use_index: bool) -> list[ColumnElement[bool]]:
    """Conditions for which an index of the columns can be used, or none can."""
    return [(column if use_index else column.concat("")) == text for column, text in texts]


def id_range(where: DecisionFilter) -> tuple[str, str | None]:
    """Returns the first id that a decision within the times of a filter can have, and the first id
    after those; None: there is none. Strays are not among them."""
    earliest, latest = ID_TIMES
    first, end = "", None
    if where.not_before is not None and where.not_before >= earliest:
        first = f"{floor(min(where.not_before, latest) / ID_UNIT_SECONDS) - 1:08x}"
    if where.before is not None and where.before <= latest:
        end = f"{floor(max(where.before, earliest) / ID_UNIT_SECONDS) + 2:08x}"
    return first, end


def ids_between(first: str, end: str | None) -> list[ColumnElement[bool]]:
    """The conditions of a range of ids, from `id_range`; an empty `first` or None sets no bound."""
    found: list[ColumnElement[bool]] = [_column.decision_id >= first] if first else []
    return found if end is None else [*found, _column.decision_id < end]
