"""The store returns entities unchanged, byte for byte, at dense revisions, on both engines."""

import json
import threading
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, text

from pdp.errors import AlreadyExists, BrokenReference, InvalidRequest, NotFound
from pdp.facts import Change, ChangeKind, Store
from pdp.model import (
    EVERYWHERE,
    Effect,
    Entity,
    Grant,
    InOrganization,
    Membership,
    OnResource,
    Organization,
    Permission,
    Resource,
    ResourceRef,
    RevokedSession,
    Role,
    Rule,
    ToOrganizationRole,
    ToUser,
    User,
    UserStatus,
    key_of,
)
from tests.kit import soak

DISTINCT = [
    # OpenFGA CVE-2026-55170: a collation made identifiers equal that are not.
    "doc:1", "Doc:1", "DOC:1", "s", "\u017f", "ss", "\u00df", "SS", "a", "a ", " a", "a\t",
    "\u00e9", "e\u0301", "\u0130", "i", "I", "\u0131", "\uff21", "A", "a\u200b", "\u202ea", "K",
    "\u212a", "\u00c5", "\u212b", "\ufb01", "fi", "1", "01", "1.0", "a%", "a_", "a\\",
]  # fmt: skip

HOSTILE = [
    # The first probes of sqlmap and similar tools.
    "'", '"', "`", "\\", "\\'", "%", "_", "';--", "' OR '1'='1", "') OR ('1'='1",
    "1; DROP TABLE users", "' UNION SELECT page_secret FROM state--", "%s", "%(id)s", ":id",
    "?", "$1", "{0}", "${x}",
    "/**/", "--", "#", "\n", "\r\n", "\x1f", "\x7f", "a/b", "a:b", "a|b", "a@b", "\U0001f600",
    "');SELECT pg_sleep(5)--", "1' AND SLEEP(5)#", "\x1b[2J", "\ufeff", "\uffff",
]  # fmt: skip

EXAMPLES: Sequence[Entity] = [
    Permission("course:edit", "d"),
    Role("BASE", "b"),
    Role("TOP", "t", ("BASE",)),
    Rule("r1", "TOP", Effect.DENY, "course:*", "actor.id == 'x'", "why"),
    Grant("g1", "TOP", ToUser("user_1"), EVERYWHERE, 1.5, 2.25),
    Grant("g2", "TOP", ToOrganizationRole("org:admin"), InOrganization("org_1")),
    Grant("g3", "TOP", ToUser("user_1"), OnResource(ResourceRef("course", "c/1"))),
    User(
        "user_1", "a@b", "A", UserStatus.DISABLED, {"n": 1.0, "l": [None, True, {"\0": "\ud800"}]}
    ),
    Organization("org_1", "s", "n"),
    Membership("org_1", "user_1", "org:admin"),
    Resource("course", "c/1", "org_1", ResourceRef("school", "s"), {"owner": "user_1"}),
]


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)


@pytest.mark.parametrize("bulk", [False, True])
def test_every_kind_of_entity_comes_back_as_it_went_in(store: Store, bulk: bool) -> None:
    with store.write() as transaction:
        if bulk:
            assert transaction.apply_many(EXAMPLES) == len(EXAMPLES)
        else:
            for entity in EXAMPLES:
                transaction.insert(entity)
    with store.read() as reader:
        for entity in EXAMPLES:
            assert reader.get(type(entity), key_of(entity)) == entity
            assert entity in reader.list(type(entity))
        assert len(reader.page_secret()) == 32


def test_update_replaces_the_whole_entity(store: Store) -> None:
    with store.write() as transaction:
        transaction.apply_many(EXAMPLES)
    changed = [
        Role("TOP", "other", ()),
        User("user_1"),
        Resource("course", "c/1"),
        Grant("g1", "BASE", ToOrganizationRole("org:x")),
        Rule("r1", "BASE", Effect.ALLOW, "*"),
        Membership("org_1", "user_1", "org:member"),
    ]
    with store.write() as transaction:
        for entity in changed:
            transaction.update(entity)
    with store.read() as reader:
        for entity in changed:
            assert reader.get(type(entity), key_of(entity)) == entity


