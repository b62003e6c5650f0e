"""Processes that record decisions, for strace to disturb. `python -m tests.kit.audit.writer` is
their parent: it has imported everything, so that a child starts in milliseconds and makes no other
system calls. Every second record equals the first one except for id and time.

The parent reads lines of JSON, {"directory", "acks", "records", "pause"}, and forks a child for
each. It prints the pid of the child once the child has stopped itself, and its wait status once it
has ended. A child with 0 records extends the trees of the log instead, and acknowledges the sizes
of its checkpoints. The child appends to the file `acks`: `ack ID SECONDS` or `refused ID SECONDS`
for each record, `ready` or `not-ready` after it, and `stopped` at the end.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdp.audit import Recorder
from pdp.audit.transparency import file_signer
from pdp.audit.transparency.notes import unverified_checkpoint
from pdp.errors import AuditUnavailable
from tests.kit.audit.records import decision_record
from tests.kit.audit.trees import NAME, sign_trees
from tests.kit.waiting import run

PR_SET_PTRACER = 0x59616D61


def record_some(directory: Path, records: int, pause: float) -> None:
    recorder = Recorder(directory, "one", segment_bytes=2000)
    recorder.start()
    for number in range(records):
        record = decision_record(**({"token_id": "equal"} if number % 2 == 0 else {}))
        began = time.monotonic()
        decision_id = record.decision_id
        try:
            [decision_id] = run(recorder.record([record]))
            outcome = "ack"
        except AuditUnavailable:
            outcome = "refused"
        say(f"{outcome} {decision_id} {time.monotonic() - began:.3f}")
        say("ready" if recorder.ready() else "not-ready")
        time.sleep(pause)
    recorder.stop()
    say("stopped")


def extend_trees(directory: Path) -> None:
    signer = file_signer(NAME, directory.parent / "key.pem")
    for note in sign_trees(directory / "one", [signer]):
        say(f"ack {unverified_checkpoint(note).size} 0")
    say("stopped")


def write_log(order: dict[str, Any]) -> None:
    directory = Path(order["directory"])
    if order["records"]:
        record_some(directory, order["records"], order["pause"])
    else:
        extend_trees(directory)


def say(line: str) -> None:
    # Not by write(2): strace disturbs the write of the recorder, not this one.
    os.writev(1, [line.encode() + b"\n"])


def tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main(work: Callable[[dict[str, Any]], None]) -> None:
    """Forks a child for each order, which does `work`."""
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            acks = os.open(order["acks"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(acks, 1)
            ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            try:
                work(order)
            finally:
                os._exit(0)
        os.waitpid(pid, os.WUNTRACED)
        tell(pid)
        _, status = os.waitpid(pid, 0)
        tell(status)


if __name__ == "__main__":
    main(write_log)
