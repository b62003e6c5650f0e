"""The guard and a real server process: the whole way of a question."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pdp_client import (
    Forbidden,
    Guard,
    PdpRefused,
    PdpUnavailable,
    Question,
    Resource,
    Unauthenticated,
)

from tests.kit.server import ServerProcess, running_server, token_of

API_KEY = "an-api-key-of-the-courses-backend"
CALLERS = [
    {
        "name": "courses",
        "api_key_sha256": hashlib.sha256(API_KEY.encode()).hexdigest(),
        "may": ["decide"],
    }
]
POLICY = """
permissions: [course:edit, course:read]
roles:
  TEACHER:
    allow:
      - course:read
      - permission: course:edit
        when: resource.attributes.owner == actor.id && context.hour < 18.0
users:
  - {id: user_tess}
  - {id: user_sam}
grants:
  - {role: TEACHER, user: user_tess}
"""
THEIRS = Resource("course", "algebra", attributes={"owner": "user_tess"})
DAYTIME = {"hour": 9}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("server"), POLICY) as (one, _):
        yield one


@pytest.fixture
def real_guard(server: ServerProcess) -> Iterator[Guard]:
    with Guard(f"127.0.0.1:{server.port}", deadline_seconds=10) as one:
        yield one


def test_an_allowed_user_proceeds_as_the_verified_actor(real_guard: Guard):
    actor = real_guard.require(token_of("user_tess"), "course:edit", THEIRS, DAYTIME)
    assert actor.user_id == "user_tess"
    assert actor.organization_id is None


def test_a_denied_user_is_forbidden(real_guard: Guard):
    with pytest.raises(Forbidden) as raised:
        real_guard.require(token_of("user_sam"), "course:edit", THEIRS, DAYTIME)
    decision = raised.value.decision
    assert decision.reason == "PERMISSION_NOT_GRANTED"
    assert decision.actor is not None
    assert decision.decision_id


def test_attributes_and_context_reach_the_condition(real_guard: Guard):
    token = token_of("user_tess")
    foreign = Resource("course", "greek", attributes={"owner": "user_sam"})
    asked = [
        Question("course:edit", THEIRS, DAYTIME),
        Question("course:edit", THEIRS, {"hour": 20}),
        Question("course:edit", foreign, DAYTIME),
        Question("course:edit", THEIRS),
        Question("course:read", foreign),
    ]
    decisions = real_guard.batch(token, asked)
    assert [decision.reason for decision in decisions] == [
        "ALLOWED_BY_RULE",
        "CONDITION_NOT_MET",
        "CONDITION_NOT_MET",
        "ATTRIBUTE_MISSING",
        "ALLOWED_BY_RULE",
    ]
    assert {decision.revision for decision in decisions} == {decisions[0].revision}
    for question, decision in zip(asked, decisions, strict=True):
        alone = real_guard.check(token, question.permission, question.resource, question.context)
        assert alone.reason == decision.reason


@pytest.mark.parametrize("token", ["", "no-token", "\ud800"])
def test_a_token_that_proves_nothing_is_unauthenticated(real_guard: Guard, token: str):
    with pytest.raises(Unauthenticated) as raised:
        real_guard.require(token, "course:read", THEIRS)
    assert raised.value.decision.reason == "TOKEN_MALFORMED"


def test_an_expired_token_is_unauthenticated(real_guard: Guard):
    expired = token_of("user_tess", claims={"exp": time.time() - 60})
    with pytest.raises(Unauthenticated) as raised:
        real_guard.require(expired, "course:read", THEIRS)
    assert raised.value.decision.reason == "TOKEN_EXPIRED"


def test_a_malformed_question_is_refused_with_the_field(real_guard: Guard):
    with pytest.raises(PdpRefused) as raised:
        real_guard.check(token_of("user_tess"), "", THEIRS)
    assert raised.value.reason == "REQUEST_INVALID"
    assert [violation.field for violation in raised.value.violations] == ["permission"]


def test_a_revision_that_does_not_exist_yet_is_no_answer(server: ServerProcess):
    # It asks again until its deadline.
    with (
        Guard(f"127.0.0.1:{server.port}", deadline_seconds=2) as guard,
        pytest.raises(PdpUnavailable) as raised,
    ):
        guard.check(token_of("user_tess"), "course:read", at_least_revision=10**9)
    assert raised.value.http_status == 503


def test_a_caller_without_its_key_is_refused_and_is_never_a_401(tmp_path: Path):
    with running_server(tmp_path, CALLERS=CALLERS) as (server, _):
        target = f"127.0.0.1:{server.port}"
        with Guard(target, api_key=API_KEY, deadline_seconds=10) as guard:
            # The database is empty, but the question is answered.
            assert guard.check(token_of("user_tess"), "course:read").reason == "ACTOR_UNKNOWN"
        for key in (None, API_KEY[:-1]):
            with (
                Guard(target, api_key=key, deadline_seconds=10) as guard,
                pytest.raises(PdpRefused) as raised,
            ):
                guard.require(token_of("user_tess"), "course:read")
            assert raised.value.reason == "CALLER_UNAUTHENTICATED"
            assert raised.value.http_status == 500
