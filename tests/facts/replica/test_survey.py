"""A survey reads at the revision that is served, whatever is written meanwhile."""

import threading
from collections.abc import Callable

import pytest

from pdp.decision import Search
from pdp.errors import BrokenReference, InvalidRequest, RevisionNotReached
from pdp.facts import Replica, Store, Survey, View
from pdp.limits import RESOURCE_DEPTH_MAX
from pdp.model import (
    Grant,
    Permission,
    Resource,
    ResourceRef,
    Role,
    ToOrganizationRole,
    ToUser,
    User,
)
from tests.kit.facts.writing import write
from tests.kit.waiting import eventually, run

Starter = Callable[..., Replica]
COURSES = Search("course", everything=True)


def look(survey: Survey) -> View:
    return survey.view("user_1", "org_1", survey.candidates(COURSES, "", 100))


def test_a_survey_finds_what_a_view_holds(store: Store, start: Starter) -> None:
    below = Resource("course", "2", "org_1", ResourceRef("course", "1"))
    write(
        store, Role("R"), User("user_1"), Grant("g", "R", ToUser("user_1")),
        Grant("h", "R", ToOrganizationRole("org:a")), Resource("course", "1", "org_1"), below,
    )  # fmt: skip
    replica = start()
    found = run(replica.survey(look))
    asked = [Resource("course", "1"), Resource("course", "2")]
    assert found == run(replica.view("user_1", "org_1", asked))
    assert run(replica.survey(look)) == found


def test_what_a_survey_reads_stays_out_of_the_caches(store: Store, start: Starter) -> None:
    """A list must not evict the cache entries that Check needs."""
    write(store, User("user_1"), *(Resource("course", str(number)) for number in range(50)))
    replica = start()
    assert len(run(replica.survey(look)).chains) == 50
    assert len(replica.snapshot.caches.resources) == 0


@pytest.mark.parametrize("attempts", [3, 0], ids=["optimistic", "alone"])
def test_a_survey_sees_one_revision_while_others_write(
    store: Store, start: Starter, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    """A permission and a resource are written together: policy and facts never disagree."""
    monkeypatch.setattr("pdp.facts.replica.replica.ATTEMPTS_MAX", attempts)
    write(store, User("user_1"))
    replica = start()
    stop = threading.Event()
    number = 0

    def keep_writing() -> None:
        nonlocal number
        while not stop.is_set():
            number += 1
            name = f"{number:06}"
            write(store, Permission(f"course:x{name}"), Resource("course", name))

    def read(survey: Survey) -> tuple[int, int, View]:
        view = look(survey)
        declared = len(view.policy.permissions)
        found = len(survey.candidates(COURSES, "", 100_000))
        return declared, found, view

    thread = threading.Thread(target=keep_writing)
    thread.start()
    try:
        seen = 0
        for _ in range(10):
            declared, found, view = run(replica.survey(read))
            assert declared == found
            assert view.revision >= seen
            seen = view.revision
            replica.confirm(view)
        eventually(lambda: run(replica.survey(read))[1] > 10)
    finally:
        stop.set()
        thread.join()


def test_a_survey_waits_for_a_revision(store: Store, start: Starter) -> None:
    replica = start()
    revision = write(store, Resource("course", "1"))
    assert len(run(replica.survey(look, revision)).chains) == 1
    with pytest.raises(RevisionNotReached):
        run(replica.survey(look, revision + 1))


def test_ancestors_in_a_circle_are_no_answer(store: Store, start: Starter) -> None:
    deep = RESOURCE_DEPTH_MAX + 2
    write(
        store,
        *(Resource("course", str(n), None, ResourceRef("course", str(n + 1))) for n in range(deep)),
    )
    with pytest.raises(BrokenReference):
        run(start().survey(look))


def test_a_type_that_cannot_be_stored_is_refused(store: Store, start: Starter) -> None:
    replica = start()
    with pytest.raises(InvalidRequest):
        run(
            replica.survey(lambda survey: survey.candidates(Search("a\0b", everything=True), "", 1))
        )
