"""Messages, from a real socket to a real database and the replica that decides from it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from pdp.clerk.webhooks.events import TYPES
from pdp.database.engine import open_engine
from pdp.facts import Store
from pdp.model import Membership, Organization, User
from tests.kit.clerk import events as clerk
from tests.kit.clerk.events import T0, event, signed
from tests.kit.clerk.webhook_endpoints import Endpoint, running_endpoint
from tests.kit.sqlite import make_sqlite
from tests.kit.waiting import eventually, run

SIGNED_400 = (400, "malformed\n")


@pytest.fixture
def endpoint(engine: Engine) -> Iterator[Endpoint]:
    with running_endpoint(engine) as running:
        yield running


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """For what does not depend on the database, and leaves it as it was."""
    file = tmp_path_factory.mktemp("endpoint") / "pdp.db"
    make_sqlite(file)
    engine = open_engine(f"sqlite:///{file}")
    with running_endpoint(engine) as running:
        yield running
    engine.dispose()


def test_a_message_is_committed_and_seen_by_the_replica_when_it_is_answered(
    endpoint: Endpoint,
) -> None:
    ada = clerk.user("user_ada", email="ada@example.test", username="ada")
    for type_, data in (
        ("user.created", ada),
        ("organization.created", clerk.organization("org_a", name="A", slug="a")),
        (
            "organizationMembership.created",
            clerk.membership(organization_id="org_a", user_id="user_ada", role="admin"),
        ),
    ):
        before = endpoint.replica.revision
        assert endpoint.deliver(event(type_, data)) == (200, "applied\n")
        assert endpoint.replica.revision == before + 1
    administrator = endpoint.administrator
    assert administrator.get(User, ("user_ada",)) == User("user_ada", "ada@example.test", "ada")
    assert administrator.get(Organization, ("org_a",)) == Organization("org_a", "a", "A")
    pair = ("org_a", "user_ada")
    assert administrator.get(Membership, pair) == Membership(*pair, "org:admin")
    view = run(endpoint.replica.view("user_ada", "org_a", [None]))
    assert view.user is not None
    assert view.user.memberships == {"org_a": "org:admin"}


def test_a_message_that_comes_again_changes_nothing(endpoint: Endpoint) -> None:
    body = event("user.created", clerk.user())
    assert endpoint.deliver(body, signed(body, message_id="msg_00000001")) == (200, "applied\n")
    before = endpoint.everything()
    for _ in range(3):
        headers = signed(body, message_id="msg_00000001")
        assert endpoint.deliver(body, headers) == (200, "duplicate\n")
    assert endpoint.everything() == before


def test_what_says_nothing_new_raises_no_revision(endpoint: Endpoint) -> None:
    newer = clerk.user(username="newer", updated_at=T0 + 5)
    assert endpoint.deliver(event("user.updated", newer)) == (200, "applied\n")
    revision = endpoint.replica.revision
    for type_, data in (
        ("user.updated", newer),
        ("user.created", clerk.user(username="older")),
        ("session.created", clerk.session()),
    ):
        assert endpoint.deliver(event(type_, data)) == (200, "unchanged\n")
    assert endpoint.everything()[0] == endpoint.replica.revision == revision
    assert endpoint.administrator.get(User, ("user_1",)).name == "newer"


def test_an_event_that_is_not_known_is_accepted_and_counted_as_such(on_sqlite: Endpoint) -> None:
    before = on_sqlite.everything()
    for type_ in ("email.created", "user.invented", "x" * 5_000, "\ud800", ""):
        assert on_sqlite.deliver(event(type_, {"a": [1]})) == (200, "ignored\n")
    assert on_sqlite.counted["unknown", "ignored"] == 5
    assert {type_ for type_, _ in on_sqlite.counted} <= {"unknown", *TYPES}
    assert on_sqlite.everything() == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[1]",
        b'{"type":"user.updated"}',
        event("user.updated", {}),
        event("user.updated", clerk.user("")),
        event("user.updated", clerk.user(), at="now"),  # not a time
        event("user.deleted", {"object": "user", "deleted": True}),
    ],
    ids=range(8),
)
def test_a_signed_message_that_is_no_event_is_refused_and_may_be_sent_again(
    on_sqlite: Endpoint, body: bytes
) -> None:
    before = on_sqlite.everything()
    for _ in range(2):
        assert on_sqlite.deliver(body, signed(body, message_id="msg_00000001")) == SIGNED_400
    assert on_sqlite.everything() == before


def test_an_event_of_another_instance_is_refused(on_sqlite: Endpoint) -> None:
    before = on_sqlite.everything()
    for instance_id in ("ins_other", "", clerk.INSTANCE_ID.lower() + "x"):
        body = event("user.created", clerk.user(), instance_id=instance_id)
        assert on_sqlite.deliver(body) == (400, "other_instance\n")
    assert on_sqlite.deliver(event("user.created", clerk.user(), instance_id=None)) == SIGNED_400
    assert on_sqlite.everything() == before


def test_while_the_database_is_unavailable_clerk_is_asked_to_retry(endpoint: Endpoint) -> None:
    body = event("user.created", clerk.user())
    move_away, move_back = (
        text(f"ALTER TABLE {name} RENAME TO {other}")
        for name, other in (("clerk_objects", "away"), ("away", "clerk_objects"))
    )
    with endpoint.engine.begin() as connection:
        connection.execute(move_away)
    with capture_logs() as logs:
        headers = signed(body, message_id="msg_00000001")
        assert endpoint.deliver(body, headers) == (503, "unavailable\n")
    assert [(line["event"], line["message_id"]) for line in logs] == [
        ("webhook_postponed", "msg_00000001")
    ]
    assert "user_1" not in repr(logs)
    with endpoint.engine.begin() as connection:
        connection.execute(move_back)
    assert endpoint.deliver(body, signed(body, message_id="msg_00000001")) == (200, "applied\n")


def test_strangers_leave_nothing_in_the_log_and_clerk_no_secret_and_no_body(
    on_sqlite: Endpoint,
) -> None:
    canary = event("user.created", clerk.user(username="canary"), instance_id="ins_other")
    with capture_logs() as logs:
        assert on_sqlite.deliver(canary, {})[0] == 400
        assert on_sqlite.deliver(canary, signed(canary, secret=clerk.OTHER_SECRET))[0] == 400
    assert logs == []
    with capture_logs() as logs:
        assert on_sqlite.deliver(canary)[0] == 400
        assert on_sqlite.deliver(b"canary")[0] == 400
    assert [line["event"] for line in logs] == ["webhook_of_another_instance", "webhook_malformed"]
    assert "canary" not in repr(logs)
    assert "whsec" not in repr(logs)


def test_a_replica_that_does_not_follow_delays_the_answer_by_a_second_and_no_more(
    sqlite_url: str,
) -> None:
    engine = open_engine(sqlite_url)
    with running_endpoint(engine) as endpoint, capture_logs() as logs:
        endpoint.replica.stop()
        assert endpoint.deliver(event("user.created", clerk.user())) == (200, "applied\n")
        assert [line["event"] for line in logs] == ["webhook_answered_early"]
        assert endpoint.administrator.get(User, ("user_1",)).id == "user_1"
    engine.dispose()


def test_few_messages_are_written_at_once(endpoint: Endpoint) -> None:
    """Each that waits for the others in the database keeps a connection from the decisions."""
    out: set[int] = set()
    most = 0

    def checked_out(connection: object, *_: object) -> None:
        nonlocal most
        out.add(id(connection))
        most = max(most, len(out))

    sqlalchemy.event.listen(endpoint.engine, "checkout", checked_out)
    sqlalchemy.event.listen(
        endpoint.engine, "checkin", lambda connection, *_: out.discard(id(connection))
    )
    bodies = [event("user.created", clerk.user(f"user_{n}")) for n in range(12)]
    with ThreadPoolExecutor(len(bodies)) as pool:
        with Store(endpoint.engine).write():
            answers = pool.map(endpoint.deliver, bodies)
            eventually(lambda: len(out) > 1)
        assert list(answers) == [(200, "applied\n")] * len(bodies)
    assert most <= 1 + 1 + 1  # this test, who writes for all, the replica
