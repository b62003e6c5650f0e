"""One million users, each with a grant, on PostgreSQL: how long to load, to be ready, and how much
memory a process takes, at first and once its caches are full."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import grpc
from pdpapi.v1.core_pb2 import Decision
from pdpapi.v1.decision_service_pb2 import CheckRequest, CheckResponse

from bench import pdp, plan
from bench.part import Figures, Run
from bench.plan import Plan
from bench.postgresql import postgresql
from bench.processes import resident_mib
from bench.signer import Signer
from pdp.database.engine import open_engine
from pdp.facts import Store, migrate
from pdp.model import Entity, Grant, ToUser, User

_CALLERS = 4


@dataclass(frozen=True, slots=True)
class Million:
    """What was measured."""

    users: int
    load_seconds: float
    ready_seconds: float
    resident_mib_ready: float
    resident_mib_warm: float
    """After questions about `asked` distinct users."""
    asked: int


def measure(run: Run) -> Figures:
    """Loads, serves, asks. Takes minutes."""
    users = run.chosen.users
    with postgresql() as url:
        load_seconds = _load(url, users)
        run.say(f"  {users:,} users loaded in {load_seconds:.0f} s")
        with pdp.serving(run.directory, run.signer, url) as server:
            at_first = resident_mib(server.pid)
            asked = _ask_about_many(server.port, run.signer, run.chosen)
            found = Million(
                users=users,
                load_seconds=load_seconds,
                ready_seconds=server.ready_seconds,
                resident_mib_ready=at_first,
                resident_mib_warm=resident_mib(server.pid),
                asked=asked,
            )
    return asdict(found)


def _load(url: str, users: int) -> float:
    started = time.monotonic()
    pdp.fill(url, pdp.policy_of(plan.RULES))
    engine = open_engine(url)
    migrate(engine)
    with Store(engine).write() as transaction:
        transaction.apply_many(_entities(users))
    engine.dispose()
    return time.monotonic() - started


def _entities(users: int) -> Iterator[Entity]:
    for number in range(users):
        yield User(_user(number), email=f"{number}@bench.example", name=f"User {number}")
    for number in range(users):
        yield Grant(f"grant_{number}", plan.ROLE, ToUser(_user(number)))


def _user(number: int) -> str:
    return f"user_{number:027}"  # as long as those of Clerk


def _ask_about_many(port: int, signer: Signer, chosen: Plan) -> int:
    """Asks about users spread over all of them; how many, before the time was over."""
    step = max(1, chosen.users // chosen.distinct_users_asked)
    end = time.monotonic() + chosen.distinct_seconds_max
    kind = plan.asked_kind(plan.RULES)
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        ThreadPoolExecutor(_CALLERS) as pool,
    ):
        ask: pdp.Ask = channel.unary_unary(pdp.CHECK)

        def allowed(number: int) -> int:
            if time.monotonic() > end:
                return 0
            user = _user(number)
            request = CheckRequest(actor_token=signer.token(user, None), permission=f"{kind}:view")
            request.resource.type, request.resource.id = kind, f"{plan.KIND}_{number}"
            answer = CheckResponse.FromString(ask(request.SerializeToString(), timeout=30))
            pdp.expect(answer.decision == Decision.DECISION_ALLOW, f"{user} must be allowed")
            return 1

        return sum(pool.map(allowed, range(0, chosen.users, step)))
