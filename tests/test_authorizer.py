"""Requests that routes turn into questions: by which policy, and what of them is logged."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pdp_routes import PUBLIC, Needs, Requirement

from pdp.audit import DecisionRecord, Recorder
from pdp.audit.record_building import REQUEST_CHARACTERS_MAX
from pdp.authorizer import Authorizer
from pdp.database.engine import open_engine
from pdp.errors import FactsStale
from pdp.facts import Replica, Store
from pdp.model import (
    Actor,
    Effect,
    Grant,
    HttpRequest,
    Membership,
    Organization,
    Permission,
    Question,
    Reason,
    Resource,
    ResourceType,
    Role,
    Route,
    Rule,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
    VerifiedToken,
)
from pdp.recording import Recording
from tests.kit.audit.logs import records_of
from tests.kit.identity.verifiers import make_verifier
from tests.kit.tokens import session_token
from tests.kit.waiting import eventually, run

VIEW, ADMIN = Needs("course:view", "course/{id}"), Needs("admin:access")
ROUTES: Mapping[str, Requirement] = {
    "GET /courses/{id}": VIEW,
    "/admin/**": ADMIN,
    "GET /healthz": PUBLIC,
}


class Hooked:
    """A verifier before which something happens."""

    def __init__(self) -> None:
        self.verifier = make_verifier(clock=time.time)
        self.before: Callable[[], None] = lambda: None

    def cached(self, text: str, now: float) -> None:
        """Nothing is remembered: every token is verified."""

    async def verify(self, text: str) -> Any:
        self.before()
        return await self.verifier.verify(text)


@dataclass
class World:
    """An authorizer on a database."""

    store: Store
    replica: Replica
    recorder: Recorder
    verifier: Hooked
    authorizer: Authorizer

    def write(self, put: Mapping[str, Requirement], *removed: str) -> None:
        """Changes routes; returns once that is served."""
        with self.store.write() as transaction:
            transaction.apply_many([Route(*route) for route in put.items()])
            for route in removed:
                transaction.delete(Route, (route,))
        self.replica.poke()
        eventually(lambda: self.replica.revision >= transaction.revision)

    def reason(
        self,
        path: str,
        *,
        user: str = "user_1",
        method: str = "GET",
        organization: str | None = None,
    ) -> str:
        token = ""
        if user:
            token = session_token(now=time.time(), user_id=user, organization_id=organization)
        ruling = run(self.authorizer.rule_request(token, HttpRequest(method, path, {}), "envoy"))
        return "public" if ruling is None else ruling.decisions[0].reason.name

    def records(self) -> list[DecisionRecord]:
        return records_of(self.recorder.directory)


@pytest.fixture
def world(sqlite_url: str, tmp_path: Path) -> Iterator[World]:
    engine = open_engine(sqlite_url)
    store = Store(engine)
    with store.write() as transaction:
        transaction.apply_many([Permission("course:view"), Permission("admin:access"), Role("R")])
        transaction.insert(Rule("r", "R", Effect.ALLOW, "course:view"))
        transaction.apply_many([User("user_1"), User("user_2", status=UserStatus.DISABLED)])
        transaction.insert(Grant("g", "R", ToUser("user_1")))
        transaction.apply_many([Route(*route) for route in ROUTES.items()])
    replica = Replica(store, staleness_seconds_max=5, poll_seconds=0.02)
    recorder = Recorder(tmp_path / "audit", "one")
    recorder.start()
    replica.start()
    hooked = Hooked()
    asking: Any = hooked
    authorizer = Authorizer(asking, replica, Recording(recorder), clock=time.time)
    try:
        eventually(replica.ready)
        yield World(store, replica, recorder, hooked, authorizer)
    finally:
        replica.stop()
        recorder.stop()
        engine.dispose()


def test_a_request_is_asked_what_its_route_needs(world: World) -> None:
    assert world.reason("/courses/1") == "ALLOWED_BY_RULE"
    assert world.reason("/courses/1?x=/admin") == "ALLOWED_BY_RULE"
    assert world.reason("/admin/users") == "PERMISSION_NOT_GRANTED"
    assert world.reason("/courses/1", method="POST") == "ROUTE_UNKNOWN"
    assert world.reason("/nothing") == "ROUTE_UNKNOWN"
    assert world.reason("/courses//1") == "PATH_AMBIGUOUS"
    assert world.reason("/healthz") == "public"
    assert world.reason("/healthz", user="") == "public"


def test_a_route_never_takes_the_organization_of_a_resource_from_the_request(world: World) -> None:
    """Neither from the path, its query, nor the active organization of the actor."""
    with world.store.write() as transaction:
        transaction.apply_many([User("user_9"), Organization("org_1")])
        transaction.insert(Membership("org_1", "user_9", "org:admin"))
        transaction.insert(Grant("admins", "R", ToOrganizationRole("org:admin")))
        transaction.insert(Resource("course", "mine", "org_1"))
        transaction.insert(Resource("course", "theirs", "org_2"))
    world.write({})

    def reason(path: str) -> str:
        return world.reason(path, user="user_9", organization="org_1")

    assert reason("/courses/mine") == "ALLOWED_BY_RULE"
    assert reason("/courses/theirs?organization_id=org_1") == "WRONG_ORGANIZATION"
    for path in ("/courses/mien", "/courses/1?organization_id=org_1", "/courses/org_1"):
        assert reason(path) == "RESOURCE_ORGANIZATION_UNKNOWN"
    with world.store.write() as transaction:
        transaction.insert(ResourceType("course", Tenancy.NONE))
    world.write({})
    assert reason("/courses/mien") == "ALLOWED_BY_RULE"
    assert reason("/courses/theirs") == "WRONG_ORGANIZATION"
    with world.store.write() as transaction:
        transaction.update(ResourceType("course", stored_required=True))
    world.write({})
    assert reason("/courses/mien") == "RESOURCE_UNKNOWN"
    assert reason("/courses/mine") == "ALLOWED_BY_RULE"
    assert [
        record.reason for record in world.records() if record.resource_organization_id is None
    ] == [
        *[Reason.RESOURCE_ORGANIZATION_UNKNOWN] * 3,
        Reason.RESOURCE_UNKNOWN,
    ]


@pytest.mark.parametrize("path", ["/courses/1", "/nothing", "/courses//1"])
def test_a_refused_token_is_refused_on_every_path(world: World, path: str) -> None:
    assert world.reason(path, user="") == "TOKEN_MALFORMED"
    assert world.reason(path, user="user_2") == "ACTOR_DISABLED"
    assert world.reason(path, user="user_3") == "ACTOR_UNKNOWN"


def test_a_part_of_a_path_that_no_resource_can_be_called_is_a_denial(world: World) -> None:
    """A client could provoke an error in front of an Envoy that lets requests pass on errors."""
    assert world.reason("/courses/" + "x" * 256) == "ALLOWED_BY_RULE"
    assert world.reason("/courses/" + "x" * 257) == "ROUTE_UNKNOWN"


# --- one policy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (Needs("course:view"), ADMIN, "PERMISSION_NOT_GRANTED"),
        (ADMIN, Needs("course:view"), "ALLOWED_BY_RULE"),
        (Needs("course:view"), PUBLIC, "public"),
        (Needs("course:view"), None, "ROUTE_UNKNOWN"),
        (None, Needs("course:view"), "ALLOWED_BY_RULE"),
        (None, ADMIN, "PERMISSION_NOT_GRANTED"),
    ],
)
def test_a_map_that_changes_before_the_facts_are_read_is_asked_again(
    world: World, before: Requirement | None, after: Requirement | None, reason: str
) -> None:
    """The process is paused between the two: only the policy that decides counts."""
    if before is not None:
        world.write({"GET /moving": before})

    def turn() -> None:
        world.verifier.before = lambda: None
        if after is None:
            world.write({}, "GET /moving")
        else:
            world.write({"GET /moving": after})

    world.verifier.before = turn
    assert world.reason("/moving") == reason
    # A denial by an older map is not logged: it was no answer.
    denials = [] if reason in {"ALLOWED_BY_RULE", "public"} else [reason]
    assert [record.reason.name for record in world.records()] == denials


def test_routes_that_change_all_the_time_give_no_answer(world: World) -> None:
    needs = [Needs("course:view"), Needs("admin:access")]

    def turn() -> None:
        needs.reverse()
        world.write({"GET /moving": needs[0]})

    turn()
    world.verifier.before = turn
    with pytest.raises(FactsStale):
        world.reason("/moving")
    assert world.records() == []


def test_what_is_public_is_so_only_while_that_is_known(world: World) -> None:
    with world.store.write() as transaction:
        transaction.delete(Route, ("GET /healthz",))
    world.replica.stop()
    eventually(lambda: world.replica.staleness_seconds() > 5)
    with pytest.raises(FactsStale):
        world.reason("/healthz")


def test_a_map_that_cannot_be_used_lets_nothing_pass(world: World) -> None:
    world.write({"GET /{a}/x": PUBLIC, "GET /y/{b}": PUBLIC})
    assert world.replica.policy.routes_problem is not None
    assert world.reason("/healthz") == world.reason("/courses/1") == "ROUTE_UNKNOWN"


# --- the record -----------------------------------------------------------------------------------


def test_a_denial_is_logged_with_its_method_and_path(world: World) -> None:
    world.reason("/admin/users?token=secret", method="DELETE")
    world.reason("/nothing?token=secret#x")
    world.reason("/courses/1", user="")
    denied, unknown, refused = world.records()
    assert (denied.permission, denied.request) == ("admin:access", "DELETE /admin/users")
    assert (unknown.permission, unknown.request) == ("http:request", "GET /nothing")
    assert (unknown.reason.name, unknown.resource) == ("ROUTE_UNKNOWN", None)
    assert unknown.actor is not None
    assert unknown.actor.user_id == "user_1"
    assert refused.resource is not None
    assert (refused.resource.id, refused.request) == ("1", "GET /courses/1")
    assert "secret" not in "".join(map(repr, world.records()))


def test_a_request_on_record_is_one_short_line_of_ascii(world: World) -> None:
    world.reason('/x\r\n\0\x1b[31m \x7f\xe9"', method="GE\nT\xff")
    world.reason("/" + "x" * 100_000)
    strange, long = (record.request or "" for record in world.records())
    assert strange == r'GE\x0aT\xff /x\x0d\x0a\x00\x1b[31m\x20\x7f\xe9"'
    assert len(long) == REQUEST_CHARACTERS_MAX
    assert long.startswith("GET /xxx")
    assert long.endswith("xxx...")


# --- what takes long ------------------------------------------------------------------------------

SEARCH = "context.words.exists(w, context.text.contains(w))"


@pytest.fixture
def searching(world: World) -> World:
    with world.store.write() as transaction:
        transaction.insert(Rule("search", "R", Effect.ALLOW, "admin:access", SEARCH))
    world.replica.poke()
    eventually(lambda: world.replica.revision >= transaction.revision)
    return world


def searches(number: int, text: int = 5_000) -> list[Question]:
    context = {"words": ["aaab"] * 100, "text": "a" * text}
    return [Question("admin:access", None, context)] * number


def test_work_ends_when_it_is_cancelled_and_nothing_is_recorded(searching: World) -> None:
    """Between two questions: a deadline and a client that leaves both cancel the request."""
    token = session_token(now=time.time(), user_id="user_1")
    run(searching.authorizer.rule(token, searches(1, 10), "one"))
    before = len(searching.records())

    async def cancelled() -> None:
        many = asyncio.create_task(searching.authorizer.rule(token, searches(1_000), "one"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not many.done()
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many

    run(cancelled())
    assert len(searching.records()) == before
    run(searching.authorizer.rule(token, searches(1, 11), "two"))  # positive control
    assert len(searching.records()) == before + 1


def test_a_long_batch_gives_way_to_small_questions(searching: World) -> None:
    token = session_token(now=time.time(), user_id="user_1")
    small = [Question("course:view")]
    run(searching.authorizer.rule(token, small, "one"))

    async def beside() -> int:
        many = asyncio.create_task(searching.authorizer.rule(token, searches(300), "one"))
        answered = 0
        while not many.done():
            await searching.authorizer.rule(token, small, "one")
            answered += 1
            await asyncio.sleep(0)
        await many
        return answered

    assert run(beside()) >= 10


def test_each_decision_about_a_session_of_the_console_is_logged_and_creates_nobody(
    world: World,
) -> None:
    """Allows too, although the setting for allows is off."""
    request = HttpRequest("GET", "/decisions?user=secret", {})
    for user, reason in (
        ("user_1", Reason.ALLOWED_BY_RULE),
        ("user_2", Reason.ACTOR_DISABLED),
        ("user_new", Reason.ACTOR_UNKNOWN),
    ):
        token = VerifiedToken(Actor(user, "sess_1"), "", "", time.time() + 60, {})
        question = Question("course:view", Resource("course", "1"))
        ruling = run(world.authorizer.rule_session(token, question, "console", request))
        record = world.records()[-1]
        assert (ruling.decisions[0].reason, list(ruling.decision_ids)) == (
            reason,
            [record.decision_id],
        )
        assert (record.reason, record.caller, record.request) == (
            reason,
            "console",
            "GET /decisions",
        )
    with world.store.read() as reader:
        assert reader.get(User, ("user_new",)) is None
