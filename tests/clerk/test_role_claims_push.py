"""Role names are pushed to Clerk when grants change, and circles end."""

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pdpapi.v1 import administration_service_pb2 as pb
from sqlalchemy import Engine

from pdp.clerk import role_claims, role_claims_push
from pdp.clerk.observations import UserSeen
from pdp.clerk.role_claims_push import Pusher
from pdp.clerk.sync.scheduler import Reconciler
from pdp.clock import wall_clock
from pdp.database.engine import open_engine
from pdp.model import Grant
from tests.kit.clerk.api_server import SECRET_KEY, Answer, Request, too_many
from tests.kit.clerk.events import INSTANCE_ID, SECRET, event, user
from tests.kit.clerk.role_names import ROLES, Clerk, World
from tests.kit.server import Stubs, running_server
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually


@pytest.fixture(scope="module")
def shared_clerk() -> Iterator[Clerk]:
    with Clerk() as server:
        yield server


@pytest.fixture
def clerk(shared_clerk: Clerk) -> Clerk:
    shared_clerk.reset()
    return shared_clerk


@pytest.fixture
def world(engine: Engine, clerk: Clerk) -> World:
    return World(engine, clerk)


@pytest.fixture
def small_world(sqlite_url: str, clerk: Clerk) -> Iterator[World]:
    """On SQLite only, for tests that do not depend on the database."""
    engine = open_engine(sqlite_url)
    yield World(engine, clerk)
    engine.dispose()


# --- on each change -------------------------------------------------------------------------------


def test_a_change_of_grants_is_pushed_and_others_users_are_left_alone(world: World) -> None:
    world.add("user_1", "user_2", roles=["B"])
    with world.pushing():
        world.grant("user_1", "A")
        eventually(lambda: world.clerk.written == [("user_1", ["A", "B"])])


def test_quick_changes_of_one_user_become_few_pushes(small_world: World) -> None:
    """Clerk takes 10 changes of a user's metadata in 10 s."""
    small_world.add("user_1")
    with small_world.pushing():
        began = time.monotonic()
        for _ in range(5):
            for role in ROLES:
                grant_id = small_world.grant("user_1", role)
                small_world.administrator.delete(Grant, (grant_id,))
        small_world.grant("user_1", "B")
        eventually(lambda: small_world.clerk.of("user_1")[-1:] == [["B"]])
        assert len(small_world.clerk.written) <= 2 + time.monotonic() - began


def test_a_grant_that_ends_before_its_push_is_confirmed_is_taken_back(small_world: World) -> None:
    small_world.add("user_1")
    with small_world.pushing():
        grant_id = small_world.grant("user_1", "A")
        eventually(lambda: small_world.clerk.of("user_1") == [["A"]])
        small_world.administrator.delete(Grant, (grant_id,))  # the mirror says nothing of "A" yet
        eventually(lambda: small_world.clerk.of("user_1") == [["A"], []])


def test_what_somebody_else_writes_there_is_overwritten(small_world: World) -> None:
    small_world.add("user_1")
    numbers = itertools.count(1)

    def hear(*roles: str) -> None:
        """The mirror follows, as after a webhook or a sync."""
        now = next(numbers)
        attributes = {"pdp_roles": list(roles)}
        seen = UserSeen(id="user_1", updated_at=now, noticed_at=now, attributes=attributes)
        small_world.directory.observe([seen])

    with small_world.pushing() as pusher:
        unconfirmed = pusher._unconfirmed
        small_world.grant("user_1", "A")
        # Clerk has it a moment before the pusher knows.
        eventually(lambda: len(unconfirmed) == 1)
        assert small_world.clerk.of("user_1") == [["A"]]
        hear("A")
        eventually(lambda: len(unconfirmed) == 0)
        hear("A", "ROOT")
        eventually(lambda: small_world.clerk.of("user_1") == [["A"]] * 2)
        # What was pushed is newer than a message, until a message about the push has arrived: but
        # not forever, for its message may be lost.
        hear("ROOT")
        pusher.sweep()
        eventually(lambda: small_world.clerk.of("user_1") == [["A"]] * 3)


def test_a_writer_never_waits_for_clerk_and_what_failed_is_pushed_later(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_claims_push, "RETRY_SECONDS", 0.1)
    world = small_world
    world.add("user_1", "user_2", "user_3")
    released = threading.Event()

    def hold(request: Request) -> None:
        if request.method == "PATCH":
            released.wait(20)

    with world.pushing():
        world.clerk.on_request = hold
        world.clerk.answer_next(
            Answer(422, b'{"errors": [{"code": "form_param_invalid"}]}'),
            path="/users/user_1/metadata",
        )
        world.clerk.answer_next(too_many(retry_after="9999"), path="/users/user_2/metadata")
        watch = Stopwatch()
        for id_ in ("user_1", "user_2", "user_3"):
            world.grant(id_, "A")
        assert watch.seconds < 5
        assert world.clerk.written == []
        released.set()
        # Refused for good; refused for now; taken.
        eventually(lambda: sorted(world.clerk.written) == [("user_2", ["A"]), ("user_3", ["A"])])


def test_it_stops_promptly_whatever_clerk_does(small_world: World) -> None:
    for answer in (too_many(retry_after="60"), Answer(seconds=30)):
        small_world.add(f"user_{answer.status}")
        with small_world.pushing():
            small_world.clerk.answer_next(answer, path=f"/users/user_{answer.status}/metadata")
            asked = len(small_world.clerk.requests)
            small_world.grant(f"user_{answer.status}", "A")
            eventually(lambda: len(small_world.clerk.requests) > asked)  # noqa: B023
            watch = Stopwatch()
        assert watch.seconds < role_claims_push.STOP_SECONDS_MAX + 1


