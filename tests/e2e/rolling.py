"""Restarts replicas in turn while guards ask. Also a program, which prints what it has counted:

python -m tests.e2e.rolling --cycles 20 --deadline 0.25
"""

import argparse
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from pdp_client import Effect, Guard, GuardError, Resource
from pdpapi.v1.administration_service_pb2 import CreateGrantRequest, DeleteGrantRequest, Grant
from pdpapi.v1.core_pb2 import Decision
from pdpapi.v1.core_pb2 import Resource as AskedResource
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit.clusters import started_cluster
from tests.kit.server import ServerProcess, stubs_on, token_of
from tests.kit.sidecar import running_sidecar
from tests.kit.waiting import eventually

POLICY = (Path(__file__).parents[2] / "examples" / "courses.yaml").read_text()
USER, ORGANIZATION = "user_sam", "org_school"
PERMISSION, TYPE, ID = "course:edit", "course", "algebra"
THREADS = 4
PAUSE_SECONDS = 0.01
"""Between two checks of one thread: what is started needs the cores, too."""
DIRECT = 10
"""Checks that ask a new replica alone."""


@dataclass
class Tally:
    """The results."""

    checks: int = 0
    allowed: int = 0
    failures: list[str] = field(default_factory=list)
    seconds_max: float = 0.0
    """The longest check."""
    late_seconds_max: float = 0.0
    """From COMMIT of a revocation to the sending of the last check that was still allowed."""
    answers_of_new: int = 0
    """Decisions that a replica gave from its start on, asked directly."""
    wrong_of_new: int = 0
    """Answers that ignore what was revoked while the replica was away."""


class Load:
    """Guards, each with a thread, that check a permission that is granted and revoked in turn."""

    def __init__(self, guards: Sequence[Guard], pids: Sequence[int]) -> None:
        """`pids`: the processes that connect to the replicas, this one or a sidecar."""
        self.tally = Tally()
        self._pids = pids
        self.revoked_at: float | None = None
        """Monotonic time since which no check may be allowed; None: checks may be allowed."""
        self.phase = ""
        """What a replica is doing now."""
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(guard,)) for guard in guards]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()

    def is_connected_to(self, replica: ServerProcess) -> bool:
        """Whether all are connected again. They retry 2.4 s after a failure at the latest
        (`grpc.max_reconnect_backoff_ms` and its jitter). A rollout has to leave them this time."""
        return all(
            any(
                connection.raddr
                and connection.raddr.port == replica.port
                and connection.status == psutil.CONN_ESTABLISHED
                for connection in psutil.Process(pid).net_connections()
            )
            for pid in self._pids
        )

    def _ask(self, guard: Guard) -> None:
        token = lasting_token()
        while not self._stopping.wait(PAUSE_SECONDS):
            # Every other question is new, so that a cache has to ask upstream.
            number = next(self._numbers)
            context = {"number": number} if number % 2 else None
            revoked_at, phase, sent_at = self.revoked_at, self.phase, time.monotonic()
            failure, allowed = "", False
            try:
                decision = guard.check(token, PERMISSION, Resource(TYPE, ID), context)
                allowed = decision.effect is Effect.ALLOW
            except GuardError as error:
                failure = str(error)
            seconds = time.monotonic() - sent_at
            with self._lock:
                tally = self.tally
                tally.checks += 1
                tally.allowed += allowed
                tally.seconds_max = max(tally.seconds_max, seconds)
                if failure:
                    tally.failures.append(f"{phase}: {failure} after {seconds:.3f} s")
                if allowed and revoked_at is not None and revoked_at == self.revoked_at:
                    late = sent_at - revoked_at
                    tally.late_seconds_max = max(tally.late_seconds_max, late)


def lasting_token() -> str:
    return token_of(USER, organization_id=ORGANIZATION, claims={"exp": time.time() + 3000})


