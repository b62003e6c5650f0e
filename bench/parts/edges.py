"""How long after the COMMIT of a revocation somebody is still allowed, at a replica, at a sidecar
and at a caching guard, while they serve; and how fast the two that keep answers give them."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import grpc
from pdp_client import Guard, Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest, CheckResponse

from bench import load, pdp, plan
from bench.load import Measurement, Target, quantile
from bench.part import Figures, Run
from bench.pdp import ALLOW, DENY, Pdp, expect
from bench.plan import Plan
from bench.postgresql import postgresql
from bench.processes import BenchError, free_port, pinned, wait_until
from bench.signer import Signer
from pdp.database.engine import open_engine
from pdp.facts import Store
from pdp.model import RevokedSession

_KIND = plan.asked_kind(plan.RULES)
_PERMISSION = f"{_KIND}:{plan.ACTION}"
_PAUSE_SECONDS = 0.001
_DENIALS_IN_A_ROW = 10
"""After so many nobody is believed to be allowed again."""
_LATEST_SECONDS = 10.0
_CLIENTS = 8

Allowed = Callable[[str], bool]
"""Whether the bearer of a token is allowed, asked at one place."""


@dataclass(frozen=True, slots=True)
class Stale:
    """At one place: from the moment when COMMIT was sent to when the last wrong answer came in."""

    place: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    revocations: int


@dataclass(frozen=True, slots=True)
class Edges:
    """What was measured where answers are kept."""

    stale: Sequence[Stale]
    served_per_second: float
    """Requests a second that the replica and the sidecar served meanwhile, beside those above."""
    hit: Measurement
    """Of the sidecar, the same question all the time."""
    miss: Measurement
    """Of a sidecar that keeps nothing: each question goes to a replica on the same core."""
    replica: Measurement
    """The same question to that replica."""
    guard_hit_us: float
    """Of a caching guard in process: median of the rounds."""


def measure(run: Run) -> Figures:
    """Edges as JSON."""
    return asdict(_measure(run.directory, run.signer, run.chosen))


def _measure(directory: Path, signer: Signer, chosen: Plan) -> Edges:
    """Two replicas on PostgreSQL, a sidecar of theirs, one that keeps nothing, a caching guard."""
    with ExitStack() as started:
        url = started.enter_context(postgresql())
        pdp.fill(url, pdp.policy_of(plan.RULES))
        first, second = (
            started.enter_context(pdp.serving(directory / name, signer, url))
            for name in ("one", "two")
        )
        keeping, forgetting = (
            started.enter_context(_sidecar(directory / name, first, second, age))
            for name, age in (("keeping", "30"), ("forgetting", "1e-6"))
        )
        guard = started.enter_context(Guard(f"127.0.0.1:{first.port}", cache=True))
        places = {
            "replica": started.enter_context(_asking(first)),
            "sidecar": started.enter_context(_asking(keeping)),
            "caching guard": _asking_guard(guard),
        }
        store = Store(open_engine(url))
        loaded = [pdp.check_target(server, signer, plan.RULES) for server in (first, keeping)]
        stale, served = _staleness(store, places, loaded, signer, chosen)
        return Edges(
            stale,
            served,
            _rate(keeping, signer, chosen),
            _rate(forgetting, signer, chosen),
            _rate(first, signer, chosen),
            _guard_hit_us(guard, signer, chosen),
        )


def _staleness(
    store: Store,
    places: Mapping[str, Allowed],
    loaded: Sequence[Target],
    signer: Signer,
    chosen: Plan,
) -> tuple[list[Stale], float]:
    """The rows, and how many requests a second the loaded ones answered meanwhile in all."""
    late: dict[str, list[float]] = {place: [] for place in places}
    each = plan.SERVED_PER_SECOND / len(loaded) / _CLIENTS
    ending = threading.Event()
    with ThreadPoolExecutor(len(places) + len(loaded)) as pool:
        loads = [pool.submit(_load, target, each, ending) for target in loaded]
        try:
            for number in range(chosen.staleness_revocations):
                token = signer.token(plan.USER, plan.ORGANIZATION, f"sess_stale{number}")
                everywhere = threading.Barrier(len(places) + 1)
                told = {
                    place: pool.submit(_last_allow, allowed, token, everywhere)
                    for place, allowed in places.items()
                }
                _await_all(everywhere, told)
                with store.write() as transaction:
                    transaction.revoke_session(RevokedSession(f"sess_stale{number}", plan.USER))
                    committed_at = time.monotonic()
                for place, last in told.items():
                    late[place].append(max(0.0, last.result() - committed_at) * 1000)
        finally:
            ending.set()
        served = sum(load.result() for load in loads)
    rows = []
    for place, values in late.items():
        values.sort()
        found = (quantile(values, 0.50), quantile(values, 0.99), values[-1])
        rows.append(Stale(place, *found, len(values)))
    return rows, served


def _await_all(everywhere: threading.Barrier, told: Mapping[str, "Future[float]"]) -> None:
    """Waits until every place has allowed once. Raises BenchError if one does not."""
    try:
        everywhere.wait(_LATEST_SECONDS)
    except threading.BrokenBarrierError:
        wait(told.values(), _LATEST_SECONDS)
        why = [f"{place}: {last.exception()!r}" for place, last in told.items() if last.done()]
        raise BenchError("; ".join(why)) from None


def _last_allow(allowed: Allowed, token: str, everywhere: threading.Barrier) -> float:
    """time.monotonic() of when the last allow came in, of a token that is to be revoked."""
    try:
        expect(allowed(token), "a session that was not revoked must be allowed")
    except BaseException:
        everywhere.abort()
        raise
    everywhere.wait(_LATEST_SECONDS)
    began = last = time.monotonic()
    denials = 0
    while denials < _DENIALS_IN_A_ROW:
        time.sleep(_PAUSE_SECONDS)
        if allowed(token):
            last, denials = time.monotonic(), 0
            expect(last < began + _LATEST_SECONDS, "a revocation must be noticed")
        else:
            denials += 1
    return last


def _load(target: Target, per_client: float, ending: threading.Event) -> float:
    """Asks at a steady rate until `ending`; requests a second that were answered. h2load ends by
    itself, so it is started again and again."""
    seconds = 5
    rates = []
    while not ending.is_set():
        said = subprocess.run(
            [
                *("taskset", "-c", str(plan.LOAD_CORE), "h2load"),
                *("-c", str(_CLIENTS), "-m", "4", "-D", str(seconds), "--rps", f"{per_client:g}"),
                *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                *("-d", str(target.body), f"http://127.0.0.1:{target.port}{target.path}"),
            ],
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            check=False,
        ).stdout
        counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", said)
        if counts is None or int(counts[3]):
            raise BenchError(f"the load was not served: {said[-1000:]}")
        rates.append(int(counts[2]) / seconds)
    return median(rates)


def _rate(asked: Pdp, signer: Signer, chosen: Plan) -> Measurement:
    target = pdp.check_target(asked, signer, plan.RULES)
    return load.measure(target, chosen.loaded, chosen.warm_seconds)


def _guard_hit_us(guard: Guard, signer: Signer, chosen: Plan) -> float:
    """Microseconds of a check that the guard answers by itself, `require` and all."""
    token = signer.token(plan.USER, plan.ORGANIZATION)
    resource = Resource(_KIND, f"{plan.KIND}_1", {"owner": plan.USER}, plan.ORGANIZATION)
    rounds = []
    for _ in range(chosen.rounds):
        guard.require(token, _PERMISSION, resource)
        began = time.perf_counter()
        for _ in range(chosen.guard_hits):
            guard.require(token, _PERMISSION, resource)
        rounds.append((time.perf_counter() - began) / chosen.guard_hits * 1e6)
    expect(guard.check(token, _PERMISSION, resource).source.name == "CACHED", "it must be kept")
    return median(rounds)


@contextmanager
def _asking(asked: Pdp) -> Iterator[Allowed]:
    with grpc.insecure_channel(f"127.0.0.1:{asked.port}") as channel:
        ask: pdp.Ask = channel.unary_unary(pdp.CHECK)

        def allowed(token: str) -> bool:
            request = CheckRequest(actor_token=token, permission=_PERMISSION)
            request.resource.type, request.resource.id = _KIND, f"{plan.KIND}_1"
            request.resource.organization_id = plan.ORGANIZATION
            request.resource.attributes["owner"] = plan.USER
            answer = CheckResponse.FromString(ask(request.SerializeToString(), timeout=10))
            expect(answer.decision in (ALLOW, DENY), "a Check must be answered")
            return bool(answer.decision == ALLOW)

        yield allowed


def _asking_guard(guard: Guard) -> Allowed:
    resource = Resource(_KIND, f"{plan.KIND}_1", {"owner": plan.USER}, plan.ORGANIZATION)
    return lambda token: guard.check(token, _PERMISSION, resource).allowed


@contextmanager
def _sidecar(directory: Path, first: Pdp, second: Pdp, age_seconds_max: str) -> Iterator[Pdp]:
    """`pdp sidecar` of two servers, on their core."""
    directory.mkdir(parents=True)
    port, http_port = free_port(), free_port()
    environment = {
        "PDP_SIDECAR_UPSTREAMS": f"127.0.0.1:{first.port},127.0.0.1:{second.port}",
        "PDP_SIDECAR_LISTEN": f"127.0.0.1:{port}",
        "PDP_SIDECAR_HTTP_LISTEN": f"127.0.0.1:{http_port}",
        "PDP_SIDECAR_AUDIT_DIRECTORY": str(directory / "audit"),
        "PDP_SIDECAR_AGE_SECONDS_MAX": age_seconds_max,
        # Beside a load generator that takes all it can get, a quarter of a second is no failure.
        "PDP_SIDECAR_DEADLINE_SECONDS": "10",
        "PDP_SIDECAR_LOG_LEVEL": "warning",
    }
    log = directory / "sidecar.log"
    command = [sys.executable, "-m", "pdp", "sidecar"]
    with pinned(command, plan.SERVER_CORE, log, environment, directory) as process:
        ready = f"http://127.0.0.1:{http_port}/readyz"
        seconds = wait_until(lambda: pdp.answers(ready), process, "pdp sidecar", log)
        yield Pdp(process.pid, port, http_port, directory, seconds)
