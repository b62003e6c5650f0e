"""Apply and export: all or nothing, and the same again changes nothing."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Engine, event

from pdp.administrator import Administrator
from pdp.administrator import administrator as administrator_module
from pdp.database.engine import open_engine
from pdp.document import Action, PolicyDocument, parse_document, render_document
from pdp.errors import InvalidPolicy, LimitExceeded
from pdp.facts import Store
from pdp.kinds import KINDS
from pdp.limits import DOCUMENT_BYTES_MAX
from pdp.model import Effect, Grant, Permission, Role, Rule, ToUser, User
from tests.kit import soak
from tests.kit.decision.policies import documents
from tests.kit.sqlite import make_sqlite

COURSES = (Path(__file__).parents[2] / "examples" / "courses.yaml").read_text()
POLICY = """
permissions: [course:edit, course:view]
roles:
  A: {inherits: [B], allow: [course:edit]}
  B: {inherits: [C]}
  C: {allow: [course:*]}
grants: [{role: C, user: user_1}]
routes: {"/courses/{id}": course:view, /: public}
"""


def test_apply_says_what_it_did_and_the_same_again_does_nothing(
    administrator: Administrator, written: list[int]
):
    revision, changes = administrator.apply(COURSES)
    assert revision == 1
    assert {change.action for change in changes} == {Action.CREATE}
    assert administrator.apply(COURSES) == (1, [])
    assert written == [1]


def test_an_export_is_the_document(administrator: Administrator):
    administrator.apply(COURSES)
    text, revision = administrator.export()
    assert (text, revision) == (render_document(parse_document(COURSES)), 1)
    assert administrator.apply(text) == (1, [])


def test_a_dry_run_returns_the_same_changes_and_writes_nothing(
    administrator: Administrator, written: list[int]
):
    revision, foreseen = administrator.apply(COURSES, dry_run=True)
    assert (revision, written) == (0, [])
    assert administrator.list(Permission) == []
    assert administrator.apply(COURSES) == (1, foreseen)
    revision, foreseen = administrator.apply(POLICY, dry_run=True)
    assert revision == 1
    assert {change.action for change in foreseen} == set(Action)
    assert administrator.apply(POLICY) == (2, foreseen)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Administrator:
    """One SQLite database for all documents that are tried."""
    file = tmp_path_factory.mktemp("tried") / "pdp.db"
    make_sqlite(file)
    return Administrator(Store(open_engine(f"sqlite:///{file}")), lambda _: None)


@pytest.mark.soak
@settings(
    max_examples=soak.count(1_000, sample=6),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(document=documents())
def test_applying_an_export_changes_nothing(tried: Administrator, document: PolicyDocument):
    """From whatever the last document left behind to the next, and back into a file."""
    text = render_document(document)
    _, foreseen = tried.apply(text, dry_run=True)
    revision, changes = tried.apply(text)
    assert changes == foreseen
    assert tried.apply(text) == (revision, [])
    exported, read = tried.export()
    assert (exported, read) == (text, revision)
    assert tried.apply(exported) == (revision, [])


def test_a_section_that_is_left_out_is_left_alone(administrator: Administrator):
    administrator.apply(POLICY)
    administrator.apply("users: [{id: user_1}]")
    _, changes = administrator.apply("grants: []")
    assert [(change.action, change.kind) for change in changes] == [(Action.DELETE, "grant")]
    assert len(administrator.list(Role)) == 3
    assert administrator.list(User) == [User("user_1")]


def test_roles_that_inherit_from_one_another_go_in_any_order(administrator: Administrator):
    administrator.apply(POLICY)
    administrator.apply("roles: {}\ngrants: []")
    assert administrator.list(Role) == []
    assert administrator.list(Rule) == []


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ("roles: {}", "roles"),
        ("permissions: [course:view]", "stored rule A.allow.course:edit"),
        ("permissions: []\nroles: {C: {}}\nroutes: {/x: public}", None),
        ("roles: {A: {inherits: [Z]}}", "roles.A.inherits"),
        ("roles: {C: {allow: [lesson:view]}}", "roles.C.allow[0].permission"),
        ("grants: [{role: Z, user: user_1}]", "grants[0].role"),
        ("permissions: [course:edit]\nroles: {A: {}, B: {}, C: {}}", "stored route /courses/{id}"),
        ("routes: {/lessons: lesson:view}", "routes./lessons"),
        ("routes: {'/a/{x}': public, '/{y}/b': public}", "routes./{y}/b"),
    ],
)
def test_the_result_must_hold_together_with_what_is_stored(
    administrator: Administrator, document: str, path: str | None, written: list[int]
):
    administrator.apply(POLICY)
    if path is None:
        administrator.apply(document)
        return
    for dry_run in (True, False):
        with pytest.raises(InvalidPolicy) as caught:
            administrator.apply(document, dry_run=dry_run)
        assert path in [violation.field for violation in caught.value.violations]
    assert written == [1]


def test_a_document_with_one_mistake_changes_nothing(
    administrator: Administrator, written: list[int]
):
    with pytest.raises(InvalidPolicy):
        administrator.apply(COURSES.replace("user: user_sam", "usr: user_sam"))
    assert administrator.list(Role) == []
    assert written == []


def test_a_database_that_refuses_the_last_write_keeps_nothing_of_the_first(
    administrator: Administrator, engine: Engine, written: list[int]
):
    """After SpiceDB CVE-2025-64529: a failure in the middle of a large write."""

    @event.listens_for(engine, "before_cursor_execute")
    def refuse(_c: object, _u: object, statement: str, *_: object) -> None:
        if "INSERT INTO grants" in statement:
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        administrator.apply(POLICY)
    event.remove(engine, "before_cursor_execute", refuse)
    assert administrator.list(Permission) == []
    assert administrator.list(Role) == []
    assert administrator.export()[1] == 0
    assert written == []
    assert administrator.apply(POLICY)[0] == 1


@pytest.mark.soak
def test_many_grants_are_all_there_or_none(
    administrator: Administrator, engine: Engine, written: list[int]
):
    """After SpiceDB CVE-2025-64529: no part of a large write is silently dropped."""
    count = soak.count(100_000, sample=1_500)
    lines = [f"- {{role: R, user: u{n}}}" for n in range(count)]
    text = "roles: {R: {}}\ngrants:\n" + "\n".join(lines)
    with pytest.raises(InvalidPolicy):
        administrator.apply(f"{text}\n- {{role: MISSING, user: u}}")
    assert administrator.list(Grant) == []
    assert written == []

    revision, changes = administrator.apply(text)
    assert (revision, written) == (1, [1])
    assert len(changes) == count + 1
    grants = administrator.list(Grant)
    assert {grant.subject for grant in grants} == {ToUser(f"u{n}") for n in range(count)}


def test_an_export_that_apply_would_refuse_is_refused(
    administrator: Administrator, store: Store, monkeypatch: pytest.MonkeyPatch
):
    assert DOCUMENT_BYTES_MAX == 64 << 20
    monkeypatch.setattr(administrator_module, "DOCUMENT_BYTES_MAX", 100_000)
    users = (User(f"{n:0256}", attributes={"a": "x" * 1000}) for n in range(100))
    with store.write() as transaction:
        transaction.apply_many(users)
    with pytest.raises(LimitExceeded) as caught:
        administrator.export()
    assert caught.value.metadata["maximum"] == "100000"
    assert administrator.export(["roles"])[0] == "version: 1\nroles: {}\n"


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 24])
def test_an_export_in_pages_is_the_document_as_a_whole(
    administrator: Administrator,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
):
    monkeypatch.setattr(administrator_module, "_PAGE_ITEMS", 8)
    with store.write() as transaction:
        transaction.apply_many([Role("R")])
        transaction.apply_many(User(f"u{n}", name="a\n- b\nusers:\n") for n in range(count))
        transaction.apply_many(Grant(f"g{n}", "R", ToUser(f"u{n}")) for n in range(count))
    text, revision = administrator.export()
    with store.read() as reader:
        sections = {f"{kind}s": tuple(reader.list(KINDS[kind])) for kind in KINDS}
    assert text == render_document(PolicyDocument(**sections))
    assert administrator.apply(text) == (revision, [])


@pytest.mark.soak
def test_the_rollback_of_many_users_is_one_document(sqlite_url: str):
    """45,000 were too many for the 4 MiB that a document had. Fewer have more attributes."""
    engine = open_engine(sqlite_url)
    store = Store(engine)
    administrator = Administrator(store, lambda _: None)
    count = soak.count(50_000, sample=500)
    more = {"more": "x" * ((4 << 20) // count)}
    users = [
        User(f"user_{n:027}", f"person{n}@example.test", f"Person {n}", attributes=more)
        for n in range(count)
    ]
    with store.write() as transaction:
        transaction.apply_many(users)
    before, revision = administrator.export()
    assert len(before) > 4 << 20
    with store.write() as transaction:
        transaction.delete_many(User, [(user.id,) for user in users[: count // 10]])
    rolled_back, changes = administrator.apply(before)
    assert (rolled_back, len(changes)) == (revision + 2, count // 10)
    with store.read() as reader:
        assert len(reader.list(User)) == count
    engine.dispose()


def test_rules_that_differ_have_different_ids(administrator: Administrator):
    administrator.apply("permissions: [a:b]\nroles: {R: {allow: [a:b]}}")
    _, changes = administrator.apply("roles: {R: {allow: [{permission: a:b, when: 'true'}]}}\n")
    assert [(change.action, change.kind) for change in changes] == [
        (Action.CREATE, "rule"),
        (Action.DELETE, "rule"),
    ]
    (rule,) = administrator.list(Rule)
    assert (rule.effect, rule.condition) == (Effect.ALLOW, "true")
