"""`python -m bench.in_process PATH BODY CHECKS`: processor time of a Check without any transport.

Starts what `pdp serve` starts, and hands the request to its ASGI application as a server would.
"""

import asyncio
import sys
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from statistics import median
from typing import Any

from bench.load import GRPC_HEADERS
from bench.pdp import expect
from pdp.process.app import Service
from pdp.process.logs import configure_logs
from pdp.settings import Settings

_ROUND = 200
_READY_SECONDS_MAX = 30.0


def main(path: str, body: Path, checks: int) -> None:
    """Prints microseconds: the median of the rounds' means."""
    settings = Settings.load()
    configure_logs(settings.log_level, settings.log_format)
    service = Service(settings)
    service.start()
    try:
        end = time.monotonic() + _READY_SECONDS_MAX
        while service.obstacles():
            expect(time.monotonic() < end, "the service must become ready")
            time.sleep(0.05)
        print(asyncio.run(_ask(service, _scope(path), body.read_bytes(), checks)))
    finally:
        service.stop()


async def _ask(service: Service, scope: Mapping[str, Any], body: bytes, checks: int) -> float:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(event)

    means = []
    for _ in range(max(2, checks // _ROUND)):
        sent.clear()
        began = time.thread_time()
        for _ in range(_ROUND):
            await service.application(scope, receive, send)
        means.append((time.thread_time() - began) / _ROUND * 1e6)
        succeeded = (b"grpc-status", b"0") in sent[-1]["headers"]
        expect(succeeded, f"a Check must be answered: {sent[-1]}")
    return median(means)


def _scope(path: str) -> dict[str, Any]:
    headers = [tuple(part.encode() for part in line.split(": ")) for line in GRPC_HEADERS]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "2",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
        "extensions": {"http.response.trailers": {}},
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
