"""A signal to stop is never lost, at whatever instruction it interrupts a process."""

import subprocess
import sys

PROGRAM = """
import faulthandler, os, signal, sys, threading
from pdp.process import signals

def event_signals():
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    return stopping.wait

def run(stop_signals, interrupted_at):
    stop_requested = stop_signals()
    steps = 0
    def trace(frame, event, argument):
        nonlocal steps
        if event == "line":
            steps += 1
            if steps == interrupted_at:
                os.kill(os.getpid(), signal.SIGTERM)
        return trace
    faulthandler.dump_traceback_later(float(sys.argv[2]), exit=True)
    sys.settrace(trace)
    while not stop_requested(0.001):
        pass
    sys.settrace(None)

stop_signals = {"safe": signals.stop_signals, "event": event_signals}[sys.argv[1]]
for interrupted_at in range(1, 40):
    pid = os.fork()
    if not pid:
        run(stop_signals, interrupted_at)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        print(interrupted_at)
        break
"""
"""Prints the first line at which a signal is lost, if there is one."""


def lost_at(kind: str, *, seconds: float) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, str(seconds)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return finished.stdout


def test_a_signal_at_any_line_of_the_wait_ends_the_process() -> None:
    assert lost_at("safe", seconds=30) == ""


def test_control_a_signal_that_sets_an_event_can_deadlock_with_the_wait() -> None:
    assert lost_at("event", seconds=2) != ""


STUCK = """
import sys, threading
from pdp.process import lifecycle

class Stuck:
    def start(self):
        print("started", flush=True)
    def listens(self):
        return True
    def stop(self):
        threading.Event().wait()

lifecycle.PARTS_SECONDS_MAX = 0.5
lifecycle.run_until_stopped(Stuck(), drain_seconds=0.1)
"""


def test_a_process_that_cannot_stop_prints_what_it_waits_for_and_ends() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "in stop" in errors
