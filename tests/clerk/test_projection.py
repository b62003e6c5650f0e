"""Observations of a Clerk account become facts, in any order.

Clerk delivers at least once and in any order, retries for 27 hours, and lets people replay
messages.
"""

import dataclasses
import itertools

import pytest
from sqlalchemy import Engine, event

from pdp.administrator import Administrator
from pdp.clerk.directory import Directory
from pdp.clerk.observations import (
    DeletionSeen,
    Drift,
    MembershipGone,
    MembershipSeen,
    Message,
    PermissionSeen,
    RoleSeen,
)
from pdp.database.engine import open_engine
from pdp.errors import NotFound
from pdp.facts import ChangeKind, Store
from pdp.facts.store.clerk_objects import (
    ClerkKind,
    ClerkStatus,
    SyncState,
    delete_expired,
    read_objects,
    read_objects_not_seen,
    read_sync,
)
from pdp.facts.store.references import find_referrers
from pdp.model import (
    Grant,
    InOrganization,
    Membership,
    Organization,
    Resource,
    Role,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
)
from tests.kit import soak
from tests.kit.clerk.accounts import (
    DAY,
    end_of,
    end_of_membership,
    membership,
    organization,
    session_end,
    state_of,
    user,
)

T = 1_700_000_000_000


# --- one message ----------------------------------------------------------------------------------


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)


@pytest.fixture
def written() -> list[int]:
    """The revisions that were said to be written."""
    return []


@pytest.fixture
def administrator(store: Store, written: list[int]) -> Administrator:
    return Administrator(store, written.append)


@pytest.fixture
def directory(store: Store, written: list[int]) -> Directory:
    return Directory(store, written.append)


def test_a_user_is_stored_as_clerk_describes_them(
    administrator: Administrator, directory: Directory
) -> None:
    observed = directory.observe(
        [user("ann", T, email="ann@example.com", name="Ann", attributes={"plan": "pro"})]
    )
    assert [
        (difference.kind, difference.id, difference.drift) for difference in observed.differences
    ] == [("user", "user_ann", Drift.MISSING)]
    assert administrator.get(User, ("user_ann",)) == User(
        "user_ann", "ann@example.com", "Ann", UserStatus.ACTIVE, {"plan": "pro"}
    )


def test_a_message_that_was_handled_changes_nothing_again(
    administrator: Administrator, directory: Directory, written: list[int]
) -> None:
    (first,) = directory.observe_messages([Message("msg_1", user("ann", T, name="Ann"))])
    # Even with another content: the id alone says that it was handled.
    repeated = Message("msg_1", user("ann", T + 1, name="Eve"))
    (again,) = directory.observe_messages([repeated])
    assert (again.duplicate, again.revision, list(again.differences)) == (True, first.revision, [])
    assert written == [first.revision]
    assert administrator.get(User, ("user_ann",)).name == "Ann"


def test_messages_that_are_written_together_are_one_revision_in_any_order(
    administrator: Administrator, directory: Directory, written: list[int]
) -> None:
    observed = directory.observe_messages(
        [
            Message("msg_1", user("ann", T + 1, name="Ann")),
            Message("msg_2", membership("ann", T, born=T)),
            Message("msg_1", user("ann", T + 1, name="Ann")),
            Message("msg_3", user("ann", T, name="Eve")),
        ]
    )
    assert [result.duplicate for result in observed] == [False, False, True, False]
    assert {result.revision for result in observed} == set(written)
    assert len(written) == 1
    assert administrator.get(User, ("user_ann",)).name == "Ann"
    assert administrator.get(Membership, ("org_ann", "user_ann"))


def test_a_message_whose_transaction_fails_is_not_taken_as_handled(store: Store) -> None:
    def dying_clock() -> float:
        if next(calls) == 1:
            raise ConnectionAbortedError
        return 0.0

    calls = itertools.count()
    administrator = Administrator(store, lambda _: None)
    directory = Directory(store, lambda _: None, clock=dying_clock)
    message = Message("msg_1", user("ann", T))
    with pytest.raises(ConnectionAbortedError):
        directory.observe_messages([message])
    with pytest.raises(NotFound):
        administrator.get(User, ("user_ann",))
    assert not directory.observe_messages([message])[0].duplicate
    assert administrator.get(User, ("user_ann",))


