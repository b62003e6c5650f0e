"""One process of clients: threads that write and threads that check, all of them on record.

    python -m tests.history.clients plan.pickle     # until standard input ends

Each process has subjects of its own, whose facts only it writes, and asks about them everywhere. A
subject of which a write was not answered is left alone from then on: nobody knows what it may do.
"""

import contextlib
import heapq
import pickle
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from pdpapi.v1.administration_service_pb2 import BarrierRequest, GetRoleRequest
from pdpapi.v1.administration_service_pb2_grpc import PolicyAdministrationServiceStub

from tests.history.checker import Barrier, Check, History, Outcome, Write
from tests.history.places import Ask, Asked, Place, channel_to, open_place
from tests.history.subjects import EVERYWHERE, QUESTIONS, WEIGHTS, Subject, key_from_pem
from tests.history.weakened import weaken

BARRIER_SECONDS_MAX = 15.0
REACH_SECONDS_MAX = 0.5
REPETITIONS_MAX = 4


@dataclass(frozen=True)
class Plan:
    """The work of a process of clients."""

    seed: str
    subjects: Sequence[str]
    kid: str
    key: str
    """The issuer's private key as PEM."""
    ready: Write
    """The write of a fact that holds since the policy was applied."""
    administrations: Sequence[str]
    places: Sequence[Place]
    output: Path
    writers: int = 6
    active: int = 1
    """Subjects of each writer at a time."""
    checkers: int = 10
    pause_seconds: float = 0.01
    """After each check of a thread, on average."""
    away_seconds: tuple[float, float] = (0.05, 3.5)
    """For how long a fact is taken away; mostly near the lower."""
    back_seconds: tuple[float, float] = (0.1, 1.5)
    barriers: float = 0.2
    """The share of revocations that are followed by a barrier."""
    tampered: Sequence[str] = ()
    """Words for `weaken`."""
    weights: dict[str, int] = field(default_factory=lambda: dict(WEIGHTS))


