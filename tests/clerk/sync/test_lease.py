"""The sync lease: which process syncs, and where a sync continues."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pdp.clerk.sync.lease import (
    LEASE_SECONDS,
    RESUME_SECONDS,
    LastSync,
    LeaseNotHeld,
    read_last_sync,
)
from pdp.clerk.sync.sync import Progress
from pdp.errors import ClerkUnavailable
from tests.kit.clerk.api_server import Answer, ClerkApiServer, Request, too_many
from tests.kit.clerk.worlds import NOW, PAGE_ITEMS, World, add_school


def test_an_interrupted_sync_continues_where_it_was(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk, 2 * PAGE_ITEMS)

    def fail_at_the_third_page_of_users(request: Request) -> None:
        if request.path == "/users" and clerk.asked("/users") == 2 and not clerk.instead:
            clerk.answer_next(Answer(body=b"{}"), path="/users")

    clerk.on_request = fail_at_the_third_page_of_users
    with pytest.raises(ClerkUnavailable):
        small_world.sync()
    clerk.on_request = lambda _: None
    clerk.requests.clear()
    state, _ = read_last_sync(small_world.store)

    summary = small_world.sync()
    assert summary.run == state.run
    assert summary.drift == len(clerk.objects)  # counted from its beginning
    assert small_world.facts() == small_world.account()
    assert clerk.asked("/organizations") == 0
    assert clerk.asked("/users/count") == 0
    assert clerk.asked("/users") == 1
    assert small_world.progress[0] == Progress("users", 2 * PAGE_ITEMS + 2, 2 * PAGE_ITEMS)


def test_a_sync_that_was_interrupted_long_ago_starts_from_the_beginning(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk)
    clerk.answer_next(Answer(body=b"{}"), path="/organization_memberships")
    with pytest.raises(ClerkUnavailable):
        small_world.sync()
    run = read_last_sync(small_world.store)[0].run
    small_world.now += RESUME_SECONDS
    assert small_world.sync().run == run + 1
    assert clerk.asked("/users") == 2


def test_a_dry_run_neither_continues_a_sync_nor_is_continued(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk)
    for dry_run in (False, True):
        clerk.answer_next(Answer(body=b"{}"), path="/organization_memberships")
        with pytest.raises(ClerkUnavailable):
            small_world.sync(dry_run=dry_run)
    assert clerk.asked("/users") == 2
    small_world.sync()
    assert clerk.asked("/users") == 3
    assert small_world.facts() == small_world.account()


@contextmanager
def held(world: World, clerk: ClerkApiServer, path: str) -> Iterator[list[BaseException]]:
    """Another process, whose sync waits for an answer from a path as long as the block lasts. What
    ended it is in the list then."""
    asked, let_go, ended = threading.Event(), threading.Event(), []

    def renew(request: Request) -> None:
        if request.path == path and not asked.is_set():
            asked.set()
            let_go.wait(10)

    def run() -> None:
        try:
            other.sync()
        except BaseException as error:  # noqa: BLE001
            ended.append(error)

    other = World(world.engine, clerk)
    clerk.on_request = renew
    thread = threading.Thread(target=run)
    thread.start()
    assert asked.wait(10)
    yield ended
    let_go.set()
    thread.join(10)
    assert not thread.is_alive()


def test_of_two_processes_one_syncs(world: World, clerk: ClerkApiServer) -> None:
    add_school(clerk)
    with held(world, clerk, "/users") as ended:
        with pytest.raises(LeaseNotHeld):
            world.sync()
        assert clerk.asked("/permissions") == 0
    assert ended == []
    assert world.facts() == world.account()
    assert world.sync().drift == 0


def test_a_process_that_says_nothing_for_long_is_replaced_and_stops(
    world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk)
    with held(world, clerk, "/users") as ended:
        world.now += LEASE_SECONDS + 1
        summary = world.sync()
        assert clerk.asked("/organizations") == 1  # it goes on with the same sync
        assert world.facts() == world.account()
    assert [type(error) for error in ended] == [LeaseNotHeld]
    assert read_last_sync(world.store)[0].run == summary.run
    assert world.facts() == world.account()


def test_a_process_that_waits_for_clerk_is_not_replaced(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk)
    clerk.answer_next(too_many("100"), path="/users")
    other = World(small_world.engine, clerk)
    refused = 0

    def wait(seconds: float) -> None:
        nonlocal refused
        small_world.now = other.now = small_world.now + seconds
        if seconds and clerk.asked("/users") == 1:
            with pytest.raises(LeaseNotHeld):
                other.sync()
            refused += 1

    small_world.pause = wait
    small_world.sync()
    assert small_world.now == NOW + 100
    assert refused > 1


def test_periodic_syncs_keep_their_interval_in_all_processes(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk)
    small_world.sync(interval=900, when_due=True)
    small_world.now += 899
    with pytest.raises(LeaseNotHeld):
        small_world.sync(interval=900, when_due=True)
    small_world.now += 1
    assert small_world.sync(interval=900, when_due=True).drift == 0
    small_world.sync()  # by hand: at any time
    # A time from a clock that was wrong, or from longer intervals, is not waited for.
    small_world.sync(interval=86_400)
    small_world.sync(interval=900, when_due=True)


def test_what_the_last_complete_sync_found_is_kept(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk)
    small_world.sync()
    assert read_last_sync(small_world.store)[1] == LastSync(NOW, len(clerk.objects))
    small_world.now += 10
    clerk.answer_next(Answer(body=b"{}"), path="/organization_memberships")
    with pytest.raises(ClerkUnavailable):
        small_world.sync()
    small_world.sync(dry_run=True)
    assert read_last_sync(small_world.store)[1] == LastSync(NOW, len(clerk.objects))
    small_world.sync()
    assert read_last_sync(small_world.store)[1] == LastSync(NOW + 10, 0)
