"""Waits for the signals that stop a process."""

import queue
import signal
from collections.abc import Callable


def stop_signals() -> Callable[[float], bool]:
    """Handles SIGTERM and SIGINT from now on. Must be called in the main thread.

    Returns:
        A function that waits for a signal, at most so many seconds, and returns whether one came.
    """
    # A handler runs between two instructions of the main thread, also inside its wait. There
    # `Event.set` would need the lock that `Event.wait` holds; `SimpleQueue.put` is reentrant.
    received: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.put(number))

    def wait(seconds: float) -> bool:
        try:
            received.put(received.get(timeout=seconds))
        except queue.Empty:
            return False
        return True

    return wait
