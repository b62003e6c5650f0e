"""The periodic sync of a serving process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pdpapi.v1.core_pb2 import Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest
from pydantic import SecretStr
from sqlalchemy import Engine, insert, select

from pdp.clerk.directory import Directory
from pdp.clerk.sync.scheduler import DAY_SECONDS, KEEP_SECONDS, Reconciler
from pdp.clerk.sync.sync import Sync
from pdp.database.engine import open_engine
from pdp.database.migrations import migrate
from pdp.facts import Store
from pdp.facts.store import tables
from pdp.settings import ClerkSettings
from tests.kit.clerk.api_server import SECRET_KEY, Answer, ClerkApiServer, too_many
from tests.kit.clerk.events import INSTANCE_ID, T0, user
from tests.kit.clerk.worlds import add_school
from tests.kit.school import reason_of
from tests.kit.server import running_server, token_of
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

HOURS = 3600.0
POLICY = """
version: 1
permissions: {course:view: ""}
roles:
  READER: {allow: [course:view]}
grants:
  - {role: READER, organization_role: "org:member"}
"""


@pytest.fixture
def clerk(server: ClerkApiServer) -> ClerkApiServer:
    server.reset()
    add_school(server)
    return server


Start = Callable[..., Reconciler]


@pytest.fixture
def start(clerk: ClerkApiServer) -> Iterator[Start]:
    """Starts a reconciler on an engine; all are stopped at the end."""

    with ExitStack() as started:

        def begin(engine: Engine, seconds: float = HOURS, lifetime: float = 60) -> Reconciler:
            store = Store(engine)
            settings = ClerkSettings(
                instance_id=INSTANCE_ID,
                secret_key=SecretStr(SECRET_KEY),
                api_url=clerk.url,
                reconcile_seconds=seconds,
            )
            reconciler = Reconciler(
                settings,
                store,
                Directory(store, lambda _: None),
                clock=time.time,
                token_lifetime_seconds_max=lifetime,
            )
            reconciler.start()
            started.callback(reconciler.stop)
            return reconciler

        yield begin


def test_of_several_processes_one_syncs_and_all_tell_of_it(
    engine: Engine, clerk: ClerkApiServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.clerk.sync.scheduler.CHECK_SECONDS", 0.05)
    began = time.time()
    processes = [start(engine) for _ in range(3)]
    for process in processes:
        eventually(lambda process=process: process.reconciled_at() > 0)
        assert process.drift() == len(clerk.objects)
        assert began < process.reconciled_at() < time.time()
    assert clerk.asked("/users") == 1
    assert sum(process.failures() for process in processes) == 0


def test_a_sync_from_cron_shows_in_the_metrics_of_the_server(
    engine: Engine, clerk: ClerkApiServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pdp.clerk.sync.scheduler.CHECK_SECONDS", 0.05)
    server = start(engine, seconds=0)
    store = Store(engine)
    settings = ClerkSettings(
        instance_id=INSTANCE_ID, secret_key=SecretStr(SECRET_KEY), api_url=clerk.url
    )
    Sync(settings, store, Directory(store, lambda _: None)).run()
    eventually(lambda: server.reconciled_at() > 0)
    assert server.drift() == len(clerk.objects)
    assert clerk.asked("/users") == 1


def test_a_sync_that_fails_is_counted_and_tried_again(
    sqlite_url: str, clerk: ClerkApiServer, start: Start
) -> None:
    clerk.answer_next(Answer(body=b"{}"), path="/users")
    reconciler = start(open_engine(sqlite_url), seconds=0.1)
    eventually(lambda: reconciler.failures() == 1)
    eventually(lambda: reconciler.drift() == len(clerk.objects))
    eventually(lambda: reconciler.drift() == 0)  # by the next, which finds all as it should be
    assert clerk.asked("/organizations") >= 2


def test_a_database_that_comes_late_is_synced(
    tmp_path: Path, clerk: ClerkApiServer, start: Start
) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/late.db")
    reconciler = start(engine, seconds=0.05)
    assert reconciler.reconciled_at() == 0
    migrate(engine)
    eventually(lambda: reconciler.reconciled_at() > 0)


def test_it_stops_while_clerk_has_it_wait(
    sqlite_url: str, clerk: ClerkApiServer, start: Start
) -> None:
    clerk.answer_next(too_many("100"), path="/users")
    reconciler = start(open_engine(sqlite_url))
    eventually(lambda: clerk.asked("/users") == 1)
    [thread] = (thread for thread in threading.enumerate() if thread.name == "clerk")
    watch = Stopwatch()
    reconciler.stop()
    assert watch.seconds < 1
    assert not thread.is_alive()
    # The next process goes on at once.
    other = start(open_engine(sqlite_url))
    eventually(lambda: other.reconciled_at() > 0)
    assert clerk.asked("/organizations") == 1


@pytest.mark.parametrize("lifetime", [60, 100 * DAY_SECONDS])
def test_messages_and_sessions_are_forgotten_when_no_token_can_need_them(
    engine: Engine, start: Start, lifetime: float
) -> None:
    """Even if nothing is synced."""
    now = time.time()
    kept = max(KEEP_SECONDS, lifetime + DAY_SECONDS)
    ages = {"old": kept + 60, "young": kept - 60}
    with engine.begin() as connection:
        for name, age in ages.items():
            row = {"id": f"msg_{name}", "handled_at": now - age}
            connection.execute(insert(tables.webhook_messages).values(row))
            row = {"user_id": "user_1", "session_id": name, "revoked_at": now - age}
            connection.execute(insert(tables.revoked_sessions).values(row))
        undated = {"user_id": "user_1", "session_id": "undated", "revoked_at": None}
        connection.execute(insert(tables.revoked_sessions).values(undated))

    def left() -> tuple[set[str], set[str]]:
        with engine.connect() as connection:
            messages = connection.execute(select(tables.webhook_messages.c.id)).scalars()
            sessions = connection.execute(select(tables.revoked_sessions.c.session_id)).scalars()
            return set(messages), set(sessions)

    start(engine, seconds=0, lifetime=lifetime)
    eventually(lambda: left() == ({"msg_young"}, {"young", "undated"}))


def test_a_banned_user_is_denied_without_a_webhook(tmp_path: Path, clerk: ClerkApiServer) -> None:
    """Fault F19, from end to end: with `reconcile_seconds` alone."""
    settings = {
        "instance_id": INSTANCE_ID,
        "secret_key": SECRET_KEY,
        "api_url": clerk.url,
        "reconcile_seconds": 0.5,
    }
    with running_server(tmp_path, POLICY, CLERK=settings) as (running, stubs):

        def reason() -> str:
            request = CheckRequest(
                actor_token=token_of("user_00001", organization_id="org_1"),
                permission="course:view",
                resource=Resource(type="course", id="algebra", organization_id="org_1"),
            )
            return reason_of(stubs.decision.Check(request, timeout=10))

        eventually(lambda: reason() == "ALLOWED_BY_RULE")
        clerk.add(user("user_00001", email="u1@example.test", banned=True, updated_at=T0 + 1))
        eventually(lambda: reason() == "ACTOR_DISABLED")
        metrics = running.http("/metrics")[1]
        assert "pdp_clerk_drift " in metrics
        assert "pdp_clerk_sync_failures 0.0" in metrics
        assert "pdp_clerk_reconciled_timestamp_seconds 1" in metrics
        assert SECRET_KEY not in running.log()
        assert '"event": "clerk_synced"' in running.log()
        watch = Stopwatch()
        assert running.stop() == 0
        assert watch.seconds < 5
