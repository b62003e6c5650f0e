"""Role names in Clerk's `public_metadata`: what is written there, when, and that circles end."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from pdpapi.v1.administration_service_pb2 import (
    CreateGrantRequest,
    DeleteGrantRequest,
    GetUserRequest,
)
from pdpapi.v1.administration_service_pb2 import (
    Grant as GrantMessage,
)
from pydantic import SecretStr
from sqlalchemy import Engine

from pdp.administrator import Administrator, UserSeen
from pdp.clerk import claims, pusher
from pdp.clerk.claims import Outcome, find_differences, opened_api, push_users, read_claim
from pdp.clerk.pusher import Pusher
from pdp.clerk.reconciler import Reconciler
from pdp.clock import wall_clock
from pdp.errors import ClerkRefused
from pdp.facts import Store
from pdp.model import (
    EVERYWHERE,
    Grant,
    InOrganization,
    OnResource,
    ResourceRef,
    Role,
    Scope,
    ToOrganizationRole,
    ToUser,
    User,
)
from pdp.settings import ClerkSettings
from pdp.sql import open_engine
from tests.kit import clerk_events
from tests.kit.clerk_api import SECRET_KEY, Answer, ClerkApiServer, Object, Request, too_many
from tests.kit.clerk_events import INSTANCE_ID, SECRET, event, user
from tests.kit.server import Stubs, running_server
from tests.kit.waiting import eventually

NOW = 1_800_000_000.0
ROLES = ("A", "B", "C")


class Clerk(ClerkApiServer):
    """Remembers what is written, and tells webhooks of it."""

    def reset(self) -> None:
        super().reset()
        self.written: list[tuple[str, Any]] = []
        """(user id, pdp_roles) of each PATCH."""
        self.endpoint: int | None = None
        """Where `user.updated` is delivered, before the PATCH is answered."""
        self.held: list[bytes] | None = None
        """Keeps the messages instead."""

    def of(self, user_id: str) -> list[Any]:
        return [roles for one, roles in list(self.written) if one == user_id]

    def tell(self, body: bytes) -> None:
        assert self.endpoint is not None
        assert clerk_events.deliver(self.endpoint, body)[0] == 200

    def _patch(self, parts: list[str], body: bytes) -> Answer | None:
        answer = super()._patch(parts, body)
        if answer is not None:
            changed: Object = self.objects[parts[1]]
            self.written.append((parts[1], changed["public_metadata"].get("pdp_roles")))
            message = event("user.updated", changed, at=changed["updated_at"])
            if self.held is not None:
                self.held.append(message)
            elif self.endpoint is not None:
                self.tell(message)
        return answer


@pytest.fixture(scope="module")
def shared_clerk() -> Iterator[Clerk]:
    with Clerk() as server:
        yield server


@pytest.fixture
def clerk(shared_clerk: Clerk) -> Clerk:
    shared_clerk.reset()
    return shared_clerk


class World:
    """A database with some roles, and who writes it."""

    def __init__(self, engine: Engine, clerk: Clerk) -> None:
        self.store = Store(engine)
        self.clerk = clerk
        self.now = NOW
        self.told: list[int] = []
        self.administrator = Administrator(self.store, on_write=self.told.append)
        self.settings = ClerkSettings(
            instance_id=INSTANCE_ID, secret_key=SecretStr(SECRET_KEY), api_url=clerk.url
        )
        for name in ROLES:
            self.administrator.create(Role(name))

    def clock(self) -> float:
        return self.now

    def add(self, *ids: str, roles: Sequence[str] = (), said: Any = None) -> None:
        """Users here and at Clerk, who say what they have."""
        metadata = {"theme": "dark"} | ({} if said is None else {"pdp_roles": said})
        for id_ in ids:
            self.clerk.add(user(id_, public_metadata=metadata))
            self.administrator.create(User(id_, attributes=metadata))
            for role in roles:
                self.grant(id_, role)

    def grant(self, user_id: str, role: str, scope: Scope = EVERYWHERE, **window: float) -> str:
        grant = Grant("", role, ToUser(user_id), scope, **window)
        return self.administrator.create(grant)[0].id

    def wanted(self, user_id: str) -> Sequence[str]:
        claim = read_claim(self.store, user_id, self.clock)
        assert claim is not None
        return claim.wanted

    def push(self, *ids: str) -> list[tuple[str, Outcome]]:
        with opened_api(self.settings, time.sleep) as api:
            return list(push_users(api, self.store, ids, self.clock))

    @contextlib.contextmanager
    def pushing(self) -> Iterator[Pusher]:
        """A pusher that is told of what is written from now on."""
        one = Pusher(self.settings, self.store, clock=self.clock)
        self.administrator = Administrator(self.store, on_write=one.tell)
        one.start()
        try:
            yield one
        finally:
            one.stop()


@pytest.fixture
def world(engine: Engine, clerk: Clerk) -> World:
    return World(engine, clerk)


@pytest.fixture
def small_world(sqlite_url: str, clerk: Clerk) -> Iterator[World]:
    """On SQLite alone, where the database makes no difference."""
    engine = open_engine(sqlite_url)
    yield World(engine, clerk)
    engine.dispose()


# --- what is to be said ---------------------------------------------------------------------------


def test_the_roles_that_hold_everywhere_now_are_wanted_sorted_and_once(world: World) -> None:
    world.add("user_1")
    world.grant("user_1", "C")
    world.grant("user_1", "B", not_before=NOW, expires_at=NOW + 1)
    world.grant("user_1", "B", expires_at=NOW + 2)
    assert world.wanted("user_1") == ["B", "C"]
    world.grant("user_1", "A", not_before=NOW + 2)
    world.grant("user_1", "A", expires_at=NOW)
    world.grant("user_1", "A", InOrganization("org_1"))
    world.grant("user_1", "A", OnResource(ResourceRef("course", "algebra")))
    world.administrator.create(Grant("", "A", ToOrganizationRole("org:admin")))
    assert world.wanted("user_1") == ["B", "C"]
    world.now = NOW + 2
    assert world.wanted("user_1") == ["A", "C"]


def test_who_differs_is_found_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "PAGE_USERS", 2)
    world.add("user_1", "user_2")
    world.add("user_3", "user_4", roles=["B", "A"])
    world.add("user_5", roles=["A", "B"], said=["A", "B"])
    world.add("user_6", said=["A"])
    world.add("user_7", said=[])
    world.administrator.create(Grant("", "A", ToUser("user_unknown")))
    pages = list(find_differences(world.store, world.clock))
    assert [looked_at for looked_at, _ in pages] == [2, 2, 2, 1]
    found = {claim.user_id: claim.wanted for _, page in pages for claim in page}
    assert found == {"user_3": ["A", "B"], "user_4": ["A", "B"], "user_6": []}


def test_what_differs_is_written_and_nothing_else_is_touched(small_world: World) -> None:
    world = small_world
    world.add("user_1", roles=["A"])
    world.add("user_2", roles=["A"], said=["A"])
    world.add("user_3", said=["A"])
    world.add("user_4", roles=["B"])
    world.clerk.remove("user_4")
    world.clerk.answer_next(too_many(retry_after="0"), path="/users/user_1/metadata")
    assert world.push("user_1", "user_2", "user_3", "user_4", "user_5") == [
        ("user_1", Outcome.WRITTEN),
        ("user_2", Outcome.SAME),
        ("user_3", Outcome.WRITTEN),
        ("user_4", Outcome.GONE),
        ("user_5", Outcome.UNKNOWN),
    ]
    assert world.clerk.written == [("user_1", ["A"]), ("user_3", [])]
    assert world.clerk.objects["user_1"]["public_metadata"] == {"theme": "dark", "pdp_roles": ["A"]}


def test_nothing_is_written_into_another_instance(small_world: World) -> None:
    small_world.add("user_1", roles=["A"])
    small_world.settings = small_world.settings.model_copy(update={"instance_id": "ins_other"})
    with pytest.raises(ClerkRefused):
        small_world.push("user_1")
    assert small_world.clerk.written == []


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


def test_a_grant_that_goes_before_its_push_is_heard_of_is_taken_back(small_world: World) -> None:
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
        heard = UserSeen(id="user_1", updated_at=now, noticed_at=now, attributes=attributes)
        small_world.administrator.observe([heard])

    with small_world.pushing() as one:
        small_world.grant("user_1", "A")
        eventually(lambda: small_world.clerk.of("user_1") == [["A"]])
        hear("A")
        eventually(lambda: not one._unheard)
        hear("A", "ROOT")
        eventually(lambda: small_world.clerk.of("user_1") == [["A"]] * 2)
        # What was pushed is newer than what is heard, as long as it was not heard of itself: but
        # not for ever, for its message may be lost.
        hear("ROOT")
        one.sweep()
        eventually(lambda: small_world.clerk.of("user_1") == [["A"]] * 3)


def test_a_writer_never_waits_for_clerk_and_what_failed_is_pushed_later(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pusher, "RETRY_SECONDS", 0.1)
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
        began = time.monotonic()
        for id_ in ("user_1", "user_2", "user_3"):
            world.grant(id_, "A")
        assert time.monotonic() - began < 5
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
            began = time.monotonic()
        assert time.monotonic() - began < pusher.STOP_SECONDS_MAX + 1


def test_what_is_too_much_is_found_by_a_sweep(
    small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pusher, "REVISIONS_MAX", 1)
    monkeypatch.setattr(pusher, "USERS_MAX", 3)
    monkeypatch.setattr(pusher, "PAGE_USERS", 2)
    monkeypatch.setattr(claims, "PAGE_USERS", 2)
    world = small_world
    ids = [f"user_{n}" for n in range(9)]
    world.add(*ids)
    one = Pusher(world.settings, world.store, clock=world.clock)
    for id_ in ids:
        world.grant(id_, "A")
    for revision in world.told:
        one.tell(revision)
    one.start()
    eventually(lambda: {id_ for id_, _ in world.clerk.written} == set(ids))
    one.stop()
    assert len(world.clerk.written) == len(ids)


def test_each_periodic_sync_ends_with_a_sweep(small_world: World) -> None:
    """So what was lost between a commit and its push, and grants that ran out, are healed."""
    world = small_world
    world.now = time.time()
    world.add("user_1", roles=["A"])
    world.grant("user_1", "B", expires_at=world.now - 1)
    with world.pushing() as one:
        reconciler = Reconciler(
            world.settings.model_copy(update={"reconcile_seconds": 60}),
            world.store,
            world.administrator,
            clock=wall_clock,
            token_lifetime_seconds_max=60,
            on_synced=one.sweep,
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

    def newcomer(self) -> str:
        """Known to both."""
        id_ = f"user_circle{next(self._numbers)}"
        newcomer = user(id_, public_metadata={"theme": "dark"})
        self.clerk.add(newcomer)
        self.clerk.tell(event("user.created", newcomer))
        return id_

    def grant(self, user_id: str, role: str) -> str:
        request = CreateGrantRequest(grant=GrantMessage(role=role, user_id=user_id))
        return self._administration.CreateGrant(request, timeout=10).grant.id

    def revoke(self, grant_id: str) -> None:
        self._administration.DeleteGrant(DeleteGrantRequest(id=grant_id), timeout=10)

    def heard(self, user_id: str) -> Any:
        """`pdp_roles` as the PDP last heard it."""
        found = self._administration.GetUser(GetUserRequest(id=user_id), timeout=10).user
        values = dict(found.attributes.fields)["pdp_roles"].list_value.values
        return [one.string_value for one in values]

    def await_rest(self) -> None:
        """Until whatever was waiting to be pushed has been: who was pushed now and then once more
        comes behind all who waited before, for pushes of one user are a second apart."""
        last = self.newcomer()
        for role in ("A", "B"):
            self.grant(last, role)
            eventually(
                lambda role=role: self.clerk.of(last)[-1:] and role in self.clerk.of(last)[-1]
            )


@pytest.fixture
def circle(stubs: tuple[Stubs, int], clerk: Clerk) -> Circle:
    return Circle(*stubs, clerk)


def test_a_push_that_comes_back_as_a_webhook_is_the_only_one(circle: Circle) -> None:
    somebody = circle.newcomer()
    circle.grant(somebody, "A")
    eventually(lambda: circle.clerk.of(somebody))
    circle.await_rest()
    assert circle.heard(somebody) == ["A"]
    assert circle.clerk.of(somebody) == [["A"]]


def test_webhooks_that_come_late_in_any_order_and_twice_come_to_rest(circle: Circle) -> None:
    """Each message about an older push costs at most one more."""
    somebody = circle.newcomer()
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
    assert circle.heard(somebody) == circle.clerk.of(somebody)[-1] == ["A", "C"]
    assert len(circle.clerk.of(somebody)) <= 2 * pushed - 1
