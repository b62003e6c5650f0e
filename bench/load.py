"""h2load: one request over HTTP/2 without TLS, again and again.

h2load does not read trailers, where gRPC keeps its status; so each response is held against the
length of an answer that was looked at. An error has no message and would be noticed.
"""

import re
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import plan
from bench.plan import Load
from bench.processes import BenchError, Noise, cpu_seconds, resident_mib

GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")
JSON_HEADERS = ("content-type: application/json",)

_LENGTH_SLACK_SHARE = 0.03
_MARGIN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Target:
    """One question to one method of one server."""

    pid: int
    port: int
    path: str
    body: Path
    """The request as it goes over the wire."""
    answer_bytes: int
    """Length of the answer that is expected, as it comes over the wire."""
    slack_bytes: int = 12
    """Numbers in an answer (times, a revision) may take a few bytes more or less."""
    headers: Sequence[str] = GRPC_HEADERS


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the load generator saw. Latencies in milliseconds."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    core_share: float
    """Part of the time of its core that the subject had."""
    others_share: float
    """Processor time that anything else on the machine took meanwhile, in cores: the noise."""
    requests: int
    resident_mib: float
    """Resident memory of the subject afterwards."""

    @property
    def requests_per_core_second(self) -> float:
        """Requests per second of processor time: what a whole core would answer at this load."""
        return self.requests_per_second / self.core_share


def write_grpc(file: Path, message: bytes) -> Path:
    """A message as gRPC sends it: not compressed, its length, the message."""
    file.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    return file


def measure(target: Target, load: Load, warm_seconds: int) -> Measurement:
    """Asks for `load.seconds` after `warm_seconds`.

    Raises BenchError if a request failed or was answered otherwise than expected.
    """
    log = target.body.with_suffix(".log")
    # h2load counts the bytes of its own warm-up as well, so that is a run apart.
    _run(target, load, warm_seconds, log)
    before, noise = cpu_seconds(target.pid), Noise.listen()
    output = _run(target, load, load.seconds, log)
    used = cpu_seconds(target.pid) - before
    latencies = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    log.unlink()
    requests = _checked(output, target)
    return Measurement(
        requests_per_second=requests / load.seconds,
        p50_ms=quantile(latencies, 0.50) / 1000,
        p99_ms=quantile(latencies, 0.99) / 1000,
        core_share=used / load.seconds,
        others_share=noise.others_seconds(used) / load.seconds,
        requests=requests,
        resident_mib=resident_mib(target.pid),
    )


@contextmanager
def running(target: Target, load: Load, seconds: int) -> Iterator[None]:
    """Asks beside the block, which must end within `seconds`.

    Raises BenchError if it took longer, or a request failed or was answered otherwise.
    """
    with subprocess.Popen(
        _command(target, load, seconds), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield
            if process.poll() is not None:
                raise BenchError(f"{target.path}: the load beside it ended too early")
            output, _ = process.communicate(timeout=seconds + _MARGIN_SECONDS)
        finally:
            process.kill()
    _checked(output, target)


def _run(target: Target, load: Load, seconds: int, log: Path) -> str:
    """What h2load prints; its line per request is in `log`."""
    log.unlink(missing_ok=True)
    return subprocess.run(
        _command(target, load, seconds, "--log-file", str(log)),
        capture_output=True,
        text=True,
        timeout=seconds + _MARGIN_SECONDS,
        check=False,
    ).stdout


def _command(target: Target, load: Load, seconds: int, *options: str) -> list[str]:
    return [
        *("taskset", "-c", str(plan.LOAD_CORE), "h2load"),
        *("-c", str(load.connections), "-m", str(load.streams), "-D", str(seconds)),
        *(part for header in target.headers for part in ("-H", header)),
        *("-d", str(target.body), *options),
        f"http://127.0.0.1:{target.port}{target.path}",
    ]


def _checked(output: str, target: Target) -> int:
    """How many requests were answered, all of them as expected."""
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", output)
    data = re.search(r"traffic: .* \((\d+)\) data", output)
    if counts is None or data is None:
        raise BenchError(f"h2load says: {output[-2000:]}")
    done, succeeded, failed, errored = map(int, counts.groups())
    if not done or done != succeeded or failed or errored:
        raise BenchError(f"requests failed: {counts[0]}")
    mean = int(data[1]) / done
    slack = max(target.slack_bytes, _LENGTH_SLACK_SHARE * target.answer_bytes)
    if abs(mean - target.answer_bytes) > slack:
        raise BenchError(
            f"{target.path}: answers have {mean:.1f} bytes, expected {target.answer_bytes}"
        )
    return done


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value below which that part of the sorted values is."""
    return ordered[round(part * (len(ordered) - 1))]