class Clients:
    """The threads of one process."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.history = History()
        self.stopping = threading.Event()
        key = key_from_pem(plan.kid, plan.key)
        self._spare = [Subject(name, key) for name in reversed(plan.subjects)]
        self._lock = threading.Lock()
        self._active: list[Subject] = []
        self._writers: Sequence[PolicyAdministrationServiceStub] = [
            PolicyAdministrationServiceStub(channel_to(target)) for target in plan.administrations
        ]
        self._places: Sequence[tuple[str, Ask]] = [
            (place.name, open_place(place)) for place in plan.places
        ]
        self._shares = [place.share for place in plan.places]

    def run(self) -> None:
        """Until `stopping` is set."""
        roles: list[Callable[[random.Random], None]] = [
            *[self._write_on] * self._plan.writers,
            *[self._check_on] * self._plan.checkers,
        ]
        threads = [
            threading.Thread(target=role, args=(random.Random(f"{self._plan.seed} {number}"),))
            for number, role in enumerate(roles)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # --- writing ----------------------------------------------------------------------------------

    def _write_on(self, rng: random.Random) -> None:
        due: list[tuple[float, str, Subject]] = []
        for _ in range(self._plan.active):
            self._take_on(due, rng)
        while due and not self.stopping.is_set():
            at, _, subject = heapq.heappop(due)
            self.stopping.wait(max(0.0, at - time.monotonic()))
            if self._toggle(subject, rng):
                seconds = self._away(rng) if subject.taken else self._back(rng)
                heapq.heappush(due, (time.monotonic() + seconds, subject.name, subject))
            else:
                with self._lock:
                    self._active.remove(subject)
                self._take_on(due, rng)

    def _take_on(self, due: list[tuple[float, str, Subject]], rng: random.Random) -> None:
        with self._lock:
            if not self._spare:
                return
            subject = self._spare.pop()
            self._active.append(subject)
        for fact in subject.facts():
            self._hold_from_the_start(fact)
        self._choose(subject, rng)
        heapq.heappush(due, (time.monotonic() + self._back(rng), subject.name, subject))

    def _hold_from_the_start(self, fact: str) -> None:
        ready = self._plan.ready
        self.history.writes.append(Write(fact, True, ready.invoked, ready.returned, ready.revision))

    def _toggle(self, subject: Subject, rng: random.Random) -> bool:
        """Takes a fact away, or gives it back; False if it is unknown whether that happened."""
        name, holds = subject.focus, subject.taken
        if name == "session" and holds:
            self._hold_from_the_start(subject.begin_session())
        elif (stub := self._writable(rng)) is None:
            return True
        else:
            fact = subject.fact(name)
            invoked = time.monotonic()
            try:
                revision = subject.write(stub, name, holds=holds)
            except grpc.RpcError:
                self.history.writes.append(Write(fact, holds, invoked, None, None))
                return False
            returned = time.monotonic()
            self.history.writes.append(Write(fact, holds, invoked, returned, revision))
        subject.taken = not holds
        if subject.taken:
            if rng.random() < self._plan.barriers:
                self._await_barrier(subject.revision, rng)
        else:
            self._choose(subject, rng)
        return True

    def _writable(self, rng: random.Random) -> PolicyAdministrationServiceStub | None:
        """One that has just reached its database: each write without an answer costs a subject.
        None: it is over."""
        while not self.stopping.is_set():
            stub = rng.choice(self._writers)
            with contextlib.suppress(grpc.RpcError):
                stub.GetRole(GetRoleRequest(name="READER"), timeout=REACH_SECONDS_MAX)
                return stub
            self.stopping.wait(0.1)
        return None

    def _choose(self, subject: Subject, rng: random.Random) -> None:
        weights = self._plan.weights
        subject.focus = rng.choices(list(weights), list(weights.values()))[0]

    def _await_barrier(self, revision: int, rng: random.Random) -> None:
        stub = rng.choice(self._writers)
        invoked = time.monotonic()
        try:
            stub.Barrier(BarrierRequest(revision=revision), timeout=BARRIER_SECONDS_MAX)
        except grpc.RpcError:
            return
        self.history.barriers.append(Barrier(revision, invoked, time.monotonic()))

    def _away(self, rng: random.Random) -> float:
        shortest, longest = self._plan.away_seconds
        return shortest + (longest - shortest) * rng.random() ** 3

    def _back(self, rng: random.Random) -> float:
        return rng.uniform(*self._plan.back_seconds)

    # --- checking ---------------------------------------------------------------------------------

    def _check_on(self, rng: random.Random) -> None:
        while not self.stopping.is_set():
            with self._lock:
                subject = rng.choice(self._active) if self._active else None
            place, ask = rng.choices(self._places, self._shares)[0]
            if subject is not None:
                self._ask_again_and_again(subject, place, ask, rng)
            self._pause(rng)

    def _ask_again_and_again(
        self, subject: Subject, place: str, ask: Ask, rng: random.Random
    ) -> None:
        """The same question, so that caches have something to serve."""
        question = self._question(subject, rng)
        at_least = subject.revision if rng.random() < 0.1 else 0
        number, token = subject.session
        asked = Asked(token, subject.permission(question), subject.document, at_least)
        needs = subject.needs(question, number)
        for _ in range(rng.randint(1, REPETITIONS_MAX)):
            began = time.monotonic()
            answer = ask(asked)
            ended = time.monotonic()
            self.history.checks.append(
                Check(
                    place,
                    needs,
                    began,
                    ended,
                    answer.outcome,
                    answer.revision,
                    at_least,
                    answer.cached,
                    answer.said,
                )
            )
            if answer.outcome is Outcome.NO_ANSWER:
                # Errors come at once, and should not become most of the history.
                self.stopping.wait(0.1)
                return
            self._pause(rng)

    def _pause(self, rng: random.Random) -> None:
        self.stopping.wait(rng.uniform(0, 2 * self._plan.pause_seconds))

    def _question(self, subject: Subject, rng: random.Random) -> str:
        """Mostly one that the fact matters to which comes and goes."""
        focus = subject.focus
        if focus not in EVERYWHERE and rng.random() < 0.8:
            return next(name for name, facts in QUESTIONS.items() if focus in facts)
        return rng.choice(("read", "read", *QUESTIONS))


def main() -> None:
    """Runs a plan and leaves its history behind. Says now and then how many operations it has."""
    plan: Plan = pickle.loads(Path(sys.argv[1]).read_bytes())
    weaken(plan.tampered)
    clients = Clients(plan)
    running = threading.Thread(target=clients.run)
    running.start()

    def report() -> None:
        while not clients.stopping.wait(0.25):
            print(clients.history.operations, flush=True)  # noqa: T201

    threading.Thread(target=report, daemon=True).start()
    sys.stdin.read()
    clients.stopping.set()
    running.join()
    plan.output.write_bytes(pickle.dumps(clients.history))


if __name__ == "__main__":
    main()
