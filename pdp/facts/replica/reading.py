"""Reads the database in a bounded pool of threads; loads each fact once at a time."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pdp.concurrency.waiting import done_within
from pdp.errors import DatabaseUnavailable
from pdp.facts.replica.snapshot import SnapshotCell
from pdp.facts.store.loader import FactBatch, FactKey, FactKeys, load_facts
from pdp.facts.store.store import Store

T = TypeVar("T")

READERS_MAX = 8
READS_QUEUED_MAX = 256
LOAD_WAIT_SECONDS_MAX = 10.0


class Reading:
    """Reads for one replica. Methods raise DatabaseUnavailable."""

    def __init__(self, store: Store, cell: SnapshotCell) -> None:
        self._store = store
        self._cell = cell
        self._loading: dict[FactKey, Future[None]] = {}
        self._queued = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="facts-reader")

    def close(self) -> None:
        """Drops the reads that have not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, read: Callable[[], T]) -> T:
        """Calls `read` in a thread of the pool, and returns what it returns."""
        return await _outcome(self._submit(read))

    async def load(self, keys: FactKeys) -> FactBatch | None:
        """Loads the keys that no other request loads, and waits for the others to be loaded."""
        done: Future[None] = Future()
        others: set[Future[None]] = set()
        mine: list[FactKey] = []
        with self._lock:
            for fact_key in keys.single_keys():
                busy = self._loading.setdefault(fact_key, done)
                if busy is done:
                    mine.append(fact_key)
                else:
                    others.add(busy)

        def read_mine() -> FactBatch:
            # Runs to the end in its thread: others wait for it even if this caller is cancelled.
            try:
                with self._store.read() as reader:
                    batch = load_facts(reader, FactKeys.of(mine))
                self._cell.fill(batch)
                return batch
            finally:
                self._finish_loading(mine, done)

        batch = None
        if mine:
            try:
                reading = self._submit(read_mine)
            except DatabaseUnavailable:
                self._finish_loading(mine, done)
                raise
            batch = await _outcome(reading)
        for other in others:
            await done_within(other, LOAD_WAIT_SECONDS_MAX)
        return batch

    def _finish_loading(self, fact_keys: Sequence[FactKey], done: "Future[None]") -> None:
        with self._lock:
            for fact_key in fact_keys:
                del self._loading[fact_key]
        done.set_result(None)

    def _submit(self, read: Callable[[], T]) -> "Future[T]":
        """Starts a read in the pool. Raises DatabaseUnavailable if READS_QUEUED_MAX are queued."""
        with self._lock:
            if self._queued >= READS_QUEUED_MAX:
                raise DatabaseUnavailable("too many requests wait for the database")
            self._queued += 1

        def run() -> T:
            try:
                return read()
            finally:
                with self._lock:
                    self._queued -= 1

        return self._threads.submit(run)


async def _outcome(reading: "Future[T]") -> T:
    if not await done_within(reading, LOAD_WAIT_SECONDS_MAX):
        raise DatabaseUnavailable("the database did not answer in time")
    return reading.result()
