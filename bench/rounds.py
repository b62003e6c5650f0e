"""The rounds: every subject at every size once a round, in turns, and medians at the end."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import cerbos, pdp, plan, pycasbin
from bench.load import Measurement, Target, measure
from bench.plan import Plan
from bench.processes import resident_mib
from bench.signer import Signer

PDP, ENVOY, CERBOS, PYCASBIN = "this PDP", "this PDP, Envoy door", "Cerbos", "pycasbin"

DOORS: Mapping[str, pdp.Door] = {PDP: "grpc", ENVOY: "envoy"}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Series:
    """One figure of one subject: a measurement of each round."""

    subject: str
    what: str
    rules: int
    rounds: Sequence[Measurement]
    resident_mib: float

    def middle(self, name: str) -> float:
        """Median of a field of Measurement."""
        return float(median(getattr(one, name) for one in self.rounds))


@dataclass(slots=True)
class _Running:
    """What takes turns: asks once, and remembers."""

    subject: str
    what: str
    rules: int
    ask: Callable[[], Measurement]
    memory: Callable[[], float]


CHECK, UNLOADED, BATCH, DENIALS = "Check", "Check, unloaded", "BatchCheck x 1000", "durable denials"


def compare(directory: Path, signer: Signer, chosen: Plan, say: Say) -> list[Series]:
    """The same question to all subjects, at all sizes; all servers run all the time."""
    with ExitStack() as stack:
        turns: list[_Running] = []
        for rules in chosen.rule_counts:
            say(f"start this PDP and Cerbos with {rules:,} rules")
            place = directory / f"pdp-{rules}"
            server = stack.enter_context(_pdp(place, signer, rules))
            turns += _loaded_and_not(
                PDP, rules, server.pid, pdp.check_target(server, signer, rules), chosen
            )
            other = stack.enter_context(
                cerbos.serving(directory / f"cerbos-{rules}", signer, rules)
            )
            turns += _loaded_and_not(
                CERBOS, rules, other.pid, cerbos.check_target(other, signer, rules), chosen
            )
            turns.append(_casbin(signer, rules, chosen))
            if rules == chosen.rule_counts[0]:
                turns.append(_batch(PDP, rules, server, signer, chosen))
                envoy = stack.enter_context(_pdp(directory / "pdp-envoy", signer, rules, "envoy"))
                turns += _loaded_and_not(
                    ENVOY, rules, envoy.pid, pdp.check_target(envoy, signer, rules), chosen
                )
                turns.append(_batch(ENVOY, rules, envoy, signer, chosen))
        return _take_turns(turns, chosen.rounds, say)


def denials(directory: Path, signer: Signer, chosen: Plan, say: Say) -> list[Series]:
    """Denials, each on record and synced before it is answered; on a server of their own, which
    ships them into SQL meanwhile."""
    rules = chosen.rule_counts[0]
    turns = []
    with ExitStack() as stack:
        for subject, door in DOORS.items():
            place = directory / f"denials-{door}"
            server = stack.enter_context(_pdp(place, signer, rules, door))
            target = pdp.denial_target(server, signer, rules)
            ask = _asking(target, chosen, plan.CONNECTIONS, plan.STREAMS, chosen.loaded_seconds)
            turns.append(_Running(subject, DENIALS, rules, ask, _memory_of(server.pid)))
        return _take_turns(turns, chosen.rounds, say)


def _batch(subject: str, rules: int, server: pdp.Pdp, signer: Signer, chosen: Plan) -> _Running:
    target = pdp.batch_target(server, signer, rules)
    ask = _asking(target, chosen, 2, 2, chosen.loaded_seconds)
    return _Running(subject, BATCH, rules, ask, _memory_of(server.pid))


def _pdp(
    directory: Path, signer: Signer, rules: int, door: pdp.Door = "grpc"
) -> AbstractContextManager[pdp.Pdp]:
    directory.mkdir(parents=True)
    url = f"sqlite:///{directory / 'pdp.db'}"
    pdp.fill(url, pdp.policy_of(rules))
    return pdp.serving(directory, signer, url, door)


def _loaded_and_not(
    subject: str, rules: int, pid: int, target: Target, chosen: Plan
) -> list[_Running]:
    many = (plan.CONNECTIONS, plan.STREAMS, chosen.loaded_seconds)
    one = (1, 1, chosen.unloaded_seconds)
    return [
        _Running(subject, CHECK, rules, _asking(target, chosen, *many), _memory_of(pid)),
        _Running(subject, UNLOADED, rules, _asking(target, chosen, *one), _memory_of(pid)),
    ]


def _asking(
    target: Target, chosen: Plan, connections: int, streams: int, seconds: int
) -> Callable[[], Measurement]:
    return lambda: measure(
        target,
        connections=connections,
        streams=streams,
        seconds=seconds,
        warm_seconds=chosen.warm_seconds,
    )


def _memory_of(pid: int) -> Callable[[], float]:
    return lambda: resident_mib(pid)


def _casbin(signer: Signer, rules: int, chosen: Plan) -> _Running:
    memory = [0.0]

    def ask() -> Measurement:
        measured, memory[0] = pycasbin.measure(signer, rules, chosen.unloaded_seconds)
        return measured

    return _Running(PYCASBIN, CHECK, rules, ask, lambda: memory[0])


def _quietest(ask: Callable[[], Measurement]) -> Measurement:
    """What was measured while the machine did least beside it."""
    found = ask()
    for _ in range(plan.ATTEMPTS_MAX - 1):
        if found.others_share > plan.OTHERS_SHARE_MAX:
            found = min(found, ask(), key=lambda one: one.others_share)
    return found


def _take_turns(turns: Sequence[_Running], rounds: int, say: Say) -> list[Series]:
    measured: Mapping[int, list[Measurement]] = {number: [] for number in range(len(turns))}
    for one in range(rounds):
        for number, turn in enumerate(turns):
            found = _quietest(turn.ask)
            measured[number].append(found)
            say(
                f"round {one + 1}/{rounds}: {turn.subject}, {turn.what}, {turn.rules:,} rules: "
                f"{found.requests_per_second:,.1f} req/s, p50 {found.p50_ms:.3f} ms, "
                f"{found.core_share:.0%} of the core, others {found.others_share:.0%}"
            )
    return [
        Series(turn.subject, turn.what, turn.rules, measured[number], turn.memory())
        for number, turn in enumerate(turns)
    ]
