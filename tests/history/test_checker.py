"""The checker itself: what it lets pass, and what it finds. Histories are written by hand; the
bound is 2 s, times are seconds."""

import pytest

from tests.history.checker import (
    Barrier,
    Check,
    History,
    Kind,
    Outcome,
    Verdict,
    Write,
    judge,
)

BOUND = 2.0
GRANTED = Write("grant", holds=True, invoked=0, returned=1, revision=10)
REVOKED = Write("grant", holds=False, invoked=10, returned=11, revision=20)
GRANTED_AGAIN = Write("grant", holds=True, invoked=20, returned=21, revision=30)
MEMBER = Write("membership", holds=True, invoked=0, returned=1, revision=9)
LEFT = Write("membership", holds=False, invoked=15, returned=16, revision=25)


def allow(began: float, revision: int, needs: tuple[str, ...] = ("grant",), **more: int) -> Check:
    return check(Outcome.ALLOW, began, revision, needs, **more)


def deny(began: float, revision: int, needs: tuple[str, ...] = ("grant",)) -> Check:
    return check(Outcome.DENY, began, revision, needs)


def check(
    outcome: Outcome, began: float, revision: int, needs: tuple[str, ...], **more: int
) -> Check:
    return Check("somewhere", frozenset(needs), began, began + 0.1, outcome, revision, **more)


def verdict(*operations: Write | Barrier | Check) -> Verdict:
    history = History()
    for operation in operations:
        if isinstance(operation, Write):
            history.writes.append(operation)
        elif isinstance(operation, Barrier):
            history.barriers.append(operation)
        else:
            history.checks.append(operation)
    return judge(history, BOUND)


def kinds(*operations: Write | Barrier | Check) -> set[Kind]:
    return {violation.kind for violation in verdict(*operations).violations}


# --- what is let pass -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("began", "revision"),
    [(5, 10), (10.5, 10), (12.9, 19), (19.95, 30), (25, 30)],
    ids=[
        "it holds",
        "it is just being revoked",
        "revoked less than the bound ago",
        "just being granted again: the check ended after that had begun",
        "granted again",
    ],
)
def test_an_allow_is_explained_by_a_state_within_the_bound(began: float, revision: int) -> None:
    assert kinds(GRANTED, REVOKED, GRANTED_AGAIN, allow(began, revision)) == set()


def test_a_denial_is_explained_by_a_state_within_the_bound() -> None:
    assert kinds(GRANTED, REVOKED, GRANTED_AGAIN, deny(12, 20), deny(22.9, 29)) == set()


def test_what_is_not_answered_is_no_violation() -> None:
    silent = check(Outcome.NO_ANSWER, 15, 0, ("grant",))
    assert kinds(GRANTED, REVOKED, silent) == set()


def test_a_write_that_nobody_answered_may_have_happened_then_or_later_or_never() -> None:
    lost = Write("grant", holds=False, invoked=10, returned=None, revision=None)
    assert kinds(GRANTED, lost, allow(5, 10), allow(60, 10), deny(60, 99)) == set()
    lost = Write("grant", holds=True, invoked=20, returned=None, revision=None)
    assert kinds(GRANTED, REVOKED, lost, allow(60, 99), deny(60, 99)) == set()


def test_an_allow_from_before_a_barrier_is_explained_while_the_barrier_has_not_returned() -> None:
    barrier = Barrier(20, 11, 12.5)
    assert kinds(GRANTED, REVOKED, barrier, allow(12.4, 10)) == set()


def test_staleness_is_reported_place_by_place() -> None:
    found = verdict(GRANTED, REVOKED, allow(5, 10), allow(12, 10), allow(11.5, 10))
    assert found.staleness == {"somewhere": [0.5, 1.0]}


# --- what is found --------------------------------------------------------------------------------


def test_an_allow_past_the_bound_is_stale() -> None:
    assert kinds(GRANTED, REVOKED, allow(13, 10)) == {Kind.STALE}
    assert kinds(GRANTED, REVOKED, GRANTED_AGAIN, allow(19.8, 10)) == {Kind.STALE}


def test_an_allow_that_nothing_ever_explained_is_stale() -> None:
    assert Kind.STALE in kinds(allow(5, 10))
    revoked_first = Write("grant", holds=False, invoked=0, returned=1, revision=5)
    assert Kind.STALE in kinds(revoked_first, allow(5, 10))


def test_facts_must_have_held_together() -> None:
    needs = ("grant", "membership")
    both = (GRANTED, REVOKED, MEMBER, LEFT, GRANTED_AGAIN)
    assert kinds(*both, allow(12, 10, needs)) == set()
    # Within the bound either of them held, but the grant was back only when the membership was not.
    together = (
        Write("membership", holds=True, invoked=0, returned=1, revision=9),
        Write("membership", holds=False, invoked=19.5, returned=19.6, revision=25),
    )
    assert Kind.STALE in kinds(GRANTED, REVOKED, *together, GRANTED_AGAIN, allow(20.5, 30, needs))


def test_an_allow_from_before_a_barrier_that_has_returned_is_found_at_once() -> None:
    barrier = Barrier(20, 11, 11.5)
    assert kinds(GRANTED, REVOKED, barrier, allow(11.6, 10)) == {Kind.BARRIER}
    # One for a later revision says more; one for an earlier says nothing of this.
    assert kinds(GRANTED, REVOKED, Barrier(22, 11, 11.5), allow(11.6, 10)) == {Kind.BARRIER}
    assert kinds(GRANTED, REVOKED, Barrier(19, 11, 11.5), allow(11.6, 10)) == set()


def test_an_answer_from_before_the_revision_that_was_asked_for_is_found() -> None:
    assert kinds(GRANTED, REVOKED, allow(11.2, 10, at_least_revision=20)) == {Kind.UNREACHED}
    assert kinds(GRANTED, REVOKED, allow(11.2, 10, at_least_revision=19)) == set()


def test_an_answer_that_its_own_revision_does_not_explain_is_found() -> None:
    """A value that was read at one revision and kept as if it were of a later one."""
    assert kinds(GRANTED, REVOKED, allow(11.2, 20)) == {Kind.TORN}
    assert kinds(GRANTED, allow(5, 9)) == {Kind.TORN}


def test_a_denial_of_what_held_all_the_time_is_found() -> None:
    assert kinds(GRANTED, deny(5, 5)) == {Kind.DENIED}
    assert kinds(GRANTED, deny(2, 12)) == {Kind.DENIED}


def test_a_history_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="at the same time"):
        verdict(GRANTED, Write("grant", holds=False, invoked=0.5, returned=2, revision=11))
    lost = Write("grant", holds=False, invoked=10, returned=None, revision=None)
    with pytest.raises(ValueError, match="nobody knows"):
        verdict(GRANTED, lost, Write("grant", holds=False, invoked=11, returned=12, revision=30))
