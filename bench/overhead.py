"""`python -m bench.overhead`: what the Python guard costs beyond its stub, a question at a time.

Every language has such a program, with the same options and the same line of JSON, and
`bench/guards.py` runs them against one server.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import grpc
from pdp_client import AsyncGuard, Guard, Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest, CheckResponse
from pdpapi.v1.decision_service_pb2_grpc import PolicyDecisionServiceStub

from bench.pdp import ALLOW, expect

_CALLS_A_ROUND = 200
Call = Callable[[], object]
AsyncCall = Callable[[], Awaitable[object]]


def main() -> None:
    """Prints {"raw_us_p50", "guard_us_p50", "overhead_us_p50"}."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead")
    for name in ("--target", "--token-file", "--permission", "--resource"):
        parser.add_argument(name, required=True)
    parser.add_argument("--calls", type=int, default=4_000, help="of each of the two")
    parser.add_argument("--asyncio", action="store_true", help="of AsyncGuard")
    chosen = parser.parse_args()
    token = Path(chosen.token_file).read_text().strip()
    kind, _, identifier = chosen.resource.partition("/")
    request = CheckRequest(actor_token=token, permission=chosen.permission)
    request.resource.type, request.resource.id = kind, identifier
    resource = Resource(kind, identifier)
    if chosen.asyncio:
        raw, guarded = asyncio.run(
            _measure_asyncio(chosen.target, request, token, resource, chosen.calls)
        )
    else:
        raw, guarded = _measure(chosen.target, request, token, resource, chosen.calls)
    p50 = {"raw_us_p50": median(raw), "guard_us_p50": median(guarded)}
    print(json.dumps({**p50, "overhead_us_p50": p50["guard_us_p50"] - p50["raw_us_p50"]}))


def _measure(
    target: str, request: CheckRequest, token: str, resource: Resource, calls: int
) -> tuple[list[float], list[float]]:
    """Microseconds of each call of the stub and of the guard, which take turns."""
    raw: list[float] = []
    guarded: list[float] = []
    with grpc.insecure_channel(target) as channel, Guard(target, deadline_seconds=5) as guard:
        stub = PolicyDecisionServiceStub(channel)

        def ask() -> CheckResponse:
            answer: CheckResponse = stub.Check(request, timeout=5)
            return answer

        def ask_guard() -> object:
            return guard.require(token, request.permission, resource)

        expect(ask().decision == ALLOW, "the question must be allowed")
        ask_guard()
        for _ in range(max(1, calls // _CALLS_A_ROUND)):
            _time(ask, raw)
            _time(ask_guard, guarded)
    return raw, guarded


def _time(call: Call, found: list[float]) -> None:
    for _ in range(_CALLS_A_ROUND):
        began = time.perf_counter()
        call()
        found.append((time.perf_counter() - began) * 1e6)


async def _measure_asyncio(
    target: str, request: CheckRequest, token: str, resource: Resource, calls: int
) -> tuple[list[float], list[float]]:
    raw: list[float] = []
    guarded: list[float] = []
    async with (
        grpc.aio.insecure_channel(target) as channel,
        AsyncGuard(target, deadline_seconds=5) as guard,
    ):
        stub = PolicyDecisionServiceStub(channel)

        async def ask() -> CheckResponse:
            answer: CheckResponse = await stub.Check(request, timeout=5)
            return answer

        async def ask_guard() -> object:
            return await guard.require(token, request.permission, resource)

        expect((await ask()).decision == ALLOW, "the question must be allowed")
        await ask_guard()
        for _ in range(max(1, calls // _CALLS_A_ROUND)):
            await _time_asyncio(ask, raw)
            await _time_asyncio(ask_guard, guarded)
    return raw, guarded


async def _time_asyncio(call: AsyncCall, found: list[float]) -> None:
    for _ in range(_CALLS_A_ROUND):
        began = time.perf_counter()
        await call()
        found.append((time.perf_counter() - began) * 1e6)


if __name__ == "__main__":
    main()