def test_what_changes_no_fact_raises_no_revision_and_is_remembered_all_the_same(
    administrator: Administrator, directory: Directory, store: Store, written: list[int]
) -> None:
    directory.observe([user("ann", T, name="Ann")])
    newer = directory.observe([user("ann", T + 9, name="Ann")])
    assert (list(newer.differences), len(written)) == ([], 1)
    late = directory.observe([user("ann", T + 5, name="Eve")])
    assert list(late.differences) == []
    assert administrator.get(User, ("user_ann",)).name == "Ann"
    with store.read() as reader:
        assert reader.revision == written[-1]


# --- older never overrules newer ------------------------------------------------------------------


def test_an_older_update_never_rolls_a_newer_one_back(
    administrator: Administrator, directory: Directory
) -> None:
    directory.observe([user("ann", T + DAY, email="new@example.com")])
    directory.observe([user("ann", T, email="old@example.com")])
    assert administrator.get(User, ("user_ann",)).email == "new@example.com"


def test_a_deleted_user_does_not_come_back_by_any_later_update(
    administrator: Administrator, directory: Directory, store: Store
) -> None:
    directory.observe([user("ann", T)])
    directory.observe([end_of(ClerkKind.USER, "user_ann", T + 1)])
    directory.observe([user("ann", T + DAY, name="Ann")])
    with pytest.raises(NotFound):
        administrator.get(User, ("user_ann",))
    with store.read() as reader:
        known = read_objects(reader, ClerkKind.USER, ["user_ann"])["user_ann"]
        assert known.status is ClerkStatus.DELETED


def test_of_two_updates_of_one_moment_the_stricter_wins(store: Store, directory: Directory) -> None:
    """Clerk may lock a user without a new `updated_at`."""
    for name, order in (("ann", (True, False)), ("bob", (False, True))):
        for locked in order:
            directory.observe([user(name, T, barred=locked)])
    with store.read() as reader:
        found = read_objects(reader, ClerkKind.USER, ["user_ann", "user_bob"])
    assert {object_.status for object_ in found.values()} == {ClerkStatus.BARRED}


def test_a_lock_without_a_new_update_time_is_ordered_by_when_it_was_noticed(
    store: Store,
    directory: Directory,
) -> None:
    directory.observe([user("ann", T, noticed_at=T, barred=False)])
    directory.observe([user("ann", T, noticed_at=T + 7, barred=True)])
    directory.observe([user("ann", T, noticed_at=T + 3, barred=False)])
    with store.read() as reader:
        known = read_objects(reader, ClerkKind.USER, ["user_ann"])["user_ann"]
    assert known.status is ClerkStatus.BARRED


@pytest.mark.soak
def test_all_orders_of_created_updated_deleted_of_a_user_and_a_membership_end_alike(
    sqlite_url: str,
) -> None:
    """Every permutation of the events gives one state; longer lives are in
    tests/clerk/test_interleavings.py."""
    store = Store(open_engine(sqlite_url))
    directory = Directory(store, lambda _: None)
    orders = list(itertools.permutations(range(5)))[:: soak.count(1, sample=5)]
    for number, order in enumerate(orders):
        name = str(number)
        events = [
            user(name, T, name="Ann"),
            user(name, T + 2, name="Anna"),
            membership(name, T + 1, born=T + 1),
            membership(name, T + 3, "org:admin", born=T + 1),
            end_of_membership(name, T + 4, born=T + 1),
        ]
        for index in order:
            directory.observe([events[index]])
        with store.read() as reader:
            assert state_of(reader, name) == (
                ("", "Anna", UserStatus.ACTIVE, {}),
                ClerkStatus.ACTIVE,
                None,
                None,
                [],
            ), order


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("kind", [ClerkKind.USER, ClerkKind.ORGANIZATION])
def test_created_updated_deleted_in_any_order_is_deleted(
    administrator: Administrator, directory: Directory, order: tuple[int, ...], kind: ClerkKind
) -> None:
    seen = user if kind is ClerkKind.USER else organization
    prefix = "user" if kind is ClerkKind.USER else "org"
    events = [seen("x", T), seen("x", T + 5, name="X"), end_of(kind, f"{prefix}_x", T + 9)]
    for index in order:
        directory.observe([events[index]])
    with pytest.raises(NotFound):
        administrator.get(User if kind is ClerkKind.USER else Organization, (f"{prefix}_x",))


