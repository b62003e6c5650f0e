"""Two replicas on one PostgreSQL: one of them is paused, or the policy turns out to be bad."""

import signal
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from pdpapi.v1.administration_service_pb2 import (
    ApplyRequest,
    CreateGrantRequest,
    DeleteGrantRequest,
    ExportRequest,
    Grant,
)
from pdpapi.v1.decision_service_pb2 import CheckRequest
from sqlalchemy import make_url

from tests.kit.clusters import administer
from tests.kit.faults.load import ask_once, question
from tests.kit.faults.table import FAULTS
from tests.kit.school import POLICY
from tests.kit.server import ServerProcess, Stubs, running_server
from tests.kit.stall import Stopwatch
from tests.kit.waiting import eventually

BOUND = 1.5

Replica = tuple[ServerProcess, Stubs]


@pytest.fixture(scope="module")
def replicas(
    postgresql_server: str, postgresql_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Replica, Replica]]:
    name = f"pdp_test_{uuid.uuid4().hex}"
    administer(postgresql_server, f'CREATE DATABASE "{name}" TEMPLATE "{postgresql_template}"')
    url = make_url(postgresql_server).set(database=name).render_as_string(hide_password=False)
    settings = {"DATABASE_URL": url, "STALENESS_SECONDS_MAX": str(BOUND)}
    with (
        running_server(tmp_path_factory.mktemp("one"), POLICY, **settings) as one,
        running_server(tmp_path_factory.mktemp("two"), **settings) as two,
    ):
        yield one, two
    administer(postgresql_server, f'DROP DATABASE "{name}" WITH (FORCE)')


def test_a_replica_that_was_paused_for_longer_than_the_bound_allows_nothing_of_before(
    replicas: tuple[Replica, Replica],
) -> None:
    fault = FAULTS["F6"]
    (paused, asked), (_, other) = replicas
    may_edit = question(permission="course:edit")
    grant = Grant(role="ADMIN", user_id="user_sam", organization_id="org_school")
    created = other.administration.CreateGrant(CreateGrantRequest(grant=grant), timeout=20)
    eventually(lambda: ask_once(asked, may_edit).allowed)
    paused.signal(signal.SIGSTOP)
    try:
        other.administration.DeleteGrant(DeleteGrantRequest(id=created.grant.id), timeout=20)
        with ThreadPoolExecutor(8) as threads:
            # These are the first that it reads when it goes on, before it can look around.
            early = [threads.submit(ask_once, asked, may_edit) for _ in range(8)]
            revoked_at = time.monotonic()
            eventually(
                lambda: time.monotonic() - revoked_at > fault.seconds(staleness_seconds_max=BOUND)
            )
            paused.signal(signal.SIGCONT)
            answers = [future.result() for future in early]
    finally:
        paused.signal(signal.SIGCONT)
    watch = Stopwatch()
    answers += [ask_once(asked, may_edit) for _ in range(20)]
    assert not any(answer.allowed for answer in answers)
    for answer in answers:
        if answer.error is not None:
            fault.expect(answer.error)
    eventually(lambda: ask_once(asked, question()).allowed)
    assert watch.seconds < fault.healed_within()


def test_a_bad_policy_is_rolled_back_by_applying_the_one_before(
    replicas: tuple[Replica, Replica],
) -> None:
    fault = FAULTS["F36"]
    (_, writer), (_, other) = replicas
    request = question()
    good = writer.administration.Export(ExportRequest(), timeout=20)
    eventually(lambda: ask_once(other, request).allowed)

    def takes_effect(document: str, *, allowed: bool) -> int:
        applied = writer.administration.Apply(ApplyRequest(document=document), timeout=20)
        watch = Stopwatch()
        eventually(lambda: ask_once(other, request).allowed is allowed)
        assert watch.seconds < fault.seconds()
        revision: int = applied.revision
        return revision

    everybody_denied = "permissions: {'course:view': ''}\nroles: {STUDENT: {deny: ['*']}}\n"
    everybody_denied += "grants: [{role: STUDENT, user: user_sam}]\nroutes: {}\n"
    bad = takes_effect(everybody_denied, allowed=False)
    back = takes_effect(good.document, allowed=True)
    assert good.revision < bad < back
    again = writer.administration.Export(ExportRequest(), timeout=20)
    assert (again.document, again.revision) == (good.document, back)
    # An edit of the earlier export does not undo the rollback by accident.
    stale = ApplyRequest(document=everybody_denied, expected_revision=good.revision)
    with pytest.raises(grpc.RpcError) as refused:
        writer.administration.Apply(stale, timeout=20)
    FAULTS["F34"].expect(refused.value)
    # A question that waits for the rollback sees it on every replica.
    at_least = CheckRequest()
    at_least.CopyFrom(request)
    at_least.at_least_revision = back
    assert ask_once(other, at_least).allowed
