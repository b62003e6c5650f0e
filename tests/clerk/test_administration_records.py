"""What Clerk reports leaves administration records that name the message, the sync or the token."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Engine

from pdp.administration_records import AdministrationRecord, Author, Source
from pdp.audit import AdministrationLog, ChangeFilter
from pdp.clerk.directory import Directory
from pdp.clerk.observations import (
    DeletionSeen,
    MembershipSeen,
    Message,
    Observation,
    OrganizationSeen,
    PermissionSeen,
    RoleSeen,
    SessionEnded,
    TokenIdentity,
    UserSeen,
)
from pdp.facts import Store
from pdp.facts.store.clerk_objects import ClerkKind
from pdp.model import Role


def user(id_: str = "user_1", *, at: int = 1, **fields: object) -> UserSeen:
    return UserSeen(id=id_, updated_at=at, noticed_at=at, **fields)  # type: ignore[arg-type]


def organization(id_: str = "org_1", *, at: int = 1) -> OrganizationSeen:
    return OrganizationSeen(id=id_, updated_at=at, noticed_at=at, slug="one")


def membership(user_id: str = "user_1", *, at: int = 1) -> MembershipSeen:
    return MembershipSeen(
        id=f"orgmem_{user_id}",
        updated_at=at,
        noticed_at=at,
        created_at=1,
        role="org:member",
        organization_id="org_1",
        user_id=user_id,
    )


def deletion(kind: ClerkKind, id_: str) -> DeletionSeen:
    return DeletionSeen(kind=kind, id=id_, updated_at=0, noticed_at=9)


class Account:
    """A directory, and the records that it leaves."""

    def __init__(self, engine: Engine) -> None:
        self.store = Store(engine)
        with self.store.write() as transaction:
            transaction.insert(Role("NEW_USER"))
        self.author = Author(Source.CLERK_SYNC, "operator", "a reason")
        self.directory = Directory(
            self.store, lambda _: None, default_role="NEW_USER", author=self.author
        )
        self._log = AdministrationLog(engine)
        self._seen = 1

    def new(self) -> Sequence[AdministrationRecord]:
        """The records since the last call, in order."""
        records = self._log.list(ChangeFilter(), None, 1_000)[::-1][self._seen :]
        self._seen += len(records)
        return records

    def entities(self) -> set[tuple[str, str]]:
        records = self.new()
        entities = {(record.kind, "/".join(record.key)) for record in records}
        assert len(entities) == len(records)
        return entities

    def tell(self, *messages: tuple[str, Observation]) -> None:
        self.directory.observe_messages([Message(*message) for message in messages])


@pytest.fixture
def account(engine: Engine) -> Account:
    return Account(engine)


def test_a_webhook_names_its_message_and_a_repetition_leaves_nothing(account: Account) -> None:
    account.tell(("msg_1", user(attributes={"api_token": "hidden", "plan": "pro"})))
    created, granted = account.new()
    assert (created.kind, created.source) == ("user", Source.CLERK_WEBHOOK)
    assert created.messages == granted.messages == ("msg_1",)
    assert created.after is not None
    assert created.after["attributes"] == {"api_token": "[redacted]", "plan": "pro"}
    assert granted.kind == "grant"
    for message_id in ("msg_1", "msg_2"):
        account.tell((message_id, user(attributes={"api_token": "hidden", "plan": "pro"})))
    assert account.new() == []
    account.tell(("msg_3", user(at=2, email="b@example.test")))
    [changed] = account.new()
    assert changed.before is not None
    assert changed.after is not None
    assert (changed.before["email"], changed.after["email"]) == ("", "b@example.test")


def test_records_of_a_batch_name_the_messages_about_their_entity(account: Account) -> None:
    account.tell(
        ("msg_1", user("user_1")),
        ("msg_2", user("user_2")),
        ("msg_3", organization()),
        ("msg_4", membership("user_2")),
    )
    messages = {"/".join(r.key): r.messages for r in account.new() if r.kind != "grant"}
    assert messages == {
        "user_1": ("msg_1",),
        "user_2": ("msg_2", "msg_4"),
        "org_1": ("msg_3", "msg_4"),
        "org_1/user_2": ("msg_2", "msg_3", "msg_4"),
    }


@pytest.mark.parametrize(
    ("first", "then", "left"),
    [
        ((), (user(barred=True),), {"user", "grant", "clerk_user"}),
        ((user(),), (user(at=2, barred=True),), {"clerk_user"}),
        (
            (user(), organization(), membership()),
            (deletion(ClerkKind.USER, "user_1"),),
            {"user", "grant", "membership", "clerk_user"},
        ),
        (
            (user(), organization(), membership()),
            (deletion(ClerkKind.ORGANIZATION, "org_1"),),
            {"organization", "membership"},
        ),
        (
            (),
            (
                RoleSeen(
                    id="role_1",
                    updated_at=1,
                    noticed_at=1,
                    key="org:editor",
                    permissions=(("perm_1", "org:a:b"),),
                ),
            ),
            {"organization_role"},
        ),
        (
            (),
            (PermissionSeen(id="perm_1", updated_at=1, noticed_at=1, key="org:a:b"),),
            {"organization_permission"},
        ),
        ((), (SessionEnded(session_id="sess_1", user_id="user_1"),), {"session"}),
    ],
)
def test_everything_that_a_message_changes_is_on_record_once(
    account: Account,
    first: Sequence[Observation],
    then: Sequence[Observation],
    left: set[str],
) -> None:
    for number, observation in enumerate(first):
        account.tell((f"first_{number}", observation))
    account.new()
    before = revision_of(account.store)
    account.tell(*[(f"then_{number}", observation) for number, observation in enumerate(then)])
    records = account.new()
    assert {record.kind for record in records} == left
    assert len(records) == len(left)
    assert {record.revision for record in records} == {before + 1}
    assert {record.messages for record in records} == {("then_0",)}


def revision_of(store: Store) -> int:
    with store.read() as reader:
        return reader.revision


def test_a_sync_names_its_run_who_began_it_and_why(account: Account) -> None:
    account.directory.observe([user(), organization(), membership()], run=7)
    records = account.new()
    assert {record.kind for record in records} == {"user", "grant", "organization", "membership"}
    for record in records:
        assert (record.source, record.name, record.reason, record.sync_run) == (
            Source.CLERK_SYNC,
            "operator",
            "a reason",
            7,
        )
    account.directory.observe([user("user_9")], run=8, dry_run=True)
    account.directory.observe([user(), organization(), membership()], run=9)
    assert account.new() == []


def test_a_first_token_leaves_records_of_what_it_creates(account: Account) -> None:
    identity = TokenIdentity(
        user_id="user_1",
        session_id="sess_1",
        organization_id="org_1",
        organization_role="org:member",
    )
    account.directory.admit(identity, 1)
    records = account.new()
    assert {record.kind for record in records} == {"user", "grant", "organization", "membership"}
    assert {(record.source, record.name) for record in records} == {(Source.TOKEN, "")}
    account.directory.admit(identity, 2)
    assert account.new() == []
