"""Decides sampled questions a second time, by a candidate policy, in a thread of its own.

The answer is given by then and does not depend on anything here. `offer` is the part on the path of
a request: it never waits, and holds at most QUEUE_MAX questions. The thread uses at most SHARE_MAX
of a core; what it does not reach is dropped and counted.
"""

import time
from collections import deque
from collections.abc import Sequence
from random import random
from typing import Any, Final, NamedTuple, Protocol

import structlog

from pdp.concurrency.background import BackgroundTask
from pdp.decision import Policy, build_policy, decide, resolve_principal
from pdp.document import parse_document
from pdp.errors import InvalidPolicy
from pdp.facts import View
from pdp.facts.store.shadow import (
    EXAMPLES_MAX,
    FlipCount,
    FlipGroup,
    ShadowCandidate,
    ShadowCounts,
    ShadowStore,
)
from pdp.model import Decision, Question, VerifiedToken

QUEUE_MAX: Final = 256
"""Questions; each may hold as much as a request may send."""
SHARE_MAX: Final = 0.1
"""Of one core."""
SLICE_SECONDS: Final = 0.002
"""Work without a pause: the thread and the event loop take turns."""
PAUSE_SECONDS: Final = 0.1
"""While nothing waits. A longer pause lets the thread wake up less often, and find more at a time:
each time costs as much as some decisions."""
REFRESH_SECONDS: Final = 2.0
"""How often the candidate is read from SQL, and counts are written there."""
GROUPS_MAX: Final = 500
"""Groups of flips between two writes; further flips are counted without a group."""

_log = structlog.get_logger(__name__)


class Count(Protocol):
    """Counts outcomes in metrics."""

    def __call__(self, outcome: str, group: FlipGroup | None, times: int = 1) -> None:
        """`outcome`: same, flipped, failed or dropped; `group`: of a flip."""


class _Sampled(NamedTuple):
    token: VerifiedToken
    view: View
    question: Question
    position: int
    """Of the question among those of its request."""
    decision: Decision
    now: float


class _Active(NamedTuple):
    candidate: ShadowCandidate
    policy: Policy