# --- memberships ----------------------------------------------------------------------------------


def test_a_membership_that_comes_before_its_user_and_organization_is_kept(
    administrator: Administrator,
    directory: Directory,
) -> None:
    directory.observe([membership("ann", T, "org:admin", born=T)])
    directory.observe([user("ann", T - 5)])
    directory.observe([organization("ann", T - 9)])
    assert administrator.get(Membership, ("org_ann", "user_ann")).role == "org:admin"


def test_a_removed_member_who_comes_back_is_a_member_whatever_the_order(
    administrator: Administrator,
    directory: Directory,
) -> None:
    events = [
        membership("?", T, "org:admin", born=T),
        end_of_membership("?", T + 5, born=T),
        membership("?", T + 9, "org:member", born=T + 9, life="2"),
    ]
    for number, order in enumerate(itertools.permutations(events)):
        for observation in order:
            directory.observe([_renamed(observation, f"n{number}")])
        found = administrator.get(Membership, (f"org_n{number}", f"user_n{number}"))
        assert found.role == "org:member", order


def test_an_id_may_be_used_for_a_second_life(
    administrator: Administrator,
    directory: Directory,
) -> None:
    """Whether Clerk uses the id of a membership again is not documented."""
    directory.observe([membership("ann", T, born=T)])
    directory.observe([end_of_membership("ann", T + 5, born=T)])
    directory.observe([membership("ann", T + 9, "org:admin", born=T + 9)])
    directory.observe([end_of_membership("ann", T + 5, born=T)])
    assert administrator.get(Membership, ("org_ann", "user_ann")).role == "org:admin"


def test_an_older_life_whose_end_was_never_reported_does_not_revive(
    administrator: Administrator,
    directory: Directory,
) -> None:
    directory.observe([membership("ann", T, "org:admin", born=T, life="1")])
    directory.observe([membership("ann", T + 9, born=T + 9, life="2")])
    directory.observe([end_of_membership("ann", T + 12, born=T + 9, life="2")])
    with pytest.raises(NotFound):
        administrator.get(Membership, ("org_ann", "user_ann"))


def test_a_deletion_that_says_no_more_than_the_id_ends_the_membership(
    administrator: Administrator,
    directory: Directory,
) -> None:
    for name, order in (("ann", (0, 1)), ("bob", (1, 0))):
        events = [
            membership(name, T, born=T),
            end_of(ClerkKind.MEMBERSHIP, f"orgmem_{name}1", T + 5),
        ]
        for index in order:
            directory.observe([events[index]])
    assert administrator.list(Membership) == []


def test_an_update_that_does_not_say_whose_it_is_finds_its_membership(
    administrator: Administrator,
    directory: Directory,
) -> None:
    """`public_user_data` is not among the required fields."""
    nameless = {"organization_id": None, "user_id": None, "created_at": T, "id": "orgmem_ann1"}
    update = MembershipSeen(**nameless, updated_at=T + 5, noticed_at=T + 5, role="org:member")
    directory.observe([update])
    directory.observe([membership("ann", T, "org:admin", born=T)])
    # The older event only says whose it is; the role is that of the newer one.
    assert administrator.get(Membership, ("org_ann", "user_ann")).role == "org:member"