def test_a_taken_key_a_missing_entity_and_a_missing_role_are_typed_errors(store: Store) -> None:
    with store.write() as transaction:
        transaction.insert(Role("A"))
        transaction.insert(Rule("r", "A", Effect.ALLOW, "*"))
        with pytest.raises(AlreadyExists):
            transaction.insert(Role("A"))
        with pytest.raises(NotFound):
            transaction.update(User("user_1"))
        assert transaction.delete(User, ("user_1",)) is False
    for entity in (
        Rule("r2", "NONE", Effect.ALLOW, "*"),
        Grant("g", "NONE", ToUser("u")),
        Role("B", "", ("NONE",)),
    ):
        with pytest.raises(BrokenReference), store.write() as transaction:
            transaction.insert(entity)
        with pytest.raises(BrokenReference), store.write() as transaction:
            transaction.apply_many([entity])
    with pytest.raises(BrokenReference), store.write() as transaction:
        transaction.delete(Role, ("A",))
    with store.read() as reader:
        assert reader.revision == 1


def test_a_transaction_that_continues_after_a_refused_statement_is_not_committed(
    store: Store,
) -> None:
    with pytest.raises(RuntimeError), store.write() as transaction:  # noqa: PT012
        transaction.insert(User("user_1"))
        with pytest.raises(BrokenReference):
            transaction.insert(Grant("g", "NONE", ToUser("u")))
    with store.read() as reader:
        assert reader.revision == 0
        assert reader.list(User) == []


def test_a_deleted_role_takes_along_what_it_inherits_but_not_what_inherits_it(
    store: Store,
) -> None:
    with store.write() as transaction:
        transaction.apply_many([Role("A"), Role("B", "", ("A",)), Role("C", "", ("A", "B"))])
        assert transaction.delete(Role, ("C",))
        assert transaction.delete(Role, ("B",))
        assert transaction.delete(Role, ("A",))


def test_every_commit_raises_the_revision_by_one_and_names_what_it_touched(store: Store) -> None:
    with store.write() as transaction:
        assert transaction.revision == 0
        transaction.apply_many(EXAMPLES)
        assert transaction.revision == 1
    with store.write() as transaction:
        transaction.revoke_session(RevokedSession("sess_1", "user_2"))
    with store.write() as transaction:
        transaction.revoke_session(RevokedSession("sess_1", "user_2"))
    assert transaction.revision == 2
    with store.write() as transaction:
        transaction.update(Grant("g1", "BASE", ToUser("user_9")))
        transaction.delete(Grant, ("g2",))
    with store.read() as reader:
        changes = reader.changes(0)
        assert reader.changes(2) == {3: changes[3]}
    assert sorted(changes) == [1, 2, 3]
    assert changes[2] == [Change(ChangeKind.USER, ("user_2",))]
    assert changes[3] == [
        # The user who had the grant, and the one who has it now.
        Change(ChangeKind.USER, ("user_1",)),
        Change(ChangeKind.USER, ("user_9",)),
        Change(ChangeKind.ORGANIZATION, ("org_1",)),
    ]