class Shadow:
    """The candidate of a process."""

    def __init__(self, store: ShadowStore, count: Count) -> None:
        self._store = store
        self._count = count
        self._active: _Active | None = None
        self._refused = ""
        self._queue: deque[_Sampled] = deque()
        # Each is written by one thread only: the event loop, and that of the shadow.
        self._dropped = 0
        self._dropped_counted = 0
        self._counts = ShadowCounts()
        self._flips: dict[FlipGroup, tuple[int, list[dict[str, Any]]]] = {}
        self._due = 0.0
        self._merged: tuple[Policy, Policy, Policy] | None = None
        self._task = BackgroundTask(
            "shadow",
            self._run,
            retry_seconds=(1, 30),
            log=_log,
            failed="shadow_not_current",
            at_end=self._write,
        )

    @property
    def is_active(self) -> bool:
        """Whether there is a candidate that decides."""
        return self._active is not None

    @property
    def waiting(self) -> int:
        """How many questions wait."""
        return len(self._queue)

    def start(self) -> None:
        """Starts the thread."""
        self._task.start()

    def stop(self) -> None:
        """Writes what was counted, and ends the thread."""
        self._task.stop(5)

    def offer(
        self,
        token: VerifiedToken,
        view: View,
        questions: Sequence[Question],
        decisions: Sequence[Decision],
        now: float,
    ) -> None:
        """Takes a sample of decisions. Called on the event loop; never waits."""
        active = self._active
        if active is None:
            return
        sample = active.candidate.sample
        for index, question in enumerate(questions):
            if sample < 1 and random() >= sample:  # noqa: S311  # no secret depends on it
                continue
            if len(self._queue) >= QUEUE_MAX:
                self._dropped += 1
            else:
                self._queue.append(_Sampled(token, view, question, index, decisions[index], now))

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> float:
        if time.monotonic() >= self._due:
            self._write()
            self._refresh()
            self._due = time.monotonic() + REFRESH_SECONDS
        active = self._active
        if active is None:
            self._queue.clear()
            return REFRESH_SECONDS
        spent = self._decide_slice(active)
        return max(PAUSE_SECONDS if not self._queue else 0, spent * (1 / SHARE_MAX - 1))

    def _decide_slice(self, active: _Active) -> float:
        """Decides what is waiting, for a short time. Returns the processor time that it took."""
        counts, began = self._counts, time.thread_time()
        same = counts.decided - counts.flipped
        spent = 0.0
        while self._queue and spent < SLICE_SECONDS:
            self._decide(active, self._queue.popleft())
            spent = time.thread_time() - began
        same = counts.decided - counts.flipped - same
        if same:
            self._count("same", None, same)
        return spent

    def _decide(self, active: _Active, sampled: _Sampled) -> None:
        view = sampled.view
        try:
            policy = self._policy(active, view.policy)
            principal = resolve_principal(
                policy, sampled.token, view.user, view.organization, sampled.now
            )
            found = decide(principal, sampled.question, view.chains[sampled.position])
        except Exception as error:  # noqa: BLE001  # a bug must not end the shadow
            self._counts.failed += 1
            self._count("failed", None)
            if self._counts.failed == 1:
                _log.exception("shadow_decision_failed", error=type(error).__name__)
            return
        self._counts.decided += 1
        before = sampled.decision
        if found.effect is before.effect:
            return
        self._counts.flipped += 1
        group = FlipGroup(
            sampled.question.permission,
            found.effect.value,
            before.rule_id or "",
            found.rule_id or "",
        )
        self._count("flipped", group)
        known = self._flips.get(group)
        if known is None:
            if len(self._flips) >= GROUPS_MAX:
                return
            known = (0, [])
        if len(known[1]) < EXAMPLES_MAX:
            known[1].append(_example(sampled, found))
        self._flips[group] = (known[0] + 1, known[1])

    def _policy(self, active: _Active, current: Policy) -> Policy:
        """The current policy with the permissions, roles and rules of the candidate."""
        merged = self._merged
        if merged is None or merged[0] is not active.policy or merged[1] is not current:
            merged = active.policy, current, current.with_rules_of(active.policy)
            self._merged = merged
        return merged[2]

    def _refresh(self) -> None:
        active = self._active
        known = "" if active is None else active.candidate.id
        candidate = self._store.read(known)
        if candidate is None:
            self._active = None
        elif candidate.id not in (known, self._refused):
            self._queue.clear()
            self._counts, self._flips = ShadowCounts(), {}
            try:
                policy = policy_of(candidate.document)
            except (InvalidPolicy, ValueError) as error:
                # Another version wrote it.
                self._active, self._refused = None, candidate.id
                _log.error("shadow_candidate_refused", error=str(error))
                return
            self._active = _Active(candidate, policy)
            _log.info("shadow_candidate_active", candidate=candidate.id, sample=candidate.sample)

    def _write(self) -> None:
        """Adds the counts to those in SQL."""
        active, counts, flips = self._active, self._counts, self._flips
        dropped = self._dropped - self._dropped_counted
        self._dropped_counted += dropped
        counts.dropped += dropped
        if dropped:
            self._count("dropped", None, dropped)
        if active is None or counts == ShadowCounts():
            return
        groups = [FlipCount(group, *found) for group, found in flips.items()]
        self._store.add(active.candidate.id, counts, groups)
        self._counts, self._flips = ShadowCounts(), {}


def policy_of(document: str) -> Policy:
    """The permissions, roles and rules of a candidate.

    Raises:
        InvalidPolicy: The document is not valid.
        ValueError: A section is missing.
    """
    parsed = parse_document(document)
    if parsed.permissions is None or parsed.roles is None:
        raise ValueError("a candidate has the sections permissions and roles")
    return build_policy(1, parsed.permissions, parsed.roles, parsed.rules or (), ())


def _example(sampled: _Sampled, found: Decision) -> dict[str, Any]:
    actor, resource = sampled.token.actor, sampled.question.resource
    return {
        "user": actor.user_id,
        "organization": actor.organization_id,
        "resource": None if resource is None else f"{resource.type}:{resource.id}",
        "before": sampled.decision.reason.name,
        "after": found.reason.name,
        "decided_at": sampled.now,
    }
