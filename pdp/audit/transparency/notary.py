"""Extends the trees of a process in the background, and signs checkpoints."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from pdp.audit.recorder import Recorder
from pdp.audit.transparency.notes import NoteError, Signer, open_checkpoint
from pdp.audit.transparency.publishing import (
    Publisher,
    file_publisher,
    last_published,
    url_publisher,
)
from pdp.audit.transparency.signing import command_signer, file_signer
from pdp.audit.transparency.tiles import DamagedTreeError
from pdp.audit.transparency.trees import WHY_DATABASE, OriginTrees, stored_trees
from pdp.audit.transparency.witnesses import witness_publishers
from pdp.concurrency.background import BackgroundTask
from pdp.errors import AuditUnavailable
from pdp.gauges import Gauges
from pdp.settings import AuditTreeSettings

EXTEND_SECONDS: Final = 1.0
RETRY_SECONDS: Final = (1.0, 30.0)
STOP_SECONDS_MAX: Final = 5.0
BUSY_SECONDS_MAX: Final = 0.5
"""How long the shipper waits for a signature in progress."""

_log = structlog.get_logger(__name__)


def open_notary(settings: AuditTreeSettings | None, recorder: Recorder) -> "Notary | None":
    """Returns the notary that the settings describe; None: they describe none.

    Raises:
        ValueError: A key cannot be used.
        OSError: A file of a key cannot be read.
    """
    if settings is None:
        return None
    publishers = [file_publisher(path) for path in settings.files]
    return Notary(
        recorder,
        settings.name,
        signers_of(settings),
        publishers + [url_publisher(url) for url in settings.urls],
        checkpoint_seconds=settings.checkpoint_seconds,
        witnesses=witness_publishers(settings.witnesses),
    )


def covered_by(settings: AuditTreeSettings | None, origin: Path) -> Callable[[str], int]:
    """Returns a function of a log's id: up to which position checkpoints cover it, on disk or
    published to files.

    Args:
        settings: None: there are no checkpoints.
        origin: The directory of the log's origin.
    """
    if settings is None:
        return lambda _: 0
    keys, files = [signer.key for signer in signers_of(settings)], settings.files

    def size_of(note: str | None) -> int:
        try:
            return 0 if note is None else open_checkpoint(note, keys).size
        except NoteError:
            return 0

    def covered(log_id: str) -> int:
        end = 0
        try:
            for tree in stored_trees(origin):
                if tree.genesis.log_id != log_id:
                    continue
                published = (last_published(path, tree.checkpoint.origin) for path in files)
                size = max(map(size_of, (tree.note, *published)))
                end = max(end, tree.genesis.first_position + size - 1)
        except (OSError, DamagedTreeError) as error:
            _log.error("audit_tree_unreadable", origin=origin.name, error=str(error))
        return end

    return covered


def signers_of(settings: AuditTreeSettings) -> list[Signer]:
    """Returns the signers that the settings describe. Raises ValueError, OSError."""
    return [
        file_signer(settings.name, signer.key_file)
        if signer.key_file is not None
        else command_signer(settings.name, signer.command, signer.public_key_file or Path())
        for signer in settings.signers
    ]


class Notary:
    """Keeps the trees of the recorder's log, and of logs that the shipper adopts."""

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        signers: Sequence[Signer],
        publishers: Sequence[Publisher],
        *,
        checkpoint_seconds: float,
        witnesses: Sequence[Publisher] = (),
    ) -> None:
        """Creates the notary; `start` starts it.

        Args:
            recorder: Writes the log.
            name: The first part of every checkpoint's origin line.
            signers: The keys that sign checkpoints.
            publishers: Where checkpoints go.
            checkpoint_seconds: The time between two checkpoints of a log that grows.
            witnesses: Ask for cosignatures.
        """
        self._recorder = recorder
        self._name = name
        self._signers = signers
        self._publishers = publishers
        self._witnesses = witnesses
        self.checkpoint_seconds: Final = checkpoint_seconds
        self._lock = threading.Lock()
        """Held while trees are used: the shipper's thread uses them too."""
        self._own: OriginTrees | None = None
        self._due_at = 0.0
        self._checkpoints = 0
        self._retry_at = 0.0
        """Until then, after a failure, the shipper's thread does not try to sign."""
        self._task = BackgroundTask(
            "audit-notary",
            self._run,
            retry_seconds=RETRY_SECONDS,
            log=_log,
            failed="audit_tree_not_extended",
        )

    def start(self) -> None:
        """Starts, after the recorder."""
        for publisher in (*self._publishers, *self._witnesses):
            publisher.start()
        self._task.start()

    def stop(self) -> None:
        """Signs a last checkpoint, and stops. Stop the recorder and the shipper before."""
        self._task.stop(STOP_SECONDS_MAX)
        with self._lock:
            try:
                self._extend_own(sign=True)
            except AuditUnavailable as error:
                _log.warning("audit_tree_not_extended", error=error.message)
            finally:
                self._close()
        for publisher in (*self._publishers, *self._witnesses):
            publisher.stop()

    def may_delete(self, segment: Path, log_id: str, position: int) -> bool:
        """Returns whether a checkpoint covers a log up to a position; signs one if necessary.

        For the shipper, which holds the origin's lock, before it deletes a segment.
        """
        # Records must reach SQL even while a key service hangs.
        if not self._lock.acquire(timeout=BUSY_SECONDS_MAX):
            return False
        try:
            return self._covers(segment.parent, log_id, position)
        except AuditUnavailable as error:
            self._retry_at = time.monotonic() + RETRY_SECONDS[1]
            _log.warning("audit_segment_not_covered", segment=str(segment), why=error.message)
            return False
        finally:
            self._lock.release()

    def note_lost_rows(self, segment: Path, log_id: str) -> None:
        """Continues a log in a new tree: its database was restored from a backup. For the shipper's
        thread."""
        with self._lock:
            try:
                if segment.parent == self._recorder.directory:
                    self._extend_own(sign=True)
                    if self._own is not None:
                        self._own.fork(log_id, WHY_DATABASE)
            except AuditUnavailable as error:
                _log.warning("audit_tree_not_forked", segment=str(segment), error=error.message)

    def gauges(self) -> Gauges:
        """Returns the gauges for metrics."""
        return {
            "pdp_audit_checkpoints": (
                "Checkpoints that were signed.",
                lambda: self._checkpoints,
            ),
            "pdp_audit_tree_failing": (
                "1 while the tree of the decision log cannot be extended or signed.",
                lambda: float(self._task.problem is not None),
            ),
            "pdp_audit_checkpoints_waiting": (
                "Checkpoints that a destination has not accepted yet.",
                lambda: sum(publisher.waiting() for publisher in self._publishers),
            ),
            "pdp_audit_witnesses_failing": (
                "Witnesses that have not cosigned what they were asked for last.",
                lambda: sum(witness.fails() for witness in self._witnesses),
            ),
        }

    def _run(self) -> float:
        with self._lock:
            due = time.monotonic() >= self._due_at
            self._extend_own(sign=due)
            self._retry_at = 0.0
            if due:
                self._due_at = time.monotonic() + self.checkpoint_seconds
        return EXTEND_SECONDS

    def _extend_own(self, *, sign: bool) -> None:
        """Raises AuditUnavailable: the trees are opened again by the next call."""
        try:
            if self._own is None:
                self._own = self._open(self._recorder.directory)
            self._own.extend(self._recorder.synced())
            if sign:
                self._publish(self._own)
        except (OSError, DamagedTreeError, NoteError) as error:
            if not isinstance(error, NoteError):
                self._close()
            raise AuditUnavailable(f"the tree of the decision log: {error}") from None

    def _covers(self, directory: Path, log_id: str, position: int) -> bool:
        """Raises AuditUnavailable."""
        is_own = directory == self._recorder.directory
        if is_own and self._own is not None and self._own.signed_position(log_id) >= position:
            return True
        if time.monotonic() < self._retry_at:
            return False
        if not is_own:
            return self._cover_ended(directory, log_id, position)
        self._extend_own(sign=True)
        return self._own is not None and self._own.signed_position(log_id) >= position

    def _cover_ended(self, directory: Path, log_id: str, position: int) -> bool:
        """Extends the trees of an ended process. Raises AuditUnavailable."""
        covered = False

        def extend(trees: OriginTrees) -> None:
            nonlocal covered
            if trees.signed_position(log_id) < position:
                trees.extend()
            covered = trees.next_position(log_id) >= position

        self.cover(directory, extend)
        return covered

    def cover(self, directory: Path, extend: Callable[[OriginTrees], None]) -> None:
        """Extends trees that are not of the recorder's log, signs checkpoints, and publishes them.

        Args:
            directory: The parent of the trees.
            extend: Appends what is new.

        Raises:
            AuditUnavailable: It was not possible.
        """
        try:
            trees = self._open(directory)
            try:
                extend(trees)
                self._publish(trees)
            finally:
                trees.close()
        except (OSError, DamagedTreeError, NoteError) as error:
            raise AuditUnavailable(f"the tree of {directory}: {error}") from None

    def _open(self, directory: Path) -> OriginTrees:
        trees = OriginTrees(directory, self._name, self._signers, self._last_published)
        for origin, note in trees.newest_notes().items():
            self._offer(trees, origin, note)  # in case that the last process did not publish it
        return trees

    def _close(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None

    def _publish(self, trees: OriginTrees) -> None:
        for origin, note in trees.checkpoint():
            self._checkpoints += 1
            self._offer(trees, origin, note)

    def _offer(self, trees: OriginTrees, origin: str, note: str) -> None:
        for publisher in (*self._publishers, *self._witnesses):
            publisher.offer(origin, note, trees.path_of(origin))

    def _last_published(self, origin: str) -> list[str]:
        notes = (publisher.last(origin) for publisher in self._publishers)
        return [note for note in notes if note is not None]