def test_a_membership_of_somebody_deleted_is_not_stored(
    administrator: Administrator, directory: Directory
) -> None:
    directory.observe([end_of(ClerkKind.USER, "user_ann", T)])
    directory.observe([end_of(ClerkKind.ORGANIZATION, "org_bob", T)])
    directory.observe([membership("ann", T + 5, born=T - 5)])
    directory.observe([membership("bob", T + 5, born=T - 5)])
    assert administrator.list(Membership) == []


def test_a_membership_that_came_before_its_user_goes_with_the_users_deletion(
    administrator: Administrator,
    directory: Directory,
) -> None:
    directory.observe([membership("ann", T, born=T)])
    directory.observe([end_of(ClerkKind.USER, "user_ann", T + 5)])
    assert administrator.list(Membership) == []


# --- what goes with a deletion --------------------------------------------------------------------


def test_deleting_a_user_removes_grants_and_memberships_and_keeps_revoked_sessions(
    administrator: Administrator, directory: Directory, store: Store, engine: Engine
) -> None:
    administrator.create(Role("ADMIN"))
    directory.observe([user("ann", T), membership("ann", T, born=T), session_end("ann")])
    administrator.create(Grant("g", "ADMIN", ToUser("user_ann")))
    directory.observe([end_of(ClerkKind.USER, "user_ann", T + 1)])
    assert administrator.list(Grant) == []
    assert administrator.list(Membership) == []
    with engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT session_id FROM revoked_sessions").scalars()
        assert kept.all() == ["sess_ann1"]


def test_deleting_an_organization_removes_its_memberships_and_grants_and_keeps_its_resources(
    administrator: Administrator,
    directory: Directory,
) -> None:
    administrator.create(Role("ADMIN"))
    directory.observe([organization("ann", T), membership("ann", T, born=T)])
    inside = InOrganization("org_ann")
    administrator.create(Grant("g", "ADMIN", ToOrganizationRole("org:admin"), inside))
    administrator.create(Grant("everywhere", "ADMIN", ToUser("user_ann")))
    administrator.create(Resource("course", "algebra", "org_ann"))
    directory.observe([end_of(ClerkKind.ORGANIZATION, "org_ann", T + 1)])
    assert [grant.id for grant in administrator.list(Grant)] == ["everywhere"]
    assert administrator.list(Membership) == []
    assert administrator.list(Organization) == []
    assert administrator.get(Resource, ("course", "algebra")).organization_id == "org_ann"


def test_a_large_organization_goes_in_a_few_statements(engine: Engine) -> None:
    """A concurrent write waits: a message about a revoked session, or a new user."""
    administrator = Administrator(Store(engine), lambda _: None)
    directory = Directory(Store(engine), lambda _: None)
    directory.observe(
        [
            dataclasses.replace(membership(f"m{n}", T, born=T), organization_id="org_1")
            for n in range(300)
        ]
    )
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
    directory.observe([end_of(ClerkKind.ORGANIZATION, "org_1", T + 1)])
    assert not administrator.list(Membership)
    assert len(statements) < 20


def test_the_deletion_of_somebody_never_seen_is_remembered(
    administrator: Administrator, directory: Directory
) -> None:
    directory.observe([end_of(ClerkKind.USER, "user_ann", T)])
    directory.observe([user("ann", T - DAY)])
    assert administrator.list(User) == []


# --- what an administrator wrote ------------------------------------------------------------------


def test_clerk_does_not_enable_a_user_that_an_administrator_disabled(
    administrator: Administrator,
    directory: Directory,
) -> None:
    directory.observe([user("ann", T)])
    administrator.update(User("user_ann", status=UserStatus.DISABLED))
    directory.observe([user("ann", T + 5, name="Ann", barred=False)])
    found = administrator.get(User, ("user_ann",))
    assert (found.name, found.status) == ("Ann", UserStatus.DISABLED)


def test_an_administrator_does_not_lift_a_ban_of_clerk(
    administrator: Administrator, directory: Directory, store: Store
) -> None:
    directory.observe([user("ann", T, barred=True)])
    administrator.update(User("user_ann", status=UserStatus.ACTIVE, name="changed"))
    with store.read() as reader:
        known = read_objects(reader, ClerkKind.USER, ["user_ann"])["user_ann"]
    assert known.status is ClerkStatus.BARRED


