"""Clerk's reports reach a view: barred users, and the permissions of organization roles."""

from collections.abc import Callable, Mapping

import pytest

from pdp.facts import Replica, Store
from pdp.facts.store.clerk_objects import (
    ClerkKind,
    ClerkObject,
    ClerkStatus,
    read_objects,
    write_objects,
)
from pdp.model import Grant, Membership, RevokedSession, Role, ToUser, User, UserStatus
from tests.kit.waiting import eventually, run

NEVER = 3_600.0
"""A poll interval: only `poke` wakes the follower."""

Starter = Callable[..., Replica]


def say(store: Store, *objects: ClerkObject) -> int:
    """Clerk's newest word on these."""
    with store.write() as transaction:
        before = {
            (kind, one.id): one
            for kind in ClerkKind
            for one in read_objects(transaction, kind, [one.id for one in objects]).values()
        }
        write_objects(transaction, objects, before)
    return transaction.revision


def user(standing: ClerkStatus, version: str = "1") -> ClerkObject:
    return ClerkObject(ClerkKind.USER, "user_1", version, standing)


def role(role_id: str, key: str, *permissions: tuple[str, str], **changes: object) -> ClerkObject:
    content = {"key": key, "permissions": [list(one) for one in permissions]}
    return ClerkObject(ClerkKind.ROLE, role_id, "1", content=content, **changes)


def permission(permission_id: str, key: str) -> ClerkObject:
    return ClerkObject(ClerkKind.PERMISSION, permission_id, "1", content={"key": key})


def deleted(kind: ClerkKind, object_id: str) -> ClerkObject:
    return ClerkObject(kind, object_id, "2", ClerkStatus.DELETED)


@pytest.mark.parametrize("standing", [ClerkStatus.BARRED, ClerkStatus.DELETED])
@pytest.mark.parametrize("stored", [True, False])
def test_a_user_that_clerk_bars_or_deletes_is_disabled_cold_and_warm(
    store: Store, start: Starter, standing: ClerkStatus, stored: bool
) -> None:
    """A deleted user is known as one that is gone: never unknown, so never taken for a new one."""
    with store.write() as transaction:
        transaction.insert(Role("R"))
        if stored:
            transaction.insert(User("user_1", "a@example.test"))
            transaction.insert(Membership("org_1", "user_1", "org:member"))
            transaction.insert(Grant("g", "R", ToUser("user_1")))
        transaction.revoke_session(RevokedSession("sess_1", "user_1"))
    warm = start(NEVER)
    before = run(warm.view("user_1", None, [])).user
    assert (before and before.user.status) is (UserStatus.ACTIVE if stored else None)

    revision = say(store, user(standing))

    for replica in (warm, start(NEVER)):
        found = run(replica.view("user_1", None, [], revision)).user
        assert found is not None
        assert found.user.status is UserStatus.DISABLED
        assert found.user.email == ("a@example.test" if stored else "")
        assert found.revoked_sessions == {"sess_1"}


def test_a_user_that_clerk_no_longer_bars_is_active_unless_the_administrator_disabled_them(
    store: Store, start: Starter
) -> None:
    with store.write() as transaction:
        transaction.insert(User("user_1"))
    say(store, user(ClerkStatus.BARRED))
    replica = start(NEVER)

    def status(revision: int) -> UserStatus:
        found = run(replica.view("user_1", None, [], revision)).user
        assert found is not None
        return found.user.status

    assert status(0) is UserStatus.DISABLED
    assert status(say(store, user(ClerkStatus.ACTIVE, "2"))) is UserStatus.ACTIVE
    with store.write() as transaction:
        transaction.update(User("user_1", status=UserStatus.DISABLED))
    say(store, user(ClerkStatus.BARRED, "3"))
    assert status(say(store, user(ClerkStatus.ACTIVE, "4"))) is UserStatus.DISABLED


def test_a_message_about_a_user_does_not_affect_another_object_with_that_id(
    store: Store, start: Starter
) -> None:
    with store.write() as transaction:
        transaction.insert(User("user_1"))
    say(store, deleted(ClerkKind.ORGANIZATION, "user_1"))
    found = run(start().view("user_1", None, [])).user
    assert found is not None
    assert found.user.status is UserStatus.ACTIVE


def test_organization_roles_carry_what_clerk_says_now(store: Store, start: Starter) -> None:
    warm = start(NEVER)

    def carried(*objects: ClerkObject) -> Mapping[str, tuple[str, ...]]:
        """The permissions of the roles after this, in a running replica and in a new one."""
        revision = say(store, *objects)
        warm.poke()
        eventually(lambda: warm.revision == revision)
        afresh = start(NEVER).policy.organization_permissions
        assert warm.policy.organization_permissions == afresh
        return afresh

    read, write = ("perm_1", "org:posts:read"), ("perm_2", "org:posts:write")
    # The role's own word is enough, until the permission has said something.
    editor = role("role_1", "org:editor", write, read)
    assert carried(editor) == {"org:editor": ("org:posts:read", "org:posts:write")}
    renamed = permission("perm_2", "org:posts:change")
    assert carried(renamed) == {"org:editor": ("org:posts:change", "org:posts:read")}
    # Its deletion carries the id alone, and takes it from every role.
    assert carried(deleted(ClerkKind.PERMISSION, "perm_2"), role("role_2", "org:guest", write)) == {
        "org:editor": ("org:posts:read",),
        "org:guest": (),
    }
    # While two roles go by one key: what both carry.
    assert carried(role("role_3", "org:editor", ("perm_3", "org:a:b"), read)) == {
        "org:editor": ("org:posts:read",),
        "org:guest": (),
    }
    assert carried(deleted(ClerkKind.ROLE, "role_1"), deleted(ClerkKind.ROLE, "role_2")) == {
        "org:editor": ("org:a:b", "org:posts:read")
    }
