"""A denial that a fresher factor would lift, from the wire to a browser."""

import json
from collections.abc import Iterator

import pytest
from pdp_client import Factor, Forbidden, Guard, StepUp, refusal_of
from pdpapi.v1 import decision_service_pb2 as pb
from pdpapi.v1.core_pb2 import DECISION_ALLOW, DECISION_DENY

from pdp.wire.external_auth_pb2 import CheckRequest as EnvoyRequest
from pdp.wire.external_auth_pb2 import CheckResponse as EnvoyResponse
from tests.kit.server import ServerProcess, Stubs, running_server, token_of

POLICY = """
permissions: [billing:change, billing:view]
roles:
  OWNER:
    allow:
      - billing:view
      - {permission: billing:change, when: actor.second_factor_minutes <= 10.0}
grants: [{role: OWNER, user: user_1}]
users: [{id: user_1}, {id: user_2}]
routes: {POST /billing: billing:change}
"""
CHALLENGE = (
    'Bearer error="insufficient_user_authentication", acr_values="second_factor", max_age="600"'
)


@pytest.fixture(scope="module")
def billing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Stubs]]:
    with running_server(tmp_path_factory.mktemp("billing"), POLICY) as running:
        yield running


def token(user: str, *factors: int) -> str:
    return token_of(user, claims={"fva": list(factors)})


def check(stubs: Stubs, token: str, permission: str = "billing:change") -> pb.CheckResponse:
    request = pb.CheckRequest(actor_token=token, permission=permission)
    return stubs.decision.Check(request, timeout=10)


def test_check_says_which_verification_is_missing_and_allows_after_it(billing) -> None:
    _, stubs = billing
    denied = check(stubs, token("user_1", 60, 60))
    assert denied.decision == DECISION_DENY
    assert denied.step_up.factor == pb.StepUp.FACTOR_SECOND
    assert denied.step_up.max_age.ToSeconds() == 600
    assert check(stubs, token("user_1", 60, 10)).decision == DECISION_ALLOW
    assert check(stubs, token("user_1", 60, 11)).decision == DECISION_DENY


@pytest.mark.parametrize(
    ("token", "permission"),
    [
        (token("user_1", 60, 0), "billing:change"),
        (token("user_2", 60, 60), "billing:change"),
        (token("user_3", 60, 60), "billing:change"),
        (token("user_1", 60, 60), "billing:burn"),
        (token("user_1", 60, 60) + "x", "billing:change"),
    ],
    ids=["an allow", "no role", "unknown", "undeclared", "forged"],
)
def test_no_other_answer_says_so(billing, token: str, permission: str) -> None:
    assert not check(billing[1], token, permission).HasField("step_up")


def test_each_answer_of_a_batch_has_its_own(billing) -> None:
    items = [pb.CheckItem(permission=f"billing:{one}") for one in ("change", "burn", "change")]
    request = pb.BatchCheckRequest(actor_token=token("user_1", 60, 60), items=items)
    results = billing[1].decision.BatchCheck(request, timeout=10).results
    assert [result.HasField("step_up") for result in results] == [True, False, True]


def test_a_guard_hands_it_on_to_the_browser(billing) -> None:
    server, _ = billing
    target = f"127.0.0.1:{server.port}"
    with Guard(target, deadline_seconds=10) as guard, pytest.raises(Forbidden) as caught:
        guard.require(token("user_1", 60, 60), "billing:change")
    assert caught.value.decision.step_up == StepUp(Factor.SECOND, 600)
    refusal = refusal_of(caught.value)
    assert (refusal.status, refusal.headers["WWW-Authenticate"]) == (403, CHALLENGE)
    reverification = json.loads(refusal.body)["clerk_error"]["metadata"]["reverification"]
    assert reverification == {"level": "second_factor", "afterMinutes": 10}


def test_envoy_gets_the_same(billing) -> None:
    server, _ = billing
    request = EnvoyRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host = b"POST", b"/billing", b"a.test"
    http.headers.add(key=b"authorization", value=f"Bearer {token('user_1', 60, 60)}".encode())
    with server.channel() as channel:
        ask = channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            request_serializer=EnvoyRequest.SerializeToString,
            response_deserializer=EnvoyResponse.FromString,
        )
        denied = ask(request, timeout=10).denied_response
    headers = {header.header.key: header.header.value for header in denied.headers}
    assert (denied.status.code, headers["www-authenticate"]) == (403, CHALLENGE)
    assert json.loads(denied.body)["clerk_error"]["reason"] == "reverification-error"
