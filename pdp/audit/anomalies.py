"""Finds unusual denials: more than usual, a new reason, a user who is denied everything.

From roll-ups, and for users from a bounded number of the newest denials. A finding is a hint for a
person, not a decision: nothing depends on it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sqlalchemy import Connection, Engine, func, select, text

from pdp.audit.records import first_id_at
from pdp.audit.rollups import DIMENSIONS, EFFECT, HOUR, MINUTE
from pdp.audit.tables import ALLOWED, audit_records, audit_rollups
from pdp.database.engine import begin_read
from pdp.model import Effect

RECENT_SECONDS: Final = 15 * MINUTE
"""The time that is looked at."""
USUAL_HOURS: Final = 24
"""The time before, with which it is compared."""
KNOWN_HOURS: Final = 7 * 24
"""For how long a reason counts as known."""
SPIKE_MIN: Final = 20
SPIKE_FACTOR: Final = 5
"""A spike: at least SPIKE_MIN denials, and SPIKE_FACTOR times the usual number."""
DENIALS_MAX: Final = 1_000
"""Denials that the search for users looks at."""
USER_DENIALS_MIN: Final = 5
USER_PERMISSIONS_MIN: Final = 3
USERS_MAX: Final = 5


class Unusual(Enum):
    """What is unusual."""

    SPIKE = "spike"
    NEW_REASON = "new reason"
    USER_DENIED = "user denied everywhere"


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that is worth a look."""

    what: Unusual
    dimension: str
    """`effect` (all denials), a name of `rollups.DIMENSIONS`, or `user`."""
    value: str
    denials: int
    """Within RECENT_SECONDS."""
    usual: float
    """The average number in such a time, over USUAL_HOURS; 0 for users."""


def find_anomalies(engine: Engine, now: float) -> Sequence[Anomaly]:
    """Returns the anomalies of the time before `now` (seconds since 1970), the largest first.

    Raises:
        DatabaseUnavailable: The database does not answer in time.
    """
    since = int(now - RECENT_SECONDS) // MINUTE * MINUTE
    hour = since // HOUR * HOUR
    with begin_read(engine) as connection:
        recent = _denials(connection, MINUTE, since, int(now) + MINUTE)
        usual = _denials(connection, HOUR, hour - USUAL_HOURS * HOUR, hour)
        known = _denials(connection, HOUR, hour - KNOWN_HOURS * HOUR, hour, "reason")
        # Of the hour that has begun, up to the time that is looked at.
        known |= _denials(connection, MINUTE, hour, since, "reason")
        users = list(_denied_users(connection, since))
    found = [*_of_counts(recent, usual, known), *users]
    return sorted(found, key=lambda anomaly: (-anomaly.denials, anomaly.dimension, anomaly.value))


Counts = Mapping[tuple[str, str], int]
"""Denials by dimension and value."""


def _of_counts(recent: Counts, usual: Counts, known: Counts) -> Iterator[Anomaly]:
    share = RECENT_SECONDS / (USUAL_HOURS * HOUR)
    for (dimension, value), denials in recent.items():
        average = usual.get((dimension, value), 0) * share
        # Without any history everything would be new.
        if dimension == "reason" and known and (dimension, value) not in known:
            yield Anomaly(Unusual.NEW_REASON, dimension, value, denials, 0)
        elif denials >= max(SPIKE_MIN, SPIKE_FACTOR * average):
            yield Anomaly(Unusual.SPIKE, dimension, value, denials, average)


def _denials(
    connection: Connection, step: int, start: int, end: int, dimension: str | None = None
) -> dict[tuple[str, str], int]:
    table = audit_rollups.c
    wanted = [EFFECT, *DIMENSIONS] if dimension is None else [dimension]
    query = (
        select(table.dimension, table.value, func.sum(table.decisions))
        .where(table.step == step, table.dimension.in_(wanted))
        .where(table.start >= start, table.start < end)
        .group_by(table.dimension, table.value)
    )
    return {
        (name, value): int(count)
        for name, value, count in connection.execute(query)
        if name != EFFECT or value == Effect.DENY.name
    }


def _denied_users(connection: Connection, since: int) -> Iterator[Anomaly]:
    """Users with denials of several permissions, and no allow that is logged."""
    column = audit_records.c
    # Ids sort by time; another clock made them, so they begin a little earlier.
    first = first_id_at(since - MINUTE)
    query = (
        select(column.user_id, column.permission, column.occurrences)
        .where(column.effect == Effect.DENY.name, func.coalesce(column.reported_by, "") == "")
        .where(column.decision_id >= first, column.decided_at >= since)
        .where(column.user_id.is_not(None))
        .order_by(column.decision_id.desc())
        .limit(DENIALS_MAX)
    )
    permissions: defaultdict[str, set[str]] = defaultdict(set)
    denials: defaultdict[str, int] = defaultdict(int)
    for user_id, permission, occurrences in connection.execute(query):
        permissions[user_id].add(permission)
        denials[user_id] += occurrences
    suspects = [
        user_id
        for user_id in sorted(denials, key=lambda user_id: (-denials[user_id], user_id))
        if denials[user_id] >= USER_DENIALS_MIN
        and len(permissions[user_id]) >= USER_PERMISSIONS_MIN
    ]
    for user_id in suspects[:USERS_MAX]:
        allowed = select(column.decision_id).where(
            text(ALLOWED), column.user_id == user_id, column.decision_id >= first
        )
        if connection.execute(allowed.limit(1)).first() is None:
            yield Anomaly(Unusual.USER_DENIED, "user", user_id, denials[user_id], 0)
