"""A database is compared with Clerk's account over a real socket."""

import random

import pytest
from pydantic import SecretStr

from pdp.clerk.observations import Difference, Drift, TokenIdentity, UserSeen
from pdp.clerk.sync.lease import read_last_sync
from pdp.clerk.sync.sync import Sync
from pdp.errors import ClerkRefused
from pdp.model import Membership, Organization, User
from pdp.settings import ClerkSettings
from tests.kit.clerk.api_server import SECRET_KEY, Answer, ClerkApiServer, Request
from tests.kit.clerk.events import INSTANCE_ID, T0, membership, organization, user
from tests.kit.clerk.worlds import NOW, PAGE_ITEMS, World, add_school, live

# --- what it makes of an account ----------------------------------------------------------------


def test_a_backfill_of_several_pages_makes_the_database_equal_to_the_account(
    world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk, 2 * PAGE_ITEMS)
    summary = world.sync()
    assert world.facts() == world.account()
    assert summary.drift == len(world.found) == len(clerk.objects)
    assert {difference.drift for difference in world.found} == {Drift.MISSING}

    revision = world.revision()
    assert world.sync().drift == 0
    assert world.revision() == revision


def test_a_dry_run_writes_no_fact_and_reports_each_difference_once(
    world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk, PAGE_ITEMS + 2)
    revision, facts = world.revision(), world.facts()
    first = world.sync(dry_run=True)
    reported = list(world.found)
    assert first.drift == len(reported) == len(set(reported)) == len(clerk.objects)
    assert world.sync(dry_run=True).drift == first.drift
    assert (world.revision(), world.facts()) == (revision, facts)

    world.sync()
    assert sorted(map(repr, world.found)) == sorted(map(repr, reported))

    clerk.remove("org_1", "user_00001")
    clerk.add(user("user_00002", banned=True, updated_at=T0 + 1))
    facts = world.facts()
    world.sync(dry_run=True)
    reported = list(world.found)
    assert world.facts() == facts
    world.sync()
    assert sorted(map(repr, world.found)) == sorted(map(repr, reported))
    assert Difference("user", "user_00002", Drift.DIFFERENT) in reported
    assert Difference("membership", "org_1/user_00001", Drift.EXTRA) in reported
    assert world.facts() == world.account()


def test_what_lost_webhooks_left_behind_is_healed(
    small_world: World, clerk: ClerkApiServer
) -> None:
    """A tenth of the webhooks never arrives."""
    chance = random.Random(19)
    lost = 0
    for seen in live(clerk, chance, 150):
        if chance.random() < 0.1:
            lost += 1
        else:
            small_world.directory.observe([seen])
    assert lost > 10
    assert small_world.facts() != small_world.account()

    assert small_world.sync().drift > 0
    assert small_world.facts() == small_world.account()
    assert small_world.sync().drift == 0


def test_users_who_are_banned_are_found_barred_and_unbanned_free_again(
    small_world: World, clerk: ClerkApiServer
) -> None:
    clerk.add(user("user_1"), user("user_2", locked=True))
    small_world.sync()
    assert small_world.facts()["barred"] == {"user_2"}
    clerk.add(user("user_1", banned=True, updated_at=T0 + 1), user("user_2", updated_at=T0 + 1))
    assert small_world.sync().drift == 2
    assert small_world.facts()["barred"] == {"user_1"}


def test_a_lock_that_ran_out_without_a_word_is_found(
    small_world: World, clerk: ClerkApiServer
) -> None:
    """A lockout ends by itself: nothing says that `updated_at` moves with it."""
    clerk.add(user("user_1", locked=True))
    small_world.sync()
    clerk.add(user("user_1", locked=False))
    small_world.now += 1
    assert small_world.sync().drift == 1
    assert small_world.facts()["barred"] == set()


def test_an_object_that_cannot_be_read_costs_itself_alone(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk)
    small_world.sync()
    broken = dict(clerk.objects["user_00001"], updated_at="yesterday", first_name="New")
    clerk.add(broken, user("user_9", email="new@example.test"))
    assert [user.id for user in _found(small_world)] == ["user_9"]
    assert "user_00001" in small_world.facts()["users"]


# --- what it deletes ----------------------------------------------------------------------------


def test_only_what_clerk_says_is_gone_is_deleted(world: World, clerk: ClerkApiServer) -> None:
    add_school(clerk)
    world.sync()
    # Lists that leave out what is there.
    empty = Answer(body=b'{"data": [], "total_count": 0}')
    clerk.answer_next(Answer(body=b"[]"), path="/users")
    for path in ("organizations", "organization_roles", "organization_memberships"):
        clerk.answer_next(empty, path=f"/{path}")
    assert world.sync().drift == 0
    assert world.facts() == world.account()

    clerk.remove("user_00000", "role_1", "orgmem_00001")
    world.sync()
    assert sorted((difference.kind, difference.id) for difference in world.found) == [
        ("membership", "org_1/user_00000"),
        ("membership", "org_1/user_00001"),
        ("role", "role_1"),
        ("user", "user_00000"),
    ]
    assert world.facts() == world.account()


