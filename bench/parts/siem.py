"""The forwarder to a SIEM: records a second into a file, and how late they are there while a
thousand decisions a second are made."""

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median, quantiles

import grpc
from pdpapi.v1.audit_service_pb2 import GetDecisionRequest
from pdpapi.v1.audit_service_pb2_grpc import AuditServiceStub
from pdpapi.v1.decision_service_pb2 import BatchCheckRequest, CheckItem
from pdpapi.v1.decision_service_pb2_grpc import PolicyDecisionServiceStub

from bench import pdp, plan
from bench.part import Figures, Run
from bench.pdp import Pdp
from bench.processes import BenchError, cpu_seconds, free_port, pinned, wait_until

_BATCH_ITEMS = 10
_PAUSE_SECONDS = 0.1
_LOOK_SECONDS = 0.005
_SECONDS_MAX = 120.0
_numbers = count()


def measure(run: Run) -> Figures:
    """Rate and lag, with OCSF."""
    with (
        pdp.serving_policy(run.directory / "pdp", run.signer) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        _deny(channel, run.chosen.siem_records, 1_000)
        _await_shipped(channel, _deny(channel, 1, 1)[0])
        rates = [
            _rate(server, run.directory / f"rate{number}", run.chosen.siem_records)
            for number in range(run.chosen.rounds)
        ]
        served, lags = _lags(server, channel, run)
    return {
        "records": run.chosen.siem_records,
        "records_per_second": median(rate for rate, _, _ in rates),
        "records_per_core_second": median(rate for _, rate, _ in rates),
        "records_per_server_core_second": median(rate for _, _, rate in rates),
        "served_per_second": served,
        "lag_p50_ms": median(lags),
        "lag_p99_ms": quantiles(lags, n=100)[98],
        "lag_max_ms": max(lags),
    }


def _deny(channel: grpc.Channel, number: int, items: int) -> list[str]:
    """So many denials, none equal to another; the ids of the last batch."""
    check = PolicyDecisionServiceStub(channel).BatchCheck
    ids: list[str] = []
    for _ in range(0, number, items):
        questions = [CheckItem(permission=f"course:n{next(_numbers)}") for _ in range(items)]
        results = check(BatchCheckRequest(actor_token="x", items=questions), timeout=30).results
        ids = [result.decision_id for result in results]
    return ids


def _await_shipped(channel: grpc.Channel, decision_id: str) -> None:
    show = AuditServiceStub(channel).GetDecision
    deadline = time.monotonic() + _SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            show(GetDecisionRequest(decision_id=decision_id), timeout=5)
        except grpc.RpcError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return
    raise BenchError("the decision log does not reach SQL")


@contextmanager
def _forwarding(server: Pdp, directory: Path, *, from_end: bool) -> Iterator[tuple[int, int, Path]]:
    """A forwarder to a file: its process, its HTTP port, the file."""
    directory.mkdir(parents=True)
    path, port = directory / "events.jsonl", free_port()
    environment = {
        "PDP_FORWARD_SERVER": f"127.0.0.1:{server.port}",
        "PDP_FORWARD_FILE": json.dumps({"path": str(path), "rotate_bytes": 1 << 40}),
        "PDP_FORWARD_CURSOR_FILE": str(directory / "cursor"),
        "PDP_FORWARD_FROM_END": str(from_end).lower(),
        "PDP_FORWARD_SETTLE_SECONDS": "0",
        "PDP_FORWARD_HTTP_LISTEN": f"127.0.0.1:{port}",
    }
    log = directory / "forward.log"
    command = [sys.executable, "-m", "pdp", "audit", "forward"]
    with pinned(command, plan.LOAD_CORE, log, environment, directory) as process:
        ready = f"http://127.0.0.1:{port}/readyz"
        wait_until(lambda: pdp.answers(ready), process, "pdp audit forward", log)
        yield process.pid, port, path


def _rate(server: Pdp, directory: Path, records: int) -> tuple[float, float, float]:
    """Records a second, and for each second of processor time of the forwarder and the server."""
    with _forwarding(server, directory, from_end=False) as (pid, port, _):
        began, done = time.perf_counter(), _confirmed(port)
        used, served = cpu_seconds(pid), cpu_seconds(server.pid)
        deadline = began + _SECONDS_MAX
        while (now_done := _confirmed(port)) < records:
            if time.perf_counter() > deadline:
                raise BenchError(f"{now_done:.0f} of {records} records in {_SECONDS_MAX:.0f} s")
            time.sleep(_PAUSE_SECONDS)
        forwarded = now_done - done
        return (
            forwarded / (time.perf_counter() - began),
            forwarded / (cpu_seconds(pid) - used),
            forwarded / (cpu_seconds(server.pid) - served),
        )


def _confirmed(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("pdp_forward_records "):
                return float(line.split()[1])
    raise BenchError("the forwarder has no metric of its records")


def _lags(server: Pdp, channel: grpc.Channel, run: Run) -> tuple[float, list[float]]:
    """Decisions a second, and from each decision to its line in the file, in ms."""
    lags: list[float] = []
    with (
        _forwarding(server, run.directory / "lag", from_end=True) as (_, _, path),
        ThreadPoolExecutor(1) as asking,
    ):
        cursor = run.directory / "lag" / "cursor"
        while not cursor.exists():
            time.sleep(_PAUSE_SECONDS)
        path.touch()
        wanted = plan.SERVED_PER_SECOND * run.chosen.siem_seconds
        asked = asking.submit(_ask_steadily, channel, wanted)
        deadline = time.monotonic() + _SECONDS_MAX
        unfinished = ""
        with path.open() as file:
            while len(lags) < wanted:
                if time.monotonic() > deadline:
                    raise BenchError(f"{len(lags)} of {wanted} records in {_SECONDS_MAX:.0f} s")
                now = time.time()
                *lines, unfinished = (unfinished + file.read()).split("\n")
                lags += [1_000 * now - json.loads(line)["time"] for line in lines]
                time.sleep(_LOOK_SECONDS)
        return wanted / asked.result(), lags


def _ask_steadily(channel: grpc.Channel, wanted: int) -> float:
    """Asks for so many denials at plan.SERVED_PER_SECOND; returns the seconds that it took."""
    began = time.perf_counter()
    for asked in range(0, wanted, _BATCH_ITEMS):
        time.sleep(max(0.0, began + asked / plan.SERVED_PER_SECOND - time.perf_counter()))
        _deny(channel, _BATCH_ITEMS, _BATCH_ITEMS)
    return time.perf_counter() - began