def test_a_write_that_touches_very_much_is_one_change_of_everything(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.facts.store.transaction.CHANGES_PER_REVISION_MAX", 1_000)
    with store.write() as transaction:
        transaction.apply_many(User(f"user_{n}") for n in range(1_001))
    with store.read() as reader:
        assert reader.changes(0) == {1: [Change(ChangeKind.EVERYTHING, ())]}
        assert len(reader.list(User)) == 1_001


def test_replacing_a_grant_in_bulk_touches_the_user_who_loses_it(store: Store) -> None:
    with store.write() as transaction:
        transaction.apply_many([Role("A"), Grant("g", "A", ToUser("user_1"))])
    with store.write() as transaction:
        transaction.apply_many([Grant("g", "A", ToUser("user_2"))])
    with store.read() as reader:
        touched = {change.key for change in reader.changes(1)[2]}
    assert touched == {("user_1",), ("user_2",)}


def test_of_two_with_the_same_key_in_bulk_the_last_one_counts(store: Store) -> None:
    with store.write() as transaction:
        assert transaction.apply_many([User("u", name="a"), User("v"), User("u", name="b")]) == 3
        assert transaction.list(User) == [User("u", name="b"), User("v")]


def test_identifiers_compare_byte_for_byte(store: Store) -> None:
    """OpenFGA CVE-2026-55170: distinct identifiers never match, on both engines."""
    assert len(set(DISTINCT)) == len(DISTINCT)
    with store.write() as transaction:
        for name in DISTINCT:
            transaction.insert(User(name, name=name))
            transaction.insert(Resource("t", name))
    with store.read() as reader:
        for name in DISTINCT:
            assert reader.get(User, (name,)) == User(name, name=name)
        by_bytes = sorted(DISTINCT, key=lambda name: name.encode())
        assert [user.id for user in reader.list(User)] == by_bytes
        for place, name in enumerate(by_bytes):
            found = reader.list(Resource, ("t", name), 3)
            assert [entity.id for entity in found] == by_bytes[place + 1 : place + 4]


def test_hostile_identifiers_are_stored_verbatim_and_only_as_bound_parameters(
    engine: Engine, store: Store
) -> None:
    """SQL injection by identifiers (also Keto CVE-2026-33505, by the content of a page token)."""
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    marker = "canaryvalue"
    with store.write() as transaction:
        transaction.insert(Role("R"))
        for name in (marker + hostile for hostile in HOSTILE):
            transaction.insert(Resource("t", name, name, ResourceRef(name, name), {name: name}))
            transaction.insert(Grant(name, "R", ToOrganizationRole(name), InOrganization(name)))
            transaction.revoke_session(RevokedSession(name, name))
            transaction.update(Resource("t", name, name))
    with store.read() as reader:
        names = sorted((marker + name for name in HOSTILE), key=str.encode)
        assert [resource.id for resource in reader.list(Resource)] == names
        for place, name in enumerate(names):
            assert reader.get(Resource, ("t", name)) == Resource("t", name, name)
            assert len(reader.list(Grant, (name,))) == len(names) - place - 1
    with store.write() as transaction:
        for name in names:
            assert transaction.delete(Resource, ("t", name))
    assert statements
    assert not [statement for statement in statements if marker in statement]


@pytest.mark.parametrize("bad", ["\0", "a\0b", "\ud800", "a\udfff", "x" * 257, "x" * 65_536])
def test_what_cannot_be_stored_is_an_invalid_request(store: Store, bad: str) -> None:
    """NUL, lone surrogates and identifiers without end never reach the database."""
    entities: list[Entity] = [
        User(bad),
        Resource("t", bad),
        Resource("t", "x", bad) if len(bad) < 100 else Resource(bad, "x"),
        Membership("o", bad, "r"),
        Grant("g", "R", ToUser(bad)),
    ]
    for entity in entities:
        with pytest.raises(InvalidRequest), store.write() as transaction:
            transaction.insert(entity)
        with pytest.raises(InvalidRequest), store.write() as transaction:
            transaction.update(entity)
        with pytest.raises(InvalidRequest), store.write() as transaction:
            transaction.apply_many([entity])
    with pytest.raises(InvalidRequest), store.write() as transaction:
        transaction.revoke_session(RevokedSession(bad, "u"))
    with store.read() as reader, pytest.raises(InvalidRequest):
        reader.get(User, (bad,))
    with store.read() as reader, pytest.raises(InvalidRequest):
        reader.list(User, (bad,))
    with store.write() as transaction, pytest.raises(InvalidRequest):
        transaction.delete(User, (bad,))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_grant_cannot_end_at_what_is_no_time(store: Store, number: float) -> None:
    """SQLite keeps NaN as NULL, which would mean: never ends."""
    with store.write() as transaction:
        transaction.insert(Role("R"))
        with pytest.raises(InvalidRequest):
            transaction.insert(Grant("g", "R", ToUser("u"), expires_at=number))


deep: object = {}
for _ in range(100_000):
    deep = {"a": deep}


@pytest.mark.parametrize("attributes", [{"a": float("nan")}, {"a": object()}, deep])
def test_attributes_that_are_not_json_are_an_invalid_request(store: Store, attributes) -> None:
    with pytest.raises(InvalidRequest), store.write() as transaction:
        transaction.insert(User("u", attributes=attributes))


@settings(
    max_examples=soak.count(40, sample=15),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(names=st.lists(st.text(max_size=20), max_size=8, unique=True))
def test_any_text_is_stored_verbatim_or_refused(store: Store, names: list[str]) -> None:
    kept = []
    with store.write() as transaction:
        for old in transaction.list(User):
            transaction.delete(User, (old.id,))
        for name in names:
            try:
                transaction.insert(User(name, attributes={"\0": name}))
            except InvalidRequest:
                assert "\0" in name
            else:
                kept.append(name)
    with store.read() as reader:
        assert [user.id for user in reader.list(User)] == sorted(kept, key=str.encode)
        for name in kept:
            assert reader.get(User, (name,)) == User(name, attributes={"\0": name})


def test_a_reader_sees_one_revision_while_others_write(store: Store) -> None:
    with store.read() as reader:
        with store.write() as transaction:
            transaction.insert(User("user_1"))
        assert reader.revision == 0
        assert reader.get(User, ("user_1",)) is None
    with store.read() as reader:
        assert reader.revision == 1


def test_revisions_are_dense_and_in_the_order_of_commits_under_concurrent_writers(
    engine: Engine, store: Store
) -> None:
    """A reader that has seen revision n never finds a later commit at or below n. The control
    below shows that a database sequence in its place does lose changes."""
    stop = threading.Event()
    lost: list[int] = []

    def follow() -> None:
        seen = 0
        while not stop.is_set():
            with store.read() as reader:
                new = sorted(reader.changes(seen))
                if new != list(range(seen + 1, reader.revision + 1)):
                    lost.append(seen)
                seen = reader.revision

    def write(number: int) -> None:
        for turn in range(10):
            with store.write() as transaction:
                transaction.insert(User(f"user_{number}_{turn}"))

    follower = threading.Thread(target=follow)
    writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    follower.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    follower.join()
    assert lost == []
    with store.read() as reader:
        assert reader.revision == 60
        assert sorted(reader.changes(0)) == list(range(1, 61))


def test_control_a_sequence_as_revision_does_lose_a_change(postgresql_url: str) -> None:
    """The same history with a sequence: the reader sees 2, and never looks for 1."""
    from pdp.database.engine import open_engine

    engine = open_engine(postgresql_url)
    with engine.begin() as setup:
        setup.execute(text("CREATE SEQUENCE control"))
    insert = text(
        "INSERT INTO changes VALUES (nextval('control'), 0, 'user', :key) RETURNING revision"
    )
    with engine.connect() as slow, engine.connect() as quick, engine.connect() as reader:
        assert slow.execute(insert, {"key": json.dumps(["a"])}).scalar_one() == 1
        assert quick.execute(insert, {"key": json.dumps(["b"])}).scalar_one() == 2
        quick.commit()
        seen = reader.execute(text("SELECT max(revision) FROM changes")).scalar_one()
        assert seen == 2
        reader.commit()
        slow.commit()
        newer = text("SELECT count(*) FROM changes WHERE revision > :seen")
        assert reader.execute(newer, {"seen": seen}).scalar_one() == 0
    engine.dispose()
