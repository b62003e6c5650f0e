"""Processes that write logs, under strace, which kills them or fails their system calls.

Needs strace and the right to trace a process of one's own.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kit.waiting import eventually

ROOT = Path(__file__).parents[3]


@dataclass
class Run:
    """The output of a run before it ended."""

    killed: bool
    acked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopped: bool = False
    trace: str = ""


class Runner:
    """Runs writers under strace."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._runs = 0
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.audit.writer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
        )

    def close(self) -> None:
        self._parent.stdin.close()
        self._parent.stdout.close()
        self._parent.wait(30)

    def run(self, directory: Path, *expressions: str, records: int, pause: float = 0) -> Run:
        """A writer that records in `directory`, under strace with these `-e` expressions."""
        self._runs += 1
        acks = self._directory / f"acks-{self._runs}"
        trace = self._directory / f"trace-{self._runs}"
        order = {
            "directory": str(directory),
            "acks": str(acks),
            "records": records,
            "pause": pause,
        }
        self._parent.stdin.write(json.dumps(order) + "\n")
        pid = int(self._parent.stdout.readline())
        options = [part for expression in expressions for part in ("-e", expression)]
        strace = subprocess.Popen(
            ["strace", "-f", "-p", str(pid), "-o", str(trace), *options],
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: strace.poll() is not None or is_traced(pid))
            if strace.poll() is not None:
                os.kill(pid, signal.SIGKILL)
                self._parent.stdout.readline()
                pytest.skip("strace may not trace a process here")
        finally:
            os.kill(pid, signal.SIGCONT)
        status = int(self._parent.stdout.readline())
        strace.wait(30)
        run = Run(os.WIFSIGNALED(status), trace=trace.read_text())
        for line in acks.read_text().splitlines():
            match line.split():
                case ["ack", decision_id, seconds]:
                    run.acked.append(decision_id)
                    run.seconds.append(float(seconds))
                    run.outcomes.append("ack")
                case ["refused", decision_id, seconds]:
                    run.refused.append(decision_id)
                    run.seconds.append(float(seconds))
                    run.outcomes.append("refused")
                case ["ready" | "not-ready" as word]:
                    run.outcomes[-1] += f" {word}"
                case ["stopped"]:
                    run.stopped = True
        return run


def is_traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0\n" not in status


def count_calls(trace: str) -> Counter[str]:
    """How often each system call was made by the thread that made it most: strace counts so."""
    calls: Counter[tuple[str, str]] = Counter(re.findall(r"^(\d+) +(\w+)\(", trace, re.MULTILINE))
    most: Counter[str] = Counter()
    for (_, name), count in calls.items():
        most[name] = max(most[name], count)
    return most
