"""Trees over the log of changes, which is in SQL: each server process keeps its own.

    <audit directory>/<origin>/@administration/tree/...     one tree for each epoch of the database

An entry is the kind of a frame and the SHA-256 of its payload, as for records of decisions.
"""

from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import Engine

from pdp.audit.administration_log import ORIGIN, log_ids, placed_after
from pdp.audit.transparency.entries import entry_of_change
from pdp.audit.transparency.notary import RETRY_SECONDS, STOP_SECONDS_MAX, Notary
from pdp.audit.transparency.trees import OriginTrees
from pdp.concurrency.background import BackgroundTask
from pdp.database.engine import begin_read, extended_timeouts
from pdp.gauges import Gauges

ROWS_AT_ONCE: Final = 500

_log = structlog.get_logger(__name__)


class ChangesNotary:
    """Extends the trees over the log of changes in the background, and signs checkpoints."""

    def __init__(self, engine: Engine, notary: Notary, directory: Path) -> None:
        """Creates it; `start` starts it.

        Args:
            engine: The database.
            notary: Signs and publishes.
            directory: The directory of the process's origin, in the audit directory.
        """
        self._engine = engine
        self._notary = notary
        self._directory = directory / ORIGIN
        self._task = BackgroundTask(
            "changes-notary",
            self._run,
            retry_seconds=RETRY_SECONDS,
            log=_log,
            failed="changes_tree_not_extended",
        )

    def start(self) -> None:
        """Starts; returns at once."""
        self._task.start()

    def stop(self) -> None:
        """Stops. The next start continues."""
        self._task.stop(STOP_SECONDS_MAX)

    def gauges(self) -> Gauges:
        """Returns the gauges for metrics."""
        return {
            "pdp_audit_changes_tree_failing": (
                "1 while the tree of the log of changes cannot be extended or signed.",
                lambda: float(self._task.problem is not None),
            )
        }

    def _run(self) -> float:
        self._notary.cover(self._directory, lambda trees: extend(self._engine, trees))
        return self._notary.checkpoint_seconds


def extend(engine: Engine, trees: OriginTrees) -> None:
    """Appends the records that have a place in the log and are not in the trees.

    Raises:
        DatabaseUnavailable: The database does not answer.
        OSError: A tile cannot be written.
    """
    with begin_read(engine) as connection, extended_timeouts(connection):
        for log_id in log_ids(connection):
            first = trees.next_position(log_id)
            for row in placed_after(connection, log_id, first, ROWS_AT_ONCE):
                trees.append(log_id, row["position"], [entry_of_change(row)])
