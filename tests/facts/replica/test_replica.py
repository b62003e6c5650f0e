"""A view is at one revision, complete, and never from before a change that was applied."""

import threading
from collections.abc import Callable

import pytest
from pdp_routes import PUBLIC, Asked, Needs, Public, RouteRefused
from sqlalchemy import Engine, event, text
from structlog.testing import capture_logs

from pdp.errors import BrokenReference, FactsStale, InvalidRequest, RevisionNotReached
from pdp.facts import Replica, Store
from pdp.limits import RESOURCE_DEPTH_MAX
from pdp.model import (
    Effect,
    Grant,
    InOrganization,
    Membership,
    OnResource,
    Permission,
    Resource,
    ResourceFacts,
    ResourceRef,
    ResourceType,
    RevokedSession,
    Role,
    Route,
    Rule,
    Tenancy,
    ToOrganizationRole,
    ToUser,
    User,
)
from tests.kit import soak
from tests.kit.facts.writing import NEVER, write
from tests.kit.sqlite import on_sqlite
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually, run

Starter = Callable[..., Replica]


def test_a_view_holds_all_that_is_stored_about_actor_organization_and_resource(
    store: Store, start: Starter
) -> None:
    everywhere = Grant("g0", "R", ToOrganizationRole("org:a"))
    own = [Grant(f"g{n}", "R", ToUser("user_1"), scope) for n, scope in enumerate(
        [InOrganization("org_1"), OnResource(ResourceRef("course", "1"))], start=1
    )]  # fmt: skip
    in_organization = Grant("g3", "R", ToOrganizationRole("org:a"), InOrganization("org_1"))
    on_resource = Grant("g4", "R", ToOrganizationRole("org:a"), OnResource(ResourceRef("s", "1")))
    course = Resource("course", "1", "org_1", ResourceRef("s", "1"), {"a": "stored", "b": 1.0})
    school = Resource("s", "1", "org_1", ResourceRef("nowhere", "x"))
    revision = write(
        store, Role("R"), Permission("course:edit"), Rule("r", "R", Effect.ALLOW, "*"),
        everywhere, *own, in_organization, on_resource, course, school,
        User("user_1", "e", "n"), Membership("org_1", "user_1", "org:a"),
    )  # fmt: skip
    with store.write() as transaction:
        transaction.revoke_session(RevokedSession("sess_1", "user_1"))
    replica = start()
    asked = Resource("course", "1", "org_2", None, {"a": "asked", "c": True})
    for _ in range(2):  # from the database, then from memory
        view = run(replica.view("user_1", "org_1", [asked, None, course]))
        assert view.revision == revision + 1 == view.policy.revision
        assert view.user is not None
        assert view.user.user == User("user_1", "e", "n")
        assert view.user.memberships == {"org_1": "org:a"}
        assert view.user.grants == tuple(own)
        assert view.user.revoked_sessions == {"sess_1"}
        assert view.organization is not None
        assert view.organization.role_grants == (in_organization,)
        assert view.policy.grants_to("org:a") == (everywhere,)
        attributes = {"a": "stored", "b": 1.0, "c": True}
        merged = Resource("course", "1", "org_1", ResourceRef("s", "1"), attributes)
        above = (
            ResourceFacts(school, (on_resource,), stored=True),
            ResourceFacts(Resource("nowhere", "x"), ()),
        )
        assert view.chains[0] == (ResourceFacts(merged, (), stored=True), *above)
        assert view.chains[1] == ()
        assert view.chains[2][1:] == above
    assert run(replica.view("user_2", None, [])).user is None
    assert run(replica.view("user_2", None, [])).organization is None


@on_sqlite
def test_a_resource_that_is_not_stored_is_as_the_request_says(store: Store, start: Starter) -> None:
    write(store, Resource("s", "1", "org_1"))
    replica = start()
    asked = Resource("course", "new", "org_9", ResourceRef("s", "1"), {"a": 1.0})
    (chain,) = run(replica.view("user_1", None, [asked])).chains
    assert [facts.resource for facts in chain] == [asked, Resource("s", "1", "org_1")]
    assert [facts.stored for facts in chain] == [False, True]


@on_sqlite
def test_an_organization_or_parent_that_is_sent_for_a_stored_resource_is_ignored(
    store: Store, start: Starter
) -> None:
    bare = Resource("course", "bare")
    write(store, bare, Resource("s", "1", "org_1"))
    replica = start()
    asked = Resource("course", "bare", "org_1", ResourceRef("s", "1"), {"a": 1.0})
    for _ in range(2):  # from the database, then from memory
        (chain,) = run(replica.view("user_1", None, [asked])).chains
        assert chain == (ResourceFacts(bare._replace(attributes={"a": 1.0}), (), stored=True),)


