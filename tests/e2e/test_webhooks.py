"""Clerk's messages to a real server process, and what the next Check says."""

import gzip
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pdpapi.v1 import administration_service_pb2 as pb
from pdpapi.v1.audit_service_pb2 import ListDecisionsRequest
from pdpapi.v1.core_pb2 import Resource
from pdpapi.v1.decision_service_pb2 import CheckRequest
from sqlalchemy import make_url

from pdp.http.bounded_post import READING_MAX
from tests.kit.clerk import events as clerk
from tests.kit.clerk.events import INSTANCE_ID, OTHER_SECRET, SECRET, T0, deliver, event, signed
from tests.kit.server import ServerProcess, Stubs, running_server, token_of
from tests.kit.waiting import eventually
from tests.kit.wire.recorded import logged_reason

POLICY = """
version: 1
permissions: {course:view: ""}
roles:
  READER: {allow: [course:view]}
grants:
  - {role: READER, organization_role: "org:member"}
"""
CLERK = {"instance_id": INSTANCE_ID, "webhook_secrets": [SECRET]}
START = b"POST /webhooks/clerk HTTP/1.1\r\nHost: pdp\r\nContent-Length: %d\r\n%s\r\n"
TRICKLERS = READING_MAX + 8
COURSE = Resource(type="course", id="algebra", organization_id="org_1")


