"""h2load over a gRPC unary method: a length-prefixed message posted over HTTP/2 without TLS.

h2load does not read trailers, where gRPC keeps its status; so each response is held against the
length of an answer that was looked at. An error has no message and would be noticed.
"""

import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import plan
from bench.processes import BenchError, Noise, cpu_seconds

_LENGTH_SLACK_BYTES = 12
_LENGTH_SLACK_SHARE = 0.03
"""Numbers in an answer (times, a revision) may take a few bytes more or less, also in a batch."""


@dataclass(frozen=True, slots=True)
class Target:
    """One question to one method of one server."""

    pid: int
    port: int
    path: str
    body: Path
    """The request, length-prefixed."""
    answer_bytes: int
    """Length of the answer that is expected, with its prefix."""


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

    @property
    def requests_per_core_second(self) -> float:
        """Requests per second of processor time: what a whole core would answer at this load."""
        return self.requests_per_second / self.core_share


def write_body(file: Path, message: bytes) -> Path:
    """A request as it goes over the wire: not compressed, its length, the message."""
    file.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    return file


def measure(
    target: Target, *, connections: int, streams: int, seconds: int, warm_seconds: int
) -> Measurement:
    """Asks for `seconds` after `warm_seconds`, always with `connections * streams` in flight.

    Raises BenchError where a request failed or was answered otherwise than expected.
    """
    log = target.body.with_suffix(".log")
    # h2load counts the bytes of its own warm-up as well, so that is a run apart.
    _run(target, connections, streams, warm_seconds, log)
    before, noise = cpu_seconds(target.pid), Noise.listen()
    output = _run(target, connections, streams, seconds, log)
    used = cpu_seconds(target.pid) - before
    latencies = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
    log.unlink()
    requests = _checked(output, target)
    return Measurement(
        requests_per_second=requests / seconds,
        p50_ms=quantile(latencies, 0.50) / 1000,
        p99_ms=quantile(latencies, 0.99) / 1000,
        core_share=used / seconds,
        others_share=noise.others_seconds(used) / seconds,
        requests=requests,
    )


def _run(target: Target, connections: int, streams: int, seconds: int, log: Path) -> str:
    """What h2load prints; its line per request is in `log`."""
    log.unlink(missing_ok=True)
    return subprocess.run(
        [
            *("taskset", "-c", str(plan.LOAD_CORE), "h2load"),
            *("-c", str(connections), "-m", str(streams), "-D", str(seconds)),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            *("-d", str(target.body), "--log-file", str(log)),
            f"http://127.0.0.1:{target.port}{target.path}",
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    ).stdout


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
    slack = max(_LENGTH_SLACK_BYTES, _LENGTH_SLACK_SHARE * target.answer_bytes)
    if abs(mean - target.answer_bytes) > slack:
        raise BenchError(
            f"{target.path}: answers have {mean:.1f} bytes, expected {target.answer_bytes}"
        )
    return done


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value below which that part of the sorted values is."""
    return ordered[round(part * (len(ordered) - 1))]