def test_what_is_too_much_is_found_by_a_sweep(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_claims_push, "REVISIONS_MAX", 1)
    monkeypatch.setattr(role_claims_push, "USERS_MAX", 3)
    monkeypatch.setattr(role_claims_push, "PAGE_USERS", 2)
    monkeypatch.setattr(role_claims, "PAGE_USERS", 2)
    world = small_world
    ids = [f"user_{n}" for n in range(9)]
    world.add(*ids)
    pusher = Pusher(world.settings, world.store, clock=world.clock)
    for id_ in ids:
        world.grant(id_, "A")
    for revision in world.written:
        pusher.notify(revision)
    pusher.start()
    eventually(lambda: {id_ for id_, _ in world.clerk.written} == set(ids))
    pusher.stop()
    assert len(world.clerk.written) == len(ids)


def test_each_periodic_sync_ends_with_a_sweep(small_world: World) -> None:
    """So what was lost between a commit and its push, and grants that ran out, are healed."""
    world = small_world
    world.now = time.time()
    world.add("user_1", roles=["A"])
    world.grant("user_1", "B", expires_at=world.now - 1)
    with world.pushing() as pusher:
        reconciler = Reconciler(
            world.settings.model_copy(update={"reconcile_seconds": 60}),
            world.store,
            world.directory,
            clock=wall_clock,
            token_lifetime_seconds_max=60,
            on_synced=pusher.sweep,
        )
        reconciler.start()
        try:
            eventually(lambda: world.clerk.written == [("user_1", ["A"])])
        finally:
            reconciler.stop()


# --- circles --------------------------------------------------------------------------------------

POLICY = """
permissions: [course:edit]
roles: {A: {allow: [course:edit]}, B: {}, C: {}}
"""


@pytest.fixture(scope="module")
def stubs(
    shared_clerk: Clerk, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stubs, int]]:
    """A PDP that pushes, and hears through webhooks what it has pushed; with its HTTP port."""
    settings = {
        "instance_id": INSTANCE_ID,
        "webhook_secrets": [SECRET],
        "secret_key": SECRET_KEY,
        "api_url": shared_clerk.url,
        "push_claims": True,
    }
    directory = tmp_path_factory.mktemp("claims")
    with running_server(directory, POLICY, CLERK=settings) as (server, stubs):
        yield stubs, server.http_port


class Circle:
    """The PDP, and Clerk which answers each push by a webhook."""

    _numbers = itertools.count()

    def __init__(self, stubs: Stubs, port: int, clerk: Clerk) -> None:
        self._administration = stubs.administration
        self.clerk = clerk
        clerk.endpoint = port

    def new_user(self) -> str:
        """Known to both."""
        id_ = f"user_circle{next(self._numbers)}"
        new_user = user(id_, public_metadata={"theme": "dark"})
        self.clerk.add(new_user)
        self.clerk.tell(event("user.created", new_user))
        return id_

    def grant(self, user_id: str, role: str) -> str:
        request = pb.CreateGrantRequest(grant=pb.Grant(role=role, user_id=user_id))
        return self._administration.CreateGrant(request, timeout=10).grant.id

    def revoke(self, grant_id: str) -> None:
        self._administration.DeleteGrant(pb.DeleteGrantRequest(id=grant_id), timeout=10)

    def reported(self, user_id: str) -> Any:
        """`pdp_roles` as Clerk last reported it."""
        found = self._administration.GetUser(pb.GetUserRequest(id=user_id), timeout=10).user
        values = dict(found.attributes.fields)["pdp_roles"].list_value.values
        return [value.string_value for value in values]

    def await_rest(self) -> None:
        """Until whatever was waiting to be pushed has been: who was pushed now and then once more
        comes behind all who waited before, for pushes of one user are a second apart."""
        last = self.new_user()
        for role in ("A", "B"):
            self.grant(last, role)
            eventually(
                lambda role=role: self.clerk.of(last)[-1:] and role in self.clerk.of(last)[-1]
            )


@pytest.fixture
def circle(stubs: tuple[Stubs, int], clerk: Clerk) -> Circle:
    return Circle(*stubs, clerk)


def test_a_push_that_comes_back_as_a_webhook_is_the_only_one(circle: Circle) -> None:
    somebody = circle.new_user()
    circle.grant(somebody, "A")
    eventually(lambda: circle.clerk.of(somebody))
    circle.await_rest()
    assert circle.reported(somebody) == ["A"]
    assert circle.clerk.of(somebody) == [["A"]]


def test_webhooks_that_come_late_in_any_order_and_twice_come_to_rest(circle: Circle) -> None:
    """Each message about an older push costs at most one more."""
    somebody = circle.new_user()
    circle.clerk.held = held = []
    circle.grant(somebody, "A")
    eventually(lambda: circle.clerk.of(somebody) == [["A"]])
    second = circle.grant(somebody, "B")
    circle.grant(somebody, "C")
    eventually(lambda: circle.clerk.of(somebody)[-1] == ["A", "B", "C"])
    circle.revoke(second)
    eventually(lambda: circle.clerk.of(somebody)[-1] == ["A", "C"])
    pushed = len(circle.clerk.of(somebody))
    assert pushed in (3, 4)
    circle.clerk.held = None
    for number in (1, 0, 1, *range(2, pushed), 0):
        circle.clerk.tell(held[number])
    circle.await_rest()
    assert circle.reported(somebody) == circle.clerk.of(somebody)[-1] == ["A", "C"]
    assert len(circle.clerk.of(somebody)) <= 2 * pushed - 1