def test_a_ban_alone_is_a_change_of_its_user(directory: Directory, store: Store) -> None:
    directory.observe([user("ann", T, name="Ann")])
    banned = directory.observe([user("ann", T + 1, name="Ann", barred=True)])
    assert [difference.drift for difference in banned.differences] == [Drift.DIFFERENT]
    with store.read() as reader:
        changes = reader.changes(banned.revision - 1)[banned.revision]
    assert [(change.kind, change.key) for change in changes] == [(ChangeKind.USER, ("user_ann",))]


# --- the default role -----------------------------------------------------------------------------


def test_a_new_user_is_granted_the_default_role_once(store: Store) -> None:
    administrator = Administrator(store, lambda _: None)
    directory = Directory(store, lambda _: None, default_role="READER")
    administrator.create(Role("READER"))
    directory.observe([user("ann", T)])
    (grant,) = administrator.list(Grant)
    assert (grant.role, grant.subject) == ("READER", ToUser("user_ann"))
    administrator.delete(Grant, (grant.id,))
    directory.observe([user("ann", T + 1, name="Ann")])
    assert administrator.list(Grant) == []


def test_a_default_role_that_does_not_exist_does_not_keep_users_out(store: Store) -> None:
    administrator = Administrator(store, lambda _: None)
    directory = Directory(store, lambda _: None, default_role="NOBODY")
    directory.observe([user("ann", T)])
    assert administrator.get(User, ("user_ann",))
    assert administrator.list(Grant) == []


# --- roles and permissions ------------------------------------------------------------------------


def test_a_role_and_a_permission_are_kept_by_their_ids(directory: Directory, store: Store) -> None:
    role = RoleSeen(
        id="role_1", updated_at=T, noticed_at=T, key="org:editor", permissions=(("perm_1", "a"),)
    )
    permission = PermissionSeen(id="perm_1", updated_at=T, noticed_at=T, key="org:posts:edit")
    observed = directory.observe([role, permission])
    assert {(difference.kind, difference.id) for difference in observed.differences} == {
        ("role", "role_1"),
        ("permission", "perm_1"),
    }
    with store.read() as reader:
        changes = reader.changes(observed.revision - 1)[observed.revision]
        assert {change.kind for change in changes} == {ChangeKind.ORGANIZATION_ROLE}
    gone = directory.observe([end_of(ClerkKind.PERMISSION, "perm_1", T + 1)])
    assert [(difference.kind, difference.drift) for difference in gone.differences] == [
        ("permission", Drift.EXTRA)
    ]
    assert list(directory.observe([permission]).differences) == []


# --- syncs ----------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_change_and_changes_no_more_than_its_progress(
    directory: Directory, store: Store, written: list[int]
) -> None:
    progress = SyncState(run=7, step="users", cursor="user_ann", due_at=5.0)
    observed = directory.observe(
        [user("ann", T), membership("ann", T, born=T)], run=7, progress=progress, dry_run=True
    )
    assert [(difference.kind, difference.drift) for difference in observed.differences] == [
        ("user", Drift.MISSING),
        ("membership", Drift.MISSING),
    ]
    assert written == []
    with store.read() as reader:
        assert (reader.revision, reader.list(User), read_sync(reader)) == (0, [], progress)


def test_a_sync_knows_what_it_has_not_met(directory: Directory, store: Store) -> None:
    directory.observe([user("ann", T), user("bob", T), user("eve", T)])
    directory.observe([end_of(ClerkKind.USER, "user_eve", T + 1)])
    directory.observe([user("ann", T, noticed_at=T + 50)], run=1)
    with store.read() as reader:
        missed = read_objects_not_seen(reader, ClerkKind.USER, run=1, after="", limit=10)
    assert [object_.id for object_ in missed] == ["user_bob"]


