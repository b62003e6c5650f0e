"""Forwards decisions and changes to a destination: page by page, in order, at least once.

The cursor moves only after the destination has confirmed the records before it. A process that is
killed in between sends these records again, with equal ids. While one page is delivered, the next
one is read: there are never more than two in memory.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from pdp.concurrency.background import BackgroundTask
from pdp.errors import DeliveryFailed, DeliveryRefused, SourceFailed
from pdp.gauges import Gauges
from pdp.siem.cursor import CursorFile
from pdp.siem.destinations import Destination
from pdp.siem.events import Record, record_id, record_nanoseconds
from pdp.siem.formats import json_line

if TYPE_CHECKING:
    from pdpapi.v1.audit_service_pb2 import FollowDecisionsResponse, FollowedDecision

POLL_SECONDS: Final = 0.5
COUNT_SECONDS: Final = 10.0
"""Between two counts of the records that wait at the server, while there are more to read."""
RETRY_SECONDS: Final = (0.2, 30.0)
STOP_SECONDS_MAX: Final = 10.0

_log = structlog.get_logger("pdp.siem")


class Source(Protocol):
    """The log of a server."""

    def end(self) -> str:
        """Returns the cursor after the last record. Raises SourceFailed."""

    def page(self, cursor: str, *, count: bool) -> "Callable[[], FollowDecisionsResponse]":
        """Begins to read the records after a cursor, and with `count` to count those that wait
        after the page. The function that it returns waits for the page, and raises
        SourceFailed."""


class Forwarder:
    """Forwards in a thread of its own, until it is stopped."""

    def __init__(
        self,
        source: Source,
        destination: Destination,
        cursor_file: CursorFile,
        *,
        from_end: bool,
        settle_seconds: float,
        refused_file: Path,
        clock: Callable[[], float],
    ) -> None:
        """Creates the forwarder.

        Args:
            source: The decision log.
            destination: Receives the records.
            cursor_file: Where to continue after a restart.
            from_end: Without a cursor: begin at the end of the log, not at its first record.
            settle_seconds: The age at which a record is forwarded. Equal denials are counted in one
                record for 10 seconds.
            refused_file: Receives the records that the destination refuses.
            clock: The wall clock, seconds since 1970-01-01 UTC.
        """
        self._source = source
        self._destination = destination
        self._cursor_file = cursor_file
        self._from_end = from_end
        self._settle_seconds = settle_seconds
        self._refused_file = refused_file
        self._clock = clock
        self._cursor: str | None = None
        self._next: Callable[[], FollowDecisionsResponse] | None = None
        self._records = self._refused = self._failures = self._dropped = self._waiting = 0
        self._count_at = self._complete_until = clock()
        self._oldest: float | None = None
        self._task = BackgroundTask(
            "siem-forwarder",
            self._run_once,
            retry_seconds=RETRY_SECONDS,
            log=_log,
            failed="forwarding_fails",
            on_recovered=lambda: _log.info("forwarding_works_again"),
        )

    @property
    def problem(self) -> str | None:
        """Why records are not forwarded now; None: they are."""
        return self._task.problem

    def start(self) -> None:
        """Starts the thread. Raises OSError if another process uses the cursor."""
        self._cursor_file.open()
        self._task.start()

    def stop(self) -> None:
        """Stops after the batch that is being delivered, and keeps its cursor."""
        self._task.stop(STOP_SECONDS_MAX)
        self._cursor_file.close()

    def gauges(self) -> Gauges:
        """The gauges of the forwarder."""
        return {
            "pdp_forward_records": (
                "Records that the destination confirmed.",
                lambda: self._records,
            ),
            "pdp_forward_refused_records": (
                "Records that the destination refused, set aside in a file.",
                lambda: self._refused,
            ),
            "pdp_forward_dropped_records": (
                "Decisions that servers and sidecars dropped, by the gaps of the log.",
                lambda: self._dropped,
            ),
            "pdp_forward_waiting_records": (
                "Records that wait at the server or here, at most.",
                lambda: self._waiting,
            ),
            "pdp_forward_oldest_waiting_seconds": (
                "Age of the oldest record that was read and is not confirmed; 0: there is none.",
                lambda: 0.0 if self._oldest is None else max(0.0, self._clock() - self._oldest),
            ),
            "pdp_forward_failures": (
                "Attempts to read or deliver records that failed.",
                lambda: self._failures,
            ),
            "pdp_forward_lag_seconds": (
                "Age of the newest moment up to which everything is delivered.",
                lambda: max(0.0, self._clock() - self._complete_until),
            ),
        }

    # --- the thread ------------------------------------------------------------------------------

    def _run_once(self) -> float:
        try:
            return self._forward_page()
        except Exception:
            # Also a bug: the page that was read ahead follows one that is not delivered.
            self._failures += 1
            self._next = None
            raise

    def _forward_page(self) -> float:
        """Forwards one page; returns the seconds until the next."""
        cursor = self._cursor
        if cursor is None:
            cursor = self._cursor = self._first_cursor()
        asked_at = self._clock()
        read, self._next = self._next or self._source.page(cursor, count=True), None
        page = read()
        self._note_waiting(page)
        ready, wait_seconds = self._settled(page.decisions)
        is_whole = len(ready) == len(page.decisions)
        if is_whole and page.more:
            count = asked_at >= self._count_at
            self._next = self._source.page(page.cursor, count=count)
        records = list(_records(ready))
        if records:
            self._deliver(records)
            self._complete_until = _seconds(records[-1])
        after = page.cursor if is_whole else ready[-1].cursor if ready else cursor
        if after != cursor:
            self._write_cursor(after)
        self._note_delivered(page.decisions, len(ready))
        if not is_whole:
            return wait_seconds
        if page.more:
            return 0.0
        self._complete_until = max(self._complete_until, asked_at)
        return POLL_SECONDS

    def _note_waiting(self, page: "FollowDecisionsResponse") -> None:
        """Notes what is not delivered, before the delivery of a page, which may take long."""
        if page.HasField("waiting"):
            self._waiting = page.waiting + len(page.decisions)
            self._count_at = self._clock() + COUNT_SECONDS
        self._oldest = next(map(_seconds, _records(page.decisions)), None)

    def _note_delivered(self, decisions: "Sequence[FollowedDecision]", count: int) -> None:
        self._waiting = max(0, self._waiting - count)
        self._dropped += sum(followed.gap.dropped for followed in decisions[:count])
        self._oldest = next(map(_seconds, _records(decisions[count:])), None)

    def _first_cursor(self) -> str:
        try:
            cursor = self._cursor_file.read()
        except (OSError, ValueError) as error:
            raise SourceFailed(str(error)) from None
        if cursor is not None:
            return cursor
        if not self._from_end:
            return ""
        cursor = self._source.end()
        self._write_cursor(cursor)
        return cursor

    def _settled(
        self, decisions: "Sequence[FollowedDecision]"
    ) -> "tuple[Sequence[FollowedDecision], float]":
        """Returns the first records that are old enough, and the seconds until the next one is."""
        before = self._clock() - self._settle_seconds
        for index, followed in enumerate(decisions):
            if not followed.HasField("decision"):
                continue  # its content is complete
            young = _seconds(followed.decision) - before
            if young > 0 and self._settle_seconds:
                # A clock that is ahead must not delay records for longer.
                return decisions[:index], min(max(young, POLL_SECONDS), self._settle_seconds)
        return decisions, 0.0

    def _write_cursor(self, cursor: str) -> None:
        try:
            self._cursor_file.write(cursor)
        except OSError as error:
            raise DeliveryFailed(f"the cursor cannot be written: {error.strerror}") from None
        self._cursor = cursor

    def _deliver(self, records: Sequence[Record]) -> None:
        """Delivers records; sets aside those whose content is refused.

        A record is set aside only if the destination accepts others: refusing everything is a wrong
        setting, and loses nothing.
        """
        refused = self._deliver_parts(records)
        if len(refused) == len(records):
            raise DeliveryFailed("the destination refuses every record")
        self._records += len(records) - len(refused)
        if refused:
            self._set_aside(refused)

    def _deliver_parts(self, records: Sequence[Record]) -> list[Record]:
        """Delivers records in their order, and returns those that are refused alone."""
        try:
            self._destination.deliver(records)
        except DeliveryRefused:
            if len(records) == 1:
                return list(records)
            if self._task.stopping:
                raise
            middle = len(records) // 2
            return self._deliver_parts(records[:middle]) + self._deliver_parts(records[middle:])
        return []

    def _set_aside(self, records: Sequence[Record]) -> None:
        content = "".join(f"{json_line(record)}\n" for record in records).encode()
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(self._refused_file, flags, 0o600), "ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DeliveryFailed(f"{self._refused_file}: {error.strerror}") from None
        self._refused += len(records)
        _log.error(
            "records_refused", file=str(self._refused_file), ids=list(map(record_id, records))
        )


def _records(decisions: "Sequence[FollowedDecision]") -> Iterator[Record]:
    """The records among what was read; a gap is none."""
    for followed in decisions:
        if followed.HasField("change"):
            yield followed.change
        elif followed.HasField("decision"):
            yield followed.decision


def _seconds(record: Record) -> float:
    return record_nanoseconds(record) / 1e9
