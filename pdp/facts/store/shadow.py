"""The candidate policy that all replicas decide beside the real one, and what they counted.

It is no policy: it raises no revision and no decision depends on it.
"""

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Engine, delete, func, insert, select, update

from pdp.database.engine import begin_read, begin_write, overwrite_deleted
from pdp.facts.store.tables import shadow, shadow_flips

EXAMPLES_MAX: Final = 5
"""Of one group."""
GROUPS_MAX: Final = 10_000
"""Groups of flips in SQL; further ones are counted in `flipped` only."""


@dataclass(frozen=True, slots=True)
class ShadowCandidate:
    """A candidate."""

    id: str
    """Random; another one each time that a candidate is set."""
    document: str
    sample: float
    """The share of decisions that are also made by the candidate, 0 to 1."""
    set_at: float


@dataclass(slots=True)
class ShadowCounts:
    """What happened to the sampled decisions."""

    decided: int = 0
    flipped: int = 0
    failed: int = 0
    """The candidate could not be asked, because of a bug."""
    dropped: int = 0
    """Sampled, but there were too many."""


class FlipGroup(NamedTuple):
    """Answers that change alike."""

    permission: str
    effect: str
    """What the candidate decides."""
    rule_before: str
    """Empty: no rule decided."""
    rule_after: str


class FlipCount(NamedTuple):
    """How many answers of a group change."""

    group: FlipGroup
    times: int
    examples: Sequence[Mapping[str, Any]]


class ShadowReport(NamedTuple):
    """A candidate, and what was counted for it."""

    candidate: ShadowCandidate
    counts: ShadowCounts
    flips: Sequence[FlipCount]


class ShadowStore:
    """The candidate in SQL. Every method may raise DatabaseUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def set(self, document: str, sample: float, now: float) -> ShadowCandidate:
        """Replaces the candidate, and drops what was counted for the one before."""
        candidate = ShadowCandidate(secrets.token_hex(8), document, sample, now)
        with begin_write(self._engine) as connection:
            connection.execute(delete(shadow_flips))
            connection.execute(delete(shadow))
            connection.execute(
                insert(shadow).values(
                    id=1,
                    candidate_id=candidate.id,
                    document=document,
                    sample=sample,
                    set_at=now,
                    decided=0,
                    flipped=0,
                    failed=0,
                    dropped=0,
                )
            )
        return candidate

    def clear(self) -> bool:
        """Removes the candidate and its counts. Returns whether there was one."""
        with begin_write(self._engine) as connection:
            connection.execute(delete(shadow_flips))
            return connection.execute(delete(shadow)).rowcount > 0

    def read(self, known: str = "") -> ShadowCandidate | None:
        """The candidate; without its document if it is the known one. None: there is none."""
        columns = (shadow.c.candidate_id, shadow.c.sample, shadow.c.set_at)
        with begin_read(self._engine) as connection:
            row = connection.execute(select(*columns)).one_or_none()
            if row is None:
                return None
            document = ""
            if row.candidate_id != known:
                document = connection.execute(select(shadow.c.document)).scalar_one()
            return ShadowCandidate(row.candidate_id, document, row.sample, row.set_at)

    def report(self) -> ShadowReport | None:
        """The candidate, without its document, and what all replicas counted for it, as of one
        moment. None: there is no candidate."""
        columns = [column for column in shadow.c if column.name != "document"]
        with begin_read(self._engine) as connection:
            row = connection.execute(select(*columns)).one_or_none()
            if row is None:
                return None
            groups = connection.execute(
                select(shadow_flips, shadow_flips.c["count"].label("decisions"))
                .where(shadow_flips.c.candidate_id == row.candidate_id)
                .order_by(shadow_flips.c["count"].desc(), *_GROUP)
            )
            candidate = ShadowCandidate(row.candidate_id, "", row.sample, row.set_at)
            counts = ShadowCounts(row.decided, row.flipped, row.failed, row.dropped)
            flips = [
                FlipCount(
                    FlipGroup(group.permission, group.effect, group.rule_before, group.rule_after),
                    group.decisions,
                    json.loads(group.examples),
                )
                for group in groups
            ]
            return ShadowReport(candidate, counts, flips)

    def forget(self, user_id: str, before: float, resource_types: Collection[str]) -> int:
        """Removes the examples that name a user as actor, or as a resource of a type, and are older
        than a time (seconds since 1970). Returns how many. The counts stay."""
        removed = 0
        with begin_write(self._engine) as connection:
            overwrite_deleted(connection)
            # As in `add`: one writer at a time.
            connection.execute(select(shadow.c.id).with_for_update())
            for *key, text in connection.execute(select(*_KEY, shadow_flips.c.examples)).all():
                examples = json.loads(text)
                kept = [one for one in examples if not _names(one, user_id, before, resource_types)]
                if len(kept) < len(examples):
                    removed += len(examples) - len(kept)
                    where = [one == part for one, part in zip(_KEY, key, strict=True)]
                    values = {"examples": json.dumps(kept)}
                    connection.execute(update(shadow_flips).where(*where).values(values))
        return removed

    def add(self, candidate_id: str, counts: ShadowCounts, flips: Sequence[FlipCount]) -> None:
        """Adds what a replica counted. Nothing happens if the candidate is another one by now."""
        column = shadow.c
        with begin_write(self._engine) as connection:
            added = connection.execute(
                update(shadow)
                .where(column.candidate_id == candidate_id)
                .values(
                    decided=column.decided + counts.decided,
                    flipped=column.flipped + counts.flipped,
                    failed=column.failed + counts.failed,
                    dropped=column.dropped + counts.dropped,
                )
            )
            if not added.rowcount:
                return
            # The lock on the row above makes this one writer at a time.
            total = connection.execute(select(func.count()).select_from(shadow_flips)).scalar_one()
            for group, times, examples in flips:
                key = {"candidate_id": candidate_id, **group._asdict()}
                where = [shadow_flips.c[name] == value for name, value in key.items()]
                stored = connection.execute(
                    select(shadow_flips.c["count"], shadow_flips.c.examples).where(*where)
                ).one_or_none()
                if stored is not None:
                    shown = [*json.loads(stored[1]), *examples][:EXAMPLES_MAX]
                    values = {"count": stored[0] + times, "examples": json.dumps(shown)}
                    connection.execute(update(shadow_flips).where(*where).values(values))
                elif total < GROUPS_MAX:
                    total += 1
                    values = {"count": times, "examples": json.dumps([*examples][:EXAMPLES_MAX])}
                    connection.execute(insert(shadow_flips).values(**key, **values))


_GROUP: Final = (
    shadow_flips.c.permission,
    shadow_flips.c.effect,
    shadow_flips.c.rule_before,
    shadow_flips.c.rule_after,
)
_KEY: Final = (shadow_flips.c.candidate_id, *_GROUP)


def _names(
    example: Mapping[str, Any], user_id: str, before: float, resource_types: Collection[str]
) -> bool:
    type_, _, resource_id = (example["resource"] or "").partition(":")
    names = (example["user"], resource_id if type_ in resource_types else None)
    return example["decided_at"] < before and user_id in names