def test_a_sync_restores_what_differs_though_clerk_has_nothing_newer(
    administrator: Administrator,
    directory: Directory,
) -> None:
    directory.observe([user("ann", T, email="ann@example.com"), membership("ann", T, born=T)])
    administrator.update(User("user_ann", email="wrong@example.com"))
    administrator.delete(Membership, ("org_ann", "user_ann"))
    observed = directory.observe(
        [
            user("ann", T, noticed_at=T + 50, email="ann@example.com"),
            _later(membership("ann", T, born=T), T + 50),
        ],
        run=1,
    )
    assert [(difference.kind, difference.drift) for difference in observed.differences] == [
        ("user", Drift.DIFFERENT),
        ("membership", Drift.MISSING),
    ]
    assert administrator.get(User, ("user_ann",)).email == "ann@example.com"


def test_a_sync_whose_clock_is_ahead_does_not_bar_the_next_life_of_a_membership(
    administrator: Administrator,
    directory: Directory,
) -> None:
    directory.observe([membership("ann", T, born=T)])
    ahead = DeletionSeen(
        kind=ClerkKind.MEMBERSHIP, id="orgmem_ann1", updated_at=0, noticed_at=T + DAY
    )
    directory.observe([ahead], run=1)
    directory.observe([membership("ann", T + 60, born=T + 60, life="2")])
    assert administrator.get(Membership, ("org_ann", "user_ann"))


def test_a_membership_that_clerk_never_spoke_of_goes_only_while_that_is_so(
    administrator: Administrator,
    directory: Directory,
) -> None:
    administrator.create(Membership("org_x", "user_x", "org:member"))
    directory.observe([membership("ann", T, born=T)])
    gone = [
        MembershipGone(organization_id="org_x", user_id="user_x"),
        MembershipGone(organization_id="org_ann", user_id="user_ann"),
    ]
    directory.observe(gone, run=1)
    assert [membership.user_id for membership in administrator.list(Membership)] == ["user_ann"]


# --- housekeeping ---------------------------------------------------------------------------------


def test_handled_messages_and_revoked_sessions_are_forgotten_when_they_are_old(
    store: Store,
) -> None:
    now = 1_000_000.0
    directory = Directory(store, lambda _: None, clock=lambda: now)
    message = Message("msg_1", session_end("ann"))
    directory.observe_messages([message])
    with store.write() as transaction:
        assert delete_expired(transaction, before=now) == 0
    with store.write() as transaction:
        assert delete_expired(transaction, before=now + 1) == 2
    assert not directory.observe_messages([message])[0].duplicate


def test_a_session_that_an_administrator_revoked_is_never_forgotten(store: Store) -> None:
    """At Clerk it goes on: it may live for ten years, and have a new token every minute."""
    administrator = Administrator(store, lambda _: None)
    directory = Directory(store, lambda _: None, clock=lambda: 1_000_000.0)
    revision = administrator.revoke_session("sess_ann1", "user_ann")
    directory.observe([session_end("ann", "2")])
    with store.write() as transaction:
        assert delete_expired(transaction, before=1e9) == 1
    assert administrator.revoke_session("sess_ann1", "user_ann") == revision + 1


def test_grants_of_others_are_left_alone(
    administrator: Administrator, directory: Directory, store: Store
) -> None:
    administrator.create(Role("ADMIN"))
    administrator.create(Grant("g", "ADMIN", ToUser("user_bob")))
    directory.observe([user("ann", T), end_of(ClerkKind.USER, "user_ann", T + 1)])
    with store.read() as reader:
        assert len(find_referrers(reader, Grant, user_id="user_bob")) == 1


def _renamed(observation: object, name: str) -> object:
    return dataclasses.replace(
        observation,  # type: ignore[type-var]
        id=observation.id.replace("?", name),  # type: ignore[attr-defined]
        organization_id=f"org_{name}",
        user_id=f"user_{name}",
    )


def _later(observation: MembershipSeen, noticed_at: int) -> MembershipSeen:
    return dataclasses.replace(observation, noticed_at=noticed_at)