def test_a_change_of_a_resource_type_is_followed(store: Store, start: Starter) -> None:
    replica = start()

    def said() -> dict[str, ResourceType]:
        replica.poke()
        with store.read() as reader:
            eventually(lambda: replica.revision == reader.revision)
        return dict(replica.policy.resource_types.items())

    assert said() == {}
    course = ResourceType("course", Tenancy.NONE)
    write(store, course)
    assert said() == {"course": course}
    with store.write() as transaction:
        transaction.update(ResourceType("course", stored_required=True))
    assert said() == {"course": ResourceType("course", stored_required=True)}
    assert dict(start().policy.resource_types.items()) == said(), "read whole as by changes"
    with store.write() as transaction:
        transaction.delete(ResourceType, ("course",))
    assert said() == {}


@on_sqlite
def test_what_is_not_there_is_remembered_until_it_is_there(store: Store, start: Starter) -> None:
    replica = start(NEVER)
    assert run(replica.view("user_1", None, [])).user is None
    revision = write(store, User("user_1"))
    assert run(replica.view("user_1", None, [], revision)).user is not None


@on_sqlite
@pytest.mark.parametrize("depth", [RESOURCE_DEPTH_MAX, RESOURCE_DEPTH_MAX + 1])
def test_ancestors_deeper_than_the_bound_are_an_error_and_not_cut_off(
    store: Store, start: Starter, depth: int
) -> None:
    write(
        store,
        *(Resource("t", str(n), None, ResourceRef("t", str(n + 1))) for n in range(depth)),
    )
    replica = start()
    asked = [Resource("t", "0")]
    if depth <= RESOURCE_DEPTH_MAX:
        assert len(run(replica.view("user_1", None, asked)).chains[0]) == depth + 1
    else:
        with pytest.raises(BrokenReference):
            run(replica.view("user_1", None, asked))


@on_sqlite
def test_ancestors_in_a_circle_are_an_error(store: Store, start: Starter) -> None:
    write(
        store,
        Resource("t", "a", None, ResourceRef("t", "b")),
        Resource("t", "b", None, ResourceRef("t", "a")),
        Resource("t", "own", None, ResourceRef("t", "own")),
    )
    replica = start()
    for asked in ("a", "b", "own"):
        with pytest.raises(BrokenReference):
            run(replica.view("user_1", None, [Resource("t", asked)]))
    # Cutting the circle heals it: nothing of the failed answer was kept.
    revision = write(store, Resource("t", "a"))
    assert len(run(replica.view("user_1", None, [Resource("t", "b")], revision)).chains[0]) == 2


def test_one_check_after_the_bound_sees_the_revocation(store: Store, start: Starter) -> None:
    """OpenFGA #2811 (only the later ones of several checks saw it) and WSO2 CVE-2026-3583 (a
    revoked token answered from the cache)."""
    write(store, User("user_1"))
    replica = start(0.02)
    assert run(replica.view("user_1", None, [])).user.revoked_sessions == frozenset()
    with store.write() as transaction:
        transaction.revoke_session(RevokedSession("sess_1", "user_1"))
    eventually(lambda: replica.revision == transaction.revision)
    assert run(replica.view("user_1", None, [])).user.revoked_sessions == {"sess_1"}


def test_a_write_is_seen_without_being_asked_for(store: Store, start: Starter) -> None:
    replica = start(0.2)
    for turn in range(5):
        revision = write(store, User("user_1", name=str(turn)))
        watch = Stopwatch()
        eventually(lambda revision=revision: replica.revision == revision)
        assert watch.seconds < 2
        assert run(replica.view("user_1", None, [])).user.user.name == str(turn)


def test_poke_and_at_least_revision_catch_up_at_once(store: Store, start: Starter) -> None:
    replica = start(NEVER)
    revision = write(store, User("user_1", name="a"))
    assert run(replica.view("user_1", None, [], revision)).user.user.name == "a"
    revision = write(store, User("user_1", name="b"))
    replica.poke()
    eventually(lambda: replica.revision == revision)
    assert run(replica.view("user_1", None, [])).user.user.name == "b"


@on_sqlite
def test_a_revision_can_be_waited_for(store: Store, start: Starter) -> None:
    replica = start(NEVER)
    for _ in range(20):
        revision = write(store, User("user_1"))
        assert run(replica.await_revision(revision))
        assert replica.revision == revision
    assert not run(replica.await_revision(revision + 1))
    replica.stop()
    revision = write(store, User("user_1", name="b"))
    watch = Stopwatch()
    assert not run(replica.await_revision(revision))
    assert watch.elapsed > 0.9
    assert watch.seconds < 3


