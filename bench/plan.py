"""What is measured, for how long and where. Every loop of the bench is bounded by these."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POLICIES = Path(__file__).resolve().parent / "policies"
BUILD = ROOT / "build" / "bench"
REPORT = ROOT / "build" / "bench.json"
PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "requests-per-core.svg"

SERVER_CORE = 0
LOAD_CORE = 1

RULES = 1_100
"""Of the policy, by default."""
RULES_PER_KIND = 11
KIND = "course"
ACTION = "edit"
USER = "user_bench"
STRANGER = "user_stranger"
ORGANIZATION = "org_bench"
ROLE = "INSTRUCTOR"

BATCH_ITEMS = 1_000
CERBOS_BATCH_ITEMS = 50
"""The most that Cerbos takes in one request by default."""
IN_PROCESS_CHECK_US = 22.0
"""On a machine where a Check takes this long without any transport, 100,000 checks/s of a batch
are wanted; on a slower machine, fewer in proportion."""

SERVED_PER_SECOND = 1_000
"""While revocations are noticed, beside the questions about them."""

OTHERS_SHARE_MAX = 0.10
"""With more than this of a core used by others, a measurement is made again."""
ATTEMPTS_MAX = 2

START_SECONDS_MAX = 300.0
"""For a server to become ready; Cerbos compiles 10,000 policies."""
INSTALL_SECONDS_MAX = 300
BUILD_SECONDS_MAX = 3_600
"""For a peer that Go builds."""
SETTLE_SECONDS_MAX = 10.0
"""For a server to finish what it does after its answers, before the next subject is measured."""


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop: `connections * streams` requests are in flight all the time."""

    connections: int
    streams: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int = 3
    warm_seconds: int = 1
    loaded: Load = Load(8, 16, 3)
    unloaded: Load = Load(1, 1, 2)
    batches: Load = Load(2, 2, 3)
    beside_batches: Load = Load(1, 1, 10)
    """Checks, one at a time, while `batches` run."""
    rule_counts: tuple[int, ...] = (RULES, 11_000, 110_000)
    users: int = 1_000_000
    """Users, each with one grant, on PostgreSQL."""
    distinct_users_asked: int = 20_000
    """So many of them are asked about, which fills the caches before memory is read."""
    distinct_seconds_max: float = 120.0
    resources: int = 1_000_000
    """Stored ones, on PostgreSQL, of which an actor may use a thousand."""
    query_calls: int = 1_000
    console_records: int = 2_000_000
    console_calls: int = 200
    """Of each page."""
    webhook_seconds: int = 5
    revocations: int = 100
    staleness_revocations: int = 300
    siem_records: int = 40_000
    """Forwarded into a file: fewer than the share of a caller in the log."""
    siem_seconds: int = 10
    guard_hits: int = 50_000
    guard_calls: int = 4_000
    in_process_checks: int = 20_000
    log_rounds: int = 5
    log_denials: int = 5_000
    """Different ones, of each server in each round."""
    log_verified: int = 200_000
    """Records of an archive."""


FULL = Plan()
QUICK = Plan(
    rounds=1,
    loaded=Load(8, 16, 2),
    unloaded=Load(1, 1, 1),
    batches=Load(2, 2, 2),
    beside_batches=Load(1, 1, 3),
    rule_counts=(RULES,),
    users=10_000,
    distinct_users_asked=500,
    resources=20_000,
    query_calls=100,
    console_records=50_000,
    console_calls=20,
    webhook_seconds=1,
    revocations=10,
    staleness_revocations=20,
    siem_records=10_000,
    siem_seconds=3,
    guard_hits=5_000,
    guard_calls=400,
    in_process_checks=2_000,
    log_rounds=1,
    log_denials=1_000,
    log_verified=20_000,
)


def kinds_of(rules: int) -> list[str]:
    """Names of the kinds of resource that together have this many rules."""
    return [f"{KIND}{number:05}" for number in range(rules // RULES_PER_KIND)]


def asked_kind(rules: int) -> str:
    """The one in the middle, so that who searches from the start searches half."""
    kinds = kinds_of(rules)
    return kinds[len(kinds) // 2]