@contextmanager
def replicas_on(url: str, directory: Path, **settings: str) -> Iterator[list[ServerProcess]]:
    """Two replicas that are ready, with the school of the examples."""
    replicas = []
    for name in ("one", "two"):
        (directory / name).mkdir()
        own = {"DATABASE_URL": url, "LOG_LEVEL": "info", **settings}
        replicas.append(ServerProcess(directory / name, own))
    assert replicas[0].pdp("migrate").returncode == 0
    assert replicas[0].pdp("apply", "-", stdin=POLICY).returncode == 0
    with ExitStack() as stack:
        for replica in replicas:
            replica.start(ready=False)
            stack.callback(replica.stop)
        for replica in replicas:
            replica.wait_until_ready()
        yield replicas


def target_of(replicas: Sequence[ServerProcess]) -> str:
    return "ipv4:" + ",".join(f"127.0.0.1:{replica.port}" for replica in replicas)


@contextmanager
def sidecar_of(
    replicas: Sequence[ServerProcess], directory: Path, **settings: str
) -> Iterator[tuple[str, int]]:
    """A sidecar of all replicas: its target and process id."""
    own = directory / "sidecar"
    own.mkdir()
    with running_sidecar(own, *(replica.port for replica in replicas), **settings) as (sidecar, _):
        yield sidecar.socket, sidecar.pids()[0]


def restart_in_turn(replicas: Sequence[ServerProcess], load: Load, cycles: int) -> Tally:
    """SIGTERM and a new process, in turn. While one is away the other revokes."""
    with load.running():
        for cycle in range(cycles):
            leaving, staying = replicas[cycle % 2], replicas[1 - cycle % 2]
            with staying.channel() as channel:
                administration = stubs_on(channel).administration
                load.revoked_at = None
                created = administration.CreateGrant(
                    CreateGrantRequest(grant=Grant(role="ADMIN", user_id=USER)), timeout=10
                )
                load.phase = "stopping"
                assert leaving.stop() == 0
                load.phase = "away"
                administration.DeleteGrant(DeleteGrantRequest(id=created.grant.id), timeout=10)
                load.revoked_at = time.monotonic()
            load.phase = "starting"
            leaving.start(ready=False)
            _ask_from_the_start(leaving, load.tally)
            leaving.wait_until_ready()
            load.phase = "ready"
            eventually(lambda one=leaving: load.is_connected_to(one), what="everybody is back")
    return load.tally


def _ask_from_the_start(replica: ServerProcess, tally: Tally) -> None:
    """Asks a replica alone until it has answered DIRECT times, maybe before it is ready."""
    request = CheckRequest(
        actor_token=lasting_token(),
        permission=PERMISSION,
        resource=AskedResource(type=TYPE, id=ID),
    )
    ends = time.monotonic() + 30
    answers = 0
    with replica.channel() as channel:
        stub = stubs_on(channel).decision
        while answers < DIRECT and time.monotonic() < ends:
            try:
                answer = stub.Check(request, timeout=1, wait_for_ready=True)
            except grpc.RpcError:
                time.sleep(0.01)
                continue
            answers += 1
            tally.answers_of_new += 1
            tally.wrong_of_new += answer.decision != Decision.DECISION_DENY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--deadline", type=float, default=0.25, help="of the guards, in seconds")
    parser.add_argument("--sidecar", action="store_true", help="ask through a sidecar")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(started_cluster()).database()
        replicas = stack.enter_context(replicas_on(url, directory))
        target, pid = target_of(replicas), os.getpid()
        if options.sidecar:
            running = sidecar_of(replicas, directory, DEADLINE_SECONDS="0.25")
            target, pid = stack.enter_context(running)
        guard = stack.enter_context(Guard(target, deadline_seconds=options.deadline))
        load = Load([guard] * THREADS, [pid])
        began = time.monotonic()
        tally = restart_in_turn(replicas, load, options.cycles)
        print(f"{options.cycles} restarts in {time.monotonic() - began:.0f} s: {tally}")  # noqa: T201


if __name__ == "__main__":
    main()
