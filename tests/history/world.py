"""A world to check: PostgreSQL, replicas, sidecars and processes of clients; and their faults.

with started_world(seed="7", cluster=cluster) as world:
    world.start_everything(10_000)
    world.run(seconds=30, faults=world.faults())
    history = world.history()
"""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from pdpapi.v1.administration_service_pb2 import ApplyRequest
from pdpapi.v1.administration_service_pb2_grpc import PolicyAdministrationServiceStub
from sqlalchemy import make_url

from pdp.database.engine import open_engine
from pdp.database.migrations import migrate
from tests.history.checker import History, Write
from tests.history.clients import Plan
from tests.history.places import Place, channel_to
from tests.history.subjects import key_as_pem, policy_of
from tests.kit.clusters import Cluster
from tests.kit.facts.sequences import create_sequence
from tests.kit.proxy import Proxy, proxied
from tests.kit.server import ServerProcess
from tests.kit.sidecar import SidecarProcess
from tests.kit.tokens import signing_key
from tests.kit.waiting import eventually

ROOT = Path(__file__).parents[2]
SOURCES = f"{ROOT}:{ROOT / 'clients' / 'python'}"
BOUND_SECONDS = 2.0
SETTINGS = {
    "STALENESS_SECONDS_MAX": str(BOUND_SECONDS),
    "POLL_SECONDS": "0.1",
    "LOG_LEVEL": "info",
    "THREADS": "16",
}
SUBJECTS_MIN = 60
OPERATIONS_OF_A_SUBJECT = 200
"""Each write that is not answered costs one."""
WARM_OPERATIONS = 200


