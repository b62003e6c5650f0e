"""Provisioning at the first request, over gRPC and Connect."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pdpapi.v1.administration_service_pb2 import ListGrantsRequest
from pdpapi.v1.decision_service_pb2 import CheckRequest

from tests.kit.school import ALGEBRA, ORGANIZATION, POLICY, ask, reason_of
from tests.kit.server import ServerProcess, Stubs, stubs_on, token_of


def test_where_it_is_off_the_first_token_of_somebody_unknown_is_denied(stubs: Stubs) -> None:
    for _ in range(2):
        assert reason_of(ask(stubs, "user_nina", "course:view")) == "ACTOR_UNKNOWN"


def test_where_it_is_on_the_first_check_is_allowed_by_the_default_role_in_each_process(
    tmp_path: Path, postgresql_url: str
) -> None:
    """Two servers on one PostgreSQL meet the same new users at the same moment."""
    servers = []
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        settings = {
            "DATABASE_URL": postgresql_url,
            "CLERK": {"provisioning": True, "default_role": "STUDENT"},
        }
        servers.append(ServerProcess(directory, settings))
    assert servers[0].pdp("apply", "-", stdin=POLICY).returncode == 0
    new_users = [f"user_nina{number}" for number in range(20)]
    requests = [
        CheckRequest(
            actor_token=token_of(user, organization_id=ORGANIZATION),
            permission="course:view",
            resource=ALGEBRA,
        )
        for user in new_users
    ]
    try:
        for server in servers:
            server.start(ready=False)
        for server in servers:
            server.wait_until_ready()
        with (
            servers[0].channel() as one,
            servers[1].channel() as two,
            ThreadPoolExecutor(8) as pool,
        ):
            first, second = stubs_on(one), stubs_on(two)
            asked = [
                pool.submit(stubs.decision.Check, request, timeout=10)
                for request in requests
                for stubs in (first, second)
            ]
            assert {reason_of(answer.result()) for answer in asked} == {"ALLOWED_BY_RULE"}
            grants = second.administration.ListGrants(ListGrantsRequest(page_size=1000)).grants
            granted = [grant.user_id for grant in grants if grant.user_id in new_users]
            assert sorted(granted) == sorted(new_users)
    finally:
        for server in servers:
            if server.process is not None:
                server.stop()