class School:
    """A server that knows its users from Clerk only."""

    def __init__(self, server: ServerProcess, stubs: Stubs) -> None:
        self.server, self.stubs = server, stubs

    def tell(self, type_: str, data: Any, *, at: int = T0) -> None:
        status, text = deliver(self.server.http_port, event(type_, data, at=at))
        assert status == 200, text

    def enrol(self, user_id: str) -> None:
        self.tell("user.created", clerk.user(user_id))
        self.tell("organizationMembership.created", membership_of(user_id))

    def check(self, user_id: str, session_id: str = "sess_1") -> str:
        """With a fresh token, and nothing to wait for but a disk that takes its time."""
        token = token_of(user_id, session_id=session_id, organization_id="org_1")
        request = CheckRequest(actor_token=token, permission="course:view", resource=COURSE)
        return logged_reason(self.stubs, request)

    def metric(self, name: str) -> float:
        lines = self.server.http("/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def membership_of(user_id: str, **fields: Any) -> dict[str, Any]:
    return clerk.membership(f"orgmem_{user_id}", user_id=user_id, **fields)


@contextmanager
def running_school(directory: Path, **settings: Any) -> Iterator[School]:
    """At its end, whatever was sent to it: no secret, no body and no traceback is in the log."""
    with running_server(directory, POLICY, CLERK=CLERK, **settings) as (server, stubs):
        yield School(server, stubs)
    for word in ("canary", SECRET.removeprefix("whsec_"), "whsec_", "@example", "Traceback"):
        assert word not in server.log()


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    with running_school(tmp_path_factory.mktemp("clerk")) as one:
        one.tell("organization.created", clerk.organization("org_1"))
        yield one


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    """A server for tests that do not attack its listener."""
    with running_school(tmp_path_factory.mktemp("answering")) as one:
        yield one


@pytest.fixture(scope="module")
def trickling(answering: School) -> Iterator[Sequence["Future[tuple[bytes, float]]"]]:
    """More requests than the server reads at once, a byte of the body every second: the
    first line of each answer, and the seconds until it came. They go on while other tests run."""

    well_formed = b"".join(f"{k}: {v}\r\n".encode() for k, v in signed(b"").items())

    def trickle() -> tuple[bytes, float]:
        began = time.monotonic()
        address = ("127.0.0.1", answering.server.http_port)
        with socket.create_connection(address, timeout=1) as connection:
            connection.sendall(START % (1_000, well_formed))
            for _ in range(20):
                connection.sendall(b" ")
                with suppress(TimeoutError):
                    return connection.recv(1_000).split(b"\r\n")[0], time.monotonic() - began
        return b"no answer", time.monotonic() - began

    with ThreadPoolExecutor(TRICKLERS) as pool:
        yield [pool.submit(trickle) for _ in range(TRICKLERS)]


def test_slow_bodies_hold_nobody_up(
    answering: School, trickling: Sequence["Future[tuple[bytes, float]]"]
) -> None:
    for _ in range(20):
        assert answering.server.http("/healthz")[0] == 200
        assert deliver(answering.server.http_port, event("email.created", {}))[0] == 200
        assert answering.check("user_nobody") == "ACTOR_UNKNOWN"
    assert not all(call.done() for call in trickling)


# --- what is decided afterwards -------------------------------------------------------------------


def test_a_user_in_a_webhook_is_allowed_and_any_other_is_unknown(school: School) -> None:
    assert school.check("user_new") == "ACTOR_UNKNOWN"
    school.tell("organizationMembership.created", membership_of("user_new"))  # before the user
    assert school.check("user_new") == "ACTOR_UNKNOWN"
    school.tell("user.created", clerk.user("user_new"))
    assert school.check("user_new") == "ALLOWED_BY_RULE"


@pytest.mark.parametrize("verb", ["revoked", "ended", "removed"])
def test_a_session_that_is_over_is_denied_at_once_though_its_token_lives(
    school: School, verb: str
) -> None:
    """Asked before, so that everything is in memory; twenty times, so that no luck is in it."""
    user_id = f"user_{verb}"
    school.enrol(user_id)
    for number in range(20):
        session_id = f"sess_{verb}_{number}"
        assert school.check(user_id, session_id) == "ALLOWED_BY_RULE"
        data = clerk.session(session_id, user_id=user_id, status=verb)
        school.tell(f"session.{verb}", data)
        assert school.check(user_id, session_id) == "SESSION_REVOKED"
    assert school.check(user_id, "sess_another") == "ALLOWED_BY_RULE"


@pytest.mark.parametrize("flag", ["banned", "locked", "deprovisioned"])
def test_a_user_who_is_barred_is_denied_at_once_and_until_that_ends(
    school: School, flag: str
) -> None:
    user_id = f"user_{flag}"
    school.enrol(user_id)
    for minute in range(1, 6):
        now = T0 + minute * 60_000
        assert school.check(user_id) == "ALLOWED_BY_RULE"
        barred = clerk.user(user_id, updated_at=now, **{flag: True})
        school.tell("user.updated", barred, at=now)
        assert school.check(user_id) == "ACTOR_DISABLED"
        school.tell("user.updated", clerk.user(user_id, updated_at=now - 30_000), at=now - 30_000)
        assert school.check(user_id) == "ACTOR_DISABLED"
        school.tell("user.updated", clerk.user(user_id, updated_at=now + 1), at=now + 1)


def test_a_deleted_user_is_denied_at_once_and_leaves_the_audit_behind(school: School) -> None:
    school.enrol("user_gone")
    grant = pb.Grant(role="READER", user_id="user_gone")
    school.stubs.administration.CreateGrant(pb.CreateGrantRequest(grant=grant), timeout=10)
    assert school.check("user_stranger") == "ACTOR_UNKNOWN"
    assert school.check("user_gone") == "ALLOWED_BY_RULE"
    school.tell("user.deleted", clerk.deleted("user", "user_gone"), at=T0 + 9)
    assert school.check("user_gone") == "ACTOR_DISABLED"
    school.tell("user.updated", clerk.user("user_gone", updated_at=T0 + 99), at=T0 + 99)
    assert school.check("user_gone") == "ACTOR_DISABLED"
    grants = school.stubs.administration.ListGrants(pb.ListGrantsRequest(), timeout=10).grants
    assert [grant.user_id for grant in grants] == [""]
    listed = ListDecisionsRequest(user_id="user_gone", page_size=10)

    def on_record() -> bool:
        found = school.stubs.audit.ListDecisions(listed, timeout=10).decisions
        return sum(item.occurrences for item in found) == 2  # equal ones share a record

    eventually(on_record, what="the denials of a user who is gone")


def test_a_member_who_is_removed_or_has_another_role_is_denied_at_once(school: School) -> None:
    school.enrol("user_member")
    assert school.check("user_member") == "ALLOWED_BY_RULE"
    other = membership_of("user_member", role="org:guest", updated_at=T0 + 1)
    school.tell("organizationMembership.updated", other, at=T0 + 1)
    assert school.check("user_member") == "PERMISSION_NOT_GRANTED"
    school.tell("organizationMembership.deleted", membership_of("user_member"), at=T0 + 2)
    assert school.check("user_member") == "MEMBERSHIP_UNKNOWN"
    back = membership_of("user_member", created_at=T0 + 3, updated_at=T0 + 3)
    school.tell("organizationMembership.created", back, at=T0 + 3)
    assert school.check("user_member") == "ALLOWED_BY_RULE"
    school.tell("organization.deleted", clerk.deleted("organization", "org_2"), at=T0 + 4)
    assert school.check("user_member") == "ALLOWED_BY_RULE"


# --- what is not believed -------------------------------------------------------------------------


def test_what_is_forged_stale_or_no_event_changes_nothing(answering: School) -> None:
    answering.enrol("user_1")
    port = answering.server.http_port
    ban = event("user.updated", clerk.user(banned=True, username="canary"), at=T0 + 9)
    old = signed(ban, now=time.time() - 301)
    elsewhere = event("user.updated", clerk.user(banned=True), instance_id="ins_x", at=T0 + 9)
    revision = answering.metric("pdp_revision")
    for body, headers, wanted in (
        (ban, {}, (400, "header_missing\n")),
        (ban, signed(ban, secret=OTHER_SECRET), (400, "signature_wrong\n")),
        (ban + b" ", signed(ban), (400, "signature_wrong\n")),
        (ban, old, (400, "timestamp_out_of_tolerance\n")),
        (elsewhere, signed(elsewhere), (400, "other_instance\n")),
        (b"canary", signed(b"canary"), (400, "malformed\n")),
        (gzip.compress(ban), {"Content-Encoding": "gzip"}, (415, "encoded\n")),
    ):
        assert deliver(port, body, headers) == wanted
    assert answering.metric("pdp_revision") == revision
    assert answering.check("user_1") != "ACTOR_DISABLED"
    assert deliver(port, ban) == (200, "applied\n")
    assert answering.check("user_1") == "ACTOR_DISABLED"


def test_a_message_that_is_replayed_is_answered_and_changes_nothing(answering: School) -> None:
    """Within five minutes anybody who saw it can send it again."""
    port = answering.server.http_port
    body = event("user.created", clerk.user("user_again"))
    headers = signed(body)
    assert deliver(port, body, headers) == (200, "applied\n")
    revision = answering.metric("pdp_revision")
    for _ in range(3):
        assert deliver(port, body, headers) == (200, "duplicate\n")
    assert answering.metric("pdp_revision") == revision
    counted = 'pdp_webhooks_total{outcome="duplicate",type="user.created"}'
    assert answering.metric(counted) == 3


def test_a_body_that_is_announced_as_too_large_is_not_waited_for(answering: School) -> None:
    address = ("127.0.0.1", answering.server.http_port)
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(START % (10 * 1024 * 1024, b""))
        assert connection.recv(1_000).startswith(b"HTTP/1.1 413 ")


# --- what takes its time --------------------------------------------------------------------------


def test_while_the_database_is_away_clerk_tries_again_and_then_it_counts(
    tmp_path: Path, postgresql_url: str, postgresql_server: str
) -> None:
    name = make_url(postgresql_url).database
    with running_school(tmp_path, DATABASE_URL=postgresql_url) as school:
        server = school.server
        school.enrol("user_1")
        assert school.check("user_1") == "ALLOWED_BY_RULE"
        body = event("user.updated", clerk.user(banned=True, updated_at=T0 + 9), at=T0 + 9)
        with psycopg.connect(plain(postgresql_server), autocommit=True) as administrator:
            administrator.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            for _ in range(2):
                status, text = deliver(
                    server.http_port, body, signed(body, message_id="msg_00000001")
                )
                assert (status, text) == (503, "unavailable\n")
            administrator.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        again = signed(body, message_id="msg_00000001")
        assert deliver(server.http_port, body, again) == (200, "applied\n")
        eventually(lambda: server.http("/readyz")[0] == 200)
        assert school.check("user_1") == "ACTOR_DISABLED"


def test_a_slow_body_is_cut_off_after_ten_seconds_or_for_another_one(
    trickling: Sequence["Future[tuple[bytes, float]]"],
) -> None:
    lines, seconds = zip(*(call.result() for call in trickling), strict=True)
    assert set(lines) == {b"HTTP/1.1 408 Request Timeout"}
    assert 9 < max(seconds) < 15
    assert sum(second < 9 for second in seconds) >= TRICKLERS - READING_MAX


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