def test_what_goes_with_its_organization_is_not_asked_for_one_by_one(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk, 2 * PAGE_ITEMS)
    small_world.sync()
    clerk.remove("org_1")
    assert small_world.sync().drift == 2 * PAGE_ITEMS + 1
    assert small_world.facts() == small_world.account()
    assert clerk.asked("/organizations/org_1") == 1
    assert clerk.asked("/organizations/org_1/memberships") == 0


def test_what_clerk_does_not_answer_for_is_not_deleted(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk)
    small_world.sync()
    facts = small_world.facts()
    clerk.remove("user_00000")
    html = Answer(404, b"<h1>Not found</h1>", {"Content-Type": "text/html"})
    clerk.answer_next(html, path="/users/user_00000")
    with pytest.raises(ClerkRefused):
        small_world.sync()
    assert small_world.facts() == facts
    small_world.sync()
    assert small_world.facts() == small_world.account()


def test_a_user_reported_since_the_sync_began_is_left_to_the_next_sync(
    small_world: World, clerk: ClerkApiServer
) -> None:
    """Clerk may send a message before its API knows the object of the message."""
    add_school(clerk)
    small_world.sync()
    began = int(NOW * 1000)
    new_users = [
        UserSeen(id="user_before", updated_at=began, noticed_at=began - 1),
        UserSeen(id="user_since", updated_at=began, noticed_at=began + 1),
    ]
    small_world.directory.observe(new_users)
    small_world.sync()
    users = small_world.facts()["users"]
    assert "user_since" in users
    assert "user_before" not in users


def test_a_user_deleted_while_the_lists_are_read_goes_with_the_memberships(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk)

    def delete_after_the_users(request: Request) -> None:
        if request.path == "/organization_memberships":
            clerk.remove("user_00001")

    small_world.sync()
    clerk.on_request = delete_after_the_users
    small_world.sync()
    # The list of users still had this one; the next sync finds that it is gone.
    assert ("org_1", "user_00001") not in small_world.facts()["memberships"]
    small_world.sync()
    assert small_world.facts() == small_world.account()


def test_a_member_who_left_and_came_back_is_a_member(
    small_world: World, clerk: ClerkApiServer
) -> None:
    """Though the clock here is ahead of Clerk's: what ends is the life that was known."""
    add_school(clerk, 1)
    small_world.sync()
    clerk.remove("orgmem_00000")
    small_world.sync()
    assert small_world.facts()["memberships"] == {}
    later = int(NOW * 1000) - 60_000
    clerk.add(membership("orgmem_2", user_id="user_00000", created_at=later, updated_at=later))
    small_world.sync()
    assert small_world.facts() == small_world.account()


def test_a_membership_that_only_a_token_proved_is_asked_for(
    world: World, clerk: ClerkApiServer
) -> None:
    clerk.add(user("user_1"), user("user_2"), organization("org_1"))
    for n in (1, 2):
        arrival = TokenIdentity(
            user_id=f"user_{n}",
            session_id="sess_1",
            organization_id="org_1",
            organization_role="org:member",
        )
        world.directory.admit(arrival, T0)
    data = membership("orgmem_2", user_id="user_2", role="org:admin")
    clerk.add(data)
    clerk.answer_next(
        Answer(body=b'{"data": [], "total_count": 0}'), path="/organization_memberships"
    )
    world.sync()
    assert world.facts() == world.account()
    assert world.facts()["memberships"] == {("org_1", "user_2"): "org:admin"}


def test_what_an_administrator_made_beside_clerk_stays(
    small_world: World, clerk: ClerkApiServer
) -> None:
    made = (
        User("user_local"),
        Organization("org_local"),
        Membership("org_local", "user_local", "x"),
    )
    for entity in made:
        small_world.administrator.create(entity)
    small_world.sync()
    assert set(small_world.facts()["users"]) == {"user_local"}
    assert ("org_local", "user_local") in small_world.facts()["memberships"]


def test_organizations_that_are_switched_off_are_not_gone(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk)
    small_world.sync()
    facts = small_world.facts()
    clerk.organizations_enabled = False
    clerk.add(user("user_00001", email="u1@example.test", banned=True, updated_at=T0 + 9))
    assert small_world.sync().drift == 1
    assert small_world.facts() == {**facts, "barred": {"user_00001"}}


def test_the_key_of_another_instance_stops_before_anything_is_written(
    small_world: World, clerk: ClerkApiServer
) -> None:
    add_school(clerk)
    clerk.instance_id = "ins_another"
    before = read_last_sync(small_world.store)
    with pytest.raises(ClerkRefused, match="belongs to the instance ins_another"):
        small_world.sync()
    assert clerk.requests[-1].path == "/instance"
    assert len(clerk.requests) == 1
    assert read_last_sync(small_world.store) == before
    assert small_world.facts()["users"] == {}


def test_without_an_instance_or_a_key_there_is_no_sync(small_world: World) -> None:
    for settings in (
        ClerkSettings(),
        ClerkSettings(instance_id=INSTANCE_ID),
        ClerkSettings(secret_key=SecretStr(SECRET_KEY)),
    ):
        with pytest.raises(ValueError, match="must be set"):
            Sync(settings, small_world.store, small_world.directory).run()


def _found(world: World) -> list[Difference]:
    world.sync()
    return world.found