@on_sqlite
@pytest.mark.parametrize("beyond", [1, 2**63 - 1, 2**64 - 1])
def test_a_revision_that_the_database_does_not_have_is_refused_soon(
    store: Store, start: Starter, beyond: int
) -> None:
    replica = start(NEVER)
    write(store, User("user_1"))
    watch = Stopwatch()
    with pytest.raises(RevisionNotReached) as refused:
        run(replica.view("user_1", None, [], 1 + beyond))
    assert refused.value.metadata == {"wanted": str(1 + beyond), "seen": "1"}
    assert watch.seconds < 1
    assert run(replica.view("user_1", None, [], 1)).revision == 1


def test_each_kind_of_policy_change_reaches_the_policy(store: Store, start: Starter) -> None:
    replica = start(NEVER)

    def policy():
        replica.poke()
        with store.read() as reader:
            eventually(lambda: replica.revision == reader.revision)
        return replica.policy

    grant = Grant("g", "R", ToOrganizationRole("org:a"))
    write(
        store, Permission("c:e"), Role("B"), Role("R", "", ("B",)), grant,
        Rule("r", "B", Effect.DENY, "*"),
    )  # fmt: skip
    assert "c:e" in policy().permissions
    assert policy().closure("R") == ["B", "R"]
    assert [rule.id for rule in policy().rules_of("R", "c:e").deny] == ["r"]
    assert policy().grants_to("org:a") == (grant,)
    with store.write() as transaction:
        transaction.update(Grant("g", "R", ToOrganizationRole("org:a"), InOrganization("org_1")))
        transaction.update(Rule("r", "R", Effect.ALLOW, "*"))
        transaction.update(Role("R"))
        transaction.delete(Permission, ("c:e",))
    assert "c:e" not in policy().permissions
    assert policy().closure("R") == ["R"]
    assert [rule.id for rule in policy().rules_of("R", "c:e").allow] == ["r"]
    assert policy().grants_to("org:a") == ()
    with store.write() as transaction:
        transaction.update(grant)
        transaction.delete(Rule, ("r",))
    assert policy().grants_to("org:a") == (grant,)
    assert policy().rules_of("R", "c:e").allow == ()
    with store.write() as transaction:
        transaction.delete(Grant, ("g",))
        transaction.delete(Role, ("R",))
    assert policy().grants_to("org:a") == ()
    assert "R" not in policy().roles


@on_sqlite
def test_routes_are_asked_as_they_are_and_none_where_they_do_not_go_together(
    store: Store, start: Starter
) -> None:
    replica = start(NEVER)

    def needs(path: str) -> Asked | Public | str:
        replica.poke()
        with store.read() as reader:
            eventually(lambda: replica.revision == reader.revision)
        try:
            return replica.policy.routes.match("GET", path)
        except RouteRefused as refused:
            return refused.reason

    asked = Asked("c:e", "c", "1")
    assert needs("/c/1") == "no_route"
    write(store, Route("/c/{id}", Needs("c:e", "c/{id}")), Route("/x", PUBLIC))
    assert needs("/c/1") == asked
    assert needs("/x") is PUBLIC
    before = replica.policy.routes
    write(store, User("u"), Permission("c:e"))
    assert needs("/c/1") == asked
    assert replica.policy.routes is before, "made again only where they changed"
    # Nothing that this version writes: it takes no replica down, and lets nobody through.
    with store.write() as transaction:
        transaction.update(Route("/x", Needs("c:e")))
        transaction.insert(Route("/{c}/1", PUBLIC))
    with capture_logs() as logs:
        assert needs("/c/1") == needs("/x") == "no_route"
    (logged,) = (entry for entry in logs if entry["event"] == "all_routes_refused")
    assert "/c/{id}" in logged["problem"]
    assert "/{c}/1" in logged["problem"]
    with store.write() as transaction:
        transaction.delete(Route, ("/c/{id}",))
    assert needs("/c/1") is PUBLIC
    assert needs("/x") == Asked("c:e", None, None)


