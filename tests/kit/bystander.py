"""A client that asks while somebody else attacks, and a look at the server's memory."""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from tests.kit.school import ask, reason_of
from tests.kit.server import ServerProcess, Stubs
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

MEBIBYTE = 1024
GROWTH_KIB_MAX = 64 * MEBIBYTE
LEFT_KIB_MAX = 32 * MEBIBYTE
"""Memory that may stay in use after an attack: freed, but kept by the allocator."""
PAUSE_SECONDS = 0.01
"""Between two questions, and between two looks at the memory."""
P99_SECONDS_MAX = 0.3
"""A short attack leaves some tens of answers, so the slowest counts."""


def resident_kib(server: ServerProcess) -> int:
    status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in server.pids())
    return sum(int(kib) for kib in re.findall(r"^VmRSS:\s+(\d+)", status, re.MULTILINE))


@contextmanager
def unharmed(server: ServerProcess, stubs: Stubs) -> Iterator[None]:
    """Asks all the while, and watches the memory. The other client's answers must be right and in
    time, and the memory bounded."""
    done = threading.Event()
    pids = [os.getpid(), *server.pids()]
    seconds: list[float] = []
    wrong: list[object] = []
    before = resident_kib(server)
    most = before

    def keep_asking() -> None:
        while not done.is_set():
            watch = Stopwatch(pids)
            try:
                reason = reason_of(ask(stubs, "user_ivan", "course:edit"))
            except grpc.RpcError as error:
                wrong.append(error)
            else:
                if reason != "ALLOWED_BY_RULE":
                    wrong.append(reason)
            seconds.append(watch.seconds)
            done.wait(PAUSE_SECONDS)

    def keep_watching() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, resident_kib(server))
            time.sleep(PAUSE_SECONDS)

    threads = [threading.Thread(target=work) for work in (keep_asking, keep_watching)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.1)
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong, "wrong answers"
    assert most - before < GROWTH_KIB_MAX, "memory in use"
    assert p99(seconds) < P99_SECONDS_MAX, "seconds of an answer"
    eventually(lambda: resident_kib(server) - before < LEFT_KIB_MAX, what="memory is given back")
    assert "Traceback" not in server.log()


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) * 99 // 100]
