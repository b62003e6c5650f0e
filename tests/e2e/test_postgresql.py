"""The whole of it on PostgreSQL: two processes, one database, the same answers as on SQLite."""

from pathlib import Path

from pdpapi.v1.administration_service_pb2 import (
    CreateGrantRequest,
    DeleteGrantRequest,
    Grant,
)
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit.school import ALGEBRA, ORGANIZATION, POLICY, reason_of
from tests.kit.server import ServerProcess, stubs_on, token_of
from tests.kit.waiting import eventually

SETTINGS = {"POLL_SECONDS": "30", "STALENESS_SECONDS_MAX": "60"}
"""Polling is far too slow for these tests."""


def test_two_servers_on_one_postgresql_answer_alike(tmp_path: Path, postgresql_url: str) -> None:
    servers = []
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        servers.append(ServerProcess(directory, {"DATABASE_URL": postgresql_url, **SETTINGS}))
    one, two = servers
    assert one.pdp("migrate").returncode == 0
    assert one.pdp("apply", "-", stdin=POLICY).returncode == 0
    token = token_of("user_sam", organization_id=ORGANIZATION)
    request = CheckRequest(actor_token=token, permission="course:edit", resource=ALGEBRA)
    try:
        for server in servers:
            server.start()
        with one.channel() as first, two.channel() as second:
            for channel in (first, second):
                answer = stubs_on(channel).decision.Check(request, timeout=10)
                assert reason_of(answer) == "PERMISSION_NOT_GRANTED"
            created = stubs_on(first).administration.CreateGrant(
                CreateGrantRequest(grant=Grant(role="ADMIN", user_id="user_sam")), timeout=10
            )
            # A write through one server is visible through the other, which is asked to wait.
            request.at_least_revision = created.revision
            answer = stubs_on(second).decision.Check(request, timeout=10)
            assert reason_of(answer) == "ALLOWED_BY_RULE"
            # And what is not asked for wakes it all the same.
            request.at_least_revision = 0
            stubs_on(first).administration.DeleteGrant(
                DeleteGrantRequest(id=created.grant.id), timeout=10
            )
            eventually(
                lambda: (
                    reason_of(stubs_on(second).decision.Check(request, timeout=10))
                    == "PERMISSION_NOT_GRANTED"
                )
            )
        exported = one.pdp("export").stdout
        assert two.pdp("apply", "-", stdin=exported).stdout.startswith("no changes")
    finally:
        for server in servers:
            if server.process is not None:
                server.stop()
