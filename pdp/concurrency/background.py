"""Background work: a named thread that repeats a function until it is stopped."""

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from pdp.errors import PdpError, ShuttingDown


class BackgroundTask:
    """Calls `run` repeatedly in a daemon thread.

    A run returns the seconds until the next one (None: until `wake`). A failed run is repeated
    after a pause that doubles up to a limit. The pauses are jittered, so that processes that failed
    together do not retry together.

    A failure is logged when it begins or changes. A bug (any exception but a PdpError) is logged
    each time with its traceback; it does not end the thread.

        self._task = BackgroundTask(
            "listener", self._run_once, retry_seconds=(0.5, 30), log=log, failed="not_listening"
        )
    """

    def __init__(
        self,
        name: str,
        run: Callable[[], float | None],
        *,
        retry_seconds: tuple[float, float],
        log: Any,
        failed: str,
        on_recovered: Callable[[], object] = lambda: None,
        at_end: Callable[[], object] = lambda: None,
    ) -> None:
        """Creates the task; `start` starts it.

        Args:
            name: Name of the thread.
            run: Does a piece of work. It may take long if it checks `stopping`.
            retry_seconds: The shortest and the longest pause after a failure.
            log: The owner's logger.
            failed: Log event of a failed run.
            on_recovered: Called when a run succeeds after a failed one.
            at_end: Called in the thread after the last run.
        """
        self._run_once = run
        self._retry_seconds = retry_seconds
        self._log = log
        self._failed = failed
        self._on_recovered = on_recovered
        self._at_end = at_end
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.problem: str | None = None
        """Why the last run failed; None: it succeeded."""

    @property
    def stopping(self) -> bool:
        """Whether the task must end."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Starts the thread; returns at once. Call it after a fork, not before."""
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Ends the task after the current run. Waits at most `seconds` for it; returns whether it
        has ended."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def wake(self) -> None:
        """Starts the next run now, and ends `wait`. Never waits."""
        self._wake.set()

    def wait(self, seconds: float | None) -> None:
        """For the run: waits for `wake`, for the end of the task, or for `seconds`."""
        self._wake.wait(seconds)
        self._wake.clear()

    def sleep(self, seconds: float) -> None:
        """For the run: waits for `seconds`. Raises ShuttingDown if the task must end."""
        if self._stopping.wait(seconds):
            raise ShuttingDown("the process is ending")

    def works(self) -> None:
        """For a long run: reports that it works, so an earlier failure is over."""
        if self.problem is not None:
            self.problem = None
            self._on_recovered()

    def _run(self) -> None:
        shortest, longest = self._retry_seconds
        retry = shortest
        while not self.stopping:
            began = time.monotonic()
            try:
                pause = self._run_once()
            except ShuttingDown:
                break
            except PdpError as error:
                if error.message != self.problem:
                    self._log.warning(self._failed, error=error.message)
                self.problem = error.message
            except Exception:  # noqa: BLE001  # a bug must not end the thread unseen
                self._log.exception(self._failed)
                self.problem = "an internal error, which the log has"
            else:
                self.works()
                retry = shortest
                self.wait(pause)
                continue
            if time.monotonic() - began > longest:
                retry = shortest
            self._stopping.wait(retry * random.uniform(0.5, 1))  # noqa: S311  # no secret
            retry = min(2 * retry, longest)
        self._at_end()