def test_grants_follow_their_subject_and_scope(store: Store, start: Starter) -> None:
    """One user loses a grant at the same revision at which another gets it."""
    write(store, Role("R"), User("user_1"), User("user_2"))
    replica = start(NEVER)
    subjects_and_scopes = [
        (ToUser("user_1"), InOrganization("o")),
        (ToUser("user_2"), InOrganization("o")),
        (ToOrganizationRole("org:a"), InOrganization("o")),
        (ToOrganizationRole("org:a"), InOrganization("O")),
        (ToOrganizationRole("org:a"), OnResource(ResourceRef("t", "1"))),
        (ToUser("user_1"), OnResource(ResourceRef("t", "1"))),
    ]
    for subject, scope in subjects_and_scopes:
        grant = Grant("g", "R", subject, scope)
        revision = write(store, grant)
        found = []
        for user in ("user_1", "user_2"):
            for organization in ("o", "O"):
                view = run(replica.view(user, organization, [Resource("t", "1")], revision))
                found += [(user, grant) for grant in view.user.grants]
                found += [(organization, grant) for grant in view.organization.role_grants]
                found += [("t", grant) for grant in view.chains[0][0].role_grants]
        holder = subject.user_id if isinstance(subject, ToUser) else getattr(
            scope, "organization_id", "t"
        )  # fmt: skip
        assert set(found) == {(holder, grant)}