@dataclass
class Replica(ServerProcess):
    """A server that may have been tampered with."""

    tampered: Sequence[str] = ()
    """Words for `tests.history.weakened`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _tamper(self, self.tampered)


@dataclass
class Sidecar(SidecarProcess):
    """A sidecar that may have been tampered with."""

    tampered: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _tamper(self, self.tampered)


Fault = Callable[[random.Random], None]


class World:
    """Everything that runs. `started_world` makes one."""

    def __init__(self, seed: str, directory: Path, cluster: Cluster, stack: ExitStack) -> None:
        self.seed = seed
        self.directory = directory
        self.occurred: Counter[str] = Counter()
        self._cluster = cluster
        self._stack = stack
        self._url = cluster.database()
        self._tampered: Mapping[int, Sequence[str]] = {}
        self.replicas: list[Replica] = []
        self.sidecars: list[Sidecar] = []
        self.databases: list[Proxy] = []
        """One before each replica: its way to PostgreSQL."""
        self.ways: list[Sequence[Proxy]] = []
        """For each guard and sidecar: the ways to its replicas."""
        self.sidecar_ways: list[Sequence[Proxy]] = []
        """The ways of the sidecars among them."""
        self.places: list[Place] = []
        self._clients: list[_ClientProcess] = []
        self._ready: Write | None = None
        self._names: list[str] = []

    # --- building ---------------------------------------------------------------------------------

    def start_everything(self, operations: int, **plan: Any) -> None:
        """Three replicas, two sidecars, guards and clients; two clocks are wrong, and one of each
        pauses where races would show. Clients have users for so many
        operations, and the rest of a `Plan`."""
        self.start_replicas(3, tampered={1: ["clock=3"], 2: ["delays"]})
        self.start_sidecar(0, 1, tampered=["clock=-3"])
        self.start_sidecar(2, 0, tampered=["delays"])
        self.add_guards(cache=False, share=1)
        self.add_guards(cache=True, share=3)
        subjects = max(SUBJECTS_MIN, operations // OPERATIONS_OF_A_SUBJECT)
        self.start_clients(subjects=subjects, **plan)

    def start_replicas(
        self,
        count: int = 3,
        *,
        tampered: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        """Starts replicas, each with its own way to the database. `start_clients` waits for them
        and for sidecars: all begin at once."""
        migrate(self._url)
        with open_engine(self._url).begin() as connection:
            create_sequence(connection)
        for number in range(count):
            proxy, url = self._stack.enter_context(proxied(self._url))
            directory = self.directory / f"replica-{number}"
            directory.mkdir()
            replica = Replica(
                directory,
                {**SETTINGS, "DATABASE_URL": url},
                tampered=(tampered or {}).get(number, ()),
            )
            self._stack.callback(_end, replica)
            replica.start(ready=False)
            self.replicas.append(replica)
            self.databases.append(proxy)
            self.places.append(
                Place(f"replica {number}", "wire", f"127.0.0.1:{replica.port}", share=2)
            )

    def add_guards(self, *, cache: bool, share: int = 2) -> None:
        """A guard in each process of clients, behind a way that can be cut."""
        kind = "caching guard" if cache else "guard"
        ports = ",".join(f"127.0.0.1:{port}" for port in self._ways_to(0, 1))
        self.places.append(Place(kind, kind, f"ipv4:{ports}", share))

    def start_sidecar(self, *replicas: int, tampered: Sequence[str] = (), share: int = 2) -> None:
        """A sidecar of these replicas, behind ways that can be cut."""
        number = len(self.sidecars)
        directory = self.directory / f"sidecar-{number}"
        directory.mkdir()
        sidecar = Sidecar(
            directory,
            {"DEADLINE_SECONDS": "1", "THREADS": "16"},
            upstreams=self._ways_to(*replicas),
            tampered=tampered,
        )
        self._stack.callback(_end, sidecar)
        sidecar.start(ready=False)
        self.sidecars.append(sidecar)
        self.sidecar_ways.append(self.ways[-1])
        self.places += [
            Place(f"sidecar {number}", "wire", sidecar.socket, share),
            Place(f"sidecar {number} batch", "batch", sidecar.socket, 1),
        ]

    def _ways_to(self, *replicas: int) -> Sequence[int]:
        """Ports that lead to these replicas."""
        ways = [Proxy(("127.0.0.1", self.replicas[number].port)) for number in replicas]
        for way in ways:
            self._stack.callback(way.close)
        self.ways.append(ways)
        return [way.port for way in ways]

    def start_clients(
        self,
        count: int = 2,
        *,
        subjects: int = SUBJECTS_MIN,
        writable: Sequence[int] | None = None,
        **plan: Any,
    ) -> None:
        """Processes of clients with so many subjects each, and the policy that they need. They
        write through the replicas `writable`, or all."""
        for server in (*self.replicas, *self.sidecars):
            server.wait_until_ready()
        self._names = [f"w{n}s{i}" for n in range(count) for i in range(subjects)]
        numbers = range(len(self.replicas)) if writable is None else writable
        targets = [f"127.0.0.1:{self.replicas[number].port}" for number in numbers]
        ready = self._apply(targets[0])
        key = signing_key()
        for number in range(count):
            output = self.directory / f"history-{number}"
            begin = number * subjects
            self._clients.append(
                _ClientProcess(
                    Plan(
                        f"{self.seed} {number}",
                        self._names[begin : begin + subjects],
                        key.kid,
                        key_as_pem(key),
                        ready,
                        targets,
                        self.places,
                        output,
                        **plan,
                    ),
                    self.directory / f"clients-{number}.log",
                )
            )
            self._stack.callback(self._clients[-1].kill)

    def _apply(self, target: str) -> Write:
        with channel_to(target) as channel:
            stub = PolicyAdministrationServiceStub(channel)
            document = json.dumps(policy_of(self._names))
            invoked = time.monotonic()
            revision = stub.Apply(ApplyRequest(document=document), timeout=30).revision
            return Write("ready", True, invoked, time.monotonic(), revision)

    # --- running ----------------------------------------------------------------------------------

    @property
    def operations(self) -> int:
        """About how many operations there were so far."""
        return sum(clients.operations for clients in self._clients)

    def run(
        self,
        *,
        seconds: float = 0,
        operations: int = 0,
        seconds_max: float = 300,
        faults: Mapping[str, Fault] | None = None,
    ) -> None:
        """Runs for `seconds`, and on until there are as many operations and each kind of fault has
        happened, but no longer than `seconds_max`. Each kind happens once before any does again.
        The seed determines in which order, when and to which process."""
        rng = random.Random(f"{self.seed} faults")
        eventually(
            lambda: all(clients.operations > WARM_OPERATIONS for clients in self._clients),
            seconds=30,
            what="what can be kept is kept",
        )
        began = time.monotonic()
        deck: list[str] = []
        while time.monotonic() < began + seconds_max and (
            time.monotonic() < began + seconds
            or self.operations < operations
            or len(self.occurred) < len(faults or ())
        ):
            if faults:
                if not deck:
                    deck = rng.sample(list(faults), len(faults))
                name = deck.pop()
                self.occurred[name] += 1
                faults[name](rng)
            time.sleep(rng.uniform(0.3, 1.0))

    def history(self) -> History:
        """Ends the clients; the history that they saw."""
        whole = History()
        for clients in self._clients:
            clients.stop()
        for clients in self._clients:
            part = clients.end()
            whole.writes += part.writes
            whole.barriers += part.barriers
            whole.checks += part.checks
        return whole

    # --- faults -----------------------------------------------------------------------------------

    def faults(self) -> Mapping[str, Fault]:
        """All kinds."""
        return {
            "replica killed": self.kill_a_replica,
            "replica paused": self.pause_a_replica,
            "PostgreSQL restarted": self.restart_postgresql,
            "LISTEN cut": self.cut_listening,
            "database partitioned": self.partition_a_database,
            "sidecar partitioned": self.partition_a_sidecar,
            "upstreams partitioned": self.partition_upstreams,
            "connections reset": self.reset_connections,
            "connections slowed": self.slow_connections,
            "clients paused": self.pause_clients,
            "sidecar killed": self.kill_a_sidecar,
            "sidecar paused": self.pause_a_sidecar,
        }

    def kill_a_replica(self, rng: random.Random) -> None:
        _kill_and_start(rng.choice(self.replicas), rng)

    def kill_a_sidecar(self, rng: random.Random) -> None:
        _kill_and_start(rng.choice(self.sidecars), rng)

    def pause_a_replica(self, rng: random.Random) -> None:
        _pause(rng.choice(self.replicas).pids, rng.uniform(0.3, 3))

    def pause_a_sidecar(self, rng: random.Random) -> None:
        _pause(rng.choice(self.sidecars).pids, rng.uniform(0.3, 3))

    def restart_postgresql(self, rng: random.Random) -> None:
        self._cluster.kill()
        time.sleep(rng.uniform(0, 0.5))
        self._cluster.start()

    def cut_listening(self, _: random.Random) -> None:
        url = make_url(self._url).set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN%' AND pid <> pg_backend_pid()"
            )

    def partition_a_database(self, rng: random.Random) -> None:
        silence([rng.choice(self.databases)], rng.uniform(0.5, 3.5))

    def partition_a_sidecar(self, rng: random.Random) -> None:
        """From all its replicas, for longer than a lease."""
        silence(rng.choice(self.sidecar_ways), rng.uniform(1.5, 3.5))

    def partition_upstreams(self, rng: random.Random) -> None:
        """One of those who ask on behalf of others is cut off, from one replica or from all."""
        ways = rng.choice(self.ways)
        silence(rng.sample(ways, rng.randint(1, len(ways))), rng.uniform(0.5, 3.5))

    def reset_connections(self, rng: random.Random) -> None:
        rng.choice(self._connections()).reset()

    def slow_connections(self, rng: random.Random) -> None:
        """Messages arrive late, and later with each one."""
        slow = rng.choice(self._connections())
        slow.latency_seconds = rng.uniform(0.1, 0.5)
        time.sleep(rng.uniform(0.5, 3.5))
        slow.latency_seconds = 0.0

    def _connections(self) -> Sequence[Proxy]:
        return [*self.databases, *(way for ways in self.ways for way in ways)]

    def pause_clients(self, rng: random.Random) -> None:
        _pause(lambda: [rng.choice(self._clients).pid], rng.uniform(0.3, 2))


class _ClientProcess:
    """`tests.history.clients` in a process of its own."""

    def __init__(self, plan: Plan, log: Path) -> None:
        self._plan = plan
        self.operations = 0
        file = plan.output.with_suffix(".plan")
        file.write_bytes(pickle.dumps(plan))
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.history.clients", str(file)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": SOURCES},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.operations = int(line)

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> History:
        assert self._process.wait(60) == 0
        self._reading.join()
        history: History = pickle.loads(self._plan.output.read_bytes())
        return history

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _tamper(server: ServerProcess, words: Sequence[str]) -> None:
    if words:
        server.before = f"from tests.history.weakened import weaken; weaken({list(words)!r})"


def _kill_and_start(server: ServerProcess, rng: random.Random) -> None:
    server.kill()
    time.sleep(rng.uniform(0, 1))
    server.start(ready=False)


def _end(server: ServerProcess) -> None:
    if server.process is not None and server.process.poll() is None:
        server.kill()


def _pause(pids: Callable[[], Sequence[int]], seconds: float) -> None:
    stopped = pids()
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def silence(proxies: Sequence[Proxy], seconds: float) -> None:
    """Nothing passes, and no connection ends."""
    for proxy in proxies:
        proxy.blackhole()
    time.sleep(seconds)
    for proxy in proxies:
        proxy.forward()


@contextmanager
def started_world(*, seed: str, cluster: Cluster) -> Iterator[World]:
    """A world with nothing in it yet; what is started in it ends with the block."""
    # A short path: a socket's may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="pdp-history-") as directory, ExitStack() as stack:
        yield World(seed, Path(directory), cluster, stack)
