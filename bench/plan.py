"""What is measured, for how long and where. Every loop of the bench is bounded by these."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POLICIES = Path(__file__).resolve().parent / "policies"
BUILD = ROOT / "build" / "bench"
REPORT = ROOT / "build" / "bench.json"

SERVER_CORE = 0
LOAD_CORE = 1

RULES_PER_KIND = 11
KIND = "course"
ACTION = "edit"
USER = "user_bench"
STRANGER = "user_stranger"
ORGANIZATION = "org_bench"
ROLE = "INSTRUCTOR"

CONNECTIONS = 8
STREAMS = 16
BATCH_ITEMS = 1_000

SERVED_PER_SECOND = 1_000
"""While revocations are noticed, beside the questions about them."""

OTHERS_SHARE_MAX = 0.10
"""With more than this of a core used by others, a measurement is made again."""
ATTEMPTS_MAX = 2

START_SECONDS_MAX = 300.0
"""For a server to become ready; Cerbos compiles 10,000 policies."""
INSTALL_SECONDS_MAX = 300


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int = 3
    warm_seconds: int = 1
    loaded_seconds: int = 3
    unloaded_seconds: int = 2
    rule_counts: tuple[int, ...] = (1_100, 11_000, 110_000)
    users: int = 1_000_000
    """Users, each with one grant, on PostgreSQL."""
    distinct_users_asked: int = 20_000
    """So many of them are asked about, which fills the caches before memory is read."""
    distinct_seconds_max: float = 120.0
    webhook_seconds: int = 5
    revocations: int = 100
    staleness_revocations: int = 300
    guard_hits: int = 50_000
    guard_calls: int = 4_000


FULL = Plan()
QUICK = Plan(
    rounds=1,
    loaded_seconds=2,
    unloaded_seconds=1,
    rule_counts=(1_100,),
    users=10_000,
    distinct_users_asked=500,
    webhook_seconds=1,
    revocations=10,
    staleness_revocations=20,
    guard_hits=5_000,
    guard_calls=400,
)


def kinds_of(rules: int) -> list[str]:
    """Names of the kinds of resource that together have this many rules."""
    return [f"{KIND}{number:05}" for number in range(rules // RULES_PER_KIND)]


def asked_kind(rules: int) -> str:
    """The one in the middle, so that who searches from the start searches half."""
    kinds = kinds_of(rules)
    return kinds[len(kinds) // 2]