def test_identifiers_that_only_look_alike_share_nothing(store: Store, start: Starter) -> None:
    """OpenFGA CVE-2026-48096 (joined cache keys), Oathkeeper CVE-2026-33496 and Camel
    CVE-2026-85317 (caches and single-flight not keyed by all): also while they load together."""
    separators = [":", "#", "@", "/", "|", "\x1f", "\n", ".", ""]
    twins = [(f"a{s}b", "c") for s in separators] + [("a", f"b{s}c") for s in separators]
    names = [f"{left}{s}{right}" for left, right in twins for s in separators]
    keys = list(dict.fromkeys(twins))
    names = list(dict.fromkeys(names))
    write(
        store,
        *(Resource(t, i, attributes={"me": f"{t!r} {i!r}"}) for t, i in keys),
        *(User(name, name=name) for name in names),
        Role("R"),
        *(
            Grant(f"{n}", "R", ToOrganizationRole("r"), InOrganization(name))
            for n, name in enumerate(names)
        ),
    )
    replica = start(NEVER)
    wrong: list[object] = []

    def ask(names: list[str], keys: list[tuple[str, str]]) -> None:
        for n, name in enumerate(names):
            t, i = keys[n % len(keys)]
            view = run(replica.view(name, name, [Resource(t, i)]))
            if (
                view.user.user.name != name
                or [g.scope for g in view.organization.role_grants] != [InOrganization(name)]
                or view.chains[0][0].resource.attributes != {"me": f"{t!r} {i!r}"}
            ):
                wrong.append((name, view))

    threads = [
        threading.Thread(target=ask, args=(names[::step], keys[::step])) for step in (1, -1, 1, -1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ask(names, keys)
    assert wrong == []


@pytest.mark.parametrize("bad", ["\0", "\ud800", "x" * 257])
def test_an_identifier_that_cannot_be_stored_is_an_invalid_request(
    start: Starter, bad: str
) -> None:
    replica = start()
    for arguments in (
        (bad, None, []),
        ("user_1", bad, []),
        ("user_1", None, [Resource("t", bad)]),
        ("user_1", None, [Resource(bad, "x")]),
        ("user_1", None, [Resource("t", "x", None, ResourceRef("t", bad))]),
    ):
        with pytest.raises(InvalidRequest):
            run(replica.view(*arguments))


@on_sqlite
def test_one_missing_key_is_read_once_however_many_ask(
    engine: Engine, store: Store, start: Starter
) -> None:
    write(store, User("user_1", name="n"))
    replica = start(NEVER)
    gate = threading.Event()
    reads: list[str] = []

    def hold(*arguments: object) -> None:
        if "FROM users" in str(arguments[2]):
            reads.append(str(arguments[2]))
            gate.wait(5)

    event.listen(engine, "before_cursor_execute", hold)
    answers: list[str] = []

    def ask() -> None:
        answers.append(run(replica.view("user_1", None, [])).user.user.name)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    eventually(lambda: reads)
    gate.set()
    for thread in threads:
        thread.join()
    assert answers == ["n"] * 12
    assert len(reads) == 1


def test_a_new_epoch_drops_everything(engine: Engine, store: Store, start: Starter) -> None:
    """A database restored from the past: its revisions count another history."""
    write(store, User("user_1", name="old"), Permission("old:old"))
    replica = start(0.02)
    assert run(replica.view("user_1", None, [])).user.user.name == "old"
    with engine.begin() as restored:
        restored.execute(text("UPDATE state SET epoch = 'another', revision = 1"))
        restored.execute(text("UPDATE users SET name = 'new'"))
        restored.execute(text("DELETE FROM permissions"))
    eventually(lambda: "old:old" not in replica.policy.permissions)
    assert run(replica.view("user_1", None, [])).user.user.name == "new"


def test_a_miss_in_a_new_epoch_waits_for_it(engine: Engine, store: Store, start: Starter) -> None:
    write(store, User("user_1", name="old"), User("user_2", name="old"))
    replica = start(NEVER)
    run(replica.view("user_1", None, []))
    with engine.begin() as restored:
        restored.execute(text("UPDATE state SET epoch = 'another', revision = 0"))
        restored.execute(text("UPDATE users SET name = 'new'"))
    assert run(replica.view("user_2", None, [])).user.user.name == "new"
    assert run(replica.view("user_1", None, [])).user.user.name == "new"


def test_a_revision_from_the_past_drops_everything(
    engine: Engine, store: Store, start: Starter
) -> None:
    write(store, User("user_1", name="old"))
    write(store, User("user_2"))
    replica = start(0.02)
    assert run(replica.view("user_1", None, [])).user.user.name == "old"
    with engine.begin() as restored:
        restored.execute(text("UPDATE state SET revision = 1"))
        restored.execute(text("UPDATE users SET name = 'new'"))
    eventually(lambda: replica.revision == 1)
    assert run(replica.view("user_1", None, [])).user.user.name == "new"


def test_changes_that_are_no_longer_kept_are_a_reason_to_reload_everything(
    engine: Engine, store: Store, start: Starter
) -> None:
    write(store, User("user_1", name="old"))
    replica = start(NEVER)
    assert run(replica.view("user_1", None, [])).user.user.name == "old"
    write(store, User("user_1", name="new"), Permission("c:e"))
    revision = write(store, User("user_2"))
    with engine.begin() as pruned:
        pruned.execute(text("DELETE FROM changes WHERE revision = 2"))
    assert run(replica.view("user_1", None, [], revision)).user.user.name == "new"
    assert "c:e" in replica.policy.permissions


def test_a_change_of_everything_drops_everything(
    store: Store, start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.facts.store.transaction.CHANGES_PER_REVISION_MAX", 100)
    write(store, User("user_1", name="old"))
    replica = start(NEVER)
    assert run(replica.view("user_1", None, [])).user.user.name == "old"
    many = (User(f"user_{n}", name="new") for n in range(101))
    revision = write(store, *many, Permission("c:e"))
    assert run(replica.view("user_1", None, [], revision)).user.user.name == "new"
    assert "c:e" in replica.policy.permissions


@pytest.mark.soak
def test_a_view_never_mixes_revisions(store: Store, start: Starter) -> None:
    """Writers change user, resource, its parent and policy together, readers see them together."""

    def state_at(turn: int) -> list:
        name = str(turn)
        return [
            User("user_1", name=name),
            Resource("course", "1", name, ResourceRef("school", "1")),
            Resource("school", "1", name),
            Permission("course:edit", name),
            Grant("g", "R", ToOrganizationRole(name), InOrganization("org_1")),
        ]

    turns = soak.count(40, sample=30)
    first = write(store, Role("R"), *state_at(0))
    replica = start(0.005)
    stop = threading.Event()
    wrong: list[object] = []
    seen: set[int] = set()

    def read() -> None:
        last = 0
        # Without a pause the readers keep the writer from the processor for most of the time.
        while not stop.wait(0.001):
            view = run(replica.view("user_1", "org_1", [Resource("course", "1")]))
            names = {
                view.user.user.name,
                view.chains[0][0].resource.organization_id,
                view.chains[0][1].resource.organization_id,
                view.policy.permissions.get("course:edit").description,
                view.organization.role_grants[0].subject.organization_role,
                str(view.revision - first),
            }
            if len(names) != 1 or view.revision < last:
                wrong.append(names)
            last = view.revision
            seen.add(last)

    def guarded() -> None:
        try:
            read()
        except Exception as error:  # noqa: BLE001  # whatever it is, the test shows it
            wrong.append(error)

    readers = [threading.Thread(target=guarded) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(1, turns + 1):
        write(store, *state_at(turn))
    eventually(lambda: replica.revision == first + turns)
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(seen) > 3


def test_nothing_is_answered_before_the_first_load(store: Store) -> None:
    replica = Replica(store, staleness_seconds_max=5, poll_seconds=1)
    assert not replica.ready()
    assert replica.revision == 0
    with pytest.raises(FactsStale):
        run(replica.view("user_1", None, []))
