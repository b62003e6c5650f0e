"""The shadow of a process: its bounds, its failures, and what it counts in SQL."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from pdp.decision import Policy, decide
from pdp.document import PolicyDocument, World, render_document
from pdp.facts import FlipCount, FlipGroup, ShadowCounts, ShadowReport, ShadowStore, View
from pdp.impact import Shadow
from pdp.impact.shadow import QUEUE_MAX
from pdp.model import (
    Actor,
    Decision,
    Effect,
    Grant,
    Permission,
    Question,
    Reason,
    Resource,
    Role,
    Rule,
    ToUser,
    User,
    VerifiedToken,
)
from tests.kit import soak
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

NOW = 100.0
TOKEN = VerifiedToken(Actor("user_1", "s"), "", "", 200.0, {})
ALLOWED = Decision(Effect.ALLOW, Reason.ALLOWED_BY_RULE, "r")
GROUP = FlipGroup("course:view", "deny", "r", "r")


def document_of(condition: str) -> PolicyDocument:
    return PolicyDocument(
        permissions=(Permission("course:view"),),
        roles=(Role("A"),),
        rules=(Rule("r", "A", Effect.ALLOW, "course:view", condition),),
    )


def view_of(policy: Policy | None = None) -> View:
    document = replace(
        document_of(""), users=(User("user_1"),), grants=(Grant("g", "A", ToUser("user_1")),)
    )
    world = World(document)
    chain = world.chain(Resource("course", "1"))
    return View(policy or world.policy, world.users["user_1"], None, [chain], 1, None)  # type: ignore[arg-type]


class Metrics:
    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    def __call__(self, outcome: str, _group: FlipGroup | None, times: int = 1) -> None:
        self.outcomes[outcome] += times


@pytest.fixture
def store(engine: Engine) -> ShadowStore:
    return ShadowStore(engine)


@pytest.fixture
def start(
    store: ShadowStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Metrics], Shadow]]:
    monkeypatch.setattr("pdp.impact.shadow.REFRESH_SECONDS", 0.05)
    started: list[Shadow] = []

    def begin(metrics: Metrics) -> Shadow:
        shadow = Shadow(store, metrics)
        shadow.start()
        started.append(shadow)
        return shadow

    yield begin
    for shadow in started:
        shadow.stop()


def offer(shadow: Shadow, view: View, context: dict[str, object] | None = None) -> None:
    question = Question("course:view", Resource("course", "1"), context or {})
    shadow.offer(TOKEN, view, [question], [ALLOWED], NOW)


def wait_until_active(shadow: Shadow, metrics: Metrics) -> None:
    """Waits until the shadow decides what it is offered."""
    view = view_of()

    def is_counted() -> bool:
        offer(shadow, view)
        return metrics.outcomes.total() > 0

    eventually(is_counted)


def set_candidate(store: ShadowStore, condition: str, sample: float = 1.0) -> None:
    store.set(render_document(document_of(condition)), sample, NOW)


def reported(store: ShadowStore) -> ShadowReport:
    report = store.report()
    assert report is not None
    return report


def test_all_replicas_take_a_candidate_from_sql_and_add_up_what_they_count(
    store: ShadowStore, start: Callable[[Metrics], Shadow]
) -> None:
    metrics = [Metrics(), Metrics()]
    replicas = [start(counted) for counted in metrics]
    offer(replicas[0], view_of())
    assert not replicas[0].waiting, "without a candidate nothing is kept"
    set_candidate(store, "false")
    view = view_of()

    def all_count() -> bool:
        for shadow in replicas:
            offer(shadow, view)
        return all(counted.outcomes["flipped"] > 3 for counted in metrics)

    eventually(all_count)
    for shadow in replicas:
        shadow.stop()
    _, counts, flips = reported(store)
    assert counts.flipped == sum(counted.outcomes["flipped"] for counted in metrics)
    assert [(flip.group, flip.times) for flip in flips] == [(GROUP, counts.flipped)]
    assert flips[0].examples[0]["user"] == "user_1"
    assert flips[0].examples[0]["after"] == "CONDITION_NOT_MET"


def test_a_flood_is_dropped_and_counted_and_never_waits(
    store: ShadowStore, start: Callable[[Metrics], Shadow]
) -> None:
    metrics = Metrics()
    shadow = start(metrics)
    set_candidate(store, "")
    wait_until_active(shadow, metrics)
    view, watch = view_of(), Stopwatch()
    for _ in range(50_000):
        offer(shadow, view)
        assert shadow.waiting <= QUEUE_MAX
    assert watch.seconds < 5
    shadow.stop()
    assert metrics.outcomes.total() >= 50_000 - QUEUE_MAX
    assert reported(store).counts.dropped == metrics.outcomes["dropped"] > 10_000


def test_an_expensive_candidate_uses_a_bounded_share_of_a_core(
    store: ShadowStore, start: Callable[[Metrics], Shadow], monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: list[float] = []

    def measured(*arguments: Any) -> Decision:
        began = time.thread_time()
        decision = decide(*arguments)
        spent.append(time.thread_time() - began)
        return decision

    monkeypatch.setattr("pdp.impact.shadow.decide", measured)
    metrics = Metrics()
    shadow = start(metrics)
    set_candidate(store, "context.a.all(x, context.a.exists(y, x.contains(y)))")
    wait_until_active(shadow, metrics)
    view, context = view_of(), {"a": [f"{index}" for index in range(60)] + ["b"]}
    began = time.monotonic()

    def fed() -> bool:
        for _ in range(QUEUE_MAX):
            offer(shadow, view, context)
        return time.monotonic() - began > 1.5

    eventually(fed, seconds=30)
    seconds = time.monotonic() - began
    assert sum(spent) > 0
    # Once over: the slice that is under way.
    assert sum(spent) < 0.15 * seconds + 0.02


def test_a_candidate_that_errs_counts_as_a_denial_and_one_with_a_bug_ends_nothing(
    store: ShadowStore, start: Callable[[Metrics], Shadow], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    shadow = start(metrics)
    set_candidate(store, "context.absent == 'x'")
    view = view_of()

    def counted(outcome: str) -> Callable[[], bool]:
        def is_counted() -> bool:
            offer(shadow, view)
            return metrics.outcomes[outcome] > 0

        return is_counted

    eventually(counted("flipped"))

    def broken(*_: object) -> Decision:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("pdp.impact.shadow.decide", broken)
        eventually(counted("failed"))
    metrics.outcomes.clear()
    # It takes a share of the time: after failures that took long, it waits long.
    eventually(counted("flipped"), seconds=60)


def test_a_stored_candidate_of_another_form_is_refused_and_the_next_one_is_taken(
    store: ShadowStore, start: Callable[[Metrics], Shadow]
) -> None:
    metrics = Metrics()
    with capture_logs() as logs:
        shadow = start(metrics)
        store.set("version: 99\n", 1.0, NOW)
        eventually(lambda: "shadow_candidate_refused" in [line["event"] for line in logs])
    offer(shadow, view_of())
    assert not shadow.waiting
    set_candidate(store, "")
    wait_until_active(shadow, metrics)
    store.clear()
    eventually(lambda: not shadow.is_active)


def test_a_sample_is_about_as_large_as_it_says(
    store: ShadowStore, start: Callable[[Metrics], Shadow]
) -> None:
    metrics = Metrics()
    shadow = start(metrics)
    set_candidate(store, "", 0.1)
    wait_until_active(shadow, metrics)
    view = view_of()
    for _ in range(10_000):
        offer(shadow, view)
    shadow.stop()
    assert 800 < metrics.outcomes.total() + shadow.waiting < 1_200


def test_counts_of_an_earlier_candidate_are_not_added_and_groups_are_bounded(
    store: ShadowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.set("a", 1.0, NOW)
    new = store.set("b", 1.0, NOW)
    flips = [FlipCount(GROUP, 2, [{"user": str(index)} for index in range(9)])]
    store.add(old.id, ShadowCounts(decided=5, flipped=2), flips)
    assert reported(store)[1:] == (ShadowCounts(), [])
    for _ in range(2):
        store.add(new.id, ShadowCounts(decided=5, flipped=2), flips)
    _, counts, found = reported(store)
    assert counts == ShadowCounts(decided=10, flipped=4)
    assert (found[0].times, len(found[0].examples)) == (4, 5)
    monkeypatch.setattr("pdp.facts.store.shadow.GROUPS_MAX", 1)
    store.add(new.id, ShadowCounts(), [FlipCount(GROUP._replace(rule_after="x"), 1, [])])
    assert len(reported(store).flips) == 1


def test_two_replicas_add_at_once_and_lose_nothing(store: ShadowStore) -> None:
    candidate = store.set("a", 1.0, NOW)

    def add() -> None:
        for _ in range(20):
            store.add(candidate.id, ShadowCounts(decided=1, flipped=1), [FlipCount(GROUP, 1, [])])

    threads = [Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _, counts, flips = reported(store)
    assert (counts.decided, flips[0].times) == (40, 40)


@pytest.mark.soak
def test_a_report_is_of_one_candidate_even_if_another_is_set_meanwhile(store: ShadowStore) -> None:
    """Two operators: one reads reports while the other sets candidates. Each candidate has as many
    groups of flips as decisions, so a report that mixed two would be found."""
    sets = soak.count(40, sample=20)
    written: dict[str, int] = {store.set("first", 1.0, NOW).id: 0}
    stopped = False

    def set_again() -> None:
        for index in range(1, sets + 1):
            candidate = store.set(str(index), 1.0, NOW)
            flips = [
                FlipCount(GROUP._replace(rule_after=f"{index}-{each}"), index, [])
                for each in range(index)
            ]
            written[candidate.id] = index
            store.add(candidate.id, ShadowCounts(decided=index, flipped=index), flips)

    def work() -> None:
        nonlocal stopped
        try:
            set_again()
        finally:
            stopped = True

    thread = Thread(target=work)
    thread.start()
    seen = set()
    while not stopped:
        found = reported(store)
        index = found.counts.decided
        assert len(found.flips) == index
        assert {flip.times for flip in found.flips} <= {index}
        assert not index or written[found.candidate.id] == index
        seen.add(found.candidate.id)
    thread.join()
    assert len(seen) > 1
    assert reported(store).counts.decided == sets


def test_examples_that_name_an_erased_user_are_removed_and_the_counts_stay(
    store: ShadowStore,
) -> None:
    candidate = store.set(render_document(document_of("false")), 1.0, NOW)
    others = [
        {"user": "user_2", "resource": "course:user_11", "decided_at": NOW - 1},
        {"user": "user_1", "resource": None, "decided_at": NOW},
        {"user": "user_2", "resource": "course:user_1", "decided_at": NOW - 1},
    ]
    mine = [
        {"user": "user_1", "resource": None, "decided_at": NOW - 1},
        {"user": "user_2", "resource": "person:user_1", "decided_at": NOW - 1},
    ]
    flips = [FlipCount(GROUP, 5, [*others, *mine])]
    store.add(candidate.id, ShadowCounts(decided=9, flipped=4), flips)
    assert store.forget("user_1", NOW, ("user", "person")) == 2
    assert reported(store).flips == [FlipCount(GROUP, 5, others)]
    assert reported(store).counts == ShadowCounts(decided=9, flipped=4)
    assert store.forget("user_1", NOW, ("user", "person")) == 0
